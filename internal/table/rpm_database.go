package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// rpm keeps the header of each package as one blob, in one of three kinds of file. Two are
// read here: Berkeley DB's hash (RHEL up to 8) and rpm's own ndb (SUSE); the third is
// SQLite's. knqyf263/go-rpmdb reads them too, in a goroutine of its own, where a damaged
// page is a panic that ends the agent, or a chain of pages without end; a database may be
// a container's, so these readers bound every step. That library is what tests compare with.

const (
	maxRPMHeader = 32 << 20 // the headers of the largest kernel packages take 3 MiB
	maxRPMPages  = 1 << 22  // of a database
)

var errRPMDamaged = errors.New("the database is damaged")

// rpmFile is a database file.
type rpmFile = io.ReaderAt

// readBerkeley calls add with the value of each entry of a hash database that is kept in
// pages of its own, as headers are (Berkeley DB's dbinc/db_page.h).
func readBerkeley(f rpmFile, add func(header []byte) error) error {
	const (
		magic        = 0x061561
		hashUnsorted = 2 // page types
		overflow     = 7
		hash         = 13
		offPage      = 3 // an entry kept in pages of its own
		pageHeader   = 26
	)
	meta := make([]byte, 72)
	if _, err := f.ReadAt(meta, 0); err != nil {
		return fmt.Errorf("read its first page: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(meta[12:]) != magic {
		if order = binary.BigEndian; order.Uint32(meta[12:]) != magic {
			return errors.New("it is no Berkeley DB hash")
		}
	}
	size := order.Uint32(meta[20:])
	last := order.Uint32(meta[32:])
	if size < 512 || size > 65536 || size&(size-1) != 0 {
		return fmt.Errorf("pages of %d bytes: %w", size, errRPMDamaged)
	}
	if last > maxRPMPages {
		return fmt.Errorf("%d pages: %w", last, errRPMDamaged)
	}
	page, part := make([]byte, size), make([]byte, size)
	read := func(n uint32, into []byte) error {
		if n > last {
			return fmt.Errorf("page %d of %d: %w", n, last, errRPMDamaged)
		}
		if _, err := f.ReadAt(into, int64(n)*int64(size)); err != nil {
			return fmt.Errorf("read page %d: %w", n, err)
		}
		return nil
	}
	for n := range last + 1 {
		if err := read(n, page); err != nil {
			return err
		}
		if kind := page[25]; kind != hash && kind != hashUnsorted {
			continue
		}
		entries := int(order.Uint16(page[20:]))
		if pageHeader+2*entries > len(page) {
			return fmt.Errorf("page %d with %d entries: %w", n, entries, errRPMDamaged)
		}
		for i := 1; i < entries; i += 2 { // keys are at even places
			at := int(order.Uint16(page[pageHeader+2*i:]))
			if at < len(page) && page[at] != offPage {
				continue
			}
			if at+12 > len(page) {
				return fmt.Errorf("entry %d of page %d: %w", i, n, errRPMDamaged)
			}
			next, length := order.Uint32(page[at+4:]), order.Uint32(page[at+8:])
			if length > maxRPMHeader {
				return fmt.Errorf("a header of %d bytes: %w", length, errRPMDamaged)
			}
			value := make([]byte, 0, min(length, 1<<20))
			for next != 0 && len(value) < int(length) { // each page brings bytes, so this ends
				if err := read(next, part); err != nil {
					return err
				}
				used := len(part) - pageHeader
				if order.Uint32(part[16:]) == 0 {
					used = int(order.Uint16(part[22:]))
				}
				if part[25] != overflow || used <= 0 || used > len(part)-pageHeader {
					return fmt.Errorf("page %d continues no header: %w", next, errRPMDamaged)
				}
				value = append(value, part[pageHeader:pageHeader+used]...)
				next = order.Uint32(part[16:])
			}
			if len(value) < int(length) || next != 0 {
				return fmt.Errorf("a header of %d bytes has %d: %w", length, len(value), errRPMDamaged)
			}
			if err := add(value[:length]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readNDB calls add with each blob of rpm's own database (lib/backend/ndb/rpmpkg.c).
func readNDB(f rpmFile, add func(header []byte) error) error {
	const (
		block    = 16
		perPage  = 4096 / block
		maxPages = 2048
	)
	head := make([]byte, 32)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("read its header: %w", err)
	}
	order := binary.LittleEndian
	if !bytes.Equal(head[:4], []byte("RpmP")) || order.Uint32(head[4:]) != 0 {
		return errors.New("it is no rpm database of version 0")
	}
	pages := order.Uint32(head[12:])
	if pages == 0 || pages > maxPages {
		return fmt.Errorf("%d pages of slots: %w", pages, errRPMDamaged)
	}
	slots := make([]byte, int(pages)*4096-len(head))
	if _, err := f.ReadAt(slots, int64(len(head))); err != nil {
		return fmt.Errorf("read its slots: %w", err)
	}
	for ; len(slots) >= block; slots = slots[block:] {
		if !bytes.Equal(slots[:4], []byte("Slot")) {
			return fmt.Errorf("a slot begins with %q: %w", slots[:4], errRPMDamaged)
		}
		index := order.Uint32(slots[4:])
		if index == 0 {
			continue
		}
		at := int64(order.Uint32(slots[8:])) * block
		blob := make([]byte, block)
		if _, err := f.ReadAt(blob, at); err != nil {
			return fmt.Errorf("read package %d: %w", index, err)
		}
		length := order.Uint32(blob[12:])
		if !bytes.Equal(blob[:4], []byte("BlbS")) || order.Uint32(blob[4:]) != index || length > maxRPMHeader {
			return fmt.Errorf("package %d: %w", index, errRPMDamaged)
		}
		header := make([]byte, length)
		if _, err := f.ReadAt(header, at+block); err != nil {
			return fmt.Errorf("read package %d: %w", index, err)
		}
		if err := add(header); err != nil {
			return err
		}
	}
	return nil
}

// rpmHeader finds the values of tags in a header's blob: two lengths, an index of 16 bytes
// a tag, and the data (lib/header.c; numbers are big-endian).
type rpmHeader struct {
	tags map[uint32]rpmValue
}

type rpmValue struct {
	kind  uint32
	count uint32
	data  []byte // from the value to the end of all data
}

const (
	rpmInt16, rpmInt32, rpmInt64         = 3, 4, 5
	rpmString, rpmStrings, rpmTranslated = 6, 8, 9
)

func parseRPMHeader(b []byte) (*rpmHeader, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("a header of %d bytes: %w", len(b), errRPMDamaged)
	}
	order := binary.BigEndian
	entries, size := uint64(order.Uint32(b)), uint64(order.Uint32(b[4:]))
	b = b[8:]
	if entries*16+size > uint64(len(b)) {
		return nil, fmt.Errorf("a header of %d tags and %d bytes in %d: %w", entries, size, len(b), errRPMDamaged)
	}
	data := b[entries*16:][:size]
	h := &rpmHeader{tags: make(map[uint32]rpmValue, entries)}
	for ; entries > 0; entries-- {
		offset := order.Uint32(b[8:])
		if uint64(offset) <= size {
			h.tags[order.Uint32(b)] = rpmValue{order.Uint32(b[4:]), order.Uint32(b[12:]), data[offset:]}
		}
		b = b[16:]
	}
	return h, nil
}

// text is the first string of a tag, "" when there is none.
func (h *rpmHeader) text(tag uint32) string {
	v := h.tags[tag]
	if v.kind != rpmString && v.kind != rpmStrings && v.kind != rpmTranslated {
		return ""
	}
	s, _, ok := bytes.Cut(v.data, []byte{0})
	if !ok || string(s) == "(none)" {
		return ""
	}
	return string(s)
}

// texts are the strings of a tag; fewer than it counts when the data ends.
func (h *rpmHeader) texts(tag uint32) []string {
	v := h.tags[tag]
	if v.kind != rpmStrings {
		return nil
	}
	out := make([]string, 0, min(int64(v.count), int64(len(v.data))))
	for rest := v.data; len(out) < cap(out); {
		s, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			break
		}
		out, rest = append(out, string(s)), after
	}
	return out
}

// numbers are the numbers of a tag, of any width.
func (h *rpmHeader) numbers(tag uint32) []int64 {
	v := h.tags[tag]
	width := map[uint32]int{rpmInt16: 2, rpmInt32: 4, rpmInt64: 8}[v.kind]
	if width == 0 {
		return nil
	}
	n := min(int(v.count), len(v.data)/width)
	out := make([]int64, n)
	for i := range out {
		switch b := v.data[i*width:]; width {
		case 2:
			out[i] = int64(binary.BigEndian.Uint16(b))
		case 4:
			out[i] = int64(binary.BigEndian.Uint32(b))
		default:
			out[i] = int64(binary.BigEndian.Uint64(b))
		}
	}
	return out
}

// number is the first number of a tag, and whether it has one.
func (h *rpmHeader) number(tag uint32) (int64, bool) {
	if n := h.numbers(tag); len(n) > 0 {
		return n[0], true
	}
	return 0, false
}
