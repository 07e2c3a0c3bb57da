package sensor

import (
	"context"
	"testing"
	"unsafe"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// newDrain returns a reader without rings, whose records a test hands in.
func newDrain(t testing.TB) *drain {
	t.Helper()
	s := &Sensor{decode: newDecoder(&Options{BootID: "b", Env: []string{"HOME", "LANG"}})}
	s.held.init()
	set, _ := selection.Compile(selection.Options{Watch: []selection.Rule{{Category: "c", Pattern: "/srv/%%"}}, Exclude: []selection.Rule{{Pattern: "/srv/x/%%"}}})
	s.watched = &watched{open: map[uint64]*writing{}, temps: map[fileID]string{}}
	s.watched.now.Store(&scope{set: set, systems: map[uint32]selection.Views{8<<20 | 1: {{Root: "/", Path: "/srv"}}}})
	return &drain{s: s, ctx: context.Background(), out: make(chan *event.Batch, 64)}
}

// feed decodes one record and returns the events that are in the batch then.
func feed(t testing.TB, d *drain, raw []byte) []event.Event {
	t.Helper()
	if err := d.record(raw); err != nil {
		t.Fatal(err)
	}
	if d.batch == nil {
		return nil
	}
	return d.batch.Events
}

// raw is the bytes of a record as the kernel writes them.
func raw[T any](rec T) []byte {
	b := make([]byte, unsafe.Sizeof(rec))
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&rec)), unsafe.Sizeof(rec)))
	return b
}

// with appends variable data to a record and returns its span.
func with(b *[]byte, data string) bpf.GoshawkSpan {
	s := bpf.GoshawkSpan{Off: uint32(len(*b)), Len: uint32(len(data))}
	*b = append(*b, data...)
	return s
}

func comm(name string) (c [16]int8) {
	for i := range len(name) {
		c[i] = int8(name[i])
	}
	return c
}

// head is the head of every hand-made record, and wantHeader what it decodes to.
func head(kind event.ID) bpf.GoshawkRecHead {
	return bpf.GoshawkRecHead{
		Time: 7_000_000_000, Start: 5_000_000_000, Pstart: 3_000_000_000, Cgroup: 77,
		Pid: 100, Tid: 101, Ppid: 50, Uid: 1, Gid: 2, Euid: 3, Egid: 4, Auid: 1000, Session: 9,
		Kind: uint16(kind), TtyMajor: 136, TtyMinor: 3, Comm: comm("worker"),
	}
}

func wantHeader(kind event.ID) event.Header {
	return event.Header{
		Kind: kind, Time: 7_000_000_000, NTime: 7_000_000_000, Source: "ebpf", Fidelity: "kernel",
		PID: 100, TID: 101, PPID: 50, Start: 5_000_000_000, PStart: 3_000_000_000, BootID: "b",
		Comm: "worker", UID: 1, GID: 2, EUID: 3, EGID: 4, AUID: 1000, Session: 9, TTY: "pts/3", CgroupID: 77,
	}
}

// execParts are the variable parts of an exec record, as the kernel side writes them:
// paths from the leaf to the root, each name with its NUL.
type execParts struct{ path, cwd, filename, args, env string }

func execRecord(r bpf.GoshawkRecExec, p execParts) []byte {
	if r.Head.Kind == 0 {
		flags := r.Head.Flags
		r.Head = head(event.KindExec)
		r.Head.Flags = flags
	}
	b := raw(r)
	r.Path, r.Cwd = with(&b, p.path), with(&b, p.cwd)
	r.Filename, r.Args, r.Env = with(&b, p.filename), with(&b, p.args), with(&b, p.env)
	if r.ArgsLength == 0 {
		r.ArgsLength = uint64(len(p.args))
	}
	r.Head.Size = uint32(len(b))
	copy(b, raw(r))
	return b
}

func socketRecord(r bpf.GoshawkRecSocket, kind event.ID, path string) []byte {
	flags := r.Head.Flags
	r.Head = head(kind)
	r.Head.Flags = flags
	b := raw(r)
	r.Path = with(&b, path)
	r.Head.Size = uint32(len(b))
	copy(b, raw(r))
	return b
}

func dnsRecordOf(r bpf.GoshawkRecDns, answer bool, payload string) []byte {
	time, flags := r.Head.Time, r.Head.Flags
	r.Head = head(event.KindDNS)
	r.Head.Flags = flags
	if answer {
		r.Head = bpf.GoshawkRecHead{Kind: uint16(event.KindDNS),
			Flags: flags | uint32(bpf.GoshawkFlagFLAG_RESPONSE|bpf.GoshawkFlagFLAG_ANONYMOUS)}
	}
	if time != 0 {
		r.Head.Time = time
	}
	b := raw(r)
	r.Payload = with(&b, payload)
	b = append(b, make([]byte, 512-len(payload)%512)...) // room that the kernel reserves and does not fill
	r.Head.Size = uint32(len(b))
	copy(b, raw(r))
	return b
}

func four(a, b, c, d byte) [16]uint8 { return [16]uint8{a, b, c, d} }
