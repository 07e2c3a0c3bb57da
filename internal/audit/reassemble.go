package audit

import "time"

// Bounds of what waits for the rest of its event.
const (
	maxGroups     = 1024
	maxGroupBytes = 4 << 20 // 2 MiB of arguments in hexadecimal, the most that execve takes by default
	maxBytes      = 16 << 20
	keepBytes     = 64 << 10 // of a bundle's buffer, for the next one
	maxSpare      = 64

	// maxWait is how long an event waits for its end. The kernel writes all its records at
	// once, at the end of the call; only losing some delays them.
	maxWait = 2 * time.Second
	// loneWait is how long a decision of a security module waits for the call that it was
	// about, which may take for ever; where calls are not audited none comes.
	loneWait = 250 * time.Millisecond
	// lateSerials and lateWait together show an end that is lost: a thousand other events
	// began since.
	lateSerials = 1000
	lateWait    = 100 * time.Millisecond

	rememberedEvents = 512 // completed lately, a power of two
)

// bundle is the records of one event that have come so far.
type bundle struct {
	stamp
	since   time.Time // when the first came
	records []piece
	text    []byte
	called  bool // a SYSCALL or URINGOP is among them
	cut     bool // some did not fit

	prev, next *bundle // in the order of arrival
}

// piece is a record of a bundle: its text after the head is bundle.text[from:to].
type piece struct {
	typ      uint16
	from, to int32
}

// reassembler puts the records of events together. Records of one event come in order, and
// others may come between them.
type reassembler struct {
	byStamp     map[stamp]*bundle
	first, last *bundle
	latest      *bundle // that a record came for
	free        *bundle // linked by next
	n, bytes    int
	spare       int // in free

	// done remembers events that are complete: what comes of them once more is a repetition.
	done [rememberedEvents]finished
}

// finished names a complete event; of records that are events by themselves also the type.
type finished struct {
	stamp
	typ uint16
}

func (f *finished) slot() int { return int((f.serial + uint32(f.typ)) % rememberedEvents) }

// seen reports whether f was finished lately, and finish remembers that it is.
func (r *reassembler) seen(f finished) bool { return r.done[f.slot()] == f }
func (r *reassembler) finish(f finished)    { r.done[f.slot()] = f }

// add puts a record into its bundle, which it returns, made when there is none. Nothing of
// text is kept.
func (r *reassembler) add(s stamp, typ uint16, text []byte, now time.Time) *bundle {
	g := r.latest
	if g == nil || g.stamp != s {
		g = r.byStamp[s]
	}
	if g == nil {
		g = r.begin(s, now)
	}
	r.latest = g
	if len(g.text)+len(text) > maxGroupBytes {
		g.cut = true
		return g
	}
	if typ == typeSyscall || typ == typeUringOp {
		g.called = true
	}
	from := len(g.text)
	g.text = append(g.text, text...)
	g.records = append(g.records, piece{typ, int32(from), int32(len(g.text))})
	r.bytes += len(text)
	return g
}

func (r *reassembler) begin(s stamp, now time.Time) *bundle {
	g := r.free
	if g != nil {
		r.free = g.next
		r.spare--
	} else {
		g = new(bundle)
	}
	*g = bundle{stamp: s, since: now, records: g.records[:0], text: g.text[:0], prev: r.last}
	if r.last != nil {
		r.last.next = g
	} else {
		r.first = g
	}
	r.last = g
	if r.byStamp == nil {
		r.byStamp = make(map[stamp]*bundle)
	}
	r.byStamp[s] = g
	r.n++
	return g
}

// remove takes g out of those that wait; it is whole until release.
func (r *reassembler) remove(g *bundle) {
	delete(r.byStamp, g.stamp)
	if r.latest == g {
		r.latest = nil
	}
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		r.first = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		r.last = g.prev
	}
	g.prev, g.next = nil, nil
	r.n--
	r.bytes -= len(g.text)
}

// release lets the next bundle have the memory of one that was removed.
func (r *reassembler) release(g *bundle) {
	if cap(g.text) > keepBytes || r.spare >= maxSpare {
		return
	}
	g.next, r.free = r.free, g
	r.spare++
}

// overflow returns the bundle to give up so that the bounds hold, or nil.
func (r *reassembler) overflow() *bundle {
	if r.n > maxGroups || r.bytes > maxBytes {
		return r.first
	}
	return nil
}

// overdue returns a bundle whose end will not come any more, or nil.
func (r *reassembler) overdue(now time.Time) *bundle {
	for g := r.first; g != nil; g = g.next {
		waited := now.Sub(g.since)
		if waited < lateWait {
			return nil // as did all that came after it
		}
		late := r.last != nil && int32(r.last.serial-g.serial) > lateSerials
		if waited >= maxWait || !g.called && waited >= loneWait || g.called && late {
			return g
		}
	}
	return nil
}
