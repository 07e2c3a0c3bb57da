package process

import (
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// audited is an event as the audit subsystem tells it: no start of any process.
func audited(e event.Event) event.Event {
	h := e.Head()
	h.Source, h.TID, h.Start, h.PStart = "audit", 0, 0, 0
	if f, ok := e.(*event.Fork); ok {
		f.ChildStart = 0
	}
	if x, ok := e.(*event.Exit); ok {
		x.DurationNs = event.Missing
	}
	return e
}

// running is what /proc says: pid to start in ms.
func running(starts map[uint32]uint64) func(uint32, *event.Exec) bool {
	return func(pid uint32, into *event.Exec) bool {
		start, ok := starts[pid]
		if ok {
			*into = *exec(0, pid, start, 1, 0, "/proc/says", "so")
			into.Source = "procfs"
		}
		return ok
	}
}

func TestStartComesFromProc(t *testing.T) {
	tab := New(Options{BootID: boot, Lookup: running(map[uint32]uint64{20: 190, 30: 150})})
	f := audited(fork(192, 10, 0, 20, 10)).(*event.Fork)
	tab.Complete(f)
	check(t, "child's start", f.ChildStart/ms, uint64(190))
	e := audited(exec(200, 20, 0, 10, 0, "/bin/ls", "ls")).(*event.Exec)
	tab.Complete(e)
	check(t, "start at exec", e.Start/ms, uint64(190))
	c := audited(connect(5000, 30, 0))
	tab.Complete(c)
	check(t, "start of one that ran before", c.Head().Start/ms, uint64(150))
	check(t, "its program", c.Head().Path, "/proc/says")
}

func TestStartIsGuessedOnce(t *testing.T) {
	alive := map[uint32]uint64{}
	tab := New(Options{BootID: boot, Lookup: running(alive)})
	f := audited(fork(192, 10, 0, 20, 10)).(*event.Fork)
	tab.Complete(f)
	check(t, "child's start", f.ChildStart/ms, uint64(192))
	id := event.ProcessID(boot, 20, f.ChildStart)
	alive[20] = 190 // seen too late: the process has its name
	for i, e := range []event.Event{
		audited(exec(200, 20, 0, 10, 0, "/bin/ls", "ls")), audited(connect(210, 20, 0)), audited(exit(1192, 20, 0)),
	} {
		tab.Complete(e)
		if h := e.Head(); event.ProcessID(h.BootID, h.PID, h.Start) != id {
			t.Errorf("event %d: start %d ms", i, h.Start/ms)
		}
		if x, ok := e.(*event.Exit); ok && x.DurationNs != 1000*ms {
			t.Errorf("it lived %d ns", x.DurationNs)
		}
	}
	late := audited(connect(1200, 20, 0)) // told of the time before
	tab.Complete(late)
	check(t, "late", late.Head().Start/ms, uint64(192))
}

// A process of which only its end is told has no known life.
func TestLifeThatIsNotKnown(t *testing.T) {
	tab := New(Options{})
	e := audited(exit(500, 20, 0)).(*event.Exit)
	tab.Complete(e)
	check(t, "duration", e.DurationNs, uint64(event.Missing))
}

// The end of a process that a signal killed is not told: its pid's next owner is another.
func TestPIDIsUsedAgainUntold(t *testing.T) {
	tab := New(Options{BootID: boot})
	tab.Complete(audited(fork(100, 10, 0, 20, 10)))
	a := audited(exec(101, 20, 0, 10, 0, "/bin/a", "a")).(*event.Exec)
	tab.Complete(a)
	f := audited(fork(9000, 11, 0, 20, 11)).(*event.Fork)
	tab.Complete(f)
	c := audited(connect(9001, 20, 0))
	tab.Complete(c)
	if c.Head().Start != f.ChildStart || c.Head().Start == a.Start || c.Head().Path == "/bin/a" {
		t.Errorf("%+v, after %d", c.Head(), a.Start)
	}
	old := audited(connect(5000, 20, 0))
	tab.Complete(old)
	check(t, "one between", old.Head().Start, a.Start)
}

// The child may run before the call that made it has returned.
func TestChildIsHeardOfFirst(t *testing.T) {
	tab := New(Options{BootID: boot})
	e := audited(exec(101, 20, 0, 10, 0, "/bin/a", "a")).(*event.Exec)
	tab.Complete(e)
	f := audited(fork(100, 10, 0, 20, 10)).(*event.Fork)
	tab.Complete(f)
	check(t, "child", f.ChildStart, e.Start)
	check(t, "entries", tab.Len(), 2)
	x := audited(exit(601, 20, 0)).(*event.Exit)
	tab.Complete(x)
	check(t, "it lived", x.DurationNs/ms, uint64(500))
}

// A parent that /proc told of is named with its start cut to a tick, as in its own events.
func TestParentOfAGuess(t *testing.T) {
	tab := New(Options{BootID: boot})
	s := exec(0, 10, 100, 1, 0, "/bin/bash", "bash")
	s.Source = "procfs"
	tab.Seed(s)
	e := audited(exec(205, 20, 0, 10, 0, "/bin/a", "a"))
	tab.Complete(e)
	check(t, "parent's start", e.Head().PStart/ms, uint64(100))
}

// With both sources the start is known, and nobody is entered twice.
func TestSourcesAgree(t *testing.T) {
	tab := tree()
	n := tab.Len()
	for at, want := range map[uint64]uint64{195: 200, 200: 200, 5000: 200} { // 195: audit's clock lags
		e := audited(connect(at, 20, 0))
		tab.Complete(e)
		check(t, "start", e.Head().Start/ms, want)
	}
	check(t, "entries", tab.Len(), n)

	e := audited(connect(300, 40, 0))
	tab.Complete(e)
	x := exec(310, 40, 250, 10, 100, "/bin/x", "x")
	tab.Complete(x)
	again := audited(connect(320, 40, 0))
	tab.Complete(again)
	check(t, "the exact start", again.Head().Start/ms, uint64(250))
	check(t, "entries", tab.Len(), n+1)
}

func TestTargets(t *testing.T) {
	tab := tree()
	s := &event.Signal{Header: connect(300, 10, 100).Header, TargetPID: 20}
	s.Kind = event.KindSignal
	tab.Complete(s)
	check(t, "target", []any{s.TargetStart / ms, s.TargetPath, s.TargetComm}, []any{uint64(200), "/usr/bin/curl", "curl"})
	p := &event.Ptrace{Header: s.Header, TargetPID: 999, TargetComm: "told"}
	tab.Complete(p)
	check(t, "target that is not known", []any{p.TargetStart, p.TargetPath, p.TargetComm}, []any{uint64(0), "", "told"})

	tab = New(Options{Lookup: running(map[uint32]uint64{20: 190})})
	s.TargetStart, s.TargetPath = 0, ""
	tab.Complete(s)
	check(t, "target from /proc", []any{s.TargetStart / ms, s.TargetPath}, []any{uint64(190), "/proc/says"})
}
