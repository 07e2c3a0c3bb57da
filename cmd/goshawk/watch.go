package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/content"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/process"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/store"
)

// watch is an agent's parts while it runs, in the order in which they were opened.
type watch struct {
	bootID     string
	store      *store.Store
	sources    *sources
	proc       *procfs.Dir
	processes  *process.Table
	containers *containers
	detection  *detection                    // nil: no rules
	files      atomic.Pointer[selection.Set] // of which kind file tells
	spared     *spared
	hasher     *content.Hasher // nil: no digests are wanted; the agent closes it
	modules    *content.Hasher // the same of kernel modules
}

// open opens what the agent works with. On an error nothing stays open.
func (o *runOptions) open(ctx context.Context, warn func(string)) (w *watch, err error) {
	w = &watch{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	f := procfs.At(o.hostRoot)
	boot, err := f.BootID()
	if err != nil {
		return w, err
	}
	w.bootID = strings.ReplaceAll(boot, "-", "")
	if w.detection, err = openDetection(o.rules, o.rulesMayLack, warn); err != nil {
		return w, err
	}
	// The store first: its lock is what tells that another agent runs.
	w.store, err = store.Open(store.Options{
		Dir: o.store(), MaxAge: time.Duration(o.expiry) * time.Second, LastingAge: time.Duration(o.lasting) * time.Second,
		MaxRows: o.maxRows, MaxBytes: o.maxBytes, Warn: warn,
	})
	if err != nil {
		return w, err
	}
	w.files.Store(o.files)
	w.spared = &o.spared
	if !o.idle {
		if w.sources, err = o.openSources(f, w.bootID, warn); err != nil {
			return w, err
		}
	}
	if w.sources != nil && w.sources.ebpf != nil {
		if blind := w.sources.ebpf.Blind(); blind != "" {
			warn("--watch: not watched are " + blind)
		}
	}
	if w.proc, err = f.Open(); err != nil {
		return w, err
	}
	if o.idle {
		w.processes = process.New(process.Options{BootID: w.bootID})
		return w, nil
	}
	if w.containers, err = o.openContainers(f, w.bootID, warn); err != nil {
		return w, err
	}
	digests := !slices.Equal(o.hash, []string{"none"})
	if digests && o.files != nil {
		w.hasher = content.New(content.Options{MD5: slices.Contains(o.hash, "md5"), SHA1: slices.Contains(o.hash, "sha1")})
	}
	if digests && (len(o.kinds) == 0 || slices.Contains(o.kinds, event.KindModule.String())) {
		w.modules = content.New(content.Options{MaxBytes: 256 << 20, Rate: 1 << 30, Queue: 256, Patience: time.Second})
	}
	w.processes = process.New(process.Options{
		BootID: w.bootID, Lookup: lookup(w.proc, w.containers),
		Place: w.place,
	})
	if err = w.sources.seed(ctx, w.proc, w.containers, func(e *event.Exec) {
		if e.CgroupID == 0 && e.CgroupV1 == 0 {
			w.place(&e.Header)
		}
		w.processes.Seed(e)
		w.containers.table.Seed(e)
	}); err != nil {
		return w, fmt.Errorf("read running processes: %w", err)
	}
	return w, nil
}

// inputs are all that tells the agent something.
func (w *watch) inputs() []agent.Input { return append(w.sources.inputs(), w.containers.inputs()...) }

// place puts the cgroups that a process is in now into its header.
func (w *watch) place(h *event.Header) {
	if p, err := w.proc.Process(int(h.PID)); err == nil {
		w.containers.place(p, h)
	}
}

// rules are what the agent matches events against, with their counters; nil when there are
// none.
func (w *watch) rules() (agent.Rules, func() []event.Count) {
	if w.detection == nil {
		return nil, nil
	}
	return w.detection.engine, w.detection.engine.Counts
}

// contents is what looks into files; a nil *Hasher would be one.
func (w *watch) contents() (files, modules agent.Contents) {
	if w.hasher != nil {
		files = w.hasher
	}
	if w.modules != nil {
		modules = w.modules
	}
	return files, modules
}

func (w *watch) close() error {
	var errs []error
	if w.hasher != nil {
		w.hasher.Close()
	}
	if w.modules != nil {
		w.modules.Close()
	}
	if w.sources != nil {
		errs = append(errs, w.sources.close())
	}
	if w.containers != nil {
		errs = append(errs, w.containers.close())
	}
	if w.proc != nil {
		errs = append(errs, w.proc.Close())
	}
	if w.store != nil {
		errs = append(errs, w.store.Close())
	}
	return errors.Join(errs...)
}

// run runs the agent in the foreground.
func (o *runOptions) run(ctx context.Context, out, errOut io.Writer) (err error) {
	warn := func(s string) { fmt.Fprintf(errOut, "goshawk: %s\n", s) }
	var filter func(event.Event) bool
	if o.where != "" {
		c, err := newCondition(o.where, warn)
		if err != nil {
			return err
		}
		defer c.close()
		filter = c.match
	}
	memory := newMemory()

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	signal.Ignore(syscall.SIGPIPE)

	w, err := o.open(ctx, warn)
	memory.loaded()
	if err != nil {
		return failed(err)
	}
	defer func() { err = failed(errors.Join(err, w.close())) }()
	hurry(procfs.At(""))
	if o.alertsOnly() {
		filter = both(onlyAlerts, filter)
	}

	var outputs []agent.Output
	var gone <-chan struct{} // closed when the reader of standard output went away
	if !o.quiet {
		stdout := sink.NewStream(out, sink.Options{Name: "stdout", Encode: o.encoder(out, w.processes), Filter: both(o.inContainer(), filter)})
		outputs = append(outputs, agent.Output{Name: "stdout", Sink: stdout, Counts: stdout.Counts, Close: stdout.Close})
		gone = stdout.Failed()
	}
	rules, ruleCounts := w.rules()
	files, modules := w.contents()
	a := agent.New(agent.Options{
		Inputs: w.inputs(), Rules: rules, RuleCounts: ruleCounts,
		Processes: w.processes, Containers: w.containers.table,
		Store: w.store, StoreCounts: w.store.Counts,
		Outputs: outputs,
		BootID:  w.bootID, Peak: procfs.At("").SelfPeak, Own: w.sources.own, Warn: warn, Helping: o.helpers(), Select: w.ofFiles, Contents: files, Modules: modules,
	})

	env := here(o.hostRoot)
	env.StartTime, env.Flags = time.Now(), o.osqueryFlags
	if env.InstanceID, err = makeInstance(o.store()); err != nil {
		warn(fmt.Sprintf("keep the identity of this installation: %v", err))
	}
	answers, err := serve(o.socketPath(), env, a, w.store, memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, answers.close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.duration > 0 {
		defer time.AfterFunc(o.duration, cancel).Stop()
	}
	if w.detection != nil {
		go w.detection.follow(ctx) // ends with it
	}
	go func() { // ends with ctx
		select {
		case <-gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	if o.canary > 0 && w.sources.canary != nil {
		go w.sources.canary.Run(ctx, o.canary, func(silent []canary.Result) { // ends with ctx
			warn(tellSilent(silent))
			_ = a.TellLosses(ctx) // fails when the agent has ended, which tells them too
		})
	}
	if o.attach != nil {
		attached := make(chan error, 1)
		go func() {
			attached <- o.attach(ctx, answers)
			cancel()
		}()
		defer func() {
			cancel()
			err = errors.Join(err, <-attached)
		}()
	}
	fmt.Fprintln(errOut, readyLine(w.sources.name(), w.sources.hooks(), &o.host))
	summary, err := a.Run(ctx)
	printSummary(errOut, summary)
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// tellSilent says which hooks did not tell what was done to try them.
func tellSilent(silent []canary.Result) string {
	if len(silent) == 0 {
		return "all hooks tell again what happens"
	}
	var hooks []string
	for _, r := range silent {
		if !slices.Contains(hooks, r.Hook) {
			hooks = append(hooks, r.Hook)
		}
	}
	return fmt.Sprintf("silent: hook %s no longer tells what happens (%s was %s): somebody may have detached its program; restart goshawk",
		strings.Join(hooks, ", "), silent[0].What, silent[0].Problem)
}

// encoder is how events are printed.
func (o *runOptions) encoder(out io.Writer, processes *process.Table) sink.Encoder {
	if o.format == "json" {
		return sink.NewJSON().Append
	}
	users := &userNames{}
	text := &sink.Text{
		Color: isTerminal(out) && os.Getenv("NO_COLOR") == "", Zone: time.Local,
		User: users.name, Lineage: processes.AppendLineage,
	}
	return text.Append
}

// isTerminal reports whether w is a terminal (termios(3)).
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
