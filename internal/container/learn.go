package container

import (
	"maps"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// maxDeclared bounds the containers that were announced and have not begun.
const maxDeclared = 1 << 10

// learn takes what a runtime says of a container; true when that is news about one that is
// there. It is known by the number of its cgroup, by the pid namespace of its processes, by
// an id that is given once only, or by the path of a cgroup that will be made.
func (t *Table) learn(e *event.Container) bool {
	f := factsOf(e)
	v1 := e.Hierarchy != 0
	var in *instance
	switch {
	case e.PIDNamespace != 0:
		n := t.ns[e.PIDNamespace]
		if e.ContainerID == "" || n == nil || n.died != 0 || n.start != 0 && e.Start != 0 && n.start != e.Start {
			return false
		}
		if in = n.in; in == nil {
			if in = t.claimed(Ref{ID: e.ContainerID, Runtime: e.Runtime}, !n.old); in == nil {
				return false
			}
			n.in = in
			t.begins(n, in, f)
		}
	case e.Cgroup != 0:
		g := t.groups[key{e.Cgroup, v1}]
		if g == nil {
			g = t.look(key{e.Cgroup, v1})
		}
		if g == nil || g.path == "" {
			return false
		}
		if in = g.in; in == nil {
			in = t.twin(e.ContainerID, g)
		}
		if in == nil {
			in = t.make(Ref{ID: e.ContainerID, Runtime: e.Runtime, PodUID: e.PodUID, Root: g.path}, g, false)
			t.settle(in, root{g.path, v1})
			t.adopt(in, root{g.path, v1})
			t.inquire(in, g)
			in.facts = f.merge(in.facts)
			t.found(in, g)
		}
		if in.ID != e.ContainerID {
			return false
		}
	case lasting(e.ContainerID):
		f = t.keep(e.ContainerID, f)
		if in = t.byID[e.ContainerID]; in == nil || in.nested {
			return false
		}
	case e.CgroupPath != "" && e.ContainerID != "":
		if len(t.declared) >= maxDeclared {
			clear(t.declared)
			t.count.facts += maxDeclared
		}
		r := Ref{ID: e.ContainerID, Runtime: e.Runtime, PodUID: e.PodUID, Root: e.CgroupPath}
		t.declared[root{e.CgroupPath, v1}] = &declaration{r, f, e.NTime}
		return false
	default:
		return false
	}
	f = f.merge(in.facts)
	if in.facts != nil && *f == *in.facts {
		return false
	}
	in.facts = f
	cgroup := e.Cgroup
	t.tell(e, event.ContainerAmend, in)
	e.Cgroup = cgroup
	return true
}

// keep remembers facts by id, and returns them with what was known before.
func (t *Table) keep(id string, f *Facts) *Facts {
	k := t.facts[id]
	if k == nil {
		k = &known{}
		t.facts[id] = k
	} else {
		f = f.merge(k.facts)
		t.factBytes -= k.facts.size()
	}
	k.facts, k.used = f, t.now
	t.factBytes += f.size()
	for t.factBytes > t.opt.MaxFactBytes || len(t.facts) > 2*t.opt.MaxContainers {
		t.forgetFacts(id)
	}
	return f
}

// forgetFacts gives up some facts, of no container that runs if there are such: the least
// lately used of a few, which is nearly as good as the least of all, and cheap.
func (t *Table) forgetFacts(except string) {
	victim, tried := "", 0
	for id, k := range t.facts {
		if id == except {
			continue
		}
		if in := t.byID[id]; in != nil && in.ended == 0 && tried < 16 {
			k.used = t.now
		}
		if victim == "" || k.used < t.facts[victim].used {
			victim = id
		}
		if tried++; tried == 24 {
			break
		}
	}
	if victim == "" {
		victim = except
	}
	t.factBytes -= t.facts[victim].facts.size()
	delete(t.facts, victim)
	t.count.facts++
}

// adopt gives the cgroups below a container's own, met before it was known, to it.
func (t *Table) adopt(in *instance, at root) {
	for k, g := range t.groups {
		if k.v1 == at.v1 && g.in == nil && g.died == 0 &&
			(g.path == at.path || strings.HasPrefix(g.path, at.path) && strings.HasPrefix(g.path[len(at.path):], "/")) {
			g.in = in
		}
	}
}

// twin finds the container of g in the other hierarchy: at the same path, under the same id.
func (t *Table) twin(id string, g *group) *instance {
	in := t.roots[root{g.path, !g.v1}]
	if in == nil || in.ID != id || in.roots[side(g.v1)] != "" {
		return nil
	}
	t.settle(in, root{g.path, g.v1})
	t.adopt(in, root{g.path, g.v1})
	return in
}

// guess makes a container of a process in a pid namespace of its own, in a cgroup whose
// path no runtime is known to make by itself.
func (t *Table) guess(g *group, r Ref, h *event.Header) *instance {
	at := root{r.Root, g.v1}
	in := t.roots[at]
	if in == nil {
		in = t.twin(r.ID, g)
	}
	if in == nil {
		in = t.make(r, g, false)
		t.settle(in, at)
		t.adopt(in, at)
		t.inquire(in, g)
		if top := t.at(at); top != nil {
			t.found(in, top)
		}
	}
	g.in = in
	return in
}

// at finds the cgroup at a path.
func (t *Table) at(at root) *group {
	for k, g := range t.groups {
		if k.v1 == at.v1 && g.died == 0 && g.path == at.path {
			return g
		}
	}
	return nil
}

// ofNamespace finds the container of a process by its pid namespace alone.
func (t *Table) ofNamespace(h *event.Header) *instance {
	n := t.ns[h.PIDNamespace]
	if n != nil && n.in != nil && n.in.gone {
		delete(t.ns, h.PIDNamespace)
		return nil
	}
	if n != nil && t.otherNamespace(n, h) {
		n = nil
	}
	if n == nil {
		n = t.namespace(h.PIDNamespace)
	}
	if h.ContainerPID == 1 {
		n.start, n.pid = h.Start, h.PID
	}
	if h.PID != 0 && n.tries < maxTries && t.now >= n.next && (n.in == nil || n.in.facts == nil || n.in.facts.Image == "") {
		// Of several processes: each may be gone before anybody has looked at it.
		if t.ask(Request{PID: h.PID, PIDNamespace: h.PIDNamespace}) {
			n.next = t.now + 1e9<<n.tries
			n.tries++
		}
	}
	return n.in
}

// begins says which process is the first of a container that was found by its pid namespace,
// and tells of its start when that came before anybody knew whose namespace it is.
func (t *Table) begins(n *namespace, in *instance, f *Facts) {
	if in.initPID != 0 || n.pid == 0 || !n.old && n.began == 0 {
		return
	}
	in.initPID, in.initStart, in.initNS, in.started = n.pid, n.start, 1, n.start
	t.join(n.pid, n.start, in)
	if !n.old {
		in.started, in.facts = n.began, f.merge(in.facts)
		t.derive(t.nobody(n.began), event.ContainerStart, in)
	}
}

// namespace enters a pid namespace anew.
func (t *Table) namespace(number uint32) *namespace {
	if len(t.ns) >= maxNamespaces {
		maps.DeleteFunc(t.ns, func(_ uint32, n *namespace) bool { return n.died != 0 })
	}
	if len(t.ns) >= maxNamespaces {
		clear(t.ns)
		t.count.containers += maxNamespaces
	}
	n := &namespace{}
	t.ns[number] = n
	return n
}

// own notes that a container's first process has made a pid namespace: whoever enters that
// without entering the cgroup (nsenter) is in the container, too.
func (t *Table) own(h *event.Header, in *instance) {
	if h.PIDNamespace != 0 && h.ContainerPID == 1 {
		n := t.namespace(h.PIDNamespace)
		n.in, n.pid, n.start = in, h.PID, h.Start
	}
}

// otherNamespace reports whether the number of a pid namespace, which the kernel gives
// again, has come to another one than n.
func (t *Table) otherNamespace(n *namespace, h *event.Header) bool {
	switch {
	case h.Start == 0:
		return false
	case h.ContainerPID == 1:
		return n.start != 0 && n.start != h.Start
	case n.died != 0:
		return h.Start > n.died
	}
	return false
}

// claimed returns an instance for an id that only a process's surroundings claim: none when
// the id is that of a container known by its cgroup.
func (t *Table) claimed(r Ref, fresh bool) *instance {
	if have := t.byID[r.ID]; have != nil && have.ended == 0 {
		if have.roots != [2]string{} {
			return nil
		}
		return have
	}
	in := t.make(r, &group{}, false)
	in.fresh = fresh
	return in
}

// monitors are where podman's and CRI-O's monitor of a container is installed. It is the
// parent of the container's first process, and its arguments name the container.
var monitors = [...]string{
	`"path":"/usr/bin/conmon","cmdline":"`, `"path":"/usr/local/bin/conmon","cmdline":"`, `"path":"/bin/conmon","cmdline":"`,
	`"path":"/usr/libexec/podman/conmon","cmdline":"`, `"path":"/usr/local/libexec/podman/conmon","cmdline":"`,
	`"path":"/usr/libexec/crio/conmon","cmdline":"`,
}

// ofMonitor finds the container of a process in a pid namespace of its own by the monitor
// above it: rootless podman leaves its containers in the cgroup that it runs in itself.
func (t *Table) ofMonitor(e *event.Exec) *instance {
	for _, m := range monitors {
		_, rest, ok := strings.Cut(e.Ancestors, m)
		if !ok {
			continue
		}
		_, rest, ok = strings.Cut(rest, " -c ")
		if !ok || len(rest) < 65 || !lasting(rest[:64]) || rest[64] != ' ' {
			return nil
		}
		n := t.ns[e.PIDNamespace]
		if n == nil || n.in != nil {
			return nil
		}
		n.in = t.claimed(Ref{ID: strings.Clone(rest[:64]), Runtime: Podman}, e.ContainerPID == 1)
		return n.in
	}
	return nil
}
