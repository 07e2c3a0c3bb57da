package audit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// auditd is Debian's audit daemon, started for a test, with a rule of its own: a file that
// it watches.
type auditd struct {
	t       testing.TB
	cmd     *exec.Cmd
	said    bytes.Buffer
	dir     string
	log     string
	watched string
}

const auditdConfig = `local_events = yes
write_logs = yes
log_file = %s
log_group = root
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 8000
num_logs = 5
priority_boost = 4
name_format = NONE
max_log_file_action = IGNORE
space_left = 75
space_left_action = IGNORE
verify_email = no
action_mail_acct = root
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
use_libwrap = no
tcp_listen_queue = 5
tcp_max_per_addr = 1
distribute_network = no
q_depth = 2000
overflow_action = SYSLOG
max_restarts = 10
plugin_dir = %s
end_of_event_timeout = 2
`

// newAuditd makes one that is not started, nor has its rule.
func newAuditd(t testing.TB) *auditd {
	t.Helper()
	if _, err := exec.LookPath("auditd"); err != nil {
		t.Skip("needs auditd and auditctl (Debian's package auditd)")
	}
	dir := t.TempDir()
	a := &auditd{t: t, dir: dir, log: filepath.Join(dir, "audit.log"), watched: filepath.Join(dir, "watched")}
	for name, text := range map[string]string{"auditd.conf": fmt.Sprintf(auditdConfig, a.log, filepath.Join(dir, "plugins")), "watched": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "plugins"), 0o750); err != nil {
		t.Fatal(err)
	}
	return a
}

// startAuditd starts it, and sees that nothing of it is left at the end.
func startAuditd(t testing.TB) *auditd {
	t.Helper()
	a := newAuditd(t)
	// auditd switches audit on, and leaves it so.
	back := setStatus(t, setEnabled|setBacklog, func(s *status) { s.backlogLimit = 8192 })
	t.Cleanup(back)
	a.start()
	auditctl(t, "-w", a.watched, "-p", "wa", "-k", "own-rule")
	t.Cleanup(func() { auditctl(t, "-W", a.watched, "-p", "wa", "-k", "own-rule") })
	return a
}

func (a *auditd) start() {
	a.t.Helper()
	a.cmd = exec.Command("auditd", "-n", "-c", a.dir)
	// A test run that is killed takes it along.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	a.cmd.Stdout, a.cmd.Stderr = &a.said, &a.said
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(a.stop)
	eventually(a.t, "auditd owns audit: "+a.said.String(), func() bool { return owner(a.t) == uint32(a.cmd.Process.Pid) })
}

func (a *auditd) stop() {
	if a.cmd.ProcessState == nil {
		a.cmd.Process.Signal(unix.SIGTERM)
		a.cmd.Wait()
	}
}

func owner(t testing.TB) uint32 {
	t.Helper()
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	s, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	return s.pid
}

// touch does what auditd's own rule tells of, once: a change of mode.
func (a *auditd) touch(n int) {
	if err := os.Chmod(a.watched, 0o600|os.FileMode(n&1)); err != nil {
		a.t.Error(err)
	}
}

// logged counts events of a key in auditd's log.
func (a *auditd) logged(key string) int {
	b, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "type=SYSCALL") && strings.Contains(line, `key="`+key+`"`) {
			n++
		}
	}
	return n
}

// TestLiveBeside starts and stops goshawk beside auditd, again and again, while auditd's
// own rule is at work.
func TestLiveBeside(t *testing.T) {
	needAudit(t)
	a := startAuditd(t)
	// The deeds are those of another process: this one is left out.
	stop := make(chan struct{})
	var touched, strange atomic.Int64
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			select {
			case <-stop:
				return
			default:
				a.touch(int(touched.Add(1)))
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			select {
			case <-stop:
				return
			default:
				if owner(t) != uint32(a.cmd.Process.Pid) {
					strange.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		}
	}()
	before := snapshot(t)
	for i := range 50 {
		l := watch(t, Options{WithOwner: i%2 == 1, StopOwner: false})
		if l.s.Case() != CaseBeside {
			t.Fatalf("case %q: %s", l.s.Case(), l.lines())
		}
		if i == 0 && !strings.Contains(l.lines(), "audit belongs to auditd (pid ") {
			t.Errorf("told %q", l.lines())
		}
		tellAudit(t, "goshawk test")
		eventually(t, "a message of a program", func() bool { return l.seen("user") > 0 })
		if i%2 == 1 {
			run(t, "/bin/true")
			eventually(t, "an exec", func() bool { return l.seen("exec") > 0 })
		}
		l.stop()
	}
	close(stop)
	<-ended
	<-ended
	if after := snapshot(t); after != before {
		t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
	}
	if n := strange.Load(); n != 0 {
		t.Errorf("auditd was not the owner %d times", n)
	}
	want := int(touched.Load())
	eventually(t, "auditd's log is complete", func() bool { return a.logged("own-rule") == want })
	if n := a.logged(Key); n == 0 {
		t.Error("auditd has logged nothing of our rules, which were there half the time")
	}
	t.Logf("%d events of auditd's rule", want)
}

// TestLiveStopOwner takes auditd's place.
func TestLiveStopOwner(t *testing.T) {
	needAudit(t)
	a := startAuditd(t)
	l := watch(t, Options{StopOwner: true})
	if l.s.Case() != CaseOwn || !strings.Contains(l.lines(), "it is not started again when goshawk ends") {
		t.Fatalf("case %q: %s", l.s.Case(), l.lines())
	}
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("auditd ended with %v", err)
	}
	// Its rule stays, and is ours to read now.
	before := l.seen("file")
	for i := range 5 {
		run(t, "/bin/chmod", fmt.Sprintf("6%d0", i), a.watched)
	}
	eventually(t, "five changes of the file", func() bool { return l.seen("file") == before+5 })
	l.stop()
	a.start() // as it was for the cleanup
}

// TestLiveYield starts auditd while goshawk owns audit.
func TestLiveYield(t *testing.T) {
	needAudit(t)
	defer setStatus(t, setEnabled, func(*status) {})()
	a := newAuditd(t)
	l := watch(t, Options{}, func(s *Source) { s.patience = 500 * time.Millisecond })
	if l.s.Case() != CaseOwn {
		t.Fatalf("case %q: %s", l.s.Case(), l.lines())
	}
	first := exec.Command("auditd", "-n", "-c", a.dir)
	if out, err := first.CombinedOutput(); err == nil {
		t.Fatalf("auditd has taken audit from us:\n%s", out)
	}
	eventually(t, "goshawk gives audit up", func() bool { return l.s.Case() == CaseBeside })
	eventually(t, "goshawk takes it again, as nobody came", func() bool { return l.s.Case() == CaseOwn })
	if got := l.lines(); !strings.Contains(got, " wants to own it") || !strings.Contains(got, "takes it again") {
		t.Errorf("told %q", got)
	}
	exec.Command("auditd", "-n", "-c", a.dir).Run()
	eventually(t, "goshawk gives audit up again", func() bool { return l.s.Case() == CaseBeside })
	a.start()
	tellAudit(t, "goshawk test")
	eventually(t, "a message of a program", func() bool { return l.seen("user") > 0 })
	l.stop()
	a.stop()
}
