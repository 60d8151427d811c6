package policy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/teahouse-chat/teahouse/federation/policy"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

func TestSign(t *testing.T) {
	n := testrig.NewNetwork()
	asker, judge := testrig.NewPeer(t, n, "here"), testrig.NewPeer(t, n, "judge")
	alice := asker.User("alice")
	room := asker.Create("12", alice)
	judge.Handle("POST /_matrix/policy/v1/sign", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch ev, err := event.Parse(room.Version, body); {
		case err != nil:
			testrig.WriteJSON(w, 400, testrig.JSON{"errcode": "M_BAD_JSON", "error": err.Error()})
		case strings.Contains(string(ev.Content), "spam"):
			testrig.WriteJSON(w, 400, testrig.JSON{"errcode": "M_FORBIDDEN", "error": "It looks like spam"})
		case strings.Contains(string(ev.Content), "busy"):
			testrig.WriteJSON(w, 429, testrig.JSON{"errcode": "M_LIMIT_EXCEEDED", "error": "Later"})
		case strings.Contains(string(ev.Content), "odd"):
			testrig.WriteJSON(w, 200, testrig.JSON{"other": testrig.JSON{"ed25519:1": "x"}})
		case strings.Contains(string(ev.Content), "broken"):
			testrig.WriteJSON(w, 500, testrig.JSON{})
		default:
			signed, err := ev.Sign("judge", event.SigningKey{ID: "ed25519:policy_server", Private: judge.Key.Private})
			if err != nil {
				t.Error(err)
			}
			var all struct {
				Signatures map[string]json.RawMessage `json:"signatures"`
			}
			_ = json.Unmarshal(signed.JSON, &all)
			testrig.WriteJSON(w, 200, testrig.JSON{"judge": all.Signatures["judge"]})
		}
	})
	for text, want := range map[string]*matrix.Error{
		"hello":  nil,
		"spam":   matrix.NewError(400, matrix.CodeForbidden, "It looks like spam"),
		"busy":   matrix.NewError(429, matrix.CodeLimitExceeded, "Later"),
		"odd":    matrix.NewError(502, matrix.CodeUnknown, ""),
		"broken": matrix.NewError(502, matrix.CodeUnknown, ""),
	} {
		ev := room.Say(alice, text)
		signature, err := policy.Servers{Asker: asker.Client}.Sign(t.Context(), "judge", ev)
		if want == nil {
			signed, failed := ev.AddSignature("judge", "ed25519:policy_server", signature)
			if err != nil || failed != nil || len(signed.KeyIDs("judge")) != 1 || signed.ID != ev.ID {
				t.Errorf("%s: %v %v", text, err, failed)
			}
			continue
		}
		if got := matrix.AsError(err); err == nil || got.Status != want.Status || got.Code != want.Code || want.Text != "" && got.Text != want.Text {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := (policy.Servers{Asker: asker.Client}).Sign(t.Context(), "nowhere", room.Say(alice, "x")); matrix.AsError(err).Status != 502 {
		t.Errorf("nobody: %v", err)
	}
}
