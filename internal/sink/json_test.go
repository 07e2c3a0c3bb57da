package sink

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// filled is an event of a kind whose stored cells hold values made by number and text.
func filled(k *event.Kind, number func() int64, text func() string) event.Event {
	e := k.New()
	for i := range k.Columns {
		switch c := &k.Columns[i]; {
		case c.SetInt != nil:
			c.SetInt(e, number())
		case c.SetStr != nil:
			c.SetStr(e, text())
		}
	}
	e.Head().Kind = k.ID
	return e
}

// TestJSONIsEventsJSON compares with the encoder that goes through the columns.
func TestJSONIsEventsJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "x", "two\x00words\x00", "\x00", "\"\\\n\x1b\xff\u2028é", "[1]", "0123456789abcdef0123456789abcdef"}
	numbers := []int64{0, 1, -1, 255, 65535, 1 << 31, 1<<32 - 1, 1<<63 - 1, -1 << 63, 1_770_000_000_123_456_789}
	j := NewJSON()
	for _, k := range event.Kinds {
		t.Run(k.Name, func(t *testing.T) {
			if j.kinds[k.ID] == nil {
				t.Error("no template: written the slow way")
			}
			for range 300 {
				e := filled(k, func() int64 { return numbers[r.IntN(len(numbers))] }, func() string { return texts[r.IntN(len(texts))] })
				want := string(event.AppendJSON([]byte("before "), e)) + "\n"
				if d := cmp.Diff(want, string(j.Append([]byte("before "), e))); d != "" {
					t.Fatalf("(-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestJSONOfAKindThatIsNotItsType(t *testing.T) {
	e := &event.Fork{Header: event.Header{Kind: event.KindFork, PID: 5}}
	want := string(event.AppendJSON(nil, e)) + "\n"
	j := NewJSON()
	j.kinds[event.KindFork].is = event.ByName("exec").Is
	if d := cmp.Diff(want, string(j.Append(nil, e))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestJSONAllocatesNothing(t *testing.T) {
	j, buf := NewJSON(), make([]byte, 0, 8192)
	for _, k := range event.Kinds {
		e := filled(k, func() int64 { return 7 }, func() string { return "a1" })
		if n := testing.AllocsPerRun(100, func() { j.Append(buf, e) }); n > 0 {
			t.Errorf("%s: %v allocations", k.Name, n)
		}
	}
}

// traffic is what a host tells in a busy second: four servers that connect to themselves,
// and processes that start and end.
func traffic() []event.Event {
	var all []event.Event
	boot := "0123456789abcdef0123456789abcdef"
	head := func(kind event.ID, pid uint32, path string) event.Header {
		n := uint64(len(all))
		h := head(kind)
		h.EID, h.Time, h.NTime = int64(n+1), h.Time+int64(n)*61_234, 8_123_456_789_012+n*61_234
		h.Source, h.Fidelity, h.BootID = "ebpf", event.FidelityKernel, boot
		h.PID, h.TID, h.Start, h.PStart = pid, pid, uint64(pid)*1_000_003, 99_456_789_012
		h.Path, h.Comm, h.CgroupID, h.AUID, h.Session = path, "worker", 4711, 1<<32-1, 1<<32-1
		return h
	}
	for i := range 256 {
		pid := uint32(3000 + i%4)
		sock := event.Socket{Family: "inet", Protocol: "tcp", LocalAddress: "127.0.0.1", RemoteAddress: "127.0.0.2",
			LocalPort: 8080, RemotePort: uint16(32768 + i), Result: "ok", Cookie: uint64(9000 + i), NetNS: 4026531840, DurationNs: uint64(20_000 + i*37)}
		for _, kind := range []event.ID{event.KindConnect, event.KindAccept, event.KindClose, event.KindClose} {
			e := sock
			e.Header = head(kind, pid, "/usr/local/bin/server")
			all = append(all, &e)
		}
		if i%8 == 0 {
			child := uint32(5000 + i)
			f := &event.Fork{Header: head(event.KindFork, 777, "/usr/bin/bash"), ChildPID: child, ChildStart: uint64(child) * 1_000_003}
			x := &event.Exec{Header: head(event.KindExec, child, "/usr/bin/true"), Args: "true\x00--quiet\x00", ArgsLength: 13, Cwd: "/home/ana",
				Filename: "/usr/bin/true", Inode: 123456, Mode: 0o100755, Syscall: "execve",
				Ancestors: `[{"pid":777,"path":"/usr/bin/bash","cmdline":"bash"},{"pid":1,"path":"/usr/lib/systemd/systemd","cmdline":"/sbin/init"}]`}
			e := &event.Exit{Header: head(event.KindExit, child, "/usr/bin/true"), DurationNs: 812_345, UserNs: 300_000, SystemNs: 500_000, MaxRSS: 1_900_544}
			all = append(all, f, x, e)
		}
	}
	return all
}

func BenchmarkJSON(b *testing.B) {
	events, buf := traffic(), make([]byte, 0, 8192)
	bench := func(name string, appendTo func([]byte, event.Event) []byte) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b)
			for i := 0; b.Loop(); i++ {
				buf = appendTo(buf[:0], events[i%len(events)])
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
	bench("sink", NewJSON().Append)
	bench("columns", event.AppendJSON)
}

// cpu is the CPU time of this process in ns, which a busy machine does not stretch.
func cpu(b *testing.B) int64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
