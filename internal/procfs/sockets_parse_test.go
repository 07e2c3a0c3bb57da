package procfs

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// socketCmp compares addresses as values.
var socketCmp = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestParseInet(t *testing.T) {
	for _, c := range []struct {
		name, in string
		given    Socket
		want     Socket
	}{
		{
			"listening",
			"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0",
			Socket{Family: unix.AF_INET, Protocol: 6},
			Socket{Inode: 4242, Family: 2, Protocol: 6, State: "LISTEN", UID: 1000,
				Local: netip.MustParseAddrPort("127.0.0.1:8080"), Remote: netip.MustParseAddrPort("0.0.0.0:0")},
		},
		{
			"no spaces lead when the number is long",
			"12345: 0100007F:0016 0200A8C0:D431 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000",
			Socket{Family: unix.AF_INET, Protocol: 6, State: "LISTEN", Inode: 9},
			Socket{Family: 2, Protocol: 6, State: "TIME_WAIT",
				Local: netip.MustParseAddrPort("127.0.0.1:22"), Remote: netip.MustParseAddrPort("192.168.0.2:54321")},
		},
		{
			"state that has no name",
			"   1: 0100007F:0016 0200A8C0:D431 0C 00000000:00000000 00:00000000 00000000     0        0 7 1 0",
			Socket{Family: unix.AF_INET, Protocol: 6},
			Socket{Inode: 7, Family: 2, Protocol: 6, State: "UNKNOWN",
				Local: netip.MustParseAddrPort("127.0.0.1:22"), Remote: netip.MustParseAddrPort("192.168.0.2:54321")},
		},
		{
			"udp has no state",
			"  447: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   100        0 15234 2 0000000000000000 0",
			Socket{Family: unix.AF_INET, Protocol: 17, State: "LISTEN"},
			Socket{Inode: 15234, Family: 2, Protocol: 17, UID: 100,
				Local: netip.MustParseAddrPort("0.0.0.0:68"), Remote: netip.MustParseAddrPort("0.0.0.0:0")},
		},
		{
			"IPv6",
			"   0: B80D0120000000000000000001000000:01BB 0000000000000000FFFF00000100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 99 1",
			Socket{Family: unix.AF_INET6, Protocol: 6},
			Socket{Inode: 99, Family: 10, Protocol: 6, State: "ESTABLISHED",
				Local: netip.MustParseAddrPort("[2001:db8::1]:443"), Remote: netip.MustParseAddrPort("[::ffff:127.0.0.1]:80")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.given
			if !parseInet([]byte(c.in), &got) {
				t.Fatal("refused")
			}
			if d := cmp.Diff(c.want, got, socketCmp); d != "" {
				t.Errorf("socket (-want +got):\n%s", d)
			}
		})
	}
	for _, bad := range []string{
		"",
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0",
		"   0: 0100007F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1",
		"   0: 0100007G:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1",
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 -1",
		"   0: 00000000000000000000000000000000:0000 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1",
	} {
		if s := (Socket{Family: unix.AF_INET, Protocol: 6}); parseInet([]byte(bad), &s) {
			t.Errorf("parseInet(%q) = %+v", bad, s)
		}
	}
}

func TestParseUnix(t *testing.T) {
	const head = "000000001987bfdc: 00000003 00000000 00010000 0001 01 "
	for _, c := range []struct {
		in    string
		inode uint64
		path  string
	}{
		{head + " 1063", 1063, ""},
		{head + "12345 /run/x.sock", 12345, "/run/x.sock"},
		{head + "12345 @abstract", 12345, "@abstract"},
		{head + "12345 / a  b ", 12345, "/ a  b "},
		{head + "12345  /begins with a space", 12345, " /begins with a space"},
		{head + "123456789 @", 123456789, "@"},
		{"c0ffee00: 00000003 00000000 00010000 0001 01 12345 /32-bit", 12345, "/32-bit"},
	} {
		got := Socket{Path: "before", Inode: 1}
		if !parseUnix([]byte(c.in), &got) {
			t.Errorf("parseUnix(%q) = false", c.in)
		}
		if d := cmp.Diff(Socket{Inode: c.inode, Path: c.path}, got, socketCmp); d != "" {
			t.Errorf("parseUnix(%q) (-want +got):\n%s", c.in, d)
		}
	}
	for _, bad := range []string{
		"", " ", "rest of a name", "000000001987bfdc 00000003 00000000 00010000 0001 01 1",
		" " + head + "1", "000000001987bfdc: 3 00000000 00010000 0001 01 1", head, head + "x", "g: 00000003 00000000 00010000 0001 01 1",
		"1: 00000003 00000000 00010000 0001 01",
	} {
		if parseUnix([]byte(bad), new(Socket)) {
			t.Errorf("parseUnix(%q) = true", bad)
		}
	}
}

func TestContinueUnix(t *testing.T) {
	s := Socket{Path: "/a"}
	continueUnix(&s, []byte("b"))
	continueUnix(&s, nil)
	continueUnix(&s, bytes.Repeat([]byte("x"), 200))
	if want := "/a\nb\n"; s.Path != want {
		t.Errorf("path %q, want %q", s.Path, want)
	}
	s = Socket{}
	if continueUnix(&s, []byte("b")); s.Path != "" {
		t.Errorf("a socket without a name got %q", s.Path)
	}
}

func TestParsePacket(t *testing.T) {
	got := Socket{Family: unix.AF_PACKET}
	if !parsePacket([]byte("000000006b0a3c2f 3      3    88cc   2     1 0      1000   31244 "), &got) {
		t.Fatal("refused")
	}
	want := Socket{Inode: 31244, Family: 17, Protocol: 0x88cc, State: "NONE", UID: 1000}
	if d := cmp.Diff(want, got, socketCmp); d != "" {
		t.Errorf("socket (-want +got):\n%s", d)
	}
	if parsePacket([]byte("000000006b0a3c2f 3      3    10000   2     1 0      1000   31244"), new(Socket)) {
		t.Error("took a protocol of 17 bits")
	}
}

func TestParseNetlink(t *testing.T) {
	got, ok := parseNetlink([]byte("000000000c2d8a1f 0   1          00000551 0        0        0     2        0        18412   "))
	if got != 18412 || !ok {
		t.Errorf("parseNetlink = %d, %t, want 18412, true", got, ok)
	}
	if _, ok := parseNetlink([]byte("000000000c2d8a1f 0   1")); ok {
		t.Error("took a line without an inode")
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add([]byte("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1"), uint16(2))
	f.Add([]byte("   0: B80D0120000000000000000001000000:01BB 0000000000000000FFFF00000100007F:0050 01 0:0 0:0 0 0 0 99 1"), uint16(10))
	f.Add([]byte("000000001987bfdc: 00000003 00000000 00010000 0001 01 12345 /run/x.sock"), uint16(1))
	f.Add([]byte("000000006b0a3c2f 3      3    88cc   2     1 0      1000   31244"), uint16(17))
	f.Fuzz(func(t *testing.T, b []byte, family uint16) {
		s := Socket{Family: family, Protocol: 6}
		if parseInet(b, &s) {
			if !s.Local.IsValid() || s.State == "" || s.Local.Addr().Is4() == (family == unix.AF_INET6) {
				t.Errorf("%q gave %+v", b, s)
			}
		}
		s = Socket{Family: unix.AF_UNIX}
		if parseUnix(b, &s) && (len(s.Path) > maxUnixPath || !bytes.Contains(b, []byte(s.Path))) {
			t.Errorf("%q gave the name %q", b, s.Path)
		}
		continueUnix(&s, b)
		if len(s.Path) > maxUnixPath {
			t.Errorf("name of %d bytes", len(s.Path))
		}
		parsePacket(b, &s)
		parseNetlink(b)
	})
}
