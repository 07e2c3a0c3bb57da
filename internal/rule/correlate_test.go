package rule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// steps are rules named a, b and c: of programs so called.
func steps() string {
	var b strings.Builder
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "title: %s\nname: %s\nlogsource: {category: process_creation}\ndetection: {s: {Image: /bin/%s}, condition: s}\n---\n", name, name, name)
	}
	return b.String()
}

func TestCorrelation(t *testing.T) {
	for _, tt := range []struct {
		name, correlation string
		// programs with the second in which each starts, as "a0 b3"
		events string
		want   string // seconds in which alerts are raised
	}{
		{"three", "{type: event_count, rules: [a], timespan: 10s, condition: {gte: 3}}", "a0 a4 a9 a20 a21 a22 a23", "9 22"},
		{"three, but slowly", "{type: event_count, rules: [a], timespan: 10s, condition: {gte: 3}}", "a0 a6 a12 a18", ""},
		{"in groups", "{type: event_count, rules: [a], group-by: [cwd], timespan: 10s, condition: {gte: 2}}", "a0/x a1/y a2/x", "2"},
		{"values", "{type: value_count, rules: [a, b], timespan: 10s, condition: {field: Image, gte: 2}}", "a0 a1 a2 b3", "3"},
		{"all of them", "{type: temporal, rules: [a, b, c], timespan: 10s}", "c0 a1 a2 b9", "9"},
		{"all of them, too slowly", "{type: temporal, rules: [a, b, c], timespan: 10s}", "c0 a1 a2 b11", ""},
		{"in order", "{type: temporal_ordered, rules: [a, b], timespan: 10s}", "a0 b1", "1"},
		{"not in order", "{type: temporal_ordered, rules: [a, b], timespan: 10s}", "b0 a1", ""},
		{"in order at last", "{type: temporal_ordered, rules: [a, b], timespan: 10s}", "b0 a1 b2", "2"},
		{"generate", "{type: temporal, rules: [a, b], timespan: 10s, generate: true}", "a0 b1", "0 1 1"},
	} {
		en := load(t, steps()+"title: x\nlevel: critical\ncorrelation: "+tt.correlation+"\n---\n"+
			"title: rest\ncorrelation: {type: event_count, rules: [c], timespan: 1s, condition: {gte: 1000}}\n")
		var got []string
		for _, w := range strings.Fields(tt.events) {
			name, rest := w[:1], w[1:]
			at, dir, _ := strings.Cut(rest, "/")
			x := exec("/bin/"+name, name)
			var s int
			if _, err := fmt.Sscan(at, &s); err != nil {
				t.Fatal(err)
			}
			x.NTime = uint64(time.Duration(s) * time.Second)
			x.Cwd = "/" + dir
			for _, a := range en.Match(x) {
				if a := a.(*event.Alert); a.RuleName == "x" || strings.Contains(tt.name, "generate") {
					got = append(got, at)
				}
			}
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: alerts at %q, want %q", tt.name, s, tt.want)
		}
	}
}

func TestCorrelationEvidence(t *testing.T) {
	en := load(t, steps()+"title: x\ncorrelation: {type: temporal_ordered, rules: [a, b], timespan: 10s}\n")
	x := exec("/bin/a", "a")
	x.EID = 3
	en.Match(x)
	x = exec("/bin/b", "b")
	x.EID = 5
	alerts := en.Match(x)
	if len(alerts) != 1 {
		t.Fatalf("%d alerts", len(alerts))
	}
	if e := alerts[0].(*event.Alert).Evidence; !strings.Contains(e, `"eid":3,`) || !strings.Contains(e, `"eid":5,`) {
		t.Errorf("the evidence is %s", e)
	}
}

func TestCorrelationAliases(t *testing.T) {
	en := load(t, `title: listens
name: listens
logsource: {category: bind}
detection: {s: {local_port: 4444}, condition: s}
---
title: starts
name: starts
logsource: {category: process_creation}
detection: {s: {Image: /bin/a}, condition: s}
---
title: x
correlation:
  type: temporal
  rules: [listens, starts]
  group-by: [who]
  timespan: 1m
  aliases: {who: {listens: pid, starts: ProcessId}}
`)
	en.Match(exec("/bin/a", "a"))
	bind := &event.Socket{Header: event.Header{Kind: event.KindBind, PID: 43, NTime: 1}, LocalPort: 4444}
	if fires(en, bind) {
		t.Error("another process completes the group")
	}
	bind.PID = 42
	if !fires(en, bind) {
		t.Error("the group is not complete")
	}
}

func TestCorrelationIsBounded(t *testing.T) {
	en := load(t, steps()+"title: x\ncorrelation: {type: event_count, rules: [a], group-by: [cwd], timespan: 1h, condition: {gte: 10000}}\n")
	x := exec("/bin/a", "a")
	for i := range 3 * maxGroups {
		x.Cwd = fmt.Sprint("/", i)
		en.Match(x)
	}
	if n := len(en.groups.by); n != maxGroups {
		t.Errorf("%d groups, want %d", n, maxGroups)
	}
	if n := en.counts.evicted; n != 2*maxGroups {
		t.Errorf("%d evicted, want %d", n, 2*maxGroups)
	}
	x.Cwd = "/same"
	for range 2*maxCounted - 1 {
		x.NTime++
		en.Match(x)
	}
	if n := len(en.groups.first.seen); n > maxCounted {
		t.Errorf("%d remembered, want at most %d", n, maxCounted)
	}
	for i := range maxSightings/1000 + 50 {
		x.Cwd = fmt.Sprint("/many", i)
		for range 1000 {
			x.NTime++
			en.Match(x)
		}
	}
	n := 0
	for _, g := range en.groups.by {
		n += len(g.seen)
	}
	if n > maxSightings || n != en.groups.sightings {
		t.Errorf("%d remembered by all, want at most %d; counted are %d", n, maxSightings, en.groups.sightings)
	}
}

// What it costs to count values does not grow with what was seen.
func BenchmarkValueCount(b *testing.B) {
	en := load(b, steps()+"title: x\ncorrelation: {type: value_count, rules: [a], timespan: 1h, condition: {field: CurrentDirectory, gte: 10000}}\n")
	x := exec("/bin/a", "a")
	dirs := make([]string, 5000)
	for i := range dirs {
		dirs[i] = fmt.Sprint("/", i)
	}
	for i := 0; b.Loop(); i++ {
		x.NTime++
		x.Cwd = dirs[i%len(dirs)]
		en.Match(x)
	}
}
