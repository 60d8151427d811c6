package storage

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
)

// partsDir is where files are that come in parts, below the root: by the id that
// their upload has, which is a plain name.
const partsDir = "parts"

func part(id string) string { return path.Join(partsDir, id) }

// CreatePart makes an empty file for an upload.
func (d *Depot) CreatePart(id string) error {
	if err := d.root.MkdirAll(partsDir, folderMode); err != nil {
		return err
	}
	f, err := d.create(part(id))
	if err != nil {
		return err
	}
	return f.Close()
}

// PartSize is how much of an upload has come.
func (d *Depot) PartSize(id string) (size int64, found bool, err error) {
	info, err := d.root.Stat(part(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return info.Size(), true, nil
}

// AppendPart adds to an upload. What has come before an error stays.
func (d *Depot) AppendPart(id string, r io.Reader) (int64, error) {
	f, err := d.root.OpenFile(part(id), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, pieceBytes))
	return n, errors.Join(err, f.Close())
}

// AdoptPart takes over an upload that is complete.
func (d *Depot) AdoptPart(ctx context.Context, id string) (*Incoming, error) {
	return d.Adopt(ctx, part(id))
}

// OpenPart reads an upload.
func (d *Depot) OpenPart(id string) (io.ReadCloser, error) { return d.root.Open(part(id)) }

// RemovePart forgets an upload.
func (d *Depot) RemovePart(id string) error {
	if err := d.root.Remove(part(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
