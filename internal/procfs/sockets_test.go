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
