package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The tests in this file run the agent on this kernel, as root.

// needRoot skips a test that this user may not run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: attaches BPF programs")
	}
}

// live is a running agent.
type live struct {
	t      *testing.T
	cmd    *exec.Cmd
	root   string
	begun  time.Time
	out    string // file with its standard output
	stderr []string
	said   chan struct{} // closed at the end of standard error
}

// startRun starts goshawk run with its output in a file and waits until it is ready.
func startRun(t *testing.T, root string, args ...string) *live {
	t.Helper()
	needRoot(t)
	out := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := startRunTo(t, f, root, args...)
	l.out = out
	return l
}

func startRunTo(t *testing.T, out *os.File, root string, args ...string) *live {
	t.Helper()
	needRoot(t)
	l := &live{t: t, root: root, begun: time.Now(), said: make(chan struct{})}
	// An auditd that happens to run would add its own; a later --source wins.
	l.cmd = exec.Command("goshawk", append([]string{"run", "--root-dir", root, "--source", "ebpf"}, args...)...)
	l.cmd.Stdout = out
	pipe, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cmd.Process.Kill() })
	ready := make(chan bool, 1)
	go func() {
		defer close(l.said)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			l.stderr = append(l.stderr, lines.Text())
			if strings.HasPrefix(lines.Text(), "ready: ") {
				ready <- true
			}
		}
	}()
	select {
	case <-ready:
	case <-l.said:
		t.Fatalf("run ended before it was ready: %q", l.stderr)
	case <-time.After(time.Minute):
		t.Fatal("run is not ready after a minute")
	}
	return l
}

// stop sends a signal and returns the exit code and what was said on standard error.
func (l *live) stop(sig os.Signal) (code int, stderr string) {
	l.t.Helper()
	if sig != nil {
		if err := l.cmd.Process.Signal(sig); err != nil {
			l.t.Fatal(err)
		}
	}
	select {
	case <-l.said:
	case <-time.After(time.Minute):
		l.t.Fatal("run has not ended after a minute")
	}
	l.cmd.Wait()
	return l.cmd.ProcessState.ExitCode(), strings.Join(l.stderr, "\n") + "\n"
}

// row is what the tests read of an event.
type row struct {
	Kind, Path, Comm, Fidelity, Result, Protocol, Reason string
	SHA256                                               string
	PID, PPID                                            int
	UID                                                  uint32
	EID                                                  int64
	ProcessID                                            string `json:"process_id"`
	ParentID                                             string `json:"parent_process_id"`
	ChildID                                              string `json:"child_process_id"`
	Args                                                 []string
	SocketPath                                           string `json:"socket_path"`
	Cwd                                                  string
	Env                                                  []string
	ExitCode                                             int    `json:"exit_code"`
	RemotePort                                           int    `json:"remote_port"`
	LocalPort                                            int    `json:"local_port"`
	KindLost                                             string `json:"kind_lost"`
	Count                                                int
	Ancestors                                            []struct {
		PID           int
		Path, Cmdline string
	}
}

// rows reads what was printed as JSON.
func (l *live) rows() []row {
	l.t.Helper()
	return printed[row](l.t, l.out)
}

// printed reads the events in a file, as JSON one a line, of which T is what a test wants to know.
func printed[T any](t *testing.T, file string) (all []T) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var r T
		switch err := d.Decode(&r); err {
		case nil:
			all = append(all, r)
		case io.EOF:
			return all
		default:
			t.Fatal(err)
		}
	}
}

func TestLiveExecAndExit(t *testing.T) {
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,exit", "--env", "GOSHAWK_TEST")
	mark := fmt.Sprintf("mark-%d", os.Getpid())
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", "exit 3", mark, "two words", "\xff")
	cmd.Dir = dir
	cmd.Env = []string{"GOSHAWK_TEST=yes", "SECRET=no"}
	if err := cmd.Run(); err == nil {
		t.Fatal("sh did not exit 3")
	}
	code, stderr := l.stop(syscall.SIGINT)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	var started, ended []row
	for _, r := range l.rows() {
		switch {
		case r.Kind == "exec" && len(r.Args) > 3 && r.Args[3] == mark:
			started = append(started, r)
		case r.Kind == "exit" && r.PID == cmd.Process.Pid:
			ended = append(ended, r)
		case r.Kind != "exec" && r.Kind != "exit":
			t.Errorf("a %s event, which was not asked for", r.Kind)
		}
	}
	if len(started) != 1 || len(ended) != 1 {
		t.Fatalf("%d exec and %d exit events, want one each", len(started), len(ended))
	}
	s, e := started[0], ended[0]
	check(t, "path", s.Path, shell)
	check(t, "args", s.Args, []string{"/bin/sh", "-c", "exit 3", mark, "two words", `\xff`})
	check(t, "cwd", s.Cwd, dir)
	check(t, "env", s.Env, []string{"GOSHAWK_TEST=yes"})
	check(t, "fidelity", s.Fidelity, "kernel")
	check(t, "ppid", s.PPID, os.Getpid())
	check(t, "nearest ancestor", s.Ancestors[0].PID, os.Getpid())
	check(t, "exit code", e.ExitCode, 3)
	check(t, "exit's process", e.ProcessID, s.ProcessID)
	check(t, "exit's parent", e.ParentID, s.ParentID)
	check(t, "exit's path", e.Path, shell)
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestLiveConnection(t *testing.T) {
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "connect,accept,close")
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).Port
	client, err := net.Dial("tcp4", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	own := client.LocalAddr().(*net.TCPAddr).Port
	client.Close()
	peer.Close()
	time.Sleep(100 * time.Millisecond)
	if code, stderr := l.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range l.rows() {
		if r.PID != os.Getpid() || r.LocalPort != port && r.RemotePort != port {
			continue
		}
		seen[r.Kind]++
		check(t, r.Kind+" path", r.Path, exe)
		switch r.Kind {
		case "connect":
			check(t, "connect", []any{r.Protocol, r.LocalPort, r.RemotePort, r.Result}, []any{"tcp", own, port, "ok"})
		case "accept":
			check(t, "accept", []any{r.Protocol, r.LocalPort, r.RemotePort, r.Result}, []any{"tcp", port, own, "ok"})
		}
	}
	check(t, "events", seen, map[string]int{"connect": 1, "accept": 1, "close": 2})
}

func TestLiveText(t *testing.T) {
	l := startRun(t, t.TempDir(), "--where", fmt.Sprintf("ppid = %d", os.Getpid()))
	if err := exec.Command("/bin/sh", "-c", "exit 0", "it's", "\x1b[31m").Run(); err != nil {
		t.Fatal(err)
	}
	_, stderr := l.stop(os.Interrupt)
	b, err := os.ReadFile(l.out)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(os.Args[0])
	line := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d\d\d exec    root     -            \S*>` + regexp.QuoteMeta(name) +
		`>\w+\[\d+\] +/bin/sh -c 'exit 0' 'it'\\''s' \$'\\x1b\[31m'$`)
	if !line.Match(b) {
		t.Errorf("no line matches %s in:\n%s", line, b)
	}
	if !regexp.MustCompile(`(?m)^ready: source=ebpf hooks=\d+( missing=\S+)? store=\S+/var/lib/goshawk socket=\S+/run/goshawk/goshawk\.sock\n` +
		`stopped: \d+ events \(exec \d+.*\) in \d+\.\d\d s\nlost: none\ncost: \d+\.\d\d s of CPU \(\d+\.\d % of a core\), peak memory \d+\.\d MB\n`).MatchString(stderr) {
		t.Errorf("standard error:\n%s", stderr)
	}
}

// TestLiveQuiet prints nothing, and keeps what happened.
func TestLiveQuiet(t *testing.T) {
	l := startRun(t, t.TempDir(), "--quiet", "--kinds", "exec")
	mark := fmt.Sprintf("quiet-%d", os.Getpid())
	if err := exec.Command("/bin/true", mark).Run(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("goshawk", "query", "--format", "csv", "--socket", filepath.Join(l.root, "run/goshawk/goshawk.sock"),
		"SELECT count(*) AS n FROM exec_events WHERE comm = 'true' AND args LIKE '%"+mark+"%'").Output()
	if err != nil {
		t.Fatal(err)
	}
	check(t, "kept", string(out), "n\n1\n")
	if code, stderr := l.stop(os.Interrupt); code != 0 || !strings.Contains(stderr, "\nlost: none\n") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	printed, err := os.ReadFile(l.out)
	if err != nil || len(printed) > 0 {
		t.Errorf("printed %q, %v", printed, err)
	}
}

func TestLiveDuration(t *testing.T) {
	begun := time.Now()
	l := startRun(t, t.TempDir(), "--duration", "1s", "--kinds", "exit")
	if code, stderr := l.stop(nil); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if d := time.Since(begun); d < time.Second {
		t.Errorf("ended after %v", d)
	}
}

func TestLiveSecondAgent(t *testing.T) {
	root := t.TempDir()
	l := startRun(t, root)
	out, err := exec.Command("goshawk", "run", "--root-dir", root).CombinedOutput()
	var exit *exec.ExitError
	if e, ok := err.(*exec.ExitError); ok {
		exit = e
	}
	if exit == nil || exit.ExitCode() != 5 {
		t.Errorf("the second agent: %v", err)
	}
	want := fmt.Sprintf("goshawk: lock store %q: the agent with pid %d holds it: stop it, or choose another directory\n",
		filepath.Join(root, "var/lib/goshawk"), l.cmd.Process.Pid)
	check(t, "message", string(out), want)
	l.stop(os.Interrupt)

	// And after a kill that it cannot answer, the next one starts.
	l = startRun(t, root)
	l.stop(os.Kill)
	l = startRun(t, root)
	if code, stderr := l.stop(os.Interrupt); code != 0 {
		t.Errorf("after a kill: exit code %d: %s", code, stderr)
	}
}

func TestLiveReaderGoesAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := startRunTo(t, w, t.TempDir())
	w.Close()
	r.Close()
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	code, stderr := l.stop(nil)
	if code != 0 || !strings.Contains(stderr, "stopped: ") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// load runs n programs, each with an argument of its own, from four workers.
func load(t *testing.T, mark string, n int) {
	t.Helper()
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := w; i < n; i += 4 {
				if err := exec.Command("/bin/true", mark+strconv.Itoa(i)).Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

func processes() int {
	if testing.Short() {
		return 2000
	}
	return 20_000
}

// TestLiveEveryProcess starts 20,000 processes: each is there once, or counted lost.
func TestLiveEveryProcess(t *testing.T) {
	n := processes()
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,fork,exit")
	mark := fmt.Sprintf("mark-%d-", os.Getpid())
	load(t, mark, n)
	memory := peak(t, l.cmd.Process.Pid)
	if code, stderr := l.stop(os.Interrupt); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	b := balance(t, l.rows(), mark)
	for _, kind := range []string{"exec", "fork", "exit"} {
		if len(b.seen[kind])+b.lost[kind] < n || b.lost[kind] == 0 && len(b.seen[kind]) != n {
			t.Errorf("%d %s events of %d, %d counted lost", len(b.seen[kind]), kind, n, b.lost[kind])
		}
	}
	t.Logf("lost %v, peak memory %d MB", b.lost, memory>>20)
	if memory > 64<<20 {
		t.Errorf("%d bytes of peak memory", memory)
	}
}

// TestLiveTinyRing makes the rings so small that records must be lost, and asks that each
// is counted.
func TestLiveTinyRing(t *testing.T) {
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,fork,exit", "--ring-size", "4096")
	mark := fmt.Sprintf("tiny-%d-", os.Getpid())
	l.held(func() { load(t, mark, 1000) })
	load(t, mark+"later-", 1000)
	_, stderr := l.stop(os.Interrupt)
	b := balance(t, l.rows(), mark)
	if b.lost["exec"] == 0 {
		t.Errorf("nothing was lost:\n%s", stderr)
	}
	if len(b.seen["exec"])+b.lost["exec"] < 2000 {
		t.Errorf("%d exec events of 2000, %d counted lost", len(b.seen["exec"]), b.lost["exec"])
	}
	if !regexp.MustCompile(`(?m)^lost: .*exec \d+ \(ebpf, \w+\)`).MatchString(stderr) {
		t.Errorf("summary:\n%s", stderr)
	}
}

// held does something while the agent is stopped, so that its rings surely fill.
func (l *live) held(do func()) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		l.t.Fatal(err)
	}
	defer l.cmd.Process.Signal(syscall.SIGCONT)
	do()
}

// books is what was seen of the processes of a load, by kind, and what was lost of all.
type books struct {
	seen map[string]map[string]bool // process ids
	lost map[string]int
}

func balance(t *testing.T, rows []row, mark string) books {
	t.Helper()
	b := books{map[string]map[string]bool{"exec": {}, "fork": {}, "exit": {}}, map[string]int{}}
	args := map[string]bool{}
	parents := map[string]bool{}
	last := int64(0)
	for _, r := range rows {
		if r.EID <= last {
			t.Fatalf("event %d comes after %d", r.EID, last)
		}
		last = r.EID
		switch {
		case r.Kind == "loss":
			b.lost[r.KindLost] += r.Count
		case r.Kind == "exec" && len(r.Args) == 2 && strings.HasPrefix(r.Args[1], mark):
			if args[r.Args[1]] || b.seen["exec"][r.ProcessID] {
				t.Errorf("%s is there twice", r.Args[1])
			}
			args[r.Args[1]] = true
			b.seen["exec"][r.ProcessID] = true
			parents[r.ParentID] = true
			if r.PPID != os.Getpid() || len(r.Ancestors) == 0 || r.Ancestors[0].PID != os.Getpid() {
				t.Errorf("%s is a child of %d, ancestors %v", r.Args[1], r.PPID, r.Ancestors)
			}
		}
	}
	if len(parents) > 1 {
		t.Errorf("one parent goes by %d names", len(parents))
	}
	for _, r := range rows {
		id := r.ProcessID
		if r.Kind == "fork" {
			id = r.ChildID
		} else if r.Kind != "exit" {
			continue
		}
		// A process whose exec was lost is known by its parent only.
		if !b.seen["exec"][id] && (b.lost["exec"] == 0 || !parents[r.ParentID] && !parents[r.ProcessID]) {
			continue
		}
		if b.seen[r.Kind][id] {
			t.Errorf("%s of %s is there twice", r.Kind, id)
		}
		b.seen[r.Kind][id] = true
	}
	return b
}

// peak is the peak resident memory of a process in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestLiveReady holds what it takes to be ready: below 300 ms where nothing else runs (make bench). Beside
// other work the time says nothing; what CPU time it took does, with twice the room.
func TestLiveReady(t *testing.T) {
	var cpus, times []time.Duration
	for range 5 {
		began := time.Now()
		l := startRunTo(t, nil, t.TempDir(), "--quiet")
		times = append(times, time.Since(began))
		l.stop(os.Interrupt)
		s := l.cmd.ProcessState
		cpus = append(cpus, s.UserTime()+s.SystemTime()) // stopping is in it
	}
	t.Logf("ready after %v at least, with %v of CPU time for start and stop", slices.Min(times), slices.Min(cpus))
	if cpu := slices.Min(cpus); cpu > 900*time.Millisecond {
		t.Errorf("it took %v of CPU time at least", cpu)
	}
}

// TestLiveOldSystemCalls runs goshawk with no system call that Linux 3.10 had not, but bpf(2).
func TestLiveOldSystemCalls(t *testing.T) {
	needRoot(t)
	old := filepath.Join(t.TempDir(), "oldcalls")
	if out, err := exec.Command("gcc", "-static", "-O1", "-Wall", "-Werror", "-o", old, "testdata/oldcalls.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	goshawk, err := exec.LookPath("goshawk")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	say := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(old, append([]string{goshawk}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := say("run", "--root-dir", root, "--duration", "2s", "--format", "json", "--kinds", "exec,exit"); !strings.Contains(out, "\nready: ") && !strings.HasPrefix(out, "ready: ") {
		t.Errorf("run is not ready: %s", out)
	}
	if out := say("query", "--root-dir", root, "--format", "csv", "SELECT count(*) >= 0 AS n FROM exec_events"); out != "n\n1\n" {
		t.Errorf("query says %q", out)
	}
	say("check")
}
