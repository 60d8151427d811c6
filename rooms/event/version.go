package event

// StateRes names a state resolution algorithm.
type StateRes int

// The state resolution algorithms.
const (
	StateResV1  StateRes = iota + 1 // rooms/v1#state-resolution
	StateResV2                      // rooms/v2#state-resolution
	StateResV21                     // rooms/v12#state-resolution
)

// IDFormat says how an event gets its id.
type IDFormat int

// The event id formats.
const (
	IDText   IDFormat = iota // "$opaque:server" in a member event_id; references are [id, {"sha256": …}]
	IDBase64                 // "$" + standard base64 of the reference hash
	IDURL                    // "$" + URL-safe base64 of the reference hash
)

// Version is one room version: a row of the table of everything that differs.
type Version struct {
	ID     string
	Stable bool

	// Format.
	EventIDs   IDFormat
	RoomIDHash bool // the room id is "!" + the create event's hash; create has no room_id, is no auth event
	StrictJSON bool // canonical JSON is enforced: integers within ±(2^53-1), no floats, no -0
	StrictSize bool // the sizes of type and state_key count in bytes; before, some servers took characters

	// Keys and signatures.
	KeyValidity    bool // a signature counts only if its key was valid at origin_server_ts
	SignedByIDHost bool // the server named in the event id must sign too

	// Redaction.
	RedactKeepsOrigin     bool // top-level origin, membership and prev_state survive
	RedactKeepsAliases    bool // m.room.aliases keeps aliases
	RedactKeepsAllow      bool // m.room.join_rules keeps allow
	RedactKeepsAuthorised bool // m.room.member keeps join_authorised_via_users_server
	RedactKeepsCreate     bool // m.room.create keeps all of its content, instead of creator only
	RedactKeepsInvite     bool // m.room.power_levels keeps invite
	RedactKeepsSigned     bool // m.room.member keeps third_party_invite.signed
	RedactsInContent      bool // m.room.redaction names its target in content, and keeps that when redacted

	// Authorisation.
	AliasesRule        bool // m.room.aliases is allowed by its state key's server alone
	RedactionRule      bool // redactions are judged by the auth rules (later versions: when they are applied)
	NotificationLevels bool // changes of "notifications" need power as changes of "events" do
	Knocking           bool // membership and join rule "knock"
	RestrictedJoins    bool // join rule "restricted" and join_authorised_via_users_server
	KnockRestricted    bool // join rule "knock_restricted"
	IntegerLevels      bool // power levels are integers, never texts
	CreatorInContent   bool // content.creator of the create event is the creator; later versions: its sender
	CreatorPower       bool // creators have infinite power; additional_creators

	StateRes StateRes
}

var versions = buildVersions()

// buildVersions derives each version from the one before it, as the
// specification does.
// spec: rooms/v12#unchanged-from-v11
func buildVersions() []*Version {
	v := Version{
		Stable: true, EventIDs: IDText, SignedByIDHost: true,
		RedactKeepsOrigin: true, RedactKeepsAliases: true,
		AliasesRule: true, RedactionRule: true, CreatorInContent: true,
		StateRes: StateResV1,
	}
	var list []*Version
	next := func(id string, change func()) {
		v.ID = id
		change()
		row := v
		list = append(list, &row)
	}
	next("1", func() {})
	next("2", func() { v.StateRes = StateResV2 })
	next("3", func() { v.EventIDs, v.SignedByIDHost, v.RedactionRule = IDBase64, false, false })
	next("4", func() { v.EventIDs = IDURL })
	next("5", func() { v.KeyValidity = true })
	next("6", func() {
		v.StrictJSON, v.NotificationLevels = true, true
		v.AliasesRule, v.RedactKeepsAliases = false, false
	})
	next("7", func() { v.Knocking = true })
	next("8", func() { v.RestrictedJoins, v.RedactKeepsAllow = true, true })
	next("9", func() { v.RedactKeepsAuthorised = true })
	next("10", func() { v.KnockRestricted, v.IntegerLevels = true, true })
	next("11", func() {
		v.StrictSize = true
		v.RedactKeepsOrigin, v.CreatorInContent = false, false
		v.RedactKeepsCreate, v.RedactKeepsInvite, v.RedactKeepsSigned, v.RedactsInContent = true, true, true, true
	})
	next("12", func() { v.RoomIDHash, v.CreatorPower, v.StateRes = true, true, StateResV21 })
	return list
}

// Lookup finds a room version by its name, "1" to "12".
func Lookup(id string) (*Version, bool) {
	for _, v := range versions {
		if v.ID == id {
			return v, true
		}
	}
	return nil, false
}

// Versions lists all room versions, oldest first. The caller owns the slice.
func Versions() []*Version { return append([]*Version(nil), versions...) }
