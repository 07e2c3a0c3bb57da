package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// pick is what a scan should return, worked out the slow way.
func pick(events []event.Event, sel event.Selection) []event.Event {
	var out []event.Event
	for _, e := range events {
		h := e.Head()
		kind := event.ByID(h.Kind)
		if sel.Kinds != nil && !slices.Contains(sel.Kinds, h.Kind) ||
			h.Time < sel.From || sel.To != 0 && h.Time > sel.To ||
			h.EID <= sel.AfterEID || sel.MaxEID != 0 && h.EID > sel.MaxEID {
			continue
		}
		wanted := true
		for _, eq := range sel.Equal {
			c := kind.Column(eq.Column)
			wanted = wanted && c != nil && slices.Contains(eq.Values, c.Int(e))
		}
		if !wanted {
			continue
		}
		row := kind.New()
		for i := range kind.Columns {
			c := &kind.Columns[i]
			always := c.Name == "kind_id" || c.Name == "eid" || c.Name == "time"
			if !c.Stored() || sel.Columns != nil && !always && !slices.Contains(sel.Columns, c.Name) {
				continue
			}
			if c.Int != nil {
				c.SetInt(row, c.Int(e))
			} else {
				c.SetStr(row, c.Str(e))
			}
		}
		out = append(out, row)
	}
	return out
}

// randomSelection asks for something that some of events meet.
func randomSelection(r *rand.Rand, events []event.Event) event.Selection {
	var sel event.Selection
	some := func() event.Event { return events[r.IntN(len(events))] }
	if r.IntN(2) == 0 {
		for range 1 + r.IntN(4) {
			sel.Kinds = append(sel.Kinds, some().Head().Kind)
		}
	}
	if r.IntN(3) == 0 {
		sel.From = some().Head().Time
	}
	if r.IntN(3) == 0 {
		sel.To = some().Head().Time
	}
	if r.IntN(3) == 0 {
		sel.AfterEID = some().Head().EID
	}
	if r.IntN(3) == 0 {
		sel.MaxEID = some().Head().EID
	}
	if r.IntN(2) == 0 {
		sel.Columns = []string{}
		for _, c := range event.ByID(some().Head().Kind).Columns {
			if r.IntN(4) == 0 {
				sel.Columns = append(sel.Columns, c.Name)
			}
		}
	}
	for _, name := range []string{"pid", "eid", "time", "uid", "remote_port", "mode", "memfd"} {
		if r.IntN(10) != 0 {
			continue
		}
		eq := event.Equal{Column: name}
		for range r.IntN(5) * r.IntN(5) {
			e := some()
			if c := event.ByID(e.Head().Kind).Column(name); c != nil {
				eq.Values = append(eq.Values, c.Int(e))
			} else {
				eq.Values = append(eq.Values, 0)
			}
		}
		sel.Equal = append(sel.Equal, eq)
	}
	return sel
}

func TestSelections(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	events := append(newFeed().batch(4000), randomEvents(3, 4000)...)
	r := rand.New(rand.NewPCG(4, 0))
	r.Shuffle(len(events), func(i, k int) { events[i], events[k] = events[k], events[i] })
	for _, e := range events {
		s.Append(e)
		if r.IntN(100) == 0 {
			commit(t, s)
		}
	}
	commit(t, s)
	found := 0
	for range 150 {
		sel := randomSelection(r, events)
		want := pick(events, sel)
		got := all(t, s, sel)
		same(t, "some selection", want, got)
		if t.Failed() {
			t.Fatalf("selection: %+v", sel)
		}
		if len(got) > 0 {
			found++
		}
	}
	if found < 50 {
		t.Errorf("only %d of 150 selections found anything", found)
	}
}

func TestSelectionsThatAreMistakes(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	for _, c := range []struct{ column, want string }{
		{"path", `column "path" holds no integers`},
		{"no_such", `no column "no_such"`},
	} {
		_, err := s.Scan(t.Context(), event.Selection{Equal: []event.Equal{{Column: c.column, Values: []int64{1}}}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.column, err)
		}
	}
}

func TestScanSeesWhatWasCommittedWhenItBegan(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	f := newFeed()
	for _, e := range f.batch(3000) {
		s.Append(e)
	}
	commit(t, s)
	c, err := s.Scan(t.Context(), event.Selection{Columns: []string{"pid"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 3000 {
		e, err := c.Next()
		if err != nil || e == nil || e.Head().EID != int64(n+1) {
			t.Fatalf("row %d: %v, %v", n, e, err)
		}
		if n == 1000 { // merges and new blocks in the middle of a scan change nothing
			for range 100 {
				s.Append(f.nextExec())
				commit(t, s)
			}
		}
	}
	if e, err := c.Next(); e != nil || err != nil {
		t.Errorf("at the end: %v, %v", e, err)
	}
}

func TestScanEndsWithItsContext(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	for _, e := range newFeed().batch(9000) {
		s.Append(e)
	}
	commit(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := s.Scan(ctx, event.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for {
		e, err := c.Next()
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil || e == nil {
			t.Fatalf("%v, %v", e, err)
		}
	}
	if got := len(eids(t, s, event.Selection{})); got != 9000 {
		t.Errorf("%d events after a scan that was cut off", got)
	}
}
