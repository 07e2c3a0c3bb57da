package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxRows is what a reader accepts of a block; a writer ends blocks far earlier.
const maxRows = 1 << 16

// errBlock is what every complaint about the bytes of a block wraps.
var errBlock = errors.New("damaged block")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBlock, fmt.Sprintf(format, args...))
}

// layout is the columns of a block as its writer knew them.
type layout struct {
	text []bool // of each column, whether it holds text
	// at has, for each column of the stream as this agent knows it, the index of the same
	// column here; -1 when the writer did not know it.
	at []int
}

// parseLayout reads what layoutText made of the columns of st, now or by another agent.
func parseLayout(st *stream, text string) (*layout, error) {
	l := &layout{at: make([]int, len(st.columns))}
	for i := range l.at {
		l.at[i] = -1
	}
	for line := range strings.Lines(text) {
		form, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || form != "i" && form != "s" {
			return nil, damaged("layout line %q", line)
		}
		if i := st.column(name); i >= 0 && (st.columns[i].Str != nil) == (form == "s") {
			l.at[i] = len(l.text)
		}
		l.text = append(l.text, form == "s")
	}
	return l, nil
}

// part is some bytes of a block, perhaps compressed.
type part struct {
	data []byte
	size int // length of data
	raw  int // length when unpacked; 0 when it is not compressed
}

// block reads columns out of the bytes of a block. The bytes may be anything: what is
// wrong with them is an error, never a panic, and costs no more memory than maxPart.
// A block is used again for the next one.
type block struct {
	zstd   *zstd.Decoder
	layout *layout
	rows   int
	// numbers and strings of the columns of the layout; empty for a column left out.
	numbers, strings []part
	unpacked         []byte
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxPart), zstd.WithDecodeAllCapLimit(true))
}

// open checks data and finds the columns in it. The block refers to data until the next
// open.
func (b *block) open(data []byte, l *layout) error {
	b.rows, b.layout = 0, l
	if len(data) < crcBytes+3 {
		return damaged("%d bytes", len(data))
	}
	body := data[:len(data)-crcBytes]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(data[len(body):]) {
		return damaged("checksum differs")
	}
	if body[0] != blockVersion {
		return damaged("version %d", body[0])
	}
	r := reader{data: body[1:]}
	rows, columns := r.uvarint(), r.uvarint()
	if r.bad || rows == 0 || rows > maxRows || columns > uint64(len(l.text)) {
		return damaged("%d rows of %d columns", rows, columns)
	}
	b.numbers = emptied(b.numbers, len(l.text))
	b.strings = emptied(b.strings, len(l.text))
	length := func(p *part) bool {
		stored := r.uvarint()
		if stored&1 != 0 {
			raw := r.uvarint()
			if raw == 0 || raw > maxPart {
				return false
			}
			p.raw = int(raw)
		}
		if stored>>1 > uint64(len(body)) {
			return false
		}
		p.size = int(stored >> 1)
		return !r.bad
	}
	next := 0
	for range columns {
		i := r.uvarint()
		if r.bad || i >= uint64(len(l.text)) || i < uint64(next) {
			return damaged("column %d of %d", i, len(l.text))
		}
		next = int(i) + 1
		if !length(&b.numbers[i]) || l.text[i] && !length(&b.strings[i]) {
			return damaged("lengths of column %d", i)
		}
	}
	rest := r.data
	for i := range l.text {
		for _, p := range [...]*part{&b.numbers[i], &b.strings[i]} {
			if p.size > len(rest) {
				return damaged("%d bytes of %d", len(rest), p.size)
			}
			p.data, rest = rest[:p.size], rest[p.size:]
		}
	}
	if len(rest) != 0 {
		return damaged("%d bytes too many", len(rest))
	}
	b.rows = int(rows)
	return nil
}

func emptied(p []part, n int) []part {
	if cap(p) < n {
		return make([]part, n)
	}
	p = p[:n]
	clear(p)
	return p
}

// unpack returns the bytes of p, valid until the next call.
func (b *block) unpack(p part) ([]byte, error) {
	if p.raw == 0 {
		return p.data, nil
	}
	if cap(b.unpacked) < p.raw {
		b.unpacked = make([]byte, 0, p.raw+p.raw/4)
	}
	out, err := b.zstd.DecodeAll(p.data, b.unpacked[:0:p.raw])
	if err != nil {
		return nil, damaged("zstd: %v", err)
	}
	if len(out) != p.raw {
		return nil, damaged("zstd: %d bytes, not %d", len(out), p.raw)
	}
	if cap(b.unpacked) > 2*blockBytes { // a rare huge block
		b.unpacked = nil
	}
	return out, nil
}

// ints reads the numbers of a column into to, which it grows to one for each row, and
// reports whether they are all the same. A column left out is all zero.
func (b *block) ints(column int, to []int64) (values []int64, same bool, err error) {
	if cap(to) < b.rows {
		to = make([]int64, b.rows, max(b.rows, blockRows))
	}
	to = to[:b.rows]
	if column < 0 || len(b.numbers[column].data) == 0 {
		clear(to)
		return to, true, nil
	}
	data, err := b.unpack(b.numbers[column])
	if err != nil {
		return nil, false, err
	}
	at, v := 0, int64(0)
	changes := 0
	for i := 0; i < len(data); {
		z := uint64(data[i])
		if z < 0x80 {
			i++
		} else {
			var n int
			if z, n = binary.Uvarint(data[i:]); n <= 0 {
				return nil, false, damaged("number at %d", i)
			}
			i += n
		}
		if z != 0 {
			if at == len(to) {
				return nil, false, damaged("more than %d numbers", len(to))
			}
			v += unzigzag(z)
			to[at] = v
			at++
			changes++
			continue
		}
		run, n := binary.Uvarint(data[i:])
		if n <= 0 || run > uint64(len(to)-at) {
			return nil, false, damaged("run at %d", i)
		}
		i += n
		fill := to[at : at+int(run)]
		for k := range fill {
			fill[k] = v
		}
		at += int(run)
	}
	if at != len(to) {
		return nil, false, damaged("%d numbers, not %d", at, len(to))
	}
	return to, changes == 0 || changes == 1 && to[0] == v, nil
}

// texts reads the distinct strings of a column: entry 0 is the empty string. They share
// one allocation, made anew for each block, so they outlive it.
func (b *block) texts(column int, to []string) ([]string, error) {
	to = append(to[:0], "")
	if column < 0 || len(b.strings[column].data) == 0 {
		return to, nil
	}
	data, err := b.unpack(b.strings[column])
	if err != nil {
		return nil, err
	}
	r := reader{data: data}
	count := r.uvarint()
	if r.bad || count > uint64(b.rows) || count > uint64(len(r.data)) {
		return nil, damaged("%d strings", count)
	}
	lengths := reader{data: r.data}
	total := uint64(0)
	for range count {
		n := r.uvarint()
		if r.bad || n > maxPart {
			return nil, damaged("length of a string")
		}
		total += n
	}
	if total != uint64(len(r.data)) {
		return nil, damaged("strings of %d bytes in %d", total, len(r.data))
	}
	all := string(r.data)
	for range count {
		n := lengths.uvarint()
		to = append(to, all[:n])
		all = all[n:]
	}
	return to, nil
}

// reader takes uvarints off a slice.
type reader struct {
	data []byte
	bad  bool // it ended early, or a number was too long
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.bad = true
		r.data = nil
		return 0
	}
	r.data = r.data[n:]
	return v
}
