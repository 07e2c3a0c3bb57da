package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// TestLiveReadOnly may change nothing, and reads all the same.
func TestLiveReadOnly(t *testing.T) {
	needAudit(t)
	t.Cleanup(setStatus(t, setEnabled, func(s *status) { s.enabled = 1 }))
	before := snapshot(t)
	l := watch(t, Options{ReadOnly: true})
	if snapshot(t) != before {
		t.Error("audit is changed")
	}
	if c := l.s.Case(); c != CaseReader || !strings.Contains(l.lines(), "audit may not be changed (audit_allow_config is false)") {
		t.Errorf("case %q: %s", c, l.lines())
	}
	tellAudit(t, "goshawk test")
	eventually(t, "a message of a program", func() bool { return l.seen("user") > 0 })
	for _, h := range l.s.Hooks() {
		if h.Name == "exec" && h.Refused != "nothing of audit's may be changed" {
			t.Errorf("hook %+v", h)
		}
	}
	l.stop()
}

// TestLiveReadOnlyBeside may change nothing, and reads what the owner's rules tell.
func TestLiveReadOnlyBeside(t *testing.T) {
	needAudit(t)
	auditd := startAuditd(t)
	l := watch(t, Options{ReadOnly: true})
	if c := l.s.Case(); c != CaseBeside {
		t.Errorf("case %q: %s", c, l.lines())
	}
	run(t, "/bin/chmod", "644", auditd.watched)
	eventually(t, "what auditd's own rule tells", func() bool { return l.seen("file") > 0 })
	l.stop()
}

// TestLiveReplace takes out the rules of others, and puts them back; so does the next start
// after a SIGKILL.
func TestLiveReplace(t *testing.T) {
	needAudit(t)
	dir := t.TempDir()
	add := func(rules ...rule) func() {
		c, err := openControl()
		if err != nil {
			t.Fatal(err)
		}
		var raw [][]byte
		for i := range rules {
			raw = append(raw, rules[i].append(nil))
			if err := c.do(msgAddRule, raw[i], nil); err != nil {
				t.Fatal(err)
			}
		}
		return func() {
			if err := errors.Join(deleteRules(c, raw)...); err != nil {
				t.Error(err)
			}
			c.close()
		}
	}
	other := field{onKey, equal, 0, "somebody's"}
	w := Watch{Path: dir, Dir: true}
	on := w.rule()
	on.fields = append(on.fields, other)
	defer add(on, rule{list: listExit, action: actAlways, mask: abis[0].mask([]string{"delete_module"}), fields: []field{{onArch, equal, abis[0].arch, ""}, other}})()
	before := snapshot(t)
	others := func() (n int) {
		c, err := openControl()
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		all, err := c.rules()
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range all {
			r, _ := parseRule(raw)
			if _, _, is := r.ours(); !is {
				n++
			}
		}
		return n
	}
	l := watch(t, Options{Replace: true})
	if others() != 0 || !strings.Contains(l.lines(), "the 2 rules that were there are taken out until goshawk ends") {
		t.Errorf("%d rules of others are left: %s", others(), l.lines())
	}
	l.stop()
	if after := snapshot(t); after != before {
		t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
	}

	state := filepath.Join(t.TempDir(), "state")
	r := startRole(t, "run", nil, "STATE="+state, "REPLACE=1")
	if r.first != "case own" || others() != 0 {
		t.Errorf("it said %q, and %d rules of others are left", r.first, others())
	}
	r.kill()
	s, err := Open(testOptions(t, Options{StateDir: state}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := snapshot(t); after != before {
		t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

// TestLiveClear takes out what is there at the end, as asked for.
func TestLiveClear(t *testing.T) {
	needAudit(t)
	c, err := openControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	other := rule{list: listExit, action: actAlways, mask: abis[0].mask([]string{"delete_module"}),
		fields: []field{{onArch, equal, abis[0].arch, ""}, {onKey, equal, 0, "somebody's"}}}
	raw := other.append(nil)
	if err := c.do(msgAddRule, raw, nil); err != nil {
		t.Fatal(err)
	}
	defer deleteRules(c, [][]byte{raw})
	watch(t, Options{Clear: true}).stop()
	if all, err := c.rules(); err != nil || len(all) != 0 {
		t.Errorf("%d rules are left, %v", len(all), err)
	}
}

// TestLiveYielding leaves audit to whoever asked for it, and never takes it again.
func TestLiveYielding(t *testing.T) {
	needAudit(t)
	t.Cleanup(setStatus(t, setEnabled, func(s *status) { s.enabled = 1 }))
	a := newAuditd(t)
	l := watch(t, Options{Yielding: true}, func(s *Source) { s.patience = 0 })
	if out, err := exec.Command("auditd", "-n", "-c", a.dir).CombinedOutput(); err == nil {
		t.Fatalf("auditd has taken audit from us:\n%s", out)
	}
	eventually(t, "goshawk gives audit up", func() bool { return l.s.Case() == CaseBeside })
	for begun, n := time.Now(), 1; time.Since(begun) < 3*pollBusy; n++ {
		tellAudit(t, "goshawk test") // by which it looks around each second
		eventually(t, "a message of a program", func() bool { return l.seen("user") >= uint64(n) })
	}
	if l.s.Case() != CaseBeside || owner(t) != 0 {
		t.Errorf("case %q, owner %d: %s", l.s.Case(), owner(t), l.lines())
	}
}

// playAccept accepts where nobody has come.
func playAccept() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(s, 1)); err != nil {
		return err
	}
	if _, _, err := unix.Accept(s); err != unix.EAGAIN {
		return fmt.Errorf("accept: %v", err)
	}
	return nil
}

// TestLiveNullAccepts tells of accepts for which nobody waited only when it is to.
func TestLiveNullAccepts(t *testing.T) {
	needAudit(t)
	for _, null := range []bool{false, true} {
		l := watch(t, Options{Kinds: []event.ID{event.KindAccept, event.KindListen}, NullAccepts: null})
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), roleVar+"=accept")
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
		if out, err := child.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%v: %s", err, out)
		}
		l.stop() // which reads what was recorded until then
		pid := uint32(child.Process.Pid)
		listened := slices.ContainsFunc(l.events, func(e event.Event) bool { h := e.Head(); return h.Kind == event.KindListen && h.PID == pid })
		accepted := slices.ContainsFunc(l.events, func(e event.Event) bool {
			return e.Head().Kind == event.KindAccept && e.Head().PID == pid && len(columnErrors(t, e, "accept result=EAGAIN")) == 0
		})
		if !listened || accepted != null {
			t.Errorf("null accepts %v: listened %v, accepted %v\n%s", null, listened, accepted, l.lines())
		}
	}
}

// TestNoRules has none, for records of programs need none: nobody can have removed them.
func TestNoRules(t *testing.T) {
	told := ""
	s := &Source{journal: &journal{}, opt: Options{Tell: func(line string) { told = line }}}
	if s.checkRules(); told != "" || s.loop.added != 0 {
		t.Errorf("told %q", told)
	}
}
