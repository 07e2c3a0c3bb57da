package process

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

const boot = "0123456789abcdef0123456789abcdef"

// Times in the tests are milliseconds since boot.
const ms = 1_000_000

func exec(at uint64, pid uint32, start uint64, ppid uint32, pstart uint64, path, args string) *event.Exec {
	return &event.Exec{
		Header: event.Header{
			Kind: event.KindExec, NTime: at * ms, Source: "ebpf", Fidelity: event.FidelityKernel,
			PID: pid, TID: pid, Start: start * ms, PPID: ppid, PStart: pstart * ms,
			Path: path, Comm: path[strings.LastIndexByte(path, '/')+1:], AUID: 1000, Session: 3, TTY: "pts/0",
		},
		Args: strings.ReplaceAll(args, " ", "\x00") + "\x00",
	}
}

func fork(at uint64, pid uint32, start uint64, child, childPPID uint32) *event.Fork {
	return &event.Fork{
		Header:   event.Header{Kind: event.KindFork, NTime: at * ms, PID: pid, TID: pid, Start: start * ms},
		ChildPID: child, ChildStart: at * ms, ChildPPID: childPPID,
	}
}

func exit(at uint64, pid uint32, start uint64) *event.Exit {
	return &event.Exit{Header: event.Header{Kind: event.KindExit, NTime: at * ms, PID: pid, TID: pid, Start: start * ms}}
}

func connect(at uint64, pid uint32, start uint64) *event.Socket {
	return &event.Socket{Header: event.Header{Kind: event.KindConnect, NTime: at * ms, PID: pid, TID: pid, Start: start * ms}}
}

// tree is init, a shell it started, and curl, which the shell started.
func tree() *Table {
	t := New(Options{BootID: boot})
	t.Seed(exec(0, 1, 1, 0, 0, "/sbin/init", "/sbin/init splash"))
	t.Seed(exec(0, 10, 100, 1, 1, "/bin/bash", "-bash"))
	t.Complete(fork(200, 10, 100, 20, 10))
	t.Complete(exec(201, 20, 200, 10, 100, "/usr/bin/curl", "curl -s http://x/"))
	return t
}

const (
	initJSON = `{"pid":1,"path":"/sbin/init","cmdline":"/sbin/init splash"}`
	bashJSON = `{"pid":10,"path":"/bin/bash","cmdline":"-bash"}`
)

// who is what the tests compare of a completed header.
type who struct {
	Path, Comm, TTY string
	PPID            uint32
	Start, PStart   uint64 // ms
	AUID, Session   uint32
}

func whoOf(h *event.Header) who {
	return who{h.Path, h.Comm, h.TTY, h.PPID, h.Start / ms, h.PStart / ms, h.AUID, h.Session}
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestExecNamesItsAncestors(t *testing.T) {
	tab := tree()
	e := exec(300, 20, 200, 10, 100, "/usr/bin/wget", "wget")
	tab.Complete(e)
	check(t, "ancestors", e.Ancestors, "["+bashJSON+","+initJSON+"]")
	check(t, "boot", e.BootID, boot)
}

func TestSocketIsCompleted(t *testing.T) {
	tab := tree()
	e := connect(300, 20, 200)
	tab.Complete(e)
	check(t, "connect", whoOf(e.Head()), who{"/usr/bin/curl", "curl", "pts/0", 10, 200, 100, 1000, 3})
}

func TestRecordsWordStands(t *testing.T) {
	tab := tree()
	e := connect(300, 20, 200)
	e.Path, e.Comm, e.PPID, e.PStart, e.AUID, e.Session, e.TTY = "/x", "y", 1, 1*ms, 0, 7, "tty1"
	tab.Complete(e)
	check(t, "connect", whoOf(e.Head()), who{"/x", "y", "tty1", 1, 200, 1, 0, 7})
}

func TestNothingIsInvented(t *testing.T) {
	tab := New(Options{})
	e := connect(300, 77, 200)
	tab.Complete(e)
	check(t, "connect", whoOf(e.Head()), who{Start: 200, AUID: 4294967295, Session: 4294967295})

	x := exec(310, 78, 205, 55, 0, "/bin/true", "true")
	tab.Complete(x)
	check(t, "ancestors", x.Ancestors, `[{"pid":55,"path":"","cmdline":""}]`)
	check(t, "parent's start", x.PStart, uint64(0))
}

func TestExecWithoutForkKeepsIdentity(t *testing.T) {
	tab := tree()
	tab.Complete(exec(300, 20, 200, 10, 100, "/usr/bin/sh", "sh -c id"))
	tab.Complete(exec(301, 20, 200, 10, 100, "/usr/bin/id", "id"))
	n := tab.Len()
	e := connect(400, 20, 200)
	tab.Complete(e)
	check(t, "path", e.Path, "/usr/bin/id")
	check(t, "entries", n, 3)

	// A child forked after the second exec has its image; one forked before keeps the old.
	tab.Complete(fork(410, 20, 200, 21, 20))
	x := exec(420, 21, 410, 20, 200, "/bin/ls", "ls")
	tab.Complete(x)
	check(t, "ancestors", x.Ancestors, `[{"pid":20,"path":"/usr/bin/id","cmdline":"id"},`+bashJSON+","+initJSON+"]")
}

func TestAncestorsFollowTheParentsExec(t *testing.T) {
	tab := tree()
	tab.Complete(fork(300, 20, 200, 30, 20))
	a := exec(301, 30, 300, 20, 200, "/bin/a", "a")
	tab.Complete(a)
	tab.Complete(exec(302, 10, 100, 1, 1, "/bin/zsh", "zsh")) // the grandparent
	b := exec(303, 30, 300, 20, 200, "/bin/b", "b")
	tab.Complete(b)
	curl := `{"pid":20,"path":"/usr/bin/curl","cmdline":"curl -s http://x/"}`
	check(t, "before", a.Ancestors, "["+curl+","+bashJSON+","+initJSON+"]")
	check(t, "after", b.Ancestors, "["+curl+`,{"pid":10,"path":"/bin/zsh","cmdline":"zsh"},`+initJSON+"]")
}

func TestVfork(t *testing.T) {
	// The parent waits until its child has executed; the child runs the parent's image.
	tab := tree()
	tab.Complete(fork(300, 20, 200, 21, 20))
	before := connect(301, 21, 300)
	tab.Complete(before)
	tab.Complete(exec(302, 21, 300, 20, 200, "/bin/date", "date"))
	after := connect(303, 21, 300)
	tab.Complete(after)
	parent := connect(304, 20, 200)
	tab.Complete(parent)
	check(t, "child before", before.Path, "/usr/bin/curl")
	check(t, "child after", after.Path, "/bin/date")
	check(t, "parent", parent.Path, "/usr/bin/curl")
}

func TestCloneParent(t *testing.T) {
	tab := tree()
	tab.Complete(fork(300, 20, 200, 21, 10)) // the child is its maker's sibling
	e := connect(301, 21, 300)
	tab.Complete(e)
	check(t, "child", whoOf(e.Head()), who{"/usr/bin/curl", "curl", "pts/0", 10, 300, 100, 1000, 3})
}

func TestParentExitsFirst(t *testing.T) {
	tab := tree()
	tab.Complete(exit(300, 10, 100))
	orphan := exec(310, 20, 200, 1, 1, "/bin/daemon", "daemon") // the record knows who adopted it
	tab.Complete(orphan)
	check(t, "ancestors", orphan.Ancestors, "["+initJSON+"]")

	silent := connect(320, 20, 200)
	tab.Complete(silent)
	check(t, "later record without a parent", silent.PPID, uint32(1))
	check(t, "its start", silent.PStart, uint64(1*ms))
}

func TestReparentingByPIDAlone(t *testing.T) {
	tab := tree()
	tab.Complete(exit(300, 10, 100))
	orphan := exec(310, 20, 200, 1, 0, "/bin/daemon", "daemon")
	tab.Complete(orphan)
	check(t, "parent's start", orphan.PStart, uint64(1*ms))
	check(t, "ancestors", orphan.Ancestors, "["+initJSON+"]")
}

func TestPIDReuse(t *testing.T) {
	tab := tree()
	tab.Complete(exit(300, 20, 200))
	tab.Complete(fork(400, 10, 100, 20, 10)) // the same pid again
	tab.Complete(exec(401, 20, 400, 10, 100, "/bin/new", "new"))

	late := connect(299, 20, 200)
	tab.Complete(late)
	now := connect(402, 20, 400)
	tab.Complete(now)
	check(t, "old", late.Path, "/usr/bin/curl")
	check(t, "new", now.Path, "/bin/new")

	// With no start in the record, its time tells them apart.
	late, now = connect(299, 20, 0), connect(402, 20, 0)
	tab.Complete(late)
	tab.Complete(now)
	check(t, "old by time", whoOf(late.Head()).Start, uint64(200))
	check(t, "new by time", whoOf(now.Head()).Start, uint64(400))

	// A third owner that was never heard of is neither.
	other := connect(500, 20, 450)
	tab.Complete(other)
	check(t, "stranger", other.Path, "")
}

func TestPIDReuseAfterALostExit(t *testing.T) {
	tab := tree()
	tab.Complete(fork(400, 10, 100, 20, 10))
	check(t, "running", countRunning(tab), 3) // init, bash, the new 20
	child := connect(401, 20, 400)
	tab.Complete(child)
	check(t, "path", child.Path, "/bin/bash")
	if !tab.Complete(exit(390, 20, 200)) {
		t.Error("the lost exit came after all and was taken for a second one")
	}
}

func countRunning(t *Table) int {
	n := 0
	for p := t.running.head; p != nil; p = p.next {
		n++
	}
	return n
}

func TestParentPIDReuse(t *testing.T) {
	// 20's parent was a 10 of which nothing is known; a younger 10 is not it.
	tab := New(Options{})
	tab.Seed(exec(0, 10, 500, 1, 1, "/bin/young", "young"))
	e := exec(600, 20, 400, 10, 0, "/bin/x", "x")
	tab.Complete(e)
	check(t, "ancestors", e.Ancestors, `[{"pid":10,"path":"","cmdline":""}]`)
	check(t, "parent's start", e.PStart, uint64(0))
}

func TestSecondExit(t *testing.T) {
	tab := tree()
	first, second := exit(300, 20, 200), exit(300, 20, 200)
	check(t, "first", tab.Complete(first), true)
	check(t, "second", tab.Complete(second), false)
	check(t, "first is completed", whoOf(first.Head()), who{"/usr/bin/curl", "curl", "pts/0", 10, 200, 100, 1000, 3})
	check(t, "other process", tab.Complete(exit(301, 20, 250)), true)
}

func TestGraceIsEventTime(t *testing.T) {
	tab := tree()
	tab.Complete(exit(1000, 20, 200))
	late := connect(999, 20, 200)
	tab.Complete(connect(31_000, 10, 100)) // 30 s later
	tab.Complete(late)
	check(t, "within grace", late.Path, "/usr/bin/curl")
	tab.Complete(connect(31_001, 10, 100))
	check(t, "entries after grace", tab.Len(), 2)
	check(t, "evictions", tab.Counts()[0].N, uint64(0))
}

func TestSocketBeforeItsExec(t *testing.T) {
	tab := New(Options{})
	early := connect(300, 20, 200)
	tab.Complete(early) // the bulk ring was read first
	tab.Complete(exec(290, 20, 200, 10, 100, "/usr/bin/curl", "curl"))
	again := connect(301, 20, 200)
	tab.Complete(again)
	check(t, "before", early.Path, "")
	check(t, "after", whoOf(again.Head()), who{"/usr/bin/curl", "curl", "pts/0", 10, 200, 100, 1000, 3})
}

func TestSocketAfterTheExecThatFollowedIt(t *testing.T) {
	tab := tree()
	tab.Complete(exec(400, 20, 200, 10, 100, "/bin/next", "next"))
	old := connect(399, 20, 200) // made by curl, read after next began
	tab.Complete(old)
	check(t, "path", old.Path, "/usr/bin/curl")
	check(t, "comm", old.Comm, "curl")
}

func TestForkAfterItsChildsExec(t *testing.T) {
	tab := New(Options{})
	tab.Seed(exec(0, 10, 100, 1, 1, "/bin/bash", "-bash"))
	tab.Complete(exec(201, 20, 200, 10, 100, "/usr/bin/curl", "curl"))
	tab.Complete(fork(200, 10, 100, 20, 10))
	e := connect(300, 20, 200)
	tab.Complete(e)
	check(t, "path", e.Path, "/usr/bin/curl")
	check(t, "entries", tab.Len(), 3) // with 1, of which only the name is known
}

func TestCoarseSeedTakesTheExactStart(t *testing.T) {
	tab := New(Options{})
	seed := exec(0, 20, 200, 1, 0, "/bin/bash", "-bash")
	seed.Source = "procfs"
	tab.Seed(seed)
	e := connect(300, 20, 0)
	e.Start = 209_999_999 // the same tick of 10 ms
	tab.Complete(e)
	check(t, "path", e.Path, "/bin/bash")
	check(t, "entries", tab.Len(), 1)

	coarse := connect(310, 20, 200)
	tab.Complete(coarse)
	check(t, "coarse record, exact entry", coarse.Start, uint64(209_999_999))

	other := connect(320, 20, 210) // the next tick is another process
	tab.Complete(other)
	check(t, "next tick", other.Path, "")
}

func TestHostileBytesInAncestors(t *testing.T) {
	tab := New(Options{})
	tab.Seed(exec(0, 10, 100, 0, 0, "/bin/\"x\\\n", "a\x1b[31m \xff\"} é"))
	e := exec(300, 20, 200, 10, 100, "/bin/true", "true")
	tab.Complete(e)
	check(t, "ancestors", e.Ancestors,
		`[{"pid":10,"path":"/bin/\"x\\\n","cmdline":"a\u001b[31m \\xff\"} é"}]`)
}

func TestAncestorsAreBounded(t *testing.T) {
	tab := New(Options{})
	tab.Seed(exec(0, 1, 1, 0, 0, "/1", strings.Repeat("é", 300)))
	for pid := uint32(2); pid <= 8; pid++ {
		start := uint64(pid)
		tab.Seed(exec(0, pid, start, pid-1, start-1, "/"+string('0'+rune(pid)), "x"))
	}
	e := exec(300, 2, 2, 1, 1, "/y", "y")
	tab.Complete(e)
	check(t, "command line", e.Ancestors, `[{"pid":1,"path":"/1","cmdline":"`+strings.Repeat("é", 100)+`"}]`)
	e = exec(300, 8, 8, 7, 7, "/y", "y")
	tab.Complete(e)
	check(t, "levels", e.Ancestors, `[{"pid":7,"path":"/7","cmdline":"x"},{"pid":6,"path":"/6","cmdline":"x"},`+
		`{"pid":5,"path":"/5","cmdline":"x"},{"pid":4,"path":"/4","cmdline":"x"},`+
		`{"pid":3,"path":"/3","cmdline":"x"},{"pid":2,"path":"/y","cmdline":"y"}]`)
}

func TestCommandLineIsCutBetweenCharacters(t *testing.T) {
	for _, c := range []struct{ name, args, want string }{
		{"short", "ls\x00-l\x00", "ls -l"},
		{"empty last argument", "ls\x00\x00", "ls "},
		{"just fits", strings.Repeat("x", 200) + "\x00", strings.Repeat("x", 200)},
		{"cut", strings.Repeat("x", 202) + "\x00", strings.Repeat("x", 200)},
		{"cut in a character", strings.Repeat("x", 199) + "éa\x00", strings.Repeat("x", 199)},
		{"cut after a character", strings.Repeat("x", 198) + "éa\x00", strings.Repeat("x", 198) + "é"},
		{"no characters", strings.Repeat("\x80", 300), strings.Repeat("\x80", 200)},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &event.Exec{Args: c.args}
			check(t, "cmdline", New(Options{}).newImage(e).cmdline, c.want)
		})
	}
}

func TestLineage(t *testing.T) {
	tab := tree()
	got := tab.AppendLineage(nil, connect(300, 20, 200).Head(), 6)
	check(t, "lineage", got, []string{"bash", "init"})
	check(t, "bounded", tab.AppendLineage(nil, connect(300, 20, 200).Head(), 1), []string{"bash"})
	check(t, "unknown", tab.AppendLineage(nil, connect(300, 99, 5).Head(), 6), []string(nil))
	tab.Complete(exec(310, 10, 100, 1, 1, "/bin/zsh", "zsh"))
	check(t, "what the parent ran then", tab.AppendLineage(nil, connect(300, 20, 200).Head(), 1), []string{"bash"})
	check(t, "and later", tab.AppendLineage(nil, connect(310, 20, 200).Head(), 1), []string{"zsh"})
}

func TestLookup(t *testing.T) {
	calls := 0
	tab := New(Options{MaxLookups: 3, Lookup: func(pid uint32, into *event.Exec) bool {
		calls++
		if pid == 66 {
			return false
		}
		*into = *exec(0, pid, 200, 1, 0, "/bin/found", "found")
		into.Source = "procfs"
		return true
	}})
	e := connect(300, 50, 0)
	e.Start = 203*ms + 7
	tab.Complete(e)
	check(t, "found", whoOf(e.Head()), who{"/bin/found", "found", "pts/0", 1, 203, 0, 1000, 3})
	check(t, "fidelity is the record's", e.Fidelity, "")

	reused := connect(310, 51, 120) // 51 is now a process that started at 200
	tab.Complete(reused)
	check(t, "another process", reused.Path, "")

	tab.Complete(connect(330, 66, 300))
	tab.Complete(connect(331, 66, 300))
	tab.Complete(connect(340, 67, 200))
	check(t, "calls in a second", calls, 3)
	check(t, "refused", tab.Counts()[2], event.Count{Source: "process", What: "evicted", Reason: "lookup_limit", N: 3})

	later := connect(1340, 67, 200)
	tab.Complete(later)
	check(t, "in the next second", later.Path, "/bin/found")
}

func TestLookupOfAProcessThatHasExecutedSince(t *testing.T) {
	tab := New(Options{Lookup: func(pid uint32, into *event.Exec) bool {
		*into = *exec(0, pid, 200, 0, 0, "/bin/next", "next")
		return true
	}})
	e := connect(300, 50, 200)
	e.Comm = "curl"
	tab.Complete(e)
	check(t, "record of the program before", e.Path, "")
	e = connect(301, 50, 200)
	e.Comm = "next"
	tab.Complete(e)
	check(t, "record of the present one", e.Path, "/bin/next")
}

func TestCoarseParentNamesNobody(t *testing.T) {
	tab := New(Options{})
	for _, s := range []*event.Exec{exec(0, 20, 200, 10, 100, "/bin/ls", "ls"), exec(0, 10, 100, 0, 0, "/bin/bash", "bash")} {
		s.Source = "procfs"
		tab.Seed(s)
	}
	e := connect(300, 20, 0)
	e.Start = 200*ms + 1
	tab.Complete(e)
	check(t, "parent's start while cut to a tick", e.PStart, uint64(0))
	parent := connect(301, 10, 0)
	parent.Start = 100*ms + 1
	tab.Complete(parent)
	e = connect(302, 20, 0)
	e.Start = 200*ms + 1
	tab.Complete(e)
	check(t, "and once it is exact", e.PStart, uint64(100*ms+1))
}
