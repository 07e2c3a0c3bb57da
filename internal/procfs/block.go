package procfs

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// BlockDevice is a block device as sysfs knows it (Documentation/ABI/stable/sysfs-block).
type BlockDevice struct {
	Name       string   // below /dev
	Parent     string   // the disk that a partition is part of, "" for others
	Slaves     []string // the devices that a mapped or RAID device is made of
	Number     string   // major:minor
	Sectors    int64    // of 512 bytes
	BlockSize  int64    // bytes
	Vendor     string
	Model      string
	Serial     string // the world-wide identifier, where the device has one
	MapperUUID string // of the device mapper: what made it, and which one it is
}

// BlockDevices returns the block devices of this machine, by name.
func (fs FS) BlockDevices() ([]BlockDevice, error) {
	dir := filepath.Join(fs.Sys, "class/block")
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []BlockDevice
	for _, entry := range list {
		at := filepath.Join(dir, entry.Name())
		b := BlockDevice{Name: entry.Name(), Number: value(filepath.Join(at, "dev")), MapperUUID: value(filepath.Join(at, "dm/uuid"))}
		for line := range strings.Lines(value(filepath.Join(at, "uevent"))) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok { // sysfs writes ! for /
				b.Name = name
			}
		}
		// A partition is a directory in that of its disk.
		disk := at
		if value(filepath.Join(at, "partition")) != "" {
			if real, err := filepath.EvalSymlinks(at); err == nil {
				disk = filepath.Dir(real)
				b.Parent = filepath.Base(disk)
			}
		}
		if slaves, err := os.ReadDir(filepath.Join(at, "slaves")); err == nil {
			for _, s := range slaves {
				b.Slaves = append(b.Slaves, s.Name())
			}
		}
		b.Sectors, _ = strconv.ParseInt(value(filepath.Join(at, "size")), 10, 64)
		b.BlockSize, _ = strconv.ParseInt(value(filepath.Join(disk, "queue/logical_block_size")), 10, 64)
		b.Vendor, b.Model = value(filepath.Join(disk, "device/vendor")), value(filepath.Join(disk, "device/model"))
		if b.Serial = value(filepath.Join(disk, "device/wwid")); b.Serial == "" {
			b.Serial = value(filepath.Join(disk, "wwid")) // NVMe
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(x, y BlockDevice) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

// Firmware is what the firmware says of itself (SMBIOS specification, 7.1).
type Firmware struct {
	Vendor, Version, Date, Revision string
	Kind                            string // uefi, bios or unknown
	Address                         string // segment where the BIOS begins, in hexadecimal
	Size                            int64  // of its ROM in bytes, 0 when unknown
}

// Firmware reads /sys/class/dmi and /sys/firmware.
func (fs FS) Firmware() Firmware {
	dmi := func(name string) string { return value(filepath.Join(fs.Sys, "class/dmi/id", name)) }
	f := Firmware{Vendor: dmi("bios_vendor"), Version: dmi("bios_version"), Date: dmi("bios_date"), Revision: dmi("bios_release"), Kind: "unknown"}
	if _, err := os.Stat(filepath.Join(fs.Sys, "firmware/efi")); err == nil {
		f.Kind = "uefi"
	} else if f.Vendor != "" {
		f.Kind = "bios"
	}
	raw, err := readAtMost(filepath.Join(fs.Sys, "firmware/dmi/entries/0-0/raw"), 4096)
	if err == nil && len(raw) > 9 {
		f.Address = "0x" + strconv.FormatUint(uint64(raw[6])|uint64(raw[7])<<8, 16)
		f.Size = (int64(raw[9]) + 1) << 16
	}
	return f
}
