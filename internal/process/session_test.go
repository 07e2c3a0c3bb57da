package process

import (
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// step is a process made or a program executed.
type step struct {
	at            uint64
	pid, child    uint32 // child 0: an exec
	path          string
	ppid          uint32
	pidNS         uint32
	entered       bool
	origin        string // of the exec
	leader, maker uint32
}

// TestSession follows processes from their makers to what they execute.
func TestSession(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"service", []step{
			{at: 10, pid: 1, child: 50},
			{at: 11, pid: 50, path: "/usr/sbin/nginx", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 12, pid: 50, child: 51},
			{at: 13, pid: 51, path: "/bin/sh", ppid: 50, origin: "service", leader: 50, maker: 50},
		}},
		{"ssh", []step{
			{at: 10, pid: 1, child: 50},
			{at: 11, pid: 50, path: "/usr/sbin/sshd", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 12, pid: 50, child: 51},
			{at: 13, pid: 51, path: "/usr/lib/openssh/sshd-session", ppid: 50, origin: "service", leader: 50, maker: 50},
			{at: 14, pid: 51, child: 52},
			{at: 15, pid: 52, path: "/bin/bash", ppid: 51, origin: "ssh", leader: 52, maker: 51},
			{at: 16, pid: 52, child: 53},
			{at: 17, pid: 53, path: "/usr/bin/id", ppid: 52, origin: "ssh", leader: 52, maker: 52},
			// Twice forked, and adopted by init: the session stays, and who made it.
			{at: 18, pid: 52, child: 54},
			{at: 19, pid: 54, child: 55},
			{at: 20, pid: 55, path: "/tmp/x", ppid: 1, origin: "ssh", leader: 52, maker: 54},
		}},
		{"cron", []step{
			{at: 10, pid: 1, child: 50},
			{at: 11, pid: 50, path: "/usr/sbin/cron", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 12, pid: 50, child: 51},
			{at: 13, pid: 51, child: 52},
			{at: 14, pid: 52, path: "/bin/sh", ppid: 51, origin: "cron", leader: 52, maker: 51},
		}},
		{"not every cron", []step{
			{at: 10, pid: 10, child: 50},
			{at: 11, pid: 50, path: "/tmp/cron", ppid: 10, origin: "service", leader: 10, maker: 10},
			{at: 12, pid: 50, child: 51},
			{at: 13, pid: 51, path: "/bin/sh", ppid: 50, origin: "service", leader: 10, maker: 50},
		}},
		{"console", []step{
			{at: 10, pid: 1, child: 50},
			{at: 11, pid: 50, path: "/sbin/agetty", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 12, pid: 50, path: "/bin/login", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 13, pid: 50, child: 51},
			{at: 14, pid: 51, path: "/bin/bash", ppid: 50, origin: "console", leader: 51, maker: 50},
		}},
		{"container", []step{
			{at: 10, pid: 1, child: 50},
			{at: 11, pid: 50, path: "/usr/bin/containerd-shim-runc-v2", ppid: 1, origin: "service", leader: 50, maker: 1},
			{at: 12, pid: 50, child: 51},
			{at: 13, pid: 51, path: "/usr/sbin/nginx", ppid: 50, pidNS: 7, entered: true, origin: "container", leader: 51, maker: 50},
			{at: 14, pid: 51, child: 52},
			{at: 15, pid: 52, path: "/bin/sh", ppid: 51, pidNS: 7, origin: "container", leader: 51, maker: 51},
		}},
		{"kernel", []step{
			{at: 10, pid: 3, child: 50},
			{at: 11, pid: 50, path: "/sbin/modprobe", ppid: 3, origin: "kernel", leader: 50, maker: 3},
		}},
		{"a parent that was there before", []step{
			{at: 10, pid: 60, path: "/bin/ls", ppid: 10, origin: "service", leader: 10},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := New(Options{BootID: boot})
			tab.Seed(exec(0, 1, 1, 0, 0, "/usr/lib/systemd/systemd", "init"))
			tab.Seed(exec(0, 10, 1, 1, 1, "/bin/bash", "-bash"))
			worker := exec(0, 3, 1, 2, 1, "", "")
			worker.Comm, worker.Args = "kworker/0:1", ""
			tab.Seed(worker)
			starts := map[uint32]uint64{1: 1, 3: 1, 10: 1, 60: 9}
			paths := map[uint32]string{1: "/usr/lib/systemd/systemd", 10: "/bin/bash"}
			for _, s := range tt.steps {
				if s.child != 0 {
					f := fork(s.at, s.pid, starts[s.pid], s.child, s.pid)
					tab.Complete(f)
					starts[s.child], paths[s.child] = s.at, paths[s.pid]
					continue
				}
				paths[s.pid] = s.path
				e := exec(s.at, s.pid, starts[s.pid], s.ppid, starts[s.ppid], s.path, s.path)
				e.PIDNamespace, e.Entered = s.pidNS, s.entered
				tab.Complete(e)
				check(t, "origin of "+s.path, e.Origin, s.origin)
				check(t, "leader of "+s.path, e.LeaderPID, s.leader)
				check(t, "maker of "+s.path, e.SpawnerPID, s.maker)
				check(t, "program that led to "+s.path, e.LeaderPath, paths[s.leader])
				c := connect(s.at+1, s.pid, starts[s.pid])
				tab.Complete(c)
				check(t, "origin of a connection", c.Origin, s.origin)
			}
			check(t, "bytes held are given back", emptied(tab), int64(0))
		})
	}
}

// emptied evicts everything and returns what is still accounted for.
func emptied(tab *Table) int64 {
	for tab.n > 0 {
		tab.opt.MaxEntries = tab.n - 1
		if tab.opt.MaxEntries == 0 {
			tab.opt.MaxEntries = -1
		}
		tab.trim()
	}
	return tab.Bytes()
}

func TestDisguise(t *testing.T) {
	blanks := make([]byte, 300)
	for i := range blanks {
		blanks[i] = ' '
	}
	for _, tt := range []struct {
		name   string
		change func(e *event.Exec)
		want   string
	}{
		{"none", func(e *event.Exec) {}, ""},
		{"login shell", func(e *event.Exec) { e.Args = "-curl\x00" }, ""},
		{"link to a program of many names", func(e *event.Exec) { e.Path, e.Filename, e.Args = "/bin/busybox", "/bin/ls", "ls\x00" }, ""},
		{"another's name", func(e *event.Exec) { e.Args = "[kworker/0:1]\x00" }, "argv0\x00"},
		{"script", func(e *event.Exec) {
			e.Path, e.Interpreter, e.Args = "/usr/bin/dash", "/usr/bin/dash", "/bin/sh\x00x\x00"
		}, ""},
		{"deleted", func(e *event.Exec) { e.Deleted = true }, "deleted\x00"},
		{"in memory", func(e *event.Exec) { e.Deleted, e.Memfd = true, true }, "memfd\x00"},
		{"cut", func(e *event.Exec) { e.ArgsTruncated = true }, "args_cut\x00"},
		{"padded", func(e *event.Exec) { e.Args = "curl\x00" + string(blanks) + "\x00" }, "args_padded\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := tree()
			e := exec(300, 20, 200, 10, 100, "/usr/bin/curl", "curl -s")
			tt.change(e)
			tab.Complete(e)
			check(t, "exec", e.Disguise, tt.want)
			c := connect(301, 20, 200)
			tab.Complete(c)
			check(t, "what it does later", c.Disguise, tt.want)
		})
	}

	tab := tree()
	c := connect(300, 20, 200)
	c.Comm = "kworker/0:1"
	tab.Complete(c)
	check(t, "renamed", c.Disguise, "comm\x00")
	c = connect(301, 20, 200)
	c.Comm, c.TID = "worker", 21
	tab.Complete(c)
	check(t, "a thread with a name of its own", c.Disguise, "")
}

func TestArgumentsOverwritten(t *testing.T) {
	for _, tt := range []struct{ name, now, want string }{
		{"as they were", "curl\x00-s\x00http://x/\x00", ""},
		{"a title", "curl: worker process\x00", ""},
		{"another program's", "/usr/lib/systemd/systemd-logind\x00", "argv\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			tab := New(Options{BootID: boot, Lookup: func(pid uint32, into *event.Exec) bool {
				asked++
				*into = *exec(0, pid, 200, 10, 100, "/usr/bin/curl", "")
				into.Args = tt.now
				return true
			}})
			tab.Seed(exec(0, 10, 100, 1, 1, "/bin/bash", "-bash"))
			tab.Complete(fork(200, 10, 100, 20, 10))
			tab.Complete(exec(201, 20, 200, 10, 100, "/usr/bin/curl", "curl -s http://x/"))
			asked = 0
			for range 3 {
				c := connect(300, 20, 200)
				tab.Complete(c)
				check(t, "connect", c.Disguise, tt.want)
			}
			check(t, "looks into /proc", asked, 1)
		})
	}
}
