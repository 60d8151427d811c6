package storage

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"syscall"
	"time"
)

// Hash is the SHA-256 of a file's content, in lower-case hexadecimal.
type Hash string

// Valid tells whether h is written as a hash is.
func (h Hash) Valid() bool {
	raw, err := hex.DecodeString(string(h))
	return err == nil && len(raw) == 32 && hex.EncodeToString(raw) == string(h)
}

var (
	// ErrNotFound is the failure to open what is not there.
	ErrNotFound = errors.New("storage: there is no file of this hash")
	// ErrTooLarge is the failure to receive more than was allowed.
	ErrTooLarge = errors.New("storage: the file is larger than allowed")
)

// Full tells whether err says that there is no room left to write.
func Full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// Object is a file that is being read.
type Object interface {
	io.ReadSeekCloser
	Size() int64
}

// Store is where files are for good. Its methods may be called at the same time,
// but for one hash only as Depot does.
type Store interface {
	// Put takes over the bytes of a temporary file of the depot's folder, whose hash
	// is right. Once it returns they outlive a crash.
	Put(ctx context.Context, h Hash, in *Incoming) error
	// Open reads a file. It fails with ErrNotFound.
	Open(ctx context.Context, h Hash) (Object, error)
	// Has tells whether a file is there, and how long it is.
	Has(ctx context.Context, h Hash) (size int64, ok bool, err error)
	// Delete removes a file, if it is there.
	Delete(ctx context.Context, h Hash) error
	// Each lists all files, in no order.
	Each(ctx context.Context, f func(h Hash, size int64) error) error
}

// Sharer is a Store whose files others may be told to fetch from it themselves.
type Sharer interface {
	// URL is where a file can be had for some time, with such a header.
	URL(ctx context.Context, h Hash, valid time.Duration, contentType, disposition string) (string, error)
}

// Depot receives files and keeps them in a Store.
type Depot struct {
	Store
	root *os.Root
	// create opens a new temporary file; a test puts a full disk in its place.
	create func(name string) (*os.File, error)
	locks  locks
}

// spoolDir is where a Depot has its temporary files, below its root.
const spoolDir = "incoming"

// NewDepot makes a depot whose temporary files are below root.
func NewDepot(root *os.Root, store Store) (*Depot, error) {
	if err := root.MkdirAll(spoolDir, folderMode); err != nil {
		return nil, err
	}
	d := &Depot{Store: store, root: root, locks: locks{of: map[Hash]*lock{}}}
	d.create = func(name string) (*os.File, error) {
		return root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return d, nil
}

// Clear removes temporary files that a crash has left. Nothing may be received
// meanwhile, by other processes neither.
func (d *Depot) Clear() error {
	folder, err := d.root.Open(spoolDir)
	if err != nil {
		return err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, d.root.RemoveAll(path.Join(spoolDir, name)))
	}
	return err
}

// Keep puts what was received into the store, unless the same bytes are there,
// and calls stored, which notes down that they are needed. Until it returns nobody
// removes them. in is discarded in any case.
func (d *Depot) Keep(ctx context.Context, in *Incoming, stored func() error) error {
	defer in.Discard()
	h := in.Hash()
	defer d.locks.take(h)()
	size, there, err := d.Has(ctx, h)
	if err != nil {
		return err
	}
	if !there || size != in.Size() {
		if err := d.Put(ctx, h, in); err != nil {
			return err
		}
	}
	return stored()
}

// Drop removes a file if unused says that nobody needs it any more.
func (d *Depot) Drop(ctx context.Context, h Hash, unused func() (bool, error)) error {
	defer d.locks.take(h)()
	ok, err := unused()
	if err != nil || !ok {
		return err
	}
	return d.Delete(ctx, h)
}
