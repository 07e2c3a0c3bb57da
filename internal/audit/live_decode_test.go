package audit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// deedsRole makes the test binary do one thing after the other that audit tells of, below
// the directory in DIR.
const deedsRole = "deeds"

// must ends the process that does the deeds: its parent sees that.
func must(err error) {
	if err != nil {
		_, _, line, _ := runtime.Caller(1)
		fmt.Fprintf(os.Stderr, "line %d: %v\n", line, err)
		os.Exit(1)
	}
}

func manyArgs() []string {
	var args []string
	for i := range 700 {
		args = append(args, fmt.Sprintf("argument %d", i))
	}
	return append(args, strings.Repeat("x y", 7000), "", "\xff\n\"")
}

func deeds() {
	dir := os.Getenv("DIR")
	in := func(name string) string { return filepath.Join(dir, name) }
	runtime.LockOSThread()

	must(exec.Command("/bin/echo", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j k", "l").Run())
	must(exec.Command("/bin/true", manyArgs()...).Run())
	must(os.WriteFile(in("script"), []byte("#!/bin/sh -e\nexit 0\n"), 0o755))
	script := exec.Command("./script", "one")
	script.Dir = dir
	must(script.Run())

	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(err)
	must(os.WriteFile(in("port"), []byte(l.Addr().String()), 0o644))
	c, err := net.Dial("tcp4", l.Addr().String())
	must(err)
	a, err := l.Accept()
	must(err)
	a.Close()
	c.Close()
	l.Close()
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	must(err)
	if err := unix.Connect(s, &unix.SockaddrInet6{Port: 1, Addr: [16]byte{15: 1}}); err == nil {
		must(errors.New("port 1 answers"))
	}
	u, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	must(unix.Bind(u, &unix.SockaddrUnix{Name: "@goshawk audit test"}))

	_, _, e := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), 5, ^uintptr(0))
	if e != 0 {
		must(e)
	}
	_, _, e = unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), 0, ^uintptr(0))
	if e != 0 {
		must(e)
	}

	sleep := exec.Command("/bin/sleep", "60")
	must(sleep.Start())
	must(os.WriteFile(in("sleep"), fmt.Append(nil, sleep.Process.Pid), 0o644))
	must(syscall.PtraceAttach(sleep.Process.Pid))
	_, err = unix.Wait4(sleep.Process.Pid, nil, unix.WALL, nil)
	must(err)
	must(syscall.PtraceDetach(sleep.Process.Pid))
	must(sleep.Process.Kill())
	sleep.Wait()

	_ = unix.DeleteModule("goshawk_no_such_module", unix.O_NONBLOCK)

	must(unix.Unshare(unix.CLONE_NEWNS))
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(os.Mkdir(in("mnt"), 0o755))
	must(unix.Mount("none", in("mnt"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""))
	must(unix.Unmount(in("mnt"), unix.MNT_DETACH))

	must(os.Chdir(in("watched")))
	must(os.WriteFile("new", []byte("x"), 0o640))
	must(os.WriteFile("new", []byte("y"), 0o640))
	must(os.Rename("new", in("watched/two words")))
	must(os.Link("two words", "linked"))
	must(os.Symlink("../elsewhere", "symbolic"))
	must(unix.Chmod("linked", 0o4711))
	must(os.Chown("linked", 12, -1))
	must(os.Truncate("linked", 100))
	must(unix.Setxattr("linked", "trusted.goshawk", []byte("v"), 0))
	fd, err := unix.Open(in("watched"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(err)
	must(os.Chdir("/"))
	x, err := unix.Openat(fd, "below", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	must(err)
	must(unix.Fchmod(x, 0o601))
	if err := unix.Unlinkat(fd, "nothing", 0); err != unix.ENOENT {
		must(fmt.Errorf("unlink of nothing: %w", err))
	}
	// The descriptors stay open until what was told of them has been read.
	time.Sleep(time.Second)
	must(unix.Unlinkat(fd, "below", 0))
	time.Sleep(time.Second)
	os.Exit(7)
}

// wanted are the deeds as audit tells them: in which order, and of whom, may differ.
func wanted(dir string, port, sleep string) []string {
	w := filepath.Join(dir, "watched")
	q := func(s string) string { return strings.ReplaceAll(s, " ", `\u0020`) }
	program := func(name string) string { return must1(filepath.EvalSymlinks(name)) } // BusyBox, in guests
	return []string{
		`exec path=` + program("/bin/echo") + ` filename=/bin/echo args=["/bin/echo","a","b","c","d","e","f","g","h","i","j\u0020k","l"] args_truncated=0 comm=echo script= cwd=` + must1(os.Getwd()),
		`exec path=` + program("/bin/true") + ` args_length=` + fmt.Sprint(len(strings.Join(append([]string{"/bin/true"}, manyArgs()...), "\x00"))+1) + ` args_truncated=0`,
		`exec script=` + filepath.Join(dir, "script") + ` filename=./script cwd=` + dir + ` comm=script args=["/bin/sh","-e","./script","one"]`,
		"bind family=inet local_address=127.0.0.1 local_port=- result=ok",
		"listen result=ok",
		"connect family=inet remote_address=127.0.0.1 remote_port=" + port + " result=in_progress",
		"accept family=inet remote_address=127.0.0.1 result=ok",
		"connect family=inet6 remote_address=::1 remote_port=1 result=ECONNREFUSED",
		"bind family=unix socket_path=" + q("@goshawk audit test"),
		"credential operation=setresgid argument=-1,5,-1 new_gid=0 new_egid=5 new_fsgid=5 egid=5 result=ok",
		"credential operation=setresgid argument=-1,0,-1 new_egid=0 result=ok",
		"ptrace request=attach target_pid=" + sleep + " target_comm=sleep target_uid=0 result=ok",
		"signal signal_name=SIGKILL target_pid=" + sleep + " target_comm=sleep result=ok",
		"module operation=unload flags=O_NONBLOCK syscall=delete_module", // some kernels have no modules
		"mount operation=propagation mount_target=/ flags=MS_REC|MS_PRIVATE result=ok",
		"mount operation=mount mount_target=" + dir + "/mnt flags=MS_NOSUID|MS_NODEV result=ok",
		"mount operation=umount mount_target=" + dir + "/mnt flags=MNT_DETACH result=ok",
		"file operation=create target_path=" + w + "/new argument=O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC result=ok mode=33184 syscall=openat",
		"file operation=open target_path=" + w + "/new argument=O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC result=ok",
		"file operation=rename target_path=" + w + "/new destination_path=" + q(w+"/two words") + " result=ok",
		"file operation=link target_path=" + q(w+"/two words") + " destination_path=" + w + "/linked result=ok",
		"file operation=symlink target_path=../elsewhere destination_path=" + w + "/symbolic result=ok",
		"file operation=chmod target_path=" + w + "/linked argument=04711 owner_uid=0 result=ok",
		"file operation=chown target_path=" + w + "/linked argument=12:-1 result=ok",
		"file operation=truncate target_path=" + w + "/linked argument=100 owner_uid=12 result=ok",
		"file operation=setxattr target_path=" + w + "/linked result=ok",
		"file operation=create target_path=" + w + "/below cwd=/ fidelity=state argument=O_WRONLY|O_CREAT|O_EXCL result=ok",
		"file operation=chmod target_path=" + w + "/below argument=0601 fidelity=state syscall=fchmod result=ok",
		"file operation=delete target_path=" + w + "/below fidelity=state result=ok",
		"exit exit_code=7",
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return v
}

// TestLiveDeeds does what audit tells of, and compares word for word.
func TestLiveDeeds(t *testing.T) {
	needAudit(t)
	dir := t.TempDir()
	watched := filepath.Join(dir, "watched")
	if err := os.Mkdir(watched, 0o755); err != nil {
		t.Fatal(err)
	}
	l := watch(t, Options{Watches: []Watch{{Path: watched, Dir: true}}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+deedsRole, "DIR="+dir)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("the deeds ended with %v: %s", err, out)
	}
	pid := uint32(cmd.Process.Pid)
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%+v", l.lines(), l.s.Counts())
		}
	}()
	eventually(t, "the end of the deeds", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.events, func(e event.Event) bool { return e.Head().Kind == event.KindExit && e.Head().PID == pid })
	})
	l.stop()

	address, err := os.ReadFile(filepath.Join(dir, "port"))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(string(address))
	sleep, err := os.ReadFile(filepath.Join(dir, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	children := map[uint32]bool{pid: true}
	for _, e := range l.events {
		if f, ok := e.(*event.Fork); ok && children[f.PID] {
			children[f.ChildPID] = true
		}
	}
	// echo, true, script and sleep, and one by which package os finds out about clone.
	if n := len(children) - 1; n < 4 || n > 5 {
		t.Errorf("%d processes were made: threads are none", n)
	}
	for _, want := range wanted(dir, port, string(sleep)) {
		if !slices.ContainsFunc(l.events, func(e event.Event) bool {
			return children[e.Head().PID] && len(columnErrors(t, e, want)) == 0
		}) {
			t.Errorf("nothing like\n    %.300s", want)
			for _, e := range l.events {
				if h := e.Head(); children[h.PID] && h.Kind.String() == strings.Fields(want)[0] {
					t.Logf("%.700s", event.AppendJSON(nil, e))
				}
			}
		}
	}
	for _, e := range l.events {
		if x, ok := e.(*event.Exec); ok && children[x.PID] && x.ArgsLength > 1000 &&
			x.Args != strings.Join(append([]string{"/bin/true"}, manyArgs()...), "\x00")+"\x00" {
			t.Errorf("%d bytes of arguments are not what was given", x.ArgsLength)
		}
		if at := time.Unix(0, e.Head().Time); time.Since(at).Abs() > 10*time.Minute {
			t.Errorf("it happened at %v", at)
		}
	}
	for _, c := range l.s.Counts() {
		// Calls of others that began before there were rules lack some records.
		if c.What == event.Lost && c.Reason != "incomplete" {
			t.Errorf("lost: %+v", c)
		}
	}
}
