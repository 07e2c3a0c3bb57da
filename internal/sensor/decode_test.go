package sensor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

func TestDecodeExec(t *testing.T) {
	many := strings.Repeat("a\x00", 5000)
	for _, tt := range []struct {
		name string
		rec  bpf.GoshawkRecExec
		in   execParts
		want event.Exec
	}{
		{
			name: "binary",
			rec: bpf.GoshawkRecExec{Inode: 42, Suid: 11, Sgid: 12, Fsuid: 13, Fsgid: 14,
				OwnerUid: 15, OwnerGid: 16, Mode: 0o104755, Nlink: 1, Argc: 3},
			in: execParts{path: "true\x00bin\x00usr\x00", cwd: "", filename: "/bin/true",
				args: "true\x00--a b\x00\x00"},
			want: event.Exec{Header: event.Header{Path: "/usr/bin/true"}, Filename: "/bin/true",
				Args: "true\x00--a b\x00\x00", ArgsLength: 12, Cwd: "/", Inode: 42, Mode: 0o104755,
				OwnerUID: 15, OwnerGID: 16, SUID: 11, SGID: 12, FSUID: 13, FSGID: 14},
		},
		{
			name: "script by relative name",
			rec: bpf.GoshawkRecExec{Inode: 1, Nlink: 1,
				Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_SCRIPT)}},
			in: execParts{path: "dash\x00bin\x00", cwd: "work\x00srv\x00", filename: "./run.sh",
				args: "/bin/dash\x00./run.sh\x00x\x00"},
			want: event.Exec{Header: event.Header{Path: "/bin/dash"}, Filename: "./run.sh", Cwd: "/srv/work",
				Args: "/bin/dash\x00./run.sh\x00x\x00", ArgsLength: 21, Inode: 1,
				Interpreter: "/bin/dash", Script: "/srv/work/run.sh"},
		},
		{
			name: "script in the root directory",
			rec: bpf.GoshawkRecExec{Inode: 1, Nlink: 1,
				Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_SCRIPT)}},
			in: execParts{path: "dash\x00bin\x00", cwd: "", filename: "a.sh", args: "x\x00"},
			want: event.Exec{Header: event.Header{Path: "/bin/dash"}, Filename: "a.sh", Cwd: "/",
				Args: "x\x00", ArgsLength: 2, Inode: 1, Interpreter: "/bin/dash", Script: "/a.sh"},
		},
		{
			name: "memfd",
			rec: bpf.GoshawkRecExec{Inode: 1029, Nlink: 0,
				Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_MEMFD)}},
			in: execParts{path: "memfd:payload\x00", cwd: "tmp\x00", filename: "/dev/fd/3", args: "p\x00"},
			want: event.Exec{Header: event.Header{Path: "/memfd:payload"}, Filename: "/dev/fd/3", Cwd: "/tmp",
				Args: "p\x00", ArgsLength: 2, Memfd: true, Deleted: true, Inode: 1029},
		},
		{
			name: "arguments cut",
			rec: bpf.GoshawkRecExec{Inode: 1, Nlink: 1, ArgsLength: 1 << 20,
				Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_ARGS_CUT)}},
			in: execParts{path: "a\x00", filename: "a", args: strings.Repeat("x", 32768)},
			want: event.Exec{Header: event.Header{Path: "/a"}, Filename: "a", Cwd: "/", Inode: 1,
				Args: strings.Repeat("x", 32768), ArgsLength: 1 << 20, ArgsTruncated: true},
		},
		{
			name: "paths cut",
			rec: bpf.GoshawkRecExec{Inode: 1, Nlink: 1, Head: bpf.GoshawkRecHead{Flags: uint32(
				bpf.GoshawkFlagFLAG_PATH_CUT | bpf.GoshawkFlagFLAG_CWD_CUT | bpf.GoshawkFlagFLAG_FILENAME_CUT)}},
			in: execParts{path: "true\x00bin\x00usr\x00", cwd: "deep\x00", filename: "./aaaa", args: "x\x00"},
			want: event.Exec{Header: event.Header{Path: ".../usr/bin/true"}, Filename: "./aaaa", Cwd: ".../deep",
				Inode: 1, Args: "x\x00", ArgsLength: 2, PathTruncated: true},
		},
		{
			name: "names that are not UTF-8",
			rec:  bpf.GoshawkRecExec{Inode: 1, Nlink: 1},
			in:   execParts{path: "\xff\xfe\x00tmp\x00", cwd: "\x80\x00", filename: "\xff\xfe", args: "\xc3\x28\x00"},
			want: event.Exec{Header: event.Header{Path: "/tmp/\xff\xfe"}, Filename: "\xff\xfe", Cwd: "/\x80",
				Inode: 1, Args: "\xc3\x28\x00", ArgsLength: 3},
		},
		{
			name: "5,000 arguments",
			rec:  bpf.GoshawkRecExec{Inode: 1, Nlink: 1, Argc: 5000},
			in:   execParts{path: "a\x00", filename: "a", args: many},
			want: event.Exec{Header: event.Header{Path: "/a"}, Filename: "a", Cwd: "/", Inode: 1,
				Args: many, ArgsLength: 10000},
		},
		{
			name: "no arguments at all",
			rec:  bpf.GoshawkRecExec{Inode: 1, Nlink: 1},
			in:   execParts{path: "a\x00", filename: "/a"},
			want: event.Exec{Header: event.Header{Path: "/a"}, Filename: "/a", Cwd: "/", Inode: 1},
		},
		{
			name: "environment",
			rec:  bpf.GoshawkRecExec{Inode: 1, Nlink: 1},
			in: execParts{path: "a\x00", filename: "/a",
				env: "PATH=/bin\x00HOME=/root\x00HOMER=no\x00LANG\x00LANG=C=D\x00HOME=cut"},
			want: event.Exec{Header: event.Header{Path: "/a"}, Filename: "/a", Cwd: "/", Inode: 1,
				Env: "HOME=/root\x00LANG=C=D\x00HOME=cut\x00"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := feed(t, newDrain(t), execRecord(tt.rec, tt.in))
			path := tt.want.Path
			tt.want.Header = wantHeader(event.KindExec)
			tt.want.Path = path
			if diff := cmp.Diff([]event.Event{&tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A kernel thread of the seed has no file and no directory.
func TestDecodeKernelThread(t *testing.T) {
	h := head(event.KindExec)
	h.Size, h.TtyMajor = uint32(len(raw(bpf.GoshawkRecExec{}))), 0
	got := feed(t, newDrain(t), raw(bpf.GoshawkRecExec{Head: h}))
	want := &event.Exec{Header: wantHeader(event.KindExec)}
	want.TTY = ""
	if diff := cmp.Diff([]event.Event{want}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeFork(t *testing.T) {
	r := bpf.GoshawkRecFork{Head: head(event.KindFork), ChildStart: 6_999, ChildPid: 102, ChildPpid: 50}
	r.Head.Size = uint32(len(raw(r)))
	got := feed(t, newDrain(t), raw(r))
	want := &event.Fork{Header: wantHeader(event.KindFork), ChildPID: 102, ChildStart: 6_999, ChildPPID: 50}
	if diff := cmp.Diff([]event.Event{want}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeExit(t *testing.T) {
	for _, tt := range []struct {
		name string
		rec  bpf.GoshawkRecExit
		want event.Exit
	}{
		{"code", bpf.GoshawkRecExit{Code: 7 << 8, MaxRss: 3}, event.Exit{ExitCode: 7, MaxRSS: 3 * 4096}},
		{"code 255", bpf.GoshawkRecExit{Code: 255 << 8}, event.Exit{ExitCode: 255}},
		{"signal", bpf.GoshawkRecExit{Code: 9}, event.Exit{Signal: 9}},
		{"core", bpf.GoshawkRecExit{Code: 0x80 | 11,
			Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_CORE)}}, event.Exit{Signal: 11, CoreDumped: true}},
		{"times scaled to the exact run time", bpf.GoshawkRecExit{Utime: 1_000_000, Stime: 3_000_000, Runtime: 8_000_000},
			event.Exit{UserNs: 2_000_000, SystemNs: 6_000_000}},
		{"ticks that saw user mode alone", bpf.GoshawkRecExit{Utime: 4_000_000, Runtime: 123},
			event.Exit{UserNs: 123}},
		{"no ticks", bpf.GoshawkRecExit{Runtime: 123}, event.Exit{UserNs: 123}},
		{"sums that overflow", bpf.GoshawkRecExit{Utime: 1, Stime: 1 << 63, Runtime: 1 << 63},
			event.Exit{UserNs: 1, SystemNs: 1<<63 - 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			flags := tt.rec.Head.Flags
			tt.rec.Head = head(event.KindExit)
			tt.rec.Head.Flags, tt.rec.Head.Size = flags, uint32(len(raw(tt.rec)))
			d := newDrain(t)
			d.s.decode.pages = 4096
			got := feed(t, d, raw(tt.rec))
			tt.want.Header = wantHeader(event.KindExit)
			tt.want.DurationNs = 2_000_000_000
			if diff := cmp.Diff([]event.Event{&tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Before 6.16 two threads that leave at once may both report the end of their process.
func TestDecodeExitOnce(t *testing.T) {
	r := bpf.GoshawkRecExit{Head: head(event.KindExit)}
	r.Head.Size = uint32(len(raw(r)))
	d := newDrain(t)
	feed(t, d, raw(r))
	if got := feed(t, d, raw(r)); len(got) != 1 {
		t.Errorf("got %d events, want 1", len(got))
	}
	if n := d.s.decode.count[event.KindExit].repeated.Load(); n != 1 {
		t.Errorf("repeated = %d, want 1", n)
	}
	r.Head.Start++ // the next process with that pid
	if got := feed(t, d, raw(r)); len(got) != 2 {
		t.Errorf("got %d events, want 2", len(got))
	}
}

func TestDecodeSocket(t *testing.T) {
	six := [16]uint8{0x20, 1, 0xd, 0xb8, 15: 1}
	mapped := [16]uint8{10: 0xff, 11: 0xff, 12: 10, 13: 1, 14: 2, 15: 3}
	for _, tt := range []struct {
		name string
		kind event.ID
		rec  bpf.GoshawkRecSocket
		path string
		want event.Socket
	}{
		{
			name: "tcp", kind: event.KindConnect,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
				Local: four(10, 0, 0, 1), Remote: four(10, 0, 0, 2), LocalPort: 40000, RemotePort: 443,
				Fd: 5, Cookie: 8, Netns: 4026531840, Duration: 1000},
			want: event.Socket{Family: "inet", Protocol: "tcp", FamilyNumber: 2, Type: 1, ProtoNumber: 6, FD: 5,
				LocalAddress: "10.0.0.1", LocalPort: 40000, RemoteAddress: "10.0.0.2", RemotePort: 443,
				Result: "ok", Cookie: 8, NetNS: 4026531840, DurationNs: 1000},
		},
		{
			name: "tcp over IPv6, closed with an error", kind: event.KindClose,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
				Local: six, Remote: six, LocalPort: 1, RemotePort: 2, Fd: -1, Sent: 3, Received: 4, Result: -int32(unix.ECONNRESET)},
			want: event.Socket{Family: "inet6", Protocol: "tcp", FamilyNumber: 10, Type: 1, ProtoNumber: 6, FD: -1,
				LocalAddress: "2001:db8::1", LocalPort: 1, RemoteAddress: "2001:db8::1", RemotePort: 2,
				Result: "ECONNRESET", BytesSent: 3, BytesReceived: 4},
		},
		{
			name: "IPv4 through an IPv6 socket", kind: event.KindAccept,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
				Local: mapped, Remote: mapped, LocalPort: 80, RemotePort: 5},
			want: event.Socket{Family: "inet", Protocol: "tcp", FamilyNumber: 10, Type: 1, ProtoNumber: 6,
				LocalAddress: "10.1.2.3", LocalPort: 80, RemoteAddress: "10.1.2.3", RemotePort: 5, Result: "ok"},
		},
		{
			name: "IPv4 through an unbound IPv6 socket", kind: event.KindConnect,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET6, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP, Remote: mapped, RemotePort: 5},
			want: event.Socket{Family: "inet", Protocol: "udp", FamilyNumber: 10, Type: 2, ProtoNumber: 17,
				LocalAddress: "0.0.0.0", RemoteAddress: "10.1.2.3", RemotePort: 5, Result: "ok"},
		},
		{
			name: "bind refused", kind: event.KindBind,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
				Local: four(0, 0, 0, 0), LocalPort: 80, Result: -int32(unix.EADDRINUSE),
				Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_USER_ADDRESS)}},
			want: event.Socket{Header: event.Header{Fidelity: "user"}, Family: "inet", Protocol: "tcp", FamilyNumber: 2,
				Type: 1, ProtoNumber: 6, LocalAddress: "0.0.0.0", LocalPort: 80, Result: "EADDRINUSE"},
		},
		{
			name: "unix path with bytes behind its end", kind: event.KindListen, path: "/run/x.sock\x00junk",
			rec: bpf.GoshawkRecSocket{Family: unix.AF_UNIX, Type: unix.SOCK_SEQPACKET},
			want: event.Socket{Family: "unix", Protocol: "seqpacket", FamilyNumber: 1, Type: 5,
				SocketPath: "/run/x.sock", Result: "ok"},
		},
		{
			name: "unix abstract", kind: event.KindConnect, path: "\x00a\x00b\xff",
			rec: bpf.GoshawkRecSocket{Family: unix.AF_UNIX, Type: unix.SOCK_STREAM},
			want: event.Socket{Family: "unix", Protocol: "stream", FamilyNumber: 1, Type: 1,
				SocketPath: "@a\x00b\xff", Result: "ok"},
		},
		{
			name: "unix without a name", kind: event.KindAccept,
			rec:  bpf.GoshawkRecSocket{Family: unix.AF_UNIX, Type: unix.SOCK_DGRAM},
			want: event.Socket{Family: "unix", Protocol: "dgram", FamilyNumber: 1, Type: 2, Result: "ok"},
		},
		{
			name: "errno without a name", kind: event.KindConnect, path: "/a",
			rec:  bpf.GoshawkRecSocket{Family: unix.AF_UNIX, Type: 77, Result: -4095},
			want: event.Socket{Family: "unix", Protocol: "77", FamilyNumber: 1, Type: 77, SocketPath: "/a", Result: "-4095"},
		},
		{
			name: "protocol without a name", kind: event.KindBind,
			rec: bpf.GoshawkRecSocket{Family: unix.AF_INET, Type: unix.SOCK_RAW, Protocol: 89},
			want: event.Socket{Family: "inet", Protocol: "89", FamilyNumber: 2, Type: 3, ProtoNumber: 89,
				LocalAddress: "0.0.0.0", Result: "ok"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := feed(t, newDrain(t), socketRecord(tt.rec, tt.kind, tt.path))
			fidelity := tt.want.Fidelity
			tt.want.Header = wantHeader(tt.kind)
			if fidelity != "" {
				tt.want.Fidelity = fidelity
			}
			if diff := cmp.Diff([]event.Event{&tt.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A connect under way waits for its outcome, for a second.
func TestDecodeConnectUnderWay(t *testing.T) {
	rec := func(duration uint64, result unix.Errno) []byte {
		b := socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP,
			Remote: four(10, 0, 0, 2), RemotePort: 443, Duration: duration, Result: -int32(result)}, event.KindConnect, "")
		as[bpf.GoshawkRecHead](b).Time = 7_000_000_000 + duration
		return b
	}
	results := func(events []event.Event) (out []string) {
		for _, e := range events {
			out = append(out, e.(*event.Socket).Result)
		}
		return out
	}
	t.Run("outcome in time", func(t *testing.T) {
		d := newDrain(t)
		if got := feed(t, d, rec(10, unix.EINPROGRESS)); len(got) != 0 {
			t.Fatalf("got %d events at once, want 0", len(got))
		}
		got := feed(t, d, rec(900_000_000, unix.ECONNREFUSED))
		if diff := cmp.Diff([]string{"ECONNREFUSED"}, results(got)); diff != "" {
			t.Error(diff)
		}
		d.s.held.flush(d)
		if len(d.batch.Events) != 1 {
			t.Errorf("the first record came again")
		}
		if n := d.s.decode.count[event.KindConnect].merged.Load(); n != 1 {
			t.Errorf("merged = %d, want 1", n)
		}
	})
	t.Run("outcome late", func(t *testing.T) {
		d := newDrain(t)
		feed(t, d, rec(10, unix.EINPROGRESS))
		d.s.held.expire(8_000_000_009, d)
		if len(d.batch.Events) != 0 {
			t.Fatal("reported before a second had gone")
		}
		d.s.held.expire(8_000_000_010, d)
		got := feed(t, d, rec(2_000_000_000, 0))
		if diff := cmp.Diff([]string{"in_progress", "ok"}, results(got)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("more than are held", func(t *testing.T) {
		d := newDrain(t)
		for i := range maxHeld + 3 {
			b := rec(10, unix.EINPROGRESS)
			as[bpf.GoshawkRecHead](b).Tid = uint32(i)
			feed(t, d, b)
		}
		if got := results(d.batch.Events); len(got) != 3 {
			t.Errorf("got %d events, want the 3 that are too many", len(got))
		}
	})
}

// Whatever arrives that is no record is counted, and nothing panics.
func TestDecodeMalformed(t *testing.T) {
	exec := execRecord(bpf.GoshawkRecExec{Nlink: 1, Inode: 1}, execParts{path: "a\x00", filename: "/a", args: "a\x00"})
	execWith := func(change func(*bpf.GoshawkRecExec)) []byte {
		b := append([]byte(nil), exec...)
		change(as[bpf.GoshawkRecExec](b))
		return b
	}
	socket := socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_UNIX}, event.KindBind, "/a")
	question := dnsRecordOf(bpf.GoshawkRecDns{Family: unix.AF_INET}, false, "\x00\x01")
	for _, tt := range []struct {
		name string
		raw  []byte
		kind event.ID // that it is counted for
	}{
		{"empty", nil, 0},
		{"short head", exec[:40], 0},
		{"kind 0", make([]byte, 200), 0},
		{"unknown kind", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Kind = 31 }), 31},
		{"kind out of range", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Kind = 65535 }), 0},
		{"longer than it is", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Size++ }), event.KindExec},
		{"shorter than a head", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Size = 8 }), event.KindExec},
		{"shorter than its structure", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Size = 128 }), event.KindExec},
		{"path past the end", execWith(func(r *bpf.GoshawkRecExec) { r.Path.Len = 1 << 20 }), event.KindExec},
		{"cwd past the end", execWith(func(r *bpf.GoshawkRecExec) { r.Cwd.Off = 1 << 20 }), event.KindExec},
		{"filename past the end", execWith(func(r *bpf.GoshawkRecExec) { r.Filename.Len = 1 << 31 }), event.KindExec},
		{"span whose end overflows", execWith(func(r *bpf.GoshawkRecExec) { r.Args = bpf.GoshawkSpan{Off: ^uint32(0), Len: 2} }), event.KindExec},
		{"env past the end", execWith(func(r *bpf.GoshawkRecExec) { r.Env.Len = 1 }), event.KindExec},
		{"span past the size told", execWith(func(r *bpf.GoshawkRecExec) { r.Head.Size-- }), event.KindExec},
		{"short socket", socket[:len(socket)-8], event.KindBind},
		{"unknown family", raw(bpf.GoshawkRecSocket{Head: bpf.GoshawkRecHead{Kind: 4,
			Size: uint32(len(raw(bpf.GoshawkRecSocket{})))}, Family: 16}), event.KindConnect},
		{"dns without a header", question, event.KindDNS},
		{"dns of no family", dnsRecordOf(bpf.GoshawkRecDns{}, false, strings.Repeat("\x00", 12)), event.KindDNS},
		{"short fork", func() []byte {
			h := head(event.KindFork)
			h.Size = uint32(len(raw(h)))
			return raw(h)
		}(), event.KindFork},
		{"short exit", func() []byte {
			h := head(event.KindExit)
			h.Size = uint32(len(raw(h)))
			return raw(h)
		}(), event.KindExit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDrain(t)
			if got := feed(t, d, tt.raw); len(got) != 0 {
				t.Errorf("got %v, want no event", got)
			}
			for k := range d.s.decode.count {
				want := uint64(0)
				if k == int(tt.kind) {
					want = 1
				}
				if n := d.s.decode.count[k].malformed.Load(); n != want {
					t.Errorf("malformed of kind %d = %d, want %d", k, n, want)
				}
			}
		})
	}
}

func TestTTYNames(t *testing.T) {
	for _, tt := range []struct {
		major uint16
		minor uint32
		want  string
	}{
		{136, 0, "pts/0"}, {137, 1, "pts/257"}, {143, 255, "pts/2047"}, {4, 1, "tty1"}, {4, 63, "tty63"},
		{4, 64, "ttyS0"}, {5, 1, "console"}, {204, 64, "ttyAMA0"}, {229, 0, "hvc0"}, {188, 2, "188:2"},
	} {
		if got := newDecoder(&Options{}).tty(tt.major, tt.minor); got != tt.want {
			t.Errorf("tty(%d, %d) = %q, want %q", tt.major, tt.minor, got, tt.want)
		}
	}
}

// What one record allocates, once names are known: the reader must keep up for days.
func TestAllocations(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
		want float64
	}{
		{"exec", execRecord(bpf.GoshawkRecExec{Inode: 1, Nlink: 1}, execParts{path: "true\x00bin\x00usr\x00",
			cwd: "root\x00", filename: "/usr/bin/true", args: "true\x00a\x00b\x00"}), 1},
		{"fork", func() []byte {
			r := bpf.GoshawkRecFork{Head: head(event.KindFork)}
			r.Head.Size = uint32(len(raw(r)))
			return raw(r)
		}(), 0},
		{"exit", func() []byte {
			r := bpf.GoshawkRecExit{Head: head(event.KindExit)}
			r.Head.Size = uint32(len(raw(r)))
			return raw(r)
		}(), 0},
		{"connect", socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_INET, Type: 1, Protocol: 6,
			Remote: four(1, 1, 1, 1)}, event.KindConnect, ""), 0},
		{"close over IPv6", socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_INET6, Type: 1, Protocol: 6,
			Remote: [16]uint8{0x20, 1, 15: 9}}, event.KindClose, ""), 0},
		{"unix", socketRecord(bpf.GoshawkRecSocket{Family: unix.AF_UNIX, Type: 1}, event.KindConnect, "\x00name"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDrain(t)
			d.s.decode.env = nil
			d.batch = event.NewBatch()
			start := as[bpf.GoshawkRecHead](tt.raw)
			got := testing.AllocsPerRun(2000, func() {
				if d.batch.Full() {
					d.batch.Release()
					d.batch = event.NewBatch()
				}
				start.Start++ // exits are told once a process
				if err := d.s.decode.record(tt.raw, d); err != nil {
					t.Fatal(err)
				}
			})
			if got > tt.want {
				t.Errorf("got %v allocations, want at most %v", got, tt.want)
			}
		})
	}
}
