package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
)

// bench is a scheduler with a host of its own: a table that tests change, a log of events,
// and a clock that only tests move.
type bench struct {
	t      *testing.T
	dir    string
	now    time.Time
	things []*thing // rows of the table things
	log    *log
	engine *sql.Engine
	state  *state.DB
	sched  *Scheduler
	said   bytes.Buffer // status lines
	flags  []string
	conf   string
}

type thing struct {
	name string
	size int64
}

// log is an event log in memory.
type log struct {
	mu   sync.Mutex
	rows []*thing // eid is the index, from 1
}

func (l *log) Head(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.rows)), nil
}

func (l *log) add(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range names {
		l.rows = append(l.rows, &thing{n, int64(len(l.rows) + 1)})
	}
}

// eventTable is a table over the log; eid is text, as in most of osquery's.
type eventTable struct {
	def *schema.Def
	log *log
}

func newEventTable(name string, l *log) *eventTable {
	return &eventTable{&schema.Def{Name: name, Events: true, Columns: []schema.ColumnDef{
		{Name: "name", Type: schema.Text}, {Name: "time", Type: schema.BigInt, Flags: schema.Additional},
		{Name: "eid", Type: schema.Text, Flags: schema.Hidden | schema.Index},
	}}, l}
}

func (e *eventTable) Def() *schema.Def { return e.def }

func (e *eventTable) Open(_ context.Context, q *schema.Query) (schema.Cursor, error) {
	first, last := int64(1), int64(1<<62)
	for _, c := range q.Constraints {
		if c.Column == 2 && c.Value.Kind() == schema.KindInt {
			switch c.Op {
			case schema.Gt:
				first = c.Value.Int() + 1
			case schema.Le:
				last = c.Value.Int()
			}
		}
	}
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	rows := e.log.rows[min(int(first-1), len(e.log.rows)):]
	return &eventCursor{rows: slices.Clone(rows[:max(0, min(len(rows), int(last-first+1)))]), at: -1}, nil
}

type eventCursor struct {
	rows []*thing
	at   int
}

func (c *eventCursor) Next() (bool, error) { c.at++; return c.at < len(c.rows), nil }
func (c *eventCursor) Close() error        { return nil }
func (c *eventCursor) Value(i int) schema.Value {
	r := c.rows[c.at]
	switch i {
	case 0:
		return schema.TextValue(r.name)
	case 1:
		return schema.IntValue(r.size * 100)
	}
	return schema.TextValue(fmt.Sprintf("%010d", r.size))
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), now: time.Unix(1412098650, 0), log: &log{}}
	things := (&schema.Table[*thing]{
		Name: "things", Columns: []schema.Column[*thing]{
			schema.Str("name", func(r *thing) *string { return &r.name }, ""),
			schema.Int("size", func(r *thing) *int64 { return &r.size }, ""),
		},
		Rows: func(context.Context, *schema.Query) ([]*thing, error) { return b.things, nil },
	}).Bind()
	var err error
	b.engine, err = sql.Open([]schema.Relation{things, Windowed(newEventTable("happened", b.log)), Windowed(newEventTable("also", b.log))}, sql.Options{Memory: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.engine.Close() })
	b.restart()
	t.Cleanup(func() { b.state.Close() })
	return b
}

// restart is a kill of the process and a new one.
func (b *bench) restart() {
	b.t.Helper()
	if b.state != nil {
		b.state.Close()
	}
	var err error
	if b.state, err = state.Open(state.Options{Dir: b.dir}); err != nil {
		b.t.Fatal(err)
	}
	b.sched = New(Options{
		State: b.state, Engine: b.engine, Log: b.log, Dir: b.dir,
		Logger: slog.New(slog.NewTextHandler(&b.said, nil)), Now: func() time.Time { return b.now },
		Sleep: func(context.Context, time.Duration) error { panic("asleep") },
	})
	if err := b.sched.recover(); err != nil {
		b.t.Fatal(err)
	}
	if b.conf != "" {
		b.set(b.conf, b.flags...)
	}
}

func (b *bench) set(conf string, flags ...string) {
	b.t.Helper()
	b.conf, b.flags = conf, flags
	f, _, err := config.Parse(append([]string{"--schedule_splay_percent=0"}, flags...))
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := config.Load([]config.Source{{Name: "test", Text: []byte(conf)}}, config.Options{Version: "5.23.1"})
	if err != nil {
		b.t.Fatal(err)
	}
	if len(c.Problems) > 0 {
		b.t.Fatal(c.Problems)
	}
	b.sched.Set(Setting{Config: c, Flags: f, Host: "web-1", Results: []string{"results"}, Snapshots: []string{"snapshots"}})
}

// run moves the clock by a second at a time.
func (b *bench) run(seconds int) {
	b.t.Helper()
	for range seconds {
		b.now = b.now.Add(time.Second)
		c := b.sched.setting()
		b.sched.second(context.Background(), c, b.now.Unix(), false)
	}
}

// lines takes the lines of a stream.
func (b *bench) lines(stream string) []string {
	b.t.Helper()
	batch, err := b.state.Take(stream, 1<<30, 1<<30)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.state.Done(batch, 0, nil); err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(batch.Lines)) {
		out = append(out, strings.TrimSuffix(line, "\n"))
	}
	return out
}

// brief takes the results as "action counter columns".
func (b *bench) brief() []string {
	b.t.Helper()
	var out []string
	for _, line := range b.lines("results") {
		var l struct {
			Name           string
			Counter, Epoch int
			Action         string
			Columns        json.RawMessage
			DiffResults    json.RawMessage
			UnixTime       int64
			HostIdentifier string
			CalendarTime   string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			b.t.Fatalf("%v in %s", err, line)
		}
		out = append(out, fmt.Sprintf("%s %d/%d %s%s%s", l.Name, l.Epoch, l.Counter, l.Action, l.Columns, l.DiffResults))
	}
	return out
}

func (b *bench) want(what string, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.brief()); diff != "" {
		b.t.Errorf("%s: %s", what, diff)
	}
}

// TestDifferential is the life of a query that is compared with its last run.
func TestDifferential(t *testing.T) {
	const conf = `{"schedule":{"d":{"query":"SELECT name, size FROM things","interval":1}}}`
	b := newBench(t)
	b.set(conf)
	b.things = []*thing{{"b", 2}, {"a", 1}, {"a", 1}}
	b.run(1)
	b.want("first run", `d 0/0 added{"name":"b","size":"2"}`, `d 0/0 added{"name":"a","size":"1"}`, `d 0/0 added{"name":"a","size":"1"}`)
	b.run(3)
	b.want("no change")
	b.things = []*thing{{"a", 1}, {"c\n\xff", 3}, {"b", 2}}
	b.run(1)
	b.want("one less of two, one new", `d 0/1 removed{"name":"a","size":"1"}`, `d 0/1 added{"name":"c\\x0A\\xFF","size":"3"}`)
	b.restart()
	b.run(2)
	b.want("restart")
	b.things = append(b.things, &thing{"a", 1})
	b.run(1)
	b.want("one more of what is there", `d 0/2 added{"name":"a","size":"1"}`)
	b.things = nil
	b.run(1)
	b.want("all gone, in order", `d 0/3 removed{"name":"a","size":"1"}`, `d 0/3 removed{"name":"a","size":"1"}`,
		`d 0/3 removed{"name":"b","size":"2"}`, `d 0/3 removed{"name":"c\\x0A\\xFF","size":"3"}`)
	b.things = []*thing{{"a", 10}, {"a", 9}}
	b.run(1)
	b.want("some again", `d 0/4 added{"name":"a","size":"10"}`, `d 0/4 added{"name":"a","size":"9"}`)

	b.set(conf, "--schedule_epoch=7")
	b.run(1)
	b.want("new epoch", `d 7/0 added{"name":"a","size":"10"}`, `d 7/0 added{"name":"a","size":"9"}`)
	b.things = b.things[:1]
	b.run(1)
	b.want("after it", `d 7/1 removed{"name":"a","size":"9"}`)
	b.things = nil
	b.set(conf, "--schedule_epoch=8")
	b.run(2)
	b.want("new epoch with nothing")
	b.things = []*thing{{"x", 1}}
	b.run(1)
	b.want("after it", `d 8/1 added{"name":"x","size":"1"}`)

	// As in osquery since 5.8 (osquery#7945), changed SQL is compared with what was there.
	changed := strings.Replace(conf, "name, size", "name, size+0 AS size, 'k' AS k", 1)
	b.set(changed, "--schedule_epoch=8")
	b.run(2)
	b.want("changed SQL", `d 8/2 removed{"name":"x","size":"1"}`, `d 8/2 added{"k":"k","name":"x","size":"1"}`)

	b.set(strings.Replace(changed, `"interval":1`, `"interval":1,"removed":false`, 1), "--schedule_epoch=8")
	b.things = nil
	b.run(1)
	b.want("removed rows not wanted")
	b.things = []*thing{{"x", 1}}
	b.run(1)
	b.want("but counted", `d 8/4 added{"k":"k","name":"x","size":"1"}`)
}

// TestTypes checks that a number and the text of it are different rows, and NULL is text.
func TestTypes(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{"d":{"query":"SELECT 1 AS a, NULL AS n, 1.5 AS f","interval":1}}}`, "--nullvalue=none", "--logger_numerics")
	b.run(2)
	b.want("numbers", `d 0/0 added{"a":1,"f":1.5,"n":"none"}`)
	b.set(`{"schedule":{"d":{"query":"SELECT '1' AS a, 'none' AS n, 1.5 AS f","interval":1}}}`, "--nullvalue=none", "--logger_numerics")
	b.run(2)
	b.want("text", `d 0/1 removed{"a":1,"f":1.5,"n":"none"}`, `d 0/1 added{"a":"1","f":1.5,"n":"none"}`)
}

func TestBatchAndSnapshot(t *testing.T) {
	const conf = `{"schedule":{
		"d":{"query":"SELECT * FROM things","interval":1},
		"s":{"query":"SELECT * FROM things","interval":1,"snapshot":true}}}`
	b := newBench(t)
	b.set(conf, "--logger_event_type=false")
	b.run(2)
	tail := `,"name":"d","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:31 2014 UTC","unixTime":1412098651,"epoch":0,"counter":0,"numerics":false}`
	if diff := cmp.Diff([]string{`{"diffResults":{"removed":[],"added":[]}` + tail}, b.lines("results")); diff != "" {
		t.Errorf("a first run without rows is told: %s", diff)
	}
	snap := func(rows string, second int) string {
		return fmt.Sprintf(`{"snapshot":[%s],"action":"snapshot","name":"s","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:%02d 2014 UTC","unixTime":%d,"epoch":0,"counter":0,"numerics":false}`, rows, second, 1412098620+second)
	}
	if diff := cmp.Diff([]string{snap("", 31), snap("", 32)}, b.lines("snapshots")); diff != "" {
		t.Error(diff)
	}
	b.things = []*thing{{"b\n", 1}, {"a", 2}}
	b.run(1)
	b.things = b.things[1:]
	b.run(1)
	b.want("batch", `d 0/1 {"removed":[],"added":[{"name":"b\\x0A","size":"1"},{"name":"a","size":"2"}]}`, `d 0/2 {"removed":[{"name":"b\\x0A","size":"1"}],"added":[]}`)
	// Snapshots are not escaped before they become JSON.
	if diff := cmp.Diff([]string{snap(`{"name":"b\n","size":"1"},{"name":"a","size":"2"}`, 33), snap(`{"name":"a","size":"2"}`, 34)}, b.lines("snapshots")); diff != "" {
		t.Error(diff)
	}
	b.set(conf, "--logger_snapshot_event_type")
	b.run(1)
	want := `{"name":"s","hostIdentifier":"web-1","calendarTime":"Tue Sep 30 17:37:35 2014 UTC","unixTime":1412098655,"epoch":0,"counter":0,"numerics":false,"columns":{"name":"a","size":"2"},"action":"snapshot"}`
	if diff := cmp.Diff([]string{want}, b.lines("snapshots")); diff != "" {
		t.Error(diff)
	}
	b.things = nil
	b.run(1)
	if got := b.lines("snapshots"); got != nil {
		t.Errorf("an empty snapshot as events: %q", got)
	}
}

func TestEvents(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{
		"e":{"query":"SELECT name FROM happened","interval":1},
		"j":{"query":"SELECT a.name AS a, b.name AS b FROM happened a JOIN happened b USING (time)","interval":2},
		"l":{"query":"SELECT name FROM happened LIMIT 2","interval":1},
		"n":{"query":"SELECT count(*) AS n FROM happened WHERE time > 0","interval":1,"snapshot":true},
		"o":{"query":"SELECT name FROM happened ORDER BY name DESC","interval":3},
		"t":{"query":"SELECT h.name, t.size FROM things t LEFT JOIN happened h ON h.name=t.name","interval":4}}}`)
	b.things = []*thing{{"b", 2}, {"z", 26}}
	only := func(name string) []string {
		var out []string
		for _, l := range b.brief() {
			if rest, ok := strings.CutPrefix(l, name+" "); ok {
				out = append(out, rest)
			}
		}
		return out
	}
	b.run(1) // 1412098651
	b.want("nothing happened")
	b.log.add("a", "b", "c")
	b.run(1) // 52: e, j, l, t
	b.want("the first three",
		`e 0/1 added{"name":"a"}`, `e 0/1 added{"name":"b"}`, `e 0/1 added{"name":"c"}`,
		`j 0/1 added{"a":"a","b":"a"}`, `j 0/1 added{"a":"b","b":"b"}`, `j 0/1 added{"a":"c","b":"c"}`,
		`l 0/1 added{"name":"a"}`, `l 0/1 added{"name":"b"}`,
		`t 0/1 added{"name":"b","size":"2"}`, `t 0/1 added{"name":"","size":"26"}`)
	b.run(1) // 53: e, l, o
	b.want("a LIMIT goes on where it was", `l 0/2 added{"name":"c"}`,
		`o 0/1 added{"name":"c"}`, `o 0/1 added{"name":"b"}`, `o 0/1 added{"name":"a"}`)
	b.log.add("d\x01")
	b.restart()
	b.run(1) // 54: e, j, l
	b.want("after a restart", `e 0/2 added{"name":"d\\x01"}`, `j 0/2 added{"a":"d\\x01","b":"d\\x01"}`, `l 0/3 added{"name":"d\\x01"}`)
	// A condition on time asks for all there is.
	if got := b.lines("snapshots"); !strings.Contains(got[len(got)-1], `"snapshot":[{"n":"4"}]`) {
		t.Errorf("with a condition on time: %s", got[len(got)-1])
	}
	b.log.add("e")
	b.set(b.conf, "--schedule_epoch=5")
	b.run(1)
	if diff := cmp.Diff([]string{`5/1 added{"name":"e"}`}, only("e")); diff != "" {
		t.Errorf("a new epoch begins to count anew, and repeats nothing: %s", diff)
	}
	b.run(1)
	b.brief()

	// Without the optimisation rows are compared.
	b.set(`{"schedule":{"c":{"query":"SELECT name FROM happened","interval":1}}}`, "--events_optimize=false")
	b.run(1)
	if diff := cmp.Diff([]string{`0/0 added{"name":"a"}`, `0/0 added{"name":"b"}`, `0/0 added{"name":"c"}`, `0/0 added{"name":"d\\x01"}`, `0/0 added{"name":"e"}`}, only("c")); diff != "" {
		t.Error(diff)
	}
	b.log.rows = b.log.rows[:4]
	b.run(1)
	b.want("rows that expire are removed", `c 0/1 removed{"name":"e"}`)

	// A log that counts from one again is read from its beginning.
	b.set(`{"schedule":{"e":{"query":"SELECT name FROM happened","interval":1}}}`, "--schedule_epoch=5")
	b.log.rows = nil
	b.log.add("new")
	b.run(1)
	b.want("the log begun anew", `e 5/2 added{"name":"new"}`)
	if !strings.Contains(b.said.String(), "is beyond the last") {
		t.Errorf("said %s", &b.said)
	}
}

// TestBacklog checks that a large backlog comes in parts, each once, under one counter.
func TestBacklog(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{"e":{"query":"SELECT name, eid FROM happened","interval":1},
		"s":{"query":"SELECT name, eid FROM happened ORDER BY eid","interval":1}}}`)
	const n = 12000
	for i := range n {
		b.log.add(fmt.Sprintf("%05d %s", i, strings.Repeat("x", 100)))
	}
	b.run(1)
	seen := map[string][]int{}
	for _, line := range b.lines("results") {
		var l struct {
			Name    string
			Counter int
			Columns struct{ Name, Eid string }
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		i, err := strconv.Atoi(l.Columns.Name[:5])
		if err != nil || l.Counter != 1 || l.Columns.Eid != fmt.Sprintf("%010d", i+1) {
			t.Fatalf("line %s", line)
		}
		seen[l.Name] = append(seen[l.Name], i)
	}
	for name, list := range seen {
		if len(list) != n || list[0] != 0 || list[n-1] != n-1 {
			t.Errorf("%s: %d lines, from %d to %d", name, len(list), list[0], list[len(list)-1])
		}
	}
	if len(seen) != 2 {
		t.Errorf("queries %d", len(seen))
	}
	b.run(1)
	b.want("nothing more")
	b.log.add("last")
	b.run(1)
	b.want("and then", `e 0/2 added{"eid":"0000012001","name":"last"}`, `s 0/2 added{"eid":"0000012001","name":"last"}`)
}

// TestNotCommitted checks that what could not be committed comes again.
func TestNotCommitted(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{"e":{"query":"SELECT name FROM happened","interval":1},"d":{"query":"SELECT name FROM things","interval":1}}}`)
	b.sched.setting()
	b.things = []*thing{{"a", 1}}
	b.log.add("one")
	b.state.Close()
	b.run(1)
	if !strings.Contains(b.said.String(), "the schedule cannot go on") {
		t.Errorf("said %s", &b.said)
	}
	b.restart()
	b.run(1)
	b.want("again", `d 0/0 added{"name":"a"}`, `e 0/1 added{"name":"one"}`)
}
