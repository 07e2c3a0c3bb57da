package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	// linger is how long records gather before they are read; it bounds the delay of an event
	// and the number of wake-ups, each of which costs more than reading dozens of records.
	linger = 50 * time.Millisecond
	// lingerBusy is the same after a pass that found busy records or more: there may be more
	// coming than the socket has room for.
	lingerBusy = 20 * time.Millisecond
	busy       = 256
	// atOnce is how many records are read before events are handed on.
	atOnce = 4096
	// maxQueue is how many batches may wait for the agent, beside those in its channel.
	maxQueue = 32

	pollBusy = time.Second           // how often the kernel is asked for its losses, while records come,
	pollIdle = 10 * time.Second      // and whether audit is still ours, while none do
	pollFull = 50 * time.Millisecond // the same while the kernel's queue was last found filled
	flushAt  = 100 * time.Millisecond
	// takeAgain is how long somebody who wanted audit has to come for it.
	takeAgain = time.Minute
	// settle is how long after a change of audit's configuration our rules are looked for:
	// who loads rules deletes all first.
	settle   = 3 * time.Second
	maxAdds  = 5 // times that rules are added again
	maxDrain = 64
	lastRead = 3 * time.Second
)

type kindCounts [event.MaxKind + 1]uint16

// outgoing is a batch that the agent has not taken yet; its events are counted when it does.
type outgoing struct {
	batch *event.Batch
	kinds kindCounts
}

// loop is the state of Run's goroutine.
type loop struct {
	out     chan<- *event.Batch
	queue   []outgoing
	records int // read in this pass
	missed  missed
	asked   uint32 // pid of who wants to own audit, 0 nobody
	yielded time.Time
	polled  time.Time
	active  time.Time // when a record last came
	verify  time.Time // when to look for our rules; zero: no need
	added   int       // times that rules were added again
	off     bool      // audit was found switched off
	lost    uint32    // the kernel's counter, as last read
	filled  float64   // of the kernel's queue
}

func (s *Source) read(ctx context.Context, out chan<- *event.Batch) error {
	l := &s.loop
	l.out = out
	l.verify = time.Time{}
	l.polled = time.Now()
	gather := linger
	for ctx.Err() == nil {
		// While records come there is nothing to be woken for: the next are there after gather.
		ready := l.records > 0
		if !ready {
			var err error
			if ready, err = s.wait(); err != nil {
				return errors.Join(err, s.finish())
			}
		}
		if ready && gather > 0 && ctx.Err() == nil {
			time.Sleep(gather)
		}
		now := time.Now()
		s.pressure(now)
		l.records = 0
		for {
			more, err := s.pass(now)
			if err != nil {
				return errors.Join(err, s.finish())
			}
			if !more || len(l.queue) > 0 {
				break
			}
			now = time.Now()
			s.pressure(now)
		}
		s.decode.flush(now)
		s.handOn()
		s.tend(now)
		switch {
		case l.records >= atOnce:
			gather = 0
		case l.records >= busy:
			gather = lingerBusy
		default:
			gather = linger
		}
	}
	return s.finish()
}

// wait waits for records, the end, or the next thing to do.
func (s *Source) wait() (ready bool, err error) {
	l := &s.loop
	now := time.Now()
	next := l.polled.Add(s.every(now))
	if !l.verify.IsZero() && l.verify.Before(next) {
		next = l.verify
	}
	timeout := max(0, next.Sub(now))
	if s.decode.pending() {
		timeout = min(timeout, flushAt)
	}
	if len(l.queue) > 0 {
		timeout = min(timeout, 2*time.Millisecond)
	}
	fds := []unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}, {Fd: int32(s.r.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int((timeout+time.Millisecond-1)/time.Millisecond)); err != nil && err != unix.EINTR {
		return false, fmt.Errorf("wait for audit records: %w", err)
	}
	if fds[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(s.wake, count[:]) // which empties it; nobody else reads
	}
	return fds[1].Revents != 0, nil
}

// pressure tells how full the queues are on both sides.
func (s *Source) pressure(now time.Time) {
	l := &s.loop
	filled, why := max(s.r.filled(), l.filled), byBacklog
	if q := float64(len(l.queue)) / maxQueue; q > filled {
		filled, why = q, byQueue
	}
	s.volume.press(filled, why, now)
}

// pass reads up to atOnce records, and reports whether more are there.
func (s *Source) pass(now time.Time) (more bool, err error) {
	l := &s.loop
	for read := 0; read < atOnce; {
		n, err := s.r.read()
		switch {
		case err == unix.ENOBUFS:
			l.missed.overrun()
			continue
		case err != nil:
			return false, fmt.Errorf("read audit records: %w", err)
		case n == 0:
			l.missed.emptied()
			return false, nil
		}
		for i := range n {
			s.record(i, now)
		}
		s.collect(false)
		read += n
		l.records += n
		l.active = now
	}
	s.handOn()
	return true, nil
}

// record takes in the i-th record of the last read.
func (s *Source) record(i int, now time.Time) {
	l := &s.loop
	typ, data, ok := s.r.record(i)
	switch {
	case !ok:
		s.broken.Add(1)
	case typ < recUserFirst && typ != recLogin && typ != recUser: // an answer, not a record
	case typ == recReplace:
		if len(data) >= 4 && binary.NativeEndian.Uint32(data) != s.self {
			l.asked = binary.NativeEndian.Uint32(data)
		}
	default:
		if typ == recConfig && l.verify.IsZero() {
			l.verify = now.Add(settle)
		}
		s.overrun.Add(l.missed.see(serial(data), now))
		if s.volume.admit(typ, data, now) {
			s.decode.push(typ, data, now)
		}
	}
}

// collect queues what is decoded, once that fills a batch: one pass over inFlight records
// completes few events more. With all it takes whatever there is.
func (s *Source) collect(all bool) {
	l := &s.loop
	if b := s.decode.batch; b == nil || !all && len(b.Events) < event.BatchSize-inFlight {
		return
	}
	b := s.decode.takeBatch()
	if b == nil {
		return
	}
	q := outgoing{batch: b}
	for _, e := range b.Events {
		q.kinds[e.Head().Kind]++
	}
	if len(l.queue) < 2*maxQueue {
		l.queue = append(l.queue, q)
		return
	}
	for kind, n := range q.kinds { // what press could not keep away
		if n > 0 {
			s.unqueued[kind].Add(uint64(n))
		}
	}
	b.Release()
}

// handOn sends what the agent takes now. It never waits: while the agent is busy records
// are read on, and the least important are shed.
func (s *Source) handOn() {
	l := &s.loop
	if len(l.queue) == 0 {
		s.collect(true)
	}
	sent := 0
	for ; sent < len(l.queue); sent++ {
		q := &l.queue[sent]
		select {
		case l.out <- q.batch:
			s.count(&q.kinds)
			continue
		default:
		}
		break
	}
	l.queue = slices.Delete(l.queue, 0, sent)
}

func (s *Source) count(kinds *kindCounts) {
	for kind, n := range kinds {
		if n > 0 {
			s.delivered[kind].Add(uint64(n))
		}
	}
}

// every is how often the kernel is asked how things are.
func (s *Source) every(now time.Time) time.Duration {
	l := &s.loop
	switch {
	case l.filled >= relief: // else what was so for a moment sheds events for a second
		return pollFull
	case now.Sub(l.active) < 2*pollBusy || s.volume.shed > 0:
		return pollBusy
	}
	return pollIdle
}

// tend asks the kernel how things are, now and then.
func (s *Source) tend(now time.Time) {
	l := &s.loop
	s.overrun.Add(l.missed.settle(now))
	s.rewatch()
	if l.asked != 0 {
		s.yield(now, l.asked)
		l.asked = 0
	}
	if !l.verify.IsZero() && now.After(l.verify) {
		l.verify = time.Time{}
		s.checkRules()
	}
	if now.Sub(l.polled) < s.every(now) {
		return
	}
	l.polled = now
	if s.how == CaseReader { // whom the kernel does not answer
		return
	}
	st, err := s.c.status()
	if err != nil {
		return // it is asked again
	}
	s.countLost(&st)
	if off := st.enabled == 0; off != l.off && l.yielded.IsZero() {
		l.off = off
		if off {
			s.tell("audit was switched off (enabled 0) by somebody: nothing is seen until auditctl -e 1")
		} else {
			s.tell("audit was switched on again")
		}
	}
	switch {
	case s.how == CaseOwn && st.pid == 0: // it could not send to us, and gave us up
		if err := s.register(); err != nil {
			s.tell("audit: %v", err)
		}
	case s.how == CaseOwn && st.pid != s.self: // on old kernels nobody asks
		s.yield(now, st.pid)
	case !l.yielded.IsZero() && st.pid != 0:
		l.yielded = time.Time{}
	case !l.yielded.IsZero() && now.Sub(l.yielded) > s.patience && !s.opt.Yielding:
		s.takeAgain(now)
	}
}

func (s *Source) countLost(st *status) {
	l := &s.loop
	if st.lost > l.lost {
		s.kernelLost.Add(uint64(st.lost - l.lost))
	}
	l.lost = st.lost // auditctl --reset-lost may have made it less
	l.filled = 0
	if st.backlogLimit > 0 {
		l.filled = min(1, float64(st.backlog)/float64(st.backlogLimit))
	}
}

// checkRules adds our rules again when somebody has removed them.
func (s *Source) checkRules() {
	l := &s.loop
	if s.journal == nil || len(s.journal.rules) == 0 || s.opt.Yielding || l.added >= maxAdds {
		return
	}
	present, err := s.c.rules()
	if err != nil {
		return
	}
	ours := 0
	for _, raw := range present {
		r, ok := parseRule(raw)
		if _, _, is := r.ours(); ok && is {
			ours++
		}
	}
	if ours > 0 {
		return
	}
	l.added++
	again := "they are added again"
	if l.added == maxAdds {
		again = "they are added for the last time"
	}
	s.tell("audit: somebody removed our rules; %s", again)
	if err := s.install(s.journal, s.how == CaseBeside); err != nil {
		s.tell("audit: %v", err)
	}
}

// yield leaves audit to another process, and reads on beside it.
func (s *Source) yield(now time.Time, to uint32) {
	if s.how != CaseOwn {
		return
	}
	who := fmt.Sprintf("process %d", to)
	if dir, err := s.opt.FS.Open(); err == nil {
		if o, ok := ownerOf(dir, to); ok {
			who = o.String()
		}
		dir.Close()
	}
	s.tell("audit: %s wants to own it: goshawk takes its rules out and reads beside it", who)
	r, err := openReader(true, s.receive())
	if err != nil { // blind is worse than rude
		s.tell("audit: goshawk stays its owner: it cannot read beside another: %v", err)
		return
	}
	if s.journal != nil {
		if err := s.journal.undo(s.c); err != nil {
			s.tell("audit: %v", err)
		}
		s.journal = nil
	}
	if err := s.unregister(); err != nil {
		s.tell("audit: %v", err)
	}
	s.drain(now)
	s.r.close()
	s.r = r
	s.setCase(CaseBeside)
	s.refuse(unseen(nil), CaseBeside)
	s.loop.yielded = now
}

// takeAgain makes audit ours again, when whoever wanted it did not come.
func (s *Source) takeAgain(now time.Time) {
	s.loop.yielded = now
	state, err := look(s.c, s.opt.FS)
	if err != nil || state.Case != CaseOwn {
		return
	}
	s.tell("audit has no owner: goshawk takes it again")
	s.drain(now)
	old := s.r
	if err := s.own(&state); err != nil {
		s.tell("audit: %v", err)
		if s.r != old {
			s.r.close()
		}
		s.r = old
		s.setCase(CaseBeside)
		return
	}
	s.loop.yielded = time.Time{}
	old.close()
}

// drain reads what is left in the socket.
func (s *Source) drain(now time.Time) {
	for range maxDrain {
		if more, err := s.pass(now); !more || err != nil {
			return
		}
	}
}

// finish takes our rules out, and hands on what was recorded until then.
func (s *Source) finish() error {
	l := &s.loop
	now := time.Now()
	if s.journal != nil {
		_ = deleteRules(s.c, s.journal.rules) // Close tells what goes wrong
	}
	// The kernel's thread sends what lies in its queue.
	for deadline := now.Add(lastRead); time.Now().Before(deadline); {
		st, err := s.c.status()
		if err != nil {
			time.Sleep(linger)
			break
		}
		s.drain(now)
		s.countLost(&st)
		if st.backlog == 0 && s.r.filled() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.drain(now)
	s.overrun.Add(l.missed.end())
	s.decode.flush(now.Add(time.Hour)) // nothing comes any more
	s.collect(true)
	for _, q := range l.queue {
		l.out <- q.batch
		s.count(&q.kinds)
	}
	l.queue = nil
	return nil
}
