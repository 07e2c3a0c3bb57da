package procfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMounts(t *testing.T) {
	const text = `/dev/vda / ext4 rw,discard,resuid=65534 0 0
proc /proc proc rw,relatime 0 0
//server/a\040share /mnt/a\040b\011c\012d\134e\043f cifs rw,vers=3.0 0 0
two words
 /x tmpfs rw 0 0
/dev/sdb1 /end\04 ext4 ro
`
	want := []Mount{
		{"/dev/vda", "/", "ext4", "rw,discard,resuid=65534"},
		{"proc", "/proc", "proc", "rw,relatime"},
		{"//server/a share", "/mnt/a b\tc\nd\\e#f", "cifs", "rw,vers=3.0"},
		{"", "/x", "tmpfs", "rw"},
		{"/dev/sdb1", `/end\04`, "ext4", "ro"},
	}
	if diff := cmp.Diff(want, ParseMounts([]byte(text))); diff != "" {
		t.Error(diff)
	}
}

func TestParseMountPoints(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
30 22 0:25 /a\040b /mnt/c\134d rw - tmpfs none rw
31 22 0:26 / /x rw,noexec
no 22 0:26 / /x rw - tmpfs none rw
`
	want := []MountPoint{
		{ID: 22, Parent: 1, Device: "254:0", Root: "/", Path: "/", Type: "ext4", Source: "/dev/vda"},
		{ID: 30, Parent: 22, Device: "0:25", Root: "/a b", Path: `/mnt/c\d`, Type: "tmpfs", Source: "none"},
	}
	if diff := cmp.Diff(want, ParseMountPoints([]byte(text))); diff != "" {
		t.Error(diff)
	}
	here, err := At("").MountPoints()
	if err != nil || len(here) == 0 {
		t.Errorf("%d mount points: %v", len(here), err)
	}
}

// Below a host root the mounts are those of the host's first process, not of the reader.
func TestMountsOfHostRoot(t *testing.T) {
	dir := t.TempDir()
	for name, line := range map[string]string{
		"self": "agent /agent tmpfs rw 0 0\n", "1": "host /host ext4 rw 0 0\n",
	} {
		write(t, filepath.Join(dir, "proc", name, "mounts"), line)
	}
	got, err := At(dir).Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Mount{{"host", "/host", "ext4", "rw"}}, got); diff != "" {
		t.Error(diff)
	}
}

// Every mount point that the kernel lists exists here, unescaped, unless it is shadowed.
func TestMountsHere(t *testing.T) {
	mounts, err := At("").Mounts()
	if err != nil {
		t.Fatal(err)
	}
	var root bool
	for _, m := range mounts {
		if m.Path == "/" {
			root = true
		}
		if m.Type == "" || !strings.HasPrefix(m.Path, "/") {
			t.Errorf("odd mount %+v", m)
		}
	}
	if !root {
		t.Errorf("no mount at / among %+v", mounts)
	}
}

func TestReadAtMost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "12345")
	if b, err := readAtMost(path, 5); err != nil || string(b) != "12345" {
		t.Errorf("readAtMost 5 = %q, %v", b, err)
	}
	if b, err := readAtMost(path, 4); err == nil {
		t.Errorf("readAtMost 4 = %q, want an error, not a part", b)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte("a b c d 0 0\n\\040 \\\\ \\0 \\777 x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range ParseMounts(b) {
			if n := len(m.Device) + len(m.Path) + len(m.Type) + len(m.Options); n > len(b) {
				t.Errorf("%d bytes of mount from %d bytes", n, len(b))
			}
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Reopen must reach the file itself, not what took its name.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "old")
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, "new")
	n, err := Reopen(fd, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(n)
	buf := make([]byte, 8)
	if k, err := unix.Read(n, buf); err != nil || string(buf[:k]) != "old" {
		t.Errorf("read %q, %v; want %q", buf[:k], err, "old")
	}
}

func TestUpper(t *testing.T) {
	for options, want := range map[string]string{
		"rw,lowerdir=/l1:/l2,upperdir=/var/lib/docker/overlay2/x/diff,workdir=/w": "/var/lib/docker/overlay2/x/diff",
		`rw,lowerdir=/a\,upperdir=/no,upperdir=/b\,c\040d/`:                       "/b,c d",
		"ro,lowerdir=/a:/b": "", "rw,upperdir=relative": "", "rw,upperdir=": "", "": "", `upperdir=/x\`: `/x\`,
	} {
		line := "36 35 0:40 / /merged rw - overlay overlay " + options
		m := ParseMountPoints([]byte(line))
		if options == "" {
			m = append(m, MountPoint{})
		}
		if len(m) == 0 || m[0].Upper != want {
			t.Errorf("%s: %+v, want %q", options, m, want)
		}
	}
}
