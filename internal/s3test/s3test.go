// Package s3test runs a real S3 server, versitygw, for tests.
package s3test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// module is the server. It is no dependency: the go command builds it apart, as a
// user would, which takes minutes the first time only.
const module = "github.com/versity/versitygw/cmd/versitygw@v1.0.14"

// Server is an S3 server that runs until the test ends.
type Server struct {
	Endpoint  string // http://host:port
	Region    string
	AccessKey string
	SecretKey string

	t testing.TB
}

// Start runs an S3 server on a new folder, without a bucket.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "install", module)
	build.Dir, build.Env = bin, append(os.Environ(), "GOBIN="+bin)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the S3 server cannot be built: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := &Server{Endpoint: "http://" + address, Region: "us-east-1", AccessKey: "key", SecretKey: "secret key", t: t}
	s.run(filepath.Join(bin, "versitygw"), address)
	return s
}

// run starts the program and waits until it answers.
func (s *Server) run(program, address string) {
	s.t.Helper()
	run := exec.Command(program, "--access", s.AccessKey, "--secret", s.SecretKey, "--port", address, "posix", "--sidecar", s.t.TempDir(), s.t.TempDir())
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread ends
	if err := run.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = run.Process.Kill()
		_ = run.Wait()
		runtime.UnlockOSThread()
	})
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			_ = answer.Body.Close()
			return
		}
		if ctx.Err() != nil {
			s.t.Fatalf("the S3 server does not answer:\n%s", output.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Server) client() *minio.Client {
	s.t.Helper()
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: s.Region})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// MakeBucket makes a bucket.
func (s *Server) MakeBucket(name string) {
	s.t.Helper()
	if err := s.client().MakeBucket(s.t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// Objects lists the names of the objects in a bucket.
func (s *Server) Objects(bucket string) (names []string) {
	s.t.Helper()
	for o := range s.client().ListObjects(s.t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			s.t.Fatal(o.Err)
		}
		names = append(names, o.Key)
	}
	return names
}
