package container

import (
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// container takes what is told of cgroups and what runtimes say, and makes the rows of
// container_events of it; false when there is nothing to keep.
func (t *Table) container(e *event.Container) bool {
	at := root{e.CgroupPath, e.Hierarchy != 0}
	k := key{e.Cgroup, at.v1}
	switch e.Operation {
	case event.CgroupMkdir:
		return t.made(e, k)
	case event.CgroupRmdir:
		if g := t.groups[k]; g != nil {
			t.bury(g, e.NTime)
			at.path = g.path
		}
		return t.uproot(at, e.NTime, e)
	case event.CgroupRename:
		return t.renamed(e, k)
	case event.ContainerAmend:
		return t.learn(e)
	}
	return true // already what it should be
}

// made takes a new cgroup; true when a container begins with it.
func (t *Table) made(e *event.Container, k key) bool {
	g := t.groups[k]
	if g != nil && g.died == 0 && (g.path == e.CgroupPath || e.CgroupPath == "") {
		g.born = e.NTime // found at a look around, before its record was read
	} else {
		if e.CgroupPath == "" { // the kernel does not tell (before 4.19)
			if g = t.look(k); g != nil {
				g.born = e.NTime
			}
		} else {
			g = t.add(k, e.CgroupPath, e.NTime)
		}
	}
	if g == nil || g.in == nil || g.path != g.in.roots[side(k.v1)] || g.in.created {
		return false
	}
	g.in.created, g.in.fresh = true, true
	t.tell(e, event.ContainerCreate, g.in)
	e.Cgroup = k.id
	return true
}

// renamed follows a cgroup of v1 to its other name. A container keeps what it was called
// when its cgroup was made.
func (t *Table) renamed(e *event.Container, k key) bool {
	g := t.groups[k]
	if g == nil || g.path == "" || e.CgroupPath == "" {
		return false
	}
	was := root{g.path, k.v1}
	g.path = e.CgroupPath
	in := t.roots[was]
	if in == nil {
		return false
	}
	delete(t.roots, was)
	t.settle(in, root{g.path, k.v1})
	t.tell(e, event.ContainerRename, in)
	e.CgroupPath, e.Cgroup = g.path, k.id
	return true
}

// uproot takes a container's own cgroup away from it. With the last one it has ended; when
// nobody said so before, e does (nil: another event of its own does).
func (t *Table) uproot(at root, when uint64, e *event.Container) bool {
	in := t.roots[at]
	if in == nil {
		return false
	}
	delete(t.roots, at)
	in.roots[side(at.v1)] = ""
	if in.roots[0] != "" || in.roots[1] != "" || in.ended != 0 {
		return false
	}
	in.ended = max(when, 1)
	delete(t.alive, in)
	t.over = append(t.over, in)
	if in.stopped {
		return false
	}
	in.stopped = true
	if e == nil {
		t.derive(t.nobody(when), event.ContainerStop, in)
		return false
	}
	t.tell(e, event.ContainerStop, in)
	e.DurationNs = in.since(when)
	return true
}

// nobody is the header of a step that was found out afterwards: no process is known.
func (t *Table) nobody(when uint64) *event.Header {
	h := &event.Header{Kind: event.KindContainer, Time: t.wall, NTime: when, Source: "ebpf", Fidelity: event.FidelityState, BootID: t.opt.BootID}
	if when != 0 && when < t.now {
		h.Time -= int64(t.now - when)
	}
	h.UID, h.GID, h.EUID, h.EGID, h.AUID, h.Session = unset, unset, unset, unset, unset, unset
	return h
}

// found tells of the making of a container whose cgroup was made before anybody knew that it
// is one: runc, crun and ctr take any path.
func (t *Table) found(in *instance, g *group) {
	if g.born == 0 || in.created || g.path != in.roots[side(g.v1)] {
		return
	}
	in.created = true
	t.derive(t.nobody(g.born), event.ContainerCreate, in).Cgroup = g.id
}

// unset is the kernel's (uid_t)-1: no user is known, nobody logged in.
const unset = 1<<32 - 1

// since is how long the container has run at a time; 0 when its start was not seen.
func (in *instance) since(when uint64) uint64 {
	if in.started == 0 || when < in.started {
		return 0
	}
	return when - in.started
}

// tell makes e a step in the life of in.
func (t *Table) tell(e *event.Container, operation string, in *instance) {
	e.Operation = operation
	describe(e, &in.Ref, in.facts)
	in.fill(&e.Header)
}

// derive makes an event of a step that followed from another, whose header it bears.
func (t *Table) derive(h *event.Header, operation string, in *instance) *event.Container {
	e := &event.Container{Header: *h}
	e.Kind, e.EID = event.KindContainer, 0
	t.tell(e, operation, in)
	if t.opt.Rows {
		t.derived = append(t.derived, e)
	}
	return e
}

// exec completes a program started in a container, and sees whether the container begins
// with it, or somebody has come in from outside.
func (t *Table) exec(e *event.Exec, in *instance) {
	e.NotInImage = e.UpperLayer || e.OtherMount
	if f := in.facts; f != nil {
		e.Confinement = f.Confinement
		if f.RootPath != "" && !e.OtherMount && len(e.Path) > 0 && e.Path[0] == '/' {
			e.HostPath = f.RootPath + e.Path
		}
	}
	h := &e.Header
	isMember := t.isMember(h.PID, h.Start, in)
	parentIs := t.isMember(h.PPID, h.PStart, in)
	if h.PIDNamespace == 0 && byDescriptor(e) && (in.initPID == 0 || !isMember && !parentIs) {
		return // the runtime on its way in: what it executes next, or its child does, is the container's
	}
	t.join(h.PID, h.Start, in)
	// systemd-nspawn is in the scope itself, and is executed there first.
	supervised := in.Runtime == Nspawn && in.initPID != 0 && in.initNS == 0
	switch {
	case in.initPID == 0 && (in.fresh || h.ContainerPID == 1), (in.initNS > 1 || supervised) && h.ContainerPID == 1:
		first := in.initPID == 0
		in.initPID, in.initStart, in.initNS = h.PID, h.Start, h.ContainerPID
		t.own(h, in)
		if first && in.fresh {
			in.started = h.NTime
			t.derive(h, event.ContainerStart, in).Args = e.Args
		}
	case in.initPID == 0 && !(h.ContainerPID > 1 && e.Entered), isMember, parentIs, h.PIDNamespace != 0 && !e.Entered:
	default:
		t.derive(h, event.ContainerExec, in).Args = e.Args
	}
}

// byDescriptor reports whether a program was executed from an open file, as runc and crun
// execute a copy of themselves that a container cannot write to.
func byDescriptor(e *event.Exec) bool {
	return e.Filename == "/proc/self/exe" || strings.HasPrefix(e.Filename, "/dev/fd/") || strings.HasPrefix(e.Filename, "/proc/self/fd/")
}

// fork makes the child of a container's process one, too.
func (t *Table) fork(e *event.Fork, in *instance) {
	if t.isMember(e.PID, e.Start, in) {
		t.join(e.ChildPID, e.ChildStart, in)
	}
}

// exit ends the container with its first process.
func (t *Table) exit(e *event.Exit, in *instance) {
	delete(t.members, e.PID)
	if n := t.ns[e.PIDNamespace]; n != nil && e.ContainerPID == 1 {
		n.died = e.NTime
	}
	if in.stopped || e.PID != in.initPID || e.Start != in.initStart {
		return
	}
	in.stopped = true
	c := t.derive(&e.Header, event.ContainerStop, in)
	c.Ended = (uint32(e.ExitCode)<<8 | uint32(e.Signal)) + 1
	c.DurationNs = in.since(e.NTime)
	if in.roots == [2]string{} && in.ended == 0 { // nothing else will tell of its end
		in.ended = max(e.NTime, 1)
		delete(t.alive, in)
		t.over = append(t.over, in)
	}
}

// isMember reports whether a process is known to be in a container.
func (t *Table) isMember(pid uint32, start uint64, in *instance) bool {
	m, ok := t.members[pid]
	return ok && m.in == in && (m.start == start || start == 0 || m.start == 0)
}

// join notes that a process is in a container.
func (t *Table) join(pid uint32, start uint64, in *instance) {
	if pid == 0 {
		return
	}
	if _, ok := t.members[pid]; !ok && len(t.members) >= maxMembers {
		t.count.members++
		for k := range t.members {
			delete(t.members, k)
			break
		}
	}
	t.members[pid] = member{start, in}
}
