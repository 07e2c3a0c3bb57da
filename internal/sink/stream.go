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

// Events are encoded into chunks of one size, which are used again: a buffer that grew with
// each burst would be copied as it grows, and be the collector's to find.
const (
	chunkSize = 64 << 10
	chunkRoom = 8 << 10 // less is left for the next chunk: most events fit
	// keepChunks are kept when a burst is over: what comes in 25 ms of a flood.
	keepChunks = 16
)

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
	queue     [][]byte // encoded, waiting
	bytes     int      // in queue, and those that the writer holds
	free      [][]byte // empty chunks
	queued    tallies  // events in queue
	inFlight  tallies  // events that the writer holds
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
		chunk := s.chunk()
		before := len(*chunk)
		longer := s.opt.Encode(*chunk, e)
		if s.bytes+len(longer)-before > s.opt.Queue {
			s.full[kind]++
			continue
		}
		s.bytes += len(longer) - before
		*chunk = longer
		s.queued[kind]++
	}
	if len(s.queue) > 0 {
		s.signal()
	}
}

// chunk returns one with room for an event.
func (s *Stream) chunk() *[]byte {
	if n := len(s.queue); n > 0 {
		if last := &s.queue[n-1]; cap(*last)-len(*last) >= chunkRoom || len(*last) == 0 {
			return last
		}
	}
	var c []byte
	if n := len(s.free); n > 0 {
		c, s.free = s.free[n-1], s.free[:n-1]
	} else {
		c = make([]byte, 0, chunkSize)
	}
	s.queue = append(s.queue, c)
	return &s.queue[len(s.queue)-1]
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine. It takes all that waits, and gives chunks back when they
// are written.
func (s *Stream) write() {
	defer close(s.done)
	var out [][]byte
	for range s.wake {
		s.mu.Lock()
		var closed bool
		out, s.queue, closed = s.queue, out[:0], s.closed
		s.inFlight.add(&s.queued)
		s.mu.Unlock()

		var err error
		for _, chunk := range out {
			if len(chunk) > 0 && err == nil {
				_, err = s.w.Write(chunk)
			}
			s.mu.Lock()
			s.bytes -= len(chunk)
			if len(s.free) < keepChunks && cap(chunk) == chunkSize {
				s.free = append(s.free, chunk[:0])
			}
			s.mu.Unlock()
		}
		clear(out)

		s.mu.Lock()
		if err != nil {
			s.err = err
			s.unwritten.add(&s.inFlight)
			s.drop()
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
	}
}

// drop counts what is queued as lost with the writer.
func (s *Stream) drop() {
	s.unwritten.add(&s.queued)
	s.queue, s.free = nil, nil
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
		s.drop()
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
