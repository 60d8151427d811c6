package encryption

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

// Other servers follow the devices of a local user by a stream of updates. Of
// each device only the newest change is kept, so that whoever has to hear of many
// changes is told once of each device.

// The EDUs by which servers tell each other of devices.
const (
	EDUDeviceList  = "m.device_list_update"
	EDUSigningKeys = "m.signing_key_update"
	EDUToDevice    = "m.direct_to_device"
)

const (
	// maxUpdates is how many updates a server is sent at once; if there are more
	// it is told to ask.
	maxUpdates = 50
	// goneKept is how many removed devices of a user are remembered for servers
	// that did not hear of them yet.
	goneKept = 100
)

// note gives changes of a local user's devices their places in the stream.
func note(tx *db.Tx, user matrix.UserID, devices []matrix.DeviceID) error {
	ids := make([]int64, len(devices))
	for i := range ids {
		ids[i] = tx.Position()
	}
	if err := tx.Exec(upsertStreamChanges, user, devices, ids); err != nil {
		return err
	}
	return tx.Exec(upsertStream, user, ids[len(ids)-1])
}

// stream is what other servers are to be told of a user, and what they were.
type stream struct {
	user      matrix.UserID
	newest    int64
	forgotten int64
	changes   []streamChange // oldest first
	list      *deviceList
	told      map[matrix.ServerName]int64
	asked     map[matrix.ServerName]bool // without sharing a room
}

type streamChange struct {
	device matrix.DeviceID
	id     int64
}

func (e *Encryption) readStream(ctx context.Context, tx *db.Tx, user matrix.UserID) (*stream, error) {
	s := &stream{user: user, told: map[matrix.ServerName]int64{}, asked: map[matrix.ServerName]bool{}}
	err := db.Each(ctx, tx, selectStreams, func(row db.Scanner) error {
		var announced int64
		return row.Scan(&s.user, &s.newest, &announced, &s.forgotten)
	}, []matrix.UserID{user})
	if err != nil {
		return nil, err
	}
	if s.changes, err = db.All(ctx, tx, selectStreamChanges, func(row db.Scanner) (c streamChange, err error) {
		err = row.Scan(&c.device, &c.id)
		return c, err
	}, user); err != nil {
		return nil, err
	}
	err = db.Each(ctx, tx, selectTold, func(row db.Scanner) error {
		var server matrix.ServerName
		var id int64
		err := row.Scan(&server, &id)
		s.told[server] = id
		return err
	}, user)
	if err != nil {
		return nil, err
	}
	err = db.Each(ctx, tx, selectAsked, func(row db.Scanner) error {
		var server matrix.ServerName
		err := row.Scan(&server)
		s.asked[server] = true
		return err
	}, user)
	if err != nil {
		return nil, err
	}
	lists, err := e.localLists(ctx, tx, []matrix.UserID{user})
	if s.list = lists[user]; s.list == nil {
		s.list = newDeviceList()
	}
	return s, err
}

// complete gives a place in the stream to everything that others can see and that
// never changed since there are streams.
func (s *stream) complete(tx *db.Tx) error {
	known := map[matrix.DeviceID]bool{}
	for _, c := range s.changes {
		known[c.device] = true
	}
	var missing []matrix.DeviceID
	for _, id := range slices.Sorted(maps.Keys(s.list.names)) {
		if !known[id] {
			missing = append(missing, id)
		}
	}
	if !known[crossSigning] && len(s.list.cross) > 0 {
		missing = append(missing, crossSigning)
	}
	if len(missing) == 0 {
		return nil
	}
	return s.place(tx, missing)
}

// renew gives the newest change another place in the stream, for servers that may
// have the list up to the present one, with less in it.
func (s *stream) renew(tx *db.Tx) error {
	if len(s.changes) == 0 {
		return nil
	}
	i := s.newestChange()
	id := s.changes[i].device
	s.changes = slices.Delete(s.changes, i, i+1)
	return s.place(tx, []matrix.DeviceID{id})
}

// place appends changes to the stream.
func (s *stream) place(tx *db.Tx, devices []matrix.DeviceID) error {
	tx.Position() // so that no server was told of the id before the first one; see ask
	ids := make([]int64, len(devices))
	for i, id := range devices {
		ids[i] = tx.Position()
		s.changes = append(s.changes, streamChange{id, ids[i]})
	}
	s.newest = ids[len(ids)-1]
	if err := tx.Exec(upsertStreamChanges, s.user, devices, ids); err != nil {
		return err
	}
	return tx.Exec(upsertStream, s.user, s.newest)
}

// there tells whether what changed is there, and was not removed.
func (s *stream) there(id matrix.DeviceID) bool {
	_, ok := s.list.names[id]
	return ok || id == crossSigning
}

// edu is an update for servers that have all before it.
type edu struct {
	typ     string
	content json.RawMessage
}

// since are the updates for servers that were told of everything up to an id.
func (s *stream) since(id int64) []edu {
	news := s.changes
	for len(news) > 0 && news[0].id <= id {
		news = news[1:]
	}
	if len(news) > maxUpdates || id < s.forgotten {
		return s.ask()
	}
	return s.updates(news, id)
}

// first are the updates for servers that know nothing of the user. What was
// removed is nothing to them.
// spec: server-server#device-management
func (s *stream) first() []edu {
	var news []streamChange
	for _, c := range s.changes {
		if s.there(c.device) {
			news = append(news, c)
		}
	}
	if len(news) > maxUpdates {
		return s.ask()
	}
	return s.updates(news, 0)
}

// ask is an update that makes other servers ask for the whole list: it follows
// one that was never sent, since the ids of a user's changes of different writes
// never follow directly upon each other.
func (s *stream) ask() []edu {
	if len(s.changes) == 0 {
		return nil
	}
	last := s.changes[len(s.changes)-1]
	last.device = s.changes[s.newestChange()].device
	return []edu{s.update(last, last.id-1)}
}

// newestChange is where the newest change stands that makes other servers ask. The
// cross-signing keys do not; a device does.
func (s *stream) newestChange() int {
	i := len(s.changes) - 1
	if s.changes[i].device == crossSigning && i > 0 {
		i--
	}
	return i
}

// updates are the updates of some changes, one after the other.
func (s *stream) updates(changes []streamChange, after int64) []edu {
	list := make([]edu, len(changes))
	for i, c := range changes {
		list[i] = s.update(c, after)
		after = c.id
	}
	return list
}

// update tells of one change. The numbers are in the update of signing keys, too,
// where the specification has none: whoever looks at them notices that one was
// lost.
func (s *stream) update(c streamChange, after int64) edu {
	b := appendText([]byte(`{"user_id":`), s.user)
	b = strconv.AppendInt(append(b, `,"stream_id":`...), c.id, 10)
	b = append(b, `,"prev_id":[`...)
	if after > 0 {
		b = strconv.AppendInt(b, after, 10)
	}
	b = append(b, ']')
	if c.device == crossSigning {
		for _, part := range []struct{ name, usage string }{{"master_key", usageMaster}, {"self_signing_key", usageSelfSigning}} {
			if k := s.list.cross[part.usage]; k != nil {
				b = append(appendName(b, false, part.name), k.raw...)
			}
		}
		return edu{EDUSigningKeys, append(b, '}')}
	}
	b = appendText(append(b, `,"device_id":`...), c.device)
	name, there := s.list.names[c.device]
	if name != "" {
		b = appendText(append(b, `,"device_display_name":`...), name)
	}
	if s.list.devices[c.device] != nil {
		b = append(append(b, `,"keys":`...), s.list.nameless(c.device, "")...)
	}
	if !there {
		b = append(b, `,"deleted":true`...)
	}
	return edu{EDUDeviceList, append(b, '}')}
}
