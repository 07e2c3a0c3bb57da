package fanotify

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// patience is how long a test waits for what must come. The machine may be busy.
const patience = 30 * time.Second

// start opens a reader of what is below dir.
func start(t *testing.T, dir string) *Reader {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: marks file systems")
	}
	r, err := Open(procfs.At(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.Watch(below(t, dir)); err != nil {
		t.Fatal(err)
	}
	scanned(r)
	return r
}

func below(t *testing.T, dir string) *selection.Set {
	t.Helper()
	set, problems := selection.Compile(selection.Options{Watch: []selection.Rule{{Category: "test", Pattern: dir + "/%%"}}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return set
}

func scanned(r *Reader) {
	for r.Scanning() {
		r.Scan(1e9)
	}
}

// do has a shell do something, since what we do ourselves is not told.
func do(t *testing.T, format string, args ...any) {
	t.Helper()
	if out, err := exec.Command("/bin/sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// told reads what has come so far, until last is among it.
func told(t *testing.T, r *Reader, dir, last string) []string {
	t.Helper()
	var got []string
	short := func(name string) string { return strings.TrimPrefix(name, dir+"/") }
	for end := time.Now().Add(patience); !slices.Contains(got, last); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q did not come: %q", last, got)
		}
		if _, err := r.Read(uint64(time.Now().UnixNano()), func(c *Change) {
			text := c.Operation + " " + short(c.Path)
			if c.Destination != "" {
				text += " " + short(c.Destination)
			}
			got = append(got, text)
		}); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// balance checks that all that was told is accounted for.
func balance(t *testing.T, r *Reader) Counts {
	t.Helper()
	c := r.Counts()
	sum := c.Events
	for _, n := range c.Filtered {
		sum += n
	}
	for _, n := range c.Lost {
		sum += n
	}
	if sum != c.Told {
		t.Errorf("%d told, %d accounted for: %+v", c.Told, sum, c)
	}
	return c
}

// A tree that is moved in, of which no directory was heard of before, and one whose directories are renamed, are told of under the names
// that they have by then, also when they are gone before anybody looks.
func TestLiveTrees(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	do(t, "mkdir -p %s/tree/a/b && echo x > %s/tree/a/b/f", out, out)
	r := start(t, dir)
	do(t, "mv %s/tree %s/in && echo y >> %s/in/a/b/f && mv %s/in/a %s/in/c && echo z >> %s/in/c/b/g && echo end > %s/end", out, dir, dir, dir, dir, dir, dir)
	got := told(t, r, dir, "write end")
	check(t, "a tree moved in", got, []string{"rename " + out + "/tree in", "write in/c/b/f", "rename in/a in/c", "create in/c/b/g", "write in/c/b/g", "create end", "write end"})
	scanned(r)
	do(t, "mkdir -p %[1]s/n/m && echo x > %[1]s/n/m/f && rm -r %[1]s/n %[1]s/in && echo > %[1]s/last", dir)
	got = told(t, r, dir, "write last")
	want := []string{"create n", "create n/m", "create n/m/f", "write n/m/f", "delete n/m/f", "delete n/m", "delete n",
		"delete in/c/b/f", "delete in/c/b/g", "delete in/c/b", "delete in/c", "delete in", "create last", "write last"}
	slices.Sort(got) // rm goes through a directory in an order of its own
	slices.Sort(want)
	check(t, "a tree made and removed", got, want)
	balance(t, r)
}

// What is mounted in a watched directory is watched once that is known, and under all the
// names that it has.
func TestLiveMounted(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	for _, d := range []string{"mnt", "bind"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, dir)
	marked := r.Counts().Marked
	mount := func(source, target, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		fds := []unix.PollFd{{Fd: int32(r.Mounts()), Events: unix.POLLPRI}}
		if n, err := unix.Poll(fds, int(patience/time.Millisecond)); n != 1 || err != nil {
			t.Fatalf("a new mount is not told: %d, %v", n, err)
		}
		if err := r.Remount(); err != nil {
			t.Fatal(err)
		}
		scanned(r)
	}
	mount("none", filepath.Join(dir, "mnt"), "tmpfs", 0)
	if got := r.Counts().Marked; got != marked+1 {
		t.Errorf("%d file systems are marked, %d were before", got, marked)
	}
	mount(out, filepath.Join(dir, "bind"), "", unix.MS_BIND)
	do(t, "mkdir %[1]s/mnt/d && echo x > %[1]s/mnt/d/f && echo y > %[2]s/g && echo > %[1]s/last", dir, out)
	check(t, "in mounts", told(t, r, dir, "write last"), []string{"create mnt/d", "create mnt/d/f", "write mnt/d/f", "create bind/g", "write bind/g", "create last", "write last"})
	balance(t, r)
}

// A file that is written to all the time and that nobody watches is left alone, until it is given
// a name that is watched.
func TestLiveQuiet(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	r := start(t, dir)
	if !r.joint {
		t.Skip("this kernel does not name the file in what it tells (5.17)")
	}
	write := exec.Command("/bin/sh", "-c", fmt.Sprintf("exec 3>>%s/log; while :; do echo x >&3; done", out))
	if err := write.Start(); err != nil {
		t.Fatal(err)
	}
	defer write.Wait()
	defer write.Process.Kill()
	for end := time.Now().Add(patience); len(r.noise.quiet) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is never left alone")
		}
		if _, err := r.Read(1, func(*Change) {}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // what was on its way
		if _, err := r.Read(1, func(*Change) {}); err != nil {
			t.Fatal(err)
		}
	}
	before := r.Counts().Told
	do(t, "i=0; while [ $i -lt 500 ]; do echo x >> %s/log; i=$((i+1)); done", out)
	if _, err := r.Read(1, func(*Change) {}); err != nil {
		t.Fatal(err)
	}
	// Its closing is told each time; each writing would be as often again.
	if n := r.Counts().Told - before; n > 900 {
		t.Errorf("%d events", n)
	}
	do(t, "mv %s/log %s/in && echo > %s/last", out, dir, dir)
	told(t, r, dir, "write last")
	do(t, "echo y >> %[1]s/in; echo >> %[1]s/last", dir)
	for end, seen := time.Now().Add(patience), false; !seen; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what is written to it is not told again")
		}
		if _, err := r.Read(1, func(c *Change) { seen = seen || c.Operation == "write" && c.Path == dir+"/in" }); err != nil {
			t.Fatal(err)
		}
	}
}

// Before Linux 5.17 a rename is two events, and none names the file itself.
func TestLiveBefore517(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("needs root: marks file systems")
	}
	r, err := open(procfs.At(""), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Watch(below(t, dir)); err != nil {
		t.Fatal(err)
	}
	scanned(r)
	do(t, "cd %[1]s && echo x > a && mkdir d && mv a d/b && echo y >> d/b && mv d/b %[2]s/c && mv %[2]s/c c && ln -s c l && echo > first", dir, out)
	got := told(t, r, dir, "write first")
	do(t, "cd %s && mv d e && echo > e/f && rm e/f && echo > last", dir)
	got = append(got, told(t, r, dir, "write last")...)
	check(t, "before 5.17", got, []string{"create a", "write a", "create d", "rename a d/b", "write d/b",
		"rename d/b", "rename  c", "symlink l l", "create first", "write first", "rename d e", "create e/f", "write e/f", "delete e/f", "create last", "write last"})
	balance(t, r)
}

// A queue that was full is counted as such.
func TestLiveOverflow(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	text, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	if err != nil {
		t.Skipf("this kernel does not say how many events it queues: %v", err)
	}
	var most int
	fmt.Sscan(string(text), &most)
	for i := range most + 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for more := true; more; {
		if more, err = r.Read(1, func(*Change) {}); err != nil {
			t.Fatal(err)
		}
	}
	if c := balance(t, r); c.Lost["queue_full"] == 0 {
		t.Errorf("nothing was lost of %d events: %+v", most, c)
	}
	do(t, "echo > %s/last", dir)
	check(t, "afterwards", told(t, r, dir, "write last"), []string{"create last", "write last"})
}

// What two selections have in common is told of without a gap while one takes the other's place.
func TestLiveReload(t *testing.T) {
	dir := t.TempDir()
	do(t, "mkdir %[1]s/a %[1]s/b", dir)
	r := start(t, dir+"/a")
	other, _ := selection.Compile(selection.Options{Watch: []selection.Rule{{Category: "other", Pattern: dir + "/a/%%"}, {Category: "other", Pattern: dir + "/b/%%"}}, Accesses: []string{"other"}})
	sets := []*selection.Set{other, below(t, dir+"/a")}
	done := make(chan error, 1)
	go func() {
		done <- exec.Command("/bin/sh", "-c", fmt.Sprintf("i=0; while [ $i -lt 3000 ]; do : > %s/a/f$i; i=$((i+1)); done", dir)).Run()
	}()
	created := 0
	count := func(c *Change) {
		if c.Operation == "create" && strings.HasPrefix(c.Path, dir+"/a/") {
			created++
		}
	}
	for i, ended := 0, false; !ended; i++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
		if err := r.Watch(sets[i%2]); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(1, count); err != nil {
			t.Fatal(err)
		}
	}
	for more, err := true, error(nil); more; {
		if more, err = r.Read(1, count); err != nil {
			t.Fatal(err)
		}
	}
	if created != 3000 {
		t.Errorf("%d of 3000 were told", created)
	}
	balance(t, r)
}

// What is done to files in an overlay is told under their names there, by way of the directory
// that is written to. A file of a lower layer is copied before it changes; deleted, it is hidden.
func TestLiveOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := t.TempDir()
	do(t, "cd %s && mkdir -p lower/etc upper work merged && echo x >lower/etc/passwd && echo y >lower/etc/gone", dir)
	merged := filepath.Join(dir, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Skipf("the kernel mounts no overlay over this file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	r := start(t, merged)
	if c := r.Counts(); len(c.Blind) > 0 {
		t.Errorf("not watched: %v", c.Blind)
	}
	do(t, "cd %s && echo z >>etc/passwd && echo n >new && mv new etc/new && rm etc/gone && mkdir d && echo f >d/f && rm d/f && mv etc/new end", merged)
	var got []string
	for _, text := range told(t, r, merged, "rename etc/new end") {
		if !strings.HasPrefix(text, "write ") { // from 6.6 on
			got = append(got, text)
		}
	}
	check(t, "operations", got, []string{"create etc", "create etc/passwd", "create new", "rename new etc/new", "delete etc/gone", "create d", "create d/f", "delete d/f", "rename etc/new end"})
	balance(t, r)
}
