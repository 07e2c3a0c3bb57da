package agent

import (
	"cmp"
	"slices"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// order merges the batches of several sources into one order of time. Each source's
// events come in the order in which they happened, but some sources are later than others:
// events are held until nothing older can be under way, then passed on oldest first. One
// source alone needs none of this.
//
// It never waits for a source that may have nothing to say: what comes later than that is
// passed on at once, and counted. It holds a bounded number of batches; beyond them the
// oldest events go early, so that a flood costs order and not memory.
type order struct {
	lag  uint64            // ns that events are held after they happened; 0: pass everything on
	slow map[string]uint64 // ns that a source's clock may be behind, by Header.Source
	held []pending
	out  []event.Event  // scratch of pass
	done []*event.Batch // whose last events stand in out
	last uint64         // newest time passed on
	late map[lateKey]uint64
}

// lateKey names events that were passed on after younger ones.
type lateKey struct {
	source string
	kind   event.ID
}

// pending is a batch of which events from next on are held, oldest first.
type pending struct {
	*event.Batch
	next int
	slow uint64
}

// at is the time that stands for the next event: the latest at which it may have happened,
// so that it never comes before what made its process.
func (p *pending) at() uint64 { return p.Events[p.next].Head().NTime + p.slow }

const (
	// maxHeld bounds the batches held: 8,192 events, a tenth of a second of a flood.
	maxHeld = 32
	// holdStep is how exactly events are let go: fewer wake-ups for a little more waiting.
	holdStep = 10 * time.Millisecond
)

// add takes over a batch.
func (o *order) add(b *event.Batch) {
	if len(b.Events) == 0 {
		b.Release()
		return
	}
	byTime := func(x, y event.Event) int { return cmp.Compare(x.Head().NTime, y.Head().NTime) }
	// A source may put between newer events what it had to wait for itself.
	if !slices.IsSortedFunc(b.Events, byTime) {
		slices.SortStableFunc(b.Events, byTime)
	}
	o.held = append(o.held, pending{Batch: b, slow: o.slow[b.Events[0].Head().Source]})
}

// oldest returns the index in held of the batch whose next event is oldest, and the time
// of the next event of all others.
func (o *order) oldest() (at int, others uint64) {
	others = ^uint64(0)
	for i := 1; i < len(o.held); i++ {
		t := o.held[i].at()
		switch {
		case t < o.held[at].at():
			others = min(others, o.held[at].at())
			at = i
		default:
			others = min(others, t)
		}
	}
	return at, others
}

// pass hands the held events up to the time upTo to take, in their order, a batch's worth
// at a time. They are valid during the call.
func (o *order) pass(upTo uint64, take func([]event.Event) []event.Event) {
	flush := func() {
		if len(o.out) > 0 {
			take(o.out)
		}
		clear(o.out)
		o.out = o.out[:0]
		for _, b := range o.done {
			b.Release()
		}
		clear(o.done)
		o.done = o.done[:0]
	}
	for len(o.held) > 0 {
		at, others := o.oldest()
		b := &o.held[at]
		if b.at() > upTo && len(o.held) <= maxHeld {
			break
		}
		until := min(others, max(upTo, b.at()))
		for b.next < len(b.Events) && b.at() <= until {
			if at := b.at(); at < o.last {
				o.countLate(b.Events[b.next].Head())
			} else {
				o.last = at
			}
			o.out = append(o.out, b.Events[b.next])
			b.next++
			if len(o.out) == event.BatchSize {
				flush()
			}
		}
		if b.next == len(b.Events) {
			o.done = append(o.done, b.Batch)
			o.held = slices.Delete(o.held, at, at+1)
		}
	}
	flush()
}

func (o *order) countLate(h *event.Header) {
	if o.late == nil {
		o.late = make(map[lateKey]uint64)
	}
	o.late[lateKey{h.Source, h.Kind}]++
}

// counts says which events were late.
func (o *order) counts(all []event.Count) []event.Count {
	for k, n := range o.late {
		all = append(all, event.Count{Source: k.source, Kind: k.kind, What: event.Late, N: n})
	}
	return all
}

// due is how long the oldest event is still to be held; false when none is.
func (o *order) due(now uint64) (time.Duration, bool) {
	if len(o.held) == 0 {
		return 0, false
	}
	at, _ := o.oldest()
	if end := o.held[at].at() + o.lag; end > now {
		return max(time.Duration(end-now), holdStep), true
	}
	return holdStep, true
}
