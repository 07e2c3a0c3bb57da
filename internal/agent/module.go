package agent

import (
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	// moduleWait is how long a kernel module's event waits for the digest of its file: who serves
	// the file system that it is on may hand it out byte by byte.
	moduleWait = 2 * time.Second
	// slow is why there is no digest then, as event.Module.HashError has it.
	slow = "slow"
)

// modules are the kernel modules whose events wait for a digest, in the order asked for. The
// zero value is ready.
type modules struct {
	back    <-chan *event.File // of Options.Modules
	late    *time.Timer        // runs while some wait
	waiting []heldModule
}

type heldModule struct {
	event *event.Module // nil: told already, without a digest
	until time.Time
}

// hold keeps a copy of a module's event until what its file holds is known; false when there is
// nothing to wait for.
func (a *Agent) hold(m *event.Module) bool {
	if a.opt.Modules == nil || m.Operation != "load" || m.ModulePath == "" || m.Result != "" && m.Result != "ok" {
		return false
	}
	f := &event.File{Operation: "write", Result: "ok", TargetPath: m.ModulePath, Inode: m.Inode}
	if !a.opt.Modules.Ask(f) {
		m.HashError = f.HashError
		return false
	}
	held := *m
	a.modules.waiting = append(a.modules.waiting, heldModule{&held, time.Now().Add(moduleWait)})
	if len(a.modules.waiting) == 1 {
		a.modules.late.Reset(moduleWait)
	}
	return true
}

// hashed takes the digest of the first module that waits.
func (a *Agent) hashed(f *event.File) {
	first := a.modules.waiting[0]
	a.modules.waiting = a.modules.waiting[1:]
	if m := first.event; m != nil {
		m.SHA256, m.HashError = f.SHA256, f.HashError
		a.tell(m)
	}
}

// overdue tells of the modules that have waited long enough.
func (a *Agent) overdue(now time.Time) {
	for i := range a.modules.waiting {
		w := &a.modules.waiting[i]
		if w.event == nil {
			continue
		}
		if wait := w.until.Sub(now); wait > 0 {
			a.modules.late.Reset(wait)
			return
		}
		w.event.HashError = slow
		a.tell(w.event)
		w.event = nil
	}
}
