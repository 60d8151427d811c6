package queries

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
)

const (
	aliasKept  = time.Minute
	aliasTime  = 10 * time.Second
	aliasBytes = 64 << 10

	publicTime  = 20 * time.Second
	publicBytes = 8 << 20
	publicRooms = 1000 // of one answer
)

type aliasAnswer struct {
	room    matrix.RoomID
	servers []matrix.ServerName
}

func (a aliasAnswer) size() int {
	n := len(a.room)
	for _, s := range a.servers {
		n += 16 + len(s)
	}
	return n
}

// Alias asks an alias's server for its room, and servers that are in it; 404
// M_NOT_FOUND if there is no such alias.
// spec: server-server#get_matrixfederationv1querydirectory
func (q *Queries) Alias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	a, err := q.aliases.get(ctx, string(alias), func(ctx context.Context) (aliasAnswer, error) { return q.askAlias(ctx, alias) })
	return a.room, slices.Clone(a.servers), err
}

func (q *Queries) askAlias(ctx context.Context, alias matrix.RoomAlias) (aliasAnswer, error) {
	var told struct {
		RoomID  string   `json:"room_id"`
		Servers []string `json:"servers"`
	}
	err := q.get(ctx, transport.Request{
		Destination: alias.Server(), Path: "/_matrix/federation/v1/query/directory", Query: url.Values{"room_alias": {string(alias)}},
		Timeout: aliasTime, MaxAnswer: aliasBytes,
	}, &told)
	if err != nil {
		return aliasAnswer{}, err
	}
	room, err := matrix.ParseRoomID(told.RoomID)
	if err != nil {
		return aliasAnswer{}, forClient(alias.Server(), errors.New("the answer names no room"))
	}
	servers := serverNames(told.Servers)
	if !slices.Contains(servers, alias.Server()) {
		servers = append(servers, alias.Server())
	}
	return aliasAnswer{room, servers}, nil
}

// PublicRooms asks a server for its published rooms.
// spec: server-server#post_matrixfederationv1publicrooms
func (q *Queries) PublicRooms(ctx context.Context, server matrix.ServerName, query rooms.ListingQuery) (*rooms.ListingPage, error) {
	r, err := publicRequest(query)
	if err != nil {
		return nil, err
	}
	r.Destination, r.Timeout, r.MaxAnswer = server, publicTime, publicBytes
	var told struct {
		Chunk []json.RawMessage `json:"chunk"`
		Next  string            `json:"next_batch"`
		Prev  string            `json:"prev_batch"`
		Total json.RawMessage   `json:"total_room_count_estimate"`
	}
	if err := q.client.JSON(ctx, r, &told); err != nil {
		return nil, forClient(server, err)
	}
	page := &rooms.ListingPage{Chunk: []rooms.Listing{}, NextBatch: told.Next, PrevBatch: told.Prev}
	_ = json.Unmarshal(told.Total, &page.Total) // an estimate that is none is not needed
	for _, raw := range told.Chunk[:min(len(told.Chunk), publicRooms)] {
		var room rooms.Listing
		if json.Unmarshal(raw, &room) != nil {
			continue
		}
		if _, err := matrix.ParseRoomID(string(room.RoomID)); err == nil {
			page.Chunk = append(page.Chunk, room)
		}
	}
	return page, nil
}

// publicRequest asks the simple way where that is enough.
func publicRequest(query rooms.ListingQuery) (transport.Request, error) {
	r := transport.Request{Method: http.MethodGet, Path: "/_matrix/federation/v1/publicRooms", Query: url.Values{}}
	if query.Filter.Term != "" || query.Filter.Types != nil {
		var err error
		r.Method = http.MethodPost
		r.Content, err = json.Marshal(query)
		return r, err
	}
	if query.Limit != nil {
		r.Query.Set("limit", strconv.Itoa(*query.Limit))
	}
	if query.Since != "" {
		r.Query.Set("since", query.Since)
	}
	if query.Network != "" {
		r.Query.Set("third_party_instance_id", query.Network)
	}
	if query.AllNetworks {
		r.Query.Set("include_all_networks", "true")
	}
	return r, nil
}
