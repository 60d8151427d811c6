package storage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/teahouse-chat/teahouse/internal/s3test"
)

func newDepot(t *testing.T, store func(root *os.Root) Store) (*Depot, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	d, err := NewDepot(root, store(root))
	if err != nil {
		t.Fatal(err)
	}
	return d, dir
}

func folder(t *testing.T) func(*os.Root) Store {
	return func(root *os.Root) Store {
		f, err := NewFolder(root)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// spool lists the temporary files.
func spool(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, spoolDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// endless is bytes that count up.
type endless struct{ at int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte((e.at + int64(i)) >> 8)
	}
	e.at += int64(len(p))
	return len(p), nil
}

func TestFolder(t *testing.T) {
	d, dir := newDepot(t, folder(t))
	testStore(t, d, dir)
}

// The same on a real S3 server, versitygw.
func TestBucket(t *testing.T) {
	server := s3test.Start(t)
	d, dir := newDepot(t, func(*os.Root) Store {
		b, err := NewBucket(BucketOptions{
			Endpoint: server.Endpoint, Region: server.Region, Bucket: "tea", Prefix: "house", AccessKey: server.AccessKey, SecretKey: server.SecretKey,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context()); err == nil {
			t.Error("a bucket that is not there can be used")
		}
		server.MakeBucket("tea")
		if err := b.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		return b
	})
	testStore(t, d, dir)
}

// testStore checks what every store does.
func testStore(t *testing.T, d *Depot, dir string) {
	ctx := t.Context()
	noted := 0
	note := func() error { noted++; return nil }
	large := io.LimitReader(&endless{}, 40<<20) // more than one part
	in, err := d.Receive(large, 50<<20)
	if err != nil {
		t.Fatal(err)
	}
	h, size := in.Hash(), in.Size()
	if err := d.Keep(ctx, in, note); err != nil {
		t.Fatal(err)
	}
	o, err := d.Open(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	if o.Size() != size || size != 40<<20 {
		t.Errorf("%d bytes", o.Size())
	}
	if _, err := o.Seek(30<<20+256, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(o, got); err != nil || !bytes.Equal(got, []byte{1, 1, 1, 1}) {
		t.Errorf("%v %v", got, err)
	}
	_ = o.Close()
	// The same again, by several at once.
	var group sync.WaitGroup
	var mu sync.Mutex
	for range 4 {
		group.Go(func() {
			in, err := d.Receive(strings.NewReader("same"), 10)
			if err == nil {
				err = d.Keep(ctx, in, func() error { mu.Lock(); defer mu.Unlock(); return note() })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	seen := map[Hash]int64{}
	if err := d.Each(ctx, func(h Hash, size int64) error { seen[h] = size; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[h] != size || noted != 5 {
		t.Errorf("%v, noted %d times", seen, noted)
	}
	for _, needed := range []bool{true, false} {
		if err := d.Drop(ctx, h, func() (bool, error) { return !needed, nil }); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := d.Has(ctx, h); ok != needed || err != nil {
			t.Errorf("needed %v, there %v, %v", needed, ok, err)
		}
	}
	if _, err := d.Open(ctx, h); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := d.Delete(ctx, h); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	for _, bad := range []Hash{"", "../../etc/passwd", Hash(strings.Repeat("A", 64)), Hash(strings.Repeat("/", 64)), h + "0"} {
		if _, err := d.Open(ctx, bad); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if left := spool(t, dir); len(left) != 0 {
		t.Errorf("temporary files stay: %v", left)
	}
}

// What fails leaves nothing: too much, a reader that breaks, a disk that is full.
func TestNothingIsLeft(t *testing.T) {
	d, dir := newDepot(t, folder(t))
	broken := errors.New("broken")
	if _, err := d.Receive(&endless{}, 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if _, err := d.Receive(io.MultiReader(strings.NewReader("half"), failing{broken}), 1<<20); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	in, err := d.Receive(strings.NewReader("x"), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Keep(t.Context(), in, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	full := d.create
	d.create = func(name string) (*os.File, error) {
		f, err := full(name)
		if err != nil {
			return nil, err
		}
		_ = f.Close()
		return os.OpenFile("/dev/full", os.O_RDWR, 0)
	}
	if _, err := d.Receive(strings.NewReader("no room"), 100); !Full(err) {
		t.Errorf("%v", err)
	}
	if left := spool(t, dir); len(left) != 0 {
		t.Errorf("%v", left)
	}
	// A crash leaves something, and the next start removes it.
	d.create = full
	if _, err := d.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := d.Clear(); err != nil || len(spool(t, dir)) != 0 {
		t.Errorf("%v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// THREATS M5: however large a file is, it takes the memory of a few buffers.
func TestConstantMemory(t *testing.T) {
	d, _ := newDepot(t, folder(t))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	in, err := d.Receive(io.LimitReader(&endless{}, 256<<20), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}
