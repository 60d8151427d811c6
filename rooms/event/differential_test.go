package event

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	gomatrix "github.com/matrix-org/gomatrixserverlib"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"pgregory.net/rapid"
)

// plainDraft draws drafts with contents on which implementations agree: no
// characters that some of them escape needlessly.
func plainDraft(t *rapid.T, v *Version) Draft {
	d := draft(v, rapid.SampledFrom([]string{
		matrix.TypeMessage, matrix.TypeMember, matrix.TypePowerLevels, matrix.TypeJoinRules, matrix.TypeAliases,
		matrix.TypeHistoryVisibility, matrix.TypeRedaction, matrix.TypeCreate, matrix.TypeName,
	}).Draw(t, "type"), "")
	content := map[string]any{}
	values := map[string]*rapid.Generator[any]{
		"membership":                       rapid.SampledFrom([]any{"join", "leave", "invite"}),
		"join_authorised_via_users_server": rapid.Just[any]("@v:example.org"),
		"third_party_invite":               rapid.Just[any](map[string]any{"display_name": "x", "signed": map[string]any{"mxid": "@a:b", "n": 1}}),
		"join_rule":                        rapid.SampledFrom([]any{"public", "restricted"}),
		"allow":                            rapid.Just[any]([]any{map[string]any{"type": "m.room_membership", "room_id": "!x:y"}}),
		"aliases":                          rapid.Just[any]([]any{"#a:b", "#é:b"}),
		"creator":                          rapid.Just[any]("@c:d"),
		"history_visibility":               rapid.Just[any]("shared"),
		"redacts":                          rapid.Just[any]("$x"),
		"users":                            rapid.Just[any](map[string]any{"@z:x": 100, "@a:x": 50}),
		"events":                           rapid.Just[any](map[string]any{"m.room.name": 50}),
		"notifications":                    rapid.Just[any](map[string]any{"room": 50}),
		"ban":                              rapid.Map(rapid.IntRange(-100, 100), func(n int) any { return n }),
		"invite":                           rapid.Map(rapid.IntRange(-100, 100), func(n int) any { return n }),
		"users_default":                    rapid.Map(rapid.IntRange(-100, 100), func(n int) any { return n }),
		"body":                             rapid.Map(rapid.StringMatching(`[ -!#-%'-;=?-\[\]-~äß日本😀]{0,30}`), func(s string) any { return s }),
	}
	if v.RedactKeepsSigned {
		delete(values, "third_party_invite") // which they strip whole
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if rapid.Bool().Draw(t, key+"?") {
			content[key] = values[key].Draw(t, key)
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	d.Content = raw
	if rapid.Bool().Draw(t, "state") {
		d.StateKey = ptr(rapid.StringMatching(`[a-z@:]{0,20}`).Draw(t, "state key"))
	}
	if d.Type == matrix.TypeRedaction {
		d.Redacts = "$target"
	}
	return d
}

// TestAgainstGomatrixserverlib asks another implementation for the id, the
// redacted form and its verdict on the content hash, in the room versions that
// it knows well.
func TestAgainstGomatrixserverlib(t *testing.T) {
	for _, v := range Versions() {
		if v.RoomIDHash {
			continue
		}
		other := gomatrix.MustGetRoomVersion(gomatrix.RoomVersion(v.ID))
		t.Run(v.ID, rapid.MakeCheck(func(t *rapid.T) {
			e, err := Build(v, plainDraft(t, v), "example.org", testKey(t))
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := other.NewEventFromTrustedJSON(e.JSON, false)
			if err != nil {
				t.Fatal(err)
			}
			if theirs.EventID() != string(e.ID) {
				t.Fatalf("id %s, they say %s, of %s", e.ID, theirs.EventID(), e.JSON)
			}
			redacted, err := other.RedactEventJSON(e.JSON)
			if err != nil {
				t.Fatal(err)
			}
			if redacted, err = gomatrix.CanonicalJSON(redacted); err != nil {
				t.Fatal(err)
			}
			if got := string(e.Redact().JSON); got != string(redacted) {
				t.Fatalf("redacted %s\nthey say %s", got, redacted)
			}
			untrusted, err := other.NewEventFromUntrustedJSON(e.JSON)
			if err != nil {
				t.Fatal(err)
			}
			if untrusted.Redacted() {
				t.Fatalf("they refuse the content hash of %s", e.JSON)
			}
		}))
	}
}
