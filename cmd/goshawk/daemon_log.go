package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/goshawk-project/goshawk/internal/config"
	api "github.com/goshawk-project/goshawk/internal/remote"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/sink"
	"github.com/goshawk-project/goshawk/internal/state"
	"github.com/goshawk-project/goshawk/internal/table"
)

// Streams of log lines, by logger.
const (
	streamFileResults   = "filesystem_results"
	streamFileSnapshots = "filesystem_snapshots"
	streamStdout        = "stdout_results"
	streamSyslog        = "syslog_results"
	streamTLSResults    = "tls_results"
	streamTLSStatuses   = "tls_statuses"
)

// writeBytes and writeLines bound one write of a local logger.
const (
	writeBytes = 1 << 20
	writeLines = 1 << 20
)

// loggers are where lines go to: those of queries through queues, from which a goroutine each carries
// them; those of the daemon itself at once, and through a queue to the server.
type loggers struct {
	d         *daemon
	drains    []*sink.Drain // of this host's own loggers
	remote    []*sink.Drain
	results   []string // streams
	snapshots []string
	takers    []func(sink.Status)
	closers   []func() error
	tls       bool

	mu       sync.Mutex
	statuses []sink.Status // for the server, not queued yet
	lost     int           // of them
}

// maxStatuses wait to be queued for the server.
const maxStatuses = 10_000

// openLoggers opens the loggers that --logger_plugin names.
func (d *daemon) openLoggers(out io.Writer) (*loggers, error) {
	l := &loggers{d: d}
	mode, err := strconv.ParseUint(d.line.String("logger_mode"), 8, 32)
	if err != nil || mode == 0 || mode > 0o7777 {
		return nil, failf(exitUsage, "--logger_mode: %q is no octal mode", d.line.String("logger_mode"))
	}
	var unknown []string
	for _, name := range words(d.line.String("logger_plugin")) {
		switch name {
		case "filesystem":
			l.files(fs.FileMode(mode))
		case "stdout":
			l.stdout(out)
		case "syslog":
			l.syslog()
		case "tls":
			l.tls = true
			l.results = append(l.results, streamTLSResults)
			l.snapshots = append(l.snapshots, streamTLSResults) // as in osquery
			l.takers = append(l.takers, l.take)
		default:
			unknown = append(unknown, name)
		}
	}
	if len(l.results) == 0 && !d.line.Bool("disable_logging") {
		return nil, failf(exitUsage, "--logger_plugin: no logger of %q is supported; loggers are filesystem, tls, syslog, stdout", d.line.String("logger_plugin"))
	}
	if len(unknown) > 0 {
		d.warn(fmt.Sprintf("--logger_plugin: %q is not supported; loggers are filesystem, tls, syslog, stdout", unknown))
	}
	l.apply(d.f())
	return l, nil
}

// apply makes the flags in force count for what the daemon says.
func (l *loggers) apply(f *config.Flags) {
	takers := l.takers
	if f.Bool("disable_logging") {
		takers = nil
	}
	if least := int(f.Int("logger_min_stderr")); f.Bool("logger_stderr") {
		show := l.d.stderr()
		takers = append(takers[:len(takers):len(takers)], func(s sink.Status) {
			if s.Severity >= least {
				show(s)
			}
		})
	}
	l.d.status.Set(f.Bool("verbose"), int(f.Int("logger_min_status")), takers...)
}

// stderr prints what the daemon says about itself.
func (d *daemon) stderr() func(sink.Status) {
	return func(s sink.Status) { fmt.Fprintf(d.errOut, "goshawk: %s\n", s.Text()) }
}

// drain makes a drain of a logger of this host.
func (l *loggers) drain(stream string) *sink.Drain {
	d := &sink.Drain{
		State: l.d.state, Stream: stream, Limits: func() (int, int) { return writeLines, writeBytes },
		Backoff: func(n int) time.Duration { return min(time.Duration(n)*time.Second, time.Minute) }, Sleep: l.d.sleep,
		Failed: func(err error) { l.d.warn(fmt.Sprintf("%v: lines wait", err)) },
	}
	l.drains = append(l.drains, d)
	return d
}

func (l *loggers) files(mode fs.FileMode) {
	add := func(stream, name string) {
		file := &sink.File{Mode: mode, Rotation: func() sink.Rotation {
			f := l.d.f()
			if !f.Bool("logger_rotate") {
				return sink.Rotation{}
			}
			return sink.Rotation{Size: f.Int("logger_rotate_size"), Files: int(min(f.Int("logger_rotate_max_files"), 10_000))}
		}}
		drain := l.drain(stream)
		file.Save = drain.Remember
		drain.Write = func(_ context.Context, b state.Batch, mark string) (int, string, error) {
			dir := l.d.f().String("logger_path")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return 0, "", err
			}
			file.Path = filepath.Join(dir, name)
			next, err := file.Write(b.Lines, mark)
			return 0, next, err
		}
	}
	add(streamFileResults, "osqueryd.results.log")
	add(streamFileSnapshots, "osqueryd.snapshots.log")
	l.results = append(l.results, streamFileResults)
	l.snapshots = append(l.snapshots, streamFileSnapshots)

	host, _ := os.Hostname() // "" will do
	user := "root"
	if os.Geteuid() != 0 {
		user = strconv.Itoa(os.Geteuid())
	}
	dir := l.d.line.String("logger_path")
	status := &sink.StatusFiles{Dir: dir, Mode: mode, Host: host, User: user}
	l.takers = append(l.takers, func(s sink.Status) {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = status.Write(s)
		}
		if err != nil {
			fmt.Fprintf(l.d.errOut, "goshawk: log to %s: %v\n", dir, err)
		}
	})
	l.closers = append(l.closers, status.Close)
}

func (l *loggers) stdout(out io.Writer) {
	l.drain(streamStdout).Write = func(_ context.Context, b state.Batch, _ string) (int, string, error) {
		_, err := out.Write(b.Lines)
		return 0, "", err
	}
	l.results, l.snapshots = append(l.results, streamStdout), append(l.snapshots, streamStdout)
	l.takers = append(l.takers, func(s sink.Status) { fmt.Fprintln(out, s.Text()) })
}

func (l *loggers) syslog() {
	facility := int(l.d.line.Int("logger_syslog_facility"))
	if facility < 0 || facility > 23 {
		facility = 19
	}
	s := &sink.Syslog{Path: sink.DefaultSyslog, Tag: "osqueryd", Facility: facility}
	l.drain(streamSyslog).Write = func(_ context.Context, b state.Batch, _ string) (int, string, error) {
		prefix := ""
		if l.d.f().Bool("logger_syslog_prepend_cee") {
			prefix = "@cee:"
		}
		tooLong, err := s.Lines(b.Lines, prefix)
		return tooLong, "", err
	}
	l.results, l.snapshots = append(l.results, streamSyslog), append(l.snapshots, streamSyslog)
	l.takers = append(l.takers, func(st sink.Status) {
		_ = s.Write(sink.SyslogSeverity(&st), st.Text()) // stderr has it, too
	})
	l.closers = append(l.closers, s.Close)
}

// server adds the drains to a server.
func (l *loggers) server(node *api.Node) {
	if !l.tls {
		return
	}
	f := l.d.f
	add := func(stream, kind string, disabled func() bool) {
		logs := &api.Logs{
			Node: node, Kind: kind, Endpoint: func() string { return f().String("logger_tls_endpoint") },
			MaxLines: func() int { return int(min(f().Int("logger_tls_max_lines"), 1<<20)) },
			MaxSize:  func() int { return int(min(f().Int("logger_tls_max_linesize"), 1<<30)) },
			Compress: func() bool { return f().Bool("logger_tls_compress") }, Disabled: disabled,
		}
		period := func() time.Duration { return max(f().Seconds("logger_tls_period"), time.Second) }
		l.remote = append(l.remote, &sink.Drain{
			State: l.d.state, Stream: stream, Limits: logs.Limits, Write: logs.Write, Period: period, Sleep: l.d.sleep,
			Backoff: func(n int) time.Duration { return api.Backoff(period(), f().Seconds("logger_tls_backoff_max"), n) },
			Failed:  func(err error) { l.d.logger.Info(fmt.Sprintf("%v: lines wait", err)) },
		})
	}
	add(streamTLSResults, api.Results, nil)
	add(streamTLSStatuses, api.Statuses, func() bool { return f().Bool("tls_disable_status_log") })
}

// take keeps a status for the server until queue is called: it is called with a lock held
// under which nothing may be written.
func (l *loggers) take(s sink.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.statuses) >= maxStatuses {
		l.lost++
		return
	}
	l.statuses = append(l.statuses, s)
}

// queue puts what the daemon said into the queue for the server.
func (l *loggers) queue() {
	l.mu.Lock()
	list, lost := l.statuses, l.lost
	l.statuses, l.lost = nil, 0
	l.mu.Unlock()
	if lost > 0 {
		l.d.warn(fmt.Sprintf("%d status lines are lost", lost))
	}
	if len(list) == 0 {
		return
	}
	host, decorations := l.d.hostIdentifier(), l.d.scheduler.Decorations()
	var lines []byte
	for i := range list {
		lines = appendStatus(lines, &list[i], host, decorations)
	}
	if err := l.d.state.Update(false, func(tx *state.Tx) error { return tx.Add(streamTLSStatuses, lines) }); err != nil {
		fmt.Fprintf(l.d.errOut, "goshawk: queue status lines: %v\n", err)
	}
}

// appendStatus appends a status as osquery sends it to a server.
func appendStatus(dst []byte, s *sink.Status, host string, decorations []state.Pair) []byte {
	text := func(name, value string) {
		dst = schedule.AppendString(append(append(dst, name...), ':'), value)
	}
	number := func(name string, n int64) {
		dst = strconv.AppendInt(append(append(dst, name...), ':'), n, 10)
	}
	text(`{"hostIdentifier"`, host)
	text(`,"calendarTime"`, schedule.CalendarTime(s.Time))
	number(`,"unixTime"`, s.Time.Unix())
	number(`,"severity"`, int64(s.Severity))
	text(`,"filename"`, s.File)
	number(`,"line"`, int64(s.Line))
	text(`,"message"`, s.Message)
	text(`,"version"`, table.OsqueryVersion)
	if len(decorations) > 0 {
		dst = schedule.AppendDecorations(append(dst, `,"decorations":`...), decorations)
	}
	return append(dst, '}', '\n')
}

// relayEvery is how often what the daemon says is queued, as in osquery.
const relayEvery = 3 * time.Second

func (l *loggers) start(start func(func(context.Context))) {
	for _, d := range append(l.drains[:len(l.drains):len(l.drains)], l.remote...) {
		start(d.Run)
	}
	if l.tls {
		start(func(ctx context.Context) {
			for l.d.sleep(ctx, relayEvery) == nil {
				l.queue()
			}
		})
	}
}

// flush writes out what waits for this host's own loggers.
func (l *loggers) flush() {
	if l.tls && l.d.scheduler != nil {
		l.queue()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, d := range l.drains {
		if err := d.Flush(ctx); err != nil {
			d.Failed(err)
		}
	}
}

func (l *loggers) close() error {
	var errs []error
	for _, c := range l.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
