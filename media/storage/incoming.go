package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
	"path"
)

// pieceBytes is how much is read, hashed and written at a time.
const pieceBytes = 256 << 10

// Incoming is a file that is being received.
type Incoming struct {
	*os.File // readable and writable; use Write to add to it
	// Grown, if set before Fill, is told the size whenever more has been written.
	Grown func(size int64)

	root *os.Root
	name string
	sum  hash.Hash
	size int64
	over bool // taken or discarded
}

// Begin makes an empty temporary file.
func (d *Depot) Begin() (*Incoming, error) {
	name := path.Join(spoolDir, rand.Text())
	f, err := d.create(name)
	if err != nil {
		return nil, err
	}
	return &Incoming{File: f, root: d.root, name: name, sum: sha256.New()}, nil
}

// Adopt takes over a file below the depot's root that somebody else has filled, and
// reads it once.
func (d *Depot) Adopt(ctx context.Context, name string) (*Incoming, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	in := &Incoming{File: f, root: d.root, name: name, sum: sha256.New()}
	in.size, err = io.CopyBuffer(in.sum, struct{ io.Reader }{awake{ctx, f}}, make([]byte, pieceBytes))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return in, nil
}

// awake stops reading when its context ends.
type awake struct {
	ctx context.Context
	io.Reader
}

func (a awake) Read(p []byte) (int, error) {
	if err := a.ctx.Err(); err != nil {
		return 0, err
	}
	return a.Reader.Read(p)
}

// Receive reads r to its end, at most limit bytes, into a temporary file. After an
// error nothing is left of it.
func (d *Depot) Receive(r io.Reader, limit int64) (*Incoming, error) {
	in, err := d.Begin()
	if err != nil {
		return nil, err
	}
	if err := in.Fill(r, limit); err != nil {
		in.Discard()
		return nil, err
	}
	return in, nil
}

// piece is bytes on their way from the network to the disk.
type piece struct {
	buf []byte
	err error // what came after them
}

// Fill copies all of r, at most limit bytes. It reads in another goroutine: while
// one piece is hashed and written, the next comes.
func (in *Incoming) Fill(r io.Reader, limit int64) error {
	free, full := make(chan []byte, 3), make(chan piece)
	for range cap(free) {
		free <- make([]byte, pieceBytes)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			buf := <-free
			n, err := r.Read(buf)
			select {
			case full <- piece{buf[:n], err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { <-done }() // r is not read after this returns
	defer close(stop)
	for {
		p := <-full
		if in.size+int64(len(p.buf)) > limit {
			return ErrTooLarge
		}
		if _, err := in.Write(p.buf); err != nil {
			return err
		}
		if in.Grown != nil && len(p.buf) > 0 {
			in.Grown(in.size)
		}
		if p.err == io.EOF {
			return nil
		}
		if p.err != nil {
			return p.err
		}
		free <- p.buf[:cap(p.buf)]
	}
}

// Write adds to the file.
func (in *Incoming) Write(p []byte) (int, error) {
	n, err := in.File.Write(p)
	in.sum.Write(p[:n])
	in.size += int64(n)
	return n, err
}

// ReadFrom keeps io.Copy from passing the hash by.
func (in *Incoming) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{in}, r, make([]byte, pieceBytes))
}

// Hash names what was received so far.
func (in *Incoming) Hash() Hash { return Hash(hex.EncodeToString(in.sum.Sum(nil))) }

// Reader opens the file once more, to be read from its start while it grows. It
// can be read to its end even after the file was kept or discarded.
func (in *Incoming) Reader() (*os.File, error) { return in.root.Open(in.name) }

// Size is how much was received so far.
func (in *Incoming) Size() int64 { return in.size }

// Discard closes the file and removes it, unless it has moved into the store. It
// may be called again.
func (in *Incoming) Discard() {
	if in.over {
		return
	}
	in.over = true
	_ = in.Close()
	_ = in.root.Remove(in.name)
}
