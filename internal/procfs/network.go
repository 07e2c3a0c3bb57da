package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// NetDevice is what sysfs knows of a network interface that netlink does not tell.
type NetDevice struct {
	Index   int
	Address string // hardware address as sysfs prints it
	Speed   int64  // Mbit/s; -1 when unknown
	PCISlot string // domain:bus:device.function; "" when not on a PCI bus
}

// NetDevice reads /sys/class/net/NAME. It shows the network namespace in which sysfs was
// mounted, which may not be the caller's: compare Index and Address before trusting the
// rest.
func (fs FS) NetDevice(name string) (NetDevice, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return NetDevice{}, fmt.Errorf("read interface: %q is no interface name", name)
	}
	dir := filepath.Join(fs.Sys, "class/net", name)
	index, err := strconv.Atoi(value(filepath.Join(dir, "ifindex")))
	if err != nil {
		return NetDevice{}, fmt.Errorf("read interface %q: no index", name)
	}
	d := NetDevice{Index: index, Address: value(filepath.Join(dir, "address")), Speed: -1}
	// Reading speed fails with EINVAL while the link is down, and drivers that do not
	// know it print -1 (Documentation/ABI/testing/sysfs-class-net), which before 4.8 came
	// out as an unsigned number: 31 bits are what is believed.
	if n, err := strconv.ParseUint(value(filepath.Join(dir, "speed")), 10, 31); err == nil {
		d.Speed = int64(n)
	}
	// The class entry links to devices/pci0000:00/0000:00:03.0/virtio0/net/eth0.
	if link, err := os.Readlink(dir); err == nil {
		d.PCISlot = ParsePCISlot(link)
	}
	return d, nil
}

// ParsePCISlot returns the last PCI address in a sysfs device path, or "".
func ParsePCISlot(path string) string {
	for path != "" {
		var part string
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			path, part = path[:i], path[i+1:]
		} else {
			path, part = "", path
		}
		if isPCIAddress(part) {
			return part
		}
	}
	return ""
}

// isPCIAddress reports whether s is like 0000:00:1f.2; the domain may have more digits.
func isPCIAddress(s string) bool {
	n := len(s)
	if n < 12 || n > 16 {
		return false
	}
	for i := range n {
		switch n - i {
		case 8, 5:
			if s[i] != ':' {
				return false
			}
		case 2:
			if s[i] != '.' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdef", rune(s[i])) {
				return false
			}
		}
	}
	return true
}
