package sensor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

const (
	// linger is how long the reader lets records gather after the first has woken it. It
	// bounds both the delay of an event and the number of wake-ups in a second: each costs
	// the scheduler, and the Go runtime's monitor, more than reading a record does.
	linger = 10 * time.Millisecond
	// lingerBusy is the same after a pass that found busy records or more, when a ring can
	// have filled to a fifth at the worst.
	lingerBusy = 25 * time.Millisecond
	busy       = 64
	// backlog is how many bytes in the rings are read at once, without lingering.
	backlog = 128 << 10
	// readAhead is how many bulk records are read before the critical ring is looked at.
	readAhead = 1024
	// maxDrain bounds one pass over the critical ring, so that bulk records get their turn.
	maxDrain = 8192
)

func (s *Sensor) openRings() error {
	var err error
	if s.critical, err = ringbuf.NewReader(s.maps["critical"]); err != nil {
		return fmt.Errorf("map ring %q: %w", "critical", err)
	}
	if s.bulk, err = ringbuf.NewReader(s.maps["bulk"]); err != nil {
		return fmt.Errorf("map ring %q: %w", "bulk", err)
	}
	// Reads happen when there is something to read: they need not wait.
	past := time.Unix(1, 0)
	s.critical.SetDeadline(past)
	s.bulk.SetDeadline(past)

	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	if s.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for _, fd := range []int{s.wake, s.maps["critical"].FD(), s.maps["bulk"].FD()} {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return fmt.Errorf("add to epoll: %w", err)
		}
	}
	return nil
}

func (s *Sensor) closeRings() error {
	var errs []error
	for _, r := range []*ringbuf.Reader{s.critical, s.bulk} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	for _, fd := range []int{s.poll, s.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	s.poll, s.wake = -1, -1
	return errors.Join(errs...)
}

func (s *Sensor) interrupt() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// Fails only when the counter is full, and then the reader is awake anyway.
	unix.Write(s.wake, one[:])
}

func (s *Sensor) read(ctx context.Context, out chan<- *event.Batch) error {
	d := drain{s: s, ctx: ctx, out: out}
	events := make([]unix.EpollEvent, 3)
	wait := linger
	for ctx.Err() == nil {
		_, err := unix.EpollWait(s.poll, events, s.held.timeout(bootNow()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for records: %w", err)
		}
		if ctx.Err() == nil {
			time.Sleep(wait)
		}
		d.records = 0
		for {
			if err := d.pass(); err != nil {
				return err
			}
			// A pass is bounded. What is still there has waited long enough already.
			if s.critical.AvailableBytes()+s.bulk.AvailableBytes() < backlog {
				break
			}
		}
		switch {
		case d.behind:
			wait = 0
		case d.records >= busy:
			wait = lingerBusy
		default:
			wait = linger
		}
	}
	// What the kernel had written by the time of the stop still belongs to the log. With
	// nothing attached no more comes, and every record is accounted for.
	detached := s.detach()
	d.ctx = context.WithoutCancel(ctx)
	for s.critical.AvailableBytes()+s.bulk.AvailableBytes()+len(s.freshAt) > 0 {
		if err := d.pass(); err != nil {
			return err
		}
	}
	s.held.flush(&d)
	return errors.Join(d.flush(), detached)
}

// drain is one reader's way through both rings, in the order of the kernel's clock.
type drain struct {
	s     *Sensor
	ctx   context.Context
	out   chan<- *event.Batch
	batch *event.Batch
	rec   ringbuf.Record
	// records decoded since the reader last set it to zero
	records int
	// behind says that the last pass left records in the rings: now is no time to linger.
	behind bool
}

// pass reads what both rings hold. Bulk records are read first and the critical ring after
// them: so whatever a process did before its bulk record was written (its own exec above
// all) is in the critical records read now, and merging by time puts it first.
func (d *drain) pass() error {
	s := d.s
	s.boot.update()
	s.decode.toUnix = s.boot.offset
	for len(s.freshAt) < readAhead && s.bulk.AvailableBytes() > 0 {
		if err := s.bulk.ReadInto(&d.rec); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			return fmt.Errorf("read ring %q: %w", "bulk", err)
		}
		s.fresh = append(s.fresh, d.rec.RawSample...)
		s.freshAt = append(s.freshAt, len(s.fresh))
	}
	d.behind = len(s.freshAt) == readAhead
	next, from := 0, 0
	emitBefore := func(t uint64) error {
		for next < len(s.freshAt) {
			raw := s.fresh[from:s.freshAt[next]]
			if recordTime(raw) > t {
				return nil
			}
			if err := d.record(raw); err != nil {
				return err
			}
			from = s.freshAt[next]
			next++
		}
		return nil
	}
	exhausted := true
	var last uint64
	for n := 0; s.critical.AvailableBytes() > 0; n++ {
		if n == maxDrain {
			exhausted, d.behind = false, true
			break
		}
		if err := s.critical.ReadInto(&d.rec); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			return fmt.Errorf("read ring %q: %w", "critical", err)
		}
		last = recordTime(d.rec.RawSample)
		if err := emitBefore(last); err != nil {
			return err
		}
		if err := d.record(d.rec.RawSample); err != nil {
			return err
		}
	}
	if exhausted {
		last = ^uint64(0)
	}
	if err := emitBefore(last); err != nil {
		return err
	}
	if next == len(s.freshAt) {
		s.fresh, s.freshAt = s.fresh[:0], s.freshAt[:0]
		if cap(s.fresh) > 1<<20 {
			s.fresh = nil
		}
	} else { // rare: keep what is later than the critical records read so far
		rest := append([]byte(nil), s.fresh[from:]...)
		at := append([]int(nil), s.freshAt[next:]...)
		for i := range at {
			at[i] -= from
		}
		s.fresh, s.freshAt = rest, at
	}
	s.held.expire(bootNow(), d)
	return d.flush()
}

// recordTime returns rec_head.time, 0 for a record too short to have one.
func recordTime(raw []byte) uint64 {
	if len(raw) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(raw)
}

// record decodes one record into the present batch.
func (d *drain) record(raw []byte) error {
	d.records++
	if d.batch == nil {
		d.batch = event.NewBatch()
	}
	if err := d.s.decode.record(raw, d); err != nil {
		d.s.decode.malformed(raw, err)
	}
	if d.batch != nil && d.batch.Full() {
		return d.flush()
	}
	return nil
}

// flush sends the present batch.
func (d *drain) flush() error {
	if d.batch == nil || len(d.batch.Events) == 0 {
		return nil
	}
	for _, e := range d.batch.Events {
		d.s.decode.count[e.Head().Kind].delivered.Add(1)
	}
	select {
	case d.out <- d.batch:
		d.batch = nil
		return nil
	case <-d.ctx.Done():
	}
	// The agent still takes what is under way when it stops its sources.
	d.out <- d.batch
	d.batch = nil
	return nil
}

// bootClock turns the kernel's CLOCK_BOOTTIME into unix time.
type bootClock struct {
	offset int64 // add to boot ns for unix ns
	next   uint64
}

func bootNow() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// update measures the offset anew, at most once a second: the wall clock may be set.
func (b *bootClock) update() {
	now := bootNow()
	if now < b.next {
		return
	}
	b.next = now + 1e9
	var wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &wall) == nil {
		offset := wall.Nano() - int64(now)
		// Within a millisecond it is the same clock: a steady offset keeps times in order.
		if d := offset - b.offset; d > 1e6 || d < -1e6 {
			b.offset = offset
		}
	}
}

// tally counts what became of the records of one kind, on our side of the ring.
type tally struct {
	delivered, malformed, merged, answers, repeated atomic.Uint64
}
