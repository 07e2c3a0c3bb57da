package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShellChild is no test: it is the shell that the tests below start on a terminal of
// its own. By itself it does nothing.
func TestShellChild(t *testing.T) {
	history, child := os.LookupEnv("GOSHAWK_TEST_SHELL")
	if !child {
		return
	}
	cmd := newQueryCommand(openTest, history)
	cmd.SetArgs(strings.Fields(os.Getenv("GOSHAWK_TEST_ARGS")))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "goshawk:", err)
		os.Exit(exitFailed)
	}
	os.Exit(exitOK)
}

// screen is the other end of a terminal on which a shell runs. It owns a goroutine that
// reads until the shell has left.
type screen struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{}

	mu   sync.Mutex
	text []byte // what was printed and not expected yet
}

// openTerminal makes a pseudo terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs a pseudo terminal: %v", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 120}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave
}

func startShell(t *testing.T, history, args string) *screen {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestShellChild$")
	cmd.Env = append(os.Environ(), "GOSHAWK_TEST_SHELL="+history, "GOSHAWK_TEST_ARGS="+args, "TERM=xterm", "INPUTRC=/dev/null")
	return startOnScreen(t, cmd)
}

func startOnScreen(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	master, slave := openTerminal(t)
	s := &screen{t: t, master: master, cmd: cmd, done: make(chan struct{})}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go s.read()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		<-s.done
		s.master.Close()
	})
	return s
}

// read collects what is printed, and answers as a terminal does when it is asked where
// its cursor is.
func (s *screen) read() {
	defer close(s.done)
	b := make([]byte, 4096)
	for {
		n, err := s.master.Read(b)
		if err != nil {
			return // EIO: the shell has left
		}
		s.mu.Lock()
		s.text = append(s.text, b[:n]...)
		s.mu.Unlock()
		for range bytes.Count(b[:n], []byte("\x1b[6n")) {
			s.master.WriteString("\x1b[1;10R")
		}
	}
}

func (s *screen) send(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until what was printed matches, and takes everything up to there.
func (s *screen) expect(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		if at := re.FindIndex(s.text); at != nil {
			got := string(s.text[:at[1]])
			s.text = s.text[at[1]:]
			s.mu.Unlock()
			return got
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Fatalf("%q was not printed, but %q", pattern, s.text)
	return ""
}

// left waits for the shell's end and returns its exit code.
func (s *screen) left() int {
	s.t.Helper()
	exited := make(chan error, 1)
	go func() { exited <- s.cmd.Wait() }()
	select {
	case <-exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(10 * time.Second):
		s.t.Fatalf("the shell goes on")
		return -1
	}
}

// prompt is the first frame of a line that is edited; later ones draw the prompt again.
// Keys that come before its end may be lost: the editor takes what arrives together with
// the terminal's answer about its cursor for part of that (reeflective/readline v1.3.0,
// Keys.GetCursorPos).
const prompt = `(?s)\x1b\[\?2004hgoshawk> .*?\x1b\[\?25h`

func TestShell(t *testing.T) {
	history := filepath.Join(t.TempDir(), "state", "history")
	s := startShell(t, history, "")
	s.expect(`3 tables`)
	s.expect(prompt)

	s.send("SELECT uid FROM users WHERE uid = 0;\r")
	s.expect(`\| uid \|\r\n\+-----\+\r\n\| 0   \|`)
	s.expect(prompt)

	// A statement goes on until its semicolon.
	s.send("SELECT 40\r")
	s.expect(`SELECT 40.*\r\r\n`)
	s.send("+ 2 AS answer;\r")
	s.expect(`\| answer \|\r\n\+--------\+\r\n\| 42     \|`)
	s.expect(prompt)

	s.send(".mode json\r")
	s.expect(prompt)
	s.send("SELECT name FROM users WHERE uid = 1001;\r")
	s.expect(`\\u001b\]0;owned`)
	s.expect(prompt)

	s.send("SELECT * FROM nosuch;\r")
	s.expect(`error: no such table: nosuch\r\n`)
	s.expect(prompt)

	// Ctrl-C drops what was typed, and does not end the shell.
	s.send("SELECT 'dropped'")
	s.expect(`dropped`)
	s.send("\x03")
	s.expect(prompt)

	// Completion: one table begins so.
	s.send("SELECT 7 AS seven FROM USER_G\t")
	s.expect(`user_groups`)
	s.send(" LIMIT 1;\r")
	s.expect(`"seven":"7"`)
	s.expect(prompt)

	// In the middle of a line, what follows the word stays.
	s.send("SELECT nam,7 FROM users WHERE uid = 0;\x01" + strings.Repeat("\x1b[C", len("SELECT nam")) + "\t")
	s.expect(`SELECT name,7 FROM`)
	s.send("\x05\r")
	s.expect(`"name":"root"`)
	s.expect(prompt)

	// The last line but one, from the history.
	s.send("\x1b[A\x1b[A")
	s.expect(`user_groups`)
	s.send("\r")
	s.expect(`"seven":"7"`)
	s.expect(prompt)

	s.send("\x04")
	if code := s.left(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	b, err := os.ReadFile(history)
	if err != nil || !bytes.Contains(b, []byte("SELECT 7 AS seven FROM user_groups LIMIT 1;")) || bytes.Contains(b, []byte("dropped")) {
		t.Errorf("the history is %q, %v", b, err)
	}
	for name, want := range map[string]os.FileMode{history: 0o600, filepath.Dir(history): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

// TestShellInterrupt stops a query that runs, after the progress line came up, and goes
// on with the next.
func TestShellInterrupt(t *testing.T) {
	s := startShell(t, "", "--format line")
	s.expect(prompt)
	s.send("SELECT count(*) AS n FROM slow;\r")
	s.expect(`warning: this takes\\x1b\[2J a while\r\n`)
	s.expect(`\r0 rows, 1 s \(Ctrl-C stops the query\)\x1b\[K`)
	s.send("\x03")
	s.expect(`\r\x1b\[Kerror: query stopped\r\n`)
	s.expect(prompt)

	s.send("SELECT count(*) AS n FROM slow;\r")
	s.expect(`\r0 rows, [12] s \(Ctrl-C stops the query\)\x1b\[K`)
	s.expect(`\r\x1b\[Kn = 3\r\n`)
	s.expect(prompt)
	s.send(".exit\r")
	if code := s.left(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestQueryInterrupt stops a query given on the command line.
func TestQueryInterrupt(t *testing.T) {
	s := startShell(t, "", "SELECT*FROM(slow)")
	s.expect(`Ctrl-C stops the query`)
	s.send("\x03")
	s.expect(`\r\x1b\[Kgoshawk: query stopped\r\n`)
	if code := s.left(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
}
