package db_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
	"github.com/teahouse-chat/teahouse/internal/matrix"
	"pgregory.net/rapid"
)

var (
	insertThing = db.SQL(`INSERT INTO things (nid, name, body, flag, maybe, score) VALUES ($1, $2, $3, $4, $5, $6)`)
	upsertThing = db.SQL(`INSERT INTO things (nid, name) VALUES ($1, $2) ON CONFLICT (nid) DO UPDATE SET name = excluded.name RETURNING name`)
	ignoreThing = db.SQL(`INSERT INTO things (nid, name) VALUES ($1, $2) ON CONFLICT DO NOTHING`)
	selectThing = db.SQL(`SELECT name, body, flag, maybe, score FROM things WHERE nid = $1`)
	orderThings = db.SQL(`SELECT name FROM things ORDER BY name`)
	findNIDs    = db.SQL(`SELECT nid FROM things WHERE nid IN {ints $1} ORDER BY nid`)
	findOthers  = db.SQL(`SELECT nid FROM things WHERE nid NOT IN {ints $1} ORDER BY nid`)
	findNames   = db.SQL(`SELECT nid FROM things WHERE name IN {texts $1} AND nid < $2 ORDER BY nid`)
	insertMany  = db.SQL(`INSERT INTO things (nid, name) SELECT a.value, a.value2 FROM {ints $1, texts $2} AS a`)
	likeThings  = db.SQL(`SELECT nid FROM things WHERE name LIKE $1 ORDER BY nid`)
	sumThings   = db.SQL(`SELECT sum(nid), {greatest}(1, 2), {least}(1, 2), EXISTS (SELECT 1 FROM things), CAST($1 AS TEXT) IS NULL, 1 = 2 FROM things`)
)

type thingNID int64

func scanText(r db.Scanner) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}

func put(t *testing.T, d *db.DB, s *db.Stmt, args ...any) error {
	t.Helper()
	return d.Write(t.Context(), func(tx *db.Tx) error { return tx.Exec(s, args...) })
}

func mustPut(t *testing.T, d *db.DB, s *db.Stmt, args ...any) {
	t.Helper()
	if err := put(t, d, s, args...); err != nil {
		t.Fatal(err)
	}
}

func TestValues(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		user, alias := matrix.UserID("@ann:example.org"), matrix.RoomAlias("#tea:example.org")
		type thing struct {
			name  matrix.UserID
			body  []byte
			flag  bool
			maybe *matrix.RoomAlias
			score *float64
		}
		read := func(nid thingNID) thing {
			t.Helper()
			v, found, err := db.One(t.Context(), d, selectThing, func(r db.Scanner) (v thing, err error) {
				err = r.Scan(&v.name, &v.body, &v.flag, &v.maybe, &v.score)
				return v, err
			}, nid)
			if err != nil || !found {
				t.Fatal(found, err)
			}
			return v
		}
		body := []byte{0, 1, 0xff, '\''}
		mustPut(t, d, insertThing, thingNID(math.MaxInt64), user, body, true, &alias, 1.5)
		got := read(math.MaxInt64)
		if got.name != user || !bytes.Equal(got.body, body) || !got.flag || *got.maybe != alias || *got.score != 1.5 {
			t.Errorf("%+v", got)
		}
		mustPut(t, d, insertThing, -7, "", []byte(nil), false, (*matrix.RoomAlias)(nil), nil)
		got = read(-7)
		if got.name != "" || got.body != nil || got.flag || got.maybe != nil || got.score != nil {
			t.Errorf("%+v", got)
		}
		mustPut(t, d, insertThing, 8, "empty", []byte{}, 0, "", 2)
		if got = read(8); got.body == nil || len(got.body) != 0 || got.maybe == nil || *got.maybe != "" || *got.score != 2 {
			t.Errorf("%+v", got)
		}
		_, _, err := db.One(t.Context(), d, selectThing, func(r db.Scanner) (s string, err error) {
			var body []byte
			var flag bool
			var score *float64
			err = r.Scan(&s, &body, &flag, &s, &score)
			return s, err
		}, -7)
		if err == nil {
			t.Error("NULL was scanned into a string")
		}
	})
}

func TestTextIsRefusedAlike(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		for _, bad := range []string{"a\x00b", "\x00", "\xff", "a\xc3"} {
			for _, args := range [][]any{{1, bad, nil, 0, nil, nil}, {1, matrix.UserID(bad), nil, 0, nil, nil}, {1, "x", nil, 0, &bad, nil}} {
				err := put(t, d, insertThing, args...)
				if e := matrix.AsError(err); e.Status != 400 || !matrix.HasCode(err, matrix.CodeInvalidParam) {
					t.Errorf("%q: %v", bad, err)
				}
			}
			_, err := db.All(t.Context(), d, findNames, scanInt, []string{"fine", bad}, 5)
			if !matrix.HasCode(err, matrix.CodeInvalidParam) {
				t.Errorf("in a list %q: %v", bad, err)
			}
		}
	})
}

func TestLists(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		names := []matrix.UserID{"a", `q"uo\te`, "tab\t\x01", "ünï𝄞", ""}
		mustPut(t, d, insertMany, []thingNID{1, 2, 3, 4, 5}, names)
		check := func(s *db.Stmt, want []int64, args ...any) {
			t.Helper()
			got, err := db.All(t.Context(), d, s, scanInt, args...)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v %v, want %v", s, got, err, want)
			}
		}
		check(findNIDs, []int64{2, 5}, []thingNID{5, 2, 99})
		check(findNIDs, nil, []thingNID(nil))
		check(findNIDs, nil, []int64{})
		check(findOthers, []int64{1, 3, 4}, []int64{5, 2, 99})
		check(findOthers, []int64{1, 2, 3, 4, 5}, []int64(nil))
		check(findNames, []int64{1, 2, 3, 4}, names, 5)
		check(findNames, nil, []string(nil), 5)
		check(likeThings, []int64{1}, "a%")
		check(likeThings, nil, "A%")
	})
}

func TestExpressions(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		mustPut(t, d, insertMany, []int64{1, 2}, []string{"a", "b"})
		var sum, greatest, least int
		var exists, isNull, never bool
		rows, err := d.Query(t.Context(), sumThings, (*string)(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		if !rows.Next() {
			t.Fatal(rows.Err())
		}
		if err := rows.Scan(&sum, &greatest, &least, &exists, &isNull, &never); err != nil {
			t.Fatal(err)
		}
		if sum != 3 || greatest != 2 || least != 1 || !exists || !isNull || never {
			t.Error(sum, greatest, least, exists, isNull, never)
		}
	})
}

// TestAnyTextRoundTrips also holds both engines to one order of texts: that of
// their bytes.
func TestAnyTextRoundTrips(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		all := map[string]bool{}
		nid := int64(0)
		rapid.Check(t, func(rt *rapid.T) {
			text := rapid.String().Draw(rt, "text")
			err := d.Write(t.Context(), func(tx *db.Tx) error {
				n, err := tx.Changed(ignoreThing, nid, text)
				if err == nil && (n == 1) == all[text] {
					err = errors.New("wrong count of changes")
				}
				return err
			})
			nid++
			if bad := bytes.IndexByte([]byte(text), 0) >= 0; bad != (err != nil) {
				rt.Fatalf("%q: %v", text, err)
			} else if bad {
				return
			}
			all[text] = true
			found, err := db.All(t.Context(), d, findNames, scanInt, []string{text}, nid)
			if err != nil || len(found) != 1 {
				rt.Fatalf("%q was not found in a list: %v %v", text, found, err)
			}
		})
		got, err := db.All(t.Context(), d, orderThings, scanText)
		if err != nil || !slices.IsSorted(got) || len(got) != len(all) {
			t.Errorf("%d of %d texts in the wrong order: %v", len(got), len(all), err)
		}
	})
}

func TestMisuse(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, d *db.DB) {
		if err := put(t, d, ignoreThing, 1); err == nil {
			t.Error("a missing argument was not noticed")
		}
		if err := put(t, d, ignoreThing, 1, "x", 3); err == nil {
			t.Error("a superfluous argument was not noticed")
		}
		if err := put(t, d, ignoreThing, 1, struct{}{}); err == nil {
			t.Error("a struct was taken for an argument")
		}
		mustPut(t, d, ignoreThing, 1<<40, "x")
		_, _, err := db.One(t.Context(), d, findNIDs, func(r db.Scanner) (n int32, err error) { err = r.Scan(&n); return n, err }, []int64{1 << 40})
		if err == nil {
			t.Error("a number was cut to 32 bits")
		}
		_, _, err = db.One(t.Context(), d, findNIDs, func(r db.Scanner) (n int64, err error) { err = r.Scan(&n, &n); return n, err }, []int64{1 << 40})
		if err == nil {
			t.Error("a missing column was not noticed")
		}
	})
}
