package simulation_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/internal/testrig"
)

// links are what lies between the servers of a network.
type links struct {
	network *testrig.Network
	seed    uint64
	names   []matrix.ServerName
	all     map[[2]matrix.ServerName]*link // by who dials, and whom
}

func newLinks(seed uint64, names []matrix.ServerName) *links {
	l := &links{network: testrig.NewNetwork(), seed: seed, names: names, all: map[[2]matrix.ServerName]*link{}}
	for i, from := range names {
		for j, to := range names {
			k := &link{chance: rand.New(rand.NewPCG(seed, uint64(i*len(names)+j))), open: make(chan struct{}), wires: map[*wire]bool{}}
			k.delay = time.Duration(1+k.chance.IntN(100)) * time.Millisecond
			close(k.open)
			l.all[[2]matrix.ServerName{from, to}] = k
		}
	}
	return l
}

// dial is how a server reaches others.
func (l *links) dial(from matrix.ServerName) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		k := l.all[[2]matrix.ServerName{from, l.host(ctx, address)}]
		if k == nil {
			return l.network.Dial(ctx, network, address)
		}
		if err := k.pass(ctx.Done()); err != nil {
			return nil, err
		}
		conn, err := l.network.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return k.connect(conn), nil
	}
}

// host is the server at an address.
func (l *links) host(ctx context.Context, address string) matrix.ServerName {
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	for _, name := range l.names {
		if found, err := l.network.Resolve(ctx, string(name)); err == nil && found[0].String() == ip {
			return name
		}
	}
	return ""
}

// between does something to the links between two servers, both ways.
func (l *links) between(a, b matrix.ServerName, do func(*link)) {
	do(l.all[[2]matrix.ServerName{a, b}])
	do(l.all[[2]matrix.ServerName{b, a}])
}

// every does something to all links.
func (l *links) every(do func(*link)) {
	for _, a := range l.names {
		for _, b := range l.names {
			do(l.all[[2]matrix.ServerName{a, b}])
		}
	}
}

// link is the way from one server to another.
type link struct {
	mu      sync.Mutex
	chance  *rand.Rand
	delay   time.Duration // of most writes; the highest is ten times as long
	loss    float64       // of writes, from 0 to 1
	refuses bool          // while it is cut, that shows at once
	open    chan struct{} // closed while the link is not cut
	wires   map[*wire]bool
}

var errCut = errors.New("the connection was refused")

// cut ends what is under way and refuses what comes, or it holds everything up, so
// that nobody knows.
func (k *link) cut(refuses bool) {
	k.mu.Lock()
	k.refuses = refuses
	select {
	case <-k.open:
		k.open = make(chan struct{})
	default:
	}
	var ended []*wire
	if refuses {
		for w := range k.wires {
			ended = append(ended, w)
		}
	}
	k.mu.Unlock()
	for _, w := range ended {
		_ = w.Close()
	}
}

func (k *link) heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.open:
	default:
		close(k.open)
	}
}

func (k *link) loses(share float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loss = share
}

// pass waits until the link is not cut.
func (k *link) pass(ended <-chan struct{}) error {
	k.mu.Lock()
	open, refuses := k.open, k.refuses
	k.mu.Unlock()
	select {
	case <-open:
		return nil
	default:
	}
	if refuses {
		return errCut
	}
	select {
	case <-open:
		return nil
	case <-ended:
		return context.Canceled
	}
}

// fate is what becomes of a write.
type fate int

const (
	arrives  fate = iota
	lost          // before it arrives
	answered      // it arrives, but the answer is lost
)

// post decides about a write.
func (k *link) post() (time.Duration, fate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delay := k.delay + time.Duration(k.chance.Int64N(int64(k.delay)))
	if k.chance.IntN(20) == 0 {
		delay *= 5
	}
	switch by := k.chance.Float64(); {
	case by < k.loss/2:
		return delay, lost
	case by < k.loss:
		return delay, answered
	}
	return delay, arrives
}
