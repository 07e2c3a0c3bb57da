package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// balanced stops l and checks that every record is accounted for, by kind, to the last:
// generated = delivered + filtered + lost, and delivered is what arrived.
func balanced(t *testing.T, l *live) map[event.ID]map[string]uint64 {
	t.Helper()
	l.stop()
	<-l.collected
	sums := map[event.ID]map[string]uint64{}
	for _, c := range l.s.Counts() {
		if sums[c.Kind] == nil {
			sums[c.Kind] = map[string]uint64{}
		}
		sums[c.Kind][c.What] += c.N
	}
	arrived := map[event.ID]uint64{}
	for _, e := range l.events {
		arrived[e.Head().Kind]++
	}
	for kind, n := range sums {
		if n[event.Generated] != n[event.Delivered]+n[event.Filtered]+n[event.Lost] {
			t.Errorf("%v: generated %d, delivered %d, filtered %d, lost %d: %d do not add up", kind, n[event.Generated],
				n[event.Delivered], n[event.Filtered], n[event.Lost],
				int64(n[event.Generated]-n[event.Delivered]-n[event.Filtered]-n[event.Lost]))
		}
		if arrived[kind] != n[event.Delivered] {
			t.Errorf("%v: %d arrived, %d are counted as delivered", kind, arrived[kind], n[event.Delivered])
		}
	}
	for kind, n := range arrived {
		if sums[kind][event.Delivered] != n {
			t.Errorf("%v: %d arrived, none are counted", kind, n)
		}
	}
	return sums
}

// storm starts processes, by four workers, each process with an argument of its own.
func storm(t *testing.T, workers, each int) {
	t.Helper()
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			if out, err := exec.Command(helper, "storm", fmt.Sprint(each), fmt.Sprintf("tag-%d", w)).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wait.Wait()
}

// talk makes n TCP connections over loopback, each with a byte in both directions.
func talk(t *testing.T, n int) {
	t.Helper()
	onThread(t, func() {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		s := &side{t: t}
		lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 8)
		defer unix.Close(lfd)
		b := make([]byte, 1)
		for range n {
			c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
			// No port is left waiting for stray packets.
			must(unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			must(unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
			a, _, err := unix.Accept4(lfd, unix.SOCK_CLOEXEC)
			must(err)
			_, err = unix.Write(c, b)
			must(err)
			_, err = unix.Read(a, b)
			must(err)
			s.close(c, a)
		}
	})
}

// With rings of one page most records are lost, and each is counted.
func TestLiveBalanceTinyRings(t *testing.T) {
	l := watch(t, Options{CriticalBytes: os.Getpagesize(), BulkBytes: os.Getpagesize()})
	storm(t, 4, 150)
	talk(t, 1500)
	run(t, helper, "forks", "500")
	sums := balanced(t, l)
	for _, k := range []event.ID{event.KindExec, event.KindConnect, event.KindClose} {
		if sums[k][event.Lost] == 0 {
			t.Errorf("%v: nothing was lost: the test proves nothing", k)
		}
		if sums[k][event.Delivered] == 0 {
			t.Errorf("%v: nothing was delivered", k)
		}
	}
	for k, least := range map[event.ID]uint64{event.KindExec: 604, event.KindFork: 1105, event.KindExit: 1105,
		event.KindConnect: 1500, event.KindAccept: 1500, event.KindClose: 3000} {
		if n := sums[k][event.Generated]; n < least {
			t.Errorf("%v: %d generated, at least %d happened", k, n, least)
		}
	}
}

// A reader that is held up for a while loses what the rings cannot hold, and counts it.
func TestLiveBalanceSlowReader(t *testing.T) {
	l := watch(t, Options{CriticalBytes: 64 << 10, BulkBytes: 64 << 10})
	l.mu.Lock() // the collector stops
	talk(t, 1000)
	storm(t, 2, 200)
	l.mu.Unlock()
	balanced(t, l)
}

// 5,000 processes by four workers, each with an argument of its own: each has its exec and
// its exit, with the right parent, once, or is counted as lost.
func TestLiveStorm(t *testing.T) {
	l := watch(t, Options{Kinds: processKinds})
	workers, each := 4, 1250
	if testing.Short() { // under emulation that would be half a minute
		each = 300
	}
	began := time.Now()
	storm(t, workers, each)
	t.Logf("%d processes in %v", workers*each, time.Since(began))
	sums := balanced(t, l)

	type process struct {
		exec, fork, exit int
		parent           uint32
		start            uint64
	}
	seen := map[string]*process{} // by argument
	byID := map[string]*process{}
	worker := map[string]uint32{} // tag → pid of the worker
	for _, e := range l.events {
		x, ok := e.(*event.Exec)
		if !ok {
			continue
		}
		args := strings.Split(x.Args, "\x00")
		if len(args) == 5 && args[1] == "storm" {
			worker[args[3]] = x.PID
		}
		if len(args) != 5 || args[1] != "exit" || !strings.HasPrefix(args[3], "tag-") {
			continue
		}
		p := seen[args[3]]
		if p == nil {
			p = &process{parent: x.PPID, start: x.Start}
			seen[args[3]] = p
			byID[event.ProcessID(x.BootID, x.PID, x.Start)] = p
		}
		p.exec++
	}
	for _, e := range l.events {
		switch e := e.(type) {
		case *event.Exit:
			if p := byID[event.ProcessID(e.BootID, e.PID, e.Start)]; p != nil {
				p.exit++
			}
		case *event.Fork:
			if p := byID[event.ProcessID(e.BootID, e.ChildPID, e.ChildStart)]; p != nil {
				p.fork++
			}
		}
	}
	lost := map[event.ID]uint64{}
	for k, n := range sums {
		lost[k] = n[event.Lost]
	}
	missing := map[event.ID]uint64{}
	for w := range workers {
		for i := range each {
			tag := fmt.Sprintf("tag-%d-%d", w, i)
			p := seen[tag]
			if p == nil {
				missing[event.KindExec]++
				continue
			}
			if p.exec != 1 {
				t.Errorf("%s: %d execs", tag, p.exec)
			}
			if pid := worker[fmt.Sprintf("tag-%d", w)]; pid != 0 && p.parent != pid {
				t.Errorf("%s: parent %d, want %d", tag, p.parent, pid)
			}
			for kind, n := range map[event.ID]int{event.KindFork: p.fork, event.KindExit: p.exit} {
				if n > 1 {
					t.Errorf("%s: %v %d times", tag, kind, n)
				}
				missing[kind] += uint64(1 - n)
			}
		}
	}
	for k, n := range missing {
		// Of others' processes some may be among the lost, never the other way round.
		if n > lost[k] {
			t.Errorf("%v: %d are missing, %d are counted as lost", k, n, lost[k])
		}
	}
	t.Logf("missing %v, lost %v", missing, lost)
}

// Each hook taken away leaves the others working.
func TestLiveWithoutHook(t *testing.T) {
	needRoot(t)
	root, err := procfs.At("").Cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	step, o := 1, Options{}
	if testing.Short() {
		// Under emulation an Open takes seconds. That nothing else is lost with a hook is our own doing
		// and the same on every kernel: some hooks there, and of the kinds that are looked at below.
		step, o.Kinds = 3, slices.Concat(processKinds, socketKinds, []event.ID{event.KindDNS, event.KindContainer})
	}
	hooks := slices.DeleteFunc(slices.Clone(testObject(t).hooks), func(h hook) bool { return kindMask(h.kinds)&kindMask(o.Kinds) == 0 })
	for i, h := range hooks {
		if i%step != 0 {
			continue
		}
		without := h.name
		t.Run(without, func(t *testing.T) {
			o := o
			o.Tiers = map[string]string{without: "none"}
			l := watch(t, o)
			for _, h := range l.s.Hooks() {
				if h.Name == without && (h.Tier != "" || h.Best || !strings.Contains(h.Refused, ": not wanted")) {
					t.Errorf("the row of hook %s says: %+v", without, h)
				}
			}
			var mine func(e event.Event) bool
			pid := 0
			inNetwork(t, l, func(s *side) {
				s.serveDNS(nil)
				lfd, lport := s.listener(unix.AF_INET, &unix.SockaddrInet4{Addr: loop4}, 4)
				c := s.socket(unix.AF_INET, unix.SOCK_STREAM)
				s.must(unix.Connect(c, &unix.SockaddrInet4{Addr: loop4, Port: lport}))
				a, _, err := unix.Accept(lfd)
				s.must(err)
				s.close(c, a, lfd)
				u, d := s.socket(unix.AF_UNIX, unix.SOCK_DGRAM), s.socket(unix.AF_INET, unix.SOCK_DGRAM)
				if err := unix.Connect(u, &unix.SockaddrUnix{Name: "@goshawk-nobody"}); err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
				s.ask(d, &unix.SockaddrInet4{Addr: loop4, Port: 53}, query(t, 1, "no.", 1), true)
				s.close(u, d)
				group := filepath.Join(root, fmt.Sprintf("goshawk-%d", time.Now().UnixNano()))
				s.must(unix.Mkdir(group, 0o755))
				s.must(unix.Rmdir(group))
				pid = run(t, helper, "vfork")
				mine = func(e event.Event) bool {
					return e.Head().PID == uint32(pid) && e.Head().NTime >= s.began || s.mine(e)
				}
			})
			balanced(t, l)
			got := map[string]int{}
			for _, e := range l.snapshot(mine) {
				what := e.Head().Kind.String()
				switch e.(type) {
				case *event.Exec, *event.Fork, *event.Exit, *event.Socket, *event.DNS, *event.Container:
				default:
					continue // of other kinds, which have tests of their own
				}
				if s, ok := e.(*event.Socket); ok {
					what += " " + s.Protocol
				}
				got[what]++
			}
			// The server's two sockets are made by the same thread.
			// Three forks: of ip(8), of the helper, by the helper.
			want := map[string]int{"exec": 1, "fork": 3, "exit": 1, "dns": 1, "connect tcp": 1, "connect dgram": 1, "connect udp": 1,
				"accept tcp": 1, "bind tcp": 1, "bind udp": 2, "listen tcp": 1, "close tcp": 2, "container": 2}
			switch without {
			case "fork":
				delete(want, "fork")
			case "exec", "exit", "dns":
				delete(want, without)
			case "tcp_state":
				delete(want, "close tcp") // the exit of connect(2) speaks for TCP then
			case "connect":
				delete(want, "connect dgram")
			case "datagram":
				delete(want, "connect udp")
			case "accept":
				delete(want, "accept tcp") // its close is told all the same, of who lets go
			case "bind":
				delete(want, "bind tcp")
				delete(want, "bind udp")
			case "listen":
				delete(want, "listen tcp")
			case "cgroup":
				delete(want, "container")
			} // the other hooks tell of none of this
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}
