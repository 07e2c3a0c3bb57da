package sensor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

var callKinds = []event.ID{event.KindExit, event.KindConnect, event.KindAccept, event.KindBind, event.KindListen}

// eachCallTier runs a test with connect, accept, bind and listen at each of their tiers.
func eachCallTier(t *testing.T, run func(t *testing.T, l *live, tier string)) {
	needRoot(t)
	hooks := testObject(t).hooks
	for _, tr := range hooks[slices.IndexFunc(hooks, func(h hook) bool { return h.name == "connect" })].tiers {
		tier := tr.name
		t.Run(tier, func(t *testing.T) {
			if why := refusal(t, "connect", tier); why != "" {
				t.Skipf("this kernel refuses tier %s: %s", tier, why)
			}
			o := Options{Kinds: callKinds, Tiers: map[string]string{}}
			for _, hook := range []string{"connect", "accept", "bind", "listen"} {
				o.Tiers[hook] = tier
			}
			run(t, watch(t, o), tier)
		})
	}
}

// helps runs the helper in the network of s and returns its pid and what it prints.
func (s *side) helps(args ...string) (int, string) {
	s.t.Helper()
	c := exec.Command(helper, args...)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err := c.Run()
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == 77 {
		s.t.Skipf("this kernel has no calls by %s", args[1])
	}
	if err != nil {
		s.t.Fatalf("%v: %v: %s", c.Args, err, stderr.String())
	}
	return c.Process.Pid, out.String()
}

// here selects what happened in the network of s, whoever did it.
func (s *side) here() []*event.Socket {
	s.t.Helper()
	s.told()
	var out []*event.Socket
	for _, e := range s.l.snapshot(func(e event.Event) bool {
		k, ok := e.(*event.Socket)
		return ok && k.NetNS == s.ns && k.NTime >= s.began
	}) {
		if e := e.(*event.Socket); !strings.HasPrefix(e.SocketPath, "@goshawk-mark") {
			out = append(out, e)
		}
	}
	return out
}

// What is asked of sockets is told, in whichever way it is asked. Where system calls alone are
// watched, those of 64 bits are; TCP connections are seen below, always.
func TestLiveWays(t *testing.T) {
	eachCallTier(t, func(t *testing.T, l *live, tier string) {
		for _, way := range []string{"native", "ia32", "socketcall", "x32", "io_uring", "io_uring worker"} {
			t.Run(way, func(t *testing.T) { inNetwork(t, l, func(s *side) { s.calls(way, tier) }) })
		}
	})
}

func (s *side) calls(way, tier string) {
	pid, out := s.helps("calls", way)
	var cport, uport, native int
	if n, err := fmt.Sscan(out, &cport, &uport, &native); n != 3 {
		s.t.Fatalf("helper printed %q: %v", out, err)
	}
	const stream = unix.SOCK_STREAM
	name := "@goshawk-calls"
	connected := tcp(event.KindConnect, "127.0.0.1", cport, "127.0.0.1", 7001)
	want := []*event.Socket{
		connected,
		tcp(event.KindBind, "127.0.0.1", 7001, "", 0, fd(20)),
		tcp(event.KindListen, "127.0.0.1", 7001, "", 0, fd(20)),
		tcp(event.KindAccept, "127.0.0.1", 7001, "127.0.0.1", cport),
		tcp(event.KindBind, "192.0.2.1", 7002, "", 0, fd(22), result("EADDRNOTAVAIL"), fidelity("user")),
		tcp(event.KindConnect, "0.0.0.0", 0, "192.0.2.1", 443, fd(23), result("ENETUNREACH"), fidelity("user")),
		tcp(event.KindConnect, "127.0.0.1", uport, "127.0.0.1", 514, fd(25), udp),
		local(event.KindBind, name, stream, fd(26)),
		local(event.KindListen, name, stream, fd(26)),
		local(event.KindConnect, name, stream, fd(27)),
		local(event.KindAccept, name, stream),
	}
	if !below(tier) && way != "native" {
		want = s.besideCalls(want, way, native == 1)
	}
	got := s.here()
	order := func(a, b *event.Socket) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.LocalPort, b.LocalPort), cmp.Compare(a.SocketPath, b.SocketPath))
	}
	slices.SortStableFunc(got, order)
	slices.SortStableFunc(want, order)
	if len(got) != len(want) {
		s.t.Fatalf("got %d events, want %d\n%s", len(got), len(want), list(got))
	}
	for i, g := range got {
		w := *want[i]
		kind, f := w.Kind, w.Fidelity
		by := pid
		if way == "io_uring worker" && strings.HasPrefix(g.Comm, "io_wqe_worker") {
			by = int(g.PID) // before 5.12 the workers are the kernel's own processes
		}
		w.Header = ours(s.t, &g.Header, by)
		w.Kind, w.NetNS, w.Cookie, w.DurationNs = kind, s.ns, g.Cookie, g.DurationNs
		if by != pid {
			w.Header = g.Header
		} else if way == "io_uring worker" {
			w.TID, w.Comm = g.TID, g.Comm // a thread of the process
		}
		if f != "" {
			w.Fidelity = f
		}
		if w.Kind == event.KindAccept {
			w.FD = g.FD
		}
		if below(tier) {
			w.FD, w.Fidelity = -1, event.FidelityKernel
		}
		compare(s.t, &w, g)
	}
}

// besideCalls is what of want is told, and how, where tracepoints tell native calls alone, when
// all was asked in another way: but for bind and listen, where those were native.
func (s *side) besideCalls(want []*event.Socket, way string, native bool) []*event.Socket {
	ring := strings.HasPrefix(way, "io_uring")
	told := slices.ContainsFunc(s.l.s.Hooks(), func(h event.Hook) bool { return h.Name == "io_uring" && h.Tier != "" })
	return slices.DeleteFunc(want, func(e *event.Socket) bool {
		setUp := e.Kind == event.KindBind || e.Kind == event.KindListen
		switch {
		case native && setUp:
			return false
		case e.Kind == event.KindConnect && e.Protocol == "tcp" && e.Result == "ok":
			return false
		case s.l.s.object.perf: // the legacy object has nothing beside
			return true
		case ring && told:
			if e.Kind != event.KindAccept {
				e.FD = -1
			}
			if e.Kind == event.KindBind && e.Result != "ok" {
				e.Fidelity, e.LocalAddress, e.LocalPort = "", "", 0
			}
			return false
		case (ring && way != "io_uring worker" || way == "x32") && !kernelAtLeast(5, 15): // nothing tells what the call is
			return true
		}
		e.FD = -1
		if e.Kind == event.KindConnect && e.Protocol == "udp" {
			e.Result, e.LocalAddress, e.LocalPort = "in_progress", "0.0.0.0", 0
			return false
		}
		return !setUp || e.Protocol != "tcp" || e.Result != "ok"
	})
}

func list(events []*event.Socket) string {
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%v %s %s:%d %s:%d %s by %s", e.Kind, e.SocketPath, e.LocalAddress, e.LocalPort,
			e.RemoteAddress, e.RemotePort, e.Result, e.Comm))
	}
	return strings.Join(out, "\n")
}

// Another thread moves the address after the kernel has taken it and before the call has done
// anything with it. What is told is what the kernel did: from the socket where it went well, else
// from the kernel's copy; where a tier has neither, what it tells is marked as read from user memory.
func TestLiveHeldAddress(t *testing.T) {
	eachCallTier(t, func(t *testing.T, l *live, tier string) {
		inNetwork(t, l, func(s *side) {
			pid, _ := s.helps("held", "userfaultfd")
			told, from := "192.0.2.1", event.FidelityKernel // of what failed
			if !below(tier) {
				told, from = "127.0.0.1", event.FidelityUser
			}
			var got []string
			for _, e := range s.here() {
				if e.PID != uint32(pid) {
					continue
				}
				at, port := e.RemoteAddress, e.RemotePort
				if e.Kind == event.KindBind {
					at, port = e.LocalAddress, e.LocalPort
				}
				if e.Kind == event.KindBind && e.Result != "ok" && port == 0 {
					port = 7004 // the socket has none
				}
				got = append(got, fmt.Sprintf("%v %s:%d %s %s", e.Kind, at, port, e.Result, e.Fidelity))
			}
			want := []string{
				"connect 127.0.0.1:7001 ok kernel",
				fmt.Sprintf("connect %s:7002 ENETUNREACH %s", told, from),
				"bind 127.0.0.1:7003 ok kernel",
				fmt.Sprintf("bind %s:7004 EADDRNOTAVAIL %s", told, from),
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	})
}

// Another thread moves the address while a call looks at it. What went well is told from the
// socket; what did not is told as the kernel saw it, or marked as read from user memory.
func TestLiveRace(t *testing.T) {
	eachCallTier(t, func(t *testing.T, l *live, tier string) {
		inNetwork(t, l, func(s *side) {
			_, out := s.helps("race", "1500")
			var ok, refused [2]int
			if n, err := fmt.Sscan(out, &ok[0], &refused[0], &ok[1], &refused[1]); n != 4 {
				t.Fatalf("helper printed %q: %v", out, err)
			}
			if ok[0] == 0 || refused[0] == 0 || ok[1] == 0 || refused[1] == 0 {
				t.Skipf("this kernel ran no two threads at once: %s", out)
			}
			var gotOK, gotRefused [2]int
			moved := 0
			for _, e := range s.here() {
				i, address, why := 0, e.RemoteAddress, "ENETUNREACH"
				if e.Kind == event.KindBind {
					i, address, why = 1, e.LocalAddress, "EADDRNOTAVAIL"
				}
				switch {
				case e.Result == "ok" && address == "127.0.0.1" && e.Fidelity == event.FidelityKernel:
					gotOK[i]++
				case e.Result == why && address == "192.0.2.1" && (e.Fidelity == event.FidelityKernel) == below(tier):
					gotRefused[i]++
				case e.Result == why && address == "127.0.0.1" && e.Fidelity == event.FidelityUser && !below(tier):
					gotRefused[i]++
					moved++
				default:
					t.Errorf("%s, fidelity %s", list([]*event.Socket{e}), e.Fidelity)
				}
			}
			if gotOK != ok || gotRefused != refused {
				t.Errorf("got %v ok, %v refused; want %v and %v\n%s", gotOK, gotRefused, ok, refused, l.counts())
			}
			t.Logf("%v ok, %v refused, %d of them told with the address of a moment later", ok, refused, moved)
		})
	})
}
