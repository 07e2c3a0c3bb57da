package store

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestAllocations holds the log to its budget, the writer's work included: an allocation
// for every tenth event appended, and none for an event scanned but the text of blocks.
func TestAllocations(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	const n = 3000
	events := newFeed().batch(n)
	appended := testing.AllocsPerRun(5, func() {
		for _, e := range events {
			s.Append(e)
		}
		commit(t, s)
	})
	if got := appended / n; got > 0.1 {
		t.Errorf("%.3f allocations an event appended", got)
	}
	for _, c := range []struct {
		name string
		sel  event.Selection
		want float64
	}{
		{"two columns", event.Selection{Columns: []string{"pid", "path"}}, 0.05},
		{"all columns", event.Selection{}, 0.1},
	} {
		rows := 0
		scanned := testing.AllocsPerRun(5, func() {
			rows = 0
			cur, err := s.Scan(t.Context(), c.sel)
			if err != nil {
				t.Fatal(err)
			}
			defer cur.Close()
			for {
				e, err := cur.Next()
				if err != nil {
					t.Fatal(err)
				}
				if e == nil {
					break
				}
				rows++
			}
		})
		if got := scanned / float64(rows); rows != 6*n || got > c.want {
			t.Errorf("%s: %.3f allocations an event of %d scanned", c.name, got, rows)
		}
	}
}

// TestCells compares what is read and written in place with the columns' own functions.
func TestCells(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 0))
	all, byKind := streamsOf(event.Kinds)
	for _, kind := range event.Kinds {
		st := byKind[kind.ID]
		for range 100 {
			want, got := randomEvent(r, kind), kind.New()
			for i := range st.columns {
				c, at := &st.columns[i], st.cells[i]
				if c.Int != nil {
					at.setInt(got.Head(), at.int(want.Head()))
					if c.Int(got) != c.Int(want) {
						t.Errorf("%s.%s: %d became %d", st.name, c.Name, c.Int(want), c.Int(got))
					}
				} else {
					at.setText(got.Head(), at.text(want.Head()))
				}
			}
			same(t, kind.Name, []event.Event{want}, []event.Event{got})
		}
	}
	for _, st := range all {
		for _, i := range []int{st.kind, st.eid, st.time, st.pid} {
			if i < 0 {
				t.Errorf("%s lacks a column that every event has", st.name)
			}
		}
	}
}

// TestKindsOfATable proves what streamsOf takes for granted: kinds that share a table keep
// the same columns in the same places, and may differ in how cells are shown.
func TestKindsOfATable(t *testing.T) {
	alone := func(k *event.Kind) *stream {
		all, _ := streamsOf([]*event.Kind{k})
		return all[0]
	}
	first := map[string]*event.Kind{}
	for _, k := range event.Kinds {
		if first[k.Table] == nil {
			first[k.Table] = k
		}
		a, b := alone(first[k.Table]), alone(k)
		if a.layout != b.layout || !slices.Equal(a.cells, b.cells) || a.of != b.of {
			t.Errorf("kinds %s and %s share table %s and differ in columns", first[k.Table].Name, k.Name, k.Table)
		}
	}
}
