package syncapi

import (
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

const client = "/_matrix/client/v3/"

// Routes lists the client API. None of it is rate limited but what writes: a
// client that listens waits by itself.
func (s *Service) Routes() []httpx.Route {
	return []httpx.Route{
		httpx.JSON(http.MethodGet, client+"sync", s.getSync, httpx.GuestsAllowed),
		httpx.JSON(http.MethodPost, client+"rooms/{roomId}/receipt/{receiptType}/{eventId}", s.postReceipt, httpx.EmptyBodyOK),
		httpx.JSON(http.MethodPost, client+"rooms/{roomId}/read_markers", s.postReadMarkers),
		httpx.JSON(http.MethodPut, client+"rooms/{roomId}/typing/{userId}", s.putTyping),
		httpx.JSON(http.MethodPut, client+"presence/{userId}/status", s.putPresence),
		httpx.JSON(http.MethodGet, client+"presence/{userId}/status", s.getPresence),
		httpx.JSON(http.MethodGet, client+"events", s.getEvents, httpx.GuestsAllowed),
		httpx.JSON(http.MethodGet, client+"rooms/{roomId}/initialSync", s.getRoomInitialSync, httpx.GuestsAllowed),
		httpx.JSON(http.MethodGet, client+"initialSync", s.getInitialSync),
	}
}
