package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/remotetest"
	"github.com/goshawk-project/goshawk/internal/state"
)

// client is a node of a test server. Its clock stands still but when it sleeps.
type client struct {
	*Node
	t      *testing.T
	server *remotetest.Server
	mu     sync.Mutex
	now    time.Time
	naps   []time.Duration
	said   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newClient(t *testing.T, s *remotetest.Server, change func(*Options)) *client {
	t.Helper()
	c := &client{t: t, server: s, now: time.Unix(1412098650, 0), said: &lockedBuffer{}}
	o := Options{Hostname: s.Host, ServerCerts: s.CA, KeepAlive: true, Version: "5.23.1"}
	if change != nil {
		change(&o)
	}
	http, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.Close)
	db, err := state.Open(state.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	secret := s.SecretFile()
	c.Node = &Node{
		Client: http, State: db, Logger: slog.New(slog.NewTextHandler(c.said, nil)), EnrollEndpoint: remotetest.Enroll, SecretName: "enroll_secret",
		Secret: func() (string, error) {
			b, err := os.ReadFile(secret)
			return strings.TrimSpace(string(b)), err
		},
		Details: func(context.Context) (string, []byte, error) {
			return "web-1", []byte(`{"os_version":{"name":"Debian"}}`), nil
		},
		MaxAttempts: 3, MaxInterval: 600 * time.Second,
		Now: func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now },
		Sleep: func(_ context.Context, d time.Duration) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.naps = append(c.naps, d)
			c.now = c.now.Add(d)
			return nil
		},
	}
	return c
}

func (c *client) slept() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	naps := c.naps
	c.naps = nil
	return naps
}

func (c *client) config() (string, error) {
	text, err := c.Config(context.Background(), remotetest.Config, 1)
	return string(text), err
}

// hush checks that no secret was said.
func (c *client) hush(also ...string) {
	c.t.Helper()
	for _, text := range append(also, c.said.String()) {
		for _, secret := range []string{c.server.Secret, "node-key-"} {
			if strings.Contains(text, secret) {
				c.t.Errorf("%q is said: %s", secret, text)
			}
		}
	}
}

func TestEnroll(t *testing.T) {
	s := remotetest.Start(t)
	s.Config = `{"schedule":{}}`
	c := newClient(t, s, nil)
	for range 2 {
		if text, err := c.config(); err != nil || text != s.Config {
			t.Fatalf("%q, %v", text, err)
		}
	}
	s.Do(func() {
		if s.Requests[remotetest.Enroll] != 1 {
			t.Errorf("enrolled %d times", s.Requests[remotetest.Enroll])
		}
		want := `{"enroll_secret":"open sesame","host_identifier":"web-1","platform_type":"9","host_details":{"os_version":{"name":"Debian"}}}`
		if string(s.Enrolled[0]) != want {
			t.Errorf("request %s", s.Enrolled[0])
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "osquery/5.23.1", "Authorization": "NodeKey node-key-1",
		} {
			if got := s.Headers[remotetest.Config].Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if s.Headers[remotetest.Enroll].Get("Authorization") != "" {
			t.Error("a key is sent before there is one")
		}
		if _, ok := s.Headers[remotetest.Config]["Idempotency-Key"]; ok {
			t.Error("the transport's hint is sent")
		}
	})
	if v, _, _ := c.State.Get(domainNode, "key_time"); v != "1412098650" {
		t.Errorf("key_time %q", v)
	}
	c.hush()
}

func TestBadSecret(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	s.Do(func() { s.Secret = "another" })
	_, err := c.config()
	if err == nil || !strings.Contains(err.Error(), "Invalid node key: enrollment with the secret (secret) is refused (3 attempts)") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 4 * time.Second}, c.slept()); diff != "" {
		t.Error(diff)
	}
	// osctrl's way.
	s.Do(func() {
		s.Fault = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
	})
	c.MaxAttempts, c.MaxInterval = 6, 10*time.Second
	if _, err := c.config(); err == nil || !strings.Contains(err.Error(), "status 403") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]time.Duration{1e9, 4e9, 9e9, 10e9, 10e9}, c.slept()); diff != "" {
		t.Error(diff)
	}
	for answer, want := range map[string]string{
		`{"node_key":""}`: "no node key returned", `{"node_key":5}`: "no node key returned", `{"node_key":"a\nb"}`: "cannot be sent in a header",
		`{"id":"other"}`: "", `[]`: "no JSON object", `{"node_key":"x"`: "no JSON object", ``: "no node key returned",
	} {
		s.Do(func() {
			s.Keys["other"] = true
			s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path != remotetest.Enroll {
					return false
				}
				io.WriteString(w, answer)
				return true
			}
		})
		c.MaxAttempts = 1
		if _, err := c.config(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v", answer, err)
		}
		if err := c.Forget(""); err != nil {
			t.Fatal(err)
		}
	}
	c.hush()
}

// TestNodeInvalid checks that the answer's text decides, whatever the status.
func TestNodeInvalid(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	enrolled := func() (n int) {
		s.Do(func() { n = s.Requests[remotetest.Enroll] })
		return n
	}
	if _, err := c.config(); err != nil {
		t.Fatal(err)
	}
	for i, status := range []int{200, 401, 403, 500} {
		s.Do(func() {
			s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.URL.Path == remotetest.Enroll {
					return false
				}
				w.WriteHeader(status)
				io.WriteString(w, `{"node_invalid":true}`)
				return true
			}
		})
		if _, err := c.config(); !errors.Is(err, ErrInvalid) {
			t.Errorf("status %d: %v", status, err)
		}
		s.Do(func() { s.Fault = nil })
		if _, err := c.config(); err != nil || enrolled() != i+2 {
			t.Errorf("after status %d: %v, enrolled %d times", status, err, enrolled())
		}
	}
	n := enrolled()
	for _, tt := range []struct {
		status       int
		answer, want string // "" is success
	}{
		{200, `{"error":"bad thing \n node-key-5"}`, "Request failed: bad thing   (secret)"},
		{200, `{"error":5}`, "Request failed: <unknown>"},
		{500, `{"error":"boom"}`, "Request failed: boom"},
		{500, `{}`, "Request failed: status 500"},
		{500, `<html>`, "status 500, and the answer is no JSON object"},
		{502, ``, "status 502"},
		{200, `{"node_invalid":false,"error":null}`, ""},
		{200, `{"node_invalid":"true"}`, ""}, // a word is no truth
		{200, `{"a":`, "no JSON object"},
		{200, `[]`, "no JSON object"},
		{200, `null`, ""},
	} {
		s.Do(func() {
			s.Fault = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.answer)
				return true
			}
		})
		_, err := c.config()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d %s: error %v", tt.status, tt.answer, err)
		}
	}
	s.Do(func() { s.Fault = nil; clear(s.Keys) })
	c.NoReenrollment = true
	for range 2 {
		if _, err := c.config(); !errors.Is(err, ErrInvalid) {
			t.Errorf("error %v", err)
		} else {
			c.hush(err.Error())
		}
	}
	if enrolled() != n {
		t.Errorf("enrolled %d times more", enrolled()-n)
	}
	c.hush()
}

// TestTransport is what can go wrong on the way.
func TestTransport(t *testing.T) {
	s := remotetest.Start(t)
	s.Config = `{"options":{"a":"` + strings.Repeat("x", 10_000) + `"}}`
	fault := func(f func(w http.ResponseWriter, r *http.Request) bool) {
		s.Do(func() {
			s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				return r.URL.Path == remotetest.Config && f(w, r)
			}
		})
	}
	c := newClient(t, s, nil)
	wantError := func(what, want string) {
		t.Helper()
		if _, err := c.config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", what, err, want)
		} else {
			c.hush(err.Error())
		}
	}
	good := func(what string) {
		t.Helper()
		s.Do(func() { s.Fault = nil })
		if text, err := c.config(); err != nil || text != s.Config {
			t.Errorf("%s: %d bytes, %v", what, len(text), err)
		}
	}
	good("as it should be")
	for range 3 {
		s.CloseConnections()
		good("a kept connection was closed")
	}
	fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"schedule":{`)
		return true
	})
	wantError("an answer that is cut", "unexpected EOF")
	good("after it")
	fault(func(w http.ResponseWriter, _ *http.Request) bool {
		hijacked, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			hijacked.Close()
		}
		return true
	})
	wantError("a connection that is closed without an answer", "EOF")
	good("after it")
	patient := c
	c = newClient(t, s, func(o *Options) { o.Timeout = 500 * time.Millisecond })
	c.config() // enrols
	fault(func(w http.ResponseWriter, _ *http.Request) bool { time.Sleep(time.Second); return false })
	wantError("an answer that comes late", "timeout awaiting response headers")
	fault(func(w http.ResponseWriter, r *http.Request) bool {
		for range 100 {
			if _, err := io.WriteString(w, " "); err != nil {
				break
			}
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
		return true
	})
	wantError("an answer that trickles", "the answer took longer than 500ms")
	c = patient
	good("after it")
	fault(func(w http.ResponseWriter, _ *http.Request) bool {
		for range 9 {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
				break
			}
		}
		return true
	})
	wantError("an answer without end", "the answer is longer than 8388608 bytes")
	good("after it")

	// Compressed answers are read when they were asked for, and bounded then too.
	asksFor := ""
	packed := func(text []byte) {
		text = gzipped(t, text)
		fault(func(w http.ResponseWriter, r *http.Request) bool {
			asksFor = r.Header.Get("Accept-Encoding")
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(text)
			return true
		})
	}
	packed([]byte(s.Config))
	wantError("a compressed answer nobody asked for", "no JSON object")
	if asksFor != "" {
		t.Errorf("asks for %q", asksFor)
	}
	c = newClient(t, s, func(o *Options) { o.AcceptGzip = true })
	if text, err := c.config(); err != nil || text != s.Config {
		t.Errorf("compressed: %d bytes, %v", len(text), err)
	}
	packed(bytes.Repeat([]byte(" "), 20<<20))
	wantError("a bomb", "the answer is longer than 8388608 bytes")

	// Redirections are followed on the same server.
	fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.RawQuery == "" {
			http.Redirect(w, r, remotetest.Config+"?moved", http.StatusFound)
			return true
		}
		return r.Method != http.MethodPost
	})
	if text, err := c.config(); err != nil || text != s.Config {
		t.Errorf("redirected: %d bytes, %v", len(text), err)
	}
	asked := 0
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer elsewhere.Close()
	for _, to := range []string{elsewhere.URL, "http://" + s.Host + remotetest.Config, "https://user@" + s.Host + "/"} {
		fault(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			return true
		})
		wantError("redirected to "+to, "redirected to another server")
	}
	fault(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	wantError("redirected for ever", "more than 5 redirections")
	if asked > 0 {
		t.Error("another server was asked")
	}

	// A configuration cannot lead the agent to another host by an endpoint.
	for _, endpoint := range []string{"", "@evil.example/", ":1/x", ".evil.example/", "//\x00", "x"} {
		if _, err := c.Client.address(endpoint); err == nil {
			t.Errorf("endpoint %q is taken", endpoint)
		}
	}
	for _, endpoint := range []string{"/a", "//evil.example/a", "/a?b=c"} {
		if u, err := c.Client.address(endpoint); err != nil || u.Host != s.Host {
			t.Errorf("endpoint %q leads to %v, %v", endpoint, u, err)
		}
	}
}

func gzipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestVerification checks that no server is trusted whose certificate is not verified.
func TestVerification(t *testing.T) {
	s := remotetest.Start(t)
	_, port, _ := net.SplitHostPort(s.Host)
	for _, tt := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"another authority", func(o *Options) { o.ServerCerts = s.Other }, "certificate signed by unknown authority"},
		{"the system's authorities", func(o *Options) { o.ServerCerts = "" }, "certificate"},
		{"another name", func(o *Options) { o.Hostname = "localhost:" + port }, "certificate is not valid for any names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, s, tt.change)
			c.MaxAttempts = 1
			if _, err := c.config(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	s.Do(func() {
		if len(s.Requests) > 0 {
			t.Errorf("requests %v", s.Requests)
		}
	})
	for _, o := range []Options{
		{Hostname: ""}, {Hostname: "a/b"}, {Hostname: "user@a"}, {Hostname: "a?b"},
		{Hostname: "a", ServerCerts: "/nonexistent"}, {Hostname: "a", ServerCerts: "/dev/null"},
		{Hostname: "a", ClientCert: s.CA}, {Hostname: "a", ClientKey: s.CA}, {Hostname: "a", ClientCert: s.CA, ClientKey: s.CA},
		{Hostname: "a", Proxy: "a/b"},
	} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	c := newClient(t, s, func(o *Options) { o.Hostname = strings.TrimPrefix(old.URL, "https://") })
	c.MaxAttempts = 1
	if _, err := c.config(); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: error %v", err)
	}
}

func TestClientCertificate(t *testing.T) {
	s := remotetest.Start(t)
	seen := ""
	s.Fault = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if seen = ""; len(r.TLS.PeerCertificates) > 0 {
			seen = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		return false
	}
	cert, key := s.Issue("laptop", x509.ExtKeyUsageClientAuth)
	c := newClient(t, s, func(o *Options) { o.ClientCert, o.ClientKey = cert, key })
	if _, err := c.config(); err != nil || seen != "laptop" {
		t.Errorf("%v, the server saw %q", err, seen)
	}
}

func TestProxy(t *testing.T) {
	s := remotetest.Start(t)
	through := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != s.Host {
			dump, _ := httputil.DumpRequest(r, false)
			t.Errorf("the proxy is asked %s", dump)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		through++
		from, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(to, from); to.Close() }()
		go func() { io.Copy(from, to); from.Close() }()
	}))
	defer proxy.Close()
	c := newClient(t, s, func(o *Options) { o.Proxy = strings.TrimPrefix(proxy.URL, "http://") })
	if _, err := c.config(); err != nil || through == 0 {
		t.Errorf("%v, %d connections through the proxy", err, through)
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if _, err := newClient(t, s, nil).config(); err != nil {
		t.Errorf("the environment has a say: %v", err)
	}
}

func TestConfigAttempts(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	failures := 2
	s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != remotetest.Config || failures == 0 {
			return false
		}
		failures--
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	if _, err := c.Config(context.Background(), remotetest.Config, 3); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 4 * time.Second}, c.slept()); diff != "" {
		t.Error(diff)
	}
	s.Do(func() { failures = 5 })
	if _, err := c.Config(context.Background(), remotetest.Config, 3); err == nil {
		t.Error("no error")
	}
	s.Do(func() { failures, s.Config = 0, " " })
	if _, err := c.Config(context.Background(), remotetest.Config, 1); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("error %v", err)
	}
}

func TestLogs(t *testing.T) {
	s := remotetest.Start(t)
	c := newClient(t, s, nil)
	l := &Logs{
		Node: c.Node, Kind: Results, Endpoint: func() string { return remotetest.Log }, MaxLines: func() int { return 1024 },
		MaxSize: func() int { return 100 }, Compress: func() bool { return false },
	}
	send := func(lines string) (int, error) {
		tooLong, _, err := l.Write(context.Background(), state.Batch{Lines: []byte(lines)}, "")
		return tooLong, err
	}
	got := func() string {
		var out []string
		s.Do(func() {
			for _, r := range s.Results {
				out = append(out, string(r))
			}
			s.Results = nil
		})
		return strings.Join(out, ";")
	}
	tooLong, err := send("{\"a\":1}\n{\"b\":\"" + strings.Repeat("x", 100) + "\"}\n{\"c\":\"\\u0000\"}\n")
	if g := got(); err != nil || tooLong != 1 || g != `{"a":1};{"c":"\u0000"}` {
		t.Errorf("%d too long, %v: %s", tooLong, err, g)
	}
	if !strings.Contains(c.said.String(), "Linesize exceeds TLS logger maximum: 108") {
		t.Errorf("said %s", c.said)
	}
	s.Do(func() {
		s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
	})
	if _, err := send("{}\n"); err == nil {
		t.Error("a log that the server refuses is taken for sent")
	}
	s.Do(func() { s.Fault = nil })

	l.Compress = func() bool { return true }
	if _, err := send("{\"z\":1}\n"); err != nil || got() != `{"z":1}` {
		t.Error(err)
	}
	s.Do(func() {
		if s.Headers[remotetest.Log].Get("Content-Encoding") != "gzip" {
			t.Error("it is not compressed")
		}
		s.Fault = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.Header.Get("Content-Encoding") == "" {
				return false
			}
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return true
		}
	})
	for range 2 {
		if _, err := send("{\"y\":1}\n"); err != nil || got() != `{"y":1}` {
			t.Error(err)
		}
	}
	if n := strings.Count(c.said.String(), "refuses compressed logs"); n != 1 {
		t.Errorf("said %d times", n)
	}

	l.Disabled = func() bool { return true }
	if _, err := send("{}\n"); err != nil || got() != "" {
		t.Errorf("disabled: %v", err)
	}
	l.Disabled, l.Endpoint = nil, func() string { return "" }
	if _, err := send("{}\n"); err == nil || !strings.Contains(err.Error(), "is no path") {
		t.Errorf("no endpoint: %v", err)
	}
	for n, want := range map[int]time.Duration{1: 4 * time.Second, 2: 16 * time.Second, 30: 3600 * time.Second, 1 << 20: 3600 * time.Second} {
		if got := Backoff(4*time.Second, 3600*time.Second, n); got != want {
			t.Errorf("after %d failures %v", n, got)
		}
	}
}
