package audit

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Source is audit, opened.
type Source struct {
	opt     Options
	self    uint32
	c       *control
	r       *reader
	volume  *volume
	decode  *decoder
	ask     ask
	journal *journal // nil: nothing of the kernel's is changed
	wake    int      // eventfd that ends Run's wait
	loop    loop     // what belongs to Run
	// patience is how long somebody who asked for audit has to come for it.
	patience time.Duration

	delivered, unqueued         [event.MaxKind + 1]atomic.Uint64 // by kind
	kernelLost, overrun, broken atomic.Uint64                    // records or events; see Counts

	mu      sync.Mutex
	how     Case     // as it is now
	refused []string // by group: why its rules are not there, "" when they are
	watches *[]Watch // to be put in force by Run; nil: those of opt are

	closed   sync.Once
	closeErr error
}

// Open prepares to read audit, and changes no more of it than it must. The error is
// *ErrBusy when another goshawk is at it, *Unsupported when there is nothing to read here,
// and wraps unix.EPERM when a privilege is missing. What does not work of the rest is told.
func Open(o Options) (*Source, error) {
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	s := &Source{opt: o, self: uint32(unix.Getpid()), wake: -1, volume: newVolume(o.Rates),
		refused: make([]string, len(groups)), patience: takeAgain}
	dir, err := o.FS.Open()
	if err != nil {
		return nil, err
	}
	s.ask = ask{dir}
	s.decode = newDecoder(decoderOptions{BootID: o.BootID, Kinds: o.Kinds, Self: s.self, OmitModules: o.OmitModules, Own: func(change string) bool { return s.c.own(change) },
		FDPath: s.ask.fdPath, Thread: s.ask.thread})
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Source) tell(format string, args ...any) { s.opt.Tell(fmt.Sprintf(format, args...)) }

func (s *Source) open() error {
	var err error
	if s.c, err = openControl(); err != nil {
		return absent(err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	if _, err := s.c.status(); err == nil { // else nothing can have been changed, nor be put back
		if err := s.repair(); err != nil {
			return err
		}
	}
	state, err := look(s.c, s.opt.FS)
	if err != nil {
		return err
	}
	if state.busy != 0 {
		return &ErrBusy{state.busy}
	}
	if len(state.stale) > 0 {
		if err := errors.Join(deleteRules(s.c, state.stale)...); err != nil {
			s.tell("audit: %d rules of a goshawk that is gone stay: %v", len(state.stale), err)
		} else {
			s.tell("audit: removed %d rules of a goshawk that is gone; its settings are not known any more, auditctl -s shows the present ones", len(state.stale))
		}
	}
	if state.Case == CaseBeside && s.opt.StopOwner {
		switch err := state.Owner.stop(s.c, s.opt.FS); err {
		case nil:
			s.tell("audit: stopped %s; it is not started again when goshawk ends: start it yourself", &state.Owner)
			if state, err = look(s.c, s.opt.FS); err != nil {
				return err
			}
		default:
			s.tell("audit: %v; reading beside it", err)
		}
	}
	switch {
	case state.Case != CaseOwn:
		return s.beside(&state)
	case s.opt.ReadOnly:
		return s.look(&state)
	}
	return s.own(&state)
}

// repair undoes what an earlier run of ours left behind.
func (s *Source) repair() error {
	j, err := readJournal(s.journalPath())
	if j == nil || err != nil {
		return err
	}
	if j.boot != s.opt.BootID {
		return j.remove()
	}
	alive, err := j.alive(s.opt.FS)
	switch {
	case err != nil:
		return err
	case alive && j.pid != s.self:
		return &ErrBusy{j.pid}
	}
	if err := j.undo(s.c); err != nil { // the journal stays, for another try
		s.tell("audit could not be put back as it was before goshawk (pid %d) ended: %v", j.pid, err)
		return nil
	}
	s.tell("audit: put back as it was before goshawk (pid %d) was killed", j.pid)
	return nil
}

func (s *Source) journalPath() string { return filepath.Join(s.opt.StateDir, journalName) }

// own makes audit ours, with our rules.
func (s *Source) own(state *State) error {
	j, err := s.newJournal()
	if err != nil {
		return err
	}
	now, mask := state.status, uint32(0)
	want := func(bit uint32, value *uint32, to uint32) {
		for _, k := range knobs {
			if k.bit == bit && *value != to {
				j.settings = append(j.settings, setting{k.name, *value, to})
				*value = to
				mask |= bit
			}
		}
	}
	want(setEnabled, &now.enabled, 1)
	if now.failure == failPanic { // with our rules, a queue that is full would stop the machine
		want(setFailure, &now.failure, failPrintk)
	}
	if limit := max(s.opt.Backlog, now.backlogLimit); s.opt.Backlog == 0 {
		want(setBacklog, &now.backlogLimit, max(defaultBacklog, limit))
	} else {
		want(setBacklog, &now.backlogLimit, s.opt.Backlog)
	}
	if now.canSetWait() { // a reader that stalls must not stall whoever makes system calls
		want(setBacklogWait, &now.backlogWait, 0)
	}
	if s.opt.Replace {
		j.replaced = state.rules
	}
	if err := j.write(); err != nil {
		return err
	}
	s.journal = j
	if errs := deleteRules(s.c, j.replaced); len(errs) > 0 {
		return fmt.Errorf("replace audit rules: %w", errors.Join(errs...))
	}
	if n := len(j.replaced); n > 0 {
		s.tell("audit: the %d rules that were there are taken out until goshawk ends (audit_force_reconfigure)", n)
	}
	r, err := openReader(false, s.receive())
	if err != nil {
		return err
	}
	s.r = r
	if err := s.register(); err != nil {
		return err
	}
	s.setCase(CaseOwn)
	if mask != 0 {
		if err := s.c.set(now, mask); err != nil {
			return fmt.Errorf("set up audit: %w", err)
		}
	}
	s.loop.lost = state.status.lost
	if err := s.install(j, false); err != nil {
		return err
	}
	if !s.opt.Replace && state.neverTask() {
		s.tell("audit: the rule never,task keeps processes that start under it from being seen; auditctl -d never,task removes it")
	}
	if state.status.enabled == 0 {
		s.tell("audit was off: of processes that ran before it was first switched on, system calls are not seen, only those of their children")
	}
	if n := now.rateLimit; n != 0 {
		s.tell("audit: the kernel drops what is above %d records a second (auditctl -r)", n)
	}
	return nil
}

// register makes us the owner.
func (s *Source) register() error {
	s.c.changing(fmt.Sprintf("audit_pid=%d", s.self))
	if err := s.r.register(s.self); err != nil {
		return fmt.Errorf("own audit: %w", err)
	}
	now, err := s.c.status()
	if err != nil {
		return fmt.Errorf("ask for the state of audit: %w", err)
	}
	if now.pid != s.self {
		return fmt.Errorf("own audit: the kernel did not make us its owner, process %d is: %w", now.pid, unix.EEXIST)
	}
	return nil
}

// beside reads what is told to whoever wants it.
func (s *Source) beside(state *State) error {
	r, err := openReader(true, s.receive())
	if err != nil {
		return fmt.Errorf("read audit beside its owner (needs CAP_AUDIT_READ): %w", err)
	}
	s.r = r
	s.setCase(state.Case)
	s.loop.lost = state.status.lost
	if state.Case == CaseBeside && s.opt.WithOwner {
		j, err := s.newJournal()
		if err != nil {
			return err
		}
		s.tell("audit belongs to %s: reading beside it; goshawk's rules are added, so their records go to the owner, too", &state.Owner)
		if !state.Enabled {
			s.tell("%s", switchedOff)
		}
		return s.install(j, true)
	}
	if s.opt.ReadOnly && state.Case != CaseLocked {
		s.tell("audit may not be changed (audit_allow_config is false): goshawk adds no rules, and reads what programs report and what the %d rules there tell", state.Rules)
		if !state.Enabled {
			s.tell("%s", switchedOff)
		}
	} else {
		for _, line := range state.Lines() {
			s.tell("%s", line)
		}
	}
	s.refuse(state.Unseen, state.Case)
	return nil
}

// look reads what is told to whoever wants it where nobody owns audit, and nothing may be
// changed.
func (s *Source) look(state *State) error {
	dir, err := s.opt.FS.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := canRead(dir, s.opt.FS); err != nil {
		return err
	}
	state.Case = CaseReader
	return s.beside(state)
}

// refuse notes which groups nothing tells of, as there are no rules of ours.
func (s *Source) refuse(unseen []string, c Case) {
	why := map[Case]string{CaseBeside: "audit has an owner, and no rules are added beside it",
		CaseLocked: "audit is locked until the next boot", CaseReader: "rules need CAP_AUDIT_CONTROL"}[c]
	if s.opt.ReadOnly {
		why = "nothing of audit's may be changed"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range groups {
		s.refused[i] = ""
		if slices.Contains(unseen, groups[i].name) {
			s.refused[i] = why
		}
	}
}

func (s *Source) newJournal() (*journal, error) {
	dir, err := s.opt.FS.Open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	o, ok := ownerOf(dir, s.self)
	if !ok {
		return nil, errors.New("read our own process: it is not in /proc")
	}
	return &journal{path: s.journalPath(), boot: s.opt.BootID, pid: s.self, start: o.start}, nil
}

// install writes the journal and adds our rules, one by one; it tells of those that the
// kernel refuses.
func (s *Source) install(j *journal, beside bool) error {
	rules := s.plan(j, beside)
	if err := j.write(); err != nil {
		return err
	}
	s.journal = j
	refused, err := s.add(rules, j)
	if err == errNoExeCondition {
		s.opt.exesByRule = true
		deleteRules(s.c, j.rules)
		rules = s.plan(j, beside)
		if err := j.write(); err != nil {
			return err
		}
		refused, _ = s.add(rules, j)
		for _, w := range s.opt.Watches {
			if !w.Dir {
				s.tell("audit: this kernel cannot leave out executables from what is told of %s", w.Path)
			}
		}
	}
	s.mu.Lock()
	s.refused = refused
	s.mu.Unlock()
	return nil
}

// Watch puts other files in the place of Options.Watches. Run changes the rules, soon. It may be
// called from any goroutine, before Run or while it runs.
func (s *Source) Watch(watches []Watch) error {
	if err := (&Options{Watches: watches}).Check(); err != nil {
		return err
	}
	s.mu.Lock()
	s.watches = &watches
	s.mu.Unlock()
	s.interrupt()
	return nil
}

// rewatch does what Watch has asked for: rules that stay are not touched. An exclusion must stand
// before what it excludes: when there is a new one, all rules are made anew.
func (s *Source) rewatch() {
	s.mu.Lock()
	watches := s.watches
	s.watches = nil
	s.mu.Unlock()
	if watches == nil {
		return
	}
	s.opt.Watches = *watches
	j := s.journal
	if j == nil { // beside an owner, or a mere reader: there are no rules
		return
	}
	old := slices.Clone(j.rules)
	had := func(raw []byte) bool {
		return slices.ContainsFunc(old, func(o []byte) bool { return slices.Equal(o, raw) })
	}
	rules := s.plan(j, s.how == CaseBeside)
	fresh := slices.Clone(j.rules)
	anew := false
	for i := range rules {
		anew = anew || rules[i].list != listExclude && rules[i].action == actNever && !had(fresh[i])
	}
	gone := slices.DeleteFunc(slices.Clone(old), func(raw []byte) bool {
		return !anew && slices.ContainsFunc(fresh, func(f []byte) bool { return slices.Equal(f, raw) })
	})
	j.rules = append(slices.Clone(fresh), gone...)
	if err := j.write(); err != nil {
		s.tell("audit: other files cannot be watched: %v", err)
		j.rules = old
		return
	}
	if errs := deleteRules(s.c, gone); len(errs) > 0 {
		s.tell("audit: %v", errors.Join(errs...))
	}
	refused, _ := s.add(rules, j) // the first of j.rules; whether exe can be a condition is known by now
	j.rules = fresh
	if err := j.write(); err != nil { // the one before names these, too
		s.tell("audit: %v", err)
	}
	s.mu.Lock()
	s.refused = refused
	s.mu.Unlock()
}

func (s *Source) plan(j *journal, beside bool) []rule {
	rules := plan(&s.opt, s.self, beside)
	j.rules = j.rules[:0]
	for i := range rules {
		j.rules = append(j.rules, rules[i].append(nil))
	}
	return rules
}

var errNoExeCondition = errors.New("no condition on executables that are not")

// add adds rules. It returns for each group why nothing tells of it.
func (s *Source) add(rules []rule, j *journal) ([]string, error) {
	refused := make([]string, len(groups))
	works := make([]bool, len(groups))
	for i := range rules {
		r := &rules[i]
		err := s.c.do(msgAddRule, j.rules[i], nil)
		if err == unix.EINVAL && r.action == actAlways && len(s.opt.ExcludeExes) > 0 && !s.opt.exesByRule {
			return nil, errNoExeCondition
		}
		if err == nil || err == unix.EEXIST { // of ours: nobody else's leaves out this process
			for _, g := range r.groups {
				works[g] = true
			}
			continue
		}
		// The kernel before 5.16 has no list for io_uring, which goes past every rule there; and
		// those before 4.8 leave out records by their type alone, not by who makes them.
		if (r.list == listRing || r.list == listExclude) && err == unix.EINVAL {
			continue
		}
		s.tell("audit: the kernel refuses the rule for %s: %v", r.what, err)
		for _, g := range r.groups {
			if refused[g] == "" {
				refused[g] = fmt.Sprintf("%s: %v", r.what, err)
			}
		}
	}
	for i := range groups {
		switch {
		case works[i]:
			refused[i] = ""
		case groups[i].free:
		case refused[i] == "" && groups[i].name == "file":
			refused[i] = "no file is watched"
		case refused[i] == "":
			refused[i] = "no rule"
		}
	}
	return refused, nil
}

func (s *Source) receive() int {
	if s.opt.Receive > 0 {
		return s.opt.Receive
	}
	return defaultReceive
}

func (s *Source) setCase(c Case) {
	s.mu.Lock()
	s.how = c
	s.mu.Unlock()
}

// Case is how audit is used now. It may change while Run runs, when another process comes
// to own audit.
func (s *Source) Case() Case {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.how
}

// Hooks returns one hook for each group of rules that an enabled kind needs.
func (s *Source) Hooks() []event.Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []event.Hook
	for i := range groups {
		g := &groups[i]
		if !g.wanted(s.opt.Kinds) {
			continue
		}
		h := event.Hook{Source: "audit", Name: g.name, Kinds: g.kinds, Refused: s.refused[i], Seen: s.volume.seen[i].Load()}
		if h.Refused == "" {
			h.Tier, h.Best = "audit", true
		}
		out = append(out, h)
	}
	return out
}

// Counts returns the counters of the way from the kernel to the agent.
func (s *Source) Counts() []event.Count {
	var out []event.Count
	var undecoded [event.MaxKind + 1]uint64 // by kind: what was lost before it was decoded
	add := func(kind event.ID, what, reason string, n uint64) {
		if n > 0 {
			out = append(out, event.Count{Source: "audit", Kind: kind, What: what, Reason: reason, N: n})
		}
	}
	lost := func(kind event.ID, reason string, n uint64) {
		undecoded[kind] += n
		add(kind, event.Lost, reason, n)
	}
	for g := range s.volume.lost {
		kind := event.ID(0)
		if g < foreign {
			kind = groups[g].kinds[0]
		}
		for r := range reasonNames {
			lost(kind, reasonNames[r], s.volume.lost[g][r].Load())
		}
	}
	for kind := range s.delivered {
		add(event.ID(kind), event.Delivered, "", s.delivered[kind].Load())
		add(event.ID(kind), event.Lost, reasonNames[byQueue], s.unqueued[kind].Load())
	}
	// The kernel counts records, of whatever kind: it cannot say which events they were of.
	lost(0, reasonNames[byBacklog], s.kernelLost.Load())
	lost(0, "netlink_overrun", s.overrun.Load())
	lost(0, "malformed", s.broken.Load())
	for _, c := range s.decode.counts() {
		if c.What == event.Generated {
			undecoded[c.Kind] += c.N
		} else {
			out = append(out, c)
		}
	}
	for kind, n := range undecoded {
		add(event.ID(kind), event.Generated, "", n)
	}
	return out
}

// Run sends batches of events until ctx ends; then it takes our rules out, and sends what
// the kernel had recorded until then. It may be called once.
func (s *Source) Run(ctx context.Context, out chan<- *event.Batch) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.interrupt()
		close(interrupted)
	})
	defer func() {
		if !stop() { // it has begun, and must not meet a closed eventfd
			<-interrupted
		}
	}()
	return s.read(ctx, out)
}

func (s *Source) interrupt() {
	one := [8]byte{1}
	// Fails only when the counter is full, and then the reader is awake anyway.
	unix.Write(s.wake, one[:])
}

// release puts audit back as it was.
func (s *Source) release() error {
	var errs []error
	if s.journal != nil {
		if err := s.journal.undo(s.c); err != nil {
			errs = append(errs, fmt.Errorf("put audit back as it was: %w", err))
		}
		s.journal = nil
		if s.opt.Clear {
			errs = append(errs, s.clear())
		}
	}
	if s.Case() == CaseOwn {
		errs = append(errs, s.unregister())
		s.setCase(CaseNone)
	}
	return errors.Join(errs...)
}

// clear takes out all rules.
func (s *Source) clear() error {
	all, err := s.c.rules()
	if err != nil {
		return fmt.Errorf("list audit rules: %w", err)
	}
	if err := errors.Join(deleteRules(s.c, all)...); err != nil {
		return fmt.Errorf("clear audit: %w", err)
	}
	return nil
}

func (s *Source) unregister() error {
	now, err := s.c.status()
	if err != nil {
		return fmt.Errorf("ask for the state of audit: %w", err)
	}
	if now.pid != s.self { // what is another's is not ours to give up
		return nil
	}
	s.c.changing("audit_pid=0")
	if err := s.r.register(0); err != nil {
		return fmt.Errorf("give up audit: %w", err)
	}
	if now, err = s.c.status(); err != nil {
		return fmt.Errorf("ask for the state of audit: %w", err)
	}
	if now.pid == s.self {
		return errors.New("give up audit: the kernel still has us as its owner")
	}
	return nil
}

// Close puts audit back as it was. Run must have returned.
func (s *Source) Close() error {
	s.closed.Do(func() {
		var errs []error
		if s.c != nil {
			errs = append(errs, s.release(), s.c.close())
		}
		if s.r != nil {
			errs = append(errs, s.r.close())
		}
		if s.wake >= 0 {
			errs = append(errs, unix.Close(s.wake))
		}
		errs = append(errs, s.ask.dir.Close())
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}
