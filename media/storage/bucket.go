package storage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// BucketOptions say where a bucket is.
type BucketOptions struct {
	Endpoint  string // https://host or http://host:port
	Region    string
	Bucket    string
	Prefix    string // of the names of all objects; "" for none
	AccessKey string
	SecretKey string
	Transport http.RoundTripper // nil: the default one
}

// Bucket is a Store on an S3 server.
type Bucket struct {
	client *minio.Client
	o      BucketOptions
}

// partBytes is how much of a large file is sent at a time.
const partBytes = 16 << 20

// NewBucket makes a store in a bucket that is there already.
func NewBucket(o BucketOptions) (*Bucket, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""),
		Secure: u.Scheme == "https", Region: o.Region, Transport: o.Transport,
	})
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	return &Bucket{client, o}, nil
}

// Check tells whether the bucket can be reached.
func (b *Bucket) Check(ctx context.Context) error {
	ok, err := b.client.BucketExists(ctx, b.o.Bucket)
	if err != nil {
		return fmt.Errorf("the bucket %s at %s cannot be looked at: %w", b.o.Bucket, b.o.Endpoint, err)
	}
	if !ok {
		return fmt.Errorf("there is no bucket %s at %s; make it first", b.o.Bucket, b.o.Endpoint)
	}
	return nil
}

// key is the name of the object of a hash.
func (b *Bucket) key(h Hash) (string, error) {
	if !h.Valid() {
		return "", fmt.Errorf("storage: %q is no hash", string(h))
	}
	return path.Join(b.o.Prefix, string(h[:2]), string(h[2:])), nil
}

// Put sends the temporary file, in parts if it is large.
func (b *Bucket) Put(ctx context.Context, h Hash, in *Incoming) error {
	key, err := b.key(h)
	if err != nil {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = b.client.PutObject(ctx, b.o.Bucket, key, in.File, in.Size(), minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partBytes, NumThreads: 2,
	})
	return err
}

// object is an Object on an S3 server.
type object struct {
	*minio.Object
	size int64
}

func (o *object) Size() int64 { return o.size }

// Open asks for an object, whose bytes come as they are read.
func (b *Bucket) Open(ctx context.Context, h Hash) (Object, error) {
	key, err := b.key(h)
	if err != nil {
		return nil, err
	}
	o, err := b.client.GetObject(ctx, b.o.Bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, notFound(err)
	}
	info, err := o.Stat()
	if err != nil {
		_ = o.Close()
		return nil, notFound(err)
	}
	return &object{o, info.Size}, nil
}

// URL signs the address of an object, so that whoever knows it may fetch it.
func (b *Bucket) URL(ctx context.Context, h Hash, valid time.Duration, contentType, disposition string) (string, error) {
	key, err := b.key(h)
	if err != nil {
		return "", err
	}
	u, err := b.client.PresignedGetObject(ctx, b.o.Bucket, key, valid, url.Values{
		"response-content-type": {contentType}, "response-content-disposition": {disposition},
	})
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func notFound(err error) error {
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
		return ErrNotFound
	}
	return err
}

// Has looks for an object.
func (b *Bucket) Has(ctx context.Context, h Hash) (size int64, ok bool, err error) {
	key, err := b.key(h)
	if err != nil {
		return 0, false, err
	}
	info, err := b.client.StatObject(ctx, b.o.Bucket, key, minio.StatObjectOptions{})
	if err := notFound(err); err == ErrNotFound {
		return 0, false, nil
	}
	return info.Size, err == nil, err
}

// Delete removes an object; the server does not mind if it is not there.
func (b *Bucket) Delete(ctx context.Context, h Hash) error {
	key, err := b.key(h)
	if err != nil {
		return err
	}
	return b.client.RemoveObject(ctx, b.o.Bucket, key, minio.RemoveObjectOptions{})
}

// Each lists the objects below the prefix that are named like hashes.
func (b *Bucket) Each(ctx context.Context, do func(h Hash, size int64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing
	prefix := b.o.Prefix
	if prefix != "" {
		prefix += "/"
	}
	for info := range b.client.ListObjects(ctx, b.o.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if info.Err != nil {
			return info.Err
		}
		h := Hash(strings.ReplaceAll(strings.TrimPrefix(info.Key, prefix), "/", ""))
		if !h.Valid() {
			continue
		}
		if err := do(h, info.Size); err != nil {
			return err
		}
	}
	return nil
}
