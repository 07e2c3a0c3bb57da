package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Status is what the daemon says about itself, in glog's terms.
type Status struct {
	Time     time.Time
	Severity int // 0 info, 1 warning, 2 error, 3 fatal
	File     string
	Line     int
	Message  string // one line
}

const severities = "IWEF"

// glog appends s as glog writes it, with its customary end of line.
func (s *Status) glog(dst []byte, pid int) []byte {
	t := s.Time
	return fmt.Appendf(dst, "%c%02d%02d %02d:%02d:%02d.%06d %5d %s:%d] %s\n", severities[s.Severity],
		t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond()/1000, pid, s.File, s.Line, s.Message)
}

// Text is s as osquery's loggers for people write it.
func (s *Status) Text() string {
	return fmt.Sprintf("severity=%d location=%s:%d message=%s", s.Severity, s.File, s.Line, s.Message)
}

// StatusHandler is a slog.Handler that hands what is said to the loggers. It may be used
// before they are known: what is said until then is kept for them.
type StatusHandler struct {
	*statusHandler
	attrs string // " key=value" for each
}

type statusHandler struct {
	mu      sync.Mutex
	verbose bool
	min     int // least severity
	early   []Status
	begun   bool
	to      []func(Status)
}

// maxEarly statuses are kept until the loggers are known.
const maxEarly = 1000

// NewStatusHandler returns a handler that keeps what is said.
func NewStatusHandler() *StatusHandler { return &StatusHandler{statusHandler: &statusHandler{}} }

// Set says which severities count and who takes them. Functions are called one at a time, and
// must not block or log.
func (h *StatusHandler) Set(verbose bool, least int, to ...func(Status)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verbose, h.min, h.to = verbose, least, to
	if !h.begun {
		h.begun = true
		for _, s := range h.early {
			h.tell(s)
		}
		h.early = nil
	}
}

// tell hands a status to all; h.mu is held.
func (h *statusHandler) tell(s Status) {
	if s.Severity < h.min {
		return
	}
	for _, f := range h.to {
		f(s)
	}
}

// Enabled implements slog.Handler.
func (h *StatusHandler) Enabled(_ context.Context, l slog.Level) bool {
	if l >= slog.LevelInfo {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.verbose
}

// Handle implements slog.Handler.
func (h *StatusHandler) Handle(_ context.Context, r slog.Record) error {
	s := Status{Time: r.Time, Message: r.Message + h.attrs}
	r.Attrs(func(a slog.Attr) bool {
		s.Message += attr(a)
		return true
	})
	s.Message = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' ' // or somebody else's text could pass for a line of ours
		}
		return r
	}, s.Message)
	switch {
	case r.Level >= slog.LevelError:
		s.Severity = 2
	case r.Level >= slog.LevelWarn:
		s.Severity = 1
	}
	if r.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		s.File, s.Line = filepath.Base(frame.File), frame.Line
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun {
		if len(h.early) < maxEarly {
			h.early = append(h.early, s)
		}
		return nil
	}
	h.tell(s)
	return nil
}

func attr(a slog.Attr) string { return " " + a.Key + "=" + a.Value.String() }

// WithAttrs implements slog.Handler.
func (h *StatusHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &StatusHandler{h.statusHandler, h.attrs}
	for _, a := range attrs {
		out.attrs += attr(a)
	}
	return out
}

// WithGroup implements slog.Handler; groups are not shown.
func (h *StatusHandler) WithGroup(string) slog.Handler { return h }

const (
	program      = "osqueryd" // what the files of osquery's loggers are called after
	maxStatusLog = 10 << 20   // bytes of one file, as in osquery
	keepStatus   = 25         // files of one severity that this process leaves behind
)

// StatusFiles are glog's log files: what is said goes to the file of its severity and of
// all below, in Dir, under names that tell host, user and start; a link has a short name.
// Its functions are called by one goroutine at a time.
type StatusFiles struct {
	Dir        string
	Mode       fs.FileMode
	Host, User string

	files [3]*os.File
	sizes [3]int64
	old   [3][]string
	err   error
}

var statusNames = [3]string{"INFO", "WARNING", "ERROR"}

// Write appends a status; the error is told once until it is another.
func (f *StatusFiles) Write(s Status) error {
	line := s.glog(nil, os.Getpid())
	var errs []error
	for level := min(s.Severity, 2); level >= 0; level-- {
		errs = append(errs, f.write(level, line, s.Time))
	}
	err := errors.Join(errs...)
	if err != nil && f.err != nil && err.Error() == f.err.Error() {
		return nil
	}
	f.err = err
	return err
}

func (f *StatusFiles) write(level int, line []byte, now time.Time) error {
	if f.files[level] != nil && f.sizes[level]+int64(len(line)) > maxStatusLog {
		f.files[level].Close()
		f.files[level] = nil
	}
	if f.files[level] == nil {
		if err := f.open(level, now); err != nil {
			return err
		}
	}
	n, err := f.files[level].Write(line)
	f.sizes[level] += int64(n)
	return err
}

// open makes the file of a severity, and the link to it.
func (f *StatusFiles) open(level int, now time.Time) error {
	clean := strings.NewReplacer("/", "_", "\x00", "_")
	base := fmt.Sprintf("%s.%s.%s.log.%s.%s.%d", program, clean.Replace(f.Host), clean.Replace(f.User),
		statusNames[level], now.Format("20060102-150405"), os.Getpid())
	path := filepath.Join(f.Dir, base)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, f.Mode)
	if err != nil {
		return err
	}
	if err := file.Chmod(f.Mode); err != nil {
		file.Close()
		return err
	}
	head := fmt.Sprintf("Log file created at: %s\nRunning on machine: %s\nLog line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n",
		now.Format("2006/01/02 15:04:05"), f.Host)
	if _, err := io.WriteString(file, head); err != nil {
		file.Close()
		return err
	}
	link := filepath.Join(f.Dir, program+"."+statusNames[level])
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		file.Close()
		return err
	}
	if err := os.Symlink(base, link); err != nil {
		file.Close()
		return err
	}
	f.files[level], f.sizes[level] = file, int64(len(head))
	if f.old[level] = append(f.old[level], path); len(f.old[level]) > keepStatus {
		_ = os.Remove(f.old[level][0]) // somebody else may have
		f.old[level] = f.old[level][1:]
	}
	return nil
}

// Close closes the files.
func (f *StatusFiles) Close() error {
	var errs []error
	for level, file := range f.files {
		if file != nil {
			errs = append(errs, file.Close())
			f.files[level] = nil
		}
	}
	return errors.Join(errs...)
}
