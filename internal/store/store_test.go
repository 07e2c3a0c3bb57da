package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/goshawk-project/goshawk/internal/event"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		appendForever(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens a store; a warning that o does not ask for fails the test.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Warn == nil {
		o.Warn = func(s string) { t.Errorf("warning: %s", s) }
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func commit(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// all returns copies of what a scan finds.
func all(t *testing.T, log event.Log, sel event.Selection) []event.Event {
	t.Helper()
	out, err := collect(t.Context(), log, sel)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func collect(ctx context.Context, log event.Log, sel event.Selection) ([]event.Event, error) {
	c, err := log.Scan(ctx, sel)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []event.Event
	for {
		e, err := c.Next()
		if e == nil || err != nil {
			return out, err
		}
		out = append(out, clone(e))
	}
}

// same fails the test at the first event that differs.
func same(t *testing.T, what string, want, got []event.Event) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if !reflect.DeepEqual(want[i], got[i]) { // ten times as fast as cmp.Diff
			t.Errorf("%s: event %d: %s", what, i, cmp.Diff(want[i], got[i]))
			return
		}
	}
	if len(want) != len(got) {
		t.Errorf("%s: %d events, not %d", what, len(got), len(want))
	}
}

// eids returns the numbers of the events that a scan finds.
func eids(t *testing.T, log event.Log, sel event.Selection) []int64 {
	t.Helper()
	sel.Columns = []string{}
	var out []int64
	for _, e := range all(t, log, sel) {
		out = append(out, e.Head().EID)
	}
	return out
}

func clone(e event.Event) event.Event {
	k := event.ByID(e.Head().Kind)
	c := k.New()
	if !k.Copy(c, e) {
		panic(fmt.Sprintf("BUG: %T is of kind %s", e, k.Name))
	}
	return c
}

// randomEvent fills every stored column of an event with anything, but for its kind.
func randomEvent(r *rand.Rand, kind *event.Kind) event.Event {
	e := kind.New()
	for i := range kind.Columns {
		c := &kind.Columns[i]
		switch {
		case c.Int != nil:
			switch r.IntN(4) {
			case 0:
			case 1:
				c.SetInt(e, int64(r.IntN(5)))
			case 2:
				c.SetInt(e, -int64(r.IntN(1000)))
			default:
				c.SetInt(e, int64(r.Uint64()))
			}
		case c.Str != nil:
			switch r.IntN(4) {
			case 0:
			case 1:
				c.SetStr(e, "word"+string(rune('a'+r.IntN(26))))
			case 2:
				c.SetStr(e, strings.Repeat("long\x00\xff", r.IntN(500)))
			default:
				b := make([]byte, r.IntN(40))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				c.SetStr(e, string(b))
			}
		}
	}
	e.Head().Kind = kind.ID
	e.Head().Time = 1_800_000_000_000_000_000 + int64(r.IntN(1_000_000_000_000))
	return e
}

func randomEvents(seed uint64, n int) []event.Event {
	r := rand.New(rand.NewPCG(seed, 0))
	var out []event.Event
	for range n {
		out = append(out, randomEvent(r, event.Kinds[r.IntN(len(event.Kinds))]))
	}
	return out
}

func TestWhatIsAppendedComesBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []event.Event
	}{
		{"nothing", nil},
		{"one", randomEvents(1, 1)},
		{"anything", randomEvents(2, 4000)},
		{"a busy host", newFeed().batch(10_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			for i, e := range c.events {
				s.Append(e)
				if e.Head().EID != int64(i+1) {
					t.Fatalf("event %d has number %d", i, e.Head().EID)
				}
				if i%333 == 0 {
					commit(t, s)
				}
			}
			commit(t, s)
			same(t, "from the store", c.events, all(t, s, event.Selection{}))
			r, err := OpenReader(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			same(t, "from a reader beside it", c.events, all(t, r, event.Selection{}))
			shut(t, s)
			same(t, "from the store opened again", c.events, all(t, open(t, Options{Dir: dir}), event.Selection{}))
		})
	}
}

func TestEventsAreDurableAfterASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Options{Dir: t.TempDir()})
		for _, e := range newFeed().batch(10) {
			s.Append(e)
		}
		if got := eids(t, s, event.Selection{}); got != nil {
			t.Errorf("visible before they are durable: %v", got)
		}
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		if got := len(eids(t, s, event.Selection{})); got != 10 {
			t.Errorf("%d events after a second, not 10", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := s.Stats().Commits; got != 1 {
			t.Errorf("%d commits, not 1: an idle store writes", got)
		}
		shut(t, s)
	})
}

func TestClosingCommits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	want := newFeed().batch(2500)
	for _, e := range want {
		s.Append(e)
	}
	shut(t, s)
	if err := s.Commit(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
	same(t, "opened again", want, all(t, open(t, Options{Dir: dir}), event.Selection{}))
}

func TestNumbersAreNeverUsedAgain(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Warn: func(string) {}}
	last := int64(0)
	run := func(what string) {
		t.Helper()
		s := open(t, o)
		e := newFeed().nextExec()
		s.Append(e)
		if e.EID <= last {
			t.Errorf("%s: number %d after %d", what, e.EID, last)
		}
		last = e.EID
		shut(t, s)
	}
	run("first")
	run("again")
	if last != 2 {
		t.Errorf("after an orderly end the next number is %d, not 2", last)
	}
	os.Remove(filepath.Join(dir, dbName))
	run("without the database")
	os.WriteFile(filepath.Join(dir, dbName), []byte(strings.Repeat("garbage!", 1000)), 0o600)
	run("with a damaged database")
	os.Remove(filepath.Join(dir, lockName))
	run("without the lock file")
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	s := open(t, Options{Dir: dir})
	s.Append(newFeed().nextExec())
	commit(t, s)
	got := map[string]fs.FileMode{}
	for _, name := range []string{".", dbName, dbName + "-wal", dbName + "-shm", lockName} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = info.Mode().Perm()
	}
	want := map[string]fs.FileMode{".": 0o700, dbName: 0o600, dbName + "-wal": 0o600, dbName + "-shm": 0o600, lockName: 0o600}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOneAgentAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	var locked *LockedError
	if !errors.As(err, &locked) || !errors.Is(err, ErrLocked) {
		t.Fatalf("second agent: %v", err)
	}
	if want := (LockedError{Dir: dir, PID: os.Getpid()}); *locked != want {
		t.Errorf("got %+v, want %+v", *locked, want)
	}
	shut(t, s)
	open(t, Options{Dir: dir})
}

func TestReadersAndTheWriterAtOnce(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	const n = 20_000
	events := newFeed().batch(n)
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if err := s.Commit(t.Context()); err != nil {
					t.Error(err)
				}
				got, err := collect(t.Context(), s, event.Selection{Columns: []string{"path"}})
				if err != nil {
					t.Error(err)
				}
				for i, e := range got {
					if e.Head().EID != int64(i+1) || e.Head().Path == "" {
						t.Errorf("row %d is number %d of %q", i, e.Head().EID, e.Head().Path)
						return
					}
				}
				s.Stats()
				s.Counts()
			}
		})
	}
	for i, e := range events {
		s.Append(e)
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	readers.Wait()
	commit(t, s)
	if got := len(eids(t, s, event.Selection{})); got != n {
		t.Errorf("%d events, not %d", got, n)
	}
}

func TestCountsAddUp(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	for _, e := range newFeed().only(event.KindExec, 7) {
		s.Append(e)
	}
	for _, e := range newFeed().only(event.KindBind, 5) {
		s.Append(e)
	}
	commit(t, s)
	want := []event.Count{
		{Source: "store", Kind: event.KindExec, What: event.Delivered, N: 7},
		{Source: "store", Kind: event.KindExec, What: event.Generated, N: 7},
		{Source: "store", Kind: event.KindBind, What: event.Delivered, N: 5},
		{Source: "store", Kind: event.KindBind, What: event.Generated, N: 5},
	}
	if diff := cmp.Diff(want, s.Counts()); diff != "" {
		t.Error(diff)
	}
	st := s.Stats()
	if st.LastEID != 12 || st.CommittedEID != 12 || st.Pending != 0 || st.Err != nil {
		t.Errorf("got %+v", st)
	}
}
