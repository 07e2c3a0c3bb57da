// Package sink holds the places that events go to. A sink takes what the agent offers
// without ever making it wait: what does not fit its queue is dropped, and counted by kind
// and reason. It knows events, and must never know where they come from, how they were
// completed, or where else they go.
//
// The agent's goroutine offers; a goroutine that the sink owns writes.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Encoder appends one event to dst, with whatever ends it. It must not keep the event.
type Encoder func(dst []byte, e event.Event) []byte

// DefaultQueue is how many bytes wait for a slow reader: about 6,000 events, a second of
// a busy host.
const DefaultQueue = 4 << 20

// keepBuffer is the largest buffer kept when a burst is over: what comes in 10 ms of a flood.
const keepBuffer = 1 << 20

// Options of a Stream.
type Options struct {
	Name   string // in counts
	Encode Encoder
	// Filter, when set, reports whether an event is wanted. Loss events always are: a
	// stream with holes must not look whole.
	Filter func(event.Event) bool
	Queue  int // bytes; DefaultQueue when zero
}

// Stream writes events one after the other to a writer that may be slow.
type Stream struct {
	opt  Options
	w    io.Writer
	wake chan struct{} // holds a token when there is something to do
	done chan struct{} // closed when the writer goroutine has ended
	fail chan struct{} // closed at the first failed write

	mu        sync.Mutex
	queue     []byte  // encoded, waiting
	queued    tallies // events in queue
	writing   int     // bytes that the writer holds
	inFlight  tallies // events that the writer holds
	delivered tallies
	full      tallies
	unwritten tallies // lost with the writer
	filtered  tallies
	closed    bool
	err       error
}

// tallies counts events by kind.
type tallies [event.MaxKind + 1]uint64

func (t *tallies) add(o *tallies) {
	for i, n := range o {
		t[i] += n
	}
	*o = tallies{}
}

// NewStream returns a stream to w and starts the goroutine that writes, which ends with
// Close. The stream does not close w.
func NewStream(w io.Writer, opt Options) *Stream {
	if opt.Queue <= 0 {
		opt.Queue = DefaultQueue
	}
	s := &Stream{
		opt: opt, w: w,
		wake: make(chan struct{}, 1), done: make(chan struct{}), fail: make(chan struct{}),
	}
	go s.write()
	return s
}

// Offer takes a copy of events, whole or not at all for each, and never blocks on the
// writer.
func (s *Stream) Offer(events []event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		kind := e.Head().Kind
		if s.opt.Filter != nil && kind != event.KindLoss && !s.opt.Filter(e) {
			s.filtered[kind]++
			continue
		}
		if s.closed || s.err != nil {
			s.unwritten[kind]++
			continue
		}
		before := len(s.queue)
		s.queue = s.opt.Encode(s.queue, e)
		if len(s.queue)+s.writing > s.opt.Queue {
			s.queue = s.queue[:before]
			s.full[kind]++
			continue
		}
		s.queued[kind]++
	}
	if len(s.queue) > 0 {
		s.signal()
	}
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine. The queue and the buffer being written change places.
func (s *Stream) write() {
	defer close(s.done)
	var spare []byte
	for range s.wake {
		s.mu.Lock()
		out, closed := s.queue, s.closed
		s.queue, s.writing = spare[:0], len(out)
		s.inFlight.add(&s.queued)
		s.mu.Unlock()

		var err error
		if len(out) > 0 {
			_, err = s.w.Write(out)
		}

		s.mu.Lock()
		s.writing = 0
		if err != nil {
			s.err = err
			s.unwritten.add(&s.inFlight)
			s.unwritten.add(&s.queued)
			s.queue = nil
			close(s.fail)
		} else {
			s.delivered.add(&s.inFlight)
		}
		more := len(s.queue) > 0
		s.mu.Unlock()
		if err != nil || closed && !more {
			return
		}
		if closed {
			s.signal()
		}
		if spare = out; cap(spare) > keepBuffer {
			spare = nil
		}
	}
}

// Failed is closed when a write has failed: nothing more will be written. Close says why.
func (s *Stream) Failed() <-chan struct{} { return s.fail }

// errSlow is what Close says when the reader did not take the rest in time.
var errSlow = errors.New("the reader is too slow")

// Close writes what is queued and ends the stream, waiting no longer than ctx lasts. What
// is not written by then is counted lost.
func (s *Stream) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		s.signal()
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-ctx.Done():
		// The goroutine is stuck in a write and ends with it.
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unwritten.add(&s.inFlight)
		s.unwritten.add(&s.queued)
		s.queue = nil
		return fmt.Errorf("write %s: %w", s.opt.Name, errSlow)
	}
	if s.err != nil {
		return fmt.Errorf("write %s: %w", s.opt.Name, s.err)
	}
	return nil
}

// Counts returns what became of the events offered.
func (s *Stream) Counts() []event.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []event.Count
	for kind := event.ID(1); kind <= event.MaxKind; kind++ {
		for _, c := range []struct {
			what, reason string
			n            uint64
		}{
			{event.Delivered, "", s.delivered[kind]},
			{event.Filtered, "where", s.filtered[kind]},
			{event.Lost, "sink_full", s.full[kind]},
			{event.Lost, "sink_failed", s.unwritten[kind]},
		} {
			if c.n > 0 {
				out = append(out, event.Count{Source: s.opt.Name, Kind: kind, What: c.what, Reason: c.reason, N: c.n})
			}
		}
	}
	return out
}
