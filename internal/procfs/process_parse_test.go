package procfs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const tail = " S 1 4242 4000 34816 -1 1077936384 1111 22 33 44 150 75 5 6 20 -5 3 0 987654 12345678 321 18446744073709551615 1 2"
	for _, c := range []struct {
		name, in, comm string
	}{
		{"plain", "4242 (sleep)" + tail, "sleep"},
		{"parenthesis and space", "4242 (a) R 1 (b)" + tail, "a) R 1 (b"},
		{"newlines", "4242 (\n\n)" + tail, "\n\n"},
		{"empty", "4242 ()" + tail, ""},
		{"looks like all of stat", "4242 (1 (x) Z 0 0)" + tail, "1 (x) Z 0 0"},
		{"not UTF-8", "4242 (\xff\xfe)" + tail, "\xff\xfe"},
		{"kernel thread", "4242 (kworker/R-netns:cleanup)" + tail, "kworker/R-netns:cleanup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Stat{Comm: "before", Nice: 7}
			if err := parseStat([]byte(c.in), &got); err != nil {
				t.Fatal(err)
			}
			want := Stat{
				PID: 4242, Comm: c.comm, State: 'S', PPID: 1, PGroup: 4242, Session: 4000, TTY: 34816,
				Flags: 1077936384, UserTicks: 150, SysTicks: 75, Nice: -5, Threads: 3,
				StartTicks: 987654, Virtual: 12345678, Resident: 321,
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("stat (-want +got):\n%s", d)
			}
		})
	}
	for _, bad := range []string{
		"", "4242", "4242 (", "4242 (x", "4242 (x)", "4242 (x) ", "(x) S 1 2", ")(", "x (x)" + tail,
		"4242 (x)S 1", "4242 (x) S 1 2 3", "4242 (x)" + strings.Replace(tail, "150", "15O", 1),
		"4242 (x)" + strings.Replace(tail, "987654", "99999999999999999999", 1),
	} {
		var s Stat
		if err := parseStat([]byte(bad), &s); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, s)
		}
	}
}

func TestStatUnits(t *testing.T) {
	s := Stat{StartTicks: 987654, UserTicks: 150, SysTicks: 75, Flags: 0x00200040}
	if got, want := s.StartTimeNs(), uint64(9876540000000); got != want {
		t.Errorf("StartTimeNs = %d, want %d", got, want)
	}
	if got, want := s.UserMs(), uint64(1500); got != want {
		t.Errorf("UserMs = %d, want %d", got, want)
	}
	if got, want := s.SysMs(), uint64(750); got != want {
		t.Errorf("SysMs = %d, want %d", got, want)
	}
	if !s.KernelThread() {
		t.Error("KernelThread = false with PF_KTHREAD set")
	}
	if s.Flags = 0x00400040; s.KernelThread() {
		t.Error("KernelThread = true without PF_KTHREAD")
	}
}

func TestParseStatus(t *testing.T) {
	// The kernel escapes the newline in a name, so Uid in it stays in its line.
	const in = "Name:\tx\\nUid:\t9\t9\t9\t9\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t70\nNgid:\t0\nPid:\t71\n" +
		"PPid:\t1\nTracerPid:\t12\nUid:\t1000\t0\t4294967294\t3\nGid:\t5\t6\t7\t8\nFDSize:\t64\n" +
		"Groups:\t4 24 27 \nNStgid:\t70\t3\nNSpid:\t71\t3\t1\nVmRSS:\t 100 kB\nCapEff:\t000001ffffffffff\n"
	got := Status{TGID: 99, NSPID: 99}
	parseStatus([]byte(in), &got)
	want := Status{
		TGID: 70, TracerPID: 12, UID: 1000, EUID: 0, SUID: 4294967294, FSUID: 3,
		GID: 5, EGID: 6, SGID: 7, FSGID: 8, NSPID: 1, CapEff: 0x1ffffffffff,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("status (-want +got):\n%s", d)
	}
}

func TestParseIO(t *testing.T) {
	got := IO{ReadChars: 99}
	parseIO([]byte("rchar: 323934931\nwchar: 323929600\nsyscr: 632687\nsyscw: 632675\nread_bytes: 4096\nwrite_bytes: 323932160\ncancelled_write_bytes: 8192\n"), &got)
	want := IO{ReadChars: 323934931, WriteChars: 323929600, ReadBytes: 4096, WriteBytes: 323932160, CancelledWriteBytes: 8192}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("io (-want +got):\n%s", d)
	}
}

func TestParseMap(t *testing.T) {
	type m struct {
		Start, End          uint64
		Permissions, Device string
		Offset, Inode       uint64
		Path                string
		Deleted             bool
	}
	for _, c := range []struct {
		in   string
		want m
	}{
		{"00400000-00452000 r-xp 00001000 08:02 173521                             /usr/bin/dbus-daemon",
			m{0x400000, 0x452000, "r-xp", "08:02", 0x1000, 173521, "/usr/bin/dbus-daemon", false}},
		{"7f0000000000-7f0000001000 rw-s 00000000 fd:01 12  /a b/ c\\012d (deleted)",
			m{0x7f0000000000, 0x7f0000001000, "rw-s", "fd:01", 0, 12, "/a b/ c\\012d", true}},
		{"7ffd1000-7ffd2000 rw-p 00000000 00:00 0 ", m{0x7ffd1000, 0x7ffd2000, "rw-p", "00:00", 0, 0, "", false}},
		{"7ffd1000-7ffd2000 rw-p 00000000 00:00 0                                  [stack]",
			m{0x7ffd1000, 0x7ffd2000, "rw-p", "00:00", 0, 0, "[stack]", false}},
		{"ffffffffff600000-ffffffffff601000 --xp fffffffffffff000 00:00 0          [vsyscall]",
			m{0xffffffffff600000, 0xffffffffff601000, "--xp", "00:00", 0xfffffffffffff000, 0, "[vsyscall]", false}},
	} {
		var p Map
		ok := parseMap([]byte(c.in), &p)
		got := m{p.Start, p.End, string(p.Permissions), string(p.Device), p.Offset, p.Inode, string(p.Path), p.Deleted}
		if d := cmp.Diff(c.want, got); d != "" || !ok {
			t.Errorf("parseMap(%q) = %t (-want +got):\n%s", c.in, ok, d)
		}
	}
	for _, bad := range []string{"", "400000 r-xp 0 0:0 1 /x", "400000-4x r-xp 0 0:0 1", "4-5 r-xp", "4-5 r-xp 0 0:0 x"} {
		if parseMap([]byte(bad), new(Map)) {
			t.Errorf("parseMap(%q) = true", bad)
		}
	}
}

func TestCgroupPath(t *testing.T) {
	for in, want := range map[string]string{
		"0::/user.slice/x.scope\n":              "/user.slice/x.scope",
		"0::/\n":                                "/",
		"12:cpu,cpuacct:/a:b\n1:name=systemd:/": "/a:b",
		"0::/no newline":                        "/no newline",
		"":                                      "",
		"0:\n1::/x":                             "",
		"\n0::/x":                               "",
	} {
		if got := CgroupPath([]byte(in)); got != want {
			t.Errorf("CgroupPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseBracketed(t *testing.T) {
	for _, c := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"socket:[18446744073709551615]", 18446744073709551615, true},
		{"socket:[1]", 1, true},
		{"socket:[0]", 0, false},
		{"socket:[]", 0, false},
		{"socket:[1", 0, false},
		{"socket:", 0, false},
		{"pipe:[1]", 0, false},
		{"/tmp/socket:[1]", 0, false},
		{"socket:[1] (deleted)", 0, false},
		{"socket:[18446744073709551616]", 0, false},
	} {
		if got, ok := SocketInode([]byte(c.in)); got != c.want || ok != c.ok {
			t.Errorf("SocketInode(%q) = %d, %t, want %d, %t", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", 9)
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{"a", []string{"a"}},
		{"a\nbc\n", []string{"a", "bc"}},
		{"\n\na\n", []string{"", "", "a"}},
		{"1234567\n8", []string{"1234567", "8"}},
		{"12345678\n9", []string{"12345678", "9"}},
		{long + "yyy\nz\n", []string{"xxxxxxxx", "z"}},
		{long + "yyy", []string{"xxxxxxxx"}},
	} {
		for step := 1; step <= 8; step++ {
			var got []string
			fn := func(line []byte) { got = append(got, string(line)) }
			s := splitter{buf: make([]byte, 8)}
			for in := c.in; in != ""; {
				n := copy(s.room(), in[:min(step, len(in))])
				in = in[n:]
				s.add(n, fn)
			}
			s.end(fn)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%q in steps of %d (-want +got):\n%s", c.in, step, d)
			}
		}
	}
}

func TestEachNumber(t *testing.T) {
	entry := func(name string, pad int) string {
		size := direntHeader + len(name) + 1 + pad
		return strings.Repeat("\x00", 16) + string([]byte{byte(size), byte(size >> 8), 4}) + name + strings.Repeat("\x00", pad+1)
	}
	in := entry(".", 3) + entry("17", 0) + entry("self", 1) + entry("4194304", 5) + entry("1x", 0) + entry("99999999999", 0)
	for _, c := range []struct {
		name, in string
		want     []int
	}{
		{"whole", in, []int{17, 4194304}},
		{"cut", entry("17", 0) + entry("18", 0)[:20], []int{17}},
		{"record of no length", entry("17", 0) + strings.Repeat("\x00", 24), []int{17}},
	} {
		var got []int
		eachNumber([]byte(c.in), func(n int) { got = append(got, n) })
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestNumbers(t *testing.T) {
	if n, ok := parseInteger([]byte("-9223372036854775808")); int64(n) != -1<<63 || !ok {
		t.Errorf("parseInteger of the least number = %d, %t", int64(n), ok)
	}
	if _, ok := parseInteger([]byte("-9223372036854775809")); ok {
		t.Error("parseInteger took a number below the least")
	}
	if n, ok := parseDecimal([]byte("18446744073709551615")); n != 1<<64-1 || !ok {
		t.Errorf("parseDecimal of the greatest number = %d, %t", n, ok)
	}
	if _, ok := parseDecimal([]byte("18446744073709551616")); ok {
		t.Error("parseDecimal took a number above the greatest")
	}
	if n, ok := parseHex([]byte("FfFfFfFfFfFfFfF0")); n != 0xfffffffffffffff0 || !ok {
		t.Errorf("parseHex = %x, %t", n, ok)
	}
	if _, ok := parseHex([]byte("10000000000000000")); ok {
		t.Error("parseHex took 17 digits")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (init) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12"))
	f.Add([]byte("1 (a) (\n) R 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12"))
	f.Add([]byte("1 (x) "))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Stat
		if parseStat(b, &s) == nil && !bytes.Contains(b, []byte("("+s.Comm+") ")) {
			t.Errorf("comm %q is not in %q", s.Comm, b)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Uid:\t1\t2\t3\t4\nNSpid:\t1\t2\n"), uint32(1))
	f.Add([]byte("Name:\tx"), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, uid uint32) {
		var s Status
		parseStatus(b, &s)
		var io IO
		parseIO(b, &io)
		// Whatever came before, the last line decides.
		parseStatus(append(append(bytes.Clone(b), "\nUid:\t"...), []byte("77\t78\t79\t80\n")...), &s)
		if s.UID != 77 || s.FSUID != 80 {
			t.Errorf("uids %d to %d after %q", s.UID, s.FSUID, b)
		}
	})
}

func FuzzParseMap(f *testing.F) {
	f.Add([]byte("00400000-00452000 r-xp 00000000 08:02 173521    /usr/bin/x y (deleted)"))
	f.Add([]byte("-  \t "))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Map
		if parseMap(b, &m) && !bytes.Contains(b, m.Path) {
			t.Errorf("path %q is not in %q", m.Path, b)
		}
		CgroupPath(b)
		SocketInode(b)
	})
}

func FuzzEachNumber(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x00", 16) + "\x18\x00\x0417\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		eachNumber(b, func(n int) {
			if n < 0 {
				t.Errorf("number %d from %q", n, b)
			}
		})
	})
}

func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\nb\n\nlonger than the buffer\nx"), 3)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		if step < 1 {
			return
		}
		var want []string
		for i, line := range strings.Split(string(b), "\n") {
			if line != "" || i < bytes.Count(b, []byte{'\n'}) {
				want = append(want, line[:min(len(line), 8)])
			}
		}
		var got []string
		fn := func(line []byte) { got = append(got, string(line)) }
		s := splitter{buf: make([]byte, 8)}
		for len(b) > 0 {
			n := copy(s.room(), b[:min(step, len(b))])
			b = b[n:]
			s.add(n, fn)
		}
		s.end(fn)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("lines (-want +got):\n%s", d)
		}
	})
}
