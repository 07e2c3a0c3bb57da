package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// sourceNames are what --source takes.
var sourceNames = []string{"auto", "ebpf", "audit", "both"}

// auditLag is how late audit tells: the kernel's thread sends what system calls queued,
// and the last record of an event completes it.
const auditLag = 150 * time.Millisecond

// auditSlow is how far the clock of audit's records is behind: it ticks every 1 to 10 ms
// (ktime_get_coarse_real_ts64, CONFIG_HZ), and is cut to milliseconds.
const auditSlow = 11 * time.Millisecond

// sources are where events come from; what is not used is nil.
type sources struct {
	ebpf   *sensor.Sensor
	audit  *audit.Source
	canary *canary.Canary // of eBPF's hooks; audit looks itself whether its rules are there
}

// openSources opens what --source asks for, and says what it is when that is not plain.
func (o *runOptions) openSources(fs procfs.FS, bootID string, tell func(string)) (s *sources, err error) {
	s = &sources{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	types, err := o.types(fs, o.rootDir)
	if err != nil {
		return s, err
	}
	asked := o.kindIDs()
	var refused error // why eBPF cannot run
	if o.source != "audit" && (o.source == "ebpf" || wants(asked, sensor.Kinds())) {
		s.ebpf, refused = sensor.Open(sensor.Options{
			Kinds: asked, Also: append([]event.ID{event.KindContainer}, o.helpers()...), Tiers: o.forced(), BTF: types, Object: o.object, CriticalBytes: o.ringSize, BulkBytes: o.ringSize,
			Env: o.env, BootID: bootID, FS: fs, Files: o.files,
		})
		if refused != nil && o.source != "auto" {
			return s, sourceError(refused)
		}
	}
	if s.ebpf != nil {
		s.canary = canary.New(s.ebpf.Hooks, s.ebpf.Counts)
	}
	if o.source == "ebpf" {
		return s, nil
	}
	state := audit.Look(fs)
	kinds := o.allowed(auditKinds(o.source, asked, s.hooks(), &state))
	if len(kinds) == 0 {
		switch {
		case s.ebpf == nil && refused != nil:
			return s, sourceError(refused)
		case s.ebpf == nil && o.kinds == nil:
			return s, failf(exitUsage, "nothing is left that audit may tell of: give fewer of the flags audit_allow_… as false")
		case s.ebpf == nil:
			return s, failf(exitUnsupported, "no source tells of %s", strings.Join(o.kinds, ", "))
		case o.source == "both":
			tell("source: ebpf, which tells of everything asked for; audit is left alone")
		}
		return s, nil
	}
	quiet := o.source == "auto" && s.ebpf != nil && asked == nil // nobody asked for audit
	options, err := o.auditing.options()
	if err != nil {
		return s, err
	}
	options.Kinds, options.Watches, options.StateDir, options.BootID, options.FS = kinds, auditWatches(o.files), o.store(), bootID, fs
	options.Tell = func(line string) {
		if !quiet {
			tell(line)
		}
	}
	s.audit, err = audit.Open(options)
	switch {
	case err == nil && s.ebpf != nil:
		tell(fmt.Sprintf("source: ebpf, and audit for %s", kindList(kinds)))
		return s, nil
	case err == nil && refused != nil:
		tell(fmt.Sprintf("source: audit, since eBPF cannot run: %s", oneLine(refused)))
		return s, nil
	case err == nil:
		return s, nil
	case s.ebpf != nil:
		if !quiet {
			tell(fmt.Sprintf("source: ebpf without %s: %s", kindList(kinds), oneLine(err)))
		}
		return s, nil
	case refused != nil: // of two sources that cannot run the better one is to be mended
		return s, sourceError(fmt.Errorf("%w; nor can audit: %s", refused, oneLine(err)))
	}
	return s, sourceError(err)
}

// wants reports whether one of kinds is asked for.
func wants(asked, kinds []event.ID) bool {
	return asked == nil || slices.ContainsFunc(asked, func(k event.ID) bool { return slices.Contains(kinds, k) })
}

// auditKinds are the kinds that audit is to tell of, given the hooks of eBPF: those that
// eBPF does not tell of, since no event is to be told twice. With auto they are fewer: its
// rules cost every system call on the machine something, so audit joins eBPF only for what
// was asked for by name, for what eBPF should tell of and cannot here, and for what it
// tells without a rule to a mere reader.
func auditKinds(source string, asked []event.ID, ebpf []event.Hook, state *audit.State) []event.ID {
	reader := state.Enabled && (state.Case == audit.CaseBeside || state.Case == audit.CaseLocked || state.Case == audit.CaseReader)
	var out []event.ID
	for _, k := range audit.Kinds() {
		told, tried := false, false
		for i := range ebpf {
			if slices.Contains(ebpf[i].Kinds, k) {
				tried = true
				told = told || ebpf[i].Tier != ""
			}
		}
		switch {
		case told || asked != nil && !slices.Contains(asked, k):
		case source == "auto" && len(ebpf) > 0 && asked == nil && !tried && !(reader && audit.Free(k)):
		default:
			out = append(out, k)
		}
	}
	return out
}

func kindList(kinds []event.ID) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.String())
	}
	return strings.Join(names, ", ")
}

// name is what the sources are called together.
func (s *sources) name() string {
	var names []string
	for _, in := range s.inputs() {
		names = append(names, in.Name)
	}
	return strings.Join(names, ",")
}

// hooks are those of all sources.
func (s *sources) hooks() []event.Hook {
	var all []event.Hook
	for _, in := range s.inputs() {
		all = append(all, in.Hooks()...)
	}
	return all
}

// inputs are the sources as the agent takes them, each with what it and the canary know of
// it.
func (s *sources) inputs() []agent.Input {
	var all []agent.Input
	if s.ebpf != nil {
		all = append(all, agent.Input{
			Name: "ebpf", Source: s.ebpf,
			Hooks:  func() []event.Hook { return s.canary.Mark(s.ebpf.Hooks()) },
			Counts: func() []event.Count { return append(s.ebpf.Counts(), s.canary.Counts("ebpf")...) },
		})
	}
	if s.audit != nil {
		all = append(all, agent.Input{Name: "audit", Source: s.audit, Hooks: s.audit.Hooks, Counts: s.audit.Counts, Lag: auditLag, Slow: auditSlow})
	}
	return all
}

// seed tells of what runs already. What starts from here on is on its
// way in a source already.
func (s *sources) seed(ctx context.Context, proc *procfs.Dir, c *containers, yield func(*event.Exec)) error {
	if s.ebpf != nil {
		return s.ebpf.Seed(ctx, yield)
	}
	pids, err := proc.Pids(nil)
	if err != nil {
		return err
	}
	look := lookup(proc, c)
	for _, pid := range pids {
		var e event.Exec
		if look(uint32(pid), &e) {
			yield(&e)
		}
	}
	return ctx.Err()
}

// own reports whether an event is of the canary's making.
func (s *sources) own(e event.Event) bool { return s.canary != nil && s.canary.Own(e) }

func (s *sources) close() error {
	var errs []error
	if s.ebpf != nil {
		errs = append(errs, s.ebpf.Close())
	}
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	return errors.Join(errs...)
}

// sourceError gives an error of a source its exit code, and says what to do.
func sourceError(err error) error {
	var unsupported *sensor.Unsupported
	var without *audit.Unsupported
	var busy *audit.ErrBusy
	switch {
	case errors.As(err, &unsupported):
		return failf(exitUnsupported, "%w; goshawk check says what this kernel lacks", err)
	case errors.As(err, &without):
		return &exitError{exitUnsupported, err}
	case errors.As(err, &busy):
		return &exitError{exitBusy, err}
	case !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES):
		return err
	case unix.Geteuid() != 0:
		return failf(exitPrivilege, "%w: run as root", err)
	}
	return failf(exitPrivilege, "%w: this root may not do that; goshawk check says which capabilities are missing", err)
}
