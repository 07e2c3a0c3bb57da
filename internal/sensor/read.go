package sensor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
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
	// onTheirWay is the time that a record may take from its moment to its perf buffer. So long
	// those of other CPUs wait for it.
	onTheirWay = 5 * time.Millisecond
	// maxDrain bounds one pass over the critical ring, so that bulk records get their turn.
	maxDrain = 8192
)

// buffer is where the kernel leaves records for us: a ring, or a perf buffer for each CPU.
type buffer interface {
	// refill makes what was written by now ready to be read, in the order of time; what is
	// later than until stays for the next time. A ring has one order and needs no such thing.
	refill(until uint64)
	// available is how many bytes there are to be read now.
	available() int
	// waiting says whether there are records of after until.
	waiting() bool
	// read returns the next record, nil when there is none. It is valid until the next read
	// or refill.
	read() ([]byte, error)
	// fds can be polled for records.
	fds() []int
	close() error
}

// ringBuffer is the ring of the modern object.
type ringBuffer struct {
	*ringbuf.Reader
	fd  int
	rec ringbuf.Record
}

func openRing(m *ebpf.Map) (*ringBuffer, error) {
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, err
	}
	r.SetDeadline(time.Unix(1, 0)) // reads happen when there is something to read: they need not wait
	return &ringBuffer{Reader: r, fd: m.FD()}, nil
}

func (r *ringBuffer) refill(uint64)  {}
func (r *ringBuffer) waiting() bool  { return false }
func (r *ringBuffer) available() int { return r.AvailableBytes() }
func (r *ringBuffer) fds() []int     { return []int{r.fd} }
func (r *ringBuffer) close() error   { return r.Close() }

func (r *ringBuffer) read() ([]byte, error) {
	if r.AvailableBytes() == 0 {
		return nil, nil
	}
	err := r.ReadInto(&r.rec)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	return r.rec.RawSample, err
}

func (s *Sensor) openBuffers() error {
	var err error
	for _, b := range []struct {
		name  string
		bytes int
		to    *buffer
	}{{"critical", s.options.CriticalBytes, &s.critical}, {"bulk", s.options.BulkBytes, &s.bulk}} {
		if s.object.perf {
			*b.to, err = openPerf(s.maps[b.name], b.bytes, s.numbers)
		} else {
			*b.to, err = openRing(s.maps[b.name])
		}
		if err != nil {
			*b.to = nil
			return fmt.Errorf("open buffer %q: %w", b.name, err)
		}
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	if s.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make epoll: %w", err)
	}
	for _, fd := range slices.Concat([]int{s.wake}, s.critical.fds(), s.bulk.fds()) {
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return fmt.Errorf("add to epoll: %w", err)
		}
	}
	return nil
}

func (s *Sensor) closeBuffers() error {
	var errs []error
	for _, b := range []buffer{s.critical, s.bulk} {
		if b != nil {
			errs = append(errs, b.close())
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

// uninterrupt makes the next wait wait, if it may.
func (s *Sensor) uninterrupt() {
	var n [8]byte
	unix.Read(s.wake, n[:]) // fails when there was no interrupt
}

func (s *Sensor) read(ctx context.Context, out chan<- *event.Batch) error {
	d := drain{s: s, ctx: ctx, out: out}
	events := make([]unix.EpollEvent, 3+len(s.critical.fds())+len(s.bulk.fds()))
	wait := linger
	for ctx.Err() == nil {
		timeout := s.filesTimeout(s.held.timeout(event.BootNow()))
		if s.critical.waiting() || s.bulk.waiting() {
			timeout = int(onTheirWay / time.Millisecond)
		}
		n, err := unix.EpollWait(s.poll, events, timeout)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for records: %w", err)
		}
		if ctx.Err() == nil && n != 0 {
			time.Sleep(wait)
		}
		if err := s.remount(events[:max(0, n)]); err != nil {
			return err
		}
		if s.numbers != nil {
			s.uninterrupt()
		}
		d.records = 0
		for {
			if err := d.pass(); err != nil {
				return err
			}
			// A pass is bounded. What is still there has waited long enough already.
			if s.critical.available()+s.bulk.available() < backlog && !s.filesMore {
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
	s.settleFiles()
	d.ctx = context.WithoutCancel(ctx)
	for {
		if err := d.pass(); err != nil {
			return err
		}
		if s.critical.available()+s.bulk.available()+len(s.freshAt) == 0 && !s.filesMore {
			break
		}
	}
	s.held.flush(&d)
	s.settle()
	s.settle()
	return errors.Join(d.flush(), detached)
}

// drain is one reader's way through both rings, in the order of the kernel's clock.
type drain struct {
	s     *Sensor
	ctx   context.Context
	out   chan<- *event.Batch
	batch *event.Batch
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
	if err := s.followClock(); err != nil {
		return err
	}
	s.decode.toUnix = s.boot.offset
	until := ^uint64(0)
	if !s.detached {
		until = event.BootNow() - uint64(onTheirWay)
	}
	s.bulk.refill(until)
	s.critical.refill(until)
	// Before the rings are read: what a process did before is in them by now.
	if err := s.readFiles(); err != nil {
		return err
	}
	for len(s.freshAt) < readAhead {
		raw, err := s.bulk.read()
		if err != nil {
			return fmt.Errorf("read buffer %q: %w", "bulk", err)
		}
		if raw == nil {
			break
		}
		s.fresh = append(s.fresh, raw...)
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
	for n := 0; ; n++ {
		if n == maxDrain {
			exhausted, d.behind = false, true
			break
		}
		raw, err := s.critical.read()
		if err != nil {
			return fmt.Errorf("read buffer %q: %w", "critical", err)
		}
		if raw == nil {
			break
		}
		last = recordTime(raw)
		if err := emitBefore(last); err != nil {
			return err
		}
		if err := d.record(raw); err != nil {
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
	if s.numbers != nil && s.numbers.unsettled.Load() {
		s.settle()
	}
	s.held.expire(event.BootNow(), d)
	if err := d.emitFiles(); err != nil {
		return err
	}
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
	offset    int64  // add to boot ns for unix ns
	suspended uint64 // add to CLOCK_MONOTONIC for CLOCK_BOOTTIME
	next      uint64
}

// update measures the offset anew, at most once a second: the wall clock may be set.
func (b *bootClock) update() {
	now := event.BootNow()
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
	// The same for the clock that stands still while the machine is suspended.
	if s := suspended(); s > b.suspended+1e6 || s+1e6 < b.suspended {
		b.suspended = s
	}
}

// suspended is for how long this boot was suspended, in ns: never too much, so that no time
// made with it is ahead.
func suspended() uint64 {
	var most uint64
	for range 3 {
		boot := event.BootNow()
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
			return 0
		}
		if mono := uint64(ts.Nano()); boot > mono {
			most = max(most, boot-mono)
		}
	}
	return most
}

// tally counts what became of the records of one kind, on our side of the ring.
type tally struct {
	delivered, malformed, merged, answers, repeated, own, threads atomic.Uint64
}
