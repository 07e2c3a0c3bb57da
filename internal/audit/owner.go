package audit

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// Case is how audit can be used on this host, as it is found.
type Case string

// The cases. CaseNone is none that works: State.Err says why.
const (
	CaseNone   Case = "none"
	CaseOwn    Case = "own"    // it is nobody's, so it can be ours
	CaseBeside Case = "beside" // another process owns it; records can be read, too
	CaseLocked Case = "locked" // nothing can be set before the next boot; records can be read
	CaseReader Case = "reader" // we may read records, but neither ask nor set anything
)

// Owner is the process that the kernel sends audit records to.
type Owner struct {
	PID     uint32 // 0: nobody
	Comm    string
	Command string // its arguments, with spaces between
	start   uint64
}

func (o *Owner) String() string {
	return fmt.Sprintf("%s (pid %d, %q)", o.Comm, o.PID, o.Command)
}

// State is audit as it is found before anything is changed.
type State struct {
	Case    Case
	Err     error // CaseNone: why
	Owner   Owner
	Rules   int      // how many are loaded that are not ours
	Enabled bool     // system calls and messages of programs are recorded
	Unseen  []string // groups of events that no rule tells of yet

	// As auditctl -s shows them.
	Failure      string // what the kernel does when it cannot tell: silent, printk or panic
	Backlog      uint32 // records that wait to be sent
	BacklogLimit uint32
	Lost         uint32 // records since boot, to whomever they were to go

	status status
	rules  [][]byte
	stale  [][]byte // rules of a goshawk that is gone
	busy   uint32   // pid of another goshawk that has rules
}

// ErrBusy says that another goshawk uses audit.
type ErrBusy struct{ PID uint32 }

func (e *ErrBusy) Error() string {
	return fmt.Sprintf("use audit: another goshawk (pid %d) does; stop that first", e.PID)
}

// Unsupported says that there is no audit to use here; it wraps the kernel's answer.
type Unsupported struct {
	Why string
	Err error
}

func (e *Unsupported) Error() string { return fmt.Sprintf("use audit: %s: %v", e.Why, e.Err) }
func (e *Unsupported) Unwrap() error { return e.Err }

// failures are the names of AUDIT_FAIL_*.
var failures = []string{"silent", "printk", "panic"}

// CAP_* of linux/capability.h.
const (
	capAuditControl = 30
	capAuditRead    = 37
)

// Look finds out how audit can be used, and changes nothing.
func Look(fs procfs.FS) State {
	c, err := openControl()
	if err != nil {
		return State{Case: CaseNone, Err: absent(err)}
	}
	defer c.close()
	s, err := look(c, fs)
	if err != nil {
		return State{Case: CaseNone, Err: err}
	}
	return s
}

// absent explains why there is no socket.
func absent(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return &Unsupported{"this kernel has no audit subsystem, or was booted with audit=0", err}
	}
	return err
}

func look(c *control, fs procfs.FS) (State, error) {
	var s State
	var err error
	if s.status, err = c.status(); err != nil {
		return withoutControl(fs, err)
	}
	s.Enabled = s.status.enabled != 0
	s.Backlog, s.BacklogLimit, s.Lost = s.status.backlog, s.status.backlogLimit, s.status.lost
	s.Failure = fmt.Sprint(s.status.failure)
	if n := int(s.status.failure); n < len(failures) {
		s.Failure = failures[n]
	}
	all, err := c.rules()
	if err != nil {
		return s, fmt.Errorf("list audit rules: %w", err)
	}
	dir, err := fs.Open()
	if err != nil {
		return s, err
	}
	defer dir.Close()
	s.sort(all, dir)
	if s.status.enabled == locked { // what a goshawk has left there tells, like any other
		s.rules, s.stale = append(s.rules, s.stale...), nil
	}
	s.Rules = len(s.rules)
	s.Unseen = unseen(s.rules)
	s.Owner, _ = ownerOf(dir, s.status.pid)
	switch {
	case s.status.enabled == locked:
		s.Case = CaseLocked
	case s.Owner.PID != 0:
		s.Case = CaseBeside
	default:
		s.Case = CaseOwn
		return s, nil
	}
	return s, canRead(dir, fs)
}

// withoutControl is what is left when the kernel does not answer us.
func withoutControl(fs procfs.FS, err error) (State, error) {
	s := State{Case: CaseReader, Enabled: true}
	s.Unseen = unseen(nil)
	switch err {
	case unix.ECONNREFUSED: // audit_netlink_ok
		return s, &Unsupported{"audit answers the host's user namespace only, and this is another", err}
	case unix.EPERM:
	default:
		return s, fmt.Errorf("ask for the state of audit: %w", err)
	}
	dir, e := fs.Open()
	if e != nil {
		return s, e
	}
	defer dir.Close()
	if canRead(dir, fs) != nil {
		return s, fmt.Errorf("use audit: needs CAP_AUDIT_CONTROL and the host's pid namespace, or at least CAP_AUDIT_READ: %w", err)
	}
	return s, nil
}

// canRead reports what stands against reading the multicast group, nil when nothing does.
func canRead(dir *procfs.Dir, fs procfs.FS) error {
	if held, err := fs.OwnCapabilities(); err == nil && held>>capAuditRead&1 == 0 {
		return fmt.Errorf("read audit beside its owner: needs CAP_AUDIT_READ: %w", unix.EPERM)
	}
	// The kernel sends to the group in the first network namespace only
	// (kauditd_send_multicast_skb). That of process 1 is it, wherever both are the host's.
	one, err := netNamespace(dir, 1)
	own, err2 := netNamespace(dir, unix.Getpid())
	if err == nil && err2 == nil && one != own {
		return &Unsupported{"audit is told to readers in the host's network namespace only, and this is another", unix.ENOTCONN}
	}
	return nil
}

func netNamespace(dir *procfs.Dir, pid int) (uint64, error) {
	p, err := dir.Process(pid)
	if err != nil {
		return 0, err
	}
	return p.NetNamespace()
}

// ownerOf reads who pid is. It reports false, and nobody, when that process is gone: the
// kernel notices only when it next sends something.
func ownerOf(dir *procfs.Dir, pid uint32) (Owner, bool) {
	p, err := dir.Process(int(pid))
	if err != nil {
		return Owner{}, false
	}
	var st procfs.Stat
	if p.Stat(&st) != nil || st.State == 'Z' || st.State == 'X' {
		return Owner{}, false
	}
	o := Owner{PID: pid, Comm: st.Comm, Command: st.Comm, start: st.StartTicks}
	if args, _, err := p.Cmdline(); err == nil && len(args) > 0 {
		o.Command = string(bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '}))
	}
	return o, true
}

// sort tells rules of goshawks from others. Ours say whose they are.
func (s *State) sort(all [][]byte, dir *procfs.Dir) {
	var ours [][]byte
	alive := uint32(0)
	marked := false
	for _, raw := range all {
		r, ok := parseRule(raw)
		pid, mark, is := r.ours()
		if !ok || !is {
			s.rules = append(s.rules, raw)
			continue
		}
		ours = append(ours, raw)
		if mark {
			marked = true
			if o, ok := ownerOf(dir, pid); ok && o.Comm == comm(dir) && pid != uint32(unix.Getpid()) {
				alive = pid
			}
		}
	}
	switch {
	case alive != 0:
		s.busy = alive
		s.rules = append(s.rules, ours...)
	case marked:
		s.stale = ours
	default: // somebody else's, by chance of the same key
		s.rules = append(s.rules, ours...)
	}
}

// comm is the name of this process, which another goshawk would have, too.
func comm(dir *procfs.Dir) string {
	o, _ := ownerOf(dir, uint32(unix.Getpid()))
	return o.Comm
}

// unseen lists the groups that the rules do not tell of in full: by a call that this
// machine's own programs make, whatever its arguments.
func unseen(rules [][]byte) []string {
	var told mask
	files := false
	for _, raw := range rules {
		r, ok := parseRule(raw)
		switch {
		case !ok:
			continue
		case r.list == listTask && r.action == actNever && len(r.fields) == 0:
			told, files = mask{}, false
			goto done
		case r.list != listExit || r.action != actAlways:
			continue
		}
		plain := true
		for _, f := range r.fields {
			switch f.on {
			case onPerm, onDir, onWatch:
				files, plain = true, false
			case onKey:
			case onPID:
				plain = plain && f.op == notEqual
			case onArch:
				plain = plain && f.op == equal && f.value == abis[0].arch
			default:
				plain = false
			}
		}
		if plain {
			told.join(&r.mask)
		}
	}
done:
	var out []string
	for i := range groups {
		g := &groups[i]
		seen := g.free || g.name == "file" && files || len(g.parts) > 0
		for _, p := range g.parts {
			m := abis[0].mask(p.calls)
			for w := range m {
				seen = seen && m[w]&^told[w] == 0
			}
		}
		if !seen && g.wanted(nil) {
			out = append(out, g.name)
		}
	}
	return out
}

// Lines say in plain words which case holds and what to do about it, a line each.
func (s *State) Lines() []string {
	if s.Case == CaseNone {
		return []string{s.Err.Error()}
	}
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	rules := fmt.Sprintf("%d rules", s.Rules)
	if s.Rules == 1 {
		rules = "1 rule"
	}
	unseen := ""
	if len(s.Unseen) > 0 {
		unseen = "; not seen: " + strings.Join(s.Unseen, ", ")
	}
	switch s.Case {
	case CaseOwn:
		say("audit has no owner: goshawk can take it, and adds rules of its own (key %s) while it runs", Key)
		if s.neverTask() {
			say("audit has the rule never,task: no system call of a process started under it is told; auditctl -d never,task removes it")
		}
	case CaseBeside:
		say("audit belongs to %s: goshawk reads beside it and adds no rules, so it sees what programs report and what the %s there tell%s; "+
			"--audit-with-auditd adds goshawk's rules (the owner then gets and writes their records, too), --stop-auditd takes its place", &s.Owner, rules, unseen)
	case CaseLocked:
		say("audit is locked until the next boot (auditctl -e 2): goshawk reads what comes, that is what programs report and what the %s there tell%s", rules, unseen)
	case CaseReader:
		say("audit may be read but not asked or set here (that needs CAP_AUDIT_CONTROL in the host's pid namespace): goshawk reads what comes")
	}
	if !s.Enabled && s.Case != CaseOwn {
		say(switchedOff)
	}
	return out
}

const switchedOff = "audit is switched off (enabled 0), so nothing comes; auditctl -e 1 switches it on"

// neverTask reports whether a rule keeps tasks from being audited at all.
func (s *State) neverTask() bool {
	for _, raw := range s.rules {
		if r, ok := parseRule(raw); ok && r.list == listTask && r.action == actNever {
			return true
		}
	}
	return false
}

// stopTimeout is how long an owner may take to end.
const stopTimeout = 15 * time.Second

// stop asks the owner to end, and waits until the kernel has noticed.
func (o *Owner) stop(c *control, fs procfs.FS) error {
	if o.PID <= 1 {
		return fmt.Errorf("stop the owner of audit: process %d is not to be stopped", o.PID)
	}
	fd, err := unix.PidfdOpen(int(o.PID), 0)
	if err == nil {
		defer unix.Close(fd)
	} else if err != unix.ENOSYS && err != unix.EPERM { // before 5.3; a filter
		return fmt.Errorf("stop %s: %w", o, err)
	} else {
		fd = -1
	}
	dir, err := fs.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	// The descriptor holds the process, whose number may have been another's by then.
	if now, ok := ownerOf(dir, o.PID); !ok || now.start != o.start {
		return nil
	}
	if fd >= 0 {
		err = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	} else {
		err = unix.Kill(int(o.PID), unix.SIGTERM)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("stop %s: %w", o, err)
	}
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(20 * time.Millisecond) {
		s, err := c.status()
		if err != nil {
			return fmt.Errorf("stop %s: %w", o, err)
		}
		now, alive := ownerOf(dir, o.PID)
		alive = alive && now.start == o.start
		if s.pid != o.PID && s.pid != 0 {
			return fmt.Errorf("stop %s: process %d took its place", o, s.pid)
		}
		if !alive {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stop %s: it has not ended within %v of SIGTERM", o, stopTimeout)
		}
	}
}
