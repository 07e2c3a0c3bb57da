package extension

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	osquery "github.com/osquery/osquery-go"
	wire "github.com/osquery/osquery-go/gen/osquery"
	"github.com/osquery/osquery-go/plugin/logger"
	"github.com/osquery/osquery-go/plugin/table"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// host is a manager with an engine over its extensions' tables and one of its own.
type host struct {
	t       *testing.T
	m       *Manager
	log     *logged
	timeout time.Duration

	mu     sync.Mutex
	engine *sql.Engine
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(b) }
func (l *logged) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

type one struct{ n int64 }

// numbers is a table of our own: the numbers from 0 to 9, and whether they are even.
func numbers(n int64) *schema.Table[*one] {
	t := &schema.Table[*one]{Name: "numbers", Doc: "Numbers.", Columns: []schema.Column[*one]{
		schema.Int("n", func(o *one) *int64 { return &o.n }, "The number", schema.Index),
		schema.Calc("word", schema.Text, func(o *one) schema.Value {
			if o.n%2 == 0 {
				return schema.TextValue("even")
			}
			return schema.Null
		}, "even, or nothing", schema.Hidden),
	}}
	t.Rows = func(context.Context, *schema.Query) ([]*one, error) {
		var out []*one
		for i := range n {
			out = append(out, &one{i})
		}
		return out, nil
	}
	return t.Bind()
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, log: &logged{}, timeout: 30 * time.Second}
	dir, err := os.MkdirTemp("", "goshawk-em-") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.build()
	h.m, err = Listen(Options{
		Socket: filepath.Join(dir, "em"), Version: "5.23.1", Query: h.query, Changed: h.build, Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		Flags:   func() []Flag { return []Flag{{"host_identifier", "string", "hostname", "uuid"}} },
		Ours:    func(name string) bool { return name == "numbers" },
		Timeout: func() time.Duration { return h.timeout }, Interval: func() time.Duration { return 100 * time.Millisecond },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.m.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// build makes the engine anew; a query that runs on the old one is not part of these tests.
func (h *host) build() {
	all := []schema.Relation{numbers(10)}
	if h.m != nil {
		all = append(all, h.m.Relations()...)
	}
	e, err := sql.Open(all, sql.Options{})
	if err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.engine = e
}

func (h *host) query(ctx context.Context, text string, r sql.Receiver) error {
	h.mu.Lock()
	e := h.engine
	h.mu.Unlock()
	return e.Query(ctx, text, r)
}

// rows are the rows of a query, each as the text of a map.
func (h *host) rows(text string) []string {
	h.t.Helper()
	r := &rows{}
	if err := h.query(context.Background(), text, r); err != nil {
		h.t.Fatalf("%s: %v", text, err)
	}
	var out []string
	for _, row := range r.list {
		out = append(out, fmt.Sprint(row))
	}
	return out
}

func (h *host) until(what string, f func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not within 30 s: %s; log:\n%s", what, h.log)
		}
	}
}

// start runs an extension as its authors write them, with osquery-go.
func (h *host) start(name string, plugins ...osquery.OsqueryPlugin) *osquery.ExtensionManagerServer {
	h.t.Helper()
	s, err := osquery.NewExtensionManagerServer(name, h.m.o.Socket, osquery.ServerTimeout(10*time.Second), osquery.ServerPingInterval(time.Second), osquery.ExtensionVersion("1.2"))
	if err != nil {
		h.t.Fatal(err)
	}
	s.RegisterPlugin(plugins...)
	go func() { _ = s.Run() }() // ends with Shutdown, or with the manager
	h.until(name+" is registered", func() bool {
		for _, e := range h.m.Extensions() {
			if e.Name == name {
				_, err := os.Stat(e.Path)
				return err == nil
			}
		}
		return false
	})
	return s
}

func TestExtensionTable(t *testing.T) {
	h := newHost(t)
	var asked []table.QueryContext
	var mu sync.Mutex
	plugin := table.NewPlugin("weather", []table.ColumnDefinition{
		table.TextColumn("city", table.IndexColumn()), table.IntegerColumn("degrees"), table.DoubleColumn("rain"), table.BigIntColumn("at", table.HiddenColumn()),
	}, func(_ context.Context, q table.QueryContext) ([]map[string]string, error) {
		mu.Lock()
		asked = append(asked, q)
		mu.Unlock()
		return []map[string]string{
			{"city": "Ulm", "degrees": "7", "rain": "0.5", "at": "1700000000"},
			{"city": "Bonn", "degrees": "none", "rain": ""},
		}, nil
	})
	quiet := logger.NewPlugin("l", func(context.Context, logger.LogType, string) error { return nil })
	s := h.start("meteo", plugin, quiet)

	if diff := cmp.Diff([]string{"map[city:Ulm degrees:7 rain:0.5]", "map[city:Bonn degrees: rain:]"}, h.rows("SELECT * FROM weather")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"map[t:integer]", "map[t:null]"}, h.rows("SELECT typeof(degrees) AS t FROM weather")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"map[at:1700000000 n:7]"}, h.rows("SELECT at, n FROM weather JOIN numbers ON n = degrees WHERE city IN ('Ulm', 'Rom') AND degrees > 3")); diff != "" {
		t.Error(diff)
	}
	mu.Lock()
	last := asked[len(asked)-1].Constraints
	mu.Unlock()
	want := map[string]table.ConstraintList{
		"city":    {Affinity: table.ColumnTypeText, Constraints: []table.Constraint{{Operator: table.OperatorEquals, Expression: "Ulm"}, {Operator: table.OperatorEquals, Expression: "Rom"}}},
		"degrees": {Affinity: table.ColumnTypeInteger, Constraints: []table.Constraint{{Operator: table.OperatorGreaterThan, Expression: "3"}}},
	}
	if diff := cmp.Diff(want["degrees"], last["degrees"]); diff != "" {
		t.Errorf("conditions: %s", diff)
	}
	if got := len(last["city"].Constraints); got == 0 {
		t.Errorf("no condition on city reached the extension: %v", last)
	}
	if e := h.m.Extensions(); len(e) != 1 || e[0].Name != "meteo" || e[0].Version != "1.2" || !strings.HasPrefix(e[0].Path, h.m.o.Socket+".") {
		t.Errorf("%+v", e)
	}
	if !strings.Contains(h.log.String(), "only tables are supported") {
		t.Error("nobody was told that the logger is left out")
	}

	// An extension asks the manager.
	c, err := osquery.NewClient(h.m.o.Socket, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.QueryRow("SELECT count(*) AS c, max(n) AS m FROM numbers"); err != nil || got["c"] != "10" || got["m"] != "9" {
		t.Errorf("query: %v, %v", got, err)
	}
	if _, err := c.QueryRows("SELECT * FROM nowhere"); err == nil || !strings.Contains(err.Error(), "no such table: nowhere") {
		t.Errorf("query of no table: %v", err)
	}
	if got, err := c.GetQueryColumns("SELECT city, degrees, 1 AS one FROM weather"); err != nil || fmt.Sprint(got.Response) != "[map[city:TEXT] map[degrees:INTEGER] map[one:UNKNOWN]]" {
		t.Errorf("columns: %v, %v", got, err)
	}
	if got, err := c.Options(); err != nil || got["host_identifier"] == nil || got["host_identifier"].Value != "uuid" {
		t.Errorf("options: %v, %v", got, err)
	}
	if got, err := c.Extensions(); err != nil || got[0] == nil || got[0].Version != "5.23.1" || len(got) != 2 {
		t.Errorf("extensions: %v, %v", got, err)
	}
	if got, err := c.Call("table", "numbers", map[string]string{"action": "generate"}); err != nil || got.Status.Code != 0 || len(got.Response) != 10 {
		t.Errorf("call: %v, %v", got, err)
	}
	if got, err := c.Call("logger", "x", nil); err != nil || got.Status.Code == 0 {
		t.Errorf("call of a logger: %v, %v", got, err)
	}

	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	h.until("the table is gone", func() bool { return len(h.m.Extensions()) == 0 })
	if err := h.query(context.Background(), "SELECT * FROM weather", &rows{}); err == nil {
		t.Error("a table whose extension is gone answers")
	}
}

// register speaks for an extension that has no socket of its own.
func (h *host) register(name string, tables map[string][]map[string]string) *wire.ExtensionStatus {
	h.t.Helper()
	c, err := osquery.NewClient(h.m.o.Socket, 10*time.Second)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	routes := wire.ExtensionRouteTable{}
	for name, columns := range tables {
		routes[name] = columns
	}
	status, err := c.RegisterExtension(&wire.InternalExtensionInfo{Name: name}, wire.ExtensionRegistry{"table": routes})
	if err != nil {
		h.t.Fatal(err)
	}
	return status
}

func column(name, kind, op string) map[string]string {
	return map[string]string{"id": "column", "name": name, "type": kind, "op": op}
}

func TestRegistrationRefused(t *testing.T) {
	h := newHost(t)
	h.start("first", table.NewPlugin("taken", []table.ColumnDefinition{table.TextColumn("a")}, func(context.Context, table.QueryContext) ([]map[string]string, error) { return nil, nil }))
	good := []map[string]string{column("a", "TEXT", "0")}
	for name, tt := range map[string]struct {
		tables map[string][]map[string]string
		want   string
	}{
		"first":   {map[string][]map[string]string{"other": good}, "duplicate extension"},
		"taken":   {map[string][]map[string]string{"TAKEN": good}, "same name"},
		"ours":    {map[string][]map[string]string{"Numbers": good}, "called Numbers already"},
		"name":    {map[string][]map[string]string{"x; DROP": good}, "cannot be called"},
		"no cols": {map[string][]map[string]string{"t": nil}, "no columns"},
		"type":    {map[string][]map[string]string{"t": {column("a", "VARCHAR", "0")}}, "not known"},
		"twice":   {map[string][]map[string]string{"t": {column("a", "TEXT", "0"), column("A", "TEXT", "0")}}, "two columns"},
		"column":  {map[string][]map[string]string{"t": {column("a\"", "TEXT", "0")}}, "cannot be called"},
		"":        {map[string][]map[string]string{"t": good}, "needs a name"},
	} {
		if s := h.register(name, tt.tables); s.Code == 0 || !strings.Contains(s.Message, tt.want) {
			t.Errorf("%q: code %d, %q; want %q", name, s.Code, s.Message, tt.want)
		}
	}
	if e := h.m.Extensions(); len(e) != 1 {
		t.Errorf("%d extensions", len(e))
	}
}

// An extension that died is taken off, one that comes back takes its own place at once.
func TestExtensionDies(t *testing.T) {
	h := newHost(t)
	columns := map[string][]map[string]string{"t": {column("a", "TEXT", "0")}}
	if s := h.register("mortal", columns); s.Code != 0 {
		t.Fatal(s.Message)
	}
	if s := h.register("mortal", columns); s.Code != 0 { // nobody listens at the first one's socket
		t.Fatal(s.Message)
	}
	if err := h.query(context.Background(), "SELECT * FROM t", &rows{}); err == nil || !strings.Contains(err.Error(), "ask its extension") {
		t.Errorf("a dead extension's table: %v", err)
	}
	h.until("it is taken off", func() bool { return len(h.m.Extensions()) == 0 })
	if !strings.Contains(h.log.String(), "does not answer and is taken off") {
		t.Errorf("log:\n%s", h.log)
	}
}

// An extension that never answers, answers with an error or too much, or leaves in between,
// is an error of the query, in time.
func TestExtensionMisbehaves(t *testing.T) {
	h := newHost(t)
	block := make(chan struct{})
	defer close(block)
	one := []table.ColumnDefinition{table.TextColumn("a")}
	h.start("bad",
		table.NewPlugin("slow", one, func(context.Context, table.QueryContext) ([]map[string]string, error) { <-block; return nil, nil }),
		table.NewPlugin("failing", one, func(context.Context, table.QueryContext) ([]map[string]string, error) {
			return nil, errors.New("no weather today")
		}),
		table.NewPlugin("huge", one, func(context.Context, table.QueryContext) ([]map[string]string, error) {
			return []map[string]string{{"a": strings.Repeat("x", maxMessage+1)}}, nil
		}),
	)
	fails := func(table, want string) {
		t.Helper()
		if err := h.query(context.Background(), "SELECT * FROM "+table, &rows{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", table, err, want)
		}
	}
	fails("failing", "no weather today")
	fails("huge", "ask its extension")
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := h.query(ctx, "SELECT * FROM slow", &rows{}); err == nil {
		t.Error("a query that was stopped has no error")
	}
	h.timeout = 200 * time.Millisecond
	fails("slow", "deadline")
}

// Whatever bytes come, the manager goes on.
func TestHostileBytes(t *testing.T) {
	h := newHost(t)
	send := func(b []byte) {
		conn, err := net.Dial("unix", h.m.o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(b) // the manager may hang up
		_ = conn.(*net.UnixConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		var buf [512]byte
		for {
			if _, err := conn.Read(buf[:]); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after %d bytes the manager neither answers nor hangs up", len(b))
				}
				return
			}
		}
	}
	call := []byte{0x80, 1, 0, 1, 0, 0, 0, 5}
	call = append(call, "query\x00\x00\x00\x01"...)
	long := append(bytes.Clone(call), 11, 0, 1) // a string as field 1 …
	long = binary.BigEndian.AppendUint32(long, 0x7fffffff)
	list := append(bytes.Clone(call), 15, 0, 1, 12) // a list of structures …
	list = binary.BigEndian.AppendUint32(list, 0x7fffffff)
	deep := append(bytes.Clone(call), bytes.Repeat([]byte{12, 0, 1}, 100_000)...)
	for _, b := range [][]byte{nil, []byte("GET / HTTP/1.1\r\n\r\n"), call, long, list, deep, bytes.Repeat([]byte{0xff}, 4096), make([]byte, 4096)} {
		send(b)
	}
	c, err := osquery.NewClient(h.m.o.Socket, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.QueryRow("SELECT 1 AS one"); err != nil || got["one"] != "1" {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}

func TestListen(t *testing.T) {
	h := newHost(t)
	info, err := os.Stat(h.m.o.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(h.m.o); err == nil || !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("listen twice: %v", err)
	}
	o := h.m.o
	o.Socket = filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if _, err := Listen(o); err == nil || !strings.Contains(err.Error(), "97") {
		t.Errorf("long path: %v", err)
	}
	o.Socket = filepath.Join(filepath.Dir(h.m.o.Socket), "file")
	if err := os.WriteFile(o.Socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(o); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("a file in the way: %v", err)
	}
}

// Our tables as an extension's, over the socket and back.
func TestPlugin(t *testing.T) {
	h := newHost(t)
	synced := 0
	ours := numbers(50)
	ours.Name = "more_numbers"
	ours.Bind()
	small := numbers(6)
	small.Name = "few"
	small.Bind()
	sync := func(context.Context) error { synced++; return nil }
	h.start("goshawk", Plugin(ours, sync, 100), Plugin(small, sync, 5))
	if diff := cmp.Diff([]string{"map[n:4 word:even]", "map[n:5 word:]"}, h.rows("SELECT n, word FROM more_numbers WHERE n IN (4, 5)")); diff != "" {
		t.Error(diff)
	}
	if got := h.rows("SELECT count(*) AS c FROM more_numbers WHERE n >= 40"); got[0] != "map[c:10]" {
		t.Error(got)
	}
	if got := h.rows("SELECT * FROM more_numbers LIMIT 1"); got[0] != "map[n:0]" {
		t.Errorf("hidden columns show: %v", got)
	}
	if synced == 0 {
		t.Error("nothing waited for what happened before")
	}
	if err := h.query(context.Background(), "SELECT * FROM few", &rows{}); err == nil || !strings.Contains(err.Error(), "narrow it") {
		t.Errorf("too many rows: %v", err)
	}
}
