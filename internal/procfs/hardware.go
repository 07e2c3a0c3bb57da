package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const maxStat = 16 << 20 // the line of interrupts is as long as there are many

// CPUTime is how long a processor did what, in ticks of USER_HZ, 100 a second (proc_stat(5)).
type CPUTime struct {
	Core  int64
	Spent [10]int64 // user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice
}

// CPUTimes reads /proc/stat.
func (fs FS) CPUTimes() ([]CPUTime, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "stat"), maxStat)
	if err != nil {
		return nil, err
	}
	return ParseCPUTimes(b), nil
}

// ParseCPUTimes reads the lines of /proc/stat that are about one processor each. Kernels write
// fewer numbers the older they are: what is not there is 0.
func ParseCPUTimes(b []byte) []CPUTime {
	var out []CPUTime
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) < 2 || !strings.HasPrefix(words[0], "cpu") {
			continue
		}
		core, err := strconv.ParseUint(words[0][len("cpu"):], 10, 31)
		if err != nil {
			continue // all of them together
		}
		c := CPUTime{Core: int64(core)}
		for i, w := range words[1:min(len(words), 1+len(c.Spent))] {
			n, err := strconv.ParseUint(w, 10, 63)
			if err != nil {
				break
			}
			c.Spent[i] = int64(n)
		}
		out = append(out, c)
	}
	return out
}

// Package is a processor in its socket, as /proc/cpuinfo tells of it.
type Package struct {
	ID             string
	Model, Vendor  string
	Cores, Threads int
	AddressBits    int   // 64 where programs of 64 bits run
	Clock, Fastest int64 // MHz, 0 unknown
}

// Packages reads /proc/cpuinfo, and of cpufreq how fast they can be.
func (fs FS) Packages() ([]Package, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "cpuinfo"), maxCPUInfo)
	if err != nil {
		return nil, err
	}
	out := ParsePackages(b)
	fastest, _ := strconv.ParseInt(value(filepath.Join(fs.Sys, "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")), 10, 64)
	for i := range out {
		out[i].Fastest = fastest / 1000 // from kHz
	}
	return out, nil
}

// ParsePackages gathers the blocks of /proc/cpuinfo by their physical id; processors that have
// none are of one package.
func ParsePackages(b []byte) []Package {
	var out []Package
	at := map[string]int{}
	cores := map[string]bool{}
	block := map[string]string{}
	end := func() {
		if _, ok := block["processor"]; !ok {
			clear(block)
			return
		}
		id := block["physical id"]
		i, ok := at[id]
		if !ok {
			i = len(out)
			at[id] = i
			p := Package{ID: id, Vendor: block["vendor_id"], AddressBits: 32}
			for _, key := range brandKeys {
				if p.Model == "" {
					p.Model = block[key]
				}
			}
			if flags := " " + block["flags"] + " "; strings.Contains(flags, " lm ") || block["CPU architecture"] == "8" {
				p.AddressBits = 64 // X86_FEATURE_LM; ARMv8
			}
			if p.ID == "" {
				p.ID = "0"
			}
			mhz, _, _ := strings.Cut(block["cpu MHz"], ".")
			p.Clock, _ = strconv.ParseInt(mhz, 10, 64)
			out = append(out, p)
		}
		out[i].Threads++
		core := id + "/" + block["core id"]
		if block["core id"] == "" {
			core = id + "/#" + block["processor"]
		}
		if !cores[core] {
			cores[core] = true
			out[i].Cores++
		}
		clear(block)
	}
	for line := range bytes.Lines(b) {
		key, val, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			if len(bytes.TrimSpace(line)) == 0 {
				end()
			}
			continue
		}
		block[string(bytes.TrimSpace(key))] = string(bytes.TrimSpace(val))
	}
	end()
	return out
}

// Memory is how much there is of it, in bytes, by the names of proc_meminfo(5).
func (fs FS) Memory() (map[string]int64, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "meminfo"), maxSmallFile)
	if err != nil {
		return nil, err
	}
	return ParseMemory(b), nil
}

// ParseMemory reads /proc/meminfo: a name, a number, and kB, which are KiB, for those that are
// sizes.
func ParseMemory(b []byte) map[string]int64 {
	out := map[string]int64{}
	for line := range bytes.Lines(b) {
		name, rest, _ := strings.Cut(string(line), ":")
		words := strings.Fields(rest)
		if len(words) != 2 || words[1] != "kB" {
			continue
		}
		if n, err := strconv.ParseUint(words[0], 10, 53); err == nil {
			out[name] = int64(n) << 10
		}
	}
	return out
}

// LoadAverage is how many processes ran or waited for the disk, over one, five and fifteen
// minutes, as the kernel writes it (proc_loadavg(5)).
func (fs FS) LoadAverage() ([3]string, error) {
	var out [3]string
	b, err := readAtMost(filepath.Join(fs.Proc, "loadavg"), maxSmallFile)
	if err != nil {
		return out, err
	}
	words := strings.Fields(string(b))
	if len(words) < len(out) {
		return out, fmt.Errorf("parse load average: %q", b)
	}
	copy(out[:], words)
	return out, nil
}

// PCIDevice is a device as sysfs knows it (Documentation/ABI/testing/sysfs-bus-pci); numbers
// are hexadecimal with 0x.
type PCIDevice struct {
	Slot, Driver                    string
	Class                           string // class, subclass and interface, two digits each
	Vendor, Device                  string
	SubsystemVendor, SubsystemModel string
}

// PCIDevices lists /sys/bus/pci.
func (fs FS) PCIDevices() ([]PCIDevice, error) {
	dir := filepath.Join(fs.Sys, "bus/pci/devices")
	names, err := directory(dir)
	var out []PCIDevice
	for _, name := range names {
		at := filepath.Join(dir, name)
		d := PCIDevice{Slot: name, Class: value(filepath.Join(at, "class")),
			Vendor: value(filepath.Join(at, "vendor")), Device: value(filepath.Join(at, "device")),
			SubsystemVendor: value(filepath.Join(at, "subsystem_vendor")), SubsystemModel: value(filepath.Join(at, "subsystem_device"))}
		if to, err := os.Readlink(filepath.Join(at, "driver")); err == nil {
			d.Driver = filepath.Base(to)
		}
		out = append(out, d)
	}
	return out, err
}

// USBDevice is a device as sysfs knows it (Documentation/ABI/testing/sysfs-bus-usb); numbers of
// vendor, model and classes are hexadecimal without 0x.
type USBDevice struct {
	Bus, Address              int64
	Number                    string // major:minor of its file
	Vendor, VendorID          string
	Model, ModelID            string
	Version, Serial           string
	Class, Subclass, Protocol string
	Removable                 string // removable, fixed or unknown
}

// USBDevices lists the devices in /sys/bus/usb, but not their interfaces.
func (fs FS) USBDevices() ([]USBDevice, error) {
	dir := filepath.Join(fs.Sys, "bus/usb/devices")
	names, err := directory(dir)
	var out []USBDevice
	for _, name := range names {
		of := func(file string) string { return value(filepath.Join(dir, name, file)) }
		d := USBDevice{Number: of("dev"), Vendor: of("manufacturer"), VendorID: of("idVendor"), Model: of("product"), ModelID: of("idProduct"),
			Version: of("bcdDevice"), Serial: of("serial"), Class: of("bDeviceClass"), Subclass: of("bDeviceSubClass"), Protocol: of("bDeviceProtocol"),
			Removable: of("removable")}
		if d.VendorID == "" {
			continue // an interface
		}
		d.Bus, _ = strconv.ParseInt(of("busnum"), 10, 64)
		d.Address, _ = strconv.ParseInt(of("devnum"), 10, 64)
		out = append(out, d)
	}
	return out, err
}

// directory returns the names in a directory of sysfs, sorted; none when it is not there.
func directory(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].Name()
	}
	return out, err
}
