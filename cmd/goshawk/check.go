package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// checkOptions are the flags of check.
type checkOptions struct {
	sensing
	format   string
	selfTest bool
	rootDir  string
	hostRoot string
}

func newCheck() *cobra.Command {
	o := &checkOptions{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "See what this kernel allows",
		Long: `See what this kernel allows: what it offers; for each hook (a place in the kernel where
events are observed) the tier (the way it is attached) in use and why better ones were
refused, or why none works; who owns the audit subsystem; and which container runtimes
are here. Hooks are proved by attaching them for a moment. Nothing is kept, and a running
agent is not disturbed.

With --self-test it also does one thing of each kind (start itself, connect over loopback,
ask a name server of its own), and proves that each is told by its hook, truly and within
a second, and that the counters balance; else it exits with 1.

The last line says what works, and what to do when nothing does.`,
		Example: `  goshawk check
  goshawk check --self-test
  goshawk check --format json | jq .hooks
  goshawk check --tier connect=tracepoint`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitUnsupported, exitPrivilege),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.format != "text" && o.format != "json" {
				return failf(exitUsage, "--format: no format is called %q; formats are text, json", o.format)
			}
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.format, "format", "text", "how to print: text or json (one object)")
	f.BoolVar(&o.selfTest, "self-test", false, "do one thing of each kind, and prove that it is told")
	o.flags(f)
	f.StringVar(&o.rootDir, "root-dir", "/", "directory below which all files of goshawk lie")
	f.StringVar(&o.hostRoot, "host-root", "/", "where the root directory of the host is, for goshawk in a container")
	return cmd
}

func (o *checkOptions) run(ctx context.Context, out io.Writer) error {
	f := procfs.At(o.hostRoot)
	types, err := o.types(f, o.rootDir)
	if err != nil {
		return err
	}
	r := report{Kernel: kernel.Probe(f, o.hostRoot, types), Runtimes: kernel.Runtimes(o.hostRoot)}
	state := audit.Look(f)
	r.Audit = auditTextOf(&state)
	code := r.tryHooks(ctx, sensor.Options{FS: f, Tiers: o.forced(), BTF: types, Object: o.object}, o.selfTest)
	print := r.text
	if o.format == "json" {
		print = func(w io.Writer) error { return printJSON(w, r) }
	}
	if err := print(out); err != nil {
		return failed(err)
	}
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

// report is what check finds.
type report struct {
	Kernel   []kernel.Fact    `json:"kernel"`
	Hooks    []hookText       `json:"hooks"`
	Files    *filesText       `json:"files,omitempty"` // of tier fanotify, when it is used
	Rings    []sensor.Ring    `json:"rings"`
	Audit    auditText        `json:"audit"`
	Runtimes []kernel.Runtime `json:"runtimes"`
	SelfTest *selfTest        `json:"self_test,omitempty"`
	Source   string           `json:"source"` // that run would choose, empty when none works
	Result   string           `json:"result"`
}

type hookText struct {
	Source  string   `json:"source"`
	Name    string   `json:"name"`
	Kinds   []string `json:"kinds"`
	Tier    string   `json:"tier"`
	Best    bool     `json:"best"`
	Refused string   `json:"refused,omitempty"`
	Silent  bool     `json:"silent,omitempty"` // what the agent did last to try it was not told
}

// filesText is what is not told of files.
type filesText struct {
	Systems []string `json:"file_systems_unseen"` // and why
	Deeds   []string `json:"not_told"`
}

// auditText is the audit subsystem as it is found.
type auditText struct {
	Case         audit.Case `json:"case"` // none, own, beside, locked or reader
	Enabled      bool       `json:"enabled"`
	Owner        uint32     `json:"owner"` // pid of who receives its records, 0 nobody
	Command      string     `json:"command,omitempty"`
	Rules        int        `json:"rules"`
	Unseen       []string   `json:"unseen,omitempty"` // what no rule tells of yet
	Failure      string     `json:"failure,omitempty"`
	Backlog      uint32     `json:"backlog"`
	BacklogLimit uint32     `json:"backlog_limit"`
	Lost         uint32     `json:"lost"`
	Advice       []string   `json:"advice"`
}

func auditTextOf(s *audit.State) auditText {
	return auditText{
		Case: s.Case, Enabled: s.Enabled, Owner: s.Owner.PID, Command: s.Owner.Command, Rules: s.Rules, Unseen: s.Unseen,
		Failure: s.Failure, Backlog: s.Backlog, BacklogLimit: s.BacklogLimit, Lost: s.Lost, Advice: s.Lines(),
	}
}

// tryHooks attaches every hook for a moment, tests them if asked to, and returns the exit
// code.
func (r *report) tryHooks(ctx context.Context, o sensor.Options, test bool) int {
	r.Hooks, r.Rings = []hookText{}, []sensor.Ring{}
	o.Files = &selection.Set{} // no file, but by which tier it would be
	s, err := sensor.Open(o)
	var hooks []event.Hook
	var unsupported *sensor.Unsupported
	switch {
	case err == nil:
		hooks, r.Rings = s.Hooks(), s.Rings()
		if test {
			r.SelfTest, err = testHooks(ctx, s)
		}
		err = errors.Join(err, s.Close())
	case errors.As(err, &unsupported):
		hooks = unsupported.Hooks
	}
	for i := range hooks {
		r.Hooks = append(r.Hooks, textOf(&hooks[i]))
		if hooks[i].Name == sensor.FileHook && hooks[i].Tier != "" {
			f := &filesText{}
			var e error
			f.Systems, f.Deeds, e = sensor.CannotWatch(o.FS, hooks[i].Tier)
			err = errors.Join(err, e)
			r.Files = f
		}
	}
	return r.conclude(err)
}

// conclude writes the last line, and returns the exit code.
func (r *report) conclude(err error) int {
	works, best := 0, 0
	var idle []string
	for _, h := range r.Hooks {
		switch {
		case h.Tier == "":
			idle = append(idle, h.Name)
		case h.Best:
			best++
			fallthrough
		default:
			works++
		}
	}
	switch {
	case works > 0:
		r.Source = "ebpf"
		count := fmt.Sprint(works)
		if len(idle) > 0 {
			count = fmt.Sprintf("%d of %d", works, len(r.Hooks))
		}
		r.Result = fmt.Sprintf("eBPF works: %s hooks, %d at their best tier", count, best)
		if len(idle) > 0 {
			r.Result += "; goshawk run goes without " + strings.Join(idle, ", ")
		}
		return r.concludeTest(err)
	case r.Audit.Case != audit.CaseNone:
		r.Source = "audit"
		r.Result = "eBPF cannot run: " + r.why(err) + "; audit works: goshawk run uses it, as with --source audit"
		return exitOK
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		r.Result = "eBPF cannot run for this user: run goshawk check as root"
		if unix.Geteuid() == 0 {
			advice := strings.TrimPrefix(r.advice("grant CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"), "run as root, or ")
			r.Result = "eBPF cannot run for this root: " + advice
		}
		return exitPrivilege
	}
	r.Result = "eBPF cannot run: " + r.why(err) + "; nor can audit: " + strings.Join(r.Audit.Advice, "; ")
	return exitUnsupported
}

// why is the reason why no hook works, and what can be done about it.
func (r *report) why(err error) string {
	if err == nil {
		return "no hook is known"
	}
	if advice := r.advice(""); advice != "" {
		return oneLine(err) + "; " + advice
	}
	return oneLine(err)
}

// advice is what the kernel's facts say can be done, or otherwise.
func (r *report) advice(otherwise string) string {
	var all []string
	for _, k := range r.Kernel {
		if k.State == kernel.Missing {
			all = append(all, k.Advice)
		}
	}
	if len(all) == 0 {
		return otherwise
	}
	return strings.Join(all, "; ")
}
