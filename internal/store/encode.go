package store

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A block is kept as
//
//	byte     blockVersion
//	uvarint  rows
//	uvarint  columns that follow; a column whose every value is 0 or "" is left out
//	columns, each
//	    uvarint  index in the layout, ascending
//	    uvarint  length of its numbers, as stored and when unpacked: see part
//	    uvarint  (text only) length of its strings, likewise
//	the parts, in the order of the columns; numbers, then strings
//	uint32   CRC-32C of all before, little endian
//
// Strings are a uvarint count, a uvarint length each, and their bytes.
const blockVersion = 1

const (
	minPack  = 128      // shorter parts are not worth a zstd frame (13 bytes and a table)
	maxPart  = 16 << 20 // of a block of blockBytes, the last string of which is maxText
	crcBytes = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packed is a block ready to be stored.
type packed struct {
	stream *stream
	rows   int
	span   span
	data   []byte
}

// packer turns builders into blocks. It belongs to the writer.
type packer struct {
	zstd  *zstd.Encoder
	head  []byte
	body  []byte
	part  []byte
	frame []byte
}

func newPacker() (*packer, error) {
	// Blocks are smaller than the window, so a smaller one costs nothing and saves
	// the encoder's history buffers.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(256<<10), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	return &packer{zstd: z}, nil
}

func (p *packer) close() { p.zstd.Close() }

// pack encodes the rows in b, which is of no use afterwards until it is reset.
func (p *packer) pack(b *builder) packed {
	p.head, p.body = p.head[:0], p.body[:0]
	columns := 0
	var ni, ti int
	for i := range b.stream.columns {
		var n *numbers
		var t *texts
		if b.stream.columns[i].Int != nil {
			n = &b.numbers[ni]
			ni++
		} else {
			t = &b.texts[ti]
			n = &t.nums
			ti++
		}
		if n.zero() {
			continue
		}
		columns++
		n.flush()
		p.head = binary.AppendUvarint(p.head, uint64(i))
		p.add(n.buf)
		if t == nil {
			continue
		}
		p.part = binary.AppendUvarint(p.part[:0], uint64(len(t.ends)))
		last := uint32(0)
		for _, end := range t.ends {
			p.part = binary.AppendUvarint(p.part, uint64(end-last))
			last = end
		}
		p.part = append(p.part, t.data...)
		p.add(p.part)
	}
	out := make([]byte, 0, len(p.head)+len(p.body)+16)
	out = append(out, blockVersion)
	out = binary.AppendUvarint(out, uint64(b.rows))
	out = binary.AppendUvarint(out, uint64(columns))
	out = append(append(out, p.head...), p.body...)
	out = sealed(out)
	if cap(p.body) > 2*blockBytes { // a rare huge block
		p.body, p.part, p.frame = nil, nil, nil
	}
	span := b.span
	span.kinds = slices.Clone(span.kinds) // the builder will use its own again
	return packed{stream: b.stream, rows: b.rows, span: span, data: out}
}

// sealed appends the checksum of b.
func sealed(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// add appends a part to the body, compressed when that pays, and its lengths to the head:
// the stored length doubled, plus one and followed by the length when unpacked if it is
// compressed.
func (p *packer) add(raw []byte) {
	if len(raw) >= minPack {
		p.frame = p.zstd.EncodeAll(raw, p.frame[:0])
		if len(p.frame) < len(raw)-len(raw)/8 {
			p.head = binary.AppendUvarint(p.head, uint64(len(p.frame))<<1|1)
			p.head = binary.AppendUvarint(p.head, uint64(len(raw)))
			p.body = append(p.body, p.frame...)
			return
		}
	}
	p.head = binary.AppendUvarint(p.head, uint64(len(raw))<<1)
	p.body = append(p.body, raw...)
}
