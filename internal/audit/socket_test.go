package audit

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatus(t *testing.T) {
	want := status{enabled: 1, failure: 2, pid: 3, rateLimit: 4, backlogLimit: 5, backlogWait: 6}
	b := want.append(nil, setPID)
	if len(b) != statusLen || b[0] != setPID && b[3] != setPID {
		t.Errorf("%d bytes: %x", len(b), b)
	}
	var got status
	if err := got.parse(b); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	want.backlogWait = 0
	if err := got.parse(b[:statusLenOld]); err != nil || got != want {
		t.Errorf("of an old kernel: %+v, %v", got, err)
	}
	if got.parse(b[:statusLenOld-1]) == nil {
		t.Error("cut is no error")
	}
}

func FuzzReply(f *testing.F) {
	f.Add(append(appendHeader(nil, 4, unix.NLMSG_ERROR, 0, 1), 0, 0, 0, 0))
	f.Add(append(appendHeader(nil, statusLen, msgGet, 0, 1), make([]byte, statusLen)...))
	f.Add(bytes.Repeat(appendHeader(nil, 0, unix.NLMSG_DONE, 0, 1), 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, _, data, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("it does not come to an end")
			}
			var s status
			s.parse(data)
			parseRule(data)
			b = rest
		}
	})
}
