package store

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Limits of a block. A block is the unit of compression, of expiry, and of what a scan
// holds in memory for each stream.
const (
	blockRows   = 1000      // zstd gains little beyond, and a scan of two columns stays in cache
	blockBytes  = 512 << 10 // raw text after which a block ends early: long arguments must not make it huge
	maxText     = 8 << 20   // longer strings are cut; the kernel bounds all arguments of an execve to 6 MiB
	rowOverhead = 32        // bytes that the numbers of a row take in a builder, about
)

// builder collects the rows of one block, column by column. It copies what it is given.
// It belongs to whoever holds it: the store's tail, then the writer.
type builder struct {
	stream  *stream
	numbers []numbers
	texts   []texts
	rows    int
	bytes   int // what the block holds, about
	span    span
}

// span is what the directory knows of a block without opening it.
type span struct {
	firstEID, lastEID int64
	minTime, maxTime  int64
	minPID, maxPID    int64
	kinds             kindCounts
}

func newBuilder(s *stream, seed maphash.Seed) *builder {
	b := &builder{stream: s}
	for i := range s.columns {
		if c := &s.columns[i]; c.Int != nil {
			b.numbers = append(b.numbers, numbers{cell: s.cells[i]})
		} else {
			b.texts = append(b.texts, texts{cell: s.cells[i], seed: seed})
		}
	}
	return b
}

// add appends a row: an event of the stream's type, by its header.
func (b *builder) add(h *event.Header) {
	s := &b.span
	pid := int64(h.PID)
	if b.rows == 0 {
		*s = span{firstEID: h.EID, minTime: h.Time, maxTime: h.Time, minPID: pid, maxPID: pid, kinds: s.kinds[:0]}
	}
	s.lastEID = h.EID
	s.minTime, s.maxTime = min(s.minTime, h.Time), max(s.maxTime, h.Time)
	s.minPID, s.maxPID = min(s.minPID, pid), max(s.maxPID, pid)
	s.kinds.add(h.Kind, 1)
	for i := range b.numbers {
		n := &b.numbers[i]
		if v := n.cell.int(h); v == n.prev {
			n.run++
		} else {
			n.change(v)
		}
	}
	grown := rowOverhead
	for i := range b.texts {
		grown += b.texts[i].add(b.texts[i].cell.text(h))
	}
	b.bytes += grown
	b.rows++
}

// full reports whether the block should end here.
func (b *builder) full() bool { return b.rows >= blockRows || b.bytes >= blockBytes }

// reset empties the builder for another block. What a rare large block made it allocate
// is given back.
func (b *builder) reset() {
	for i := range b.numbers {
		b.numbers[i].reset()
	}
	for i := range b.texts {
		b.texts[i].reset()
	}
	b.rows, b.bytes = 0, 0
}

// numbers is a column of integers as a row of tokens, each a uvarint:
//
//	0 n     the value before, n times more (0 to begin with)
//	z       the value before plus the zigzag number z, which is never 0
type numbers struct {
	cell cell
	buf  []byte
	prev int64
	run  int // repetitions of prev that are not in buf yet
}

// change appends v, which differs from the value before.
func (n *numbers) change(v int64) {
	if n.run > 0 {
		n.flush()
	}
	n.buf = binary.AppendUvarint(n.buf, zigzag(v-n.prev))
	n.prev = v
}

// flush writes what repetitions are due.
func (n *numbers) flush() {
	if n.run > 0 {
		n.buf = binary.AppendUvarint(append(n.buf, 0), uint64(n.run))
		n.run = 0
	}
}

// zero reports whether every value so far was 0.
func (n *numbers) zero() bool { return len(n.buf) == 0 && n.prev == 0 }

func (n *numbers) reset() {
	n.buf, n.prev, n.run = n.buf[:0], 0, 0
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(z uint64) int64 { return int64(z>>1) ^ -int64(z&1) }

// texts is a column of strings: each distinct one once, and for every row the number of
// its string. Number 0 is the empty string.
type texts struct {
	cell cell
	nums numbers
	last string // of the row before; comparing it with itself costs a pointer comparison

	data   []byte   // the distinct strings
	ends   []uint32 // where each ends in data; number n is ends[n-1]
	hashes []uint32
	table  []uint32 // open addressing; a power of two; 0 is free
	seed   maphash.Seed
}

const (
	firstTable = 16
	keepData   = 64 << 10 // larger text areas are not kept for the next block
)

// add appends s and returns by how many bytes the column grew.
func (t *texts) add(s string) int {
	if s == t.last {
		t.nums.run++
		return 0
	}
	t.last = s
	if s == "" {
		t.nums.change(0)
		return 0
	}
	if len(s) > maxText {
		s = s[:maxText]
	}
	h := maphash.String(t.seed, s)
	if len(t.ends)*2 >= len(t.table) {
		t.grow()
	}
	mask := uint32(len(t.table) - 1)
	for i := uint32(h) & mask; ; i = (i + 1) & mask {
		n := t.table[i]
		if n == 0 {
			t.data = append(t.data, s...)
			t.ends = append(t.ends, uint32(len(t.data)))
			t.hashes = append(t.hashes, uint32(h>>32))
			n = uint32(len(t.ends))
			t.table[i] = n
			t.nums.change(int64(n))
			return len(s) + 8
		}
		if t.hashes[n-1] == uint32(h>>32) && string(t.entry(n)) == s {
			t.nums.change(int64(n))
			return 0
		}
	}
}

func (t *texts) entry(n uint32) []byte {
	start := uint32(0)
	if n > 1 {
		start = t.ends[n-2]
	}
	return t.data[start:t.ends[n-1]]
}

// grow doubles the table.
func (t *texts) grow() {
	size := max(firstTable, 2*len(t.table))
	if cap(t.table) >= size {
		t.table = t.table[:size]
		clear(t.table)
	} else {
		t.table = make([]uint32, size)
	}
	mask := uint32(size - 1)
	for n := range t.ends {
		i := uint32(maphash.Bytes(t.seed, t.entry(uint32(n+1)))) & mask
		for t.table[i] != 0 {
			i = (i + 1) & mask
		}
		t.table[i] = uint32(n + 1)
	}
}

func (t *texts) reset() {
	t.nums.reset()
	t.last = ""
	if cap(t.data) > keepData {
		t.data = nil
	}
	clear(t.table)
	t.table = t.table[:min(len(t.table), firstTable)]
	t.data, t.ends, t.hashes = t.data[:0], t.ends[:0], t.hashes[:0]
}
