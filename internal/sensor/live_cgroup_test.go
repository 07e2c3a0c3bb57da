package sensor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// cgroupsOf selects what is told of cgroups whose path holds name.
func cgroupsOf(name string) func(event.Event) bool {
	return func(e event.Event) bool {
		c, ok := e.(*event.Container)
		return ok && strings.Contains(c.CgroupPath, name)
	}
}

func TestLiveCgroup(t *testing.T) {
	eachTier(t, Options{Kinds: []event.ID{event.KindContainer, event.KindExec, event.KindExit}}, func(t *testing.T, l *live) {
		all, err := procfs.At("").Hierarchies()
		if err != nil {
			t.Fatal(err)
		}
		v1, _ := procfs.At("").ContainerHierarchy()
		for _, h := range all {
			if h.Mount == "" || h.ID != 0 && h.ID != v1.ID {
				continue
			}
			t.Run(fmt.Sprintf("hierarchy %d", h.ID), func(t *testing.T) { cgroupLife(t, l, h) })
		}
	})
}

// cgroupLife makes a cgroup, runs a program in it and in a pid namespace of its own, and
// removes it.
func cgroupLife(t *testing.T, l *live, h procfs.Hierarchy) {
	name := fmt.Sprintf("goshawk \t\xff%d", time.Now().UnixNano()) // a newline is refused (cgroup_mkdir)
	dir := filepath.Join(h.Mount, name, "inner")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	id := inode(t, dir)
	c := exec.Command(helper, "argv0", "sh", helper, "exit", "3")
	procs := filepath.Join(dir, "cgroup.procs")
	if h.ID == 0 {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(f.Fd())}
		_ = c.Run()
	} else {
		onThread(t, func() { // a v1 cgroup takes single threads
			if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte(fmt.Sprint(unix.Gettid())), 0); err != nil {
				t.Error(err)
			}
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
			_ = c.Run()
		})
	}
	if code := c.ProcessState.ExitCode(); code != 3 {
		t.Fatalf("%v ended with %d", c.Args, code)
	}
	for range 100 {
		if b, err := os.ReadFile(procs); err != nil || len(b) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Remove(d); err != nil {
			t.Fatal(err)
		}
	}
	pid := c.Process.Pid
	for i, e := range []*event.Exec{l.nth(t, pid, 1), l.nth(t, pid, 2)} {
		got, other := e.CgroupID, e.CgroupV1
		if h.ID != 0 {
			got, other = other, got
		}
		if got != id || other == id && other != 0 {
			t.Errorf("exec %d: cgroup %d (v1 %d), want %d in hierarchy %d", i, e.CgroupID, e.CgroupV1, id, h.ID)
		}
		if e.ContainerPID != 1 || e.PIDNamespace == 0 || !e.Entered {
			t.Errorf("exec %d: pid %d in namespace %d, entered %v; want pid 1 in one of its own", i, e.ContainerPID, e.PIDNamespace, e.Entered)
		}
	}
	exit := l.wait(t, 1, "exit", of[*event.Exit](event.KindExit, pid))[0].(*event.Exit)
	if exit.ContainerPID != 1 {
		t.Errorf("exit of pid %d in its namespace, want 1", exit.ContainerPID)
	}
	var got []string
	for _, e := range l.wait(t, 4, "cgroups", cgroupsOf(name)) {
		c := e.(*event.Container)
		if int(c.Hierarchy) != h.ID {
			t.Errorf("%s: hierarchy %d, want %d", c.CgroupPath, c.Hierarchy, h.ID)
		}
		if inner := strings.HasSuffix(c.CgroupPath, "/inner"); inner != (c.Cgroup == id) {
			t.Errorf("%s: id %d, inner has %d", c.CgroupPath, c.Cgroup, id)
		}
		if c.PID != uint32(os.Getpid()) {
			t.Errorf("%s: done by %d, want this process", c.CgroupPath, c.PID)
		}
		got = append(got, c.Operation+" "+c.CgroupPath)
	}
	want := []string{"mkdir /" + name, "mkdir /" + name + "/inner", "rmdir /" + name + "/inner", "rmdir /" + name}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is written since an overlay was made is told from what was there, and what lies on
// another mount from both.
func TestLiveUpperLayer(t *testing.T) {
	needRoot(t)
	l := watch(t, Options{Kinds: []event.ID{event.KindExec}})
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "root"} {
		mkdir(t, filepath.Join(dir, d))
	}
	copyHelper(t, filepath.Join(dir, "lower/image"))
	copyHelper(t, filepath.Join(dir, "lower/changed"))
	root := filepath.Join(dir, "root")
	var refused error
	want := map[string]bool{"image": false, "added": true, "changed": true}
	ran := map[string]int{}
	onThread(t, func() {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
		if refused = unix.Mount("overlay", root, "overlay", 0, options); refused != nil {
			return
		}
		defer unix.Unmount(root, unix.MNT_DETACH)
		copyHelper(t, filepath.Join(root, "added"))
		f, err := os.OpenFile(filepath.Join(root, "changed"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(f, "more")
		f.Close()
		for name := range want {
			c := exec.Command("/"+name, "exit", "0")
			c.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
			if err := c.Run(); err != nil {
				t.Error(err)
				continue
			}
			ran[name] = c.Process.Pid
		}
	})
	if refused != nil {
		t.Skipf("no overlayfs here: %v", refused)
	}
	for name, pid := range ran {
		if got := l.nth(t, pid, 1); got.UpperLayer != want[name] || got.OtherMount {
			t.Errorf("%s: upper layer %v, other mount %v; want %v, false", name, got.UpperLayer, got.OtherMount, want[name])
		}
	}
}
