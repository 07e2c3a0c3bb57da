package table

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// blockDevice is a row of block_devices.
type blockDevice struct {
	procfs.BlockDevice
	name, parent      string
	uuid, kind, label string
	cipher            string // of a LUKS header
}

// superblockSize is how much of a device is looked at: btrfs's superblock, the deepest, is
// at 64 KiB.
const superblockSize = 68 << 10

var errNotBlock = errors.New("not a block device")

// superblock reads the beginning of a block device.
func (r root) superblock(path string) ([]byte, error) {
	at, err := r.open(path, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errNotBlock
	}
	fd, err := procfs.Reopen(at, unix.O_RDONLY|unix.O_NONBLOCK) // which starts no motor
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, superblockSize)
	n, err := unix.Pread(fd, b, 0)
	return b[:max(n, 0)], err
}

// identify finds what a device holds by its superblock, in libblkid's words. What it does
// not know stays empty; udev, where it runs, knows more.
func (d *blockDevice) identify(b []byte) {
	at := func(offset, n int) []byte {
		if offset+n > len(b) {
			return make([]byte, n)
		}
		return b[offset : offset+n]
	}
	is := func(offset int, magic string) bool { return string(at(offset, len(magic))) == magic }
	le := binary.LittleEndian
	switch {
	case is(0, "LUKS\xba\xbe"): // cryptsetup's on-disk formats 1 and 2
		d.kind, d.uuid, d.label = "crypto_LUKS", cString(at(168, 40)), ""
		d.cipher = luksCipher(b)
		if binary.BigEndian.Uint16(at(6, 2)) == 2 {
			d.label = cString(at(24, 48))
		}
	case is(0, "XFSB"): // fs/xfs/libxfs/xfs_format.h
		d.kind, d.uuid, d.label = "xfs", formatUUID(at(32, 16)), cString(at(108, 12))
	case is(0x10040, "_BHRfS_M"): // fs/btrfs: btrfs_super_block
		d.kind, d.uuid, d.label = "btrfs", formatUUID(at(0x10020, 16)), cString(at(0x1012b, 256))
	case le.Uint16(at(0x438, 2)) == 0xef53: // fs/ext4/ext4.h: ext4_super_block
		d.kind, d.uuid, d.label = "ext2", formatUUID(at(0x468, 16)), cString(at(0x478, 16))
		if le.Uint32(at(0x45c, 4))&4 != 0 { // has a journal
			d.kind = "ext3"
		}
		if le.Uint32(at(0x460, 4))&^0x12 != 0 || le.Uint32(at(0x464, 4))&^7 != 0 { // features that ext3 does not know
			d.kind = "ext4"
		}
	case is(4086, "SWAPSPACE2"): // include/linux/swap.h, pages of 4 KiB
		d.kind, d.uuid, d.label = "swap", formatUUID(at(1036, 16)), cString(at(1052, 16))
	case is(512, "LABELONE") && is(536, "LVM2 001"):
		d.kind, d.uuid = "LVM2_member", lvmUUID(string(at(544, 32)))
	case is(0, "hsqs"):
		d.kind = "squashfs"
	case is(510, "\x55\xaa") && (is(82, "FAT32   ") || is(54, "FAT16   ") || is(54, "FAT12   ")):
		serial, label := 39, 43
		if is(82, "FAT32   ") {
			serial, label = 67, 71
		}
		id := le.Uint32(at(serial, 4))
		d.kind, d.uuid = "vfat", fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
		if d.label = strings.TrimSpace(cString(at(label, 11))); d.label == "NO NAME" {
			d.label = ""
		}
	case is(32769, "CD001"):
		d.kind, d.label = "iso9660", strings.TrimSpace(cString(at(32808, 32)))
	}
}

func formatUUID(b []byte) string {
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// lvmUUID writes LVM's 32 letters with hyphens, as LVM does.
func lvmUUID(s string) string {
	parts := []string{s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:]}
	return strings.Join(parts, "-")
}

// luksCipher is the cipher and mode of a LUKS header: aes-xts-plain64.
func luksCipher(b []byte) string {
	if len(b) < 4096 {
		return ""
	}
	if binary.BigEndian.Uint16(b[6:]) == 1 {
		return cString(b[8:40]) + "-" + cString(b[40:72])
	}
	// The JSON area follows the binary header.
	text, _, _ := bytes.Cut(b[4096:], []byte{0})
	var meta struct {
		Segments map[string]struct{ Encryption loose }
	}
	if !lenient(text, &meta) {
		if d := json.NewDecoder(bytes.NewReader(text)); d.Decode(&meta) != nil {
			return ""
		}
	}
	return string(meta.Segments["0"].Encryption)
}

// udevProperties reads udev's database of a device, as b8:0, c189:1 or +pci:0000:00:1f.0 (systemd's sd-device:
// lines of E:KEY=value).
func (r root) udevProperties(device string) map[string]string {
	out := map[string]string{}
	b, err := r.readFile("/run/udev/data/"+device, maxManifest)
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		if pair, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "E:"); ok {
			key, value, _ := strings.Cut(pair, "=")
			out[key] = value
		}
	}
	return out
}

// blockDevices returns all block devices. What they hold comes from udev where it runs,
// else from the devices themselves; probe asks for it.
func (env *Env) blockDevices(probe bool) ([]*blockDevice, error) {
	r, err := openRoot(env.HostRoot)
	if err != nil {
		return nil, err
	}
	defer r.close()
	list, err := env.FS.BlockDevices()
	if err != nil {
		return nil, optionalError(err)
	}
	out := make([]*blockDevice, 0, len(list))
	for _, one := range list {
		d := &blockDevice{BlockDevice: one, name: "/dev/" + one.Name}
		if one.Parent != "" {
			d.parent = "/dev/" + one.Parent
		} else if len(one.Slaves) > 0 {
			d.parent = "/dev/" + one.Slaves[0]
		}
		if probe {
			p := r.udevProperties("b" + one.Number)
			if m := p["ID_MODEL_FROM_DATABASE"]; m != "" {
				d.Model = m
			} else if m := p["ID_MODEL"]; m != "" {
				d.Model = m
			}
			d.uuid, d.kind, d.label = p["ID_FS_UUID"], p["ID_FS_TYPE"], p["ID_FS_LABEL"]
			if one.Sectors > 0 && (d.kind == "" || d.kind == "crypto_LUKS") {
				if b, err := r.superblock(d.name); err == nil {
					d.identify(b)
				}
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// optionalError turns the absence of what is looked for into no error.
func optionalError(err error) error {
	_, err = optional(nil, err)
	return err
}

func blockDevicesTable(env *Env) schema.Relation {
	type row = *blockDevice
	t := &schema.Table[row]{
		Name: "block_devices",
		Doc:  "Disks, partitions and devices made of others, with what they hold.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(d row) *string { return &d.name }, "Device file", schema.Index),
			schema.Str("parent", func(d row) *string { return &d.parent }, "Device that it is a part of, or is made of"),
			schema.Str("vendor", func(d row) *string { return &d.Vendor }, "Vendor of the disk"),
			schema.Str("model", func(d row) *string { return &d.Model }, "Model of the disk"),
			schema.Str("serial", func(d row) *string { return &d.Serial }, "World-wide identifier of the disk"),
			schema.Int("size", func(d row) *int64 { return &d.Sectors }, "Size in sectors of 512 bytes"),
			schema.Int("block_size", func(d row) *int64 { return &d.BlockSize }, "Logical block size in bytes").As(schema.Integer),
			schema.Str("uuid", func(d row) *string { return &d.uuid }, "UUID of the file system").Collated("nocase"),
			schema.Str("type", func(d row) *string { return &d.kind }, "File system, or crypto_LUKS, LVM2_member, swap …"),
			schema.Str("label", func(d row) *string { return &d.label }, "Label of the file system"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		probe := false
		for _, name := range []string{"model", "uuid", "type", "label"} {
			probe = probe || q.Uses(t.Def().Column(name))
		}
		return env.blockDevices(probe)
	}
	return t.Bind()
}

// encryption is a row of disk_encryption.
type encryption struct {
	name, uuid, kind, status string
	encrypted                bool
}

// encryptionOf tells whether what is written to a device is encrypted: it is a mapping of
// dm-crypt (whose UUID begins with CRYPT-, cryptsetup's lib/libdevmapper.c), or lies on one.
func encryptionOf(d *blockDevice, byName map[string]*blockDevice, depth int) (kind string, encrypted bool) {
	if rest, ok := strings.CutPrefix(d.MapperUUID, "CRYPT-"); ok {
		kind, _, _ = strings.Cut(rest, "-") // LUKS1, LUKS2, PLAIN …
		for _, s := range d.Slaves {
			if below := byName["/dev/"+s]; below != nil && below.cipher != "" {
				kind += "-" + below.cipher
			}
		}
		return kind, true
	}
	if depth == 0 {
		return "", false
	}
	// A device over several is encrypted only when all of them are.
	under := d.Slaves
	if d.Parent != "" {
		under = []string{d.Parent}
	}
	for _, name := range under {
		below := byName["/dev/"+name]
		if below == nil {
			return "", false
		}
		if kind, encrypted = encryptionOf(below, byName, depth-1); !encrypted {
			return "", false
		}
	}
	return kind, encrypted
}

func diskEncryptionTable(env *Env) schema.Relation {
	type row = *encryption
	t := &schema.Table[row]{
		Name: "disk_encryption",
		Doc:  "Whether what is written to each block device is encrypted.",
		Columns: []schema.Column[row]{
			schema.Str("name", func(e row) *string { return &e.name }, "Device file", schema.Index),
			schema.Str("uuid", func(e row) *string { return &e.uuid }, "UUID of the file system").Collated("nocase"),
			schema.Bool("encrypted", func(e row) *bool { return &e.encrypted }, "1 when it is encrypted"),
			schema.Str("type", func(e row) *string { return &e.kind }, "Format, cipher and mode: LUKS2-aes-xts-plain64"),
			schema.Str("encryption_status", func(e row) *string { return &e.status }, "encrypted or not encrypted"),
			schema.Absent[row]("uid", schema.Text, "User who unlocked it on macOS", schema.Hidden),
			schema.Absent[row]("user_uuid", schema.Text, "UUID of that user on macOS", schema.Hidden),
			schema.Absent[row]("filevault_status", schema.Text, "FileVault's state on macOS", schema.Hidden),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		devices, err := env.blockDevices(true)
		if err != nil {
			return nil, err
		}
		byName := map[string]*blockDevice{}
		for _, d := range devices {
			byName[d.name] = d
		}
		var rows []row
		for _, d := range devices {
			e := &encryption{name: d.name, uuid: d.uuid, status: "not encrypted"}
			if e.kind, e.encrypted = encryptionOf(d, byName, 8); e.encrypted {
				e.status = "encrypted"
			}
			rows = append(rows, e)
		}
		return rows, nil
	}
	return t.Bind()
}

func platformInfoTable(env *Env) schema.Relation {
	type row = *procfs.Firmware
	t := &schema.Table[row]{
		Name: "platform_info",
		Doc:  "The machine's firmware, one row.",
		Columns: []schema.Column[row]{
			schema.Str("vendor", func(f row) *string { return &f.Vendor }, "Vendor"),
			schema.Str("version", func(f row) *string { return &f.Version }, "Version").Collated("version"),
			schema.Str("date", func(f row) *string { return &f.Date }, "Date of release, as the vendor writes it"),
			schema.Str("revision", func(f row) *string { return &f.Revision }, "Release, major and minor"),
			schema.Absent[row]("extra", schema.Text, "What the firmware of a Mac says besides"),
			schema.Str("firmware_type", func(f row) *string { return &f.Kind }, "uefi, bios or unknown"),
			schema.Str("address", func(f row) *string { return &f.Address }, "Segment where the BIOS begins"),
			schema.Calc("size", schema.Text, func(f row) schema.Value {
				if f.Size == 0 {
					return schema.TextValue("")
				}
				return schema.TextValue(fmt.Sprint(f.Size))
			}, "Size of its ROM in bytes"),
			schema.Calc("volume_size", schema.Integer, func(row) schema.Value { return schema.IntValue(0) }, "Size of the firmware's volume on a Mac"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]row, error) {
		f := env.FS.Firmware()
		return []row{&f}, nil
	}
	return t.Bind()
}
