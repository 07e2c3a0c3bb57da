package store

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestPinnedEventsLast pins some of many, lets all of them expire, and looks at what is left:
// at each moment, through the agent's store and another process's, and after a restart.
func TestPinnedEventsLast(t *testing.T) {
	f := newFeed()
	dir := t.TempDir()
	begun := time.Unix(0, f.now)
	now := begun
	o := Options{Dir: dir, MaxAge: time.Hour, LastingAge: 24 * time.Hour, Now: func() time.Time { return now }}
	s := open(t, o)
	add := func(n int) {
		for range n {
			f.now = now.UnixNano()
			s.Append(f.nextExec())
		}
		alert := &event.Alert{Header: event.Header{Kind: event.KindAlert, Time: now.UnixNano(), PID: 1}, RuleID: "r"}
		s.Append(alert)
		commit(t, s)
	}
	add(2500) // 1 to 2500, and alert 2501
	s.Pin(7, 8, 1700, 2501, 1<<40)
	s.Pin(7)
	now = now.Add(40 * time.Minute)
	add(10) // 2502 to 2511, and alert 2512
	s.Pin(2505)
	commit(t, s)
	recent := []int64{2502, 2503, 2504, 2505, 2506, 2507, 2508, 2509, 2510, 2511}
	see := func(what string, want ...int64) {
		t.Helper()
		if diff := cmp.Diff(want, eids(t, s, event.Selection{Kinds: []event.ID{event.KindExec}})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	now = now.Add(30 * time.Minute)
	see("the old block has expired and is still there", append([]int64{7, 8, 1700}, recent...)...)
	add(1) // 2513, alert 2514
	recent = append(recent, 2513)
	see("the old block has gone", append([]int64{7, 8, 1700}, recent...)...)
	if diff := cmp.Diff(map[string]uint64{"expired exec": 2497}, expired(s)); diff != "" {
		t.Error(diff)
	}
	e := all(t, s, event.Selection{Kinds: []event.ID{event.KindExec}, MaxEID: 8})
	if len(e) != 2 || e[0].(*event.Exec).Path == "" || e[0].Head().EID != 7 {
		t.Errorf("what is kept of event 7: %+v", e[0])
	}
	now = now.Add(61 * time.Minute)
	add(1) // 2515, alert 2516
	see("all but the last and the pinned have gone", 7, 8, 1700, 2505, 2515)
	alerts := []int64{2501, 2512, 2514, 2516}
	if got := eids(t, s, event.Selection{Kinds: []event.ID{event.KindAlert}}); !slices.Equal(got, alerts) {
		t.Errorf("alerts %v are kept, want %v", got, alerts)
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := eids(t, r, event.Selection{Kinds: []event.ID{event.KindExec}}); !slices.Equal(got, []int64{7, 8, 1700, 2505, 2515}) {
		t.Errorf("another process sees %v", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	shut(t, s)

	s = open(t, o)
	see("after a restart", 7, 8, 1700, 2505, 2515)
	now = begun.Add(24*time.Hour + 30*time.Minute)
	add(1) // 2517: the first pins and alerts have lasted long enough
	got := eids(t, s, event.Selection{})
	if slices.Contains(got, 7) || slices.Contains(got, 2501) || !slices.Contains(got, 2505) {
		t.Errorf("a day later %v are there", got)
	}
}

// TestPinnedEventsAreBounded keeps a flood that is pinned within the bytes that are allowed.
func TestPinnedEventsAreBounded(t *testing.T) {
	const bound = 10 << 20
	s := open(t, Options{Dir: t.TempDir(), MaxBytes: bound})
	f := newFeed()
	for range 30 {
		for range 3000 {
			e := f.nextExec()
			e.Args = randomText(f, 200)
			s.Append(e)
			s.Pin(e.EID)
		}
		commit(t, s)
	}
	if got := s.Stats().Bytes; got > bound {
		t.Errorf("%d bytes are in use", got)
	}
	kept := table(s, "exec_events+kept")
	if kept.Rows == 0 || kept.Bytes > bound/4 {
		t.Errorf("of pinned events %d rows and %d bytes are kept", kept.Rows, kept.Bytes)
	}
}

// TestPinsWithoutRoomAreCounted pins more than is remembered: while the disk takes none, and in all.
func TestPinsWithoutRoomAreCounted(t *testing.T) {
	let := func(s *Store) (n uint64) {
		for _, c := range s.Counts() {
			if c.What == event.Evicted && c.Reason == ReasonPins && c.Kind == event.KindAlert {
				n += c.N
			}
		}
		return n
	}
	f := newFeed()
	d := newDisk(t)
	var w warnings
	s := open(t, Options{Dir: t.TempDir(), Warn: w.add, vfs: t.Name()})
	pin := func(from, n int64) {
		for eid := from; eid < from+n; eid++ {
			s.Pin(eid)
		}
	}
	d.fail(sqlite3.FULL)
	pin(1, maxPins/2)
	s.Append(f.nextExec())
	if err := s.Commit(t.Context()); err == nil {
		t.Fatal("the disk is full, and took what there was")
	}
	pin(maxPins, maxPins/2+7) // what waits with the writer takes room, too
	if n := let(s); n != 7 {
		t.Errorf("%d pins are counted as evicted, not the 7 too many", n)
	}
	d.fail(nil)
	s.Append(f.nextExec())
	commit(t, s)
	if n := let(s); n != 7 {
		t.Errorf("%d pins are counted as evicted, once all that waited are on disk", n)
	}
	pin(10*maxPins, 100)
	s.Append(f.nextExec())
	commit(t, s)
	if n := let(s); n != 7+100+maxPins/10 {
		t.Errorf("%d pins are counted as evicted; a tenth of all makes room, in which there were 100 too many", n)
	}
	w.expect(t, "cannot write events", "takes events again")
}
