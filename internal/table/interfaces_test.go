package table

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// inNewNetwork runs the calling test once more in a process with a network namespace of
// its own, configured by ip commands, and reports whether this is that process. The
// namespace is the process's and not a thread's, for other tests look at /proc/self.
func inNewNetwork(t *testing.T, commands ...string) bool {
	t.Helper()
	const mark = "GOSHAWK_TEST_NETWORK"
	if os.Getenv(mark) == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: makes a network namespace")
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("in a network namespace: %v\n%s", err, out)
		}
		return false
	}
	for _, c := range commands {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", c, err, out)
		}
	}
	return true
}

// sortedRows scans a table and returns the sorted rows in which column has one of values.
func sortedRows(t *testing.T, r schema.Relation, column string, values []string, columns ...string) [][]string {
	t.Helper()
	var out [][]string
	for _, row := range cells(r, scan(t, r, whereAll()), append([]string{column}, columns...)...) {
		if slices.Contains(values, row[0]) {
			out = append(out, row[1:])
		}
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func TestInterfacesOfNamespace(t *testing.T) {
	if !inNewNetwork(t,
		"link set lo up",
		"link add eth0 address 02:00:5e:00:53:01 mtu 1400 type veth peer name peer address 02:00:5e:00:53:02",
		"tuntap add tun0 mode tun",
		"link set eth0 up", "link set peer up", "link set tun0 up",
		"addr add 10.1.2.3/24 brd 10.1.2.255 dev eth0",
		"addr add 10.1.9.9/32 dev eth0 label eth0:1",
		"addr add 10.1.8.8/16 dev eth0 valid_lft 3600 preferred_lft 1800",
		"addr add 2001:db8::1/64 dev eth0 nodad",
		"addr add 10.9.9.1 peer 10.9.9.2 dev tun0",
	) {
		return
	}
	r := interfaceAddressesTable(here())
	want := [][]string{
		{"eth0", "10.1.2.3", "255.255.255.0", "10.1.2.255", "", "unknown"},
		{"eth0", "10.1.8.8", "255.255.0.0", "", "", "dhcp"},
		{"eth0", "2001:db8::1", "ffff:ffff:ffff:ffff::", "", "", "unknown"},
		{"eth0", "fe80::5eff:fe00:5301%eth0", "ffff:ffff:ffff:ffff::", "", "", "auto"},
		{"eth0:1", "10.1.9.9", "255.255.255.255", "", "", "unknown"},
		{"lo", "127.0.0.1", "255.0.0.0", "", "127.0.0.1", "unknown"},
		{"lo", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "", "unknown"},
		{"tun0", "10.9.9.1", "255.255.255.255", "", "10.9.9.2", "unknown"},
	}
	got := sortedRows(t, r, "interface", []string{"eth0", "eth0:1", "lo", "tun0"}, "interface", "address", "mask", "broadcast", "point_to_point", "type")
	got = slices.DeleteFunc(got, func(row []string) bool { // a random one, when the kernel gives it
		return row[0] == "tun0" && strings.HasPrefix(row[1], "fe80:")
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// A sniffer that asks through its socket is not among the flags that ip shows.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	names, err := linkNames()
	if err != nil {
		t.Fatal(err)
	}
	for index, name := range names {
		if name == "peer" {
			m := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
			if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := interfaceDetailsTable(here())
	// eth0 has the name of this machine's interface, but not its PCI slot and speed: sysfs
	// shows another namespace than ours.
	want = [][]string{
		{"eth0", "02:00:5e:00:53:01", "1", "1400", "0", "4099", "-1", "NULL", "", ""},
		{"lo", "00:00:00:00:00:00", "772", "65536", "0", "9", "-1", "NULL", "", ""},
		{"peer", "02:00:5e:00:53:02", "1", "1500", "0", "4355", "-1", "NULL", "", ""},
		{"tun0", "00:00:00:00:00:00", "65534", "1500", "0", "4241", "-1", "NULL", "", ""},
	}
	got = sortedRows(t, d, "interface", []string{"eth0", "lo", "peer", "tun0"},
		"interface", "mac", "type", "mtu", "metric", "flags", "last_change", "link_speed", "pci_slot", "friendly_name")
	for _, row := range got { // the kernel sets these two when it gets round to it
		flags, err := strconv.Atoi(row[5])
		if err != nil {
			t.Fatal(err)
		}
		row[5] = strconv.Itoa(flags &^ (unix.IFF_RUNNING | unix.IFF_LOWER_UP))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesOfNamespace(t *testing.T) {
	if !inNewNetwork(t,
		"link set lo up",
		"link add v0 address 02:00:5e:00:53:01 type veth peer name v1",
		"link set v0 up", "link set v1 up",
		"addr add 10.1.2.3/24 brd + dev v0", "addr add 2001:db8::1/64 dev v0 nodad",
		"route add default via 10.1.2.1 metric 50",
		"route add 198.51.100.0/24 via 10.1.2.4 src 10.1.2.3 metric 77 mtu 1300 hoplimit 9",
		"route add 203.0.113.7/32 nexthop via 10.1.2.5 dev v0 weight 1 nexthop via 10.1.2.6 dev v0 weight 2",
		"route add blackhole 192.0.2.0/24",
		"route add 192.0.2.128/25 via inet6 2001:db8::7 dev v0",
		"route add 10.77.0.0/16 via 10.1.2.8 table 99",
		"-6 route add default via 2001:db8::2 dev v0",
		"-6 route add 2001:db8:5::/48 via 2001:db8::3 dev v0 metric 5",
		"neigh add 10.1.2.50 lladdr 02:00:5e:00:53:50 dev v0 nud permanent",
		"neigh add 10.1.2.51 lladdr 02:00:5e:00:53:51 dev v0 nud reachable",
		"neigh add 10.1.2.52 dev v0 nud failed",
		"neigh add 10.1.2.53 lladdr 02:00:5e:00:53:53 dev v0 nud noarp",
		"neigh add 2001:db8::9 lladdr 02:00:5e:00:53:99 dev v0 nud stale",
	) {
		return
	}
	r := routesTable(here())
	var got [][]string
	for _, row := range cells(r, scan(t, r, whereAll()), "destination", "netmask", "gateway", "source", "interface", "mtu", "metric", "type", "hopcount") {
		if !strings.HasPrefix(row[0], "fe80") && !strings.HasPrefix(row[0], "ff00") {
			got = append(got, row)
		}
	}
	slices.SortFunc(got, slices.Compare)
	want := [][]string{
		{"0.0.0.0", "0", "10.1.2.1", "", "v0", "0", "50", "gateway", "0"},
		{"10.1.2.0", "24", "", "10.1.2.3", "v0", "0", "0", "gateway", "0"},
		{"10.1.2.255", "32", "", "10.1.2.3", "v0", "0", "0", "broadcast", "0"},
		{"10.1.2.3", "32", "", "10.1.2.3", "v0", "0", "0", "local", "0"},
		{"10.77.0.0", "16", "10.1.2.8", "", "v0", "0", "0", "gateway", "0"},
		{"127.0.0.0", "8", "", "127.0.0.1", "lo", "0", "0", "local", "0"},
		{"127.0.0.1", "32", "", "127.0.0.1", "lo", "0", "0", "local", "0"},
		{"127.255.255.255", "32", "", "127.0.0.1", "lo", "0", "0", "broadcast", "0"},
		{"192.0.2.0", "24", "", "", "", "0", "0", "other", "0"},
		{"192.0.2.128", "25", "2001:db8::7", "", "v0", "0", "0", "gateway", "0"},
		{"198.51.100.0", "24", "10.1.2.4", "10.1.2.3", "v0", "1300", "77", "gateway", "9"},
		{"2001:db8:5::", "48", "2001:db8::3", "", "v0", "0", "5", "gateway", "0"},
		{"2001:db8::", "64", "", "", "v0", "0", "256", "gateway", "0"},
		{"2001:db8::1", "128", "", "", "v0", "0", "0", "local", "0"},
		{"203.0.113.7", "32", "10.1.2.5", "", "v0", "0", "0", "gateway", "0"},
		{"203.0.113.7", "32", "10.1.2.6", "", "v0", "0", "0", "gateway", "0"},
		{"::", "0", "2001:db8::2", "", "v0", "0", "1024", "gateway", "0"},
		{"::1", "128", "", "", "lo", "0", "0", "local", "0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes: %s", diff)
	}

	a := arpCacheTable(here())
	got = nil
	for _, row := range cells(a, scan(t, a, whereAll()), "address", "mac", "interface", "permanent") {
		if strings.HasPrefix(row[0], "10.") || row[0] == "2001:db8::9" {
			got = append(got, row)
		}
	}
	slices.SortFunc(got, slices.Compare)
	want = [][]string{
		{"10.1.2.50", "02:00:5e:00:53:50", "v0", "1"},
		{"10.1.2.51", "02:00:5e:00:53:51", "v0", "0"},
		{"10.1.2.52", "00:00:00:00:00:00", "v0", "0"},
		{"2001:db8::9", "02:00:5e:00:53:99", "v0", "0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("neighbours: %s", diff)
	}
}

// Attributes longer than this build knows of, and families it does not, do not hide the
// rest of the list.
func TestDecodeUnknown(t *testing.T) {
	attr := func(kind uint16, data ...byte) []byte {
		n := 4 + len(data)
		b := append([]byte{byte(n), byte(n >> 8), byte(kind), byte(kind >> 8)}, data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	header := []byte{0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0, 0, 0, 0, 0, 0, 0} // little-endian: type 1, index 7
	if runtime.GOARCH == "s390x" || runtime.GOARCH == "ppc64" {
		t.Skip("the literal messages are little-endian")
	}
	stats := make([]byte, 1000)
	stats[0], stats[9*8] = 5, 6
	b := slices.Concat(header, attr(unix.IFLA_IFNAME, 'x', 0), attr(999, 1, 2, 3), attr(unix.IFLA_ADDRESS, 9), attr(unix.IFLA_STATS64, stats...))
	got, ok := decodeLink(b)
	want := link{index: 7, flags: 0x43, kind: 1, name: "x", address: []byte{9}, counters: [10]uint64{0: 5, 9: 6}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(link{})); !ok || diff != "" {
		t.Errorf("%v %s", ok, diff)
	}
	if r, ok := decodeRoute([]byte{28 /* AF_MPLS */, 20, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0}); ok {
		t.Errorf("a route of MPLS became %+v", r)
	}
	if r, ok := decodeRoute([]byte{unix.AF_INET, 99, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0}); ok {
		t.Errorf("a prefix of 99 bits became %+v", r)
	}
	// A next hop whose length is a lie ends the list.
	hops := []byte{8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}
	if diff := cmp.Diff([]nextHop{{out: 3}}, decodeHops(hops), cmp.AllowUnexported(nextHop{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func FuzzNetlink(f *testing.F) {
	f.Add([]byte{unix.AF_INET, 24, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 0, 12, 0, 9, 0, 8, 0, 0, 0, 3, 0, 0, 0})
	f.Add([]byte{0, 0, 1, 0, 7, 0, 0, 0, 0x43, 0, 0, 0, 0, 0, 0, 0, 6, 0, 3, 0, 'x', 0, 0, 0})
	f.Add([]byte{unix.AF_INET6, 64, 0, 0, 7, 0, 0, 0, 20, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := decodeLink(b); ok && l.name == "" {
			t.Errorf("link without a name: %+v", l)
		}
		if a, ok := decodeAddr(b); ok {
			interfaceAddresses([]link{{index: a.index, name: "x"}}, []ifaddr{a}) // must not panic
			if !a.local.IsValid() {
				t.Errorf("address without address: %+v", a)
			}
		}
		if r, ok := decodeRoute(b); ok {
			if n := len(routeRows([]route{r}, nil)); n == 0 || n > len(b) {
				t.Errorf("%d rows of %+v", n, r)
			}
		}
		if n, ok := decodeNeighbour(b); ok && !n.address.IsValid() {
			t.Errorf("neighbour without address: %+v", n)
		}
	})
}
