package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The live tests talk to this kernel's audit, which there is one of: they hold a lock that
// every test of any package takes that touches it, and each sees that audit is in the end
// what it was in the beginning.

// lockFile is that lock.
const lockFile = "goshawk-audit-tests.lock"

// patience is how long a test waits for what must come. The machine may be busy.
const patience = time.Minute

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		play(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// needAudit takes the lock, and sees at the end that nothing is changed.
func needAudit(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: sets up audit")
	}
	f, err := os.OpenFile(filepath.Join(os.TempDir(), lockFile), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// What a test run that was killed has left behind.
	if s, err := Open(testOptions(t, Options{})); err == nil {
		s.Close()
	}
	before := snapshot(t)
	t.Cleanup(func() {
		if after := snapshot(t); after != before {
			t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
		}
	})
}

var counters = regexp.MustCompile(`(?m)^(lost|backlog|backlog_wait_time_actual) \d+\n`)

// snapshot is all that can be set of audit, as the kernel tells it and, where there is
// auditctl, as that does.
func snapshot(t testing.TB) string {
	t.Helper()
	c, err := openControl()
	if err != nil {
		t.Skipf("this kernel has no audit: %v", err)
	}
	defer c.close()
	s, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	s.lost, s.backlog = 0, 0
	rules, err := c.rules()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%+v\n%x\n", s, rules)
	if _, err := exec.LookPath("auditctl"); err == nil {
		out += counters.ReplaceAllString(auditctl(t, "-s"), "") + auditctl(t, "-l")
	}
	return out
}

func auditctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("auditctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("auditctl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// live is a running source, and what it has told.
type live struct {
	t      testing.TB
	s      *Source
	cancel context.CancelFunc
	done   chan error
	once   sync.Once

	mu     sync.Mutex
	told   []string
	events []event.Event
}

func testOptions(t testing.TB, o Options) Options {
	t.Helper()
	o.FS = procfs.At("")
	id, err := o.FS.BootID()
	if err != nil {
		t.Fatal(err)
	}
	o.BootID = strings.ReplaceAll(id, "-", "")
	if o.StateDir == "" {
		o.StateDir = filepath.Join(os.TempDir(), "goshawk-audit-tests")
	}
	return o
}

// watch opens a source and runs it.
func watch(t testing.TB, o Options, prepare ...func(s *Source)) *live {
	t.Helper()
	l := &live{t: t, done: make(chan error, 1)}
	o = testOptions(t, o)
	o.Tell = func(line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.told = append(l.told, line)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	l.s = s
	for _, f := range prepare {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	out := make(chan *event.Batch, 8)
	collected := make(chan struct{})
	go func() {
		for b := range out { // not released: the events are kept
			l.mu.Lock()
			l.events = append(l.events, b.Events...)
			l.mu.Unlock()
		}
		close(collected)
	}()
	go func() {
		err := s.Run(ctx, out)
		close(out)
		<-collected
		l.done <- err
	}()
	t.Cleanup(l.stop)
	return l
}

func (l *live) stop() {
	l.once.Do(func() {
		l.cancel()
		if err := errors.Join(<-l.done, l.s.Close()); err != nil {
			l.t.Error(err)
		}
	})
}

func (l *live) lines() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.told, "\n")
}

// seen is how many events of a hook have begun.
func (l *live) seen(hook string) uint64 {
	for _, h := range l.s.Hooks() {
		if h.Name == hook {
			return h.Seen
		}
	}
	l.t.Fatalf("no hook %q", hook)
	return 0
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func run(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func TestLiveOwn(t *testing.T) {
	needAudit(t)
	l := watch(t, Options{})
	if c := l.s.Case(); c != CaseOwn {
		t.Fatalf("case %q: %s", c, l.lines())
	}
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	st, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	if want := (status{enabled: 1, failure: st.failure, pid: uint32(os.Getpid()), backlogLimit: defaultBacklog,
		rateLimit: st.rateLimit, features: st.features, lost: st.lost, backlog: st.backlog}); st != want {
		t.Errorf("status %+v, want %+v", st, want)
	}
	before := l.seen("exec")
	for range 10 {
		run(t, "/bin/true")
	}
	eventually(t, "ten execs", func() bool { return l.seen("exec") >= before+10 })
	for _, h := range l.s.Hooks() {
		if h.Tier == "" && h.Name != "file" {
			t.Errorf("hook %s: %s", h.Name, h.Refused)
		}
	}
	l.stop()
	t.Logf("%s\n%v", l.lines(), l.s.Counts())
}
