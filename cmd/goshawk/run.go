package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// runOptions are the flags of run.
type runOptions struct {
	host
	sensing
	format       string
	quiet        bool
	kinds        []string
	source       string
	duration     time.Duration
	where        string
	env          []string
	rules        []string
	rulesMayLack bool // those directories need not be there
	ringSize     int
	canary       time.Duration

	excludeExes, excludeUIDs, excludeContainers []string

	watch   []string // patterns
	exclude []string
	spared  spared
	hash    []string       // digests of changed files: sha256, sha1, md5; or none
	files   *selection.Set // made of them; nil: no file is ever asked for

	container string
	pod       string
	runtimes  []string

	auditing
	idle bool // nothing is watched: the daemon without events

	// attach runs beside the agent; when it ends, so does the agent.
	attach func(context.Context, *answers) error

	expiry   int64
	lasting  int64 // seconds to keep alerts and what proved them
	maxRows  int64
	maxBytes int64
}

func newRun() *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Print what happens on this host, and keep it",
		Long: `Print what happens on this host, one event a line, until stopped, and keep it in the
store, where goshawk query finds it, also afterwards. No configuration is needed.

When it is ready it says so on standard error, in one line that begins with "ready:". At
the end (Ctrl-C, SIGTERM, --duration) it prints there how many events of each kind it
saw, what was lost and why, and what it cost.

--source auto uses eBPF, or the audit subsystem where eBPF cannot run. Audit joins eBPF for
kinds that --kinds names and eBPF does not tell of, for those it cannot tell of on this
kernel, and, where auditd runs, for logins and the like, which come without rules. Rules
cost every system call on the machine a little: --source both adds them for all kinds that
eBPF does not tell of.

--watch names files, and directories with what is in them, of which kind file then tells; without
it nothing is told of files, and nothing is spent on them.

--kinds chooses what is observed and kept; --where only what is printed. --quiet prints no
events at all, which spares the agent about a third of its CPU time. Losses are
events too (kind loss), and are always printed.

--rules matches events against detection rules in Sigma's language as they happen. What a
rule finds is an event of kind alert, printed and kept whatever --kinds says; --kinds alert
observes what the rules look at, and prints alerts only. Rules that change are followed
within seconds; those that cannot be used are named, and the others run: see goshawk rules.

Every few minutes it does one thing of each kind itself, as goshawk check --self-test does,
and says when a hook has gone silent: on standard error, as a loss with reason hook_silent,
and in the table goshawk_hooks. What it does for that is not printed and not kept.`,
		Example: `  goshawk run
  goshawk run --kinds exec,exit --duration 10s
  goshawk run --quiet
  goshawk run --watch '/etc/%%' --watch '/home/%/.ssh/%%'
  goshawk run --where "remote_port = 443 AND uid != 0"
  goshawk run --format json | jq -r 'select(.kind == "exec") | .path'`,
		Annotations: exitStatus(exitOK, exitFailed, exitUsage, exitUnsupported, exitPrivilege, exitBusy),
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.where == "" && cmd.Flags().Changed("where") {
				return failf(exitUsage, "--where: the expression is empty")
			}
			if o.quiet && (o.where != "" || cmd.Flags().Changed("format")) {
				return failf(exitUsage, "--quiet: nothing is printed, so --format and --where have nothing to do")
			}
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.format, "format", "text", "how to print: text (a line for people) or json (an object a line)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print no events, only keep them for goshawk query")
	f.StringSliceVar(&o.kinds, "kinds", nil, "kinds of event to observe, with commas (default all): "+strings.Join(kindNames(), ","))
	f.StringArrayVar(&o.watch, "watch", nil, "tell what is done to files that match a pattern (repeat); % or * stands for any text in a name, %% or ** for everything below")
	f.StringArrayVar(&o.exclude, "exclude", nil, "files that --watch names and that are left out, by a pattern (repeat)")
	f.StringSliceVar(&o.excludeExes, "exclude-exe", nil, "executables whose deeds on files are not told, by path, with commas")
	f.StringSliceVar(&o.excludeUIDs, "exclude-uid", nil, "users whose deeds on files are not told, by number, with commas")
	f.StringSliceVar(&o.excludeContainers, "exclude-container", nil, "containers whose deeds on files are not told, by name or the beginning of the id, with commas")
	f.StringSliceVar(&o.hash, "hash", []string{"sha256"}, "digests of files that were changed, and of kernel modules loaded (sha256 alone), with commas: sha256 and, when named, sha1 and md5; none is none")
	f.StringVar(&o.where, "where", "", "print only events that this SQL expression over the native columns is true of")
	f.StringVar(&o.container, "container", "", "print only events of this container, by name or the beginning of its id")
	f.StringVar(&o.pod, "pod", "", "print only events of this Kubernetes pod, as NAME or NAMESPACE/NAME")
	f.StringSliceVar(&o.rules, "rules", nil, "directories of Sigma rules to match events against, with commas; builtin is the rules that come with goshawk (default none)")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time, as 10s or 5m (default: run until stopped)")
	f.StringVar(&o.source, "source", "auto", "where events come from: auto, ebpf, audit, or both (audit for what eBPF does not tell of)")
	o.auditing.flags(f)
	o.sensing.flags(f)
	f.StringSliceVar(&o.runtimes, "container-runtime", []string{"auto"}, "whom to ask for names of containers: auto (all that are found), none, or RUNTIME=SOCKET with commas, as docker=/run/docker.sock; runtimes are docker, podman, containerd, cri-o")
	f.StringSliceVar(&o.env, "env", nil, "environment variables to keep with each exec, by NAME, with commas (default none)")
	f.IntVar(&o.ringSize, "ring-size", 0, "bytes of each of the two kernel rings, a power of two (default 2 MiB for exec, fork and exit, 4 MiB for the others)")
	f.DurationVar(&o.canary, "canary-interval", 5*time.Minute, "how often to try whether each hook still tells what happens; 0 is never")
	f.Int64Var(&o.expiry, "events_expiry", 86_400, "seconds to keep events; 0 is for ever")
	f.Int64Var(&o.lasting, "alerts_expiry", 2_592_000, "seconds to keep alerts, and the events that proved them; 0 is for ever")
	f.Int64Var(&o.maxRows, "events_max", 5_000_000, "rows to keep in each table of events; 0 is no bound")
	f.Int64Var(&o.maxBytes, "events_max_bytes", 512<<20, "bytes that the store may take on disk; 0 is no bound")
	o.host.flags(f)
	return cmd
}

// kindNames are the kinds that a source observes.
func kindNames() []string {
	var names []string
	for _, k := range event.Kinds {
		if k.ID != event.KindLoss && k.ID != event.KindAlert {
			names = append(names, k.Name)
		}
	}
	return names
}

// check finds wrong usage before anything is touched.
func (o *runOptions) check() error {
	switch {
	case o.format != "text" && o.format != "json":
		return failf(exitUsage, "--format: no format is called %q; formats are text, json", o.format)
	case !slices.Contains(sourceNames, o.source):
		return failf(exitUsage, "--source: no source is called %q; sources are %s", o.source, strings.Join(sourceNames, ", "))
	case o.duration < 0:
		return failf(exitUsage, "--duration: %v is before now", o.duration)
	case o.ringSize != 0 && (o.ringSize < os.Getpagesize() || o.ringSize&(o.ringSize-1) != 0):
		return failf(exitUsage, "--ring-size: %d is no power of two of at least %d", o.ringSize, os.Getpagesize())
	case o.canary < 0 || o.canary > 0 && o.canary < canary.Patience:
		return failf(exitUsage, "--canary-interval: %v is too short; use %v or more, or 0", o.canary, canary.Patience)
	case o.expiry < 0 || o.lasting < 0 || o.maxRows < 0 || o.maxBytes < 0:
		return failf(exitUsage, "--events_expiry, --alerts_expiry, --events_max, --events_max_bytes: a bound is not negative")
	}
	for _, name := range o.kinds {
		if name == event.KindAlert.String() {
			if len(o.rules) == 0 {
				return failf(exitUsage, "--kinds alert: alerts come from rules; name some with --rules")
			}
			continue
		}
		if !slices.Contains(kindNames(), name) {
			return failf(exitUsage, "--kinds: no kind is called %q; kinds are %s", name, strings.Join(kindNames(), ", "))
		}
	}
	for _, name := range o.env {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return failf(exitUsage, "--env: %q is no name of a variable", name)
		}
	}
	if err := o.auditing.check(o.source); err != nil {
		return err
	}
	if _, err := o.endpoints(); err != nil {
		return err
	}
	for _, name := range o.hash {
		if name != "sha256" && name != "sha1" && name != "md5" && (name != "none" || len(o.hash) > 1) {
			return failf(exitUsage, "--hash: %q is no digest; digests are sha256, sha1, md5, or none alone", name)
		}
	}
	if err := o.selectFiles(); err != nil {
		return err
	}
	return o.sensing.check()
}

// kindIDs are the kinds asked for; nil is all.
func (o *runOptions) kindIDs() []event.ID {
	var ids []event.ID
	for _, name := range o.kinds {
		if id := event.ByName(name).ID; id != event.KindAlert {
			ids = append(ids, id)
		}
	}
	return ids
}

// alertsOnly reports whether nothing but alerts is to be printed.
func (o *runOptions) alertsOnly() bool {
	return len(o.kinds) == 1 && o.kinds[0] == event.KindAlert.String()
}

// onlyAlerts is the filter that prints them, and what was lost.
func onlyAlerts(e event.Event) bool {
	id := e.Head().Kind
	return id == event.KindAlert || id == event.KindLoss
}
