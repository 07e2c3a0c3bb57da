package agent

import (
	"context"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/process"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// kept is a store that remembers events as they were appended.
type kept struct {
	mu     sync.Mutex
	events []event.Event
}

func (k *kept) Append(e event.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kind := event.ByID(e.Head().Kind)
	c := kind.New()
	for i := range kind.Columns {
		switch col := &kind.Columns[i]; {
		case col.SetInt != nil:
			col.SetInt(c, col.Int(e))
		case col.SetStr != nil:
			col.SetStr(c, col.Str(e))
		}
	}
	k.events = append(k.events, c)
}

func (k *kept) Pin(...int64) {}

func (k *kept) Commit(context.Context) error { return nil }

// late is a source behind the one that it wraps: its batches come later, and its events
// are told under its own name.
type late struct {
	name   string
	source Source
	by     time.Duration
}

func (l *late) Run(ctx context.Context, out chan<- *event.Batch) error {
	through := make(chan *event.Batch, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- l.source.Run(ctx, through)
		close(through)
	}()
	for b := range through {
		for _, e := range b.Events {
			e.Head().Source = l.name
		}
		time.Sleep(l.by)
		out <- b
	}
	return <-ended
}

// TestLiveTwoSources splits kinds between two sensors of which one is slow, and starts
// processes that connect: each is told once, and in the order in which things happened.
func TestLiveTwoSources(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: attaches BPF programs")
	}
	open := func(kinds ...event.ID) *sensor.Sensor {
		s, err := sensor.Open(sensor.Options{Kinds: kinds, FS: procfs.At("")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	processes, sockets := open(event.KindExec, event.KindFork, event.KindExit), open(event.KindConnect)
	table := process.New(process.Options{})
	if err := processes.Seed(t.Context(), table.Seed); err != nil {
		t.Fatal(err)
	}
	store := &kept{}
	slow := &late{name: "slow", source: sockets, by: 60 * time.Millisecond}
	a := New(Options{
		Inputs: []Input{
			{Name: "ebpf", Source: processes, Hooks: processes.Hooks, Counts: processes.Counts},
			{Name: "slow", Source: slow, Hooks: sockets.Hooks, Lag: 2 * time.Second},
		},
		Processes: table, Store: store,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan Summary)
	go func() {
		s, err := a.Run(ctx)
		if err != nil {
			t.Error(err)
		}
		ended <- s
	}()

	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	port := server.Addr().(*net.TCPAddr).Port
	const n = 20
	script := "exec 3<>/dev/tcp/127.0.0.1/$0"
	for range n {
		if err := exec.Command("/bin/bash", "-c", script, server.Addr().String()[len("127.0.0.1:"):]).Run(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	// What happened before the question is there now.
	at := map[uint64][]string{} // start of a process → what it did
	path := map[uint64]string{}
	store.mu.Lock()
	var last uint64
	for _, e := range store.events {
		h := e.Head()
		if h.NTime < last {
			t.Errorf("%s of %s at %d comes after %d", h.Kind, h.Path, h.NTime, last)
		}
		last = h.NTime
		if c, ok := e.(*event.Socket); ok && int(c.RemotePort) != port {
			continue
		}
		if h.Kind == event.KindFork {
			continue
		}
		at[h.Start] = append(at[h.Start], h.Source+" "+h.Kind.String())
		path[h.Start] = h.Path
	}
	store.mu.Unlock()
	whole := 0
	for start, did := range at {
		if len(did) < 2 || did[1] != "slow connect" {
			continue
		}
		whole++
		check(t, "what "+path[start]+" did", did, []string{"ebpf exec", "slow connect", "ebpf exit"})
	}
	check(t, "processes that connected", whole, n)

	st, err := a.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.Counts {
		if c.What == event.Late {
			t.Errorf("late: %+v", c)
		}
	}
	check(t, "sources", st.Sources, []SourceStatus{{Name: "ebpf", Active: true}, {Name: "slow", Active: true}})
	cancel()
	check(t, "losses", (<-ended).Losses, []event.Count(nil))
}
