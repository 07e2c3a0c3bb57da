package sensor

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

// perfWriter writes what the kernel writes into a CPU's buffer.
type perfWriter struct {
	ring []byte
	head uint64
}

func (w *perfWriter) put(b []byte) {
	for _, c := range b {
		w.ring[w.head%uint64(len(w.ring))] = c
		w.head++
	}
}

func (w *perfWriter) entry(kind uint32, body []byte) {
	h := binary.NativeEndian.AppendUint32(nil, kind)
	h = binary.NativeEndian.AppendUint16(h, 0)
	w.put(binary.NativeEndian.AppendUint16(h, uint16(perfHeader+len(body))))
	w.put(body)
}

// sample is a record as perf_event_output() frames it: its size, then its bytes, filled up.
func (w *perfWriter) sample(raw []byte) {
	size := (4+len(raw)+7)&^7 - 4
	body := binary.NativeEndian.AppendUint32(nil, uint32(size))
	body = append(body, raw...)
	w.entry(unix.PERF_RECORD_SAMPLE, append(body, make([]byte, size-len(raw))...))
}

func (w *perfWriter) lost(n uint64) {
	w.entry(unix.PERF_RECORD_LOST, binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, 7), n))
}

// numbered is a record of a kind with its number and time.
func numbered(kind event.ID, number uint32, time uint64) []byte {
	h := bpf.GoshawkRecHead{Time: time, Kind: uint16(kind), Number: number}
	h.Size = uint32(len(raw(h)))
	return raw(h)
}

// times takes all that may be taken, and returns it as kind:number@time.
func times(t *testing.T, b *perfBuffer) []string {
	t.Helper()
	var out []string
	for {
		r, err := b.read()
		if err != nil {
			t.Fatal(err)
		}
		if r == nil {
			return out
		}
		h := as[bpf.GoshawkRecHead](r)
		out = append(out, fmt.Sprintf("%v:%d@%d", event.ID(h.Kind), h.Number, h.Time))
	}
}

// Two CPUs' records come in the order of time, those of later wait, and a ring's end is
// crossed in every place that an entry has.
func TestPerfOrder(t *testing.T) {
	for start := range uint64(300) {
		b := &perfBuffer{seen: newNumbers(2)}
		b.bytes = append(b.bytes, 1, 2, 3) // whatever there was
		one := &perfWriter{ring: make([]byte, 1024), head: start}
		two := &perfWriter{ring: make([]byte, 1024), head: start}
		one.sample(numbered(event.KindExec, 1, 10))
		one.sample(numbered(event.KindExit, 1, 40))
		two.sample(numbered(event.KindExec, 1, 20))
		two.sample(numbered(event.KindExec, 2, 30))
		refill := func(until uint64) {
			b.refill(until)
			from := start
			for cpu, w := range []*perfWriter{one, two} {
				if w.head != from {
					if got := b.take(cpu, w.ring, from, w.head); got != w.head {
						t.Fatalf("start %d: read to %d of %d", start, got, w.head)
					}
				}
				w.head = start
			}
			b.order()
		}
		refill(25)
		if diff := cmp.Diff([]string{"exec:1@10", "exec:1@20"}, times(t, b)); diff != "" || !b.waiting() {
			t.Fatalf("start %d: waiting %v\n%s", start, b.waiting(), diff)
		}
		two.sample(numbered(event.KindExec, 3, 35))
		refill(100)
		if diff := cmp.Diff([]string{"exec:2@30", "exec:3@35", "exit:1@40"}, times(t, b)); diff != "" || b.waiting() {
			t.Fatalf("start %d: waiting %v\n%s", start, b.waiting(), diff)
		}
	}
}

// Every record that did not come is found, by its kind: between others by its number, at the
// end by what the kernel counts as sent; one that passed for lost and was late is not.
func TestPerfLosses(t *testing.T) {
	n := newNumbers(2)
	lost := func() [3]int64 {
		return [3]int64{n.lost[event.KindExec].Load(), n.lost[event.KindFork].Load(), n.lost[event.KindExit].Load()}
	}
	for _, r := range []struct {
		cpu    int
		kind   event.ID
		number uint32
	}{{0, event.KindExec, 1}, {1, event.KindExec, 3}, {0, event.KindFork, 1}, {0, event.KindExec, 2}, {0, event.KindFork, 5}} {
		n.note(r.cpu, numbered(r.kind, r.number, 0))
	}
	if got, want := lost(), [3]int64{2, 3, 0}; got != want {
		t.Errorf("between: lost %v, want %v", got, want)
	}
	sent := func(kind uint32) []uint64 {
		return map[event.ID][]uint64{event.KindExec: {4, 3}, event.KindExit: {0, 2}}[event.ID(kind)]
	}
	n.settle(sent)
	if got, want := lost(), [3]int64{2, 3, 0}; got != want {
		t.Errorf("what was sent just now passes for lost: %v, want %v", got, want)
	}
	n.note(0, numbered(event.KindExec, 3, 0))
	n.settle(sent)
	if got, want := lost(), [3]int64{3, 3, 2}; got != want {
		t.Errorf("at the end: lost %v, want %v", got, want)
	}
	n.note(1, numbered(event.KindExit, 2, 0))
	n.settle(nil)
	if got, want := lost(), [3]int64{3, 3, 1}; got != want {
		t.Errorf("after one that was late: lost %v, want %v", got, want)
	}
}

// Numbers are told in 32 bits, and go on.
func TestPerfNumbersGoRound(t *testing.T) {
	n := newNumbers(1)
	n.last[0][event.KindExec] = 1<<32 - 2
	for _, number := range []uint32{1<<32 - 1, 0, 1, 4} {
		n.note(0, numbered(event.KindExec, number, 0))
	}
	if got := n.lost[event.KindExec].Load(); got != 2 || n.last[0][event.KindExec] != 1<<32+4 {
		t.Errorf("lost %d, last %d", got, n.last[0][event.KindExec])
	}
}

func TestPerfMalformed(t *testing.T) {
	entry := func(kind uint32, size uint16, body ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, kind)
		b = binary.NativeEndian.AppendUint16(b, 0)
		return append(binary.NativeEndian.AppendUint16(b, size), body...)
	}
	for _, tt := range []struct {
		name string
		ring []byte
		bad  uint64
	}{
		{"size 0", entry(unix.PERF_RECORD_SAMPLE, 0), 1},
		{"larger than what was written", entry(unix.PERF_RECORD_SAMPLE, 64), 1},
		{"sample without its size", entry(unix.PERF_RECORD_SAMPLE, 10, 1, 2), 1},
		{"sample larger than its entry", entry(unix.PERF_RECORD_SAMPLE, 16, 9, 0, 0, 0, 1, 2, 3, 4), 1},
		{"loss without a number", entry(unix.PERF_RECORD_LOST, 16, 1, 2, 3, 4, 5, 6, 7, 8), 0},
		{"of an unknown type", entry(99, 16, 1, 2, 3, 4, 5, 6, 7, 8), 0},
		{"half a header", make([]byte, 5), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &perfBuffer{seen: newNumbers(1)}
			ring := make([]byte, 128)
			copy(ring, tt.ring)
			if got := b.take(0, ring, 0, uint64(len(tt.ring))); got != uint64(len(tt.ring)) {
				t.Errorf("read to %d of %d", got, len(tt.ring))
			}
			if got := b.bad.Load(); got != tt.bad || len(b.at) != 0 {
				t.Errorf("%d malformed, want %d; %d samples", got, tt.bad, len(b.at))
			}
		})
	}
	b := &perfBuffer{seen: newNumbers(1)}
	if b.take(0, make([]byte, 64), 0, 65); b.bad.Load() != 1 {
		t.Error("more is written than the ring holds, and nobody minds")
	}
}

// FuzzPerf reads rings of any bytes: never out of bounds, never more than there is.
func FuzzPerf(f *testing.F) {
	w := &perfWriter{ring: make([]byte, 1024)}
	w.sample(numbered(event.KindExec, 1, 10))
	w.lost(3)
	w.sample(socketRecord(bpf.GoshawkRecSocket{Family: afInet}, event.KindConnect, ""))
	f.Add(w.ring, uint64(0), w.head)
	f.Add(w.ring, uint64(900), uint64(1500))
	f.Fuzz(func(t *testing.T, ring []byte, tail, head uint64) {
		ring = append(ring, make([]byte, 1024)...)[:1024]
		b := &perfBuffer{seen: newNumbers(1)}
		b.refill(^uint64(0))
		if got := b.take(0, ring, tail, head); got > head && head-tail <= 1024 {
			t.Errorf("read to %d of %d", got, head)
		}
		b.order()
		n := 0
		for {
			r, err := b.read()
			if err != nil {
				t.Fatal(err)
			}
			if r == nil {
				break
			}
			n += len(r)
		}
		if n > 1024 {
			t.Errorf("%d bytes from a ring of 1024", n)
		}
	})
}
