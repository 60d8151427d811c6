package rooms

import (
	"maps"
	"slices"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

// RoomNID numbers a room.
type RoomNID int64

// SnapshotNID numbers a stored state snapshot; 0 is the empty state.
type SnapshotNID int64

// Flags say what became of an event. They survive a restart.
type Flags uint8

const (
	// Rejected events failed the authorisation rules; they are kept so that
	// events that depend on them can be rejected, too.
	Rejected Flags = 1 << iota
	// SoftFailed events pass at their own place in history but not against the
	// current state: other events may build on them, clients never see them.
	// spec: server-server#soft-failure
	SoftFailed
	// Outlier events are known only as auth events or state; they have no place
	// in the timeline.
	Outlier
	// Held redactions wait for the event that they redact, or may not redact it;
	// clients do not see them before they have an effect.
	// spec: rooms/v3#handling-redactions
	Held
	// Outside events are memberships of local users in rooms that nobody of this
	// server is in. They are no part of the room here.
	Outside
)

// Stored is an event with what the server knows of it beside its text. It is
// immutable once published, and shared: never change one, copy it.
type Stored struct {
	*event.Event
	NID      state.EventNID
	Room     RoomNID
	Key      state.KeyNID // 0 for an event that is not state
	Position int64        // order in the timeline: above 0 as committed, below 0 backfilled, 0 for what is not in it
	Snapshot SnapshotNID  // the state after the event, as the event itself sees it
	Resolved SnapshotNID  // the room's state after the event was committed; differs from Snapshot after forks
	Replaces state.EventNID
	Flags    Flags
	Auth     []state.EventNID // its auth events; of state events only

	RedactedBy state.EventNID // the redaction that was applied to it, or 0
	Relation   Relation
	Thread     matrix.EventID // the root of the thread that it belongs to, or ""
	Unread     int64          // running count of its room and thread: how many events up to here count as unread
	Counted    bool           // it counts itself
	Outgoing   bool           // the other servers in the room are sent it by this one
	Txn        *TxnKey        // how its sender's device knows it; only on recent events
}

// Served tells whether clients may ever be shown the event.
func (s *Stored) Served() bool { return s.Flags&(Rejected|SoftFailed|Held|Outside) == 0 }

// Given tells whether other servers may ever be given the event. A redaction that
// clients do not see is part of the history that later events build on.
func (s *Stored) Given() bool { return s.Flags&(Rejected|SoftFailed|Outside) == 0 }

// Relation is what an event says it relates to.
// spec: client-server#forming-relationships-between-events
type Relation struct {
	Type   string         // rel_type, such as m.thread, m.replace, m.annotation, m.reference
	Target matrix.EventID // event_id
	Key    string         // an annotation's key
}

// TxnKey identifies a request that a device may send again.
// spec: client-server#transaction-identifiers
type TxnKey struct {
	User   matrix.UserID
	Device matrix.DeviceID
	Path   int64 // a hash of what the id belongs to: the path of the request
	ID     string
	// Answered is closed when the request has been answered; nil if nobody can tell.
	Answered <-chan struct{}
}

// Committed is published on the stream for every commit that a room had events
// in: the events of one write that clients may see, in order, and the room as
// they leave it.
type Committed struct {
	Room            *Room
	Events          []*Stored
	State           *state.Map
	Snapshot        SnapshotNID
	Joined, Invited int
	// Outgoing are those of the events that other servers are sent, and
	// Destinations the servers that were in the room before or after the commit,
	// sorted and not to be changed. A server that came or went with the commit is
	// sent what OutgoingTo lists.
	Outgoing     []*Stored
	Destinations []matrix.ServerName
	Moves        []Move // who came and went, in order

	servers       *servers
	serverMoves   []serverMove
	redacted      map[state.EventNID]*Stored // redacted forms of older events
	memberChanges []memberChange             // of local users
	unseen        []*Stored                  // events of the write that clients do not see
	created       bool                       // the room is new
	gapped        *Stored                    // the newest of Events that came without what it builds on
}

// memberChange is a change of a membership in the room's state. Where branches
// were resolved, the member event may be older than the event that brought it.
type memberChange struct {
	user  matrix.UserID
	event *Stored // nil: there is none any more
	by    *Stored
}

func (c memberChange) membership() string {
	if c.event == nil {
		return ""
	}
	return c.event.Membership()
}

// LocalMove is a change of a local user's membership.
type LocalMove struct {
	User  matrix.UserID
	Event *Stored // their member event; nil: there is none any more
}

// LocalMoves lists the local users whose memberships the commit changed, those
// included that were stored from outside.
func (c *Committed) LocalMoves() []LocalMove {
	moves := make([]LocalMove, len(c.memberChanges))
	for i, m := range c.memberChanges {
		moves[i] = LocalMove{m.user, m.event}
	}
	return moves
}

// Redacted lists the older events that lost their content in the commit, in
// their redacted form.
func (c *Committed) Redacted() []*Stored { return slices.Collect(maps.Values(c.redacted)) }
