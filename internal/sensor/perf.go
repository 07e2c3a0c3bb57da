package sensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/goshawk-project/goshawk/bpf"
	"golang.org/x/sys/unix"
)

// perfBuffer reads what programs of the legacy object hand to one perf event array: a buffer
// for each CPU, whose records it puts into the order of time. The library's reader does not
// let us wait for two arrays at once, nor see which CPU a loss was on.
type perfBuffer struct {
	array *ebpf.Map
	rings []perfRing
	seen  *numbers

	// What was read: samples stand in bytes, and their places in the order of time in at.
	bytes []byte
	spare []byte // what bytes was before
	at    []perfSample
	next  int           // the first of at that was not taken yet
	until uint64        // later ones are not taken: older ones of other CPUs may be on their way
	lost  atomic.Uint64 // by the kernel's own count
	bad   atomic.Uint64 // entries that are malformed
}

type perfSample struct {
	time     uint64
	from, to int
}

// perfRing is the buffer of one CPU: a page about it (struct perf_event_mmap_page), then data,
// which the kernel appends to and we take from.
type perfRing struct {
	cpu  int
	fd   int
	mem  []byte
	meta *unix.PerfEventMmapPage
	data []byte
}

// perfLeast is what the buffer of a CPU has at least, unless all were asked to be smaller: room
// for two of the largest records.
const perfLeast = 128 << 10

// perfBytes is the size of the buffer of each of so many CPUs that are to have bytes together:
// a power of two, a page or more.
func perfBytes(bytes, cpus, page int) int {
	each := max(bytes/max(cpus, 1), min(bytes, perfLeast))
	return max(page, 1<<(bits.Len(uint(each))-1))
}

// openPerf makes buffers that together have about bytes, and tells the kernel.
func openPerf(array *ebpf.Map, bytes int, seen *numbers) (*perfBuffer, error) {
	b := &perfBuffer{array: array, seen: seen}
	page := os.Getpagesize()
	each := perfBytes(bytes, runtime.NumCPU(), page) // a machine may have room for many that it has not
	for cpu := range int(array.MaxEntries()) {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_BPF_OUTPUT,
			Sample_type: unix.PERF_SAMPLE_RAW, Wakeup: 1, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) { // this CPU is offline
			continue
		}
		if err != nil {
			b.close()
			return nil, fmt.Errorf("open perf buffer of CPU %d: %w", cpu, err)
		}
		r := perfRing{cpu: cpu, fd: fd}
		if r.mem, err = unix.Mmap(fd, 0, page+each, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			r.meta = (*unix.PerfEventMmapPage)(unsafe.Pointer(&r.mem[0]))
			r.data = r.mem[page:]
			err = array.Put(uint32(cpu), uint32(fd))
		}
		b.rings = append(b.rings, r)
		if err != nil {
			b.close()
			return nil, fmt.Errorf("map perf buffer of CPU %d: %w", cpu, err)
		}
	}
	return b, nil
}

func (b *perfBuffer) fds() []int {
	var fds []int
	for _, r := range b.rings {
		fds = append(fds, r.fd)
	}
	return fds
}

func (b *perfBuffer) close() error {
	var errs []error
	for _, r := range b.rings {
		if r.mem != nil {
			errs = append(errs, unix.Munmap(r.mem))
		}
		errs = append(errs, unix.Close(r.fd))
	}
	b.rings = nil
	return errors.Join(errs...)
}

// available is how many bytes there are to be taken now.
func (b *perfBuffer) available() int {
	n := 0
	for i := b.next; i < len(b.at) && b.at[i].time <= b.until; i++ {
		n += b.at[i].to - b.at[i].from
	}
	for _, r := range b.rings {
		n += int(atomic.LoadUint64(&r.meta.Data_head) - r.meta.Data_tail)
	}
	return n
}

// waiting says whether something was read that may not be taken yet.
func (b *perfBuffer) waiting() bool { return b.next < len(b.at) }

// read returns the next record in the order of time, nil when there is none. It is valid
// until the next refill.
func (b *perfBuffer) read() ([]byte, error) {
	if b.next == len(b.at) || b.at[b.next].time > b.until {
		return nil, nil
	}
	s := b.at[b.next]
	b.next++
	return b.bytes[s.from:s.to:s.to], nil
}

// refill takes what the kernel has written by now. Records of after until stay for later.
func (b *perfBuffer) refill(until uint64) {
	b.until = until
	old := b.bytes
	b.bytes, b.spare = b.spare[:0], old
	at := b.at[:0]
	for _, s := range b.at[b.next:] {
		from := (len(b.bytes) + 7) &^ 7
		b.bytes = append(slices.Grow(b.bytes, s.to-s.from+8)[:from], old[s.from:s.to]...)
		at = append(at, perfSample{s.time, from, len(b.bytes)})
	}
	b.at, b.next = at, 0
	if cap(b.spare) > 1<<20 && len(b.spare) < 1<<18 {
		b.spare = nil
	}
	for i := range b.rings {
		b.drain(&b.rings[i])
	}
	b.order()
}

// order sorts what was taken; of records of the same time, those of one CPU stay in order.
func (b *perfBuffer) order() {
	slices.SortStableFunc(b.at, func(x, y perfSample) int {
		switch {
		case x.time < y.time:
			return -1
		case x.time > y.time:
			return 1
		}
		return 0
	})
}

const perfHeader = 8 // struct perf_event_header: u32 type, u16 misc, u16 size

// drain takes everything out of one CPU's buffer.
func (b *perfBuffer) drain(r *perfRing) {
	head := atomic.LoadUint64(&r.meta.Data_head)
	tail := b.take(r.cpu, r.data, r.meta.Data_tail, head)
	atomic.StoreUint64(&r.meta.Data_tail, tail)
}

// take reads the records between tail and head of a ring (perf_event_open(2), "mmap layout"),
// whose size is a power of two. It returns how far it came: head, or tail where what stands
// there makes no sense; nobody can say where the next record begins then.
func (b *perfBuffer) take(cpu int, ring []byte, tail, head uint64) uint64 {
	if head-tail > uint64(len(ring)) {
		b.bad.Add(1)
		return head
	}
	for head-tail >= perfHeader {
		var h [perfHeader]byte
		copyRing(h[:], ring, tail)
		size := uint64(binary.NativeEndian.Uint16(h[6:]))
		if size < perfHeader || size > head-tail {
			b.bad.Add(1)
			return head
		}
		switch binary.NativeEndian.Uint32(h[:]) {
		case unix.PERF_RECORD_LOST: // u64 id, u64 lost
			var v [8]byte
			if size >= perfHeader+16 {
				copyRing(v[:], ring, tail+perfHeader+8)
				b.lost.Add(binary.NativeEndian.Uint64(v[:]))
			}
		case unix.PERF_RECORD_SAMPLE: // u32 size, bytes
			b.sample(cpu, ring, tail+perfHeader, size-perfHeader)
		}
		tail += size
	}
	return head
}

func (b *perfBuffer) sample(cpu int, ring []byte, at, n uint64) {
	var v [4]byte
	if n < 4 {
		b.bad.Add(1)
		return
	}
	copyRing(v[:], ring, at)
	size := uint64(binary.NativeEndian.Uint32(v[:]))
	if size > n-4 {
		b.bad.Add(1)
		return
	}
	// The decoder likes records aligned.
	from := (len(b.bytes) + 7) &^ 7
	b.bytes = slices.Grow(b.bytes, int(size)+8)[:from+int(size)]
	raw := b.bytes[from:]
	copyRing(raw, ring, at+4)
	b.seen.note(cpu, raw)
	b.at = append(b.at, perfSample{recordTime(raw), from, len(b.bytes)})
}

// copyRing fills to from a ring that ends where it begins.
func copyRing(to, ring []byte, at uint64) {
	at &= uint64(len(ring) - 1)
	n := copy(to, ring[at:])
	copy(to[n:], ring)
}

// numbers finds the records that did not arrive. Each CPU numbers those of each kind, and
// those of one CPU arrive in the order of their numbers.
type numbers struct {
	last  [][bpf.GoshawkKindKIND_MAX]uint64 // by CPU: the last number that is accounted for
	lost  [bpf.GoshawkKindKIND_MAX]atomic.Int64
	found [bpf.GoshawkKindKIND_MAX]atomic.Uint64

	told      [][bpf.GoshawkKindKIND_MAX]uint64 // what was sent, as of the last but one pass
	unsettled atomic.Bool                       // somebody asks whether something is missing
}

func newNumbers(cpus int) *numbers {
	return &numbers{last: make([][bpf.GoshawkKindKIND_MAX]uint64, cpus)}
}

// note accounts for a record that has arrived, and those before it that have not.
func (n *numbers) note(cpu int, raw []byte) {
	if len(raw) < int(unsafe.Sizeof(bpf.GoshawkRecHead{})) || cpu >= len(n.last) {
		return
	}
	h := as[bpf.GoshawkRecHead](raw)
	if int(h.Kind) >= len(n.lost) {
		return
	}
	n.found[h.Kind].Add(1)
	last := &n.last[cpu][h.Kind]
	gap := int32(h.Number - uint32(*last)) // numbers are counted modulo 2^32
	if gap <= 0 {                          // passed for lost, and was late
		n.lost[h.Kind].Add(-1)
		return
	}
	n.lost[h.Kind].Add(int64(gap) - 1)
	*last += uint64(gap)
}

// settle accounts for all that was sent by the time of the last call: it has been read, or
// it was lost. sent looks up how many records of a kind each CPU has sent.
func (n *numbers) settle(sent func(kind uint32) []uint64) {
	for cpu := range n.told {
		for kind, to := range n.told[cpu] {
			if last := &n.last[cpu][kind]; to > *last {
				n.lost[kind].Add(int64(to - *last))
				*last = to
			}
		}
	}
	n.told = nil
	if sent == nil {
		return
	}
	n.told = make([][bpf.GoshawkKindKIND_MAX]uint64, len(n.last))
	for kind := range uint32(bpf.GoshawkKindKIND_MAX) {
		for cpu, to := range sent(kind) {
			if cpu < len(n.told) {
				n.told[cpu][kind] = to
			}
		}
	}
}
