package sensor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/internal/event"
	"golang.org/x/sys/unix"
)

func TestLiveExec(t *testing.T) {
	eachTier(t, Options{Kinds: []event.ID{event.KindExec}, Env: []string{"GOSHAWK_A", "GOSHAWK_B"}}, execs)
}

// copyHelper puts a copy of the helper at path.
func copyHelper(t testing.TB, path string) {
	t.Helper()
	in, err := os.Open(helper)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_CLOEXEC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func nul(args ...string) string { return strings.Join(args, "\x00") + "\x00" }

// wantExec is the exec of a copy of the helper at path, asked for by that name, from cwd.
func wantExec(t testing.TB, got *event.Exec, pid int, path, cwd string, args ...string) *event.Exec {
	t.Helper()
	e := &event.Exec{
		Header: ours(t, &got.Header, pid), Filename: path, Cwd: cwd,
		Args: nul(args...), ArgsLength: uint64(len(nul(args...))), Mode: unix.S_IFREG | 0o755, Inode: got.Inode,
	}
	e.Path = path
	if strings.HasPrefix(path, os.TempDir()) || strings.HasPrefix(path, "...") {
		e.OtherMount = mountOf(t, os.TempDir()) != mountOf(t, "/")
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		e.Comm = path[i+1:]
	}
	e.Comm = e.Comm[:min(15, len(e.Comm))]
	return e
}

// nth returns the n-th exec of a process; a helper that starts a program has two.
func (l *live) nth(t testing.TB, pid, n int) *event.Exec {
	t.Helper()
	es := l.wait(t, n, fmt.Sprintf("exec %d of pid %d", n, pid), of[*event.Exec](event.KindExec, pid))
	return es[n-1].(*event.Exec)
}

func compare(t testing.TB, want, got event.Event) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%v: want -, got +\n%s", got.Head().Kind, diff)
	}
}

// execs starts programs in every way we know, and compares what l tells.
func execs(t *testing.T, l *live) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(dir, "prog")
	copyHelper(t, prog)

	t.Run("by path", func(t *testing.T) {
		pid := run(t, prog, "exit", "0", "an arg")
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", "0", "an arg")
		want.Inode = inode(t, prog)
		compare(t, want, got)
	})
	t.Run("by relative path, in another directory", func(t *testing.T) {
		c := exec.Command("./prog", "exit", "0")
		c.Dir, c.Path = dir, "./prog"
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, dir, "./prog", "exit", "0")
		want.Filename, want.Inode = "./prog", inode(t, prog)
		compare(t, want, got)
	})
	t.Run("in the root directory", func(t *testing.T) {
		c := exec.Command(prog, "exit", "0")
		c.Dir = "/"
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		compare(t, wantExec(t, got, pid, prog, "/", prog, "exit", "0"), got)
	})
	t.Run("through a symlink", func(t *testing.T) {
		link := filepath.Join(dir, "link")
		if err := os.Symlink("prog", link); err != nil {
			t.Fatal(err)
		}
		pid := run(t, link, "exit", "0")
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, link, "exit", "0")
		want.Filename, want.Comm, want.Inode = link, "link", inode(t, prog)
		compare(t, want, got)
	})
	t.Run("with another argv[0]", func(t *testing.T) {
		c := exec.Command(prog, "exit", "0")
		c.Args[0] = "-sshd: root@pts/0"
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		compare(t, wantExec(t, got, pid, prog, cwd, "-sshd: root@pts/0", "exit", "0"), got)
	})
	t.Run("with empty arguments", func(t *testing.T) {
		pid := run(t, prog, "exit", "", "", "0", "")
		got := l.nth(t, pid, 1)
		compare(t, wantExec(t, got, pid, prog, cwd, prog, "exit", "", "", "0", ""), got)
	})
	t.Run("without an argument vector", func(t *testing.T) {
		// Linux since 5.18 makes argv { "" } of none at all.
		c := exec.Command(helper, "no-args", prog)
		_ = c.Run() // ends with 125: prog was not told what to do
		got := l.nth(t, c.Process.Pid, 2)
		compare(t, wantExec(t, got, c.Process.Pid, prog, cwd, ""), got)
	})
	t.Run("exec without fork", func(t *testing.T) {
		pid := run(t, helper, "argv0", "other", prog, "exit", "0")
		first, got := l.nth(t, pid, 1), l.nth(t, pid, 2)
		compare(t, wantExec(t, got, pid, prog, cwd, "other", "exit", "0"), got)
		if first.Start != got.Start {
			t.Errorf("the process started at %d, then at %d", first.Start, got.Start)
		}
	})
	t.Run("script", func(t *testing.T) {
		script := filepath.Join(dir, "run.sh")
		write(t, script, "#!"+prog+" exit\nnothing\n", 0o755)
		pid := run(t, script, "x")
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", script, "x")
		want.Filename, want.Comm = script, "run.sh"
		want.Interpreter, want.Script = prog, script
		compare(t, want, got)
	})
	t.Run("script by relative path", func(t *testing.T) {
		c := exec.Command("./run.sh", "x")
		c.Dir, c.Path = dir, "./run.sh"
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, dir, prog, "exit", "./run.sh", "x")
		want.Filename, want.Comm = "./run.sh", "run.sh"
		want.Interpreter, want.Script = prog, filepath.Join(dir, "run.sh")
		compare(t, want, got)
	})
	t.Run("script whose interpreter is a script", func(t *testing.T) {
		outer := filepath.Join(dir, "outer.sh")
		write(t, outer, "#!"+filepath.Join(dir, "run.sh")+"\n", 0o755)
		pid := run(t, outer)
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", filepath.Join(dir, "run.sh"), outer)
		want.Filename, want.Comm = outer, "outer.sh"
		want.Interpreter, want.Script = prog, outer
		compare(t, want, got)
	})
	t.Run("execveat of an open file", func(t *testing.T) {
		pid := run(t, helper, "execveat", prog, "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", "0")
		want.Filename, want.Comm = got.Filename, got.Comm // a number; see below
		compare(t, want, got)
		if !strings.HasPrefix(got.Filename, "/dev/fd/") {
			t.Errorf("Filename = %q, want the descriptor's name", got.Filename)
		}
	})
	t.Run("execveat below an open directory", func(t *testing.T) {
		pid := run(t, helper, "execveat-dir", dir, "prog", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, prog, cwd, "prog", "exit", "0")
		want.Filename = got.Filename
		compare(t, want, got)
		if !strings.HasPrefix(got.Filename, "/dev/fd/") || !strings.HasSuffix(got.Filename, "/prog") {
			t.Errorf("Filename = %q, want /dev/fd/N/prog", got.Filename)
		}
	})
	t.Run("memfd", func(t *testing.T) {
		pid := run(t, helper, "memfd", "payload", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, "/memfd:payload", cwd, "payload", "exit", "0")
		want.Filename, want.Comm = got.Filename, got.Comm
		want.Memfd, want.Deleted, want.OtherMount = true, true, true
		compare(t, want, got)
	})
	t.Run("deleted", func(t *testing.T) {
		gone := filepath.Join(dir, "gone")
		copyHelper(t, gone)
		ino := inode(t, gone)
		pid := run(t, helper, "deleted", gone, "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, gone, cwd, gone, "exit", "0")
		want.Filename, want.Comm, want.Inode, want.Deleted = got.Filename, got.Comm, ino, true
		compare(t, want, got)
		if !strings.HasPrefix(got.Filename, "/proc/self/fd/") {
			t.Errorf("Filename = %q, want /proc/self/fd/N", got.Filename)
		}
	})
	t.Run("file called memfd:", func(t *testing.T) {
		// On disk, and deleted: still no memfd.
		fake := filepath.Join(dir, "memfd:fake")
		copyHelper(t, fake)
		pid := run(t, helper, "deleted", fake, "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, fake, cwd, fake, "exit", "0")
		want.Filename, want.Comm, want.Deleted = got.Filename, got.Comm, true
		compare(t, want, got)
	})
	t.Run("from a thread that does not lead", func(t *testing.T) {
		pid := run(t, helper, "thread-exec", prog, "exit", "0")
		got := l.nth(t, pid, 2)
		compare(t, wantExec(t, got, pid, prog, cwd, prog, "exit", "0"), got)
	})
	t.Run("of 32 bits", func(t *testing.T) {
		small := filepath.Join(dir, "small")
		if err := os.WriteFile(small, elf32(), 0o755); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(small, "an arg", "")
		err := c.Run()
		if errors.Is(err, unix.ENOEXEC) {
			t.Skip("this kernel runs no 32-bit programs")
		}
		if c.Process == nil {
			t.Fatal(err)
		}
		t.Logf("it ended so: %v", err) // with 7, or a fault where a hypervisor has no 32-bit calls
		pid := c.Process.Pid
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, small, cwd, small, "an arg", "")
		want.Inode = inode(t, small)
		compare(t, want, got)
	})
	t.Run("from a chroot", func(t *testing.T) {
		pid := run(t, helper, "chroot", dir, "/prog", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, prog, dir, "/prog", "exit", "0")
		want.Filename = "/prog" // as asked for; path and cwd are the host's
		want.OtherMount = false // than the root directory, which is dir
		compare(t, want, got)
	})
	t.Run("from a tmpfs in another mount namespace", func(t *testing.T) {
		mnt := mkdir(t, filepath.Join(dir, "tmpfs"))
		pid := run(t, helper, "tmpfs", mnt, mnt+"/prog", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, mnt+"/prog", cwd, mnt+"/prog", "exit", "0")
		want.OtherMount = true
		compare(t, want, got)
	})
	t.Run("through a bind mount", func(t *testing.T) {
		mnt := mkdir(t, filepath.Join(dir, "bind"))
		pid := run(t, helper, "bind", dir, mnt, mnt+"/prog", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, mnt+"/prog", cwd, mnt+"/prog", "exit", "0")
		want.Inode, want.OtherMount = inode(t, prog), true
		compare(t, want, got)
	})
	t.Run("in a container's root", func(t *testing.T) {
		pid := run(t, helper, "pivot", dir, "/prog", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, "/prog", "/", "/prog", "exit", "0")
		want.Inode = inode(t, prog)
		compare(t, want, got)
	})
	t.Run("names that are not UTF-8", func(t *testing.T) {
		bad := filepath.Join(mkdir(t, filepath.Join(dir, "\xff\xfe")), "\xc3\x28 \n\x1b[31m")
		copyHelper(t, bad)
		c := exec.Command(bad, "exit", "0", "\x80\xff")
		c.Dir = filepath.Dir(bad)
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		compare(t, wantExec(t, got, pid, bad, filepath.Dir(bad), bad, "exit", "0", "\x80\xff"), got)
	})
	t.Run("environment", func(t *testing.T) {
		c := exec.Command(prog, "exit", "0")
		c.Env = []string{"GOSHAWK_B=2=3", "SECRET=x", "GOSHAWK_A=", "GOSHAWK_AB=no"}
		pid := runCmd(t, c)
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", "0")
		want.Env = nul("GOSHAWK_B=2=3", "GOSHAWK_A=")
		compare(t, want, got)
	})
	t.Run("ids", func(t *testing.T) {
		if err := os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755); err != nil {
			t.Fatal(err)
		}
		pid := run(t, helper, "setids", "65534 1001 1002 1002 2000 2001 2002 2002", "/proc/self/exe", "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, helper, cwd, "/proc/self/exe", "exit", "0")
		want.Filename, want.Comm, want.Mode = "/proc/self/exe", "exe", got.Mode
		// execve(2) makes the saved and file system ids the effective ones.
		want.UID, want.EUID, want.SUID, want.FSUID = 65534, 1001, 1001, 1001
		want.GID, want.EGID, want.SGID, want.FSGID = 2000, 2001, 2001, 2001
		compare(t, want, got)
	})
	t.Run("set-user-id", func(t *testing.T) {
		file := filepath.Join(dir, "suid")
		copyHelper(t, file)
		if err := os.Chown(file, 1234, 2345); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, os.ModeSetuid|os.ModeSetgid|0o755); err != nil {
			t.Fatal(err)
		}
		pid := run(t, file, "exit", "0")
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, file, cwd, file, "exit", "0")
		want.EUID, want.SUID, want.FSUID, want.OwnerUID = 1234, 1234, 1234, 1234
		want.EGID, want.SGID, want.FSGID, want.OwnerGID = 2345, 2345, 2345, 2345
		want.Mode = unix.S_IFREG | unix.S_ISUID | unix.S_ISGID | 0o755
		compare(t, want, got)
	})
	t.Run("terminal", func(t *testing.T) {
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Skipf("no terminals here: %v", err)
		}
		defer master.Close()
		n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		pid := run(t, helper, "tty", fmt.Sprintf("/dev/pts/%d", n), prog, "exit", "0")
		got := l.nth(t, pid, 2)
		want := wantExec(t, got, pid, prog, cwd, prog, "exit", "0")
		want.TTY = fmt.Sprintf("pts/%d", n)
		compare(t, want, got)
	})
	t.Run("refused", func(t *testing.T) {
		file := filepath.Join(dir, "not-a-program")
		write(t, file, "\x00\x01\x02", 0o755)
		if err := exec.Command(file).Run(); err == nil {
			t.Fatal("it ran")
		}
		pid := run(t, prog, "exit", "0")
		l.nth(t, pid, 1)
		got := l.snapshot(func(e event.Event) bool { x, ok := e.(*event.Exec); return ok && x.Filename == file })
		if len(got) != 0 {
			t.Errorf("got %v, want no event for an exec that failed", got)
		}
	})
	sizes(t, l, prog, dir, cwd)
}

// sizes starts programs with arguments and paths as large as Linux takes them.
func sizes(t *testing.T, l *live, prog, dir, cwd string) {
	t.Run("5,000 arguments", func(t *testing.T) {
		args := []string{prog, "exit", "0"}
		for i := len(args); i < 5000; i++ {
			args = append(args, fmt.Sprint(i%10))
		}
		pid := run(t, prog, args[1:]...)
		got := l.nth(t, pid, 1)
		compare(t, wantExec(t, got, pid, prog, cwd, args...), got)
	})
	t.Run("32 KiB of arguments", func(t *testing.T) {
		for _, extra := range []int{0, 1} {
			args := []string{prog, "exit", "0"}
			args = append(args, strings.Repeat("y", 32768-len(nul(args...))-1+extra))
			pid := run(t, prog, args[1:]...)
			got := l.nth(t, pid, 1)
			want := wantExec(t, got, pid, prog, cwd, args...)
			want.Args = want.Args[:32768]
			want.ArgsTruncated = extra > 0
			compare(t, want, got)
		}
	})
	t.Run("1 MiB of arguments", func(t *testing.T) {
		args := []string{prog, "exit", "0"}
		for range 10 { // one alone may have 128 KiB
			args = append(args, strings.Repeat("z", 100<<10))
		}
		args = append(args, strings.Repeat("w", 1<<20-len(nul(args...))-1))
		pid := run(t, prog, args[1:]...)
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, prog, cwd, args...)
		if want.ArgsLength != 1<<20 {
			t.Fatalf("the test makes %d bytes of arguments", want.ArgsLength)
		}
		want.Args, want.ArgsTruncated = want.Args[:32768], true
		compare(t, want, got)
	})
	t.Run("path of 4,095 bytes", func(t *testing.T) {
		// PATH_MAX counts the final NUL.
		long := dir
		for len(long) < 3800 {
			long += "/" + strings.Repeat("d", 200)
		}
		if err := os.MkdirAll(long, 0o755); err != nil {
			t.Fatal(err)
		}
		long += "/" + strings.Repeat("f", 4095-len(long)-1)
		copyHelper(t, long)
		pid := run(t, long, "exit", "0")
		got := l.nth(t, pid, 1)
		want := wantExec(t, got, pid, long, cwd, long, "exit", "0")
		if len(got.Path) != 4095 && !l.s.object.perf {
			t.Errorf("Path has %d bytes, want 4095", len(got.Path))
		}
		l.legacyNames(want, got)
		compare(t, want, got)
	})
	t.Run("2,000 directories", func(t *testing.T) {
		deep := mkdir(t, filepath.Join(dir, "n"))
		c := exec.Command(helper, "deep", "2000", "d", "./prog", "exit", "0")
		c.Dir = deep
		pid := runCmd(t, c)
		got := l.nth(t, pid, 2)
		below := deep + strings.Repeat("/d", 2000)
		want := wantExec(t, got, pid, below+"/prog", below, "./prog", "exit", "0")
		want.Filename = "./prog"
		l.legacyNames(want, got)
		compare(t, want, got)
	})
	t.Run("60 directories, looked at in time", func(t *testing.T) {
		deep := mkdir(t, filepath.Join(dir, "k"))
		c := exec.Command(helper, "deep", "60", "d", "./prog", "sleep")
		c.Dir = deep
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		got := l.nth(t, c.Process.Pid, 2)
		below := deep + strings.Repeat("/d", 60)
		want := wantExec(t, got, c.Process.Pid, below+"/prog", below, "./prog", "sleep")
		want.Filename = "./prog"
		if l.s.object.perf { // /proc has what the programs had no room for
			want.Fidelity = event.FidelityState
		}
		compare(t, want, got)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait()
	})
	t.Run("path longer than any look-up takes", func(t *testing.T) {
		// Made by going down step by step. Its end is kept, and marked as one.
		deep := mkdir(t, filepath.Join(dir, "m"))
		name := strings.Repeat("e", 100)
		c := exec.Command(helper, "deep", "100", name, "./prog", "exit", "0")
		c.Dir = deep
		pid := runCmd(t, c)
		got := l.nth(t, pid, 2)
		// Names are taken until PATH_MAX is reached: "prog" and 41 directories; 42 of cwd.
		want := wantExec(t, got, pid, "..."+strings.Repeat("/"+name, 41)+"/prog", "..."+strings.Repeat("/"+name, 41), "./prog", "exit", "0")
		want.Filename, want.PathTruncated = "./prog", true
		l.legacyNames(want, got)
		compare(t, want, got)
	})
}

// legacyNames allows for what the legacy object has no room for in 4096 instructions: of a path 27
// names, and fewer where mounts end, of the current directory 15. User space looks for the rest,
// and finds it if the process is still there.
func (l *live) legacyNames(want, got *event.Exec) {
	if !l.s.object.perf {
		return
	}
	cut := func(want *string, got string, least int) {
		end, isCut := strings.CutPrefix(got, ".../")
		if isCut && got != *want && strings.Count(end, "/")+1 >= least && strings.HasSuffix(*want, "/"+end) {
			*want = got
		}
	}
	cut(&want.Path, got.Path, 18)
	cut(&want.Cwd, got.Cwd, 8)
	want.PathTruncated = strings.HasPrefix(want.Path, "...") || strings.HasPrefix(want.Cwd, "...")
	if !strings.HasPrefix(got.Path, "...") || !strings.HasPrefix(got.Cwd, "...") { // one may be from there
		want.Fidelity = got.Fidelity
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	// A file that is open for writing in a child forked meanwhile cannot be executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
