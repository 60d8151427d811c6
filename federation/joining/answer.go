package joining

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/internal/matrix"
	"github.com/teahouse-chat/teahouse/rooms"
	"github.com/teahouse-chat/teahouse/rooms/state"
)

const (
	chunk     = 256              // events that are read and written together
	stallTime = 30 * time.Second // for the other server to take a chunk
	maxHeroes = 5
)

type joinRequest struct {
	sendRequest
	OmitMembers bool `query:"omit_members"`
}

// takeJoin lets a user into a room and tells their server all of it.
// spec: server-server#put_matrixfederationv2send_joinroomideventid
func (j *Joining) takeJoin(ctx context.Context, origin matrix.ServerName, q *joinRequest) (*answer, error) {
	h, err := j.submitted(ctx, origin, &q.sendRequest, matrix.MembershipJoin)
	if err != nil {
		return nil, err
	}
	st, err := j.admit(ctx, h)
	if err != nil {
		return nil, err
	}
	m, err := j.Engine.StateBefore(ctx, st)
	if err != nil {
		return nil, err
	}
	a := &answer{ctx: ctx, j: j, h: h, join: st, partial: q.OmitMembers, weight: min(int64(m.Len()), answersAtATime)}
	if err := j.answers.Acquire(ctx, a.weight); err != nil {
		return nil, err
	}
	if err := a.gather(m); err != nil {
		j.answers.Release(a.weight)
		return nil, err
	}
	return a, nil
}

// takeJoinV1 is takeJoin with the answer of the first version.
// spec: server-server#put_matrixfederationv1send_joinroomideventid
func (j *Joining) takeJoinV1(ctx context.Context, origin matrix.ServerName, q *joinRequest) (*answer, error) {
	q.OmitMembers = false // there was no such thing yet
	a, err := j.takeJoin(ctx, origin, q)
	if err == nil {
		a.before, a.after = "[200,", "]"
	}
	return a, err
}

// answer is what a server that joins is told of the room, as it was before the
// join.
type answer struct {
	ctx           context.Context
	j             *Joining
	h             *handedIn
	join          *rooms.Stored
	partial       bool // members are left out
	state, chain  []state.EventNID
	weight        int64
	before, after string
	w             *bufio.Writer
}

// gather lists the events of the answer. Of a partial one, members are left out
// that nobody needs, and the chain leaves out what the state has.
func (a *answer) gather(m *state.Map) (err error) {
	for k, nid := range m.All() {
		if !a.partial || !rooms.MemberKey(k) {
			a.state = append(a.state, nid)
		}
	}
	if a.partial {
		heroes, err := a.j.heroes(a.ctx, m, matrix.UserID(a.join.StateKey()))
		if err != nil {
			return err
		}
		a.state = append(a.state, heroes...)
	}
	slices.Sort(a.state)
	if a.chain, err = a.j.Engine.AuthChain(a.ctx, append(slices.Clone(a.state), a.join.NID)); err != nil || !a.partial {
		return err
	}
	a.chain = slices.DeleteFunc(a.chain, func(n state.EventNID) bool {
		_, there := slices.BinarySearch(a.state, n)
		return there
	})
	return nil
}

// heroes are the member events by which a room without a name is known.
func (j *Joining) heroes(ctx context.Context, m *state.Map, user matrix.UserID) ([]state.EventNID, error) {
	for _, typ := range []string{matrix.TypeName, matrix.TypeCanonicalAlias} {
		if st, err := j.Engine.StateEvent(ctx, m, typ, ""); err != nil || st != nil {
			return nil, err
		}
	}
	var members []state.EventNID
	for k, nid := range m.All() {
		if rooms.MemberKey(k) {
			members = append(members, nid)
		}
	}
	slices.Sort(members)
	var heroes []state.EventNID
	for part := range slices.Chunk(members, chunk) {
		events, err := j.Engine.Events(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, st := range events {
			there := st.Membership() == matrix.MembershipJoin || st.Membership() == matrix.MembershipInvite
			if there && st.StateKey() != string(user) {
				if heroes = append(heroes, st.NID); len(heroes) == maxHeroes {
					return heroes, nil
				}
			}
		}
	}
	return heroes, nil
}

// WriteTo writes the answer, once. An error in the middle tears it, and the other
// server sees that.
func (a *answer) WriteTo(w io.Writer) (int64, error) {
	defer a.j.answers.Release(a.weight)
	to := newPatient(w)
	defer to.close()
	a.w = bufio.NewWriterSize(to, 64<<10)
	err := a.write()
	return to.written, err
}

func (a *answer) write() error {
	servers, err := json.Marshal(a.h.servers)
	if err != nil {
		return err
	}
	a.text(a.before, `{"origin":"`, string(a.j.Engine.ServerName), `","servers_in_room":`, string(servers),
		`,"members_omitted":`, strconv.FormatBool(a.partial))
	if a.h.signed {
		a.text(`,"event":`, string(a.join.JSON))
	}
	a.text(`,"state":`)
	if err := a.events(a.state); err != nil {
		return err
	}
	a.text(`,"auth_chain":`)
	if err := a.events(a.chain); err != nil {
		return err
	}
	a.text("}", a.after)
	return a.w.Flush()
}

// text writes texts; what goes wrong shows at the end.
func (a *answer) text(texts ...string) {
	for _, t := range texts {
		_, _ = a.w.WriteString(t)
	}
}

func (a *answer) events(nids []state.EventNID) error {
	a.text("[")
	first := true
	for part := range slices.Chunk(nids, chunk) {
		events, err := a.j.Engine.Events(a.ctx, part)
		if err != nil {
			return err
		}
		for _, st := range events {
			if !first {
				a.text(",")
			}
			first = false
			if _, err := a.w.Write(st.JSON); err != nil {
				return err
			}
		}
	}
	a.text("]")
	return nil
}

// patient is a connection that is given up when the other end takes nothing.
type patient struct {
	io.Writer
	stall   *time.Timer
	written int64
}

func newPatient(w io.Writer) *patient {
	p := &patient{Writer: w}
	p.stall = time.AfterFunc(stallTime, func() {
		if w, ok := w.(http.ResponseWriter); ok {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
		}
	})
	return p
}

func (p *patient) Write(b []byte) (int, error) {
	p.stall.Reset(stallTime)
	n, err := p.Writer.Write(b)
	p.written += int64(n)
	return n, err
}

func (p *patient) close() { p.stall.Stop() }
