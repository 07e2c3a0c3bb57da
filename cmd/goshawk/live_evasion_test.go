package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// masqueradePort is where the program that passes for another connects to: nobody is there.
const masqueradePort = 1

// The main thread's name is the program's, so what follows must be done by that thread.
var _ = func() bool {
	if filepath.Base(os.Args[0]) == "masquerade" {
		runtime.LockOSThread()
	}
	return true
}()

// masquerade is what the test program does under that name: it gives itself another name, in the
// way that its argument says, and connects.
func masquerade() {
	if unix.Gettid() != os.Getpid() {
		os.Exit(3)
	}
	switch os.Args[1] {
	case "comm":
		name := []byte("kworker/0:7\x00")
		if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
			os.Exit(4)
		}
	case "argv":
		// Go's arguments are those that the kernel laid out, as /proc/PID/cmdline has them.
		own := unsafe.Slice(unsafe.StringData(os.Args[0]), len(os.Args[0]))
		clear(own)
		copy(own, "/usr/sbin/cron -f")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		os.Exit(5)
	}
	_ = unix.Connect(fd, &unix.SockaddrInet4{Port: masqueradePort, Addr: [4]byte{127, 0, 0, 1}}) // refused
	time.Sleep(3 * time.Second)                                                                  // for whoever looks what it calls itself
}

// evasionRow is what the tests read of an event.
type evasionRow struct {
	Kind, Path, Comm, Origin, Filename string
	PID, PPID                          int
	Inode                              uint64
	Args, Disguise                     []string
	SpawnerPID                         int    `json:"spawner_pid"`
	SpawnerPath                        string `json:"spawner_path"`
	LeaderPID                          int    `json:"leader_pid"`
	LeaderPath                         string `json:"leader_path"`
}

func (l *live) evasions() []evasionRow {
	l.t.Helper()
	data, err := os.ReadFile(l.out)
	if err != nil {
		l.t.Fatal(err)
	}
	var all []evasionRow
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			continue
		}
		var r evasionRow
		if err := json.Unmarshal(line, &r); err != nil {
			l.t.Fatalf("%v in %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// first waits for an event that is as match says.
func (l *live) first(what string, match func(evasionRow) bool) evasionRow {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if all := l.evasions(); slices.ContainsFunc(all, match) {
			return all[slices.IndexFunc(all, match)]
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s: not told within a minute", what)
		}
	}
}

// TestLiveEvasions has programs pass for others, and processes for somebody else's, and looks
// whether it is told who they are.
func TestLiveEvasions(t *testing.T) {
	needRoot(t)
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,fork,exit,connect", "--container-runtime", "none")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := openDir(t, "/tmp")
	program := copyOf(t, self, filepath.Join(dir, "masquerade"))
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	of := func(kind string, pid int) func(evasionRow) bool {
		return func(r evasionRow) bool { return r.Kind == kind && r.PID == pid }
	}
	same := func(t *testing.T, what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}

	for _, tt := range []struct{ how, comm string }{{"comm", "kworker/0:7"}, {"argv", "masquerade"}} {
		t.Run(tt.how+" rewritten", func(t *testing.T) {
			l.t = t
			cmd := exec.Command(program, tt.how, strings.Repeat("x", 40))
			pid := runPID(t, cmd)
			x := l.first("its start", of("exec", pid))
			same(t, "path", x.Path, program)
			same(t, "arguments", x.Args, cmd.Args)
			same(t, "disguise at its start", x.Disguise, []string{})
			c := l.first("its connection", of("connect", pid))
			same(t, "path of the connection", c.Path, program)
			same(t, "name at the connection", c.Comm, tt.comm)
			same(t, "disguise at the connection", c.Disguise, []string{tt.how})
		})
	}
	t.Run("called a kernel thread", func(t *testing.T) {
		l.t = t
		cmd := exec.Command("/bin/true")
		cmd.Args = []string{"[kworker/0:1]"}
		x := l.first("its start", of("exec", runPID(t, cmd)))
		same(t, "disguise", x.Disguise, []string{"argv0"})
	})
	t.Run("hard link", func(t *testing.T) {
		l.t = t
		link := filepath.Join(dir, "innocent")
		file := copyOf(t, "/bin/true", filepath.Join(dir, "guilty"))
		if err := os.Link(file, link); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		x := l.first("its start", of("exec", runPID(t, exec.Command(link))))
		same(t, "path", x.Path, link)
		same(t, "inode", x.Inode, st.Ino) // which says that it is the other, too
	})
	t.Run("in memory", func(t *testing.T) {
		l.t = t
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "memfd")
		defer f.Close()
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
		ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		f.Close()
		x := l.first("its start", of("exec", fromFile(t, ro)))
		same(t, "disguise", x.Disguise, []string{"memfd"})
	})
	t.Run("by the dynamic loader", func(t *testing.T) {
		l.t = t
		loader := map[string]string{"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}[runtime.GOARCH]
		real, err := filepath.EvalSymlinks(loader)
		if err != nil {
			t.Fatal(err)
		}
		x := l.first("its start", of("exec", runPID(t, exec.Command(loader, "/bin/true", "mark"))))
		same(t, "path", x.Path, real)
		same(t, "arguments", x.Args, []string{loader, "/bin/true", "mark"})
	})
	t.Run("twice forked", func(t *testing.T) {
		l.t = t
		// The middle shell leaves at once: whoever adopts the last has not made it.
		mark := "mark-" + strconv.Itoa(os.Getpid())
		pid := runPID(t, exec.Command(sh, "-c", "(/bin/sleep 0.3 "+mark+" & exit) ; :"))
		shell := l.first("the shell", of("exec", pid))
		x := l.first("what the middle has started", func(r evasionRow) bool { return r.Kind == "exec" && slices.Contains(r.Args, mark) })
		same(t, "program of its maker", x.SpawnerPath, sh)
		if x.SpawnerPID == 0 || x.SpawnerPID == pid || x.SpawnerPID == 1 {
			t.Errorf("it was made by %d, want the shell between it and %d", x.SpawnerPID, pid)
		}
		same(t, "origin", x.Origin, shell.Origin)
		same(t, "leader", x.LeaderPID, shell.LeaderPID)
	})
	t.Run("session of cron", func(t *testing.T) {
		l.t = t
		// What cron starts is its session, whoever adopts it later; what calls itself cron is not cron.
		dir, err := os.MkdirTemp("/usr/local/sbin", "goshawk-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		for _, tt := range []struct{ at, want string }{{dir, "cron"}, {openDir(t, "/tmp"), ""}} {
			cron := copyOf(t, sh, filepath.Join(tt.at, "crond"))
			mark := fmt.Sprintf("cron-%d-%s", os.Getpid(), filepath.Base(tt.at))
			pid := runPID(t, exec.Command(cron, "-c", "/bin/sh -c ': "+mark+"; /bin/true "+mark+"; :'; :"))
			daemon := l.first("cron", of("exec", pid))
			job := l.first("its job", func(r evasionRow) bool { return r.Kind == "exec" && r.Path == sh && r.PPID == pid })
			x := l.first("what the job runs", func(r evasionRow) bool { return r.Kind == "exec" && slices.Contains(r.Args, mark) && r.PPID == job.PID })
			if tt.want == "" {
				same(t, "origin of what another crond runs", x.Origin, daemon.Origin)
				same(t, "its leader", x.LeaderPID, daemon.LeaderPID)
				continue
			}
			same(t, "origin", x.Origin, tt.want)
			same(t, "leader", x.LeaderPID, job.PID)
			same(t, "its program", x.LeaderPath, sh)
		}
	})
	l.t = t
	if code, stderr := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
