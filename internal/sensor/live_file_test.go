package sensor

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// fileWays are the ways to change a file that testdata/files.h knows, with what is told of
// each: operation, target and destination. Where a tier tells otherwise, its line follows;
// docs/file-integrity.md says why.
var fileWays = []struct {
	way  string
	want []string
	tier map[string][]string
}{
	{way: "create", want: []string{"create new"}},
	{way: "creat", want: []string{"create new", "write new"}},
	{way: "openat2", want: []string{"create new", "write new"}},
	{way: "mkdir", want: []string{"create new"}},
	{way: "rmdir", want: []string{"delete d"}},
	{way: "mkfifo", want: []string{"create new"}},
	{way: "symlink", want: []string{"symlink f new"}},
	{way: "link", want: []string{"link f new"}, tier: map[string][]string{"fanotify": {"link - new"}}},
	{way: "link_in", want: []string{"link OUT/f new"}, tier: map[string][]string{"fanotify": {"link - new"}}},
	{way: "tmpfile", want: []string{"create new", "write new"}},
	{way: "rename", want: []string{"rename f d/g"}},
	{way: "rename_dir", want: []string{"rename d e"}},
	{way: "rename_out", want: []string{"rename f OUT/g"}},
	{way: "rename_in", want: []string{"rename OUT/f new"}},
	{way: "rename_over", want: []string{"rename OUT/f f"}},
	{way: "exchange", want: []string{"rename f d", "rename d f"}},
	{way: "unlink", want: []string{"delete f"}},
	{way: "truncate", want: []string{"truncate f"}},
	{way: "ftruncate", want: []string{"truncate f", "write f"}, tier: map[string][]string{"fanotify": {"write f"}}},
	{way: "open_trunc", want: []string{"truncate f", "write f"}, tier: map[string][]string{"fanotify": {"write f"}}},
	{way: "chmod", want: []string{"chmod f"}},
	{way: "fchmod", want: []string{"chmod f"}},
	{way: "chmod_dir", want: []string{"chmod d"}},
	{way: "chown", want: []string{"chown f"}},
	{way: "lchown", want: []string{"chown f"}},
	{way: "setxattr", want: []string{"setxattr f"}},
	{way: "removexattr", want: []string{"setxattr f", "removexattr f"}, tier: map[string][]string{"fanotify": {"setxattr f"}}},
	{way: "utimes", want: []string{"utimes f"}},
	{way: "write", want: []string{"write f"}},
	{way: "append", want: []string{"write f"}},
	{way: "pwritev", want: []string{"write f"}},
	{way: "direct", want: []string{"write f"}},
	{way: "mmap", want: []string{"mmap f", "write f"}, tier: map[string][]string{"fanotify": {"write f"}}},
	{way: "sendfile", want: []string{"write f"}},
	{way: "splice", want: []string{"write f"}},
	{way: "copy_file_range", want: []string{"write f"}},
	{way: "fallocate", want: []string{"write f"}},
	{way: "ring_write", want: []string{"write f"}},
	{way: "ring_openat", want: []string{"create new", "write new"}},
	{way: "ring_unlink", want: []string{"delete f"}},
	{way: "ring_rename", want: []string{"rename f new"}},
	{way: "handle", want: []string{"write f"}},
	{way: "bind_mount", want: []string{"write f"}},
	{way: "detached_mount", want: []string{"write f"}},
	{way: "read"},
	{way: "open_only"},
	{way: "fail"},
}

// notThere is the helper's exit status where the kernel has no such way.
const notThere = 77

// selected are the files that rules name.
func selected(t *testing.T, rules ...selection.Rule) *selection.Set {
	t.Helper()
	set, problems := selection.Compile(selection.Options{Watch: rules})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return set
}

// watchFiles watches those of a set, which are below base.
func watchFiles(t *testing.T, base string, set *selection.Set) *live {
	t.Helper()
	l := watch(t, Options{Kinds: []event.ID{event.KindFile}, Files: set})
	if strings.Contains(l.s.Blind(), "identity") {
		t.Skipf("this kernel cannot mark the file system of %s: %s", base, l.s.Blind())
	}
	return l
}

func TestLiveFile(t *testing.T) {
	base := t.TempDir()
	set := selected(t, selection.Rule{Category: "test", Pattern: base + "/%%"})
	eachTier(t, Options{Kinds: []event.ID{event.KindFile}, Files: set}, func(t *testing.T, l *live) { tryFiles(t, l, base) })
}

func tryFiles(t *testing.T, l *live, base string) {
	out := t.TempDir()
	base = filepath.Join(base, l.tiers[FileHook])
	for _, w := range fileWays {
		for _, dir := range []string{filepath.Join(base, w.way), filepath.Join(out, w.way)} {
			if err := os.MkdirAll(filepath.Join(dir, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte("old old\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	tier := l.tiers[FileHook]
	// How files are is looked at when they are watched.
	if err := l.s.Watch(l.s.options.Files); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); l.s.files != nil && l.s.files.Scanning(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the files have not been looked at")
		}
	}

	if blind := l.s.Blind(); strings.Contains(blind, "identity") || strings.Contains(blind, "handles") {
		t.Skipf("this kernel cannot mark the file system of %s: %s", base, blind) // tmpfs before 5.13
	}

	pids := map[uint32]string{}
	missing := map[string]bool{}
	run := func(way, dir string) uint32 {
		cmd := exec.Command(helper, "file", way, dir, filepath.Join(out, way))
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() == notThere {
			t.Logf("%s: not on this kernel or file system", way)
			missing[way] = true
		} else if err != nil {
			t.Errorf("%s: %v: %s", way, err, text)
		}
		return uint32(cmd.Process.Pid)
	}
	for _, w := range fileWays {
		pids[run(w.way, filepath.Join(base, w.way))] = w.way
	}
	last := filepath.Join(base, "last")
	if err := os.Mkdir(last, 0o755); err != nil {
		t.Fatal(err)
	}
	run("create", last)
	l.wait(t, 1, "the last file", func(e event.Event) bool {
		f, ok := e.(*event.File)
		return ok && f.TargetPath == filepath.Join(last, "new")
	})
	l.stop() // what waits for a file to be closed is told at the end

	got := map[string][]string{}
	short := func(name, way string) string {
		name = strings.Replace(name, filepath.Join(out, way), "OUT", 1)
		return strings.TrimPrefix(strings.TrimPrefix(name, filepath.Join(base, way)), "/")
	}
	for _, e := range l.snapshot(func(e event.Event) bool { return e.Head().Kind == event.KindFile }) {
		f := e.(*event.File)
		way, ok := pids[f.PID]
		if !ok {
			if f.Head().PID != 0 && !strings.HasPrefix(f.TargetPath, last) {
				t.Errorf("%s %s by pid %d, which is none of ours", f.Operation, f.TargetPath, f.PID)
			}
			continue
		}
		words := []string{f.Operation, short(f.TargetPath, way)}
		if words[1] == "" {
			words[1] = "-"
		}
		if f.DestinationPath != "" {
			words = append(words, short(f.DestinationPath, way))
		}
		got[way] = append(got[way], strings.Join(words, " "))
		if f.Category != "test" || f.Result != "ok" {
			t.Errorf("%s: category %q, result %q", way, f.Category, f.Result)
		}
	}
	for _, w := range fileWays {
		want := w.want
		if at, ok := w.tier[tier]; ok {
			want = at
		}
		if missing[w.way] {
			continue
		}
		if tier == "fanotify" && w.way == "removexattr" { // two changes, told as one if they were within 10 ms
			got[w.way] = slices.Compact(got[w.way])
		}
		if diff := cmp.Diff(want, got[w.way]); diff != "" {
			t.Errorf("%s (tier %s): (-want +got)\n%s", w.way, tier, diff)
		}
	}
	balanced(t, l)
}

// What is watched may not be there yet, may be replaced by another of its name, and may be moved
// there with all that is in it: nothing of what is done in it is missed, however fast.
func TestLiveFileLater(t *testing.T) {
	base := t.TempDir()
	set := selected(t, selection.Rule{Category: "deep", Pattern: base + "/a/b/c/%%"}, selection.Rule{Category: "one", Pattern: base + "/conf/app.conf"},
		selection.Rule{Category: "right", Pattern: base + "/flat/%"})
	l := watchFiles(t, base, set)
	script := "cd " + base + ` && mkdir -p a/b/c/d && : > a/b/c/d/made && : > a/b/not
mv a old && mkdir -p new/b/c && : > new/b/c/unseen && mv new a && : > a/b/c/moved && : > old/b/c/gone
mkdir conf && : > conf/app.conf && : > conf/other && mkdir flat other && : > flat/in && mkdir flat/sub && : > flat/sub/deep && : > other/x
: > last; mkdir -p a/b/c/last`
	if out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.wait(t, 1, "the last directory", func(e event.Event) bool {
		f, ok := e.(*event.File)
		return ok && strings.HasSuffix(f.TargetPath, "/c/last")
	})
	l.stop()
	var got []string
	for _, e := range l.snapshot(func(e event.Event) bool { return e.Head().Kind == event.KindFile }) {
		f := e.(*event.File)
		got = append(got, f.Operation+" "+strings.TrimPrefix(f.TargetPath, base+"/"))
	}
	want := []string{"create a/b/c/d", "create a/b/c/d/made", "create a/b/c/moved", "create conf/app.conf", "create flat/in", "create flat/sub", "create a/b/c/last"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tier %s: (-want +got)\n%s", l.tiers[FileHook], diff)
	}
	balanced(t, l)
}

// A file that was open before anybody watched it is written to.
func TestLiveFileOpenBefore(t *testing.T) {
	base := t.TempDir()
	name := filepath.Join(base, "f")
	set := selected(t, selection.Rule{Category: "test", Pattern: base + "/%%"})
	cmd := exec.Command("/bin/sh", "-c", "exec 3>>"+name+"; echo open; read x; echo x >&3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	l := watchFiles(t, base, set)
	if _, err := in.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	l.wait(t, 1, "what was written", func(e event.Event) bool {
		f, ok := e.(*event.File)
		return ok && f.Operation == "write" && f.TargetPath == name && f.PID == uint32(cmd.Process.Pid)
	})
	l.stop()
	balanced(t, l)
}

// A tree is made, copied, moved, changed and partly removed, by several processes at once, and in a
// guest a Debian package unpacked: what the events say is there is what is there, with the size that it has.
func TestLiveFileTree(t *testing.T) {
	base := t.TempDir()
	set := selected(t, selection.Rule{Category: "tree", Pattern: base + "/%%"})
	l := watchFiles(t, base, set)
	script := "cd " + base + ` && for w in 1 2 3; do (
mkdir $w && cd $w && for d in a b c d e; do mkdir $d; for f in 1 2 3 4 5 6 7 8 9; do echo $d$f >$d/$f; ln -s $f $d/l$f; done; done
cp -r a copy && mv b copy/moved && rm -r c && echo more >>d/1 && cp d/2 d/3 && mv d/4 d/5 && ln d/6 d/hard && : >d/7 && mv copy again
) & done; wait
[ -z "$GOSHAWK_TEST_PACKAGE" ] || { mkdir unpacked && tar xf "$GOSHAWK_TEST_PACKAGE" -C unpacked && rm -r unpacked/usr/share/doc; }
: >last`
	if out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.wait(t, 1, "the last file", func(e event.Event) bool {
		f, ok := e.(*event.File)
		return ok && f.TargetPath == filepath.Join(base, "last")
	})
	l.stop()
	told, written := map[string]bool{}, map[string]uint64{}
	n := 0
	for _, e := range l.snapshot(func(e event.Event) bool { return e.Head().Kind == event.KindFile }) {
		f := e.(*event.File)
		n++
		switch f.Operation {
		case "create":
			told[f.TargetPath] = true
		case "symlink", "link":
			told[f.DestinationPath] = true
			written[f.DestinationPath] = f.Size
		case "write", "truncate":
			if written[f.TargetPath] = f.Size; !told[f.TargetPath] {
				t.Errorf("%s is written to, and not there", f.TargetPath)
			}
		case "delete":
			if !told[f.TargetPath] {
				t.Errorf("%s is deleted, and not there", f.TargetPath)
			}
			delete(told, f.TargetPath)
			delete(written, f.TargetPath)
		case "rename":
			for name := range told {
				if selection.Within(name, f.TargetPath) {
					to := f.DestinationPath + name[len(f.TargetPath):]
					told[to], written[to] = true, written[name]
					delete(told, name)
					delete(written, name)
				}
			}
		}
	}
	err := filepath.WalkDir(base, func(name string, d os.DirEntry, err error) error {
		if err != nil || name == base {
			return err
		}
		if !told[name] {
			t.Errorf("missing: %s", name)
		}
		delete(told, name)
		if info, err := d.Info(); err == nil && d.Type().IsRegular() && written[name] != uint64(info.Size()) {
			t.Errorf("%s has %d bytes, its last write says %d", name, info.Size(), written[name])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range told {
		t.Errorf("invented: %s", name)
	}
	t.Logf("%d events at tier %s", n, l.tiers[FileHook])
	balanced(t, l)
}
