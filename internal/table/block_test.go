package table

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The programs that make file systems agree with libblkid about what is in a file; we must, too.
func TestSuperblocks(t *testing.T) {
	if _, err := exec.LookPath("blkid"); err != nil {
		t.Skip("no blkid on this host")
	}
	tried := 0
	for name, make := range map[string][]string{
		"ext2": {"mke2fs", "-q", "-t", "ext2", "-L", "two"}, "ext3": {"mke2fs", "-q", "-t", "ext3"}, "ext4": {"mke2fs", "-q", "-t", "ext4", "-L", "a label"},
		"swap": {"mkswap", "-L", "swappy"}, "vfat": {"mkfs.vfat", "-n", "FAT"}, "vfat32": {"mkfs.vfat", "-F", "32"}, "xfs": {"mkfs.xfs", "-q", "-L", "ex"}, "btrfs": {"mkfs.btrfs", "-q"},
	} {
		if _, err := exec.LookPath(make[0]); err != nil {
			continue // e2fsprogs and util-linux are everywhere; the others where installed
		}
		tried++
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 320<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(make[0], append(make[1:], file)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", make, err, out)
		}
		value := func(tag string) string {
			out, _ := exec.Command("blkid", "-p", "-s", tag, "-o", "value", file).Output()
			return strings.TrimSuffix(string(out), "\n")
		}
		b := readStart(t, file)
		var d blockDevice
		d.identify(b)
		want := []string{value("TYPE"), value("UUID"), value("LABEL")}
		if diff := cmp.Diff(want, []string{d.kind, d.uuid, d.label}); diff != "" || want[0] == "" {
			t.Errorf("%s (-blkid +ours): %s", name, diff)
		}
	}
	if tried < 4 {
		t.Errorf("only %d kinds were tried", tried)
	}
}

func readStart(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, superblockSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// A host with a disk, two partitions, LUKS on the second and a volume on that.
func TestDiskEncryption(t *testing.T) {
	device := func(files map[string]string, name, number, sectors string) {
		files["sys/devices/"+name+"/dev"] = number + "\n"
		files["sys/devices/"+name+"/size"] = sectors + "\n"
		base := filepath.Base(name)
		files["sys/devices/"+name+"/uevent"] = "DEVNAME=" + base + "\n"
		files["sys/class/block/"+base] = "-> ../../devices/" + name
	}
	files := map[string]string{
		"sys/devices/sda/queue/logical_block_size": "512\n",
		"sys/devices/sda/device/vendor":            "ATA     \n",
		"sys/devices/sda/device/model":             "QEMU HARDDISK\n",
		"sys/devices/sda/device/wwid":              "t10.ATA 1\n",
		"sys/devices/sda/sda1/partition":           "1\n",
		"sys/devices/sda/sda2/partition":           "2\n",
		"sys/devices/dm-0/dm/uuid":                 "CRYPT-LUKS2-0123456789abcdef-luks\n",
		"sys/devices/dm-0/slaves/sda2":             "-> ../../sda/sda2",
		"sys/devices/dm-1/dm/uuid":                 "LVM-abc\n",
		"sys/devices/dm-1/slaves/dm-0":             "-> ../../dm-0",
		"run/udev/data/b8:1":                       "S:disk/by-id/x\nE:ID_FS_TYPE=ext4\nE:ID_FS_UUID=1234\nE:ID_FS_LABEL=boot\nE:ID_MODEL=From_udev\n",
	}
	device(files, "sda", "8:0", "1000")
	device(files, "sda/sda1", "8:1", "100")
	device(files, "sda/sda2", "8:2", "900")
	device(files, "dm-0", "253:0", "890")
	device(files, "dm-1", "253:1", "880")
	env := at(tree(t, files))
	r := blockDevicesTable(env)
	want := [][]string{
		{"/dev/dm-0", "/dev/sda2", "", "", "", "890", "0", "", "", ""},
		{"/dev/dm-1", "/dev/dm-0", "", "", "", "880", "0", "", "", ""},
		{"/dev/sda", "", "ATA", "QEMU HARDDISK", "t10.ATA 1", "1000", "512", "", "", ""},
		{"/dev/sda1", "/dev/sda", "ATA", "From_udev", "t10.ATA 1", "100", "512", "1234", "ext4", "boot"},
		{"/dev/sda2", "/dev/sda", "ATA", "QEMU HARDDISK", "t10.ATA 1", "900", "512", "", "", ""},
	}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "name", "parent", "vendor", "model", "serial", "size", "block_size", "uuid", "type", "label")); diff != "" {
		t.Error(diff)
	}
	e := diskEncryptionTable(env)
	want = [][]string{
		{"/dev/dm-0", "1", "LUKS2", "encrypted"}, {"/dev/dm-1", "1", "LUKS2", "encrypted"},
		{"/dev/sda", "0", "", "not encrypted"}, {"/dev/sda1", "0", "", "not encrypted"}, {"/dev/sda2", "0", "", "not encrypted"},
	}
	if diff := cmp.Diff(want, cells(e, scan(t, e, whereAll()), "name", "encrypted", "type", "encryption_status")); diff != "" {
		t.Error(diff)
	}
}

// Both formats of LUKS tell their cipher in clear.
func TestLUKS(t *testing.T) {
	one := make([]byte, superblockSize)
	copy(one, "LUKS\xba\xbe\x00\x01")
	copy(one[8:], "aes")
	copy(one[40:], "xts-plain64")
	copy(one[168:], "11111111-2222-3333-4444-555555555555")
	two := make([]byte, superblockSize)
	copy(two, "LUKS\xba\xbe\x00\x02")
	copy(two[24:], "a label")
	copy(two[168:], "11111111-2222-3333-4444-555555555555")
	copy(two[4096:], `{"keyslots":{},"segments":{"0":{"type":"crypt","encryption":"serpent-cbc-essiv:sha256"}}}`)
	for _, tt := range []struct {
		b             []byte
		cipher, label string
	}{{one, "aes-xts-plain64", ""}, {two, "serpent-cbc-essiv:sha256", "a label"}} {
		var d blockDevice
		d.identify(tt.b)
		if d.kind != "crypto_LUKS" || d.uuid != "11111111-2222-3333-4444-555555555555" || d.cipher != tt.cipher || d.label != tt.label {
			t.Errorf("%+v", d)
		}
	}
}

// lsblk has the same devices and sizes on this host.
func TestBlockDevicesHere(t *testing.T) {
	out, err := exec.Command("lsblk", "-b", "-a", "-n", "-r", "-o", "KNAME,SIZE").Output()
	if err != nil {
		t.Skipf("lsblk: %v", err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		want["/dev/"+f[0]] = f[1]
	}
	r := blockDevicesTable(here())
	got := map[string]string{}
	for _, row := range cells(r, scan(t, r, whereAll()), "name", "size") {
		n, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := want[row[0]]; ok {
			got[row[0]] = strconv.FormatInt(n*512, 10)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got) == 0 {
		t.Errorf("(-lsblk +ours): %s", diff)
	}
}

func TestPlatformInfo(t *testing.T) {
	dir := tree(t, map[string]string{
		"sys/class/dmi/id/bios_vendor": "SeaBIOS\n", "sys/class/dmi/id/bios_version": "1.16\n", "sys/class/dmi/id/bios_date": "04/01/2014\n", "sys/class/dmi/id/bios_release": "0.0\n",
		"sys/firmware/efi/x": "", "sys/firmware/dmi/entries/0-0/raw": "\x00\x18\x00\x00\x01\x02\x00\xf0\x03\x0f\x00",
	})
	r := platformInfoTable(at(dir))
	want := [][]string{{"SeaBIOS", "1.16", "04/01/2014", "0.0", "", "uefi", "0xf000", "1048576", "0"}}
	if diff := cmp.Diff(want, cells(r, scan(t, r, whereAll()), "vendor", "version", "date", "revision", "extra", "firmware_type", "address", "size", "volume_size")); diff != "" {
		t.Error(diff)
	}
}

// openssl, where it is, tells the same of this host's authorities.
func TestCertificates(t *testing.T) {
	pemText, err := os.ReadFile("testdata/isrg-root-x1.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pemText)
	dir := tree(t, map[string]string{
		"etc/ssl/certs/a.pem": string(pemText) + "junk\n" + string(pemText), "etc/pki/tls/certs/b.der": string(block.Bytes), "etc/ssl/certs/c.pem": "nothing", "opt/own.crt": string(pemText),
	})
	r := certificatesTable(at(dir))
	row := []string{"ISRG Root X1", "/C=US/O=Internet Security Research Group/CN=ISRG Root X1", "C=US, O=Internet Security Research Group, CN=ISRG Root X1",
		"1", "1", "1433415878", "2064567878", "sha256WithRSAEncryption", "rsaEncryption", "4096", "Key Cert Sign, CRL Sign", "79B459E67BB6E5E40173800888C81A58F6E99B6E",
		"cabd2a79a1076a31f21d253635cb039d4329a5e8", "8210CFB0D240E3594463E0BB63828B00"}
	columns := []string{"common_name", "subject", "issuer2", "ca", "self_signed", "not_valid_before", "not_valid_after", "signing_algorithm", "key_algorithm", "key_strength", "key_usage", "subject_key_id", "sha1", "serial"}
	if diff := cmp.Diff([][]string{row, row, row}, cells(r, scan(t, r, whereAll()), columns...)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"/opt/own.crt", "ISRG Root X1"}}, cells(r, scan(t, r, where(r, "path", "/opt/own.crt")), "path", "common_name")); diff != "" {
		t.Error(diff)
	}
	if got := len(scan(t, r, whereLike(r, "path", "/opt/%"))); got != 1 {
		t.Errorf("%d rows of a pattern", got)
	}
}

func FuzzCertificates(f *testing.F) {
	b, err := os.ReadFile("testdata/isrg-root-x1.pem")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		parseCertificates(b, func(c *x509.Certificate) {
			distinguished(c.RawSubject)
			publicKey(c.PublicKey)
		})
		distinguished(b)
	})
}
