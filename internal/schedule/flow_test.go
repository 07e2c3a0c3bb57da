package schedule

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
	"github.com/goshawk-project/goshawk/internal/store"
	"github.com/goshawk-project/goshawk/internal/table"
)

// flow is all that an event passes from the store to a log file.
type flow struct {
	store *store.Store
	sched *Scheduler
	drain *sink.Drain
	path  string
	now   time.Time
	n     int
}

func (f *flow) Head(ctx context.Context) (int64, error) {
	if err := f.store.Commit(ctx); err != nil {
		return 0, err
	}
	return f.store.Stats().CommittedEID, nil
}

func newFlow(t testing.TB) *flow {
	dir := t.TempDir()
	f := &flow{now: time.Now(), path: filepath.Join(dir, "results.log")}
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	f.store, err = store.Open(store.Options{Dir: dir})
	fail(err)
	t.Cleanup(func() { f.store.Close() })
	db, err := state.Open(state.Options{Dir: dir, MaxLines: 1 << 30})
	fail(err)
	t.Cleanup(func() { db.Close() })
	var tables []schema.Relation
	for _, r := range table.EventTables(f.store, table.EventOptions{}) {
		tables = append(tables, Windowed(r))
	}
	engine, err := sql.Open(tables, sql.Options{})
	fail(err)
	t.Cleanup(func() { engine.Close() })
	f.sched = New(Options{
		State: db, Engine: engine, Log: f, Dir: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Now: func() time.Time { return f.now },
	})
	flags, _, err := config.Parse([]string{"--schedule_splay_percent=0"})
	fail(err)
	c, err := config.Load([]config.Source{{Name: "c", Text: []byte(
		`{"schedule":{"e":{"query":"SELECT pid, path, cmdline, cwd, auid, uid, euid, gid, egid, parent, time FROM process_events","interval":1}}}`)}}, config.Options{})
	fail(err)
	f.sched.Set(Setting{Config: c, Flags: flags, Host: "web-1", Results: []string{"results"}})
	file := &sink.File{Path: f.path, Mode: 0o600}
	f.drain = &sink.Drain{
		State: db, Stream: "results", Limits: func() (int, int) { return 1 << 20, 1 << 20 },
		Write: func(_ context.Context, b state.Batch, mark string) (int, string, error) {
			next, err := file.Write(b.Lines, mark)
			return 0, next, err
		},
	}
	file.Save = f.drain.Remember
	return f
}

// happen appends n events.
func (f *flow) happen(n int) {
	for range n {
		f.n++
		f.store.Append(&event.Exec{
			Header: event.Header{
				Kind: event.KindExec, Time: f.now.UnixNano(), PID: uint32(f.n), TID: uint32(f.n), PPID: 1, Start: uint64(f.n),
				BootID: "0123456789abcdef0123456789abcdef", Path: "/usr/bin/program", Comm: "program", Source: "ebpf",
			},
			Args: fmt.Sprintf("program\x00--number=%d\x00--more=/var/lib/something/or/other\x00", f.n), Cwd: "/var/lib",
		})
	}
}

// second is one second of the daemon.
func (f *flow) second(t testing.TB, n int) {
	for left := n; left > 0; left -= 1000 { // as batches come, with time for the disk between
		f.happen(min(left, 1000))
		if err := f.store.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	f.now = f.now.Add(time.Second)
	f.sched.second(context.Background(), f.sched.setting(), f.now.Unix(), false)
	if err := f.drain.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func cpu() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestTenThousandRows lets 10,000 rows a second through an event query, the scheduler and
// the filesystem logger, for half a minute of the schedule's time: each row is one line, and
// memory stays within bounds. What it costs is told, not judged: see BenchmarkEventQuery.
func TestTenThousandRows(t *testing.T) {
	const rate, seconds = 10_000, 30
	f := newFlow(t)
	f.second(t, rate)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	begun := cpu()
	peak := uint64(0)
	for range seconds - 1 {
		f.second(t, rate)
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
	}
	cost := cpu() - begun
	b, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for line := range bytes.Lines(b) {
		if i++; !bytes.Contains(line, fmt.Appendf(nil, "--number=%d ", i)) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
	if i != rate*seconds {
		t.Errorf("%d lines, want %d", i, rate*seconds)
	}
	rows := uint64(rate * (seconds - 1))
	if allocs := (now.Mallocs - before.Mallocs) / rows; allocs > 12 {
		t.Errorf("%d allocations a row", allocs)
	}
	if peak > 60<<20 {
		t.Errorf("%d MB of heap", peak>>20)
	}
	t.Logf("%d lines of %d bytes; %.1f us of CPU a row (10,000 a second are %.0f %% of a core), %d MB of heap, %d allocations a row",
		i, len(b)/i, float64(cost.Microseconds())/float64(rows), 100*cost.Seconds()/(seconds-1), peak>>20, (now.Mallocs-before.Mallocs)/rows)
}

// BenchmarkEventQuery is the cost of a row on its way from the store to a log file.
func BenchmarkEventQuery(b *testing.B) {
	f := newFlow(b)
	f.second(b, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for n := b.N; n > 0; n -= 10_000 {
		f.second(b, min(n, 10_000))
	}
}
