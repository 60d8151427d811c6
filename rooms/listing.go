package rooms

import "github.com/teahouse-chat/teahouse/internal/matrix"

// Listing is a room as a directory shows it.
// spec: client-server#get_matrixclientv3publicrooms
type Listing struct {
	RoomID         matrix.RoomID `json:"room_id"`
	Name           string        `json:"name,omitempty"`
	Topic          string        `json:"topic,omitempty"`
	CanonicalAlias string        `json:"canonical_alias,omitempty"`
	AvatarURL      string        `json:"avatar_url,omitempty"`
	JoinRule       string        `json:"join_rule,omitempty"`
	RoomType       string        `json:"room_type,omitempty"`
	JoinedMembers  int           `json:"num_joined_members"`
	WorldReadable  bool          `json:"world_readable"`
	GuestsMayJoin  bool          `json:"guest_can_join"`
}

// ListingQuery asks a directory for some of its rooms. It is the body of such a
// request.
// spec: client-server#post_matrixclientv3publicrooms
type ListingQuery struct {
	Limit       *int          `json:"limit,omitempty"`
	Since       string        `json:"since,omitempty"`
	Filter      ListingFilter `json:"filter"`
	AllNetworks bool          `json:"include_all_networks,omitempty"`
	Network     string        `json:"third_party_instance_id,omitempty"`
}

// ListingFilter picks rooms. The zero value picks all.
type ListingFilter struct {
	Term  string     `json:"generic_search_term,omitempty"`
	Types *[]*string `json:"room_types,omitempty"` // nil among them: rooms without a type
}

// ListingPage is a part of a directory.
type ListingPage struct {
	Chunk     []Listing `json:"chunk"`
	NextBatch string    `json:"next_batch,omitempty"`
	PrevBatch string    `json:"prev_batch,omitempty"`
	Total     int       `json:"total_room_count_estimate"`
}
