package server

import (
	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// Edge lets tests see and add routes.
func (s *Server) Edge() *httpx.Edge { return s.edge }

// DB lets tests see what is stored.
func (s *Server) DB() *db.DB { return s.db }
