package sink

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGlogLine(t *testing.T) {
	s := Status{time.Date(2014, 9, 3, 17, 7, 30, 123456789, time.UTC), 1, "scheduler.cpp", 83, "Error executing"}
	if got, want := string(s.glog(nil, 42)), "W0903 17:07:30.123456    42 scheduler.cpp:83] Error executing\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := s.Text(), "severity=1 location=scheduler.cpp:83 message=Error executing"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestStatusHandler(t *testing.T) {
	h := NewStatusHandler()
	l := slog.New(h)
	l.Debug("early debug")
	l.Info("early")
	var got []Status
	h.Set(false, 0, func(s Status) { got = append(got, s) })
	l.With("a", 1).Warn("later", "b", "x\ny")
	l.Error("two\nlines\x1b[31m")
	l.Debug("debug")
	h.Set(true, 1, func(s Status) { got = append(got, s) })
	l.Debug("not severe enough")
	l.Error("last")
	var text []string
	for _, s := range got {
		if s.File != "status_test.go" || s.Line == 0 || s.Time.IsZero() {
			t.Errorf("status %+v", s)
		}
		text = append(text, strings.Split(s.Text(), " ")[0]+" "+s.Message)
	}
	want := []string{"severity=0 early", "severity=1 later a=1 b=x y", "severity=2 two lines [31m", "severity=2 last"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	h.Set(true, 0, func(s Status) { got = append(got, s) })
	if !l.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("verbose is not")
	}
}

func TestStatusFiles(t *testing.T) {
	dir := t.TempDir()
	f := &StatusFiles{Dir: dir, Mode: 0o640, Host: "web/1", User: "root"}
	now := time.Now()
	for severity, message := range []string{"one", "two", "three", "four"} {
		ok(t, f.Write(Status{now, severity, "a.go", 1, message}))
	}
	for level, want := range map[string]int{"INFO": 4, "WARNING": 3, "ERROR": 2} {
		link := filepath.Join(dir, "osqueryd."+level)
		to, err := os.Readlink(link)
		ok(t, err)
		if !regexp.MustCompile(`^osqueryd\.web_1\.root\.log\.` + level + `\.\d{8}-\d{6}\.\d+$`).MatchString(to) {
			t.Errorf("%s leads to %s", level, to)
		}
		lines := strings.Split(strings.TrimSpace(content(t, link)), "\n")
		if len(lines) != 3+want || !strings.HasSuffix(lines[len(lines)-1], "a.go:1] four") || !strings.HasPrefix(lines[len(lines)-1], "F") {
			t.Errorf("%s: %q", level, lines)
		}
		if info, err := os.Stat(link); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: %v, %v", level, info.Mode(), err)
		}
	}
	ok(t, f.Close())
	ok(t, os.RemoveAll(dir))
	if f.Write(Status{now, 0, "a.go", 1, "x"}) == nil {
		t.Error("no directory is no error")
	}
	if f.Write(Status{now, 0, "a.go", 1, "x"}) != nil {
		t.Error("it is told twice")
	}
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listen := func() *net.UnixConn {
		t.Helper()
		os.Remove(path)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		ok(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	read := func(c *net.UnixConn) string {
		t.Helper()
		b := make([]byte, 1<<16)
		ok(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := c.Read(b)
		ok(t, err)
		return string(b[:n])
	}
	s := &Syslog{Path: path, Tag: "osqueryd", Facility: 19}
	defer s.Close()
	if _, err := s.Lines([]byte("x\n"), ""); err == nil {
		t.Error("there is no logger")
	}
	c := listen()
	tooLong, err := s.Lines([]byte("{\"a\":1}\n"+strings.Repeat("x", 8<<20)+"\n{}\n"), "@cee:")
	ok(t, err)
	form := `^<158>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d osqueryd\[\d+\]: @cee:\{"a":1\}$`
	if got := read(c); tooLong != 1 || !regexp.MustCompile(form).MatchString(got) {
		t.Errorf("%d too long, %q", tooLong, got)
	}
	if got := read(c); !strings.HasSuffix(got, "@cee:{}") {
		t.Errorf("%q", got)
	}
	c.Close()
	c = listen() // the logger is started anew
	ok(t, s.Write(SyslogSeverity(&Status{Severity: 2}), "again"))
	if got := read(c); !strings.HasPrefix(got, "<155>") || !strings.HasSuffix(got, ": again") {
		t.Errorf("%q", got)
	}
}
