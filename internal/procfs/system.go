package procfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxSmallFile = 64 << 10 // one value or one line; the kernel command line is at most 4 KiB
	maxCPUInfo   = 16 << 20 // about 1.5 KiB a processor; the kernel's limit is 8192 processors
)

// readAtMost returns a whole file of at most limit bytes. A longer file is an error, not
// a cut one: half a table would pass for the truth.
func readAtMost(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("read %q: more than %d bytes", path, limit)
	}
	return b, nil
}

// value returns the one line of a small file without surrounding white space, or "" when
// it is absent or unreadable.
func value(path string) string {
	b, err := readAtMost(path, maxSmallFile)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// Uptime returns the time since boot, suspended time included (proc_uptime(5)).
func (fs FS) Uptime() (time.Duration, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "uptime"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	return ParseUptime(b)
}

// ParseUptime reads /proc/uptime: seconds since boot with two decimals, then idle time.
func ParseUptime(b []byte) (time.Duration, error) {
	word, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte{' '})
	whole, hundredths, found := bytes.Cut(word, []byte{'.'})
	seconds, err := strconv.ParseUint(string(whole), 10, 33) // 33 bits of seconds fit a Duration
	if err != nil || !found || len(hundredths) != 2 {
		return 0, fmt.Errorf("parse uptime: %q is no number of seconds", b)
	}
	h, err := strconv.ParseUint(string(hundredths), 10, 8)
	if err != nil {
		return 0, fmt.Errorf("parse uptime: %q is no number of seconds", b)
	}
	return time.Duration(seconds)*time.Second + time.Duration(h)*10*time.Millisecond, nil
}

// CommandLine returns the kernel's command line (proc_cmdline(5)).
func (fs FS) CommandLine() (string, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "cmdline"), maxSmallFile)
	return strings.TrimRight(string(b), "\n"), err
}

// Release returns the running kernel's release, as uname -r prints it.
func (fs FS) Release() (string, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "sys/kernel/osrelease"), maxSmallFile)
	return string(bytes.TrimSpace(b)), err
}

// MemoryTotal returns the usable physical memory in bytes.
func (fs FS) MemoryTotal() (int64, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "meminfo"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	return ParseMemoryTotal(b)
}

// ParseMemoryTotal reads the MemTotal line of /proc/meminfo (proc_meminfo(5)), in bytes.
func ParseMemoryTotal(b []byte) (int64, error) {
	for line := range bytes.Lines(b) {
		rest, found := bytes.CutPrefix(line, []byte("MemTotal:"))
		if !found {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) != 2 || string(fields[1]) != "kB" {
			break
		}
		kib, err := strconv.ParseUint(string(fields[0]), 10, 53) // kB here are KiB; 53+10 bits fit
		if err != nil {
			break
		}
		return int64(kib) << 10, nil
	}
	return 0, fmt.Errorf("parse meminfo: no MemTotal in kB")
}

// CPU is what /proc/cpuinfo tells of the processors. Architectures write different keys;
// what one does not write is "" or 0.
type CPU struct {
	Brand     string // vendor's name of the model
	Model     string // model number within its family
	Microcode string // revision
	Logical   int    // hardware threads online
	Cores     int    // distinct (package, core) pairs
	Sockets   int    // distinct packages
}

// CPU reads /proc/cpuinfo.
func (fs FS) CPU() (CPU, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "cpuinfo"), maxCPUInfo)
	if err != nil {
		return CPU{}, err
	}
	return ParseCPUInfo(b), nil
}

// brandKeys are the cpuinfo keys that name the model: x86, POWER, old 32-bit ARM, RISC-V.
var brandKeys = []string{"model name", "cpu", "Processor", "uarch"}

// ParseCPUInfo reads /proc/cpuinfo (proc_cpuinfo(5)): blocks of "key : value" lines, one
// block a processor.
func ParseCPUInfo(b []byte) CPU {
	var c CPU
	type core struct{ socket, core string }
	cores, sockets := map[core]bool{}, map[string]bool{}
	first := map[string]string{}
	var at core
	end := func() {
		if at.socket != "" {
			sockets[at.socket] = true
			if at.core != "" {
				cores[at] = true
			}
		}
		at = core{}
	}
	for line := range bytes.Lines(b) {
		k, v, found := bytes.Cut(line, []byte{':'})
		if !found {
			if len(bytes.TrimSpace(line)) == 0 {
				end()
			}
			continue
		}
		key, val := string(bytes.TrimSpace(k)), string(bytes.TrimSpace(v))
		switch key {
		case "processor":
			c.Logical++
		case "physical id":
			at.socket = val
		case "core id":
			at.core = val
		case "model", "microcode", "model name", "cpu", "Processor", "uarch":
			if _, known := first[key]; !known {
				first[key] = val
			}
		}
	}
	end()
	c.Model, c.Microcode = first["model"], first["microcode"]
	for _, key := range brandKeys {
		if c.Brand == "" {
			c.Brand = first[key]
		}
	}
	c.Cores, c.Sockets = len(cores), len(sockets)
	return c
}

// Hardware is what the firmware says of the machine: SMBIOS tables, or on machines
// without them the device tree. What it does not say is "".
type Hardware struct {
	Vendor, Model, Version, Serial                     string
	BoardVendor, BoardModel, BoardVersion, BoardSerial string
	UUID                                               string // as the kernel prints it; root only
}

// Hardware reads /sys/class/dmi/id, and /sys/firmware/devicetree where that is absent.
// Virtual machines often have neither.
func (fs FS) Hardware() Hardware {
	dmi := func(name string) string { return value(filepath.Join(fs.Sys, "class/dmi/id", name)) }
	h := Hardware{
		Vendor: dmi("sys_vendor"), Model: dmi("product_name"),
		Version: dmi("product_version"), Serial: dmi("product_serial"),
		BoardVendor: dmi("board_vendor"), BoardModel: dmi("board_name"),
		BoardVersion: dmi("board_version"), BoardSerial: dmi("board_serial"),
		UUID: dmi("product_uuid"),
	}
	if h == (Hardware{}) {
		tree := func(name string) string { // strings end in NUL (devicetree specification, 2.2.4)
			s := value(filepath.Join(fs.Sys, "firmware/devicetree/base", name))
			return strings.TrimRight(s, "\x00")
		}
		h.Model, h.Serial = tree("model"), tree("serial-number")
	}
	return h
}

// ProcessRoot opens the root directory of a process in its mount namespace with O_PATH.
// The caller closes the descriptor.
func (fs FS) ProcessRoot(pid int) (int, error) {
	path := filepath.Join(fs.Proc, strconv.Itoa(pid), "root")
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", path, err)
	}
	return fd, nil
}

// MountNamespace returns the inode number that identifies a process's mount namespace
// (namespaces(7)).
func (fs FS) MountNamespace(pid int) (uint64, error) {
	link, err := os.Readlink(filepath.Join(fs.Proc, strconv.Itoa(pid), "ns/mnt"))
	if err != nil {
		return 0, err
	}
	s, ok := strings.CutPrefix(link, "mnt:[")
	if !ok || !strings.HasSuffix(s, "]") {
		return 0, fmt.Errorf("parse namespace: %q is no mount namespace", link)
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse namespace: %q is no mount namespace", link)
	}
	return n, nil
}

// Reopen opens again, with other flags, the very file that fd refers to, whatever has
// become of its name (open(2), O_PATH). It needs this process's own /proc.
func Reopen(fd, flags int) (int, error) {
	for {
		n, err := unix.Open(DescriptorPath(fd), flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Statfs is statfs(2) of what fd refers to. Kernels before 3.12, RHEL 7's among them,
// refuse fstatfs(2) on O_PATH descriptors. It needs this process's own /proc, and waits
// for as long as the file system does.
func Statfs(fd int) (st unix.Statfs_t, err error) {
	for {
		if err = unix.Statfs(DescriptorPath(fd), &st); err != unix.EINTR {
			return st, err
		}
	}
}

// DescriptorPath names the very directory or file that fd refers to, for what opens by
// name only, or what lies below. It needs this process's own /proc.
func DescriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
