package process

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"
)

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// storm sends n forks with an exec each, and their exits when asked for.
func storm(tab *Table, n int, exits bool, each func()) {
	f, x, d := fork(0, 10, 100, 0, 10), exec(0, 0, 0, 10, 100, "/usr/bin/some/program", ""), exit(0, 0, 0)
	for i := range n {
		pid, at := uint32(1000+i%4_000_000), uint64(1_000_000_000+i*20_000)
		f.NTime, f.ChildPID, f.ChildStart = at, pid, at
		tab.Complete(f)
		x.NTime, x.PID, x.TID, x.Start, x.PPID, x.PStart = at+1000, pid, pid, at, 10, 100*ms
		x.Args = fmt.Sprintf("program\x00--number\x00%d\x00", i)
		x.Ancestors = ""
		tab.Complete(x)
		if exits {
			d.NTime, d.PID, d.TID, d.Start = at+2000, pid, pid, at
			d.Path = ""
			tab.Complete(d)
		}
		each()
	}
}

func TestForkStormStaysInBound(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	for _, c := range []struct {
		name  string
		opt   Options
		exits bool
	}{
		{"all live, bytes", Options{MaxBytes: 8 << 20, MaxEntries: 1 << 30}, false},
		{"all exit, bytes", Options{MaxBytes: 8 << 20, MaxEntries: 1 << 30}, true},
		{"all live, entries", Options{MaxBytes: 1 << 40, MaxEntries: 20_000}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := heap()
			tab := New(c.opt)
			tab.Seed(exec(0, 1, 1, 0, 0, "/sbin/init", "/sbin/init"))
			tab.Seed(exec(0, 10, 100, 1, 1, "/bin/bash", "bash"))
			storm(tab, n, c.exits, func() {
				if tab.n > c.opt.MaxEntries || tab.bytes > c.opt.MaxBytes {
					t.Fatalf("%d entries, %d bytes", tab.n, tab.bytes)
				}
			})
			grown := heap() - before
			t.Logf("%d entries, %d bytes accounted, %d on the heap, counts %v", tab.Len(), tab.Bytes(), grown, tab.Counts())
			if tab.Bytes() < grown*8/10 {
				t.Errorf("accounts for %d bytes of %d", tab.Bytes(), grown)
			}
			evicted := tab.Counts()[0].N + tab.Counts()[1].N
			if want := uint64(n + 2 - tab.Len()); evicted != want {
				t.Errorf("%d evictions counted, want %d", evicted, want)
			}
			if tab.find(10, 100*ms, 0) == nil {
				t.Error("the parent of them all is forgotten")
			}
			runtime.KeepAlive(tab)
		})
	}
}

func TestForkChainStaysInBound(t *testing.T) {
	// Each process forks the next and waits: no leaf but the newest.
	tab := New(Options{MaxEntries: 1000})
	tab.Seed(exec(0, 1, 1, 0, 0, "/sbin/init", "init"))
	for i := uint32(1); i < 100_000; i++ {
		tab.Complete(fork(uint64(i)+1, i, uint64(i), i+1, i))
	}
	check(t, "entries", tab.Len(), 1000)
	e := connect(200_000, 100_000, 100_000)
	tab.Complete(e)
	check(t, "the newest", whoOf(e.Head()), who{"/sbin/init", "init", "pts/0", 99_999, 100_000, 99_999, 1000, 3})
}

func TestEverythingIsGivenBack(t *testing.T) {
	tab := tree()
	storm(tab, 1000, false, func() {})
	for tab.n > 0 {
		tab.opt.MaxEntries = tab.n - 1
		tab.trim()
	}
	check(t, "bytes", tab.Bytes(), int64(0))
	check(t, "pids", len(tab.byPID), 0)
}

func TestSizesAccountedFor(t *testing.T) {
	for _, c := range []struct {
		name      string
		size, max uintptr
	}{
		{"entry", unsafe.Sizeof(entry{}), entryBytes - 48},
		{"image", unsafe.Sizeof(image{}), imageBytes - 16},
		{"chain", unsafe.Sizeof(chain{}), chainBytes - 16},
	} {
		if c.size > c.max {
			t.Errorf("%s: %d bytes, accounted as %d", c.name, c.size, c.max)
		}
	}
}

func TestAllocations(t *testing.T) {
	tab := tree()
	at := uint64(1000)
	s := connect(300, 20, 200)
	f := fork(0, 10, 100, 0, 10)
	x := exec(0, 20, 200, 10, 100, "/usr/bin/curl", "curl -s http://x/")
	d := exit(0, 0, 0)
	pid := uint32(1000)
	for _, c := range []struct {
		name string
		max  float64
		f    func()
	}{
		{"connect", 0, func() { s.Path = ""; tab.Complete(s) }},
		{"exec", 2, func() { at++; x.NTime = at * ms; tab.Complete(x) }},
		{"fork and exit", 1, func() {
			at++
			pid++
			f.NTime, f.ChildPID, f.ChildStart = at*ms, pid, at*ms
			tab.Complete(f)
			d.PID, d.Start, d.NTime = pid, at*ms, at*ms
			tab.Complete(d)
		}},
	} {
		if n := testing.AllocsPerRun(1000, c.f); n > c.max {
			t.Errorf("%s: %v allocations, want at most %v", c.name, n, c.max)
		}
	}
}

func BenchmarkComplete(b *testing.B) {
	b.Run("connect", func(b *testing.B) {
		tab, e := tree(), connect(300, 20, 200)
		b.ReportAllocs()
		for b.Loop() {
			e.Path, e.Comm, e.PPID, e.PStart, e.Session, e.TTY = "", "", 0, 0, 0, ""
			tab.Complete(e)
		}
	})
	b.Run("exec", func(b *testing.B) {
		tab, e := tree(), exec(300, 20, 200, 10, 100, "/usr/bin/curl", "curl -s http://x/")
		b.ReportAllocs()
		for b.Loop() {
			e.NTime++
			tab.Complete(e)
		}
	})
	b.Run("exec_new_parent", func(b *testing.B) { // the ancestors text is made anew
		tab, e := tree(), exec(300, 20, 200, 10, 100, "/usr/bin/curl", "curl -s http://x/")
		p := tab.find(10, 100*ms, 0)
		b.ReportAllocs()
		for b.Loop() {
			e.NTime++
			tab.version++
			p.version = tab.version
			tab.Complete(e)
		}
	})
	b.Run("process", func(b *testing.B) { // fork, exec and exit
		tab := New(Options{})
		tab.Seed(exec(0, 10, 100, 1, 1, "/bin/bash", "bash"))
		f, x, d := fork(0, 10, 100, 0, 10), exec(0, 0, 0, 10, 100, "/usr/bin/some/program", "program --number 123"), exit(0, 0, 0)
		var i uint64
		b.ReportAllocs()
		for b.Loop() {
			i++
			pid, at := uint32(1000+i%32768), 1_000_000_000+i*500_000
			f.NTime, f.ChildPID, f.ChildStart = at, pid, at
			tab.Complete(f)
			x.NTime, x.PID, x.TID, x.Start = at+1000, pid, pid, at
			tab.Complete(x)
			d.NTime, d.PID, d.TID, d.Start = at+2000, pid, pid, at
			tab.Complete(d)
		}
	})
}
