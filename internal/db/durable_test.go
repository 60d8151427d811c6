package db_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/teahouse-chat/teahouse/internal/db"
	"github.com/teahouse-chat/teahouse/internal/db/dbtest"
)

// crashURL makes the test binary the child of TestCrash.
const crashURL = "TEAHOUSE_DB_CRASH_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(crashURL); url != "" {
		writeUntilKilled(url)
	}
	os.Exit(m.Run())
}

// writeUntilKilled says on its output which writes have been acknowledged.
func writeUntilKilled(url string) {
	d, err := db.Open(context.Background(), url, db.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	seq := d.Sequence("things")
	for range 8 {
		go func() {
			for {
				nid := seq.Next()
				err := d.Write(context.Background(), func(tx *db.Tx) error {
					tx.Exec(insertWritten, nid, tx.Position(), nil)
					return tx.Exec(insertThing, nid, strconv.FormatInt(nid, 10), bytes.Repeat([]byte("x"), 600), 0, nil, nil)
				})
				if err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				os.Stdout.WriteString(strconv.FormatInt(nid, 10) + "\n")
			}
		}()
	}
	select {}
}

// TestCrash kills a process with kill -9 while it writes, again and again on
// the same database. Every acknowledged write is there afterwards, none by half,
// and positions have no gaps.
func TestCrash(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		t.Run(kind, func(t *testing.T) {
			url := dbtest.URL(t, kind)
			acknowledged := map[int64]bool{}
			for round := range 4 {
				for _, nid := range crash(t, url, time.Duration(100+70*round)*time.Millisecond) {
					if acknowledged[nid] {
						t.Errorf("number %d was given twice", nid)
					}
					acknowledged[nid] = true
				}
				checkAfterCrash(t, url, acknowledged)
			}
			if len(acknowledged) < 20 {
				t.Errorf("only %d writes: this proves little", len(acknowledged))
			}
		})
	}
}

// crash runs the child for a while and returns what it acknowledged.
func crash(t *testing.T, url string, after time.Duration) (acknowledged []int64) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashURL+"="+url)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if timer == nil {
			timer = time.AfterFunc(after, func() { child.Process.Kill() })
		}
		nid, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Errorf("the child said: %s", lines.Text())
			child.Process.Kill()
			break
		}
		acknowledged = append(acknowledged, nid)
	}
	child.Wait()
	return acknowledged
}

const waitForBackends = `DO $$ BEGIN
	WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()) LOOP
		PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
	END LOOP; END $$`

func checkAfterCrash(t *testing.T, url string, acknowledged map[int64]bool) {
	t.Helper()
	if !strings.HasPrefix(url, "sqlite") {
		// The server finishes what the child had sent, and may take a moment.
		if err := dbtest.Script(t, url, waitForBackends); err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(t.Context(), url, db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	stored, err := db.All(t.Context(), d, selectWritten, scanWritten)
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for i, w := range stored {
		there[w.op] = true
		if w.position != int64(i)+1 {
			t.Fatalf("position %d where %d is due", w.position, i+1)
		}
	}
	if d.Position() != int64(len(stored)) {
		t.Errorf("the position is %d after %d writes", d.Position(), len(stored))
	}
	for nid := range acknowledged {
		if !there[nid] {
			t.Errorf("write %d was acknowledged and is gone", nid)
		}
	}
	if things := count(t, d); things != int64(len(stored)) {
		t.Errorf("%d of %d writes are whole", things, len(stored))
	}
}
