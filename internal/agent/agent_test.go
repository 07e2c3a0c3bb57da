package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/process"
	"github.com/goshawk-project/goshawk/internal/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replay is a source of recorded events, in batches of at most size. With hold it waits
// for the stop before its end.
type replay struct {
	events []event.Event
	size   int
	hold   bool
	err    error
}

func (r *replay) Run(ctx context.Context, out chan<- *event.Batch) error {
	b := event.NewBatch()
	for i, e := range r.events {
		switch e := e.(type) {
		case *event.Exec:
			*b.Add(e.Kind).(*event.Exec) = *e
		case *event.Fork:
			*b.Add(e.Kind).(*event.Fork) = *e
		case *event.Exit:
			*b.Add(e.Kind).(*event.Exit) = *e
		case *event.Socket:
			*b.Add(e.Kind).(*event.Socket) = *e
		case *event.Module:
			*b.Add(e.Kind).(*event.Module) = *e
		}
		if len(b.Events) == r.size || i == len(r.events)-1 {
			out <- b
			b = event.NewBatch()
		}
	}
	b.Release()
	if r.hold {
		<-ctx.Done()
	}
	return r.err
}

// sourceFunc is a source made of its Run.
type sourceFunc func(ctx context.Context, out chan<- *event.Batch) error

func (f sourceFunc) Run(ctx context.Context, out chan<- *event.Batch) error { return f(ctx, out) }

// memory is a store that forgets at its end.
type memory struct {
	mu        sync.Mutex
	lines     []string
	losses    []event.Loss
	committed int
	pinned    []int64
}

func (m *memory) Append(e event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Head().EID = int64(len(m.lines) + 1)
	m.lines = append(m.lines, describe(e))
	if l, ok := e.(*event.Loss); ok {
		m.losses = append(m.losses, *l)
	}
}

func (m *memory) Commit(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.committed = len(m.lines)
	return nil
}

func (m *memory) Pin(eids ...int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pinned = append(m.pinned, eids...)
}

func (m *memory) get() (lines []string, committed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.lines...), m.committed
}

// describe is what the tests compare of an event.
func describe(e event.Event) string {
	h := e.Head()
	s := h.Kind.String() + " " + h.Path
	switch e := e.(type) {
	case *event.Exec:
		s += " " + e.Ancestors
	case *event.Module:
		s += e.Name + " " + e.SHA256 + e.HashError
	case *event.Loss:
		s += h.Source + " " + e.KindLost + " " + e.Reason
	}
	return s
}

func recording() []event.Event {
	head := func(kind event.ID, at uint64, pid uint32, start uint64) event.Header {
		return event.Header{Kind: kind, NTime: at, PID: pid, TID: pid, Start: start}
	}
	x := head(event.KindExec, 30, 20, 20)
	x.Path, x.PPID, x.PStart = "/bin/ls", 10, 10
	return []event.Event{
		&event.Fork{Header: head(event.KindFork, 20, 10, 10), ChildPID: 20, ChildStart: 20, ChildPPID: 10},
		&event.Exec{Header: x, Args: "ls\x00"},
		&event.Socket{Header: head(event.KindConnect, 40, 20, 20)},
		&event.Exit{Header: head(event.KindExit, 50, 20, 20)},
		&event.Exit{Header: head(event.KindExit, 50, 20, 20)}, // reported twice
	}
}

func seeded() *process.Table {
	t := process.New(process.Options{})
	t.Seed(&event.Exec{Header: event.Header{PID: 10, Start: 10, Path: "/bin/sh", Source: "ebpf"}, Args: "sh\x00"})
	return t
}

var recorded = []string{
	"fork /bin/sh",
	`exec /bin/ls [{"pid":10,"path":"/bin/sh","cmdline":"sh"}]`,
	"connect /bin/ls",
	"exit /bin/ls",
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestTheWayOfAnEvent(t *testing.T) {
	store := &memory{}
	r, w := io.Pipe()
	out := sink.NewStream(w, sink.Options{Name: "stdout", Encode: func(dst []byte, e event.Event) []byte {
		return append(append(dst, describe(e)...), '\n')
	}})
	printed := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		printed <- string(b)
	}()
	a := New(Options{
		Inputs:    []Input{{Name: "replay", Source: &replay{events: recording(), size: 2}}},
		Processes: seeded(), Store: store,
		Outputs: []Output{{Name: "stdout", Sink: out, Counts: out.Counts, Close: out.Close}},
	})
	sum, err := a.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	lines, committed := store.get()
	check(t, "stored", lines, recorded)
	check(t, "committed", committed, 4)
	check(t, "printed", <-printed, "fork /bin/sh\n"+recorded[1]+"\nconnect /bin/ls\nexit /bin/ls\n")
	check(t, "events", sum.Events, []KindCount{{event.KindExec, 1}, {event.KindFork, 1}, {event.KindExit, 2}, {event.KindConnect, 1}})
	check(t, "losses", sum.Losses, []event.Count(nil))
	if sum.Usage.CPU <= 0 || sum.Usage.Since <= 0 {
		t.Errorf("usage %+v", sum.Usage)
	}
	if _, err := a.Status(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("status after the end: %v", err)
	}
}

func TestStatusAndSync(t *testing.T) {
	store := &memory{}
	hook := event.Hook{Source: "ebpf", Name: "exec", Tier: "tp_btf"}
	a := New(Options{
		Inputs: []Input{{Name: "ebpf", Source: &replay{events: recording(), size: 2, hold: true},
			Hooks: func() []event.Hook { return []event.Hook{hook} }}},
		Processes: seeded(), Store: store,
		Peak: func() (uint64, error) { return 42, nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := a.Run(ctx)
		ended <- err
	}()
	for lines, _ := store.get(); len(lines) < 4; lines, _ = store.get() { // all under way
		if err := a.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Sync(ctx); err != nil { // they may have come after the last one
		t.Fatal(err)
	}
	_, committed := store.get()
	check(t, "committed by Sync", committed, 4)

	got, err := a.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "peak", got.Usage.Peak, uint64(42))
	got.Usage, got.Begun, got.TableSize = Usage{}, time.Time{}, 0
	check(t, "status", got, Status{
		Events:  []KindCount{{event.KindExec, 1}, {event.KindFork, 1}, {event.KindExit, 2}, {event.KindConnect, 1}},
		Batches: 3, Sources: []SourceStatus{{Name: "ebpf", Active: true}}, Hooks: []event.Hook{hook}, Processes: 2,
		Counts: []event.Count{
			{Source: "agent", Kind: event.KindExit, What: event.Filtered, Reason: "duplicate", N: 1},
			{Source: "process", What: event.Evicted, Reason: "exited_early"},
			{Source: "process", What: event.Evicted, Reason: "running"},
			{Source: "process", What: event.Evicted, Reason: "lookup_limit"},
		},
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestLossesBecomeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		var mu sync.Mutex
		var counts []event.Count
		set := func(c ...event.Count) { mu.Lock(); counts = c; mu.Unlock() }
		polls := 0
		batches := make(chan *event.Batch)
		a := New(Options{
			Inputs: []Input{{Name: "ebpf", Source: sourceFunc(func(ctx context.Context, out chan<- *event.Batch) error {
				for {
					select {
					case b := <-batches:
						out <- b
					case <-ctx.Done():
						return nil
					}
				}
			}), Counts: func() []event.Count { mu.Lock(); defer mu.Unlock(); polls++; return counts }}},
			Processes: seeded(), Store: store, BootID: "boot",
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan Summary)
		begun := time.Now()
		go func() {
			s, _ := a.Run(ctx)
			ended <- s
		}()

		ring := func(n uint64) event.Count {
			return event.Count{Source: "ebpf", Kind: event.KindExec, What: event.Lost, Reason: "ring_full", N: n}
		}
		set(ring(3), event.Count{Source: "ebpf", Kind: event.KindExec, What: event.Delivered, N: 9})
		time.Sleep(time.Hour)
		check(t, "polls of an idle agent", polls, 0)

		batches <- event.NewBatch()
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		first := []event.Loss{{
			Header: event.Header{Kind: event.KindLoss, EID: 1, Time: begun.Add(time.Hour + time.Second).UnixNano(), Source: "ebpf",
				BootID: "boot", AUID: 4294967295, Session: 4294967295},
			KindLost: "exec", Reason: "ring_full", Count: 3,
			WindowStart: begun.UnixNano(), WindowEnd: begun.Add(time.Hour + time.Second).UnixNano(),
		}}
		ignore := cmpopts.IgnoreFields(event.Header{}, "NTime")
		if d := cmp.Diff(first, store.losses, ignore); d != "" {
			t.Errorf("first window (-want +got):\n%s", d)
		}

		// Two counters grow, one does not, and losses of loss events make none.
		set(ring(5), event.Count{Source: "ebpf", What: event.Lost, Reason: "malformed", N: 1},
			event.Count{Source: "stdout", Kind: event.KindLoss, What: event.Lost, Reason: "sink_full", N: 7})
		time.Sleep(time.Second)
		synctest.Wait()
		lines, _ := store.get()
		check(t, "second window", lines[1:], []string{"loss ebpf exec ring_full", "loss ebpf unknown malformed"})
		check(t, "count", store.losses[1].Count, uint64(2))
		check(t, "windows join", store.losses[1].WindowStart, store.losses[0].WindowEnd)

		time.Sleep(time.Minute)
		before := polls
		time.Sleep(time.Hour)
		check(t, "polls once idle again", polls, before)

		set(ring(6))
		cancel()
		sum := <-ended
		lines, _ = store.get()
		check(t, "at the end", lines[3:], []string{"loss ebpf exec ring_full"})
		check(t, "summary", sum.Losses, []event.Count{ring(6)})
	})
}

func TestStopDrains(t *testing.T) {
	store := &memory{}
	a := New(Options{
		Inputs: []Input{{Name: "late", Source: sourceFunc(func(ctx context.Context, out chan<- *event.Batch) error {
			<-ctx.Done()
			return (&replay{events: many(5000), size: 100}).Run(ctx, out)
		})}},
		Processes: process.New(process.Options{}), Store: store,
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	lines, committed := store.get()
	check(t, "events", len(lines), 5000)
	check(t, "committed", committed, 5000)
}

func many(n int) []event.Event {
	out := make([]event.Event, n)
	for i := range out {
		out[i] = &event.Socket{Header: event.Header{Kind: event.KindConnect, NTime: uint64(i), PID: 5, Start: 1}}
	}
	return out
}

func TestSourceFails(t *testing.T) {
	store := &memory{}
	var warned []string
	a := New(Options{
		Inputs: []Input{
			{Name: "bad", Source: &replay{err: errors.New("read ring: no such device")}},
			{Name: "good", Source: &replay{events: many(3), size: 1}},
		},
		Processes: process.New(process.Options{}), Store: store,
		Warn: func(s string) { warned = append(warned, s) },
	})
	_, err := a.Run(t.Context())
	if err == nil || err.Error() != "source bad: read ring: no such device" {
		t.Errorf("error %v", err)
	}
	lines, _ := store.get()
	check(t, "events of the other", len(lines), 3)
}

func TestStuckSourceDoesNotHoldTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		a := New(Options{
			Inputs: []Input{{Name: "stuck", Source: sourceFunc(func(context.Context, chan<- *event.Batch) error {
				<-release
				return nil
			})}},
			Processes: process.New(process.Options{}), Store: &memory{},
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := a.Run(ctx)
		if err == nil || err.Error() != "stop sources: not done within 10s" {
			t.Errorf("error %v", err)
		}
		close(release)
	})
}

func TestSinkErrorIsReported(t *testing.T) {
	a := New(Options{
		Processes: process.New(process.Options{}), Store: &memory{},
		Outputs: []Output{{Name: "x", Close: func(context.Context) error { return errors.New("write x: broken pipe") }}},
	})
	if _, err := a.Run(t.Context()); err == nil || err.Error() != "write x: broken pipe" {
		t.Errorf("error %v", err)
	}
}

type nowhere struct{}

func (nowhere) Append(event.Event)           {}
func (nowhere) Pin(...int64)                 {}
func (nowhere) Commit(context.Context) error { return nil }

func TestLoopAllocatesNothing(t *testing.T) {
	a := New(Options{Processes: seeded(), Store: nowhere{}})
	n := testing.AllocsPerRun(100, func() {
		b := event.NewBatch()
		for i := range 64 {
			h := b.Add(event.KindConnect).Head()
			h.NTime, h.PID, h.Start = uint64(i), 10, 10
		}
		a.receive(b)
	})
	if n > 8 { // a new batch, when the pool was emptied; it is at random under -race
		t.Errorf("%v allocations a batch of 64", n)
	}
}
