package agent

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// batchOf makes a batch of connects of a source at the given times.
func batchOf(source string, times ...uint64) *event.Batch {
	b := event.NewBatch()
	for _, at := range times {
		h := b.Add(event.KindConnect).Head()
		h.NTime, h.Source, h.PID, h.Start = at, source, 5, 1
	}
	return b
}

// taken remembers what was passed on.
type taken []string

func (t *taken) take(events []event.Event) []event.Event {
	for _, e := range events {
		*t = append(*t, fmt.Sprint(e.Head().Source, e.Head().NTime))
	}
	return events
}

func TestOrder(t *testing.T) {
	var o order
	var got taken
	pass := func(upTo uint64, want ...string) {
		t.Helper()
		got = nil
		o.pass(upTo, got.take)
		check(t, fmt.Sprintf("passed up to %d", upTo), []string(got), append([]string(nil), want...))
	}
	pass(100)
	o.add(batchOf("a", 10, 20, 30))
	o.add(batchOf("b", 5, 20, 25, 40))
	pass(4)
	pass(20, "b5", "a10", "a20", "b20")
	o.add(batchOf("a", 38, 22, 36)) // out of order by itself
	pass(35, "a22", "b25", "a30")
	o.add(batchOf("b", 12, 50)) // and one that comes too late
	o.add(batchOf("a"))
	pass(^uint64(0), "b12", "a36", "a38", "b40", "b50")
	check(t, "late", o.counts(nil), []event.Count{{Source: "b", Kind: event.KindConnect, What: event.Late, N: 1}})
	if _, ok := o.due(0); ok || len(o.held) > 0 {
		t.Errorf("still held: %v", o.held)
	}
}

// TestOrderOfSlowClock has a record of which the time is cut come after what may have made its process.
func TestOrderOfSlowClock(t *testing.T) {
	o := order{slow: map[string]uint64{"slow": 10}}
	var got taken
	o.add(batchOf("slow", 10, 30))
	o.add(batchOf("a", 15, 25, 41))
	o.pass(40, got.take)
	o.pass(^uint64(0), got.take)
	check(t, "passed", []string(got), []string{"a15", "slow10", "a25", "slow30", "a41"})
	check(t, "late", o.counts(nil), []event.Count(nil))
}

func TestOrderIsDue(t *testing.T) {
	o := order{lag: uint64(100 * time.Millisecond)}
	o.add(batchOf("a", 2e9, 3e9))
	o.add(batchOf("b", 1e9))
	for now, want := range map[uint64]time.Duration{
		1e9:           100 * time.Millisecond,
		1e9 + 60e6:    40 * time.Millisecond,
		1e9 + 99e6:    holdStep,
		1e9 + 5000e6:  holdStep,
		1e9 + 100_000: 99_900 * time.Microsecond,
	} {
		got, ok := o.due(now)
		check(t, fmt.Sprintf("due at %d", now), []any{got, ok}, []any{want, true})
	}
}

// TestOrderOfSources lets batches of three sources arrive after delays below the lag: what
// comes out is in order, complete, and nothing is late.
func TestOrderOfSources(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type arrival struct {
		at    uint64
		batch *event.Batch
	}
	const lag = 300
	var sent []arrival
	n := 0
	for _, source := range []string{"a", "b", "c"} {
		for at := uint64(0); at < 100_000; {
			var times []uint64
			begun := at
			for range 1 + r.IntN(20) {
				at += uint64(r.IntN(10))
				times = append(times, at)
			}
			n += len(times)
			at = max(at, begun+1)
			if at-begun < lag {
				sent = append(sent, arrival{at + r.Uint64N(lag-(at-begun)), batchOf(source, times...)})
			}
		}
	}
	for i := range sent { // by arrival
		for j := i; j > 0 && sent[j].at < sent[j-1].at; j-- {
			sent[j], sent[j-1] = sent[j-1], sent[j]
		}
	}
	var last uint64
	got := 0
	o := order{lag: lag}
	take := func(events []event.Event) []event.Event {
		for _, e := range events {
			if e.Head().NTime < last {
				t.Fatalf("%d after %d", e.Head().NTime, last)
			}
			last = e.Head().NTime
			got++
		}
		return events
	}
	for _, a := range sent {
		if o.add(a.batch); len(o.held) > maxHeld {
			t.Fatal("more is held than the bound: make the lag smaller")
		}
		if a.at > lag {
			o.pass(a.at-lag, take)
		}
	}
	o.pass(^uint64(0), take)
	check(t, "events", got, n)
	check(t, "late", o.counts(nil), []event.Count(nil))
}

// TestOrderIsBounded holds back more than it may: nothing is lost, only order.
func TestOrderIsBounded(t *testing.T) {
	var o order
	var got taken
	for i := range 5 * maxHeld {
		o.add(batchOf("a", uint64(1000-i), uint64(2000-i)))
		o.pass(0, got.take)
		if len(o.held) > maxHeld {
			t.Fatalf("%d batches are held", len(o.held))
		}
	}
	o.pass(^uint64(0), got.take)
	check(t, "events", len(got), 10*maxHeld)
	if len(o.late) == 0 {
		t.Error("none was late")
	}
}

func TestOrderAllocatesNothing(t *testing.T) {
	var o order
	take := func(e []event.Event) []event.Event { return e }
	at := uint64(0)
	round := func() {
		for _, source := range []string{"a", "b"} {
			b := event.NewBatch()
			for range 64 {
				at++
				h := b.Add(event.KindConnect).Head()
				h.NTime, h.Source = at, source
			}
			o.add(b)
		}
		o.pass(at-80, take)
	}
	for range 10 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n > 16 { // new batches, when the pool was emptied
		t.Errorf("%v allocations a round of 128", n)
	}
}
