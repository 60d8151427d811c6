package matrix

// Event types that the server itself reads or writes.
const (
	TypeCreate            = "m.room.create"
	TypeMember            = "m.room.member"
	TypePowerLevels       = "m.room.power_levels"
	TypeJoinRules         = "m.room.join_rules"
	TypeThirdPartyInvite  = "m.room.third_party_invite"
	TypeHistoryVisibility = "m.room.history_visibility"
	TypeGuestAccess       = "m.room.guest_access"
	TypeCanonicalAlias    = "m.room.canonical_alias"
	TypeAliases           = "m.room.aliases"
	TypeName              = "m.room.name"
	TypeTopic             = "m.room.topic"
	TypeAvatar            = "m.room.avatar"
	TypeEncryption        = "m.room.encryption"
	TypeTombstone         = "m.room.tombstone"
	TypeServerACL         = "m.room.server_acl"
	TypePinnedEvents      = "m.room.pinned_events"
	TypeRedaction         = "m.room.redaction"
	TypeMessage           = "m.room.message"
	TypePolicy            = "m.room.policy"
	TypeEncrypted         = "m.room.encrypted"
	TypeReaction          = "m.reaction"
	TypeSpaceChild        = "m.space.child"
	TypeSpaceParent       = "m.space.parent"
	TypePolicyServer      = "m.room.policy"
)

// Memberships of m.room.member.
const (
	MembershipInvite = "invite"
	MembershipJoin   = "join"
	MembershipKnock  = "knock"
	MembershipLeave  = "leave"
	MembershipBan    = "ban"
)

// Join rules of m.room.join_rules.
const (
	JoinPublic          = "public"
	JoinInvite          = "invite"
	JoinKnock           = "knock"
	JoinPrivate         = "private"
	JoinRestricted      = "restricted"
	JoinKnockRestricted = "knock_restricted"
)

// History visibilities of m.room.history_visibility.
const (
	VisibilityInvited       = "invited"
	VisibilityJoined        = "joined"
	VisibilityShared        = "shared"
	VisibilityWorldReadable = "world_readable"
)
