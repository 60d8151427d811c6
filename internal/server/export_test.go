package server

import (
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
	"github.com/teahouse-chat/teahouse/rooms"
)

// Edge lets tests see and add routes.
func (s *Server) Edge() *httpx.Edge { return s.edge }

// DB lets tests see what is stored.
func (s *Server) DB() *db.DB { return s.db }

// Rooms lets tests compare what clients are told with what there is.
func (s *Server) Rooms() *rooms.Engine { return s.rooms }
