package sensor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// fileRecordOf is a record of kind file as the kernel side writes it: paths from the leaf to the
// root, each name with its NUL.
func fileRecordOf(r bpf.GoshawkRecFile, path, other, text string) []byte {
	flags := r.Head.Flags
	r.Head = head(event.KindFile)
	r.Head.Flags = flags
	b := raw(r)
	p, o, x := with(&b, path), with(&b, other), with(&b, text)
	rec := as[bpf.GoshawkRecFile](b)
	rec.Path, rec.Other, rec.Text = p, o, x
	rec.Head.Size = uint32(len(b))
	return b
}

// Records become events by the pattern that selects their path, in whichever mount it is seen.
func TestFileRecord(t *testing.T) {
	const f, d = "f\x00d\x00/\x00", "g\x00d\x00/\x00"
	in := bpf.GoshawkRecInode{Inode: 5, Dev: 8<<20 | 1, Mode: unix.S_IFREG | 0o644, Nlink: 1, Uid: 7, Gid: 8, Size: 9}
	gone, tmp := in, in
	gone.Nlink, tmp.Inode = 0, 5
	for _, tt := range []struct {
		name string
		recs [][]byte
		want []string
	}{
		{"create", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 1, Inode: in}, f, "", "")}, []string{"create /srv/d/f"}},
		{"excluded", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 1, Inode: in}, "f\x00x\x00/\x00", "", "")}, nil},
		{"another device", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 1, Inode: bpf.GoshawkRecInode{Inode: 5, Dev: 9}}, f, "", "")}, nil},
		{"open, not asked for", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 2, Inode: in}, f, "", "")}, nil},
		{"written and closed", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 3, File: 1, Inode: in}, f, "", ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 4, File: 1, Inode: in}, f, "", "")}, []string{"write /srv/d/f"}},
		{"written, not closed", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 3, File: 1, Inode: in}, f, "", "")}, []string{"write /srv/d/f"}},
		{"written, renamed, not closed", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 3, File: 1, Inode: in}, f, "", ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 6, Inode: in}, f, d, "")}, []string{"rename /srv/d/f /srv/d/g", "write /srv/d/g"}},
		{"written, deleted, closed", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 3, File: 1, Inode: in}, f, "", ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 5, Inode: gone}, f, "", ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 4, File: 1, Inode: gone}, f, "", "")}, []string{"delete /srv/d/f"}},
		{"moved out", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 6, Inode: in}, f, "f\x00x\x00/\x00", "")}, []string{"rename /srv/d/f /srv/x/f"}},
		{"exchanged", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Head: bpf.GoshawkRecHead{Flags: uint32(bpf.GoshawkFlagFLAG_EXCHANGE)}, Op: 6, Inode: in}, f, d, "")},
			[]string{"rename /srv/d/f /srv/d/g", "rename /srv/d/g /srv/d/f"}},
		{"without a name at first", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 3, File: 1, Inode: gone}, "#5\x00d\x00/\x00", "", ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 7, Inode: tmp}, "#5\x00d\x00/\x00", d, ""),
			fileRecordOf(bpf.GoshawkRecFile{Op: 4, File: 1, Inode: tmp}, "#5\x00d\x00/\x00", "", "")}, []string{"create /srv/d/g", "write /srv/d/g"}},
		{"symlink", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 8, Inode: in}, f, "", "../to")}, []string{"symlink ../to /srv/d/f"}},
		{"chmod and chown", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 9, Valid: attrMode | attrGID, Inode: in}, f, "", "")},
			[]string{"chmod /srv/d/f = 0644", "chown /srv/d/f = -1:8"}},
		{"chown that takes setuid away", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 9, Valid: attrUID | attrKill, OldMode: unix.S_IFREG | 0o4644, Inode: in}, f, "", "")},
			[]string{"chmod /srv/d/f = 0644", "chown /srv/d/f = 7:-1"}},
		{"no attribute", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 9, OldMode: in.Mode, Inode: in}, f, "", "")}, nil},
		{"xattr", [][]byte{fileRecordOf(bpf.GoshawkRecFile{Op: 10, Inode: in}, f, "", "user.a")}, []string{"setxattr /srv/d/f = user.a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dr := newDrain(t)
			for _, b := range tt.recs {
				if err := dr.record(b); err != nil {
					t.Fatal(err)
				}
			}
			dr.s.watched.last = true
			if err := dr.s.watched.settle(0, dr); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range dr.batch.Events {
				f := e.(*event.File)
				line := strings.TrimSpace(f.Operation + " " + f.TargetPath + " " + f.DestinationPath)
				if f.Argument != "" && f.Operation != "truncate" {
					line += " = " + f.Argument
				}
				got = append(got, line)
				if f.Category != "c" || f.Kind != event.KindFile || f.PID != 100 || f.Comm != "worker" || f.Result != "ok" || f.BootID != "b" {
					t.Errorf("%s: %+v", line, f)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n := dr.s.decode.count[event.KindFile].malformed.Load(); n > 0 {
				t.Errorf("%d records are malformed", n)
			}
		})
	}
}

// The kernel is told of the directories that patterns begin with, and of those on the way there.
func TestPlan(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	points, err := procfs.At("").MountPoints()
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string, patterns ...string) uint32 {
		var o selection.Options
		for _, p := range patterns {
			o.Watch = append(o.Watch, selection.Rule{Category: "c", Pattern: filepath.Join(dir, p)})
		}
		set, problems := selection.Compile(o)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		_, want := plan(set, points)
		in := inode(t, filepath.Join(dir, name))
		for key, v := range want {
			if key.Inode == in {
				return v
			}
		}
		return 0
	}
	for _, tt := range []struct {
		name     string
		patterns []string
		want     uint32
	}{
		{"a/b", []string{"a/b/%%"}, rootAll},
		{"a", []string{"a/b/%%"}, rootPivot},
		{".", []string{"a/b/%%"}, rootPivot},
		{"a", []string{"a/file"}, rootPivot | 1},
		{"a", []string{"a/none"}, rootPivot | 1},
		{"a", []string{"a/none/%%"}, rootPivot},
		{"a", []string{"a/%"}, 2},
		{"a", []string{"a/%", "a/%/x/y", "a/b/c/%%"}, rootPivot | 4},
		{"a/b", []string{"a/file"}, 0},
	} {
		if got := value(tt.name, tt.patterns...); got != tt.want {
			t.Errorf("%s for %q: %#x, want %#x", tt.name, tt.patterns, got, tt.want)
		}
	}
}
