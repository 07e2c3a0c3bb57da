// Package audit is the source that reads the Linux audit subsystem over netlink: it asks
// the kernel for records, puts those of one event together, and decodes them into the
// same events that the eBPF sensor makes. It knows events and nothing above them: not the
// process table, the store or a rule.
package audit

import (
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// decoderOptions say what a decoder makes of records. The zero value decodes everything.
type decoderOptions struct {
	BootID string     // given to events; empty leaves it to who completes them
	Kinds  []event.ID // nil: all
	// OmitModules are security modules whose decisions nobody wants.
	OmitModules []string
	// Self is this process, whose own changes to audit's configuration are no news.
	Self uint32
	// Own reports whether a change of that configuration is ours where the record does not say
	// who made it: add_rule, remove_rule, or a setting with its value. Nil: none is.
	Own func(change string) bool
	// Offset returns unix time minus the boot clock in ns; nil measures it. It is asked
	// once a second at most.
	Offset func() int64
	// FDPath returns the path behind a descriptor of a process: audit does not tell the
	// directory of *at calls, nor the file of calls on descriptors. What it returns is the
	// file with that device (major:minor) and inode, or empty. Nil: never known.
	FDPath func(pid uint32, fd int32, device string, inode uint64) string
	// Thread tells what has this number now: audit does not tell whether clone3 made a
	// process or a thread. Nil: never known.
	Thread func(tid uint32) threadAnswer
}

// threadAnswer is what a number that clone3 returned belongs to.
type threadAnswer uint8

const (
	threadGone  threadAnswer = iota // nothing has it any more, or that cannot be told
	threadLeads                     // a process
	threadIs                        // a thread of a process
)

// decoder makes events of audit records. All but counts belong to one goroutine.
type decoder struct {
	opt    decoderOptions
	wanted [event.MaxKind + 1]bool
	r      reassembler
	batch  *event.Batch
	taken  bool // the batch's events were handed out

	strings interner
	offset  int64 // unix time minus the boot clock
	asked   int64 // unix second of the last look at it
	clones  clones
	now     time.Time // of the present call

	lastHead  []byte // of the record before, and what it says
	lastStamp stamp

	tallies [event.MaxKind + 1][fates]atomic.Uint64

	// What follows is scratch of the event being decoded.
	call  callRecord
	items []item
	buf   []byte
	text  []byte
	words []byte
}

// reason is what became of an event or a record that did not become an event, or how one
// that did fell short.
type fate uint8

const (
	delivered fate = iota
	lostMalformed
	lostIncomplete
	lostTooLarge
	notAsked
	repeated
	callFailed
	madeThread
	maybeThread
	otherFamily
	ownChange
	noKind
	gaveUpEnd
	gaveUpBound
	fates
)

// whatFor says how a reason is counted.
var whatFor = [fates]struct{ what, reason string }{
	delivered:      {event.Delivered, ""},
	lostMalformed:  {event.Lost, "malformed"},
	lostIncomplete: {event.Lost, "incomplete"},
	lostTooLarge:   {event.Lost, "too_large"},
	notAsked:       {event.Filtered, "kind"},
	repeated:       {event.Filtered, "repeated"},
	callFailed:     {event.Filtered, "failed"},
	madeThread:     {event.Filtered, "thread"},
	maybeThread:    {event.Filtered, "perhaps_thread"},
	otherFamily:    {event.Filtered, "family"},
	ownChange:      {event.Filtered, "own"},
	noKind:         {event.Filtered, "no_kind"},
	gaveUpEnd:      {event.Evicted, "no_end"},
	gaveUpBound:    {event.Evicted, "too_many_events"},
}

func newDecoder(o decoderOptions) *decoder {
	d := &decoder{opt: o}
	for _, k := range event.Kinds {
		d.wanted[k.ID] = len(o.Kinds) == 0
	}
	for _, id := range o.Kinds {
		d.wanted[id] = true
	}
	return d
}

// push takes one record: its type (AUDIT_*, linux/audit.h) and the text of its netlink
// message, "audit(1364481363.243:24287): arch=…", of which it keeps nothing.
func (d *decoder) push(typ uint16, data []byte, now time.Time) {
	d.reuse()
	s, text, ok := d.parseHead(data)
	if !ok {
		d.count(0, lostMalformed)
		return
	}
	for len(text) > 0 && (text[len(text)-1] == 0 || text[len(text)-1] == '\n') {
		text = text[:len(text)-1]
	}
	d.clock(now)
	d.now = now
	switch {
	case typ == typeEOE:
		if g := d.r.byStamp[s]; g != nil {
			d.complete(g)
		}
	case alone(typ):
		f := finished{s, typ}
		if d.r.seen(f) {
			d.count(0, repeated)
			break
		}
		d.r.finish(f)
		d.single(s, typ, text)
	case d.r.seen(finished{s, 0}):
		if typ != typeProctitle {
			d.count(0, repeated)
		}
	default:
		g := d.r.add(s, typ, text, now)
		if typ == typeProctitle {
			d.complete(g) // the end is all that can follow
		}
		for g := d.r.overflow(); g != nil; g = d.r.overflow() {
			d.giveUp(g, gaveUpBound)
		}
	}
	d.overdue(now)
}

// parseHead reads the head of a record, which mostly is that of the one before.
func (d *decoder) parseHead(data []byte) (stamp, []byte, bool) {
	if n := len(d.lastHead); n > 0 && len(data) >= n && string(data[:n]) == string(d.lastHead) {
		return d.lastStamp, data[n:], true
	}
	s, text, ok := parseHead(data)
	if ok {
		d.lastHead, d.lastStamp = append(d.lastHead[:0], data[:len(data)-len(text)]...), s
	}
	return s, text, ok
}

// flush gives up waiting for records that will not come. To be called now and then while
// pending says so, about every 100 ms.
func (d *decoder) flush(now time.Time) {
	d.reuse()
	d.clock(now)
	d.now = now
	d.overdue(now)
	d.clones.flush(d, now)
}

// pending reports whether records wait for others of their event.
func (d *decoder) pending() bool { return d.r.n > 0 || len(d.clones.held) > 0 }

// take returns the events completed since the last call. They and their slice are valid
// until the next push or flush; their strings stay.
func (d *decoder) take() []event.Event {
	if d.batch == nil || d.taken {
		return nil
	}
	d.taken = true
	return d.batch.Events
}

// takeBatch is take for who sends the events on: it hands over the batch that they are in,
// nil when there are none.
func (d *decoder) takeBatch() *event.Batch {
	if d.batch == nil || d.taken || len(d.batch.Events) == 0 {
		return nil
	}
	b := d.batch
	d.batch = nil
	return b
}

// reuse empties the batch when its events were taken.
func (d *decoder) reuse() {
	if d.taken {
		d.batch.Release()
		d.batch, d.taken = nil, false
	}
}

// counts says what became of records and events, but for those that take handed out: whoever
// sends them on knows whether they arrived. Generated is all that began. Where the kind
// cannot be told, these are records, or events of kinds that nobody has. It may be called
// from any goroutine.
func (d *decoder) counts() []event.Count {
	var out []event.Count
	for kind := range d.tallies {
		made := uint64(0)
		for r := range d.tallies[kind] {
			n := d.tallies[kind][r].Load()
			w := &whatFor[r]
			if w.what != event.Evicted {
				made += n
			}
			if n > 0 && w.what != event.Delivered {
				out = append(out, event.Count{Source: "audit", Kind: event.ID(kind), What: w.what, Reason: w.reason, N: n})
			}
		}
		if made > 0 {
			out = append(out, event.Count{Source: "audit", Kind: event.ID(kind), What: event.Generated, N: made})
		}
	}
	return out
}

func (d *decoder) count(kind event.ID, r fate) { d.tallies[kind][r].Add(1) }

// add begins an event of a kind, or counts that nobody wants it and returns nil.
func (d *decoder) add(kind event.ID, s stamp) event.Event {
	if !d.wanted[kind] {
		d.count(kind, notAsked)
		return nil
	}
	d.count(kind, delivered)
	e := d.events().Add(kind)
	d.head(e.Head(), kind, s)
	return e
}

func (d *decoder) events() *event.Batch {
	if d.batch == nil {
		d.batch = event.NewBatch()
	}
	return d.batch
}

// head fills in what all events share.
func (d *decoder) head(h *event.Header, kind event.ID, s stamp) {
	h.Kind, h.Time = kind, s.unix()
	if at := h.Time - d.offset; at > 0 {
		h.NTime = uint64(at)
	}
	h.Source, h.Fidelity, h.BootID = "audit", event.FidelityKernel, d.opt.BootID
	h.UID, h.GID, h.EUID, h.EGID = unset, unset, unset, unset
	// Login and session stay 0, which says that the record does not tell them.
}

// unix is the time of an event in ns. The kernel takes it when the call begins, to the
// millisecond of a clock that ticks every 1 to 10 of them.
func (s stamp) unix() int64 { return s.seconds*1_000_000_000 + int64(s.millis)*1_000_000 }

// complete decodes a bundle whose records are all there.
func (d *decoder) complete(g *bundle) {
	d.r.finish(finished{g.stamp, 0})
	d.r.remove(g)
	d.bundle(g)
	d.r.release(g)
}

// giveUp decodes a bundle as it is: what is missing will not come.
func (d *decoder) giveUp(g *bundle, why fate) {
	if g.called {
		d.count(0, why)
	}
	d.r.remove(g)
	d.bundle(g)
	d.r.release(g)
}

func (d *decoder) overdue(now time.Time) {
	for g := d.r.overdue(now); g != nil; g = d.r.overdue(now) {
		d.giveUp(g, gaveUpEnd)
	}
}

// clock follows the distance of the two clocks: unix time steps, the boot clock does not.
// Small moves, as NTP makes them all the time, would put events out of order.
func (d *decoder) clock(now time.Time) {
	second := now.Unix()
	if second == d.asked {
		return
	}
	first := d.asked == 0
	d.asked = second
	offset := int64(0)
	if d.opt.Offset != nil {
		offset = d.opt.Offset()
	} else {
		offset = time.Now().UnixNano() - int64(event.BootNow())
	}
	if moved := offset - d.offset; first || moved > 1_000_000 || moved < -1_000_000 {
		d.offset = offset
	}
}

// interner gives equal bytes the same string. It is bounded: when full it starts again.
type interner struct {
	m     map[string]string
	bytes int
}

const internBytes = 1 << 20

func (in *interner) get(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := in.m[string(b)]; ok {
		return s
	}
	if in.m == nil || in.bytes > internBytes {
		in.m, in.bytes = make(map[string]string, 256), 0
	}
	s := string(b)
	in.bytes += 2*len(s) + 64
	in.m[s] = s
	return s
}

const unset = event.Unset

// ruleKey is the key of the rules that we add.
const ruleKey = "goshawk"
