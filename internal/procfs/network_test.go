package procfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNetDevice(t *testing.T) {
	dir := t.TempDir()
	fs := At(dir)
	device := "devices/pci0000:00/0000:00:1c.0/0000:02:00.1/net/eth0"
	write(t, filepath.Join(fs.Sys, device, "ifindex"), "4\n")
	write(t, filepath.Join(fs.Sys, device, "address"), "02:fc:00:00:00:01\n")
	write(t, filepath.Join(fs.Sys, device, "speed"), "10000\n")
	write(t, filepath.Join(fs.Sys, "class/net/lo/ifindex"), "1\n")
	write(t, filepath.Join(fs.Sys, "class/net/lo/speed"), "4294967295\n") // -1 before 4.8
	if err := os.Symlink("../../"+device, filepath.Join(fs.Sys, "class/net/eth0")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]NetDevice{
		"eth0": {Index: 4, Address: "02:fc:00:00:00:01", Speed: 10000, PCISlot: "0000:02:00.1"},
		"lo":   {Index: 1, Speed: -1},
	} {
		got, err := fs.NetDevice(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"", ".", "..", "../net/lo", "none"} {
		if d, err := fs.NetDevice(name); err == nil {
			t.Errorf("NetDevice(%q) = %+v, want an error", name, d)
		}
	}
}

func TestParsePCISlot(t *testing.T) {
	for path, want := range map[string]string{
		"../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0":             "0000:00:03.0",
		"../../devices/pci0000:00/0000:00:1c.0/0000:02:00.1/net/eth0":        "0000:02:00.1",
		"../../devices/LNXSYSTM:00/VMBUS:01/pci10000:e0/10000:e1:00.0/net/x": "10000:e1:00.0",
		"../../devices/virtual/net/lo":                                       "",
		"../../devices/pci0000:00/0000:00:0g.0/net/x":                        "",
		"0000-00-03.0": "",
		"":             "",
	} {
		if got := ParsePCISlot(path); got != want {
			t.Errorf("ParsePCISlot(%q) = %q, want %q", path, got, want)
		}
	}
}

func FuzzParsePCISlot(f *testing.F) {
	f.Add("a/0000:00:03.0/b")
	f.Fuzz(func(t *testing.T, s string) {
		if got := ParsePCISlot(s); got != "" && (len(got) < 12 || len(got) > 16) {
			t.Errorf("ParsePCISlot(%q) = %q", s, got)
		}
	})
}
