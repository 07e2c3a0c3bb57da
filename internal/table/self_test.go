package table

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

func selfStatus(context.Context) (SelfStatus, error) {
	return SelfStatus{
		Sources: []SelfSource{{Name: "ebpf", Active: true}, {Name: "audit", Error: "no such socket"}},
		Hooks: []event.Hook{
			{Source: "ebpf", Name: "exec", Kinds: []event.ID{event.KindExec}, Tier: "tp_btf", Best: true, Seen: 12},
			{Source: "ebpf", Name: "accept", Kinds: []event.ID{event.KindAccept, event.KindClose}, Refused: "tracepoint: no such file", Silent: true},
		},
		Counts: []event.Count{
			{Source: "ebpf", Kind: event.KindExec, What: event.Generated, N: 12},
			{Source: "ebpf", Kind: event.KindExec, What: event.Delivered, N: 9},
			{Source: "ebpf", Kind: event.KindExec, What: event.Lost, Reason: "ring_full", N: 2},
			{Source: "ebpf", Kind: event.KindExec, What: event.Lost, Reason: "malformed", N: 1},
			{Source: "ebpf", Kind: event.KindExec, What: event.Late, N: 7},
			{Source: "ebpf", Kind: event.KindExit, What: event.Lost, Reason: "ring_full", N: 0},
			{Source: "ebpf", What: event.Lost, Reason: "malformed", N: 4},
			{Source: "agent", Kind: event.KindExit, What: event.Filtered, Reason: "duplicate", N: 1},
			{Source: "process", What: event.Evicted, Reason: "running", N: 3},
			{Source: "store", Kind: event.KindExec, What: event.Generated, N: 9},
			{Source: "store", Kind: event.KindExec, What: event.Expired, Reason: "expired", N: 5},
			{Source: "stdout", Kind: event.KindExec, What: event.Lost, Reason: "sink_full", N: 6},
			{Source: "runtime", Kind: event.KindContainer, What: event.Failed, Reason: "no_answer", N: 3},
			{Source: "runtime", Kind: event.KindContainer, What: event.Failed, Reason: "unknown", N: 0},
			{Source: "runtime", Kind: event.KindContainer, What: event.Failed, Reason: "too_large", N: 2},
		},
	}, nil
}

// rowsOf returns the rows of a self table, cells joined by bars.
func rowsOf(t *testing.T, s Self, name string) []string {
	t.Helper()
	for _, r := range SelfTables(s) {
		if r.Def().Name != name {
			continue
		}
		c, err := r.Open(t.Context(), &schema.Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var out []string
		for more, _ := c.Next(); more; more, _ = c.Next() {
			var cells []string
			for i := range r.Def().Columns {
				cells = append(cells, c.Value(i).Text())
			}
			out = append(out, strings.Join(cells, "|"))
		}
		return out
	}
	t.Fatalf("no table %q", name)
	return nil
}

func TestSelfTables(t *testing.T) {
	s := Self{Status: selfStatus, Subscribers: []Subscriber{
		{"process_events", []event.ID{event.KindExec}},
		{"network_events", []event.ID{event.KindConnect, event.KindClose}},
	}}
	for name, want := range map[string][]string{
		"goshawk_hooks": {
			"ebpf|exec|exec|tp_btf|1||12|0",
			"ebpf|accept|accept,close||0|tracepoint: no such file|0|1",
		},
		"goshawk_losses": {
			"ebpf|exec|ring_full|2",
			"ebpf|exec|malformed|1",
			"ebpf|unknown|malformed|4",
			"stdout|exec|sink_full|6",
		},
		"goshawk_sources": {
			"agent|exit|1|0|0|1|0|0|0|0|0||",
			"audit||0|0|0|0|0|0|0|0|0||no such socket",
			"ebpf||1|0|0|0|4|0|0|0|0||",
			"ebpf|exec|1|12|9|0|3|7|0|0|0||",
			"ebpf|exit|1|0|0|0|0|0|0|0|0||",
			"process||1|0|0|0|0|0|0|3|0||",
			"runtime|container|1|0|0|0|0|0|0|0|5|no_answer=3 too_large=2|",
			"stdout|exec|1|0|0|0|6|0|0|0|0||",
			"store|exec|1|9|0|0|0|0|5|0|0||",
		},
		"osquery_events": {
			"ebpf|ebpf|publisher|2|9|0|1|7",
			"audit|audit|publisher|2|0|0|0|0",
			"process_events|ebpf|subscriber|1|9|0|1|3",
			"network_events|ebpf|subscriber|2|0|0|1|0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(want, rowsOf(t, s, name)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestSelfTablesWithoutAnAgent(t *testing.T) {
	for _, r := range SelfTables(Self{Subscribers: []Subscriber{{"process_events", nil}}}) {
		var warned []string
		c, err := r.Open(t.Context(), &schema.Query{Warn: func(s string) { warned = append(warned, s) }})
		if err != nil {
			t.Fatal(err)
		}
		if more, _ := c.Next(); more {
			t.Errorf("%s has rows", r.Def().Name)
		}
		if d := cmp.Diff([]string{"no agent is running: its tables are empty"}, warned); d != "" {
			t.Errorf("%s warns (-want +got):\n%s", r.Def().Name, d)
		}
	}
}

func TestSelfTablesOfAnAgentThatEnds(t *testing.T) {
	gone := errors.New("the agent has stopped")
	for _, r := range SelfTables(Self{Status: func(context.Context) (SelfStatus, error) { return SelfStatus{}, gone }}) {
		if _, err := r.Open(t.Context(), &schema.Query{}); !errors.Is(err, gone) {
			t.Errorf("%s: %v", r.Def().Name, err)
		}
	}
}

// TestOsqueryEventsIsOsquerys compares with osquery 5.23.1: specs/utility/osquery_events.table.
func TestOsqueryEventsIsOsquerys(t *testing.T) {
	var got []string
	for _, c := range eventsTable(Self{}).Def().Columns {
		if !c.Has(schema.Hidden) {
			got = append(got, c.Name+" "+c.Type.String())
		}
	}
	want := []string{"name TEXT", "publisher TEXT", "type TEXT", "subscriptions INTEGER", "events INTEGER",
		"refreshes INTEGER", "active INTEGER"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSourceThatFeedsATable(t *testing.T) {
	both := SelfStatus{
		Sources: []SelfSource{{Name: "gone"}, {Name: "ebpf", Active: true}, {Name: "audit", Active: true}},
		Hooks: []event.Hook{
			{Source: "gone", Kinds: []event.ID{event.KindDNS}, Tier: "rules"},
			{Source: "ebpf", Kinds: []event.ID{event.KindExec, event.KindFork}, Tier: "tp_btf"},
			{Source: "ebpf", Kinds: []event.ID{event.KindConnect}},
			{Source: "audit", Kinds: []event.ID{event.KindConnect}, Tier: "rules"},
		},
	}
	for kind, want := range map[event.ID]string{event.KindFork: "ebpf", event.KindConnect: "audit", event.KindDNS: "ebpf"} {
		if got := both.feeds([]event.ID{kind}); got != want {
			t.Errorf("%s is fed by %q, want %q", kind, got, want)
		}
	}
	if got := (&SelfStatus{}).feeds(nil); got != "" {
		t.Errorf("without a source: %q", got)
	}
}
