package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/agent"
	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/ctl"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/extension"
	"github.com/goshawk-project/goshawk/internal/procfs"
	api "github.com/goshawk-project/goshawk/internal/remote"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/selection"
	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/state"
	"github.com/goshawk-project/goshawk/internal/table"
)

// daemon is one run of goshawk daemon: its parts, in the order in which they are opened.
type daemon struct {
	line     *config.Flags // of the command line
	problems []config.Problem
	status   *sink.StatusHandler
	logger   *slog.Logger
	now      func() time.Time
	sleep    func(context.Context, time.Duration) error
	timeout  time.Duration // of the server's answers; 0 is osquery's

	options   runOptions // of the agent, made from the flags
	state     *state.DB
	watch     *watch // of what happens; only its store when events are off
	agent     *agent.Agent
	events    event.Log
	env       *table.Env
	engines   *engines
	scheduler *schedule.Scheduler
	loggers   *loggers
	remote    *remoteParts       // nil: no server
	manager   *extension.Manager // nil: the socket for extensions is not served
	errOut    io.Writer

	flags atomic.Pointer[config.Flags] // in force

	applying sync.Mutex     // held while a configuration, or an extension's tables, are put in force
	inForce  *config.Config // what apply was told last

	mu      sync.Mutex
	config  *config.Config // the last good one; nil: none yet
	valid   bool           // it is what was read last
	engined string         // what the engine was built for
	server  *ctl.Server

	watcher int    // pid of who watches this process, 0 for nobody
	death   string // why the worker before this one ended
	begun   bool   // the state says that this daemon runs
	killed  string // how the daemon before this one ended, which nobody has asked it to; "" if not so

	idleTold []string // flags told to be without effect; of whoever loads a configuration
}

func newDaemonRun(flags *config.Flags, problems []config.Problem, errOut io.Writer) (*daemon, error) {
	d := &daemon{line: flags, problems: problems, status: sink.NewStatusHandler(), now: time.Now, sleep: sleepFor, errOut: errOut}
	d.logger = slog.New(d.status)
	d.flags.Store(flags)
	o := &d.options
	o.host = host{rootDir: flags.String("root_dir"), storeDir: flags.String("database_path"), socket: flags.String("socket"), hostRoot: flags.String("host_root")}
	o.format, o.source, o.btf = "text", flags.String("source"), flags.String("btf")
	o.kinds, o.env, o.tiers = words(flags.String("kinds")), words(flags.String("env")), words(flags.String("tier"))
	o.rules, o.rulesMayLack = words(flags.String("rules")), !flags.Given("rules")
	o.files, o.hash = &selection.Set{}, words(flags.String("hash"))
	o.excludeExes, o.excludeUIDs, o.excludeContainers = words(flags.String("exclude_exe")), words(flags.String("exclude_uid")), words(flags.String("exclude_container"))
	o.ringSize, o.canary = int(flags.Int("ring_size")), canaryInterval
	o.expiry, o.lasting = flags.Int("events_expiry"), flags.Int("alerts_expiry")
	o.maxRows = flags.Int("events_max") * rowsPerBatch
	o.maxBytes = flags.Int("events_max_bytes")
	o.auditing = auditingOf(withLocalOptions(flags))
	if err := o.check(); err != nil {
		return nil, err
	}
	return d, nil
}

const (
	canaryInterval = 5 * time.Minute
	// rowsPerBatch makes rows of osquery's events_max, which counts seconds in which
	// something happened: a busy second has as many.
	rowsPerBatch = 100
)

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// f returns the flags in force.
func (d *daemon) f() *config.Flags { return d.flags.Load() }

// warn tells the operator, with the place of its caller.
func (d *daemon) warn(s string) {
	var pc [1]uintptr
	runtime.Callers(2, pc[:])
	_ = d.status.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelWarn, s, pc[0])) // which never fails
}

// run opens the daemon's parts, runs them until ctx ends or a signal comes, and closes them.
func (d *daemon) run(ctx context.Context, out, errOut io.Writer) (err error) {
	protect()
	memory := newMemory()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(ctx, memory, out); err != nil {
		return err
	}
	if path := d.line.String("pidfile"); path != "" && d.watcher == 0 { // else it is the watcher's
		if err := writePID(path); err != nil {
			d.warn(fmt.Sprintf("write pid file: %v", err))
		} else {
			defer os.Remove(path)
		}
	}
	if err := d.openManager(); err != nil {
		return err
	}
	if err := d.firstConfig(ctx); err != nil {
		return err
	}
	if err := d.awaitExtensions(ctx); err != nil {
		return err
	}
	if d.server, err = ctl.Listen(d.options.socketPath(), d, ctl.Options{}); err != nil {
		return err
	}
	return d.work(ctx, hangup)
}

// protect keeps secrets out of core dumps.
func protect() {
	// Without the capability it stays as it is; then only this user may look.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if unix.Geteuid() == 0 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
}

func writePID(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(os.Getpid()))
	return errors.Join(err, f.Close())
}

// open opens all parts but the socket.
func (d *daemon) open(ctx context.Context, memory *memory, out io.Writer) (err error) {
	fs := procfs.At(d.options.hostRoot)
	err = d.openWatch(ctx)
	memory.loaded()
	if err != nil {
		return err
	}
	d.events = d.watch.store
	dir := d.options.store()
	stateDir := dir
	if d.line.Bool("disable_database") || d.line.Bool("ephemeral") {
		stateDir = ""
	}
	d.state, err = state.Open(state.Options{
		Dir: stateDir, MaxLines: d.line.Int("buffered_log_max"), MaxBytes: d.line.Int("buffered_log_max_bytes"), Warn: d.warn,
	})
	if err != nil {
		return err
	}
	if d.loggers, err = d.openLoggers(out); err != nil {
		return err
	}
	if d.death != "" {
		d.logger.Error(d.death)
	}
	d.begin()
	for _, p := range d.problems {
		d.warn(p.String())
	}
	d.warnIdle(d.line.Idle())
	instance, err := makeInstance(dir)
	if err != nil {
		d.warn(fmt.Sprintf("keep the identity of this installation: %v", err))
	}
	d.env = &table.Env{
		FS: fs, HostRoot: d.options.hostRoot, Watcher: d.watcher, InstanceID: instance, StartTime: time.Now(), ReadMax: d.line.Int("read_max"),
		DockerSocket: d.line.String("docker_socket"), SQLite: sqliteTable,
		Config: d.configHash, Flags: func() []table.Flag { return flagRows(d.f(), nil) },
		Schedule: d.scheduleRows, Packs: d.packRows,
	}
	d.engines = &engines{memory: memory}
	var containers agent.Containers
	if d.watch.containers != nil {
		containers = d.watch.containers.table
	}
	rules, ruleCounts := d.watch.rules()
	files, modules := d.watch.contents()
	d.agent = agent.New(agent.Options{
		Rules: rules, RuleCounts: ruleCounts,
		Inputs: d.inputs(), Processes: d.watch.processes, Containers: containers, Store: d.watch.store, StoreCounts: d.counts,
		BootID: d.watch.bootID, Peak: procfs.At("").SelfPeak, Own: d.own, Warn: d.warn, Helping: d.options.helpers(), Select: d.watch.ofFiles,
		Contents: files, Modules: modules, Outputs: []agent.Output{d.alertOutput(ctx)},
	})
	if d.remote, err = d.openRemote(); err != nil {
		return err
	}
	d.scheduler = schedule.New(schedule.Options{
		State: d.state, Engine: d.engines, Log: &eventLog{d: d}, Dir: dir, Logger: d.logger, Usage: scheduleUsage,
		Now: d.now, Sleep: d.sleep, Found: d.found,
	})
	return nil
}

// openWatch opens the store and the sources of events. Where these cannot run the daemon goes
// on without, as osqueryd does, and says so.
func (d *daemon) openWatch(ctx context.Context) (err error) {
	// The worker before this one may take a moment to be gone.
	for end := time.Now().Add(lockPatience); ; {
		d.watch, err = d.openWatchOnce(ctx)
		code := (*exitError)(nil)
		busy := errors.As(failed(err), &code) && code.code == exitBusy
		if !busy || d.watcher == 0 || time.Now().After(end) || sleepFor(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

// lockPatience is how long to wait for a store that another process holds.
const lockPatience = 10 * time.Second

func (d *daemon) openWatchOnce(ctx context.Context) (w *watch, err error) {
	if !d.line.Bool("disable_events") {
		if w, err = d.options.open(ctx, d.warn); err == nil {
			hurry(procfs.At(""))
			return w, nil
		}
		if code := (*exitError)(nil); !errors.As(err, &code) || code.code == exitBusy {
			return nil, err
		}
		d.logger.Error(fmt.Sprintf("events are off: %v", err))
	}
	d.options.idle = true
	if w, err = d.options.open(ctx, d.warn); err != nil {
		return nil, err // which has closed what it opened
	}
	return w, nil
}

// idle is a source of nothing.
type idle struct{}

func (idle) Run(ctx context.Context, _ chan<- *event.Batch) error { <-ctx.Done(); return nil }

func (d *daemon) inputs() []agent.Input {
	if d.watch.sources == nil {
		return []agent.Input{{Name: "none", Source: idle{}}}
	}
	return d.watch.inputs()
}

func (d *daemon) own(e event.Event) bool { return d.watch.sources != nil && d.watch.sources.own(e) }

// counts are those of the store, and of lines on their way to loggers.
func (d *daemon) counts() []event.Count {
	all := append(d.watch.store.Counts(), d.state.Counts()...)
	if d.remote != nil {
		all = append(all, d.remote.distributed.Counts()...)
	}
	return all
}

// work runs all parts until ctx ends or one of them cannot go on.
func (d *daemon) work(ctx context.Context, hangup <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	start := func(f func(context.Context)) { running.Go(func() { f(ctx) }) }
	var agentErr error
	running.Go(func() {
		defer cancel()
		_, agentErr = d.agent.Run(ctx)
	})
	running.Go(func() {
		defer cancel() // after schedule_timeout
		d.scheduler.Run(ctx)
	})
	d.loggers.start(start)
	if d.remote != nil {
		d.remote.start(d, start)
	}
	start(func(ctx context.Context) { d.refresh(ctx, hangup) })
	if d.watch.detection != nil {
		start(d.watch.detection.follow)
	}
	if d.watch.sources != nil && d.watch.sources.canary != nil {
		start(func(ctx context.Context) { d.watch.sources.canary.Run(ctx, d.options.canary, d.tellSilent) })
	}
	fmt.Fprintf(d.errOut, "ready: daemon pid=%d\n", os.Getpid())
	start(d.tellManager)
	if d.killed != "" {
		start(d.tellKilled)
	}
	<-ctx.Done()
	running.Wait()
	return agentErr
}

// close closes what is open, the last first. Lines for this host's own loggers are written
// out; those for a server wait for the next process.
func (d *daemon) close() error {
	var errs []error
	if d.server != nil {
		errs = append(errs, d.server.Close())
	}
	if d.manager != nil {
		errs = append(errs, d.manager.Close())
	}
	if d.engines != nil {
		d.engines.close()
	}
	if d.loggers != nil {
		d.loggers.flush()
	}
	if d.remote != nil {
		d.remote.node.Client.Close()
	}
	if d.state != nil {
		if d.begun {
			errs = append(errs, d.state.Delete(domainDaemon, keyRunning))
		}
		errs = append(errs, d.state.Close())
	}
	if d.watch != nil {
		errs = append(errs, d.watch.close())
	}
	if d.loggers != nil {
		errs = append(errs, d.loggers.close())
	} else {
		d.status.Set(false, 0, d.stderr()) // what was said has been heard by nobody yet
	}
	return errors.Join(errs...)
}

// eventLog is the store as the scheduler sees it.
type eventLog struct {
	d  *daemon
	at time.Time
	n  int64
}

// Head implements schedule.EventLog. Waiting for what sources hold back takes a while, which
// the queries of one second share.
func (l *eventLog) Head(ctx context.Context) (int64, error) {
	const fresh = 250 * time.Millisecond
	if time.Since(l.at) < fresh {
		return l.n, nil
	}
	if err := l.d.agent.Sync(ctx); err != nil && !errors.Is(err, agent.ErrStopped) {
		return 0, err
	}
	l.n, l.at = l.d.watch.store.Stats().CommittedEID, time.Now()
	return l.n, nil
}

// usage is what this process has cost so far.
func usage() (user, system time.Duration, resident int64) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		user, system = time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
	}
	if n, err := procfs.At("").SelfResident(); err == nil {
		resident = int64(n)
	}
	return user, system, resident
}

func scheduleUsage() schedule.Usage {
	user, system, resident := usage()
	return schedule.Usage{User: user, System: system, Resident: resident}
}

func remoteUsage() api.Usage {
	user, system, resident := usage()
	return api.Usage{User: user, System: system, Resident: resident}
}
