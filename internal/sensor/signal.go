package sensor

import (
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// signal decodes rec_signal.
func (d *decoder) signal(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecSignal](raw)
	if err != nil {
		return err
	}
	// The classic tracepoint names a thread of the target, and says no more. Go programs send
	// their own threads many a signal.
	if r.TargetStart == 0 && d.proc != nil && d.proc.HasThread(r.Head.Pid, r.TargetPid) {
		d.count[event.KindSignal].threads.Add(1)
		return nil
	}
	e := b.Add(event.KindSignal).(*event.Signal)
	d.header(&e.Header, &r.Head)
	e.Signal = r.Signal
	e.SignalName = unix.SignalName(unix.Signal(r.Signal))
	e.Syscall = map[int32]string{0: "kill", -6: "tgkill", -1: "rt_sigqueueinfo"}[r.Code] // the first of each code
	e.Result = "ok"
	switch r.Outcome { // TRACE_SIGNAL_* (include/trace/events/signal.h)
	case 3, 4:
		e.Result = "EAGAIN"
	}
	e.TargetPID, e.TargetStart, e.TargetUID, e.TargetAUID = r.TargetPid, r.TargetStart, r.TargetUid, r.TargetAuid
	e.TargetComm = d.strings.get(cString(r.TargetComm[:]))
	return nil
}
