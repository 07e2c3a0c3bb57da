package ctl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler is a Handler made of functions.
type handler struct {
	query  func(ctx context.Context, text string, r sql.Receiver) error
	status func(ctx context.Context) ([]byte, error)
}

func (h handler) Query(ctx context.Context, text string, r sql.Receiver) error {
	return h.query(ctx, text, r)
}

func (h handler) Status(ctx context.Context) ([]byte, error) { return h.status(ctx) }

// answer is a Receiver that keeps everything, one line for each call.
type answer struct {
	lines []string
	fail  error // returned by Row
}

func (a *answer) Columns(names, types []string) error {
	a.lines = append(a.lines, fmt.Sprintf("columns %q %q", names, types))
	return nil
}

func (a *answer) Row(values []schema.Value) error {
	var cells []string
	for _, v := range values {
		cells = append(cells, fmt.Sprintf("%d:%q", v.Kind(), v.Text()))
	}
	a.lines = append(a.lines, strings.Join(cells, " "))
	return a.fail
}

func (a *answer) Warning(s string) { a.lines = append(a.lines, "warning "+s) }

func serve(t testing.TB, h Handler, o Options) (path string, s *Server) {
	t.Helper()
	// t.TempDir's names may be too long for a socket.
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "run", "goshawk.sock")
	if s, err = Listen(path, h, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return path, s
}

func dial(t testing.TB, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQuery(t *testing.T) {
	odd := []schema.Value{
		schema.Null, schema.IntValue(0), schema.IntValue(math.MinInt64), schema.IntValue(math.MaxInt64),
		schema.FloatValue(-0.5), schema.FloatValue(math.MaxFloat64), schema.TextValue(""), schema.TextValue("\x00\xff\n"),
	}
	names := []string{"a", "", "c", "d", "e", "f", "g", "\xff"}
	types := []string{"TEXT", "", "BIGINT", "", "", "", "", ""}
	path, _ := serve(t, handler{query: func(_ context.Context, text string, r sql.Receiver) error {
		if text != "SELECT \xff" {
			t.Errorf("the agent was asked %q", text)
		}
		r.Warning("early")
		if err := r.Columns(names, types); err != nil {
			return err
		}
		if err := r.Row(odd); err != nil {
			return err
		}
		r.Warning("in between")
		if err := r.Row(odd); err != nil {
			return err
		}
		if err := r.Columns([]string{"n"}, []string{""}); err != nil {
			return err
		}
		return r.Row([]schema.Value{schema.IntValue(7)})
	}}, Options{})
	var a answer
	if err := dial(t, path).Query(context.Background(), "SELECT \xff", &a); err != nil {
		t.Fatal(err)
	}
	row := `0:"" 1:"0" 1:"-9223372036854775808" 1:"9223372036854775807" 2:"-0.5" 2:"1.7976931348623157e+308" 3:"" 3:"\x00\xff\n"`
	want := []string{
		"warning early",
		`columns ["a" "" "c" "d" "e" "f" "g" "\xff"] ["TEXT" "" "BIGINT" "" "" "" "" ""]`,
		row, "warning in between", row,
		`columns ["n"] [""]`, `1:"7"`,
	}
	if d := cmp.Diff(want, a.lines); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestEngine puts a real engine behind the socket: many rows, a row of several megabytes,
// and two clients at a time.
func TestEngine(t *testing.T) {
	e, err := sql.Open(nil, sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	path, _ := serve(t, engine{e}, Options{})
	c := dial(t, path)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var a answer
			text := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i, i || 'x' FROM n; SELECT hex(zeroblob(2000000))"
			if err := c.Query(context.Background(), text, &a); err != nil {
				t.Error(err)
				return
			}
			if len(a.lines) != 50003 || a.lines[50000] != `1:"50000" 3:"50000x"` || len(a.lines[50002]) != 4000004 {
				t.Errorf("got %d lines", len(a.lines))
			}
		})
	}
	wg.Wait()
	err = c.Query(context.Background(), "SELECT * FROM nosuch", &answer{})
	if err == nil || err.Error() != "no such table: nosuch" {
		t.Errorf("got %v", err)
	}
}

type engine struct{ *sql.Engine }

func (engine) Status(context.Context) ([]byte, error) { return nil, nil }

func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	path, _ := serve(t, handler{
		query: func(_ context.Context, text string, r sql.Receiver) error {
			switch text {
			case "plain":
				return boom
			case "hint":
				return fmt.Errorf("wrapped: %w", &sql.Error{Text: "no such table: x", Hint: "did you mean y?"})
			case "large":
				if err := r.Columns([]string{"a"}, []string{""}); err != nil {
					return err
				}
				return r.Row([]schema.Value{schema.TextValue(strings.Repeat("x", maxRow+1))})
			}
			for range 10 {
				if err := r.Columns([]string{"a"}, []string{""}); err != nil {
					return err
				}
				if err := r.Row([]schema.Value{schema.Null}); err != nil {
					return err
				}
			}
			return nil
		},
		status: func(context.Context) ([]byte, error) { return nil, boom },
	}, Options{})
	c := dial(t, path)
	tests := []struct{ text, want, hint string }{
		{"plain", "boom", ""},
		{"hint", "no such table: x", "did you mean y?"},
		{"large", "a row is larger than 32 MiB", "select fewer columns"},
		{strings.Repeat("x", maxRequest), "the query is too long", ""},
	}
	for _, tt := range tests {
		err := c.Query(context.Background(), tt.text, &answer{})
		var got *sql.Error
		if !errors.As(err, &got) || got.Text != tt.want || got.Hint != tt.hint {
			t.Errorf("%.10s: got %#v", tt.text, err)
		}
	}
	if err := c.Query(context.Background(), "", &answer{fail: boom}); err != boom {
		t.Errorf("got %v, want the receiver's error unchanged", err)
	}
	if _, err := c.Status(context.Background()); err == nil || err.Error() != "boom" {
		t.Errorf("status: got %v", err)
	}
}

func TestStatus(t *testing.T) {
	path, _ := serve(t, handler{status: func(context.Context) ([]byte, error) { return []byte(`{"pid": 1}`), nil }}, Options{})
	got, err := dial(t, path).Status(context.Background())
	if string(got) != `{"pid": 1}` || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestModes(t *testing.T) {
	path, _ := serve(t, handler{}, Options{})
	for name, want := range map[string]os.FileMode{
		filepath.Dir(path): os.ModeDir | 0o700, path: os.ModeSocket | 0o600, path + ".lock": 0o600,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

func TestInUse(t *testing.T) {
	path, s := serve(t, handler{}, Options{})
	_, err := Listen(path, handler{}, Options{})
	var used *ErrInUse
	if !errors.As(err, &used) || used.PID != os.Getpid() || used.Path != path {
		t.Errorf("with a lock: got %v", err)
	}
	dial(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after Close: got %v", err)
	}

	// A live socket whose owner knows no locks, then the same one gone stale.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, handler{}, Options{}); !errors.As(err, &used) || used.PID != os.Getpid() {
		t.Errorf("without a lock: got %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stale: got %v", err)
	}
	again, err := Listen(path, handler{}, Options{})
	if err != nil {
		t.Fatalf("stale: %v", err)
	}
	dial(t, path)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 108))
	tests := []struct{ path, want string }{
		{file, fmt.Sprintf("listen on %q: there is a file that is no socket", file)},
		{file + "/s", fmt.Sprintf("listen in %q: it is no directory", file)},
		{open + "/s", fmt.Sprintf("listen in %q: other users may write to it (mode -rwxrwxrwx); make it 0700", open)},
		{long, fmt.Sprintf("listen on %q: the path is %d bytes long, a socket's may be 107", long, len(long))},
	}
	for _, tt := range tests {
		if s, err := Listen(tt.path, handler{}, Options{}); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
			if err == nil {
				s.Close()
			}
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

// waiting is a handler whose queries end with their context and say why.
func waiting(began chan<- struct{}, why chan<- error) Handler {
	return handler{query: func(ctx context.Context, text string, r sql.Receiver) error {
		if text == "quick" {
			return nil
		}
		began <- struct{}{}
		<-ctx.Done()
		why <- context.Cause(ctx)
		return fmt.Errorf("query stopped: %w", context.Cause(ctx))
	}}
}

func TestCancel(t *testing.T) {
	began, why := make(chan struct{}, 1), make(chan error, 1)
	path, s := serve(t, waiting(began, why), Options{Limit: 300 * time.Millisecond})
	c := dial(t, path)

	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	if err := c.Query(ctx, "", &answer{}); !errors.Is(err, context.Canceled) || err.Error() != "query stopped: context canceled" {
		t.Errorf("cancelled: got %v", err)
	}
	if err := <-why; err == nil || err.Error() != "the client hung up" {
		t.Errorf("cancelled: the query ended because %v", err)
	}

	if err := c.Query(context.Background(), "", &answer{}); err == nil || err.Error() != "query stopped: it took longer than 300ms" {
		t.Errorf("the server's limit: got %v", err)
	}
	<-began
	<-why

	ctx, cancel = context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Query(ctx, "", &answer{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the client's limit: got %v", err)
	}
	<-began
	<-why

	ended := make(chan error, 1)
	go func() { ended <- c.Query(context.Background(), "", &answer{}) }()
	<-began
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || err.Error() != "query stopped: the agent is shutting down" {
		t.Errorf("Close: got %v", err)
	}
	<-why
}

// TestSlowReader stalls one client while others are answered, then sees it cut off.
func TestSlowReader(t *testing.T) {
	ended := make(chan error, 1)
	path, _ := serve(t, handler{query: func(ctx context.Context, text string, r sql.Receiver) error {
		if text == "quick" {
			return nil
		}
		err := r.Columns([]string{"a"}, []string{""})
		row := []schema.Value{schema.TextValue(strings.Repeat("x", 10000))}
		for err == nil {
			err = r.Row(row)
		}
		ended <- err
		return err
	}}, Options{Stall: 300 * time.Millisecond})
	slow, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := slow.Write((&request{text: "endless"}).append(nil)); err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	for range 10 {
		begun := time.Now()
		if err := c.Query(context.Background(), "quick", &answer{}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 250*time.Millisecond {
			t.Errorf("a quick query took %v", took)
		}
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the slow client's query ended with %v", err)
	}
}

// TestReadAhead shows that a receiver that dawdles does not hold the agent up.
func TestReadAhead(t *testing.T) {
	sent := make(chan struct{})
	path, _ := serve(t, handler{query: func(_ context.Context, _ string, r sql.Receiver) error {
		defer close(sent)
		err := r.Columns([]string{"a"}, []string{""})
		row := []schema.Value{schema.TextValue(strings.Repeat("x", 100000))}
		for range 50 {
			if err == nil {
				err = r.Row(row)
			}
		}
		return err
	}}, Options{})
	r := &blocked{until: sent}
	if err := dial(t, path).Query(context.Background(), "", r); err != nil || r.rows != 50 {
		t.Errorf("got %d rows, %v", r.rows, err)
	}
}

type blocked struct {
	answer
	until <-chan struct{}
	rows  int
}

func (b *blocked) Row([]schema.Value) error { <-b.until; b.rows++; return nil }

func TestTooManyClients(t *testing.T) {
	began, why := make(chan struct{}, 2), make(chan error, 2)
	path, _ := serve(t, waiting(began, why), Options{Clients: 2})
	c := dial(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _ = c.Query(ctx, "", &answer{}) })
		<-began
	}
	if err := c.Query(context.Background(), "quick", &answer{}); err == nil || err.Error() != "the agent has 2 clients already" {
		t.Errorf("got %v", err)
	}
	cancel()
	wg.Wait()
	<-why
	<-why
	// The slots are free again, if not at once.
	for range 100 {
		if err := c.Query(context.Background(), "quick", &answer{}); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no slot became free")
}

// BenchmarkRows is the cost of a row of 12 cells from one end of the socket to the other.
func BenchmarkRows(b *testing.B) {
	row := make([]schema.Value, 12)
	for i := range 6 {
		row[i], row[6+i] = schema.IntValue(int64(i)<<20), schema.TextValue("/usr/lib/some/program")
	}
	path, _ := serve(b, handler{query: func(_ context.Context, _ string, r sql.Receiver) error {
		err := r.Columns(make([]string, 12), make([]string, 12))
		for i := 0; i < b.N && err == nil; i++ {
			err = r.Row(row)
		}
		return err
	}}, Options{})
	b.ReportAllocs()
	if err := dial(b, path).Query(context.Background(), "", discard{}); err != nil {
		b.Fatal(err)
	}
}

type discard struct{}

func (discard) Columns([]string, []string) error { return nil }
func (discard) Row([]schema.Value) error         { return nil }
func (discard) Warning(string)                   {}
