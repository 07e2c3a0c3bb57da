package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/elastic/go-libaudit/v2"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Audit is the state of the kernel's audit subsystem.
type Audit struct {
	State   State  `json:"state"` // Missing: not built in or switched off; Unknown: not allowed to ask
	Enabled bool   `json:"enabled"`
	Locked  bool   `json:"locked"`  // auditctl -e 2: no rule changes until the next boot
	Owner   uint32 `json:"owner"`   // pid of who receives its records, 0 nobody
	Command string `json:"command"` // the owner's command line
	Failure string `json:"failure"` // what the kernel does when it cannot tell: silent, printk or panic

	Backlog      uint32 `json:"backlog"`
	BacklogLimit uint32 `json:"backlog_limit"`
	Lost         uint32 `json:"lost"` // records, since boot
	Rules        int    `json:"rules"`

	// Advice says who may be in the way of `--source audit`, or why audit cannot be asked.
	Advice string `json:"advice"`
}

// enabledLocked is audit_status.enabled after auditctl -e 2 (include/uapi/linux/audit.h).
const enabledLocked = 2

// failures are the names of AUDIT_FAIL_SILENT, _PRINTK and _PANIC.
var failures = []string{"silent", "printk", "panic"}

// ProbeAudit asks the kernel for the state of audit (AUDIT_GET, AUDIT_LIST_RULES) and
// changes nothing.
func ProbeAudit(f procfs.FS) Audit {
	status, rules, err := askAudit()
	if err != nil {
		return auditError(err)
	}
	a := Audit{
		State: OK, Enabled: status.Enabled != 0, Locked: status.Enabled == enabledLocked, Owner: status.PID,
		Failure: fmt.Sprint(status.Failure), Backlog: status.Backlog, BacklogLimit: status.BacklogLimit,
		Lost: status.Lost, Rules: rules,
	}
	if int(status.Failure) < len(failures) {
		a.Failure = failures[status.Failure]
	}
	if a.Owner != 0 {
		a.Command = command(f, int(a.Owner))
	}
	a.Advice = a.advice()
	return a
}

func askAudit() (*libaudit.AuditStatus, int, error) {
	c, err := libaudit.NewAuditClient(nil)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	status, err := c.GetStatus()
	if err != nil {
		return nil, 0, err
	}
	rules, err := c.GetRules()
	return status, len(rules), err
}

func auditError(err error) Audit {
	switch {
	case absent(err):
		return Audit{State: Missing, Advice: "this kernel has no audit, or was booted with audit=0"}
	case errors.Is(err, unix.ECONNREFUSED):
		return Audit{State: Missing, Advice: "audit answers in the host's own namespaces only"}
	case errors.Is(err, unix.EPERM):
		return Audit{State: Unknown, Advice: "run as root, or grant CAP_AUDIT_CONTROL"}
	}
	return Audit{State: Unknown, Advice: "ask audit: " + err.Error()}
}

func (a *Audit) advice() string {
	switch {
	case a.Locked:
		return "its rules are locked until the next boot: only what they select can be read"
	case a.Owner != 0:
		return fmt.Sprintf("%s receives its records: they can be read along, rules of our own would fill its log", a.owner())
	}
	return "nobody receives its records"
}

func (a *Audit) owner() string {
	name, _, _ := strings.Cut(a.Command, " ")
	if name == "" {
		name = "a process that is not visible here"
	}
	return fmt.Sprintf("%s (pid %d)", name, a.Owner)
}

// command is the command line of a process, or its name; empty when it is not visible.
func command(f procfs.FS, pid int) string {
	d, err := f.Open()
	if err != nil {
		return ""
	}
	defer d.Close()
	p, err := d.Process(pid)
	if err != nil {
		return ""
	}
	if args, _, err := p.Cmdline(); err == nil && len(args) > 0 {
		return strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
	}
	var s procfs.Stat
	if p.Stat(&s) != nil {
		return ""
	}
	return s.Comm
}
