package table

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Rules that iptables made, of either kind, in a network namespace of the test's own.
func TestIPTables(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: asks netfilter")
	}
	for _, name := range []string{"iptables-legacy", "iptables-nft", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s on this host", name)
		}
	}
	if os.Getenv("GOSHAWK_TEST_OWN_NETWORK") == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "--net", exe, "-test.run=^TestIPTables$", "-test.v")
		cmd.Env = append(os.Environ(), "GOSHAWK_TEST_OWN_NETWORK=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestIPTables") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := iptablesTable(here())
	if rows := scan(t, r, whereAll()); len(rows) != 0 {
		t.Fatalf("rules in a new network: %v", cells(r, rows, "filter_name", "chain"))
	}
	for _, line := range []string{
		"iptables-legacy -P FORWARD DROP", "iptables-legacy -N own", "iptables-legacy -A own -j RETURN",
		"iptables-legacy -A INPUT -i eth+ -s 10.1.0.0/16 -p tcp --dport 22:23 -j DROP",
		"iptables-legacy -A INPUT ! -s 192.0.2.7 -p udp ! --sport 53 -j own",
		"iptables-legacy -A FORWARD -o lo -j ACCEPT",
		"iptables-nft -P OUTPUT DROP", "iptables-nft -N theirs",
		"iptables-nft -A INPUT -s 10.2.0.0/15 -p tcp --dport 80 -j DROP",
		"iptables-nft -A OUTPUT -o eth0 ! -d 198.51.100.9 -p udp --sport 100:200 -j theirs",
		"iptables-nft -A theirs -i veth+ -d 10.0.0.0/8 -j ACCEPT",
	} {
		args := strings.Fields(line)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	const any = "0.0.0.0"
	want := [][]string{
		{"INPUT", "ACCEPT", "DROP", "6", "0:65535", "22:23", "10.1.0.0", "255.255.0.0", "eth+", "FFFFFF", any, any, "all", "", "yes"},
		{"INPUT", "ACCEPT", "own", "17", "!53:53", "0:65535", "!192.0.2.7", "255.255.255.255", "all", "", any, any, "all", "", "yes"},
		{"FORWARD", "DROP", "ACCEPT", "0", "", "", any, any, "all", "", any, any, "lo", "FFFFFF", "no"},
		{"own", "", "RETURN", "0", "", "", any, any, "all", "", any, any, "all", "", "no"},
		{"OUTPUT", "DROP", "theirs", "17", "100:200", "", any, any, "all", "", "!198.51.100.9", "255.255.255.255", "eth0", "FFFFFFFFFF", "yes"},
		{"theirs", "", "ACCEPT", "0", "", "", any, any, "veth+", "FFFFFFFF", "10.0.0.0", "255.0.0.0", "all", "", "no"},
		{"INPUT", "ACCEPT", "DROP", "6", "", "80:80", "10.2.0.0", "255.254.0.0", "all", "", any, any, "all", "", "yes"},
	}
	rows := scan(t, r, whereAll())
	got := cells(r, rows, "chain", "policy", "target", "protocol", "src_port", "dst_port", "src_ip", "src_mask", "iniface", "iniface_mask",
		"dst_ip", "dst_mask", "outiface", "outiface_mask", "match")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, row := range cells(r, rows, "filter_name", "packets", "bytes") {
		if !slices.Equal(row, []string{"filter", "0", "0"}) {
			t.Errorf("%v", row)
		}
	}
}

// What the kernel hands over is bounded and checked, whatever it is.
func FuzzIPTables(f *testing.F) {
	entry := make([]byte, sizeOfEntry+sizeOfExtension+8)
	entry[88], entry[90] = sizeOfEntry, byte(len(entry))
	f.Add(make([]byte, sizeOfInfo), append(entry, entry...))
	f.Fuzz(func(t *testing.T, head, entries []byte) {
		info, ok := parseTableInfo(head)
		if !ok {
			return
		}
		n := 0
		_ = parseTable("filter", &info, entries, func(*packetRule) { n++ })
		if n > len(entries)/sizeOfEntry {
			t.Errorf("%d rules in %d bytes", n, len(entries))
		}
	})
}
