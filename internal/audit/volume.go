package audit

import (
	"bytes"
	"sync/atomic"
	"time"
)

// What a group may tell of in a second when Options do not say. These stand against one
// thing gone mad: they are above what a busy host does, and below what can be read.
const (
	defaultRate  = 4_000
	burstSeconds = 5 // how much of that at once
)

// bucket lets rate events through in a second, and burst at once.
type bucket struct {
	rate, burst, level float64 // rate 0: no limit
	last               time.Time
}

func newBucket(rate float64) bucket {
	return bucket{rate: rate, burst: rate * burstSeconds, level: rate * burstSeconds}
}

func (b *bucket) take(now time.Time) bool {
	if b.rate == 0 {
		return true
	}
	if d := now.Sub(b.last); d > 0 {
		b.level = min(b.burst, b.level+b.rate*d.Seconds())
		b.last = now
	}
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// Why events are shed; the last two are counted elsewhere.
const (
	byRate    = iota // a group told more than its rate
	byBacklog        // the socket or the kernel's queue filled up
	byQueue          // whoever takes the events did not keep up
	reasons
)

var reasonNames = [reasons]string{"rate_limited", "backlog", "queue_full"}

// shedAbove says how full the fullest queue may be before events of a rank are shed: the
// room that is left then belongs to the higher ranks.
var shedAbove = [...]float64{rankFile: 0.30, rankSocket: 0.45, rankProcess: 0.60, rankExec: 0.75, rankSecurity: 0.95}

const (
	relief = 0.15        // below this there is room again,
	calm   = time.Second // and after so long a rank more is let through
)

// foreign stands for what only rules of others tell of.
var foreign = len(groups)

// volume decides which events are worth their cost, from the first record of each and
// before anything else is read of it; it then passes over the others of that event. It
// belongs to the goroutine of Run, but for the counters.
type volume struct {
	buckets []bucket
	calls   [][numbers]uint8 // by ABI and number: the group
	ring    [256]uint8       // by operation of io_uring

	shed    int // ranks below this are shed,
	why     int // for this reason
	relaxed time.Time

	// Serials of events that were shed and have not ended. Records of events on several
	// CPUs interleave, but few lie between the first and the last of one.
	dropped [64]uint64
	next    int
	open    int

	seen []atomic.Uint64          // by group: events that began
	lost [][reasons]atomic.Uint64 // by group: events shed
}

// numbers is how many calls an ABI may have here; the table of the newest has 470.
const numbers = 512

func newVolume(rates map[string]float64) *volume {
	v := &volume{calls: make([][numbers]uint8, len(abis)), buckets: make([]bucket, foreign+1),
		seen: make([]atomic.Uint64, foreign+1), lost: make([][reasons]atomic.Uint64, foreign+1)}
	for a := range v.calls {
		fill(v.calls[a][:])
	}
	fill(v.ring[:])
	for g := range v.buckets {
		name := "other"
		if g < foreign {
			name = groups[g].name
		}
		rate, ok := rates[name]
		if !ok {
			rate = defaultRate
		}
		v.buckets[g] = newBucket(rate)
	}
	for g := range groups {
		for a := range abis {
			for _, p := range groups[g].parts {
				v.add(a, g, p.calls)
			}
			if groups[g].name == "file" {
				v.add(a, g, fileCalls)
			}
		}
		ring := groups[g].ring
		if groups[g].name == "file" {
			ring = fileRing
		}
		for op, m := 0, ringMask(ring); op < len(v.ring); op++ {
			if m.has(op) {
				v.ring[op] = uint8(g)
			}
		}
	}
	return v
}

func fill(table []uint8) {
	for i := range table {
		table[i] = uint8(foreign)
	}
}

func (v *volume) add(a, group int, names []string) {
	for _, name := range names {
		n := callNamed(name).number(abis[a])
		if n >= 0 && v.calls[a][n] == uint8(foreign) {
			v.calls[a][n] = uint8(group)
		}
	}
}

// admit reports whether a record is to be decoded. It reads no more than it needs.
func (v *volume) admit(typ uint16, data []byte, now time.Time) bool {
	var g int
	switch {
	case typ == recSyscall || typ == recUringOp:
		g = v.groupOf(typ, data)
	case typ >= recUserFirst && typ <= recUserLast || typ >= recUser2 && typ <= recUser2Last:
		g = userGroup
	default:
		return v.open == 0 || !v.passOver(typ, serial(data))
	}
	v.seen[g].Add(1)
	rank := rankSocket
	if g < foreign {
		rank = groups[g].rank
	}
	why := v.why
	switch {
	case rank < v.shed:
	case !v.buckets[g].take(now):
		why = byRate
	default:
		return true
	}
	v.lost[g][why].Add(1)
	if g != userGroup { // such an event is one record
		v.drop(serial(data))
	}
	return false
}

var userGroup = func() int {
	for g := range groups {
		if groups[g].name == "user" {
			return g
		}
	}
	panic("BUG: no group is called user")
}()

func (v *volume) drop(serial uint64) {
	if v.dropped[v.next] == 0 {
		v.open++
	}
	v.dropped[v.next] = serial
	v.next = (v.next + 1) % len(v.dropped)
}

// passOver reports whether a record belongs to an event that was shed.
func (v *volume) passOver(typ uint16, serial uint64) bool {
	if serial == 0 {
		return false
	}
	for i, d := range v.dropped {
		if d == serial {
			if typ == recEOE {
				v.dropped[i] = 0
				v.open--
			}
			return true
		}
	}
	return false
}

// press is told how full the fullest queue is, 0 to 1, and which that is.
func (v *volume) press(filled float64, why int, now time.Time) {
	want := 0
	for want < len(shedAbove) && filled > shedAbove[want] {
		want++
	}
	switch {
	case want > v.shed:
		v.shed, v.why = want, why
		v.relaxed = now
	case v.shed > 0 && filled < relief:
		if now.Sub(v.relaxed) >= calm {
			v.shed--
			v.relaxed = now
		}
	default:
		v.relaxed = now
	}
}

// groupOf reads which group a SYSCALL or URINGOP record belongs to: what follows the stamp
// is "arch=c000003e syscall=59 …", or "uring_op=18 …" (audit_log_exit, audit_log_uring).
func (v *volume) groupOf(typ uint16, data []byte) int {
	i := bytes.IndexByte(data, ')')
	if i < 0 || len(data) < i+3 {
		return foreign
	}
	b := data[i+3:] // after "): "
	if typ == recUringOp {
		if op, ok := number(b, "uring_op=", 10); ok && op < uint64(len(v.ring)) {
			return int(v.ring[op])
		}
		return foreign
	}
	arch, b, _ := bytes.Cut(bytes.TrimPrefix(b, archIs), space)
	call, ok := number(b, "syscall=", 10)
	if !ok || call >= numbers {
		return foreign
	}
	for a := range abis {
		if string(arch) != abis[a].text {
			continue
		}
		if abis[a].arch == archI386 && call == socketcall {
			return socketcallGroup(b)
		}
		return int(v.calls[a][call])
	}
	return foreign
}

var archIs, space, arg0 = []byte("arch="), []byte(" "), []byte(" a0=")

// socketcall is how 32-bit programs of old C libraries do all of these (net/socket.c): the
// first argument says which.
const socketcall = 102

func socketcallGroup(b []byte) int {
	_, b, _ = bytes.Cut(b, arg0)
	n, _ := number(b, "", 16)
	name := map[uint64]string{2: "bind", 3: "connect", 4: "listen", 5: "accept", 18: "accept"}[n]
	for g := range groups {
		if groups[g].name == name {
			return g
		}
	}
	return foreign
}

// number reads the number that stands after a name at the beginning of b.
func number(b []byte, name string, base uint64) (n uint64, ok bool) {
	if len(b) < len(name) || string(b[:len(name)]) != name {
		return 0, false
	}
	for _, c := range b[len(name):] {
		digit := uint64(c - '0')
		if c >= 'a' && c <= 'f' {
			digit = uint64(c-'a') + 10
		}
		if digit >= base || n > 1<<58 {
			break
		}
		n, ok = n*base+digit, true
	}
	return n, ok
}

// serial is the number in a record's stamp, "audit(1364481363.243:24287): "; 0 for none.
func serial(data []byte) uint64 {
	i := bytes.IndexByte(data[:min(len(data), 40)], ':')
	if i < 0 {
		return 0
	}
	n, _ := number(data[i+1:], "", 10)
	return n
}
