package accounts

import (
	"net/http"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// challenge asks the client for the next stage. It has no errcode unless a stage
// failed; failure is that of the stage that was tried, or nil.
// spec: client-server#user-interactive-api-in-the-rest-api
func (u *UIA) challenge(s *uiaSession, failure *matrix.Error) *matrix.Error {
	u.mu.Lock()
	defer u.mu.Unlock()
	flows, params := make([]map[string]Flow, len(s.flows)), map[string]any{}
	for i, f := range s.flows {
		flows[i] = map[string]Flow{"stages": f}
		for _, name := range f {
			if p := u.stages[name].params(); p != nil {
				params[name] = p
			}
		}
	}
	e := &matrix.Error{Status: http.StatusUnauthorized, Text: "This request needs user-interactive authentication", Extra: map[string]any{
		"session": s.id, "flows": flows, "params": params, "completed": append([]string{}, s.completed...),
	}}
	if failure != nil {
		e.Code, e.Text = failure.Code, failure.Text
	}
	return e
}
