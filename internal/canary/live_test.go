package canary

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// The test binary is the program that a canary starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Argument {
		os.Exit(Child())
	}
	os.Exit(m.Run())
}

// watched is a canary before a real sensor, with the events of this process that are not
// the canary's.
type watched struct {
	*Canary
	sensor *sensor.Sensor
	mu     sync.Mutex
	shown  []string
	end    func()
}

func watch(t *testing.T, o sensor.Options) *watched {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: attaches BPF programs")
	}
	o.FS = procfs.At("")
	s, err := sensor.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Canary: New(s.Hooks, s.Counts), sensor: s}
	out := make(chan *event.Batch)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		defer close(out)
		if err := s.Run(ctx, out); err != nil {
			t.Error(err)
		}
	})
	run.Go(func() {
		for b := range out {
			for _, e := range b.Events {
				if h := e.Head(); !w.Own(e) && (h.PID == uint32(os.Getpid()) || h.PPID == uint32(os.Getpid())) {
					w.mu.Lock()
					w.shown = append(w.shown, fmt.Sprintf("%s of %d: %+v", h.Kind, h.PID, e))
					w.mu.Unlock()
				}
			}
			b.Release()
		}
	})
	w.end = sync.OnceFunc(func() {
		cancel()
		run.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.end)
	return w
}

// untried are hooks of which nothing is done: those below others, which tell the same, and
// that of modules.
var untried = []string{"bind_below", "connect_below", "io_uring", "module", "clone"}

func TestLiveEverythingIsTold(t *testing.T) {
	w := watch(t, sensor.Options{})
	for range 3 {
		tried := map[string]int{}
		for _, r := range w.Once() {
			if tried[r.Hook]++; slices.Contains(untried, r.Hook) {
				continue
			}
			if !r.OK() {
				t.Errorf("%s by %s, %s: %s%s", r.Kind, r.Hook, r.What, r.Problem, r.Skipped)
			}
			if r.Latency <= 0 || r.Latency > Patience || r.Source != "ebpf" {
				t.Errorf("%s by %s: told by %q after %v", r.Kind, r.Hook, r.Source, r.Latency)
			}
		}
		for _, h := range w.sensor.Hooks() {
			if h.Tier != "" && tried[h.Name] == 0 {
				t.Errorf("hook %s is not tried", h.Name)
			}
		}
	}
	w.end()
	for _, s := range w.shown {
		t.Errorf("shown: %s", s)
	}
}

// TestLiveSilentHooks takes hooks off: what they told is missed, and nothing else.
func TestLiveSilentHooks(t *testing.T) {
	off := map[string]string{"accept": "none", "exit": "none", "dns": "none"}
	w := watch(t, sensor.Options{Tiers: off})
	// A canary that does not know that they are off.
	w.hooks = func() []event.Hook {
		hooks := w.sensor.Hooks()
		for i := range hooks {
			if hooks[i].Tier == "" {
				hooks[i].Tier = "believed"
			}
		}
		return hooks
	}
	begun := time.Now()
	results := w.Once()
	if d := time.Since(begun); d < Patience || d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	for _, r := range results {
		if slices.Contains(untried, r.Hook) {
			continue
		}
		if want := off[r.Hook] != ""; r.Silent != want || r.OK() == want || r.Skipped != "" {
			t.Errorf("%s by %s: %+v", r.Kind, r.Hook, r)
		}
	}
}

func TestLiveHooksThatAreOff(t *testing.T) {
	w := watch(t, sensor.Options{Kinds: []event.ID{event.KindExec, event.KindDNS}, Tiers: map[string]string{"dns": "none"}})
	for _, r := range w.Once() {
		switch {
		case r.Kind == event.KindExec:
			if !r.OK() {
				t.Errorf("exec: %+v", r)
			}
		case r.Skipped != "no hook observes it":
			t.Errorf("%s: %+v", r.Kind, r)
		}
	}
}

func TestObserver(t *testing.T) {
	hooks := []event.Hook{
		{Source: "ebpf", Name: "tcp_state", Kinds: []event.ID{event.KindConnect}},
		{Source: "ebpf", Name: "connect", Kinds: []event.ID{event.KindConnect}, Tier: "fexit"},
		{Source: "ebpf", Name: "other", Kinds: []event.ID{event.KindAccept}, Tier: "fexit"},
		{Source: "audit", Name: "rules", Kinds: []event.ID{event.KindUser, event.KindExec}, Tier: "rules"},
	}
	for _, c := range []struct {
		kind  event.ID
		hooks []string
		want  string
	}{
		{event.KindConnect, []string{"tcp_state", "connect"}, "connect"},
		{event.KindConnect, []string{"tcp_state"}, ""},
		{event.KindAccept, []string{"accept"}, ""},
		{event.KindExec, []string{"exec"}, "rules"},
	} {
		got := ""
		if h := observer(hooks, &trial{Result: Result{Kind: c.kind}, hooks: c.hooks}); h != nil {
			got = h.Name
		}
		if got != c.want {
			t.Errorf("%s by %v: %q, want %q", c.kind, c.hooks, got, c.want)
		}
	}
}

// TestOthersAreNotOwn shows a canary what other processes, and this one, do in much the same way.
func TestOthersAreNotOwn(t *testing.T) {
	me := uint32(os.Getpid())
	c := New(func() []event.Hook { return nil }, func() []event.Count { return nil })
	r := &round{nonce: "00ff", child: 77, ports: []uint16{4000}, path: "@goshawk-canary-00ff", name: "00ff.goshawk-canary.invalid",
		server: "127.53.0.255", begun: time.Now(), told: make(chan struct{})}
	c.round = r
	head := func(kind event.ID, pid uint32) event.Header { return event.Header{Kind: kind, PID: pid} }
	ours := []event.Event{
		&event.Exec{Header: event.Header{Kind: event.KindExec, PID: 78, PPID: me}, Args: childArgs("00ff")},
		&event.Exit{Header: event.Header{Kind: event.KindExit, PID: 78, PPID: me}},
		&event.Fork{Header: head(event.KindFork, me), ChildPID: 78},
		&event.Socket{Header: head(event.KindConnect, me), LocalAddress: "127.0.0.1", RemoteAddress: "127.0.0.1", RemotePort: 4000},
		&event.Socket{Header: head(event.KindBind, me), LocalAddress: "127.53.0.255", LocalPort: 53},
		&event.Socket{Header: head(event.KindAccept, me), SocketPath: r.path},
		&event.DNS{Header: head(event.KindDNS, me), Question: r.name},
	}
	others := []event.Event{
		&event.Exec{Header: event.Header{Kind: event.KindExec, PID: 79, PPID: me}, Args: childArgs("00fe")},
		&event.Exit{Header: event.Header{Kind: event.KindExit, PID: 79, PPID: me}},
		&event.Fork{Header: head(event.KindFork, me), ChildPID: 79},
		&event.Fork{Header: head(event.KindFork, 5), ChildPID: 78},
		&event.Socket{Header: head(event.KindConnect, 5), LocalAddress: "127.0.0.1", RemoteAddress: "127.0.0.1", RemotePort: 4000},
		&event.Socket{Header: head(event.KindConnect, me), LocalAddress: "192.0.2.7", RemoteAddress: "192.0.2.8", LocalPort: 4000, RemotePort: 443},
		&event.Socket{Header: head(event.KindConnect, me), LocalAddress: "127.0.0.1", RemoteAddress: "127.0.0.53", RemotePort: 53},
		&event.Socket{Header: head(event.KindAccept, me), SocketPath: "/run/goshawk/goshawk.sock"},
		&event.DNS{Header: head(event.KindDNS, me), Question: "example.com"},
	}
	for _, e := range ours {
		if !c.Own(e) {
			t.Errorf("not its own: %+v", e)
		}
	}
	for _, e := range others {
		if c.Own(e) {
			t.Errorf("its own: %+v", e)
		}
	}
	r.begun = r.begun.Add(-time.Minute) // ports are used again
	for i, e := range ours[2:] {
		if c.Own(e) {
			t.Errorf("its own a minute later: %d %+v", i, e)
		}
	}
	slices.Reverse(others)
	if c.Own(&event.Exec{Header: event.Header{Kind: event.KindExec, PID: 5, PPID: 6}, Args: childArgs("00ff")}) {
		t.Error("while no round is under way, an exec elsewhere is its own")
	}
}

func TestMessages(t *testing.T) {
	q, a, err := messages("0123456789abcdef.goshawk-canary.invalid")
	if err != nil || len(q) == 0 || len(a) <= len(q) {
		t.Errorf("question %q, answer %q, %v", q, a, err)
	}
}
