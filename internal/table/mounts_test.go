package table

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestSizesDoNotWaitForEver(t *testing.T) {
	var s sizes
	release := make(chan struct{})
	asked := 0
	stuck := func() (unix.Statfs_t, error) { asked++; <-release; return unix.Statfs_t{Blocks: 7}, nil }
	start := time.Now()
	if _, err := s.of("/nfs", stuck); err != errNoAnswer {
		t.Errorf("err = %v, want %v", err, errNoAnswer)
	}
	if d := time.Since(start); d < statfsPatience || d > 10*statfsPatience {
		t.Errorf("gave up after %v", d)
	}
	start = time.Now()
	if _, err := s.of("/nfs", stuck); err != errNoAnswer || time.Since(start) > statfsPatience/2 {
		t.Errorf("asked again: %v after %v", err, time.Since(start))
	}
	if st, err := s.of("/other", func() (unix.Statfs_t, error) { return unix.Statfs_t{Blocks: 9}, nil }); err != nil || st.Blocks != 9 {
		t.Errorf("another path: %d blocks, %v", st.Blocks, err)
	}
	close(release)
	for range 100 {
		st, err := s.of("/nfs", stuck)
		if err == nil {
			if st.Blocks != 7 || asked != 2 {
				t.Errorf("%d blocks after asking %d times, want 7 after 2", st.Blocks, asked)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a server that came back is never asked again")
}

// stat(1) agrees about the sizes of the root file system and of one in memory.
func TestMountsHere(t *testing.T) {
	r := mountsTable(here())
	for _, path := range []string{"/", "/dev/shm"} {
		out, err := exec.Command("stat", "-f", "-c", "%s %b %c", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(string(out))
		got := cells(r, scan(t, r, where(r, "path", path)), "blocks_size", "blocks", "inodes")
		if len(got) == 0 {
			t.Errorf("%s is not mounted", path)
			continue
		}
		// The last of several mounts on one path is the one that shows.
		if diff := cmp.Diff(want, got[len(got)-1]); diff != "" {
			t.Errorf("%s (-stat +ours): %s", path, diff)
		}
	}
	out, err := exec.Command("findmnt", "-n", "-l", "-o", "TARGET").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range cells(r, scan(t, r, whereAll()), "path") {
		got = append(got, row[0])
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		want = append(want, strings.TrimSpace(line))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-findmnt +ours): %s", diff)
	}
}

func TestMountsOfHostRoot(t *testing.T) {
	dir := tree(t, map[string]string{
		"proc/1/mounts": "/dev/mapper/vg-root / ext4 rw 0 0\n" +
			"/dev/root /boot ext4 ro 0 0\n" +
			"/dev/loop /a\\040b squashfs ro 0 0\n" +
			"systemd-1 /auto autofs rw 0 0\n",
		"dev/mapper/vg-root": "-> ../dm-0",
		"dev/dm-0":           "",
		"dev/loop":           "-> /dev/loop",
		"auto/":              "",
	})
	r := mountsTable(at(dir))
	got := cells(r, scan(t, r, whereAll()), "device", "device_alias", "path", "type", "flags", "inodes_free")
	if len(got) == 0 || got[0][5] == "NULL" {
		t.Fatalf("the root has no sizes: %q", got)
	}
	got[0][5] = "known"
	want := [][]string{
		{"/dev/mapper/vg-root", "/dev/dm-0", "/", "ext4", "rw", "known"},
		{"/dev/root", "/dev/root", "/boot", "ext4", "ro", "NULL"}, // no such directory
		{"/dev/loop", "/dev/loop", "/a b", "squashfs", "ro", "NULL"},
		{"systemd-1", "systemd-1", "/auto", "autofs", "rw", "NULL"}, // asking would mount
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
