package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseUptime(t *testing.T) {
	if got, err := ParseUptime([]byte("350735.47 234388.90\n")); err != nil || got != 350735*time.Second+470*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ParseUptime([]byte("0.05 0.01\n")); err != nil || got != 50*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "\n", "12", "x.00 1", "-1.00 2", "1.2 3", "1.x2 3", "99999999999.00 1"} {
		if got, err := ParseUptime([]byte(bad)); err == nil {
			t.Errorf("ParseUptime(%q) = %v, want an error", bad, got)
		}
	}
}

func TestUptimeHere(t *testing.T) {
	got, err := At("").Uptime()
	if err != nil {
		t.Fatal(err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	if d := time.Duration(ts.Nano()) - got; d < -time.Second || d > 5*time.Second {
		t.Errorf("uptime %v is %v off the boot clock", got, d)
	}
}

func TestParseMemoryTotal(t *testing.T) {
	if got, err := ParseMemoryTotal([]byte("MemTotal:       49368192 kB\nMemFree: 1 kB\n")); err != nil || got != 49368192*1024 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "MemFree: 1 kB\n", "MemTotal: 1 MB\n", "MemTotal: -1 kB\n", "MemTotal: 99999999999999999999 kB\n"} {
		if got, err := ParseMemoryTotal([]byte(bad)); err == nil {
			t.Errorf("ParseMemoryTotal(%q) = %d, want an error", bad, got)
		}
	}
}

func TestMemoryTotalHere(t *testing.T) {
	got, err := At("").MemoryTotal()
	if err != nil {
		t.Fatal(err)
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		t.Fatal(err)
	}
	if want := int64(si.Totalram) * int64(si.Unit); got != want {
		t.Errorf("MemoryTotal = %d, sysinfo(2) says %d", got, want)
	}
}

func block(processor, physical, core int) string {
	return fmt.Sprintf("processor\t: %d\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\n"+
		"model name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz\nmicrocode\t: 0x2006e05\n"+
		"physical id\t: %d\nsiblings\t: 4\ncore id\t\t: %d\ncpu cores\t: 2\n\n", processor, physical, core)
}

func TestParseCPUInfo(t *testing.T) {
	var xeon strings.Builder // two packages of two cores of two threads; core ids repeat
	for i := range 8 {
		xeon.WriteString(block(i, i/4, i/2%2))
	}
	tests := []struct {
		name, text string
		want       CPU
	}{
		{"two Xeons", xeon.String(), CPU{"Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", "85", "0x2006e05", 8, 4, 2}},
		{"arm64", "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n\nprocessor\t: 1\nBogoMIPS\t: 243.75\n", CPU{Logical: 2}},
		{"POWER", "processor\t: 0\ncpu\t\t: POWER9 (architected), altivec supported\n\n", CPU{Brand: "POWER9 (architected), altivec supported", Logical: 1}},
		{"no blank line at the end", strings.TrimRight(block(0, 0, 0), "\n"), CPU{"Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz", "85", "0x2006e05", 1, 1, 1}},
		{"empty", "", CPU{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, ParseCPUInfo([]byte(tt.text))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCPUHere(t *testing.T) {
	c, err := At("").CPU()
	if err != nil {
		t.Fatal(err)
	}
	// runtime.NumCPU counts those this process may run on.
	if c.Logical < runtime.NumCPU() {
		t.Errorf("%d logical processors, but %d are usable", c.Logical, runtime.NumCPU())
	}
	if c.Cores > c.Logical || c.Sockets > c.Logical {
		t.Errorf("more cores or sockets than threads: %+v", c)
	}
}

func TestHardware(t *testing.T) {
	dmi := At(t.TempDir())
	for name, v := range map[string]string{
		"sys_vendor": "Dell Inc.\n", "product_name": "PowerEdge R740 \n", "product_version": "Not Specified\n",
		"product_serial": "ABC123\n", "product_uuid": "4c4c4544-0042-3510-8052-b4c04f563332\n",
		"board_vendor": "Dell Inc.\n", "board_name": "06WXJT\n", "board_version": "A03\n", "board_serial": ".X.\n",
	} {
		write(t, filepath.Join(dmi.Sys, "class/dmi/id", name), v)
	}
	tree := At(t.TempDir())
	write(t, filepath.Join(tree.Sys, "firmware/devicetree/base/model"), "Raspberry Pi 4 Model B Rev 1.4\x00")
	write(t, filepath.Join(tree.Sys, "firmware/devicetree/base/serial-number"), "10000000abcdef01\x00")
	tests := []struct {
		name string
		fs   FS
		want Hardware
	}{
		{"SMBIOS", dmi, Hardware{
			"Dell Inc.", "PowerEdge R740", "Not Specified", "ABC123",
			"Dell Inc.", "06WXJT", "A03", ".X.", "4c4c4544-0042-3510-8052-b4c04f563332",
		}},
		{"device tree", tree, Hardware{Model: "Raspberry Pi 4 Model B Rev 1.4", Serial: "10000000abcdef01"}},
		{"neither", At(t.TempDir()), Hardware{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.fs.Hardware()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReleaseHere(t *testing.T) {
	got, err := At("").Release()
	if err != nil {
		t.Fatal(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if want := unix.ByteSliceToString(u.Release[:]); got != want {
		t.Errorf("Release = %q, uname(2) says %q", got, want)
	}
}

func TestMountNamespaceHere(t *testing.T) {
	got, err := At("").MountNamespace(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &st); err != nil {
		t.Fatal(err)
	}
	if got != st.Ino {
		t.Errorf("MountNamespace = %d, its inode is %d", got, st.Ino)
	}
}

func TestMountNamespaceMalformed(t *testing.T) {
	fs := At(t.TempDir())
	if err := os.MkdirAll(filepath.Join(fs.Proc, "7/ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(fs.Proc, "7/ns/mnt")
	for _, bad := range []string{"mnt:[x]", "mnt:[1", "net:[1]", "mnt:[99999999999999999999]"} {
		os.Remove(link)
		if err := os.Symlink(bad, link); err != nil {
			t.Fatal(err)
		}
		if n, err := fs.MountNamespace(7); err == nil {
			t.Errorf("MountNamespace of %q = %d, want an error", bad, n)
		}
	}
}

func TestProcessRootHere(t *testing.T) {
	fd, err := At("").ProcessRoot(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var got, want unix.Stat_t
	if err := unix.Fstat(fd, &got); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat("/", &want); err != nil {
		t.Fatal(err)
	}
	if got.Dev != want.Dev || got.Ino != want.Ino {
		t.Errorf("root is %d:%d, / is %d:%d", got.Dev, got.Ino, want.Dev, want.Ino)
	}
}

func FuzzParseSystem(f *testing.F) {
	f.Add([]byte("350735.47 234388.90\n"))
	f.Add([]byte("MemTotal: 1 kB\n"))
	f.Add([]byte(block(0, 1, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseUptime(b); err == nil && d < 0 {
			t.Errorf("uptime %v", d)
		}
		if n, err := ParseMemoryTotal(b); err == nil && n < 0 {
			t.Errorf("memory %d", n)
		}
		if c := ParseCPUInfo(b); c.Sockets > c.Cores+len(b) || c.Cores > len(b) {
			t.Errorf("CPU %+v from %d bytes", c, len(b))
		}
	})
}

func FuzzHardware(f *testing.F) {
	for _, s := range []string{"cpu0 1 2 3\ncpu\ncpu1 x", "processor : 0\nphysical id : 1\n\nprocessor : 1\n", "MemTotal: 1 kB\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range ParseCPUTimes(b) {
			if c.Core < 0 || slices.Min(c.Spent[:]) < 0 {
				t.Errorf("%+v", c)
			}
		}
		for _, p := range ParsePackages(b) {
			if p.Threads < p.Cores || p.Cores < 1 {
				t.Errorf("%+v", p)
			}
		}
		ParseKeys(b)
		ParseSegments(b)
		for name, n := range ParseMemory(b) {
			if n < 0 {
				t.Errorf("%s: %d", name, n)
			}
		}
	})
}
