package store

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
)

// feed makes events as a busy host does: some hundred programs, children of shells and
// build tools, connections to few peers.
type feed struct {
	r      *rand.Rand
	now    int64
	boot   uint64
	pid    uint32
	paths  []string
	comms  []string
	chains []string
	cwds   []string
	peers  []string
	exec   event.Exec
	socket event.Socket
	exit   event.Exit
}

func newFeed() *feed {
	f := &feed{r: rand.New(rand.NewPCG(1, 2)), now: 1_800_000_000_000_000_000, boot: 5_000_000_000_000, pid: 1000}
	for i := range 120 {
		f.comms = append(f.comms, fmt.Sprintf("tool-%d", i))
		f.paths = append(f.paths, fmt.Sprintf("/usr/lib/package-%d/bin/tool-%d", i%17, i))
		f.cwds = append(f.cwds, fmt.Sprintf("/home/user%d/src/project-%d", i%3, i%25))
		f.peers = append(f.peers, fmt.Sprintf("10.%d.%d.%d", i%3, i%11, i))
	}
	for i := range 30 {
		f.chains = append(f.chains, fmt.Sprintf(`[{"pid":%d,"path":"/usr/bin/make","cmdline":"make -j8 target-%d"},{"pid":%d,"path":"/usr/bin/bash","cmdline":"bash build.sh"},{"pid":812,"path":"/usr/sbin/sshd","cmdline":"sshd: user"},{"pid":1,"path":"/usr/lib/systemd/systemd","cmdline":"/sbin/init"}]`, 900+i*7, i, 700+i*3))
	}
	return f
}

func (f *feed) head(h *event.Header, kind event.ID) int {
	i := f.r.IntN(len(f.paths))
	step := int64(f.r.IntN(40_000))
	f.now += step
	f.boot += uint64(step)
	*h = event.Header{
		Kind: kind, Time: f.now, NTime: f.boot, Source: "ebpf", Fidelity: event.FidelityKernel,
		PID: f.pid, TID: f.pid, PPID: 900 + uint32(i%30)*7, Start: f.boot - uint64(f.r.IntN(1_000_000)), PStart: 4_000_000_000_000 + uint64(i%30)*1_000_003,
		BootID: "0123456789abcdef0123456789abcdef", Path: f.paths[i], Comm: f.comms[i],
		UID: 1000, GID: 1000, EUID: 1000, EGID: 1000, AUID: 1000, Session: 3, TTY: "pts0", CgroupID: 4711,
	}
	return i
}

func (f *feed) nextExec() *event.Exec {
	f.pid++
	e := &f.exec
	i := f.head(&e.Header, event.KindExec)
	e.Filename = e.Path
	e.Args = fmt.Sprintf("%s\x00--jobs=8\x00-o\x00out/object-%d.o\x00-c\x00src/file-%d.c\x00", f.comms[i], f.r.IntN(100000), f.r.IntN(1000))
	e.ArgsLength = uint64(len(e.Args))
	e.Cwd = f.cwds[i]
	e.Inode = 100000 + uint64(i)*31
	e.Mode = 0o100755
	e.SUID, e.SGID, e.FSUID, e.FSGID = 1000, 1000, 1000, 1000
	e.Syscall = "execve"
	e.Ancestors = f.chains[i%30]
	return e
}

func (f *feed) nextSocket() *event.Socket {
	e := &f.socket
	i := f.head(&e.Header, event.KindConnect+event.ID(f.r.IntN(5)))
	e.Family, e.Protocol, e.FamilyNumber, e.Type, e.ProtoNumber, e.FD = "inet", "tcp", 2, 1, 6, int32(f.r.IntN(30))
	e.LocalAddress, e.RemoteAddress = "10.0.0.5", f.peers[i]
	e.LocalPort, e.RemotePort = uint16(32768+f.r.IntN(28000)), 443
	e.Result = "ok"
	e.DurationNs = uint64(f.r.IntN(100000))
	e.Cookie = uint64(f.pid) * 3
	e.NetNS = 4026531992
	return e
}

func (f *feed) nextExit() *event.Exit {
	e := &f.exit
	f.head(&e.Header, event.KindExit)
	e.DurationNs = uint64(f.r.IntN(1_000_000_000))
	e.UserNs, e.SystemNs = e.DurationNs/3, e.DurationNs/7
	e.MaxRSS = uint64(f.r.IntN(1<<14)) << 12
	return e
}

// only returns n events of one kind.
func (f *feed) only(kind event.ID, n int) []event.Event {
	var out []event.Event
	for range n {
		switch kind {
		case event.KindExec:
			out = append(out, clone(f.nextExec()))
		case event.KindExit:
			out = append(out, clone(f.nextExit()))
		default:
			e := f.nextSocket()
			e.Kind = kind
			out = append(out, clone(e))
		}
	}
	return out
}

// batch returns n events, a third each of exec, socket and exit.
func (f *feed) batch(n int) []event.Event {
	var out []event.Event
	for i := range n {
		switch i % 3 {
		case 0:
			e := *f.nextExec()
			out = append(out, &e)
		case 1:
			e := *f.nextSocket()
			out = append(out, &e)
		default:
			e := *f.nextExit()
			out = append(out, &e)
		}
	}
	return out
}

// BenchmarkAppend is what one event costs the agent's goroutine.
func BenchmarkAppend(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	events := newFeed().batch(3000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%10_000 == 9999 { // let the disk keep up
			b.StopTimer()
			if err := s.Commit(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		s.Append(events[i%len(events)])
	}
}

// BenchmarkBuilder is the part of it that encodes, by kind.
func BenchmarkBuilder(b *testing.B) {
	_, byKind := streamsOf(event.Kinds)
	for _, kind := range []event.ID{event.KindExec, event.KindConnect, event.KindExit} {
		b.Run(kind.String(), func(b *testing.B) {
			events := newFeed().only(kind, blockRows)
			w := newBuilder(byKind[kind], maphash.MakeSeed())
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%blockRows == 0 {
					w.reset()
				}
				w.add(events[i%blockRows].Head())
			}
		})
	}
}

// BenchmarkPack is what the writer spends on compression.
func BenchmarkPack(b *testing.B) {
	_, byKind := streamsOf(event.Kinds)
	for _, kind := range []event.ID{event.KindExec, event.KindConnect, event.KindExit} {
		b.Run(kind.String(), func(b *testing.B) {
			events := newFeed().only(kind, blockRows)
			w := newBuilder(byKind[kind], maphash.MakeSeed())
			p, err := newPacker()
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range events {
				w.add(e.Head())
			}
			size := 0
			for b.Loop() {
				size = len(p.pack(w).data)
			}
			b.ReportMetric(float64(size)/blockRows, "B/event")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/blockRows, "ns/event")
		})
	}
}

// BenchmarkWrite is everything that an event costs the process, on disk and not, and what
// it takes there.
func BenchmarkWrite(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	events := newFeed().batch(3000)
	start := cpu(b)
	n := 0
	for b.Loop() {
		for range 10_000 {
			s.Append(events[n%len(events)])
			n++
		}
		if err := s.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-start)/float64(n), "cpu-ns/event")
	b.ReportMetric(float64(s.Stats().Bytes)/float64(n), "B/event")
}

func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkScan(b *testing.B) {
	const n = 200_000
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	events := newFeed().batch(n)
	for i, e := range events {
		s.Append(e)
		if i%10_000 == 0 {
			if err := s.Commit(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	exec := []event.ID{event.KindExec}
	for _, q := range []struct {
		name string
		sel  event.Selection
		rows int
	}{
		{"two", event.Selection{Kinds: exec, Columns: []string{"pid", "path"}}, n / 3},
		{"exec", event.Selection{Kinds: exec}, n / 3},
		{"everything", event.Selection{}, n},
		{"none", event.Selection{Kinds: exec, Equal: []event.Equal{{Column: "uid", Values: []int64{4}}}}, n / 3},
		{"pid", event.Selection{Kinds: exec, Equal: []event.Equal{{Column: "pid", Values: []int64{5000}}}}, n / 3},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := s.Scan(b.Context(), q.sel)
				if err != nil {
					b.Fatal(err)
				}
				for {
					e, err := c.Next()
					if err != nil {
						b.Fatal(err)
					}
					if e == nil {
						break
					}
				}
				c.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(q.rows), "ns/event")
		})
	}
}
