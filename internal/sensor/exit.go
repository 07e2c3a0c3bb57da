package sensor

import (
	"math/bits"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// exit decodes rec_exit. The status is split as wait(2) splits it.
func (d *decoder) exit(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecExit](raw)
	if err != nil {
		return err
	}
	if d.exits.again(r.Head.Pid, r.Head.Start) {
		d.count[event.KindExit].repeated.Add(1)
		return nil
	}
	e := b.Add(event.KindExit).(*event.Exit)
	d.header(&e.Header, &r.Head)
	e.ExitCode = int32(r.Code>>8) & 0xff
	e.Signal = int32(r.Code) & 0x7f
	e.CoreDumped = has(&r.Head, bpf.GoshawkFlagFLAG_CORE)
	if r.Head.Time > r.Head.Start {
		e.DurationNs = r.Head.Time - r.Head.Start
	}
	e.UserNs, e.SystemNs = scale(r.Utime, r.Stime, r.Runtime)
	e.MaxRSS = r.MaxRss * d.pages
	return nil
}

// recent is the processes that exited last. Before 6.16 two threads that leave at once may
// both pass for the last of their process (bpf/exit.bpf.h), microseconds apart.
type recent struct {
	at   int
	last [16]struct {
		start uint64
		pid   uint32
	}
}

// again notes a process, and says whether it was there.
func (r *recent) again(pid uint32, start uint64) bool {
	for i := range r.last {
		if p := &r.last[i]; p.start == start && p.pid == pid {
			return true
		}
	}
	p := &r.last[r.at%len(r.last)]
	p.pid, p.start = pid, start
	r.at++
	return false
}

// scale shares the exact run time in the ratio of the times counted by ticks, as
// cputime_adjust() (kernel/sched/cputime.c) does for wait4(2).
func scale(user, system, run uint64) (uint64, uint64) {
	switch {
	case run == 0:
		return user, system
	case system == 0:
		return run, 0
	case user == 0:
		return 0, run
	}
	hi, lo := bits.Mul64(system, run)
	sum := user + system
	if hi >= sum {
		return user, system
	}
	s, _ := bits.Div64(hi, lo, sum)
	return run - s, s
}
