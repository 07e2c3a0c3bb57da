package fanotify

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Bits and types of linux/fanotify.h that x/sys has not.
const (
	markRename   = 0x10000000
	reportTarget = 0x1000

	infoFID     = 1
	infoDFIDN   = 2
	infoDFID    = 3
	infoOldDFID = 10
	infoNewDFID = 12
)

const (
	eventHead   = 24 // struct fanotify_event_metadata
	infoHead    = 4  // struct fanotify_event_info_header
	fidHead     = 20 // struct fanotify_event_info_fid with the head of its struct file_handle
	maxHandle   = 128
	metaVersion = 3
)

var errMalformed = errors.New("fanotify: event is shorter than it says")

// object is a file as the kernel names it in an event: its file system and its handle there,
// and for an entry of a directory its name in it. The zero object is none.
type object struct {
	fsid   [8]byte
	handle []byte // type and bytes of struct file_handle
	name   []byte
}

// raw is an event as the kernel wrote it; it points into the buffer.
type raw struct {
	mask     uint64
	pid      int32
	fd       int32
	dir      object // directory and name
	from, to object // of a rename
	target   object // the file itself
}

// next cuts the first event off b.
func next(b []byte, e *raw) (rest []byte, err error) {
	if len(b) < eventHead {
		return nil, errMalformed
	}
	size, head := binary.NativeEndian.Uint32(b), int(binary.NativeEndian.Uint16(b[6:]))
	if uint64(size) > uint64(len(b)) || size < eventHead || head < eventHead || head > int(size) || b[4] != metaVersion {
		return nil, errMalformed
	}
	*e = raw{mask: binary.NativeEndian.Uint64(b[8:]), fd: int32(binary.NativeEndian.Uint32(b[16:])), pid: int32(binary.NativeEndian.Uint32(b[20:]))}
	for info := b[head:size]; len(info) >= infoHead; {
		n := int(binary.NativeEndian.Uint16(info[2:]))
		if n < infoHead || n > len(info) {
			return b[size:], errMalformed
		}
		var to *object
		switch info[0] {
		case infoFID:
			to = &e.target
		case infoDFIDN, infoDFID:
			to = &e.dir
		case infoOldDFID:
			to = &e.from
		case infoNewDFID:
			to = &e.to
		}
		if to != nil {
			if err := to.parse(info[:n]); err != nil {
				return b[size:], err
			}
		}
		info = info[n:]
	}
	return b[size:], nil
}

func (o *object) parse(info []byte) error {
	if len(info) < fidHead {
		return errMalformed
	}
	copy(o.fsid[:], info[4:12])
	n := binary.NativeEndian.Uint32(info[12:])
	if n > maxHandle || int(n) > len(info)-fidHead {
		return errMalformed
	}
	o.handle = info[16 : fidHead+n]
	switch info[0] {
	case infoDFIDN, infoOldDFID, infoNewDFID:
		o.name, _, _ = bytes.Cut(info[fidHead+n:], []byte{0})
	}
	return nil
}
