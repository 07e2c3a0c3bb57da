package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

// expired is what left the store, by reason and kind.
func expired(s *Store) map[string]uint64 {
	out := map[string]uint64{}
	for _, c := range s.Counts() {
		if c.What == event.Expired {
			out[c.Reason+" "+c.Kind.String()] += c.N
		}
	}
	return out
}

func table(s *Store, name string) TableStats {
	for _, t := range s.Stats().Tables {
		if t.Name == name {
			return t
		}
	}
	return TableStats{}
}

func TestOldEventsExpire(t *testing.T) {
	f := newFeed()
	now := time.Unix(0, f.now)
	s := open(t, Options{Dir: t.TempDir(), MaxAge: time.Hour, Now: func() time.Time { return now }})
	add := func(n int) {
		for range n {
			f.now = now.UnixNano()
			s.Append(f.nextExec())
		}
		commit(t, s)
	}
	add(1500)
	now = now.Add(40 * time.Minute)
	add(10)
	if got := len(eids(t, s, event.Selection{})); got != 1510 {
		t.Errorf("%d events before any is old", got)
	}
	now = now.Add(30 * time.Minute)
	if got := len(eids(t, s, event.Selection{})); got != 10 {
		t.Errorf("%d events are seen, not the 10 that are recent", got)
	}
	if diff := cmp.Diff(map[string]uint64{}, expired(s)); diff != "" {
		t.Error("an idle store removes nothing: ", diff)
	}
	add(1)
	if diff := cmp.Diff(map[string]uint64{"expired exec": 1500}, expired(s)); diff != "" {
		t.Error(diff)
	}
	if got := table(s, "exec_events").Rows; got != 11 {
		t.Errorf("%d rows kept", got)
	}
}

func TestRowsAreBoundedByTable(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir(), MaxRows: 2500})
	f := newFeed()
	for _, e := range f.only(event.KindExec, 100) {
		s.Append(e)
	}
	for range 10 {
		for _, e := range f.only(event.KindConnect, 1000) {
			s.Append(e)
		}
		commit(t, s)
	}
	if got := table(s, "exec_events").Rows; got != 100 {
		t.Errorf("a flood of connects left %d of 100 execs", got)
	}
	if got := table(s, "network_events").Rows; got != 3000 {
		t.Errorf("%d connects kept, not 3000: the bound and less than a block more", got)
	}
	if diff := cmp.Diff(map[string]uint64{"rows_cap connect": 7000}, expired(s)); diff != "" {
		t.Error(diff)
	}
	got := eids(t, s, event.Selection{Kinds: []event.ID{event.KindConnect}})
	if got[0] != 7101 || got[len(got)-1] != 10100 {
		t.Errorf("events %d to %d are kept, not the newest", got[0], got[len(got)-1])
	}
}

func TestBytesAreBounded(t *testing.T) {
	dir := t.TempDir()
	const bound = 10 << 20
	s := open(t, Options{Dir: dir, MaxBytes: bound})
	f := newFeed()
	for _, e := range f.only(event.KindExec, 3000) {
		s.Append(e)
	}
	for range 100 {
		for range 3000 {
			e := f.nextSocket()
			e.Kind = event.KindConnect
			e.RemoteAddress = randomText(f, 40)
			s.Append(e)
		}
		commit(t, s)
	}
	var size int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(filepath.Join(dir, dbName+suffix))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > bound {
		t.Errorf("the files take %d bytes", size)
	}
	if got := table(s, "exec_events").Rows; got != 3000 {
		t.Errorf("a flood of connects left %d of 3000 execs", got)
	}
	connects := table(s, "network_events").Rows
	if connects < 10_000 || connects > 250_000 {
		t.Errorf("%d connects kept", connects)
	}
	if diff := cmp.Diff(map[string]uint64{"bytes_cap connect": uint64(300_000 - connects)}, expired(s)); diff != "" {
		t.Error(diff)
	}
	if got := int64(len(eids(t, s, event.Selection{}))); got != connects+3000 {
		t.Errorf("a scan finds %d events of %d", got, connects+3000)
	}
}

func randomText(f *feed, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte('a' + byte(f.r.IntN(26)))
	}
	return b.String()
}

func TestTheFileShrinks(t *testing.T) {
	dir := t.TempDir()
	fill := open(t, Options{Dir: dir})
	f := newFeed()
	for range 60 {
		for range 1000 {
			e := f.nextExec()
			e.Args = randomText(f, 300)
			fill.Append(e)
		}
		commit(t, fill)
	}
	shut(t, fill)
	before, err := os.Stat(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir, MaxRows: 1000})
	for range 30 {
		s.Append(f.nextExec())
		commit(t, s)
	}
	shut(t, s)
	after, err := os.Stat(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	if before.Size() < 10<<20 || after.Size() > 6<<20 {
		t.Errorf("%d bytes became %d", before.Size(), after.Size())
	}
}

func TestSmallBlocksAreMerged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	f := newFeed()
	var want []event.Event
	add := func(s *Store, n int) {
		for _, e := range f.batch(n) {
			s.Append(e)
			want = append(want, e)
		}
		commit(t, s)
	}
	for range 300 {
		add(s, 1+f.r.IntN(6))
	}
	add(s, 5000)
	for range 40 {
		add(s, 2)
	}
	st := s.Stats()
	for _, name := range []string{"exec_events", "network_events", "exit_events"} {
		if got := table(s, name); got.Blocks > smallBlocks+8 {
			t.Errorf("%s: %d rows in %d blocks", name, got.Rows, got.Blocks)
		}
	}
	if st.Merges < 10 {
		t.Errorf("%d merges", st.Merges)
	}
	same(t, "after merging", want, all(t, s, event.Selection{}))
	shut(t, s)

	s = open(t, Options{Dir: dir})
	for range 100 {
		add(s, 3)
	}
	if got := s.Stats().Merges; got == 0 {
		t.Error("small blocks of an earlier run are not merged")
	}
	same(t, "opened again", want, all(t, s, event.Selection{}))
}

// TestManySmallBlocksAtOnce is what a disk leaves behind that came back after an hour.
func TestManySmallBlocksAtOnce(t *testing.T) {
	var y tally
	y.stream = &stream{}
	for i := range 1000 {
		y.append(&packed{rows: 400, span: span{lastEID: int64(i)}, data: make([]byte, 8000)})
	}
	next := int64(0)
	for {
		run, _ := y.due()
		if run == nil {
			break
		}
		rows := int64(0)
		for _, b := range run {
			if b.eid != next {
				t.Fatalf("block %d is merged with its neighbours, not %d", b.eid, next)
			}
			next++
			rows += b.rows
		}
		if rows > 2*blockRows || len(run) < 2 {
			t.Fatalf("%d blocks with %d rows are merged", len(run), rows)
		}
	}
	if next < 990 {
		t.Errorf("only %d blocks are merged", next)
	}
}
