package schedule

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/state"
)

func TestPacks(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{"m":{"query":"SELECT 1","interval":1,"snapshot":true}},"packs":{
		"on":{"discovery":["SELECT 1","SELECT * FROM things"],"queries":{"q":{"query":"SELECT 2","interval":1,"snapshot":true}}},
		"bad":{"discovery":["SELECT * FROM nowhere"],"queries":{"q":{"query":"SELECT 3","interval":1}}},
		"win":{"platform":"windows","version":"1.0","shard":7,"queries":{"q":{"query":"SELECT 4","interval":1}}},
		"all":{"queries":{"q":{"query":"SELECT 5","snapshot":true}}}}}`,
		"--pack_delimiter=/", "--pack_refresh_interval=3", "--schedule_default_interval=2")
	names := func() (out []string) {
		for _, l := range b.lines("snapshots") {
			_, rest, _ := strings.Cut(l, `"name":"`)
			name, _, _ := strings.Cut(rest, `"`)
			out = append(out, name)
		}
		return out
	}
	b.run(1)
	if diff := cmp.Diff([]string{"m"}, names()); diff != "" {
		t.Error(diff)
	}
	b.things = []*thing{{"a", 1}}
	b.run(1) // discovery holds for three seconds
	if diff := cmp.Diff([]string{"m", "pack/all/q"}, names()); diff != "" {
		t.Error(diff)
	}
	b.run(2)
	if diff := cmp.Diff([]string{"m", "m", "pack/on/q", "pack/all/q"}, names()); diff != "" {
		t.Error(diff)
	}
	b.things = nil
	b.run(3)
	b.lines("snapshots")
	var got []string
	for _, p := range b.sched.Packs() {
		got = append(got, fmt.Sprint(p.Name, " ", p.Platform, p.Version, p.Shard, " ", p.Active, " ", p.Hits, " ", p.Executions))
	}
	want := []string{"main 0 true 4 3", "on 0 false 4 3", "bad 0 false 4 3", "win windows1.07 false 0 0", "all 0 true 4 3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	for _, q := range b.sched.Queries() {
		got = append(got, fmt.Sprint(q.Name, " ", q.SQL, " ", q.Interval, " ", q.Executions, " ", q.LastExecuted))
	}
	want = []string{"m SELECT 1 1 7 1412098657", "pack/all/q SELECT 5 2 3 1412098656"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(b.said.String(), "Discovery query failed (SELECT * FROM nowhere): no such table: nowhere"); n != 3 {
		t.Errorf("said %s", &b.said)
	}
	// What runs cost outlives the process.
	b.restart()
	b.run(1)
	for _, q := range b.sched.Queries() {
		if q.Name == "m" && q.Executions != 8 {
			t.Errorf("executions %d", q.Executions)
		}
	}
}

func TestDecorations(t *testing.T) {
	b := newBench(t)
	const conf = `{"schedule":{"q":{"query":"SELECT 1 AS one","interval":1,"snapshot":true}},"decorators":{
		"load":["SELECT 'l' AS l, 'x' AS a","SELECT name FROM things","SELECT 1 FROM nowhere"],
		"always":["SELECT 'a' AS a, NULL AS n","SELECT count(*) AS things FROM things"],
		"interval":{"60":["SELECT 'i' AS i UNION ALL SELECT 'j'"]}}}`
	b.set(conf)
	decorations := func() string {
		l := b.lines("snapshots")
		_, rest, _ := strings.Cut(l[len(l)-1], `"numerics":false`)
		return rest
	}
	b.run(1)
	if got, want := decorations(), `,"decorations":{"a":"a","l":"l","n":"","things":"0"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b.things = []*thing{{"t", 1}}
	b.run(60)
	if got, want := decorations(), `,"decorations":{"a":"a","i":"i","l":"l","n":"","things":"1"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b.set(strings.Replace(conf, "'l' AS l", "'L' AS load", 1), "--decorations_top_level")
	b.run(1)
	if got := b.lines("snapshots"); !strings.Contains(got[0], `"counter":0,"numerics":false,"a":"a","load":"L","name":"t","things":"1"}`) {
		t.Errorf("at the top: %s", got[0])
	}
	if diff := cmp.Diff([]state.Pair{{Key: "a", Value: "a"}, {Key: "load", Value: "L"}, {Key: "n"}, {Key: "name", Value: "t"}, {Key: "things", Value: "1"}}, b.sched.Decorations()); diff != "" {
		t.Error(diff)
	}
	b.set(conf, "--disable_decorators")
	b.run(1)
	if got := decorations(); got != "}" {
		t.Errorf("disabled: %s", got)
	}
	for _, want := range []string{"SELECT 1 FROM nowhere: no such table: nowhere", "Multiple rows returned for decorator query"} {
		if strings.Count(b.said.String(), want) != 1 {
			t.Errorf("%q is not said once: %s", want, &b.said)
		}
	}
}

func TestDenylist(t *testing.T) {
	const conf = `{"schedule":{
		"d":{"query":"SELECT name FROM things","interval":1},
		"e":{"query":"SELECT name FROM happened","interval":1},
		"f":{"query":"SELECT name FROM things","interval":1,"denylist":false}}}`
	b := newBench(t)
	die := func(name string) {
		t.Helper()
		if err := b.state.Put(domainRun, "executing", name); err != nil {
			t.Fatal(err)
		}
		b.restart()
	}
	denied := func() (out []string) {
		for _, q := range b.sched.Queries() {
			if q.Denylisted {
				out = append(out, q.Name)
			}
		}
		return out
	}
	b.things, b.conf = []*thing{{"a", 1}}, conf
	b.log.add("x")
	die("d")
	die("e")
	die("f")
	b.run(1)
	b.want("events and those that say so run", `e 0/1 added{"name":"x"}`, `f 0/0 added{"name":"a"}`)
	if diff := cmp.Diff([]string{"d"}, denied()); diff != "" {
		t.Error(diff)
	}
	b.restart()
	b.run(1)
	if diff := cmp.Diff([]string{"d"}, denied()); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
	b.now = b.now.Add(24 * time.Hour)
	b.run(1)
	b.want("a day later", `d 0/0 added{"name":"a"}`)
	if denied() != nil {
		t.Errorf("denied %v", denied())
	}
	b.flags = []string{"--events_enforce_denylist"}
	die("e")
	b.log.add("y")
	b.run(1)
	b.want("enforced")
	b.flags = []string{"--disable_watchdog"}
	b.restart()
	b.run(1)
	b.want("without a watchdog nothing is denied", `e 0/2 added{"name":"y"}`)

	// A query that comes to its limits is denied at once.
	b.set(`{"schedule":{"m":{"query":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100000) SELECT group_concat(hex(zeroblob(100))) FROM n","interval":1},
		"w":{"query":"SELECT * FROM nowhere","interval":1}}}`)
	b.run(3)
	if diff := cmp.Diff([]string{"m"}, denied()); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(b.said.String(), "Error executing scheduled query m: out of memory"); n != 1 {
		t.Errorf("tried %d times", n)
	}
	if n := strings.Count(b.said.String(), "Error executing scheduled query w: no such table: nowhere"); n != 3 {
		t.Errorf("tried %d times", n)
	}
}

// Queries without end hold the schedule up for a moment at most when others wait for them, and
// until the next configuration when they are what it is to do.
func TestEndlessQueries(t *testing.T) {
	const endless = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n`
	b := newBench(t)
	b.sched.o.Patience = 50 * time.Millisecond
	b.set(`{"schedule":{"good":{"query":"SELECT 1 AS one","interval":1,"snapshot":true}},
		"decorators":{"always":["` + endless + `"],"load":["` + endless + `"]},"packs":{"p":{"discovery":["` + endless + `"],"queries":{}}}}`)
	begun := time.Now()
	b.run(3)
	if took := time.Since(begun); took > 30*time.Second || len(b.lines("snapshots")) != 3 {
		t.Errorf("three seconds took %v", took)
	}
	if n := strings.Count(b.said.String(), "query stopped: it took too long"); n != 1 {
		t.Errorf("stopped %d times:\n%s", n, b.said.String())
	}

	b.set(`{"schedule":{"bad":{"query":"` + endless + `","interval":1},"good":{"query":"SELECT 2 AS two","interval":1,"snapshot":true}}}`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run(1)
	}()
	for running := false; !running; time.Sleep(time.Millisecond) {
		b.sched.mu.Lock()
		running = b.sched.running.Name == "bad"
		b.sched.mu.Unlock()
	}
	b.set(b.conf) // says the same: it goes on
	select {
	case <-done:
		t.Fatal("a configuration that has the query stopped it")
	case <-time.After(50 * time.Millisecond):
	}
	b.set(`{"schedule":{"good":{"query":"SELECT 2 AS two","interval":1,"snapshot":true}}}`)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it goes on although no configuration has it")
	}
	b.run(1)
	if got := b.lines("snapshots"); len(got) != 2 || !strings.Contains(b.said.String(), "bad: query stopped: the configuration has it no more") {
		t.Errorf("%q; it said:\n%s", got, b.said.String())
	}
}

func TestSplay(t *testing.T) {
	for range 1000 {
		if n := splay(3600, 10); n < 3240 || n > 3960 {
			t.Fatalf("3600 becomes %d", n)
		}
		if n := splay(1, 100); n < 1 || n > 2 {
			t.Fatalf("1 becomes %d", n)
		}
	}
	if splay(3600, 0) != 3600 || splay(3600, 101) != 3600 || splay(5, 10) != 5 {
		t.Error("an interval that is not to be moved is")
	}

	// A host keeps its phase.
	b := newBench(t)
	const conf = `{"schedule":{"q":{"query":"SELECT 1","interval":100000}}}`
	b.set(conf, "--schedule_splay_percent=50")
	splayed := func() uint64 {
		t.Helper()
		return b.sched.setting().packs[0].queries[0].splayed
	}
	first := splayed()
	for range 3 {
		b.restart()
		if got := splayed(); got != first {
			t.Errorf("%d, then %d", first, got)
		}
	}
	b.set(strings.Replace(conf, "100000", "10", 1), "--schedule_splay_percent=50")
	if got := splayed(); got < 5 || got > 15 {
		t.Errorf("another interval: %d", got)
	}
}

// TestRun lets the loop run by a clock that moves when it sleeps, and when a query takes
// long.
func TestRun(t *testing.T) {
	b := newBench(t)
	b.set(`{"schedule":{"a":{"query":"SELECT 1","interval":10,"snapshot":true},
		"first":{"query":"SELECT 2","interval":604800,"snapshot":true,"startup_priority":1},
		"second":{"query":"SELECT 2","interval":604800,"snapshot":true,"startup_priority":2}}}`, "--schedule_timeout=100", "--schedule_max_drift=20")
	begun := b.now
	var naps []time.Duration
	b.sched.o.Sleep = func(_ context.Context, d time.Duration) error {
		naps = append(naps, d)
		b.now = b.now.Add(d)
		return nil
	}
	b.sched.o.Usage = func() Usage { // which is asked twice a run
		b.now = b.now.Add(2 * time.Second)
		return Usage{}
	}
	b.sched.Run(context.Background())
	var got []string
	for _, l := range b.lines("snapshots") {
		_, rest, _ := strings.Cut(l, `"name":"`)
		name, _, _ := strings.Cut(rest, `"`)
		got = append(got, name)
	}
	// 100 seconds from ...50 on: eleven multiples of ten, none left out, though each took
	// four seconds; after which the loop caught up.
	want := append([]string{"first", "second"}, strings.Fields(strings.Repeat("a ", 11))...)
	if diff := cmp.Diff(want[2:], got[2:]); diff != "" || got[0] != "first" || got[1] != "second" {
		t.Errorf("%v: %s", got, diff)
	}
	if took := b.now.Sub(begun); took < 100*time.Second || took > 106*time.Second {
		t.Errorf("took %v", took)
	}
	if len(naps) < 50 {
		t.Errorf("%d naps", len(naps))
	}

	ctx, cancel := context.WithCancel(context.Background())
	b.sched.o.Sleep = sleep
	done := make(chan struct{})
	go func() {
		b.set(b.conf)
		b.sched.Run(ctx)
		close(done)
	}()
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}

// TestForget checks that what is kept of queries goes a week after they last ran.
func TestForget(t *testing.T) {
	b := newBench(t)
	b.things = []*thing{{"a", 1}}
	b.log.add("x")
	const conf = `{"schedule":{"d":{"query":"SELECT name FROM things","interval":1},"e":{"query":"SELECT name FROM happened","interval":1}}}`
	b.set(conf)
	b.run(1)
	b.brief()
	b.set(`{}`)
	b.run(1)
	b.now = b.now.Add(6 * 24 * time.Hour)
	b.set(conf)
	b.run(1)
	b.want("within a week")
	b.set(`{}`)
	b.run(1)
	b.now = b.now.Add(8 * 24 * time.Hour)
	b.set(`{}`)
	b.run(1)
	for _, domain := range []string{domainQuery, domainCursor, domainInterval, domainStats, domainTimestamp} {
		if list, err := b.state.List(domain); err != nil || len(list) > 0 {
			t.Errorf("%s: %v, %v", domain, list, err)
		}
	}
	b.set(conf)
	b.run(1)
	b.want("after it", `d 0/0 added{"name":"a"}`, `e 0/1 added{"name":"x"}`)
}

// TestLargeResults checks results that do not fit memory.
func TestLargeResults(t *testing.T) {
	b := newBench(t)
	for i := range 30_000 {
		b.things = append(b.things, &thing{fmt.Sprintf("%06d%s", i, strings.Repeat("y", 100)), int64(i)})
	}
	const conf = `{"schedule":{"d":{"query":"SELECT * FROM things","interval":1}}}`
	b.set(conf)
	b.run(1)
	if got := b.brief(); len(got) != 30_000 || !strings.Contains(got[29_999], "029999yy") {
		t.Fatalf("%d lines", len(got))
	}
	b.run(1)
	b.want("no change")
	b.things = b.things[:10_000]
	b.run(1)
	if got := b.brief(); len(got) != 20_000 || !strings.Contains(got[0], "d 0/1 removed") || !strings.Contains(got[0], "010000yy") {
		t.Fatalf("%d lines, %s", len(got), got[0])
	}
	b.set(strings.Replace(conf, "* FROM things", "a.name || b.name || a.name AS x FROM things a, (SELECT name FROM things LIMIT 30) b", 1), "--logger_event_type=false")
	b.run(1)
	if !strings.Contains(b.said.String(), "in one line") || b.brief() != nil {
		t.Errorf("said %.300s", &b.said)
	}
}

func TestKeptRows(t *testing.T) {
	f := &Format{Null: "null"}
	l := newLayout([]string{"b", "a", "c", "d"})
	row := []schema.Value{schema.IntValue(-1), schema.TextValue("x\x00"), schema.Null, schema.FloatValue(0.5)}
	kept := l.keep(nil, row, f)
	names, cells, err := unkeep(kept)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, names); diff != "" {
		t.Error(diff)
	}
	if cells[0].Text() != "x\x00" || cells[1].Int() != -1 || cells[2].Text() != "null" || cells[3].Float() != 0.5 {
		t.Errorf("cells %v", cells)
	}
	for n := range kept {
		if _, _, err := unkeep(kept[:n]); err == nil && n > 0 && n != len(kept) {
			// A row cut between two columns is a shorter row, which its hash tells.
			if again, _, _ := unkeep(kept[:n]); len(again) == 4 {
				t.Errorf("%d bytes of %d are taken for whole", n, len(kept))
			}
		}
	}
}

func FuzzUnkeep(f *testing.F) {
	l := newLayout([]string{"a", "b"})
	f.Add(l.keep(nil, []schema.Value{schema.IntValue(1), schema.TextValue("x")}, &Format{}))
	f.Add([]byte{1, 'a', 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		names, cells, err := unkeep(b)
		if err == nil && len(names) != len(cells) {
			t.Errorf("%d names, %d cells", len(names), len(cells))
		}
	})
}
