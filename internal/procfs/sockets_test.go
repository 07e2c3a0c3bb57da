package procfs

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestSocketsOfEachFamily(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s x\ny")
	c := (&child{name: "child", mode: "sockets", args: []string{path, "@goshawk \n" + fmt.Sprint(os.Getpid())}}).start(t)
	testSockets(t, c, path)
}

func TestSocketsInAnotherNetworkNamespace(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "s")
	c := (&child{
		name: "child", mode: "sockets", args: []string{path, "@goshawk \n" + fmt.Sprint(os.Getpid())},
		attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET},
	}).start(t)
	testSockets(t, c, path)

	// The two namespaces are two, and hold nothing of each other.
	_, own := openProcess(t, os.Getpid())
	ns, err := own.NetNamespace()
	check(t, err)
	var s Sockets
	check(t, s.Visit(own))
	for _, x := range s.List {
		if x.Inode == uint64(c.report["tcp"]) || x.NetNS != ns {
			t.Errorf("a socket of the child in our namespace %d: %+v", ns, x)
		}
	}
}

func testSockets(t *testing.T, c *child, path string) {
	t.Helper()
	_, p := openProcess(t, c.Pid)
	ns, err := p.NetNamespace()
	check(t, err)
	var s Sockets
	check(t, s.Visit(p))
	n := len(s.List)
	check(t, s.Visit(p)) // the namespace is read once
	if len(s.List) != n {
		t.Errorf("%d sockets, after a second visit %d", n, len(s.List))
	}
	at := func(address, name string) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(address), uint16(c.report[name+" port"]))
	}
	none4, none6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	want := map[string]Socket{
		"tcp":      {Family: 2, Protocol: 6, State: "LISTEN", Local: at("0.0.0.0", "tcp"), Remote: none4},
		"tcp6":     {Family: 10, Protocol: 6, State: "LISTEN", Local: at("::", "tcp6"), Remote: none6},
		"udp":      {Family: 2, Protocol: 17, Local: at("0.0.0.0", "udp"), Remote: none4},
		"udp6":     {Family: 10, Protocol: 17, Local: at("::", "udp6"), Remote: none6},
		"unix":     {Family: 1, Path: path},
		"abstract": {Family: 1, Path: "@goshawk \n" + fmt.Sprint(os.Getpid())},
		"unnamed":  {Family: 1},
	}
	if os.Getuid() == 0 {
		// The port of a raw socket is its protocol.
		want["raw"] = Socket{Family: 2, Protocol: 255, Local: netip.MustParseAddrPort("0.0.0.0:17"), Remote: none4}
		want["raw6"] = Socket{Family: 10, Protocol: 255, Local: netip.MustParseAddrPort("[::]:17"), Remote: none6}
		want["packet"] = Socket{Family: 17, Protocol: 0x88cc, State: "NONE"}
	}
	got := map[string]Socket{}
	for name, x := range want {
		x.Inode, x.NetNS = uint64(c.report[name]), ns
		if x.Family == 2 || x.Family == 10 || x.Family == 17 {
			x.UID = uint32(os.Getuid())
		}
		want[name] = x
		for _, y := range s.List {
			if y.Inode == x.Inode {
				got[name] = y
			}
		}
	}
	if d := cmp.Diff(want, got, socketCmp); d != "" {
		t.Errorf("sockets (-want +got):\n%s", d)
	}
	netlink := false
	check(t, p.Netlink(func(inode uint64) { netlink = netlink || inode == uint64(c.report["netlink"]) }))
	if !netlink {
		t.Error("the netlink socket is not listed")
	}
}

// A process that vanishes while its namespace is read leaves nothing behind, so that the
// next one in that namespace is read. A pipe in a made-up /proc holds the reader in the
// middle.
func TestSocketsOfVanishingProcess(t *testing.T) {
	root := t.TempDir()
	net, link := filepath.Join(root, "proc/7/net"), filepath.Join(root, "proc/7/ns/net")
	check(t, os.MkdirAll(net, 0o755))
	check(t, os.Mkdir(filepath.Dir(link), 0o755))
	check(t, os.Symlink("net:[4026531833]", link))
	check(t, os.WriteFile(filepath.Join(net, "unix"), []byte("Num\n0000000000000000: 00000002 00000000 00010000 0001 01 77 /x\n"), 0o644))
	check(t, unix.Mkfifo(filepath.Join(net, "packet"), 0o644))
	d, err := At(root).Open()
	check(t, err)
	defer d.Close()
	p, err := d.Process(7)
	check(t, err)

	during := func(act func()) {
		go func() {
			f, err := os.OpenFile(filepath.Join(net, "packet"), os.O_WRONLY, 0)
			if err == nil { // the reader has the other end open now
				act()
				f.Close()
			}
		}()
	}
	var s Sockets
	during(func() { os.Remove(link) })
	if err := s.Visit(p); err != ErrGone || len(s.List) != 0 {
		t.Errorf("visit of a process that vanishes: %v, %v", err, s.List)
	}
	check(t, os.Symlink("net:[4026531833]", link))
	during(func() {})
	check(t, s.Visit(p))
	want := []Socket{{Inode: 77, NetNS: 4026531833, Family: 1, Path: "/x"}}
	if d := cmp.Diff(want, s.List, socketCmp); d != "" {
		t.Errorf("sockets (-want +got):\n%s", d)
	}
}
