package db_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

var _ = db.Schema("dbbench", `
CREATE TABLE bench_events (
	nid      INTEGER PRIMARY KEY,
	id       TEXT NOT NULL UNIQUE,
	room     INTEGER NOT NULL,
	position INTEGER NOT NULL
);
CREATE INDEX bench_events_room ON bench_events (room, position);
CREATE TABLE bench_json (nid INTEGER PRIMARY KEY, json {blob} NOT NULL);
CREATE TABLE bench_edges (nid INTEGER NOT NULL, prev INTEGER NOT NULL, PRIMARY KEY (nid, prev)) {without rowid};
CREATE TABLE bench_rooms (nid INTEGER PRIMARY KEY, latest INTEGER NOT NULL, position INTEGER NOT NULL);
CREATE TABLE bench_txns (device INTEGER NOT NULL, txn TEXT NOT NULL, nid INTEGER NOT NULL, PRIMARY KEY (device, txn)) {without rowid};
`)

var (
	benchEvent = db.SQL(`INSERT INTO bench_events (nid, id, room, position) VALUES ($1, $2, $3, $4)`)
	benchJSON  = db.SQL(`INSERT INTO bench_json (nid, json) VALUES ($1, $2)`)
	benchEdge  = db.SQL(`INSERT INTO bench_edges (nid, prev) VALUES ($1, $2)`)
	benchRoom  = db.SQL(`INSERT INTO bench_rooms (nid, latest, position) VALUES ($1, $2, $3)
		ON CONFLICT (nid) DO UPDATE SET latest = excluded.latest, position = excluded.position`)
	benchTxn   = db.SQL(`INSERT INTO bench_txns (device, txn, nid) VALUES ($1, $2, $3)`)
	benchPoint = db.SQL(`SELECT e.nid, e.position, j.json FROM bench_events e JOIN bench_json j ON j.nid = e.nid WHERE e.id = $1`)
)

var benchBody = []byte(`{"type":"m.room.message","content":{"body":"` + strings.Repeat("x", 500) + `"}}`)

func benchID(nid int64) matrix.EventID { return matrix.EventID(fmt.Sprintf("$%040d", nid*7919)) }

// benchSend is what sending an event writes: five statements.
func benchSend(nid, room int64) func(tx *db.Tx) error {
	id, txn := benchID(nid), fmt.Sprint("m", nid)
	return func(tx *db.Tx) error {
		position := tx.Position()
		if err := tx.Exec(benchEvent, nid, id, room, position); err != nil {
			return err
		}
		if err := tx.Exec(benchJSON, nid, benchBody); err != nil {
			return err
		}
		if err := tx.Exec(benchEdge, nid, nid-1); err != nil {
			return err
		}
		if err := tx.Exec(benchRoom, room, nid, position); err != nil {
			return err
		}
		return tx.Exec(benchTxn, room, txn, nid)
	}
}

// cpuTime is what this process has used; PostgreSQL's share is not in it.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkWrite(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", kind, writers), func(b *testing.B) {
				d := dbtest.Open(b, kind)
				events := d.Sequence("events")
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				before := cpuTime()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := d.Write(b.Context(), benchSend(events.Next(), int64(w))); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
			})
		}
	}
}

func BenchmarkPointRead(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			d := dbtest.Open(b, kind)
			const events = 10_000
			err := d.Write(b.Context(), func(tx *db.Tx) error {
				for nid := range int64(events) {
					if err := benchSend(nid, nid%100)(tx); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for i := range b.N {
				_, found, err := db.One(b.Context(), d, benchPoint, func(r db.Scanner) ([]byte, error) {
					var nid, position int64
					var json []byte
					err := r.Scan(&nid, &position, &json)
					return json, err
				}, benchID(int64(i*31%events)))
				if err != nil || !found {
					b.Fatal(found, err)
				}
			}
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}
