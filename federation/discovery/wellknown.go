package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	// MaxWellKnown is the largest .well-known document, in bytes.
	MaxWellKnown = 50 << 10
	// WellKnownTime is how long fetching one may take, redirects included.
	WellKnownTime = 10 * time.Second

	defaultLife  = 24 * time.Hour // of a document that does not say
	minLife      = 5 * time.Minute
	maxLife      = 48 * time.Hour
	firstBackoff = time.Minute // after a failure; doubled with each
	maxBackoff   = time.Hour
)

// ClientOptions are for the client that fetches .well-known documents:
// Options.HTTP = dialer.Client(discovery.ClientOptions()).
func ClientOptions() dialer.ClientOptions {
	return dialer.ClientOptions{Timeout: WellKnownTime, MaxBody: MaxWellKnown, MaxRedirects: 5, HTTPSOnly: true}
}

// delegation is what is known about a host's .well-known document.
type delegation struct {
	to       matrix.ServerName // "" if there is none
	fetched  time.Time         // when to was told
	until    time.Time         // when to ask again
	failures int               // since it was told
}

// delegate finds the server that a host delegates to, from memory or by asking.
func (r *Resolver) delegate(ctx context.Context, host string) delegation {
	now := r.o.Now()
	known, _ := r.delegations.Get(host)
	if now.Before(known.until) {
		return known
	}
	to, life, err := r.fetch(ctx, host)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return known
		}
		r.o.Log.Debug("No delegation by .well-known", "host", host, "error", err)
		life = min(firstBackoff<<min(known.failures, 10), maxBackoff)
		known.failures++
		if now.Sub(known.fetched) > maxLife {
			known.to = ""
		}
	} else {
		known = delegation{to: to, fetched: now}
	}
	known.until = now.Add(life)
	r.delegations.Add(host, known)
	return known
}

// fetch asks a host for its .well-known document.
// spec: server-server#getwell-knownmatrixserver
func (r *Resolver) fetch(ctx context.Context, host string) (to matrix.ServerName, life time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, WellKnownTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/matrix/server", nil)
	if err != nil {
		return "", 0, err
	}
	answer, err := r.o.HTTP.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("discovery: .well-known answers with status %d", answer.StatusCode)
	}
	text, err := io.ReadAll(dialer.Capped(answer.Body, MaxWellKnown))
	if err != nil {
		return "", 0, err
	}
	to, err = parseWellKnown(text)
	return to, lifetime(answer.Header, r.o.Now()), err
}

func parseWellKnown(text []byte) (matrix.ServerName, error) {
	var document map[string]json.RawMessage
	if err := json.Unmarshal(text, &document); err != nil {
		return "", fmt.Errorf("discovery: .well-known: %w", err)
	}
	var to matrix.ServerName
	if err := json.Unmarshal(document["m.server"], &to); err != nil {
		return "", fmt.Errorf("discovery: .well-known has no m.server: %w", err)
	}
	_, err := ParseName(to)
	return to, err
}

// lifetime is how long a document may be remembered.
func lifetime(h http.Header, now time.Time) time.Duration {
	life, told := defaultLife, false
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return minLife
			case "max-age":
				seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 64)
				if err == nil || errors.Is(err, strconv.ErrRange) {
					told, life = true, time.Duration(min(seconds, uint64(maxLife/time.Second)))*time.Second
				}
			}
		}
	}
	if expires := h.Get("Expires"); expires != "" && !told {
		life = 0 // a time that is none has passed
		if at, err := http.ParseTime(expires); err == nil {
			life = at.Sub(now)
		}
	}
	return min(max(life, minLife), maxLife)
}
