package process

import (
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// origin is how the session that a process belongs to began. A session is what one program
// led to that something else than a process of a user had started: its leader, and all that
// the leader and its descendants start, whoever adopts them later.
type origin uint8

const (
	unknownOrigin origin = iota
	kernelOrigin         // the kernel itself: its threads, and what they execute
	serviceOrigin        // init, or what supervises services
	sshOrigin
	consoleOrigin // a terminal's or a display's login
	cronOrigin
	containerOrigin // a pid namespace was entered or made
)

var originNames = [...]string{"", "kernel", "service", "ssh", "console", "cron", "container"}

// gates are the programs whose children begin a session, by file name.
var gates = map[string]origin{
	"sshd": sshOrigin, "sshd-session": sshOrigin, "sshd-auth": sshOrigin, "dropbear": sshOrigin, "tinysshd": sshOrigin,
	"login": consoleOrigin, "gdm-session-worker": consoleOrigin, "lightdm": consoleOrigin, "sddm-helper": consoleOrigin,
	"lxdm-session": consoleOrigin, "xdm": consoleOrigin, "greetd": consoleOrigin,
	"cron": cronOrigin, "crond": cronOrigin, "anacron": cronOrigin, "atd": cronOrigin, "fcron": cronOrigin,
	"systemd": serviceOrigin, "systemd-executor": serviceOrigin, "init": serviceOrigin, "runsv": serviceOrigin,
	"s6-supervise": serviceOrigin, "supervisord": serviceOrigin, "openrc-run.sh": serviceOrigin, "start-stop-daemon": serviceOrigin,
}

// gate is what kind of session the children of a program begin. Only programs where the
// system keeps its own count: anybody may call a file cron.
func (m *image) gate() origin {
	if m == nil {
		return unknownOrigin
	}
	for _, dir := range [...]string{"/usr/", "/sbin/", "/bin/", "/lib/", "/opt/"} {
		if strings.HasPrefix(m.path, dir) {
			return gates[m.name()]
		}
	}
	return unknownOrigin
}

// kernelThread reports whether m is none: what runs in the kernel alone has no file.
func (m *image) kernelThread() bool { return m != nil && m.path == "" && m.comm != "" }

// member is which session a process belongs to.
type member struct {
	leaderStart uint64 // ns since boot
	leaderPID   uint32 // 0 unknown
	origin      origin
}

// begins says what a process that executes m began if by, in process number pid, has
// started it; unknownOrigin when it stays in the session of that.
func begins(by *image, pid uint32, m *image) origin {
	switch {
	case by.kernelThread() && !m.kernelThread():
		return kernelOrigin
	case pid == 1:
		return serviceOrigin
	}
	if g := by.gate(); g != unknownOrigin && m.gate() != g {
		return g
	}
	return unknownOrigin
}

// maxDepth bounds how far up a session is looked for among processes that ran before.
const maxDepth = 32

// settle finds the session of a process whose start was missed, from who is above it now.
func (t *Table) settle(p *entry, depth int) {
	if p.session.origin != unknownOrigin || p.traced || depth == maxDepth {
		return
	}
	p.traced = true
	self := member{p.start, p.pid, unknownOrigin}
	switch {
	case p.pid == 1:
		self.origin = serviceOrigin
		p.session = self
		return
	case p.image.kernelThread():
		self.origin = kernelOrigin
		p.session = self
		return
	}
	q := t.parentOf(p)
	if q == nil || q.image == nil {
		return
	}
	if self.origin = begins(q.image, q.pid, p.image); self.origin != unknownOrigin {
		p.session = self
		return
	}
	t.settle(q, depth+1)
	p.session = q.session
}

// spawn has a child be of its maker's session until it executes something, and remembers
// who made it: its parent may be another, at once or later.
func (t *Table) spawn(c, by *entry, m *image) {
	t.settle(by, 0)
	if c.session.origin == unknownOrigin {
		c.session = by.session
	}
	if c.makerPID != 0 {
		return
	}
	c.makerPID, c.makerStart, c.makerNS = by.pid, by.start, by.pidNS
	t.hold(m)
	c.maker = m
	c.execEID = by.execEID
}

// enterSession settles which session a process that has executed m is in, and says so in e.
func (t *Table) enterSession(p *entry, m *image, e *event.Exec) {
	o := unknownOrigin
	switch {
	case e.PIDNamespace != 0 && (e.Entered || p.makerPID != 0 && p.makerNS != e.PIDNamespace):
		o = containerOrigin
	case p.maker != nil:
		o = begins(p.maker, p.makerPID, m)
	case p.makerPID == 0:
		if q := t.parentOf(p); q != nil {
			o = begins(q.image, q.pid, m)
		}
	}
	if o != unknownOrigin {
		p.session = member{p.start, p.pid, o}
	} else {
		p.traced = false
		t.settle(p, 0)
	}
	e.LeaderPID, e.LeaderStart = p.session.leaderPID, p.session.leaderStart
	if e.LeaderPID == p.pid {
		e.LeaderPath = m.path
	} else if q := t.find(e.LeaderPID, e.LeaderStart, e.NTime); q != nil && e.LeaderPID != 0 && q.image != nil {
		e.LeaderPath = q.image.path
	}
	e.SpawnerPID, e.SpawnerStart = p.makerPID, p.makerStart
	if p.maker != nil {
		e.SpawnerPath = p.maker.path
	}
}
