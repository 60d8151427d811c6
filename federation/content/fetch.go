package content

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/teahouse-chat/teahouse/federation/transport"
	"github.com/teahouse-chat/teahouse/internal/dialer"
	"github.com/teahouse-chat/teahouse/internal/matrix"
)

const (
	answerTime   = time.Minute // until the answer begins, beyond what the server was told to wait
	fetchTime    = time.Hour   // of a whole file
	maxOverhead  = 1 << 20     // of an answer beside the file
	maxRedirects = 3
)

// Asker asks other servers; it is a *transport.Client.
type Asker interface {
	Open(ctx context.Context, r transport.Request) (*transport.Reply, error)
}

// Fetcher asks other servers for files.
type Fetcher struct {
	asker Asker
	web   *http.Client // follows redirects
	max   int64
}

// New makes a fetcher of files of at most max bytes. secure is for where redirects
// lead; nil trusts the system's authorities.
func New(asker Asker, d *dialer.Dialer, secure *tls.Config, max int64) *Fetcher {
	return &Fetcher{asker: asker, max: max, web: d.Client(dialer.ClientOptions{
		Timeout: fetchTime, MaxBody: max + 1, MaxRedirects: maxRedirects, HTTPSOnly: true, TLS: secure,
	})}
}

// File is a file that is coming.
type File struct {
	Body   io.ReadCloser
	Header http.Header // Content-Type and Content-Disposition
}

// Download asks a server for one of its files, which it may wait for itself. The
// error is a *matrix.Error for the user who wants the file.
// spec: server-server#get_matrixfederationv1mediadownloadmediaid
func (f *Fetcher) Download(ctx context.Context, server matrix.ServerName, id string, wait time.Duration) (*File, error) {
	query := url.Values{"timeout_ms": {strconv.FormatInt(wait.Milliseconds(), 10)}}
	file, err := f.ask(ctx, wait, transport.Request{
		Destination: server, Method: http.MethodGet, Path: transport.Path("/_matrix/federation/v1/media/download", id), Query: query,
	}, f.unpack)
	if old, ok := errors.AsType[*transport.RemoteError](err); ok && unknownRoute(old) {
		query.Set("allow_remote", "false")
		file, err = f.ask(ctx, wait, transport.Request{
			Destination: server, Method: http.MethodGet, Unsigned: true, Query: query,
			Path: transport.Path("/_matrix/media/v3/download", string(server), id),
		}, asItIs)
	}
	return file, told(server, err)
}

// unknownRoute tells that a server does not know the endpoint, from it not having
// the file. What does not know the endpoint may not know how to say so.
func unknownRoute(e *transport.RemoteError) bool {
	return e.Code == matrix.CodeUnrecognized || e.Code == "" && e.Status < http.StatusInternalServerError
}

// told is what a user learns of a failure.
func told(server matrix.ServerName, err error) error {
	refused, isRefused := errors.AsType[*transport.RemoteError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transport.ErrNotAllowed):
		return matrix.NotFound("This server does not federate with %s", server).Because(err)
	case isRefused && refused.Code == matrix.CodeNotYetUploaded:
		return matrix.NewError(http.StatusGatewayTimeout, refused.Code, "The file was announced but is not uploaded yet; try again later").Because(err)
	case isRefused && (refused.Status == http.StatusNotFound || refused.Status == http.StatusForbidden):
		return matrix.NotFound("%s does not have the file, or does not give it", server).Because(err)
	case isRefused && refused.Code == matrix.CodeTooLarge, errors.Is(err, dialer.ErrTooLarge):
		return matrix.NewError(http.StatusBadGateway, matrix.CodeTooLarge, "The file of %s is too large", server).Because(err)
	}
	return matrix.NewError(http.StatusBadGateway, matrix.CodeUnknown, "The file cannot be had from %s at the moment; try again later", server).Because(err)
}

// ask begins to fetch. It may take some time until the file's first byte can be
// read, wherever it comes from, and then between any two.
func (f *Fetcher) ask(ctx context.Context, wait time.Duration, r transport.Request, unpack func(context.Context, *transport.Reply) (*File, error)) (*File, error) {
	r.Timeout, r.MaxAnswer = fetchTime, f.max+maxOverhead
	ctx, cancel := context.WithCancelCause(ctx)
	slow := time.AfterFunc(wait+answerTime, func() { cancel(errors.New("the answer does not begin")) })
	defer slow.Stop()
	answer, err := f.asker.Open(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	// An answer that redirects stays open for as long as the file comes, so that the
	// server has no more files on their way here than it may.
	end := func() { _ = answer.Body.Close(); cancel(nil) }
	file, err := unpack(ctx, answer)
	if err != nil {
		end()
		return nil, err
	}
	file.Body = transport.Watch(file.Body, func() { cancel(errors.New("the file does not go on")) }, end)
	return file, nil
}

// asItIs takes an answer of the deprecated endpoint, which is the file itself.
func asItIs(_ context.Context, answer *transport.Reply) (*File, error) {
	return &File{answer.Body, answer.Header}, nil
}

// unpack finds the file in an answer.
func (f *Fetcher) unpack(ctx context.Context, answer *transport.Reply) (*File, error) {
	kind, params, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, fmt.Errorf("content: the answer is %q, not multipart/mixed with a boundary", answer.Header.Get("Content-Type"))
	}
	parts := multipart.NewReader(answer.Body, params["boundary"])
	if _, err := parts.NextRawPart(); err != nil {
		return nil, fmt.Errorf("content: the description of the file: %w", err)
	}
	file, err := parts.NextRawPart()
	if err != nil {
		return nil, fmt.Errorf("content: the file: %w", err)
	}
	if place := file.Header.Get("Location"); place != "" {
		return f.follow(ctx, place)
	}
	return &File{&partBody{file, parts, answer.Body}, http.Header(file.Header)}, nil
}

// partBody reads the file out of a multipart answer.
type partBody struct {
	io.Reader
	parts *multipart.Reader
	whole io.Closer
}

// Read fails at the end of a file that is not followed by the end of the answer.
func (b *partBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		if _, next := b.parts.NextRawPart(); next != io.EOF {
			return n, errors.Join(io.ErrUnexpectedEOF, next)
		}
	}
	return n, err
}

func (b *partBody) Close() error { return b.whole.Close() }

// follow fetches a file from where its server says that it is.
func (f *Fetcher) follow(ctx context.Context, place string) (*File, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, fmt.Errorf("content: the redirect: %w", err)
	}
	answer, err := f.web.Do(r)
	if err != nil {
		return nil, fmt.Errorf("content: the redirect: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("content: the redirect leads to an answer with status %d", answer.StatusCode)
	}
	return &File{answer.Body, answer.Header}, nil
}
