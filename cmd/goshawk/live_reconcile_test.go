package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/selection"
)

// fileRow is what the tests read of a file event.
type fileRow struct {
	Kind, Operation string
	Target          string `json:"target_path"`
	Destination     string `json:"destination_path"`
	Size            int64
	Reason          string
	Count           int
}

// tree is what there is below a directory: of regular files their sizes, of others -1.
type tree map[string]int64

func scanTree(t *testing.T, dir string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		all[name] = -1
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			all[name] = info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// follow changes a tree as events say, which are in the order in which things happened, and
// reports what cannot be.
func (a tree) follow(t *testing.T, rows []fileRow) (events map[string]int) {
	t.Helper()
	events = map[string]int{}
	for _, r := range rows {
		if r.Kind == "loss" {
			t.Errorf("lost: %d, %s", r.Count, r.Reason)
			continue
		}
		events[r.Operation]++
		_, there := a[r.Target]
		switch r.Operation {
		case "create", "symlink", "link":
			name := r.Target
			if r.Destination != "" {
				name = r.Destination
			}
			if _, ok := a[name]; ok {
				t.Errorf("%s is made twice", name)
			}
			a[name] = r.Size
		case "write", "truncate":
			if !there {
				t.Errorf("%s is written and not there", r.Target)
			}
			a[r.Target] = r.Size
		case "delete":
			if !there {
				t.Errorf("%s is deleted and not there", r.Target)
			}
			delete(a, r.Target)
		case "rename":
			if !there {
				t.Errorf("%s is renamed and not there", r.Target)
			}
			for name, size := range a {
				if selection.Within(name, r.Target) {
					delete(a, name)
					a[r.Destination+strings.TrimPrefix(name, r.Target)] = size
				}
			}
		}
	}
	return events
}

// compare reports in what a tree as told is not as it is.
func (a tree) compare(t *testing.T, is tree) {
	t.Helper()
	for name, size := range is {
		told, ok := a[name]
		switch {
		case !ok:
			t.Errorf("missing: %s", name)
		case size >= 0 && told != size:
			t.Errorf("%s has %d bytes, its last event says %d", name, size, told)
		}
	}
	for name := range a {
		if _, ok := is[name]; !ok {
			t.Errorf("invented: %s", name)
		}
	}
}

// makePackages makes Debian packages of what is installed of those that every system has.
func makePackages(t *testing.T, dir string) []string {
	t.Helper()
	for _, tool := range []string{"dpkg-query", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not there: this is no Debian", tool)
		}
	}
	var all []string
	for _, name := range []string{"base-files", "bash", "coreutils", "dpkg", "apt", "libc-bin", "perl-base", "util-linux", "tzdata", "git"} {
		list, err := exec.Command("dpkg-query", "-L", name).Output()
		if err != nil {
			continue // not all of them are essential
		}
		var files strings.Builder
		seen := map[string]bool{}
		for line := range strings.Lines(string(list)) {
			// The list says /bin where /usr/bin is meant, and names what may have been left out.
			line = strings.TrimSuffix(line, "\n")
			parent, err := filepath.EvalSymlinks(filepath.Dir(line))
			if err != nil {
				continue
			}
			file := strings.TrimPrefix(filepath.Join(parent, filepath.Base(line)), "/")
			if info, err := os.Lstat("/" + file); err == nil && !seen[file] && (info.Mode().IsRegular() || info.IsDir() || info.Mode()&fs.ModeSymlink != 0) {
				seen[file] = true
				files.WriteString(file + "\n")
			}
		}
		stage, deb := filepath.Join(dir, name), filepath.Join(dir, name+".deb")
		if err := os.MkdirAll(filepath.Join(stage, "DEBIAN"), 0o755); err != nil {
			t.Fatal(err)
		}
		control := "Package: " + name + "\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: as it is installed here\n"
		if err := os.WriteFile(filepath.Join(stage, "DEBIAN", "control"), []byte(control), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", "tar cf - --no-recursion -C / -T - | tar xf - -C "+stage+" && dpkg-deb -Zgzip -z1 -b "+stage+" "+deb)
		cmd.Stdin = strings.NewReader(files.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make package %s: %v: %s", name, err, out)
		}
		all = append(all, deb)
	}
	return all
}

// Half of this repository is built in a watched directory, and Debian packages are unpacked there: what the
// events say of a tree that was scanned before makes it the tree that is there afterwards, name by
// name and size by size.
func TestLiveFilesReconcile(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	packages := makePackages(t, t.TempDir())
	shell := func(script string) {
		t.Helper()
		if out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	shell(fmt.Sprintf("cd %s && mkdir source cache tmp bin root && tar cf - -C $OLDPWD/../.. --exclude=./.git --exclude=./bin . | tar xf - -C source", dir))
	told := scanTree(t, dir)
	// Digests come later than the rest, and this test follows the order of what happened.
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "file", "--watch", dir+"/%%", "--hash", "none", "--ring-size", "8388608")

	// ./... would take three times as long, and has been told of as well.
	build := exec.Command("go", "build", "-o", at("bin")+"/", "./internal/sensor", "./internal/audit", "./internal/rule", "./cmd/btf", "./bench")
	build.Dir = at("source")
	build.Env = append(os.Environ(), "GOCACHE="+at("cache"), "GOTMPDIR="+at("tmp"), "GOPROXY=off", "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, deb := range packages {
		shell("dpkg-deb --fsys-tarfile " + deb + " | tar xf - -C " + at("root"))
	}
	shell("cd " + dir + " && rm -r source/docs cache/0* && mv source/internal source/moved && mv root/usr/bin/* bin/ && ln -s moved source/internal && : >last")
	l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM filesystem_events WHERE target_path = '%s' AND operation = 'create'", at("last")), "n\n1\n")
	if code, said := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
	events := told.follow(t, printed[fileRow](t, l.out))
	is := scanTree(t, dir)
	told.compare(t, is)
	n := 0
	for _, of := range events {
		n += of
	}
	if n < 15_000 {
		t.Errorf("%d events are too few to prove something", n)
	}
	t.Logf("%d packages, %d files at the end, %d events: %v", len(packages), len(is), n, events)
}

// A hundred thousand watched files beside a million in a tree that is left out: nothing is scanned for
// either before the agent is ready, and its memory does not grow with them.
func TestLiveManyFiles(t *testing.T) {
	needRoot(t)
	const watched, excluded, each, most = 100_000, 1_000_000, 1_000, 2.0
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2g,nr_inodes=0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	fill := func(top string, n int, link string) {
		t.Helper()
		for i := range n {
			name := fmt.Sprintf("%s/%s/%d/%d", dir, top, i/each, i%each)
			if i%each == 0 {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if link != "" {
				err = unix.Link(link, name) // a name as any other, and no inode of its own
			} else {
				err = os.WriteFile(name, nil, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("watched", watched, "")
	one := filepath.Join(dir, "one")
	if err := os.WriteFile(one, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fill("out", excluded, one)

	var l *live
	took := 1e9
	for range 3 { // of a busy machine the best counts
		if l != nil {
			l.stop(syscall.SIGINT)
		}
		l = startRun(t, t.TempDir(), "--format", "json", "--kinds", "file", "--watch", dir+"/%%", "--exclude", dir+"/out/%%")
		if took = min(took, time.Since(l.begun).Seconds()); took < most {
			break
		}
	}
	if took >= most {
		t.Errorf("ready after %.2f s, want less than %v", took, most)
	}
	if out, err := exec.Command("/bin/sh", "-ec", fmt.Sprintf("cd %s && echo x >>out/999/5 && echo x >>watched/50/5 && rm watched/99/999", dir)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.eventually("SELECT DISTINCT operation || replace(target_path, '"+dir+"', ' ') AS what FROM filesystem_events ORDER BY what",
		"what\ndelete /watched/99/999\nwrite /watched/50/5\n")
	mb := peak(t, l.cmd.Process.Pid) >> 20
	if mb > 100 {
		t.Errorf("%d MB of memory at most, want 100 or less", mb)
	}
	t.Logf("ready after %.2f s, %d MB", took, mb)
}
