package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// serveUnix serves HTTP (h2: HTTP/2, as gRPC has it) on a unix socket, and counts the bytes
// that it could write.
func serveUnix(t *testing.T, h2 bool, handler http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	if h2 {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return path
}

// flood writes n bytes, and returns how many were taken.
func flood(w http.ResponseWriter, n int) (taken int) {
	chunk := []byte(strings.Repeat(" ", 64<<10))
	for taken < n {
		m, err := w.Write(chunk)
		taken += m
		if err != nil {
			break
		}
	}
	return taken
}

// A runtime that answers a hundred megabytes is not listened to for long.
func TestHugeAnswer(t *testing.T) {
	var taken atomic.Int64
	path := serveUnix(t, false, func(w http.ResponseWriter, r *http.Request) { taken.Add(int64(flood(w, 100<<20))) })
	d := NewDocker(path)
	defer d.Close()
	if _, err := d.Containers(context.Background(), true); !errors.Is(err, errTooLarge) {
		t.Errorf("list: %v", err)
	}
	if _, err := d.Details(context.Background(), id1); !errors.Is(err, errTooLarge) {
		t.Errorf("details: %v", err)
	}
	if n := taken.Load(); n > 2*maxList {
		t.Errorf("%d bytes were taken", n)
	}
	h2 := serveUnix(t, true, func(w http.ResponseWriter, r *http.Request) { flood(w, 100<<20) })
	c := &criAPI{s: dial(h2, true), runtime: Containerd}
	defer c.s.close()
	if _, err := c.get(context.Background(), id1); !errors.Is(err, errTooLarge) {
		t.Errorf("gRPC: %v", err)
	}
	endless := serveUnix(t, false, func(w http.ResponseWriter, r *http.Request) { flood(w, 100<<20) })
	e := NewDocker(endless)
	defer e.Close()
	if err := e.events(context.Background(), func(*dockerEvent) { t.Error("an event of nothing") }); err == nil {
		t.Error("a line of a hundred megabytes is taken for an event")
	}
}

// One that accepts and says nothing costs a question its time, and no more.
func TestHangingRuntime(t *testing.T) {
	quit := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-quit:
		case <-r.Context().Done():
		}
	}
	d := NewDocker(serveUnix(t, false, hang))
	c := &criAPI{s: dial(serveUnix(t, true, hang), true), runtime: Containerd}
	// Ends before the servers do, which wait for their handlers.
	t.Cleanup(func() { close(quit); d.Close(); c.s.close() })
	for name, ask := range map[string]func() error{
		"docker": func() error { _, err := d.Details(context.Background(), id1); return err },
		"cri":    func() error { _, err := c.get(context.Background(), id1); return err },
	} {
		began := time.Now()
		if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took < callTime/2 || took > 12*callTime {
			t.Errorf("%s: gave up after %v, want %v", name, took, callTime)
		}
	}
}

// Frames that are none, and statuses that tell nothing.
func TestMalformedGRPC(t *testing.T) {
	frame := func(flag byte, length uint32, body string) string {
		return string(binary.BigEndian.AppendUint32([]byte{flag}, length)) + body
	}
	for name, tt := range map[string]struct{ body, status, want string }{
		"empty":         {"", "0", "unexpected EOF"},
		"compressed":    {frame(1, 2, "ab"), "0", "compressed"},
		"too long":      {frame(0, 1<<31, "ab"), "0", "a message of 2147483648 bytes"},
		"two":           {frame(0, 1, "a") + frame(0, 1, "b"), "0", "a message of 1 bytes"},
		"no status":     {frame(0, 1, "a"), "", "no gRPC status"},
		"not found":     {"", "5", "not known there"},
		"refused":       {"", "7", "gRPC status 7"},
		"no message":    {frame(0, 3, "\xff\xff\xff"), "0", "malformed"},
		"cut in a text": {frame(0, 3, "\x0a\x7fa"), "0", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			path := serveUnix(t, true, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Trailer", "Grpc-Status")
				fmt.Fprint(w, tt.body)
				w.Header().Set("Grpc-Status", tt.status)
			})
			c := &criAPI{s: dial(path, true), runtime: Containerd}
			defer c.s.close()
			_, err := c.get(context.Background(), id1)
			if tt.want == "not known there" {
				if !errors.Is(err, errNone) {
					t.Errorf("%v", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// learning runs a resolver against one endpoint on a host where no other runtime has left
// anything, and returns what it tells.
func learning(t *testing.T, e Endpoint) (*Resolver, chan *event.Container) {
	t.Helper()
	root := filepath.Dir(e.Path)
	e.Path = "/" + filepath.Base(e.Path)
	r, err := NewResolver(ResolverOptions{HostRoot: root, FS: procfs.At(""), BootID: "b", Warn: func(s string) { t.Log(s) }, Endpoints: []Endpoint{e}})
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan *event.Batch)
	told := make(chan *event.Container, 64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, out) }()
	go func() {
		for b := range out {
			for _, x := range b.Events {
				c := *x.(*event.Container)
				told <- &c
			}
			b.Release()
		}
		close(told)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the resolver does not end")
		}
		close(out)
		r.Close()
	})
	return r, told
}

// One that answers about another container than was asked for is not believed.
func TestLyingRuntime(t *testing.T) {
	path := serveUnix(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/containers/json":
			fmt.Fprint(w, `[]`)
		case "/events":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprintf(w, `{"Id":%q,"Name":"/bank","Config":{"Image":"bank:1"}}`, id2)
		}
	})
	r, told := learning(t, Endpoint{Docker, path})
	waitFor(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.dockers) == 1 })
	r.Ask(Request{Ref: Ref{ID: id1, Runtime: Docker, Root: path1}})
	waitFor(t, func() bool { return r.count.asked.Load() == 1 })
	select {
	case e := <-told:
		t.Errorf("told %+v", e)
	case <-time.After(500 * time.Millisecond):
	}
}

// What Docker says of a container is told word for word: from the list, from its stream of
// events, and when it is asked.
func TestDockerSpeaks(t *testing.T) {
	details := recorded(t, "docker-inspect.json")
	events := make(chan string, 1)
	path := serveUnix(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/containers/json":
			w.Write(recorded(t, "docker-containers.json"))
		case r.URL.Path == "/events":
			w.(http.Flusher).Flush()
			select {
			case line := <-events:
				fmt.Fprintln(w, line)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/83de9c011ae32e0aff4331acb44b70df05ced6f16b4bf8bec599c32bdc9f113b/json"):
			w.Write(details)
		case strings.HasPrefix(r.URL.Path, "/images/"):
			fmt.Fprint(w, `{"RepoDigests":["acme/shop@sha256:1234"]}`)
		default:
			http.NotFound(w, r)
		}
	})
	_, told := learning(t, Endpoint{Docker, path})
	const id = "83de9c011ae32e0aff4331acb44b70df05ced6f16b4bf8bec599c32bdc9f113b"
	got := next(t, told)
	for got.ContainerID != id || got.Digest == "" {
		got = next(t, told)
	}
	if e := got; e.ContainerName != "ct-docker" || e.Image != "acme/shop:1.0" || e.Digest != "sha256:1234" || e.Runtime != Docker ||
		e.Labels != `{"app":"shop","com.example.team":"payments"}` || e.Privileged != event.No || e.Source != "runtime" {
		t.Errorf("%+v", e)
	}
	events <- `{"Type":"container","Action":"create","Actor":{"ID":"` + id1 + `","Attributes":{"image":"job:1","name":"short","team":"x"}}}`
	if e := next(t, told); e.ContainerID != id1 || e.ContainerName != "short" || e.Image != "job:1" || e.Labels != `{"team":"x"}` {
		t.Errorf("%+v", e)
	}
}

func next(t *testing.T, told chan *event.Container) *event.Container {
	t.Helper()
	select {
	case e := <-told:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("nothing more is told")
		return nil
	}
}

func waitFor(t *testing.T, ready func() bool) {
	t.Helper()
	for range 400 {
		if ready() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}

func TestEndpoint(t *testing.T) {
	if e, err := ParseEndpoint("docker=/run/docker.sock"); err != nil || e != (Endpoint{Docker, "/run/docker.sock"}) {
		t.Errorf("%v, %v", e, err)
	}
	for _, bad := range []string{"", "docker", "docker=", "docker=run/x", "rkt=/run/x", "=/run/x"} {
		if e, err := ParseEndpoint(bad); err == nil {
			t.Errorf("%q: %v", bad, e)
		}
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
