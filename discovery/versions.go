package discovery

import (
	"context"

	"github.com/teahouse-chat/teahouse/internal/httpx"
)

// specVersions lists what clients may rely on. Several of them look for one
// particular version before they turn something on or start at all.
var specVersions = []string{
	"r0.6.1",
	"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
	"v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
}

// unstableFeatures lists what is served beside, or under older names than, the
// specification. A feature is added here when it works.
var unstableFeatures = map[string]bool{
	"org.matrix.msc4222":                      true, // use_state_after of /sync
	"uk.half-shot.msc2666.query_mutual_rooms": true, // mutual rooms at the unstable path
	"uk.tcpip.msc4133":                        true, // keyed profile fields, at the unstable path
	"uk.tcpip.msc4133.stable":                 true, // and at the stable one
}

type versionsAnswer struct {
	Versions []string        `json:"versions"`
	Unstable map[string]bool `json:"unstable_features"`
}

// spec: client-server#get_matrixclientversions
func (s *Discovery) getVersions(context.Context, *httpx.Caller, *nothing) (*versionsAnswer, error) {
	return &versionsAnswer{Versions: specVersions, Unstable: unstableFeatures}, nil
}
