// Package canary does one thing of each kind on purpose, and looks whether it is told: by
// the source, with the right fields, within a second. So a hook that has gone silent (a
// program that somebody detached, a kernel that does not call it) is noticed, where an
// idle host would look the same.
//
// It knows events, and must never know which source tells of them or who carries them: it
// is shown each event, and says which are its own. Nothing is started but this program
// itself, and nothing leaves the host.
package canary

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Patience is how long a thing done may take to be told.
const Patience = time.Second

// maxStart is how long the child may take to start and end: long on a machine that is busy.
const maxStart = 5 * time.Second

// Result is what became of one thing done.
type Result struct {
	Hook    string // that should tell
	Source  string // of the hook
	Kind    event.ID
	What    string        // in words
	Latency time.Duration // from doing it until it was told
	// Skipped says why it was not tried: the hook is not attached, or it cannot be done here.
	Skipped string
	// Problem says what is wrong: it was not told, or not truly.
	Problem string
	Silent  bool // it was not told
}

// OK reports whether it was told, and truly.
func (r *Result) OK() bool { return r.Skipped == "" && r.Problem == "" }

// Canary is shown the events of one run of the sources. Its methods may be called from any
// goroutine.
type Canary struct {
	hooks  func() []event.Hook
	counts func() []event.Count
	self   atomic.Uint32 // this process, as events call it
	busy   atomic.Bool   // a round is under way

	one sync.Mutex // held for a round

	mu     sync.Mutex
	round  *round // the last one, whose events may still come
	missed missed
}

// New returns a canary for the sources whose hooks and counters the functions tell of.
func New(hooks func() []event.Hook, counts func() []event.Count) *Canary {
	c := &Canary{hooks: hooks, counts: counts}
	c.self.Store(uint32(os.Getpid()))
	return c
}

// round is what was done at one time.
type round struct {
	nonce    string
	child    uint32   // the process started, 0 not known yet
	starting bool     // it may have begun already
	ports    []uint16 // of TCP and of the client of the name server
	path     string   // of the unix socket, as events show it
	name     string   // asked for in DNS
	server   string   // address asked
	cgroup   string   // name of the one made
	cgroupID uint64
	path2    string // asked for by acts, which is nowhere
	number   uint32 // likewise, of nobody
	begun    time.Time
	waiting  []*trial
	complete bool          // everything has been done
	told     chan struct{} // closed when nothing is waited for
	other    uint32        // the pid by which the kernel knows us, where that is not self
}

// trial is one thing done and what should be told of it.
type trial struct {
	Result
	hooks []string // those that may tell, best first
	match func(e event.Event) bool
	check func(e event.Event) string // what is wrong with it, "" nothing
	done  time.Time                  // when it was done
}

// Own reports whether e tells of something that the canary did: nobody needs to see it. It
// is called with every event and costs two comparisons for those of others.
func (c *Canary) Own(e event.Event) bool {
	h := e.Head()
	if self := c.self.Load(); h.PID != self && h.PPID != self && (h.Kind != event.KindExec || !c.busy.Load()) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.round
	if r == nil || !r.owns(e, c.self.Load()) {
		return false
	}
	now := time.Now()
	for i, t := range r.waiting {
		if !t.match(e) {
			continue
		}
		t.Problem, t.Latency = strings.TrimSuffix(t.check(e), "; "), now.Sub(t.done)
		r.waiting = slices.Delete(r.waiting, i, i+1)
		r.end()
		break
	}
	return true
}

// owns reports whether e is of this round: done by this process or the one it started, and
// under a name that nothing else has. Sockets of the round are known by loopback addresses
// and ports, and only for a while: ports are used again.
func (r *round) owns(e event.Event, self uint32) bool {
	h := e.Head()
	if h.Kind == event.KindExec {
		x, ok := e.(*event.Exec)
		if !ok || x.Args != childArgs(r.nonce) {
			return false
		}
		r.child = h.PID
		if h.PPID != self {
			r.other = h.PPID
		}
		return true
	}
	if r.child != 0 && h.PID == r.child {
		return true
	}
	if h.PID != self || time.Since(r.begun) > 10*time.Second {
		return false
	}
	switch e := e.(type) {
	case *event.Fork:
		return r.starting || r.child != 0 && e.ChildPID == r.child
	case *event.Signal:
		return r.child != 0 && e.TargetPID == r.child || r.starting
	case *event.DNS:
		return r.name != "" && e.Question == r.name
	case *event.Container:
		return r.cgroupID != 0 && e.Cgroup == r.cgroupID
	case *event.Socket:
		if e.SocketPath != "" {
			return e.SocketPath == r.path
		}
		if r.server != "" && (e.LocalAddress == r.server || e.RemoteAddress == r.server) {
			return true
		}
		return loopback(e.LocalAddress) && loopback(e.RemoteAddress) &&
			(slices.Contains(r.ports, e.LocalPort) || slices.Contains(r.ports, e.RemotePort))
	}
	return r.acted(e)
}

// Once does one thing of each kind that a hook observes now, and waits until all are told,
// but no longer than Patience. It returns a result for each.
func (c *Canary) Once() []Result {
	c.one.Lock()
	defer c.one.Unlock()
	results, other := c.try()
	if other != 0 && other != c.self.Load() {
		// The kernel knows this process by another number than we do (pid_namespaces(7)).
		c.self.Store(other)
		results, _ = c.try()
	}
	return results
}

func (c *Canary) try() (results []Result, other uint32) {
	c.busy.Store(true)
	defer c.busy.Store(false)
	var random [8]byte
	rand.Read(random[:]) // never fails
	r := &round{nonce: hex.EncodeToString(random[:]), begun: time.Now(), told: make(chan struct{})}
	hooks, before := c.hooks(), lostByKind(c.counts())
	c.mu.Lock()
	c.round = r
	c.mu.Unlock()

	done := c.process(r, hooks)
	for _, act := range []func(*round) []*trial{tcp4, tcp6, local, names, group, acts} {
		c.mu.Lock() // what is told of it is looked at when it is known what to look for
		ts := act(r)
		for _, t := range ts {
			c.expect(r, t, hooks)
		}
		c.mu.Unlock()
		done = append(done, ts...)
	}
	c.mu.Lock()
	r.complete = true
	r.end()
	c.mu.Unlock()
	select {
	case <-r.told:
	case <-time.After(Patience):
	}

	after := lostByKind(c.counts())
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range r.waiting {
		t.Silent, t.Problem = true, "not told within "+Patience.String()
		if n := after[t.Kind] - before[t.Kind]; n > 0 {
			t.Silent, t.Problem = false, fmt.Sprintf("not told: %d records of the kind were lost meanwhile", n)
		}
	}
	r.waiting = nil
	tried := make(map[string]bool)
	for _, t := range done {
		results = append(results, t.Result)
		tried[t.Source+t.Hook] = true
	}
	for i := range hooks {
		if h := &hooks[i]; h.Tier != "" && !tried[h.Source+h.Name] {
			why := Untried[h.Name]
			if why == "" {
				why = "nothing is known that would try it without harm"
			}
			results = append(results, Result{Hook: h.Name, Source: h.Source, Kind: h.Kinds[0], What: "nothing", Skipped: why})
		}
	}
	return results, r.other
}

// Untried are hooks that no trial is for, with why.
var Untried = map[string]string{
	"file":          "it tells of the files that are watched, and not of what the agent itself does",
	"bind_below":    "it tells of what comes by no native system call",
	"connect_below": "it tells of what comes by no native system call",
	"io_uring":      "it tells of what comes by io_uring",
	"module":        "it takes a module to load and unload",
	"clone":         "it stands where hook fork does, and tells of processes with namespaces of their own",
}

// lostByKind sums what was lost on the way from the kernel, by kind.
func lostByKind(counts []event.Count) map[event.ID]uint64 {
	lost := make(map[event.ID]uint64)
	for _, c := range counts {
		if c.What == event.Lost && c.Reason != Reason {
			lost[c.Kind] += c.N
		}
	}
	return lost
}

// end ends the waiting when all that was done has been told.
func (r *round) end() {
	if r.complete && len(r.waiting) == 0 {
		r.complete = false
		close(r.told)
	}
}

// expect waits for what t should be told as, if a hook observes it.
func (c *Canary) expect(r *round, t *trial, hooks []event.Hook) {
	if h := observer(hooks, t); h != nil {
		t.Hook, t.Source = h.Name, h.Source
	}
	switch {
	case t.Skipped != "":
	case t.Hook == "":
		t.Skipped = "no hook observes it"
	default:
		r.waiting = append(r.waiting, t)
	}
}

// observer is the attached hook that should tell of t, nil when there is none. The names
// are those of the eBPF source, where several hooks may tell of one kind, each of a part.
func observer(hooks []event.Hook, t *trial) *event.Hook {
	for _, name := range t.hooks {
		for i := range hooks {
			if h := &hooks[i]; h.Name == name && h.Tier != "" {
				return h
			}
		}
	}
	for i := range hooks {
		if h := &hooks[i]; h.Source != "ebpf" && h.Tier != "" && slices.Contains(h.Kinds, t.Kind) {
			return h
		}
	}
	return nil
}
