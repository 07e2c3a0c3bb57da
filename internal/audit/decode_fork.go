package audit

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// clones tells processes from threads among what clone3 made. Its record holds a pointer
// to the flags, not these, and pthread_create uses it for each thread.
//
// A number that some record has as its process is one. Else the kernel is asked; when that
// has forgotten the number already, the fork is held back for a record of the child's.
type clones struct {
	recent [rememberedPIDs]pidSeen
	held   []heldFork
}

const (
	rememberedPIDs = 1024
	maxHeld        = 256
	holdFork       = time.Second
)

// pidSeen is a process that made a call lately.
type pidSeen struct {
	pid, ppid uint32
	at        int64 // unix ns
}

// heldFork is a clone3 of which it is not known whether it made a process.
type heldFork struct {
	fork  event.Fork
	since time.Time
}

// saw takes note that a record has pid as its process.
func (c *clones) saw(d *decoder, pid, ppid uint32, s stamp) {
	c.recent[pid%rememberedPIDs] = pidSeen{pid, ppid, s.unix()}
	for i := range c.held {
		if h := &c.held[i]; h.fork.ChildPID == pid && h.fork.Time <= s.unix() {
			d.tell(&h.fork, ppid)
			c.held = append(c.held[:i], c.held[i+1:]...)
			return
		}
	}
}

// flush gives up the forks whose child was never heard of.
func (c *clones) flush(d *decoder, now time.Time) {
	n := 0
	for n < len(c.held) && now.Sub(c.held[n].since) >= holdFork {
		n++
	}
	c.drop(d, n)
}

func (c *clones) drop(d *decoder, n int) {
	for range n {
		d.count(event.KindFork, maybeThread)
	}
	c.held = append(c.held[:0], c.held[n:]...)
}

// fork decodes fork, vfork, clone and clone3.
func (d *decoder) fork(g *bundle) {
	c := &d.call
	if !c.success || c.exit <= 0 || c.exit > 1<<31-1 {
		d.count(event.KindFork, callFailed)
		return
	}
	child, parent := uint32(c.exit), c.pid
	switch c.def.do {
	case doClone:
		if c.args[0]&unix.CLONE_THREAD != 0 {
			d.count(event.KindFork, madeThread)
			return
		}
		if c.args[0]&unix.CLONE_PARENT != 0 {
			parent = c.ppid
		}
	case doClone3:
		if p := &d.clones.recent[child%rememberedPIDs]; p.pid == child && p.at >= g.unix() {
			parent = p.ppid
			break
		}
		answer := threadGone
		if d.opt.Thread != nil {
			answer = d.opt.Thread(child)
		}
		switch answer {
		case threadIs:
			d.count(event.KindFork, madeThread)
			return
		case threadGone:
			d.hold(g, child, parent)
			return
		}
	}
	e, _ := d.add(event.KindFork, g.stamp).(*event.Fork)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.ChildPID, e.ChildPPID = child, parent
}

// hold keeps a fork until its child is heard of.
func (d *decoder) hold(g *bundle, child, parent uint32) {
	if !d.wanted[event.KindFork] {
		d.count(event.KindFork, notAsked)
		return
	}
	if len(d.clones.held) == maxHeld {
		d.clones.drop(d, 1)
	}
	h := heldFork{since: d.now}
	d.head(&h.fork.Header, event.KindFork, g.stamp)
	d.caller(&h.fork.Header)
	h.fork.ChildPID, h.fork.ChildPPID = child, parent
	d.clones.held = append(d.clones.held, h)
}

// tell sends a fork that was held back.
func (d *decoder) tell(held *event.Fork, parent uint32) {
	d.count(event.KindFork, delivered)
	e := d.events().Add(event.KindFork).(*event.Fork)
	*e = *held
	e.ChildPPID = parent
}

// exit decodes exit_group. A process that a signal ends makes no such call.
func (d *decoder) exit(g *bundle) {
	e, _ := d.add(event.KindExit, g.stamp).(*event.Exit)
	if e == nil {
		return
	}
	d.caller(&e.Header)
	e.ExitCode = int32(d.call.args[0] & 0xff)
	e.DurationNs, e.UserNs, e.SystemNs, e.MaxRSS = event.Missing, event.Missing, event.Missing, event.Missing
}
