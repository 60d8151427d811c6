package transport

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms/event"
)

// line is what is signed of a request beside its content.
type line struct {
	Destination matrix.ServerName            `json:"destination"`
	Method      string                       `json:"method"`
	Origin      matrix.ServerName            `json:"origin"`
	Signatures  map[string]map[string]string `json:"signatures,omitempty"`
	URI         string                       `json:"uri"`
}

var errContent = errors.New("transport: the content is not a JSON object")

// object is the JSON that is signed. The content must be an object by itself:
// text that only becomes one among the rest could bring members of its own.
// spec: server-server#request-authentication
func (l line) object(content []byte) ([]byte, error) {
	var rest bytes.Buffer
	e := json.NewEncoder(&rest)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, err
	}
	content = bytes.Trim(content, " \t\r\n")
	if len(content) == 0 {
		return bytes.TrimRight(rest.Bytes(), "\n"), nil
	}
	if content[0] != '{' || !json.Valid(content) {
		return nil, errContent
	}
	all := make([]byte, 0, len(content)+rest.Len()+16)
	all = append(append(all, `{"content":`...), content...)
	return append(append(all, ','), bytes.TrimRight(rest.Bytes()[1:], "\n")...), nil
}

// sign makes the Authorization header of a request.
func sign(l line, content []byte, key event.SigningKey) (string, error) {
	object, err := l.object(content)
	if err != nil {
		return "", err
	}
	signed, err := event.SignJSON(object, string(l.Origin), key)
	if err != nil {
		return "", err
	}
	var found struct {
		Signatures map[matrix.ServerName]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(signed, &found); err != nil {
		return "", err
	}
	return Header{l.Origin, l.Destination, key.ID, found.Signatures[l.Origin][key.ID]}.String(), nil
}
