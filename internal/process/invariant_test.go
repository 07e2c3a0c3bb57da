package process

import (
	"math/rand/v2"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// recount computes from scratch what the table keeps count of.
func recount(t *testing.T, tab *Table) {
	t.Helper()
	var n int
	var bytes int64
	images := map[*image]int32{}
	children := map[*entry]int32{}
	listed := map[*entry]bool{}
	for _, l := range []list{tab.running, tab.exited} {
		for p := l.head; p != nil; p = p.next {
			if p.gone || listed[p] {
				t.Fatalf("%d is listed twice or gone", p.pid)
			}
			listed[p] = true
		}
	}
	for pid, head := range tab.byPID {
		for p := head; p != nil; p = p.older {
			n++
			bytes += entryBytes
			if p.pid != pid || !listed[p] {
				t.Fatalf("entry of %d is under %d, listed %v", p.pid, pid, listed[p])
			}
			if p.older != nil && p.start != 0 && p.older.start > p.start {
				t.Fatalf("%d: %d comes before %d", pid, p.start, p.older.start)
			}
			if p.older != nil && !p.older.dead {
				t.Fatalf("%d: two run at a time", pid)
			}
			for _, m := range []*image{p.image, p.before, p.maker} {
				if m != nil {
					images[m]++
				}
			}
			if p.chain != nil {
				bytes += chainBytes + int64(len(p.chain.text))
			}
			if p.parent != nil {
				children[p.parent]++
			}
		}
	}
	for m, refs := range images {
		bytes += m.size()
		if m.refs != refs {
			t.Fatalf("image %q has %d refs, counts %d", m.path, refs, m.refs)
		}
	}
	for p, c := range children {
		if p.gone {
			bytes += entryBytes
		}
		if p.children != c {
			t.Fatalf("%d has %d children, counts %d", p.pid, c, p.children)
		}
	}
	if n != tab.n || len(listed) != n || bytes != tab.bytes {
		t.Fatalf("%d entries (%d listed) of %d bytes, counts %d and %d", n, len(listed), bytes, tab.n, tab.bytes)
	}
}

// TestRandomEventsKeepTheBooks sends events in any order, about few pids and starts, so
// that every collision happens.
func TestRandomEventsKeepTheBooks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		tab := New(Options{MaxEntries: 40, MaxBytes: 20_000, Grace: 20 * ms, MaxLookups: 5,
			Lookup: func(pid uint32, into *event.Exec) bool {
				*into = *exec(0, pid, uint64(r.IntN(20))*10, uint32(r.IntN(60)), 0, "/looked/up", "up")
				into.Source = "procfs"
				return r.IntN(2) == 0
			}})
		pid := func() uint32 { return uint32(r.IntN(60)) }
		start := func() uint64 { return uint64(r.IntN(200) * min(1, r.IntN(4))) } // of audit, none
		for i := range 3000 {
			at := uint64(i/10 + r.IntN(30))
			switch r.IntN(6) {
			case 0:
				tab.Complete(exec(at, pid(), start(), pid(), start(), "/a", "a b c"))
			case 1:
				f := fork(at, pid(), start(), pid(), pid())
				f.ChildStart = start() * ms
				tab.Complete(f)
			case 2:
				tab.Complete(exit(at, pid(), start()))
			case 3:
				s := exec(0, pid(), start()/10*10, pid(), 0, "/seed", "s")
				s.Source = "procfs"
				tab.Seed(s)
			case 4:
				tab.AppendLineage(nil, connect(at, pid(), start()).Head(), 6)
			default:
				tab.Complete(connect(at, pid(), start()))
			}
			recount(t, tab)
		}
	}
}
