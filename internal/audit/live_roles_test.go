package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// roleVar makes the test binary play a part in a process of its own.
const roleVar = "GOSHAWK_AUDIT_TEST_ROLE"

func play(role string) {
	if role == deedsRole {
		deeds()
	}
	switch role {
	case "run":
		playSource()
	case "count":
		playCount()
	case "accept":
		if err := playAccept(); err != nil {
			fmt.Println(err)
		}
	case "ring":
		if err := removeByRing(os.Getenv("FILE")); err != nil {
			fmt.Println(err)
		}
	}
}

// playSource opens a source and says how that went, in a line; then it reads until its standard
// input ends. It says what it was told on standard error.
func playSource() {
	fs := procfs.At("")
	id, _ := fs.BootID()
	o := Options{FS: fs, BootID: strings.ReplaceAll(id, "-", ""), StateDir: os.Getenv("STATE"), Replace: os.Getenv("REPLACE") != "",
		Tell: func(line string) { fmt.Fprintln(os.Stderr, line) }}
	s, err := Open(o)
	if err != nil {
		var u *Unsupported
		fmt.Printf("error denied=%v unsupported=%v %v\n", errors.Is(err, unix.EPERM), errors.As(err, &u), err)
		return
	}
	fmt.Println("case", s.Case())
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Batch, 8)
	done := make(chan error)
	go func() { done <- s.Run(ctx, out) }()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for {
		select {
		case b := <-out:
			b.Release()
		case err := <-done:
			fmt.Println("end", errors.Join(err, s.Close()), s.volume.seen[userGroup].Load())
			return
		}
	}
}

// role is a process that plays.
type role struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.Closer
	out   *bufio.Reader
	said  bytes.Buffer
	first string // what it said first
}

// start starts a source in a process of its own.
func start(t testing.TB, state string, attr *syscall.SysProcAttr) *role {
	t.Helper()
	return startRole(t, "run", attr, "STATE="+state)
}

// startRole starts a role and waits for what it says first.
func startRole(t testing.TB, name string, attr *syscall.SysProcAttr, env ...string) *role {
	t.Helper()
	// Where anybody may execute it.
	dir, err := os.MkdirTemp("", "goshawk-audit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// The name of the process is how goshawks know each other.
	binary := filepath.Join(dir, filepath.Base(os.Args[0]))
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &role{t: t, cmd: exec.Command(binary)}
	r.cmd.Env = append(append(os.Environ(), roleVar+"="+name), env...)
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Pdeathsig = unix.SIGTERM // a test run that is killed takes it along
	r.cmd.SysProcAttr = attr
	r.cmd.Stderr = &r.said
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end() })
	r.first = r.line()
	return r
}

func (r *role) line() string {
	line, err := r.out.ReadString('\n')
	if err != nil && err != io.EOF {
		r.t.Error(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// end lets the role end, and returns what it said then, and what it was told.
func (r *role) end() (last, told string) {
	if r.cmd == nil {
		return "", ""
	}
	r.in.Close()
	last = r.line()
	r.cmd.Wait()
	r.cmd = nil
	return last, r.said.String()
}

// kill ends it without a chance to put anything back.
func (r *role) kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
	r.cmd = nil
}

func TestLiveKilled(t *testing.T) {
	needAudit(t)
	state := filepath.Join(t.TempDir(), "state")
	before := snapshot(t)
	r := start(t, state, nil)
	if r.first != "case own" {
		t.Fatalf("it said %q", r.first)
	}
	if snapshot(t) == before {
		t.Fatal("audit is not changed")
	}
	if s, err := Open(testOptions(t, Options{StateDir: t.TempDir()})); err == nil {
		s.Close()
		t.Error("a second goshawk was let in")
	} else if busy := new(ErrBusy); !errors.As(err, &busy) || int(busy.PID) != r.cmd.Process.Pid {
		t.Errorf("a second goshawk: %v", err)
	}
	r.kill()
	if snapshot(t) == before {
		t.Fatal("audit is as it was: nothing to repair")
	}
	l := watch(t, Options{StateDir: state})
	if !strings.Contains(l.lines(), "put back as it was before goshawk (pid") {
		t.Errorf("told %q", l.lines())
	}
	if l.s.Case() != CaseOwn {
		t.Errorf("case %q", l.s.Case())
	}
	l.stop()
	if files, _ := os.ReadDir(state); len(files) != 0 {
		t.Errorf("left in the state directory: %v", files)
	}
}

// TestLiveKilledElsewhere is another installation's rules, whose journal we do not have.
func TestLiveKilledElsewhere(t *testing.T) {
	needAudit(t)
	state := filepath.Join(t.TempDir(), "state")
	r := start(t, state, nil)
	if r.first != "case own" {
		t.Fatalf("it said %q", r.first)
	}
	r.kill()
	l := watch(t, Options{})
	if !strings.Contains(l.lines(), "rules of a goshawk that is gone") {
		t.Errorf("told %q", l.lines())
	}
	l.stop()
	again := watch(t, Options{StateDir: state}) // puts back the settings
	again.stop()
}

// TestLiveNotPermitted opens audit where it is not all there.
func TestLiveNotPermitted(t *testing.T) {
	needAudit(t)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, c := range []struct {
		name  string
		attr  *syscall.SysProcAttr
		first string
		reads bool
	}{
		{"nobody", &syscall.SysProcAttr{Credential: nobody},
			"error denied=true unsupported=false use audit: needs CAP_AUDIT_CONTROL and the host's pid namespace, or at least CAP_AUDIT_READ: operation not permitted", false},
		{"only CAP_AUDIT_READ", &syscall.SysProcAttr{Credential: nobody, AmbientCaps: []uintptr{capAuditRead}}, "case reader", true},
		{"pid namespace", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, "case reader", true},
		{"user namespace", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}},
			"error denied=false unsupported=true use audit: audit answers the host's user namespace only, and this is another: connection refused", false},
		{"network namespace", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, "case own", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			if c.attr.Credential != nil || c.attr.Cloneflags&unix.CLONE_NEWPID != 0 {
				// A reader has nobody's leave to switch audit on.
				defer setStatus(t, setEnabled, func(s *status) { s.enabled = 1 })()
			}
			r := start(t, state, c.attr)
			if r.first != c.first {
				t.Fatalf("it said  %q\nwant     %q", r.first, c.first)
			}
			if !c.reads {
				return
			}
			tellAudit(t, "goshawk test")
			last, told := r.end()
			if last != "end <nil> 1" {
				t.Errorf("it said %q, told %q", last, told)
			}
		})
	}
}

// setStatus changes settings of audit, and returns what puts them back.
func setStatus(t testing.TB, mask uint32, change func(s *status)) func() {
	t.Helper()
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	now := before
	change(&now)
	if err := c.set(now, mask); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := c.set(before, mask); err != nil {
			t.Error(err)
		}
		c.close()
	}
}

// tellAudit sends a message of a program's, as PAM would.
func tellAudit(t testing.TB, text string) {
	t.Helper()
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.do(1112, []byte(text), nil); err != nil { // AUDIT_USER_LOGIN
		t.Fatal(err)
	}
}

// TestLiveWithoutAudit is on a kernel that was told to have none.
func TestLiveWithoutAudit(t *testing.T) {
	c, err := openControl()
	if err == nil {
		c.close()
		t.Skip("needs a kernel without audit, or booted with audit=0 (make test-kernels K=6.1-noaudit)")
	}
	s := Look(procfs.At(""))
	var without *Unsupported
	if s.Case != CaseNone || !errors.As(s.Err, &without) || !errors.Is(s.Err, unix.EPROTONOSUPPORT) {
		t.Errorf("found %+v", s)
	}
	if lines := s.Lines(); len(lines) != 1 || lines[0] != "use audit: this kernel has no audit subsystem, or was booted with audit=0: open audit socket: protocol not supported" {
		t.Errorf("lines %q", lines)
	}
	dir := t.TempDir()
	if s, err := Open(testOptions(t, Options{StateDir: dir})); err == nil {
		s.Close()
		t.Error("it opens")
	} else if !errors.As(err, &without) {
		t.Errorf("it opens with %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left in the state directory: %v", files)
	}
}
