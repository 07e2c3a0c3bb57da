package fanotify

import (
	"encoding/binary"
	"errors"
	"testing"
)

// info makes one struct fanotify_event_info_fid.
func info(kind byte, handle, name string) []byte {
	b := []byte{kind, 0, 0, 0}
	b = append(b, "FSIDFSID"...)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(handle)))
	b = append(b, 1, 0, 0, 0)
	b = append(append(b, handle...), name...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func record(mask uint64, pid int32, infos ...[]byte) []byte {
	b := make([]byte, eventHead)
	for _, i := range infos {
		b = append(b, i...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = metaVersion
	binary.NativeEndian.PutUint16(b[6:], eventHead)
	binary.NativeEndian.PutUint64(b[8:], mask)
	binary.NativeEndian.PutUint32(b[16:], 0xffffffff)
	binary.NativeEndian.PutUint32(b[20:], uint32(pid))
	return b
}

func TestNext(t *testing.T) {
	b := append(record(markRename, 7, info(infoOldDFID, "from", "a\x00"), info(infoNewDFID, "to__", "b\x00"), info(infoFID, "file", ""), []byte{99, 0, 4, 0}),
		record(1, 8, info(infoDFIDN, "dir_", "name\x00\x00"))...)
	var e raw
	rest, err := next(b, &e)
	if err != nil || e.pid != 7 || e.fd != -1 || string(e.from.name) != "a" || string(e.to.name) != "b" || string(e.target.handle[4:]) != "file" ||
		string(e.to.handle[4:]) != "to__" || string(e.from.fsid[:]) != "FSIDFSID" {
		t.Errorf("%+v: %v", e, err)
	}
	rest, err = next(rest, &e)
	if err != nil || len(rest) != 0 || e.pid != 8 || string(e.dir.name) != "name" || e.target.handle != nil {
		t.Errorf("%+v, %d left: %v", e, len(rest), err)
	}
	for _, bad := range [][]byte{{1}, record(1, 1)[:20], record(1, 1, []byte{1, 0, 0, 0}), record(1, 1, []byte{1, 0, 200, 0}),
		record(1, 1, info(infoFID, "file", "")[:12])} {
		if _, err := next(bad, &e); !errors.Is(err, errMalformed) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add(record(markRename, 7, info(infoOldDFID, "from", "a\x00"), info(infoFID, "file", "")))
	f.Add(record(1, 8, info(infoDFIDN, "dir_", "name\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for turns := 0; len(b) > 0; turns++ {
			var e raw
			rest, err := next(b, &e)
			if len(rest) >= len(b) || turns > len(b) && err == nil {
				t.Fatal("it does not go on")
			}
			b = rest
		}
	})
}
