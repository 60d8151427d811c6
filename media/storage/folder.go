package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
)

// folderMode is for folders that only the server looks into.
const folderMode = 0o700

// filesDir is where a Folder has its files, below its root.
const filesDir = "files"

// Folder is a Store in the file system: "files/ab/cdef..." for the hash "abcdef...".
type Folder struct {
	root *os.Root
	made sync.Map // names of the folders that are there for sure
}

// NewFolder makes a store below root, which is its depot's, too.
func NewFolder(root *os.Root) (*Folder, error) {
	if err := root.MkdirAll(filesDir, folderMode); err != nil {
		return nil, err
	}
	return &Folder{root: root}, nil
}

// place is where a hash is kept; the split keeps folders small.
func place(h Hash) (dir, name string, err error) {
	if !h.Valid() {
		return "", "", fmt.Errorf("storage: %q is no hash", string(h))
	}
	dir = path.Join(filesDir, string(h[:2]))
	return dir, path.Join(dir, string(h[2:])), nil
}

// Put syncs the file, renames it and syncs its folder.
func (f *Folder) Put(_ context.Context, h Hash, in *Incoming) error {
	dir, name, err := place(h)
	if err != nil {
		return err
	}
	if err := in.Sync(); err != nil {
		return err
	}
	if err := f.makeDir(dir); err != nil {
		return err
	}
	if err := f.root.Rename(in.name, name); err != nil {
		return err
	}
	in.over = true
	return errors.Join(in.Close(), f.sync(dir))
}

func (f *Folder) makeDir(dir string) error {
	if _, ok := f.made.Load(dir); ok {
		return nil
	}
	err := f.root.Mkdir(dir, folderMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err == nil {
		if err := f.sync(filesDir); err != nil {
			return err
		}
	}
	f.made.Store(dir, true)
	return nil
}

// sync makes the names in a folder outlive a crash.
func (f *Folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// file is an Object of the file system. It is the *os.File itself that is read, so
// that the kernel can send it.
type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

// Open opens a file for reading.
func (f *Folder) Open(_ context.Context, h Hash) (Object, error) {
	_, name, err := place(h)
	if err != nil {
		return nil, err
	}
	open, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := open.Stat()
	if err != nil {
		return nil, errors.Join(err, open.Close())
	}
	return &file{open, info.Size()}, nil
}

// File is the file of the operating system behind an object, or nil.
func File(o Object) *os.File {
	if f, ok := o.(*file); ok {
		return f.File
	}
	return nil
}

// Has looks for a file.
func (f *Folder) Has(_ context.Context, h Hash) (size int64, ok bool, err error) {
	_, name, err := place(h)
	if err != nil {
		return 0, false, err
	}
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return info.Size(), true, nil
}

// Delete removes a file.
func (f *Folder) Delete(_ context.Context, h Hash) error {
	_, name, err := place(h)
	if err != nil {
		return err
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Each walks through the folders; what is not named like a hash is not looked at.
func (f *Folder) Each(ctx context.Context, do func(h Hash, size int64) error) error {
	return fs.WalkDir(f.root.FS(), filesDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		h := Hash(strings.ReplaceAll(strings.TrimPrefix(name, filesDir), "/", ""))
		if d.IsDir() || !h.Valid() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		return do(h, info.Size())
	})
}
