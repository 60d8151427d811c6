package httpx

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Rate is how often a caller may do something: PerSecond in the long run, Burst
// at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// maxBuckets bounds what one class remembers, in each of two generations.
const maxBuckets = 50_000

// Limiter holds token buckets by class and caller. Its memory is bounded: a
// bucket that was not touched for as long as it takes to fill is forgotten, and
// so are the oldest when there are too many.
type Limiter struct {
	now     func() time.Time
	classes map[string]*limitClass
}

// limitKey is a user, or an address where no user is known.
type limitKey struct {
	name string
	addr netip.Addr
}

type limitClass struct {
	rate Rate
	keep time.Duration // a bucket idle for this long is full

	mu       sync.Mutex
	current  map[limitKey]*rate.Limiter
	previous map[limitKey]*rate.Limiter // of the generation before
	turned   time.Time
}

// NewLimiter makes a limiter; a class that is not in rates is not limited.
func NewLimiter(rates map[string]Rate, now func() time.Time) *Limiter {
	l := &Limiter{now: now, classes: make(map[string]*limitClass, len(rates))}
	for name, r := range rates {
		if r.PerSecond <= 0 || r.Burst <= 0 {
			continue
		}
		keep := time.Duration(float64(r.Burst) / r.PerSecond * float64(time.Second))
		l.classes[name] = &limitClass{rate: r, keep: max(keep, time.Second), current: map[limitKey]*rate.Limiter{}, turned: now()}
	}
	return l
}

// Take spends one token of the caller in class: of the user, or of the address
// when nobody is logged in. It returns a 429 that says when to come back.
func (l *Limiter) Take(class string, c *Caller) error {
	if c.Exempt {
		return nil
	}
	if c.User != "" {
		return l.take(class, limitKey{name: string(c.User)})
	}
	return l.take(class, limitKey{addr: network(c.Addr)})
}

// TakeFor spends one token of a name that is not the caller's, such as that of
// the account someone tries to log in to.
func (l *Limiter) TakeFor(class, name string) error {
	return l.take(class, limitKey{name: name})
}

func (l *Limiter) take(class string, key limitKey) error {
	if l == nil || l.classes[class] == nil {
		return nil
	}
	now := l.now()
	r := l.classes[class].bucket(key, now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return nil
	}
	r.CancelAt(now)
	return matrix.LimitExceeded(wait)
}

func (c *limitClass) bucket(key limitKey, now time.Time) *rate.Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.current) >= maxBuckets || now.Sub(c.turned) >= c.keep {
		c.previous, c.current, c.turned = c.current, make(map[limitKey]*rate.Limiter), now
	}
	b := c.current[key]
	if b == nil {
		if b = c.previous[key]; b == nil {
			b = rate.NewLimiter(rate.Limit(c.rate.PerSecond), c.rate.Burst)
		}
		c.current[key] = b
	}
	return b
}

// network is what one customer has: an IPv4 address or an IPv6 /64.
func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}
