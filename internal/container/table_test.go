package container

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// play hands events to a table and writes down what it makes of them.
type play struct {
	t     *testing.T
	table *Table
	asked []Request
	now   uint64
	rows  []string // steps in containers' lives
}

func newPlay(t *testing.T, opt Options) *play {
	p := &play{t: t, now: 1e9}
	opt.Rows = true
	opt.Ask = func(q Request) bool { p.asked = append(p.asked, q); return true }
	p.table = NewTable(opt)
	return p
}

// proc is a process: where it is, and what it is called there.
type proc struct {
	pid, ppid uint32
	cgroup    uint64
	v1        uint64
	ns, nspid uint32
	entered   bool
	ancestors string
	upper     bool
	filename  string
}

func (p *play) head(kind event.ID, c proc) event.Header {
	p.now += 1e6
	h := event.Header{Kind: kind, NTime: p.now, Time: int64(p.now), PID: c.pid, TID: c.pid, PPID: c.ppid,
		CgroupID: c.cgroup, CgroupV1: c.v1, PIDNamespace: c.ns, ContainerPID: c.nspid, Path: "/bin/app"}
	h.Start, h.PStart = uint64(c.pid)*1000, uint64(c.ppid)*1000
	return h
}

// give completes one event, notes the rows that follow, and returns the event's container
// as "id name image".
func (p *play) give(e event.Event) string {
	keep := p.table.Complete(e)
	note := func(c *event.Container) {
		row := c.Operation + " " + short(c.ContainerID)
		for _, s := range []string{c.ContainerName, c.Image, c.PodName} {
			if s != "" {
				row += " " + s
			}
		}
		if c.Ended != 0 {
			row += fmt.Sprintf(" status=%d", c.Ended-1)
		}
		if c.Args != "" {
			row += " " + strings.ReplaceAll(strings.TrimSuffix(c.Args, "\x00"), "\x00", " ")
		}
		p.rows = append(p.rows, row)
	}
	if c, ok := e.(*event.Container); ok && keep {
		note(c)
	}
	for _, d := range p.table.Derived() {
		note(d.(*event.Container))
	}
	h := e.Head()
	return strings.TrimSpace(strings.Join([]string{short(h.ContainerID), h.ContainerName, h.Image}, " "))
}

func short(id string) string {
	if lasting(id) {
		return id[:4]
	}
	return id
}

func (p *play) mkdir(id uint64, path string) string { return p.mkdirIn(0, id, path) }

func (p *play) mkdirIn(hierarchy uint32, id uint64, path string) string {
	return p.give(&event.Container{Header: p.head(event.KindContainer, proc{pid: 9}), Operation: event.CgroupMkdir, Cgroup: id, CgroupPath: path, Hierarchy: hierarchy})
}

func (p *play) rmdir(id uint64, path string) { p.rmdirIn(0, id, path) }

func (p *play) rmdirIn(hierarchy uint32, id uint64, path string) {
	p.give(&event.Container{Header: p.head(event.KindContainer, proc{pid: 9}), Operation: event.CgroupRmdir, Cgroup: id, CgroupPath: path, Hierarchy: hierarchy})
}

func (p *play) exec(c proc, args ...string) string {
	return p.give(&event.Exec{Header: p.head(event.KindExec, c), Args: strings.Join(args, "\x00") + "\x00", Entered: c.entered, Ancestors: c.ancestors, UpperLayer: c.upper, Filename: c.filename})
}

func (p *play) fork(c proc, child uint32) string {
	return p.give(&event.Fork{Header: p.head(event.KindFork, c), ChildPID: child, ChildStart: uint64(child) * 1000})
}

func (p *play) exit(c proc, code int32) string {
	return p.give(&event.Exit{Header: p.head(event.KindExit, c), ExitCode: code})
}

func (p *play) facts(e event.Container) string {
	e.Header.Kind, e.Operation = event.KindContainer, event.ContainerAmend
	p.now += 1e6
	e.NTime = p.now
	return p.give(&e)
}

// docker's answer about a container.
func (p *play) docker(id, name, image string) {
	p.facts(event.Container{Header: event.Header{ContainerID: id, ContainerName: name, Image: image}, ImageID: "sha256:1", Runtime: Docker})
}

func (p *play) want(rows ...string) {
	p.t.Helper()
	if diff := cmp.Diff(rows, p.rows); diff != "" {
		p.t.Errorf("rows (-want +got):\n%s", diff)
	}
	p.rows = nil
}

func (p *play) is(what, want, got string) {
	p.t.Helper()
	if want != got {
		p.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

const path1 = "/docker/" + id1

func TestLife(t *testing.T) {
	p := newPlay(t, Options{})
	p.is("create", "0123", p.mkdir(7, path1))
	init := proc{pid: 100, ppid: 50, cgroup: 7, ns: 4026, nspid: 1, entered: true}
	p.is("before", "", p.exec(proc{pid: 99, cgroup: 1}, "runc"))
	p.is("first", "0123", p.exec(init, "sh", "-c", "x"))
	p.is("again", "0123", p.exec(init, "app"))
	p.is("fork", "0123", p.fork(init, 101))
	child := proc{pid: 101, ppid: 100, cgroup: 7, ns: 4026, nspid: 2}
	p.is("child", "0123", p.exec(child, "date"))
	p.is("child's end", "0123", p.exit(child, 0))
	session := proc{pid: 200, ppid: 50, cgroup: 7, ns: 4026, nspid: 9, entered: true}
	p.is("session", "0123", p.exec(session, "id"))
	p.is("session's own", "0123", p.exec(proc{pid: 201, ppid: 200, cgroup: 7, ns: 4026, nspid: 10}, "ls"))
	p.docker(id1, "web", "nginx:1")
	p.is("named", "0123 web nginx:1", p.exec(child, "date"))
	p.docker(id1, "web", "nginx:1")
	p.is("end", "0123 web nginx:1", p.exit(init, 3))
	p.rmdir(7, path1)
	p.is("late", "0123 web nginx:1", p.exit(child, 0))
	p.want("create 0123", "start 0123 sh -c x", "exec 0123 id", "amend 0123 web nginx:1", "stop 0123 web nginx:1 status=768")
	if len(p.asked) != 1 || p.asked[0].ID != id1 || p.asked[0].Runtime != Docker || p.asked[0].Cgroup != 7 {
		t.Errorf("asked %+v", p.asked)
	}
	p.now += 2 * grace
	p.is("much later", "", p.exit(child, 0))
	if n, g := p.table.Len(); n != 0 || g != 0 {
		t.Errorf("%d containers and %d cgroups are still known", n, g)
	}
}

// What the runtime said before the cgroup was made is there from the first event on.
func TestFactsComeFirst(t *testing.T) {
	p := newPlay(t, Options{})
	p.docker(id1, "web", "nginx:1")
	p.is("create", "0123 web nginx:1", p.mkdir(7, path1))
	p.is("exec", "0123 web nginx:1", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.want("create 0123 web nginx:1", "start 0123 web nginx:1 a")
	if len(p.asked) > 0 {
		t.Errorf("asked %+v for what is known", p.asked)
	}
}

// A container that is over before its runtime has answered gets its name all the same.
func TestShortLife(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	init := proc{pid: 100, cgroup: 7, ns: 5, nspid: 1}
	p.exec(init, "true")
	p.exit(init, 0)
	p.rmdir(7, path1)
	p.docker(id1, "job", "batch:2")
	p.want("create 0123", "start 0123 true", "stop 0123 status=0", "amend 0123 job batch:2")
}

// On a hybrid or v1 host one container has two cgroups, of which records bear one or both.
func TestBothHierarchies(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdirIn(5, 70, path1)
	p.mkdir(7, path1)
	p.mkdirIn(5, 71, "/docker/"+id2)
	p.is("v1", "0123", p.exec(proc{pid: 1, cgroup: 1, v1: 70}, "a"))
	p.is("v2", "0123", p.exec(proc{pid: 1, cgroup: 7, v1: 1}, "a"))
	p.is("v1 alone", "fedc", p.exec(proc{pid: 2, cgroup: 1, v1: 71}, "b"))
	p.is("host", "", p.exec(proc{pid: 3, cgroup: 1, v1: 1}, "c"))
	p.rmdirIn(5, 70, path1)
	p.is("one is left", "0123", p.exec(proc{pid: 1, cgroup: 7, v1: 1}, "a"))
	p.rmdir(7, path1)
	p.want("create 0123", "create fedc", "start 0123 a", "start fedc b", "stop 0123")
	p.rmdirIn(5, 71, "/docker/"+id2)
	p.want("stop fedc")
}

// The number of a cgroup comes again, its removal having been missed; the events of both
// containers stay apart.
func TestNumberIsUsedAgain(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	late := event.Exec{Header: p.head(event.KindExec, proc{pid: 1, cgroup: 7})}
	p.mkdir(7, "/docker/"+id2)
	p.is("new", "fedc", p.exec(proc{pid: 2, cgroup: 7}, "b"))
	p.is("old", "0123", p.give(&late))
	p.rmdir(7, "/docker/"+id2)
	p.is("host's cgroup of the same number", "", p.mkdir(7, "/system.slice/a.service"))
	p.is("its process", "", p.exec(proc{pid: 3, cgroup: 7}, "c"))
}

func TestRestart(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	p.docker(id1, "web", "nginx:1")
	p.exec(proc{pid: 1, cgroup: 7}, "a")
	p.rmdir(7, path1)
	p.mkdir(8, path1)
	p.is("second life", "0123 web nginx:1", p.exec(proc{pid: 2, cgroup: 8}, "a"))
	p.want("create 0123", "amend 0123 web nginx:1", "start 0123 web nginx:1 a", "stop 0123 web nginx:1",
		"create 0123 web nginx:1", "start 0123 web nginx:1 a")
}

// An id that somebody chose is given again, to another image.
func TestNameIsUsedAgain(t *testing.T) {
	p := newPlay(t, Options{})
	about := func(image string, cgroup uint64) {
		p.facts(event.Container{Header: event.Header{ContainerID: "c1", ContainerName: "c1", Image: image}, Runtime: Containerd, CgroupPath: "/default/c1", Cgroup: cgroup})
	}
	about("one", 0)
	p.is("create", "c1 c1 one", p.mkdir(7, "/default/c1"))
	p.exec(proc{pid: 1, cgroup: 7}, "a")
	// The next is announced before the removal of the first was read.
	about("two", 0)
	p.is("the first, still", "c1 c1 one", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.rmdir(7, "/default/c1")
	p.is("create", "c1 c1 two", p.mkdir(8, "/default/c1"))
	p.is("second", "c1 c1 two", p.exec(proc{pid: 2, cgroup: 8}, "b"))
	p.is("first, late", "c1 c1 one", p.exit(proc{pid: 1, cgroup: 7}, 0))
	about("three", 8) // found by the number of its cgroup
	p.is("second", "c1 c1 three", p.exec(proc{pid: 2, cgroup: 8}, "b"))
	about("four", 7) // which has gone, and is not given again
	p.is("second", "c1 c1 three", p.exec(proc{pid: 2, cgroup: 8}, "b"))
}

// A runtime that may be told any path, and a process in a pid namespace of its own.
func TestGuessed(t *testing.T) {
	p := newPlay(t, Options{})
	p.is("mkdir", "", p.mkdir(7, "/ct-runc"))
	init := proc{pid: 100, cgroup: 7, ns: 5, nspid: 1, entered: true}
	p.is("no namespace", "", p.exec(proc{pid: 90, cgroup: 7}, "runc"))
	p.is("exec", "ct-runc ct-runc", p.exec(init, "sh"))
	p.mkdir(8, "/ct-runc/system.slice")
	p.is("below", "ct-runc ct-runc", p.exec(proc{pid: 101, ppid: 100, cgroup: 8, ns: 5, nspid: 2}, "sh"))
	p.is("a unit is none", "", p.exec(proc{pid: 300, cgroup: 9, ns: 6, nspid: 1}, "sh"))
	p.mkdir(9, "/user.slice/app.scope")
	p.is("a unit is none", "", p.exec(proc{pid: 300, cgroup: 9, ns: 6, nspid: 1}, "sh"))
	p.facts(event.Container{Header: event.Header{ContainerID: "ct-runc", Image: "shop"}, Runtime: Runc, Cgroup: 7, CgroupPath: "/ct-runc"})
	p.is("named", "ct-runc ct-runc shop", p.exec(init, "sh"))
	p.want("create ct-runc ct-runc", "start ct-runc ct-runc sh", "amend ct-runc ct-runc shop")
	p.mkdirIn(5, 70, "/ct-runc")
	p.facts(event.Container{Header: event.Header{ContainerID: "ct-runc", Image: "shop"}, Runtime: Runc, Cgroup: 70, Hierarchy: 5, CgroupPath: "/ct-runc"})
	p.want() // no news about the same container in the other hierarchy
	p.is("by v1", "ct-runc ct-runc shop", p.exec(proc{pid: 100, cgroup: 1, v1: 70}, "sh"))
	p.rmdir(7, "/ct-runc")
	p.rmdirIn(5, 70, "/ct-runc")
	p.want("stop ct-runc ct-runc shop")
}

// runc and crun execute a copy of themselves in the container's cgroup before they enter its
// pid namespace, if it has one: neither is that the container's start, nor its end the stop.
func TestRuntimeComesIn(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	runc := proc{pid: 90, ppid: 80, cgroup: 7, filename: "/dev/fd/6"}
	p.exec(runc, "runc", "init")
	p.exec(proc{pid: 91, ppid: 80, cgroup: 7, ns: 5, nspid: 1, entered: true}, "sh")
	p.exit(runc, 0)
	runc.pid = 95
	p.exec(runc, "runc", "init")
	p.exec(proc{pid: 96, ppid: 80, cgroup: 7, ns: 5, nspid: 9, entered: true}, "top")
	p.exit(runc, 0)
	p.exit(proc{pid: 91, ppid: 80, cgroup: 7, ns: 5, nspid: 1}, 3)
	p.want("create 0123", "start 0123 sh", "exec 0123 top", "stop 0123 status=768")
	// With the host's pid namespace it becomes what it starts.
	p.mkdir(8, "/docker/"+id2)
	runc = proc{pid: 190, ppid: 80, cgroup: 8, filename: "/proc/self/exe"}
	p.exec(runc, "runc", "init")
	p.exec(proc{pid: 190, ppid: 80, cgroup: 8}, "agent")
	runc.pid = 195
	p.exec(runc, "runc", "init")
	p.exec(proc{pid: 195, ppid: 80, cgroup: 8}, "sh")
	p.exit(proc{pid: 190, cgroup: 8}, 0)
	p.want("create fedc", "start fedc agent", "exec fedc sh", "stop fedc status=0")
}

// Whoever enters a container's pid namespace is in the container, whatever the cgroup.
func TestNsenter(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	init := proc{pid: 91, ppid: 80, cgroup: 7, ns: 5, nspid: 1, entered: true}
	p.exec(init, "sh")
	guest := proc{pid: 200, ppid: 199, cgroup: 1, ns: 5, nspid: 30, entered: true}
	p.mkdir(1, "/")
	p.is("guest", "0123", p.exec(guest, "sh"))
	p.is("guest's child", "0123", p.exec(proc{pid: 201, ppid: 200, cgroup: 1, ns: 5, nspid: 31}, "id"))
	p.exit(init, 0)
	p.want("create 0123", "start 0123 sh", "exec 0123 sh", "stop 0123 status=0")
	// The number of the namespace comes again.
	p.is("another", "", p.exec(proc{pid: 300, cgroup: 1, ns: 5, nspid: 1, entered: true}, "unshare"))
	for i := range uint32(3000) { // and what is over makes room
		first := proc{pid: 1000 + i, ppid: 80, cgroup: 7, ns: 1000 + i, nspid: 1, entered: true}
		p.mkdir(uint64(10000+i), fmt.Sprintf("/docker/%064x", i))
		first.cgroup = uint64(10000 + i)
		p.exec(first, "sh")
		p.exit(first, 0)
	}
	if n := len(p.table.ns); n > maxNamespaces || p.table.count.containers != 0 {
		t.Errorf("%d namespaces, %d given up", n, p.table.count.containers)
	}
}

// systemd-nspawn is the first program in its scope, and not the container's first process: that
// is the first of a pid namespace, with which it ends, and by which who comes in is known.
func TestNspawn(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(1, "/")
	p.mkdir(7, `/machine.slice/machine-web\x2d1.scope`)
	above := proc{pid: 50, ppid: 9, cgroup: 7}
	p.exec(above, "systemd-nspawn")
	first := proc{pid: 60, ppid: 50, cgroup: 7, ns: 9, nspid: 1, entered: true}
	p.exec(first, "entry")
	p.is("child", "web-1 web-1", p.exec(proc{pid: 61, ppid: 60, cgroup: 7, ns: 9, nspid: 2}, "true"))
	p.is("guest", "web-1 web-1", p.exec(proc{pid: 200, ppid: 199, cgroup: 1, ns: 9, nspid: 30, entered: true}, "sh"))
	p.exit(first, 7)
	p.exit(above, 0)
	p.want("create web-1 web-1", "start web-1 web-1 systemd-nspawn", "exec web-1 web-1 sh", "stop web-1 web-1 status=1792")
}

// A container that ctr has announced is one, although it has a cgroup in two hierarchies.
func TestDeclaredInBoth(t *testing.T) {
	p := newPlay(t, Options{})
	for _, hierarchy := range []uint32{0, 5} {
		p.facts(event.Container{Header: event.Header{ContainerID: "c1", Image: "shop"}, Runtime: Containerd, Hierarchy: hierarchy, CgroupPath: "/default/c1"})
	}
	p.mkdirIn(5, 70, "/default/c1")
	p.mkdir(7, "/default/c1")
	p.exec(proc{pid: 91, ppid: 80, cgroup: 7, v1: 70, ns: 5, nspid: 1, entered: true}, "sh")
	p.exit(proc{pid: 91, ppid: 80, cgroup: 7, v1: 70, ns: 5, nspid: 1}, 3)
	p.rmdir(7, "/default/c1")
	p.rmdirIn(5, 70, "/default/c1")
	p.want("create c1 shop", "start c1 shop sh", "stop c1 shop status=768")
}

// A container in the host's pid namespace, at a path that says nothing: the runtime's own
// records tell of it, by the number of its cgroup.
func TestDeclaredByNumber(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, "/x/y")
	p.is("not told yet", "", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.facts(event.Container{Header: event.Header{ContainerID: "y1"}, Runtime: Crun, Cgroup: 7})
	p.want("create y1 y1")
	p.is("told", "y1 y1", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.mkdir(8, "/x/y/sub")
	p.is("below", "y1 y1", p.exec(proc{pid: 1, cgroup: 8}, "a"))
	p.is("beside", "", p.mkdir(9, "/x/yz"))
	p.rmdir(7, "/x/y")
	p.is("gone", "", p.mkdir(10, "/x/y"))
}

// Whoever may make cgroups inside a container cannot pass for another.
func TestImpostor(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	p.docker(id1, "evil", "x")
	p.mkdir(8, "/docker/"+id2)
	p.docker(id2, "bank", "y")
	p.mkdir(9, path1+"/docker/"+id2)
	p.is("impostor", "0123 evil x", p.exec(proc{pid: 1, cgroup: 9}, "a"))
	p.is("the real one", "fedc bank y", p.exec(proc{pid: 2, cgroup: 8}, "b"))
	// Before the real one is there, it is a container of its own, without a name.
	p = newPlay(t, Options{})
	p.mkdir(7, path1)
	p.docker(id1, "evil", "x")
	p.mkdir(9, path1+"/docker/"+id2)
	p.is("nested", "fedc", p.exec(proc{pid: 1, cgroup: 9}, "a"))
	p.mkdir(8, "/docker/"+id2)
	p.docker(id2, "bank", "y")
	p.is("nested, still", "fedc", p.exec(proc{pid: 1, cgroup: 9}, "a"))
	p.is("the real one", "fedc bank y", p.exec(proc{pid: 2, cgroup: 8}, "b"))
	for _, q := range p.asked {
		if strings.HasPrefix(q.Root, path1+"/") {
			t.Errorf("asked about what runs inside a container: %+v", q)
		}
	}
}

func conmon(id string) string {
	return `[{"pid":9,"path":"/usr/bin/conmon","cmdline":"/usr/bin/conmon --api-version 1 -c ` + id + ` -u ` + id + ` -r /usr/bin/crun"}]`
}

// Rootless podman leaves everything in the root cgroup.
func TestByNamespace(t *testing.T) {
	p := newPlay(t, Options{})
	init := proc{pid: 100, ppid: 9, cgroup: 1, ns: 4026, nspid: 1, entered: true, ancestors: conmon(id1)}
	p.mkdir(1, "/")
	p.is("first", "0123", p.exec(init, "sh"))
	p.is("child", "0123", p.exec(proc{pid: 101, ppid: 100, cgroup: 1, ns: 4026, nspid: 2}, "date"))
	p.is("no namespace", "", p.exec(proc{pid: 102, cgroup: 1, ancestors: conmon(id1)}, "x"))
	p.facts(event.Container{Header: event.Header{ContainerID: id1, ContainerName: "mine", PIDNamespace: 4026}, Runtime: Podman})
	p.is("named", "0123 mine", p.exec(init, "sh"))
	p.is("end", "0123 mine", p.exit(init, 1))
	p.is("child's end", "0123 mine", p.exit(proc{pid: 101, cgroup: 1, ns: 4026, nspid: 2}, 0))
	p.want("start 0123 sh", "amend 0123 mine", "stop 0123 mine status=256")
	// The number of the namespace comes again.
	p.is("another", "", p.exec(proc{pid: 200, cgroup: 1, ns: 4026, nspid: 1, entered: true}, "unshare"))
	p.is("the answer to an old question", "", strings.TrimPrefix(p.facts(event.Container{
		Header: event.Header{ContainerID: id2, PIDNamespace: 4026, Start: 100000}, Runtime: Podman}), "fedc"))
	p.is("another", "", p.exec(proc{pid: 200, cgroup: 1, ns: 4026, nspid: 1, entered: true}, "unshare"))
	p.want()
	// Whoever was asked about may be gone when somebody looks: later ones are asked about, too,
	// until the answer comes.
	p.asked = nil
	for i := range uint32(10) {
		p.now += 1e9
		p.exec(proc{pid: 500 + i, cgroup: 1, ns: 4030, nspid: 10 + i, entered: true}, "date")
	}
	p.is("asked", "500 501 503 507", fmt.Sprint(p.askedAbout(4030)...))
	p.facts(event.Container{Header: event.Header{ContainerID: id1, ContainerName: "late", Image: "busybox", PIDNamespace: 4030}, Runtime: Podman})
	p.now += 100e9
	p.is("answered", "0123 late busybox", p.exec(proc{pid: 600, cgroup: 1, ns: 4030, nspid: 30, entered: true}, "date"))
	p.is("asked", "500 501 503 507", fmt.Sprint(p.askedAbout(4030)...))
	// One that ran before anybody knew ends with its first process.
	p.rows = nil
	first := proc{pid: 700, cgroup: 1, ns: 4031, nspid: 1}
	seed := &event.Exec{Header: p.head(event.KindExec, first)}
	p.table.Seed(seed)
	p.facts(event.Container{Header: event.Header{ContainerID: id3, ContainerName: "old", Image: "busybox", PIDNamespace: 4031}, Runtime: Podman})
	p.exec(proc{pid: 710, ppid: 9, cgroup: 1, ns: 4031, nspid: 20, entered: true}, "top")
	p.exit(first, 7)
	p.want("amend 5555 old busybox", "exec 5555 old busybox top", "stop 5555 old busybox status=1792")
	// The answer may come before the first program is executed, since runc forks in the new
	// namespace, and after it. It has started then, all the same, and once.
	early := proc{pid: 800, ppid: 9, cgroup: 1, ns: 4032, nspid: 1, entered: true}
	p.fork(early, 801)
	answer := func(id string, ns uint32) {
		p.facts(event.Container{Header: event.Header{ContainerID: id, ContainerName: "new", Image: "busybox", PIDNamespace: ns}, Runtime: Podman})
	}
	id4, id5 := strings.Repeat("4", 64), strings.Repeat("6", 64)
	answer(id4, 4032)
	p.exec(early, "sh")
	p.exit(early, 0)
	p.want("amend 4444 new busybox", "start 4444 new busybox sh", "stop 4444 new busybox status=0")
	late := proc{pid: 810, ppid: 9, cgroup: 1, ns: 4033, nspid: 1, entered: true}
	p.fork(late, 811)
	p.exec(late, "sh")
	answer(id5, 4033)
	p.exec(late, "sh")
	p.exit(late, 0)
	p.want("start 6666 new busybox", "stop 6666 new busybox status=0")
	// A claim to be a container that is known by its cgroup is not believed.
	p.mkdir(7, "/docker/"+id2)
	p.is("claim", "", p.exec(proc{pid: 300, cgroup: 1, ns: 4027, nspid: 1, entered: true, ancestors: conmon(id2)}, "sh"))
	p.is("a program that calls itself conmon", "", p.exec(proc{pid: 400, cgroup: 1, ns: 4028, nspid: 1,
		ancestors: strings.ReplaceAll(conmon(id1), "/usr/bin", "/tmp")}, "sh"))
}

// askedAbout are the processes of a pid namespace that were asked about.
func (p *play) askedAbout(ns uint32) (pids []any) {
	for _, q := range p.asked {
		if q.PIDNamespace == ns {
			pids = append(pids, q.PID)
		}
	}
	return pids
}

func TestNotInImage(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	p.facts(event.Container{Header: event.Header{ContainerID: id1}, RootPath: "/var/lib/docker/overlay2/x/merged",
		Confinement: event.Confinement{Privileged: event.Yes, HostNamespaces: "pid"}})
	for _, tt := range []struct {
		e    event.Exec
		in   bool
		path string
	}{
		{event.Exec{}, false, "/var/lib/docker/overlay2/x/merged/bin/app"},
		{event.Exec{UpperLayer: true}, true, "/var/lib/docker/overlay2/x/merged/bin/app"},
		{event.Exec{OtherMount: true}, true, ""},
	} {
		for _, cgroup := range []uint64{7, 1} {
			e := tt.e
			e.Header = p.head(event.KindExec, proc{pid: 1, cgroup: cgroup})
			p.give(&e)
			want := tt.e
			want.Header = e.Header
			if cgroup == 7 {
				want.NotInImage, want.HostPath = tt.in, tt.path
				want.Confinement = event.Confinement{Privileged: event.Yes, HostNamespaces: "pid"}
			}
			if diff := cmp.Diff(want, e); diff != "" {
				t.Errorf("cgroup %d: %s", cgroup, diff)
			}
		}
	}
}

// A file has the path at which the container sees it, when it is below its root.
func TestContainerPath(t *testing.T) {
	p := newPlay(t, Options{})
	p.mkdir(7, path1)
	p.facts(event.Container{Header: event.Header{ContainerID: id1}, RootPath: "/var/lib/docker/overlay2/x/merged"})
	for path, want := range map[string]string{
		"/var/lib/docker/overlay2/x/merged/etc/passwd": "/etc/passwd", "/var/lib/docker/overlay2/x/merged": "", "/var/lib/docker/overlay2/x/merged2/a": "",
		"/etc/passwd": "", "": "",
	} {
		for cgroup, want := range map[uint64]string{7: want, 1: ""} {
			e := event.File{Header: p.head(event.KindFile, proc{pid: 1, cgroup: cgroup}), TargetPath: path}
			p.give(&e)
			if e.ContainerPath != want {
				t.Errorf("cgroup %d, %q: %q, want %q", cgroup, path, e.ContainerPath, want)
			}
		}
	}
}

// Two hundred thousand containers, one after the other and many at once: the table stays
// small, and no event goes to another's container.
func TestBounds(t *testing.T) {
	p := newPlay(t, Options{MaxGroups: 500, MaxContainers: 200, MaxFactBytes: 64 << 10})
	id := func(n int) string { return fmt.Sprintf("%064x", n) }
	const total, running = 20_000, 300 // more than there is room for
	for n := range total {
		p.mkdir(uint64(n+2), "/docker/"+id(n))
		p.docker(id(n), fmt.Sprint("c", n), "i")
		at := max(0, n-n%running)
		for _, m := range []int{n, at} {
			e := event.Exec{Header: p.head(event.KindExec, proc{pid: uint32(m + 10), cgroup: uint64(m + 2)})}
			p.give(&e)
			if e.ContainerID != "" && e.ContainerID != id(m) {
				t.Fatalf("process of container %d went to %s", m, e.ContainerID)
			}
			if m == n && e.ContainerName != fmt.Sprint("c", n) {
				t.Fatalf("container %d is called %q", n, e.ContainerName)
			}
		}
		if n >= running {
			p.rmdir(uint64(n-running+2), "/docker/"+id(n-running))
		}
		p.rows, p.asked = nil, nil
		c, g := p.table.Len()
		if c > 200 || g > 500 || p.table.factBytes > 64<<10 || len(p.table.facts) > 400 || len(p.table.members) > maxMembers {
			t.Fatalf("after %d: %d containers, %d cgroups, %d bytes of facts", n, c, g, p.table.factBytes)
		}
	}
	for _, c := range p.table.Counts() {
		if (c.Reason == "containers" || c.Reason == "metadata") && c.N == 0 {
			t.Errorf("%s: nothing is counted", c.Reason)
		}
	}
	sum := 0
	for _, k := range p.table.facts {
		sum += k.facts.size()
	}
	if sum != p.table.factBytes {
		t.Errorf("%d bytes of facts are counted, there are %d", p.table.factBytes, sum)
	}
}

func TestRowsAreNotWanted(t *testing.T) {
	table := NewTable(Options{})
	p := &play{t: t, table: table, now: 1}
	p.mkdir(7, path1)
	p.is("exec", "0123", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.docker(id1, "web", "i")
	p.is("exec", "0123 web i", p.exec(proc{pid: 1, cgroup: 7}, "a"))
	p.want()
}

// With this kernel's own cgroups: what was there before the table is found by its number,
// and what is gone is not.
func TestLooksUpCgroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	all, err := procfs.At("").Hierarchies()
	if err != nil || len(all) == 0 || all[0].ID != 0 || all[0].Mount == "" {
		t.Skipf("no cgroup v2 here: %v", err)
	}
	tree, err := procfs.OpenCgroups(all[0])
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	top := fmt.Sprintf("/goshawk-%d", os.Getpid())
	make := func(path string) uint64 {
		if err := os.MkdirAll(all[0].Mount+path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(all[0].Mount + path) })
		id, err := tree.ID(path)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	make(top)
	ours := make(top + "/" + id1)
	sub := make(top + "/" + id1 + "/sub")
	gone := make(top + "/" + id2)
	os.Remove(all[0].Mount + top + "/" + id2)
	for _, walk := range []bool{false, true} {
		p := newPlay(t, Options{V2: tree})
		if walk {
			if err := p.table.Walk(); err != nil {
				t.Fatal(err)
			}
		}
		p.is("own", "0123", p.exec(proc{pid: 1, cgroup: ours}, "a"))
		p.is("below", "0123", p.exec(proc{pid: 1, cgroup: sub}, "a"))
		p.is("gone", "", p.exec(proc{pid: 1, cgroup: gone}, "a"))
		p.want() // it ran before: nothing begins now
	}
	p := newPlay(t, Options{V2: tree})
	p.now = 5e9
	for range 10 * maxLookups {
		p.table.look(key{ours, false})
	}
	if p.table.count.limited != 9*maxLookups {
		t.Errorf("%d look-ups were refused, want %d", p.table.count.limited, 9*maxLookups)
	}
}

func BenchmarkComplete(b *testing.B) {
	table := NewTable(Options{Rows: true})
	table.Complete(&event.Container{Header: event.Header{Kind: event.KindContainer, NTime: 1}, Operation: event.CgroupMkdir, Cgroup: 7, CgroupPath: path1})
	table.Complete(&event.Container{Header: event.Header{Kind: event.KindContainer, NTime: 1}, Operation: event.CgroupMkdir, Cgroup: 1, CgroupPath: "/"})
	for name, cgroup := range map[string]uint64{"host": 1, "container": 7} {
		b.Run(name, func(b *testing.B) {
			e := &event.Socket{Header: event.Header{Kind: event.KindConnect, NTime: 5, PID: 1, Start: 1, CgroupID: cgroup}}
			b.ReportAllocs()
			for b.Loop() {
				table.Complete(e)
			}
		})
	}
}
