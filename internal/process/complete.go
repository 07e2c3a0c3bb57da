package process

import "github.com/goshawk-project/goshawk/internal/event"

// Complete learns from e and fills in what its record lacks. Events come in the order of
// their NTime but for a little disorder between rings. It reports whether e is news: a
// second exit of the same process is not (where a sensor can only read signal->live, two
// threads that leave at once both find it 0).
//
// Strings that it sets belong to the table and stay valid; it keeps none of e's.
func (t *Table) Complete(e event.Event) bool {
	h := e.Head()
	if h.BootID == "" {
		h.BootID = t.opt.BootID
	}
	if h.NTime > t.now {
		t.now = h.NTime
	}
	if h.PID == 0 {
		return true // the idle task, or no process at all
	}
	news := true
	switch e := e.(type) {
	case *event.Exec:
		t.exec(e)
	case *event.Fork:
		t.fork(e)
	case *event.Exit:
		news = t.exit(e)
	default:
		t.fill(h, t.actor(h))
		switch e := e.(type) {
		case *event.Ptrace:
			t.target(e.TargetPID, h.NTime, &e.TargetStart, &e.TargetPath, &e.TargetComm)
		case *event.Signal:
			t.target(e.TargetPID, h.NTime, &e.TargetStart, &e.TargetPath, &e.TargetComm)
		}
	}
	t.trim()
	return news
}

func (t *Table) exec(e *event.Exec) {
	h := &e.Header
	if h.CgroupID == 0 && h.CgroupV1 == 0 && t.opt.Place != nil && t.mayLook() {
		t.opt.Place(h)
	}
	p := t.enter(h)
	m := t.newImage(e)
	m.disguise = disguiseOf(e)
	switch {
	case h.NTime >= p.since:
		t.setBefore(p, p.image)
		t.setImage(p, m)
		p.since = h.NTime
		p.seeded, p.looked, p.rewritten, p.execEID = false, false, false, 0
	case p.before == nil:
		t.setBefore(p, m) // an exec overtaken by the next one
	}
	t.enterSession(p, m, e)
	t.fill(h, p)
	switch q := t.parentOf(p); {
	case q != nil:
		e.Ancestors = t.ancestors(q)
	case p.ppid != 0:
		t.buf = append(appendAncestor(append(t.buf[:0], '['), p.ppid, unknownImage), ']')
		e.Ancestors = string(t.buf)
	}
}

func (t *Table) fork(e *event.Fork) {
	h := &e.Header
	p := t.actor(h)
	t.fill(h, p)
	if e.ChildPPID == 0 {
		e.ChildPPID = h.PID
	}
	if e.ChildPID == 0 {
		return
	}
	m := p.imageAt(h.NTime)
	var c *entry
	if e.ChildStart != 0 {
		c = t.find(e.ChildPID, e.ChildStart, h.NTime)
	} else {
		c = t.child(e.ChildPID, h.NTime)
	}
	switch {
	case c != nil:
		c.born = c.born || c.guessed // it was heard of first, right after
	case e.ChildStart != 0:
		c = t.add(e.ChildPID, e.ChildStart)
		c.since = h.NTime
	default:
		c = t.guess(e.ChildPID, h.NTime, true)
		c.since = h.NTime
	}
	switch {
	case c.image == nil:
		if m != nil {
			t.setImage(c, m)
		}
	case c.before == nil && c.since > h.NTime:
		t.setBefore(c, m) // its exec came first
	}
	if c.audit == unset && c.auid == unset {
		c.auid, c.audit = p.auid, p.audit
	}
	t.spawn(c, p, m)
	if c.uid == unset {
		c.uid, c.gid, c.euid, c.egid = p.uid, p.gid, p.euid, p.egid
	}
	if c.tty == "" {
		c.tty = p.tty
	}
	if c.cgroup == 0 && c.cgroupV1 == 0 {
		c.cgroup, c.cgroupV1 = p.cgroup, p.cgroupV1
	}
	if e.ChildStart == 0 {
		t.identify(c)
		e.ChildStart = c.start
	}
	if c.ppid != 0 || c == p {
		return // a later record of its own said who its parent is
	}
	switch {
	case e.ChildPPID == p.pid:
		t.setPPID(c, p.pid, p.start)
		t.setParent(c, p)
	case e.ChildPPID == p.ppid: // CLONE_PARENT
		t.setPPID(c, p.ppid, p.pstart)
		t.setParent(c, t.parentOf(p))
	default:
		t.setPPID(c, e.ChildPPID, 0)
	}
}

func (t *Table) exit(e *event.Exit) bool {
	h := &e.Header
	p := t.enter(h)
	t.fill(h, p)
	if e.DurationNs == event.Missing && (!p.guessed || p.born) && p.start != 0 {
		e.DurationNs = h.NTime - min(h.NTime, p.start) // 0 is less than the clock shows
	}
	if p.exitSeen {
		return false
	}
	p.exitSeen = true
	if !p.dead {
		t.bury(p, h.NTime)
	}
	return true
}

// enter returns the entry of the process that h names, making it when there is none, and
// takes over what h says about it.
func (t *Table) enter(h *event.Header) *entry {
	p := t.findWithin(h.PID, h.Start, h.NTime, h.Within)
	switch {
	case p != nil:
	case h.Start == 0 && h.NTime != 0:
		p = t.guess(h.PID, h.NTime, false)
	default:
		p = t.add(h.PID, h.Start)
	}
	if !p.dead {
		t.running.touch(p)
	}
	t.login(p, h)
	if h.PPID != 0 && (h.PPID != p.ppid || h.PStart != 0 && h.PStart != p.pstart) {
		t.setPPID(p, h.PPID, h.PStart) // adopted since, or not known so far
	}
	return p
}

// actor is enter for a record that does not say what the process runs.
func (t *Table) actor(h *event.Header) *entry {
	p := t.enter(h)
	if p.image != nil || p.asked || p.dead {
		return p
	}
	if t.ask(p) && p.image != nil && h.TID == h.PID && h.Comm != "" && h.Comm != p.image.comm {
		// It has executed another program, or renamed itself, since the record was made:
		// what /proc says holds from now on only.
		p.since = t.now + 1
	}
	return p
}

// setPPID names p's parent; parentOf finds it when somebody needs it.
func (t *Table) setPPID(p *entry, ppid uint32, pstart uint64) {
	if q := p.parent; q != nil && (q.pid != ppid || pstart != 0 && q.start != pstart) {
		t.setParent(p, nil)
	}
	if p.ppid != ppid || pstart != 0 {
		p.pstart = pstart
	}
	p.ppid = ppid
	t.version++
	p.version = t.version
}

// fill gives h what it lacks.
func (t *Table) fill(h *event.Header, p *entry) {
	if h.Start == 0 {
		t.identify(p)
	}
	if p.start != 0 {
		h.Start = p.start // the exact one, when the record's was cut to a tick
	}
	if m := p.imageAt(h.NTime); m != nil {
		if h.Path == "" {
			h.Path = m.path
		}
		if h.Comm == "" {
			h.Comm = m.comm
		}
		t.judge(h, p, m)
	}
	if p.session.origin == unknownOrigin {
		t.settle(p, 0)
	}
	h.Origin = originNames[p.session.origin]
	if h.PPID == 0 {
		h.PPID = p.ppid
	}
	if h.PStart == 0 && h.PPID != 0 && h.PPID == p.ppid {
		h.PStart = p.pstart
		if q := t.parentOf(p); q != nil && q.start != 0 && (!q.coarse || p.coarse || p.guessed) {
			if q.guessed {
				t.identify(q)
			}
			// A start cut to a tick would name nobody once the exact one is known.
			h.PStart = q.start
		}
	}
	if h.Session == 0 {
		h.AUID, h.Session = p.auid, p.audit
	}
	if h.UID == unset {
		h.UID, h.GID, h.EUID, h.EGID = p.uid, p.gid, p.euid, p.egid
	}
	if h.TTY == "" {
		h.TTY = p.tty
	}
	if h.CgroupID == 0 && h.CgroupV1 == 0 {
		h.CgroupID, h.CgroupV1 = p.cgroup, p.cgroupV1
	}
}

// parentOf returns the entry of p's parent, or nil.
func (t *Table) parentOf(p *entry) *entry {
	if q := p.parent; q != nil && !q.gone {
		return q
	}
	if p.ppid == 0 || p.ppid == p.pid {
		return nil
	}
	q := t.find(p.ppid, p.pstart, 0)
	if p.pstart == 0 && p.start != 0 {
		// A parent, by birth or by adoption, is never younger than its child.
		for q != nil && q.start/tick > p.start/tick && (!q.guessed || q.born) {
			q = q.older
		}
	}
	switch {
	case q == nil && p.pstart != 0:
		q = t.add(p.ppid, p.pstart)
		t.ask(q)
	case q == nil:
		if t.look(p.ppid) != found || p.start != 0 && t.found.Start/tick > p.start/tick {
			return nil
		}
		q = t.seed(&t.found)
	case q.image == nil && !q.asked && !q.dead:
		t.ask(q)
	}
	if q == nil || q == p {
		return nil
	}
	t.setParent(p, q)
	return q
}
