package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLiveLocked is the last test of the package: audit stays locked until the next boot.
func TestLiveLocked(t *testing.T) {
	if os.Getenv("GOSHAWK_KERNELTEST") == "" {
		t.Skip("locks audit until the next boot: needs a kernel of its own (make test-kernels)")
	}
	state := filepath.Join(t.TempDir(), "state")
	mine := watch(t, Options{StateDir: state})
	if mine.s.Case() != CaseOwn {
		t.Fatalf("case %q: %s", mine.s.Case(), mine.lines())
	}
	setStatus(t, setEnabled, func(s *status) { s.enabled = locked })
	mine.once.Do(func() {
		mine.cancel()
		<-mine.done
		if err := mine.s.Close(); err == nil || !strings.Contains(err.Error(), "audit was locked (auditctl -e 2) while goshawk ran") {
			t.Errorf("it ended with %v", err)
		}
	})

	l := watch(t, Options{StateDir: state})
	if l.s.Case() != CaseLocked || !strings.Contains(l.lines(), "audit is locked until the next boot") {
		t.Errorf("case %q: %s", l.s.Case(), l.lines())
	}
	// Without a rule of its own it reads what those tell that are there.
	tellAudit(t, "goshawk test")
	eventually(t, "a message of a program", func() bool { return l.seen("user") > 0 })
	eventually(t, "an exit", func() bool {
		run(t, "/bin/true")
		return l.seen("exit") > 0
	})
	for _, h := range l.s.Hooks() {
		if (h.Name == "connect" || h.Name == "module") && h.Tier != "audit" || h.Name == "file" && h.Refused != "audit is locked until the next boot" {
			t.Errorf("hook %+v", h)
		}
	}
	l.stop()
	if s := Look(l.s.opt.FS); s.Case != CaseLocked || s.Err != nil || s.Rules == 0 {
		t.Errorf("found %+v", s)
	}
}
