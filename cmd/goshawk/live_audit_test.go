package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// TestLiveBoth has eBPF tell of processes and sockets and audit of users, and of files where
// eBPF's side cannot: nothing twice, and one process has one process_id whoever tells of it.
func TestLiveBoth(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Skip("needs sudo: it tells audit what it does")
	}
	for _, c := range []struct {
		name  string
		args  []string
		files string // who tells of them
		says  string
	}{
		{"files by fanotify", nil, "fanotify", "goshawk: source: ebpf, and audit for user\n"},
		{"files by audit", []string{"--tier", "file=none"}, "audit", "goshawk: source: ebpf, and audit for file, user\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := startRun(t, t.TempDir(), append([]string{"--format", "json", "--source", "both", "--watch", dir + "/%%", "--hash", "none",
				"--kinds", "exec,fork,exit,connect,file,user"}, c.args...)...)
			server, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			client, err := net.Dial("tcp4", server.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			shell := exec.Command("/bin/sh", "-ec", "cd "+dir+"; echo x > new; mv new moved; rm moved")
			sudo := exec.Command("sudo", "-n", "/bin/true", "goshawk both")
			for _, cmd := range []*exec.Cmd{shell, sudo} {
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal sudo makes none
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
				}
			}
			l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM session_events WHERE pid = %d AND type = 'USER_CMD'", sudo.Process.Pid), "n\n1\n")
			l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM filesystem_events WHERE target_path = '%s/moved' AND operation = 'delete'", dir), "n\n1\n")
			l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM exit_events WHERE pid IN (%d, %d)", shell.Process.Pid, sudo.Process.Pid), "n\n2\n")
			code, stderr := l.stop(os.Interrupt)
			if code != 0 || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "ready: source=ebpf,audit ") {
				t.Errorf("exit code %d, want %q in:\n%s", code, c.says, stderr)
			}
			wantSource := map[string]string{"exec": "ebpf", "fork": "ebpf", "exit": "ebpf", "connect": "ebpf", "file": c.files, "user": "audit"}
			told, id := map[string]int{}, map[int]string{}
			_, port, _ := net.SplitHostPort(server.Addr().String())
			for _, r := range printed[sourceRow](t, l.out) {
				if r.Kind == "loss" {
					t.Errorf("lost: %+v", r)
					continue
				}
				if r.Source != wantSource[r.Kind] {
					t.Errorf("%s told a %s event of pid %d", r.Source, r.Kind, r.PID)
				}
				if r.PID == shell.Process.Pid || r.PID == sudo.Process.Pid {
					switch was := id[r.PID]; {
					case was == "":
						id[r.PID] = r.ProcessID
					case was != r.ProcessID:
						t.Errorf("%s %s: process %d is %s, and was %s", r.Source, r.Kind, r.PID, r.ProcessID, was)
					}
				}
				switch {
				case r.Kind == "exec" || r.Kind == "exit":
					told[fmt.Sprint(r.Kind, " ", r.PID)]++
				case r.Kind == "fork":
					told[fmt.Sprint("fork ", r.ChildPID)]++
				case r.Kind == "connect" && fmt.Sprint(r.RemotePort) == port:
					told["connect"]++
				case r.Kind == "file" && filepath.Dir(r.Target) == dir:
					told["file "+r.Operation+" "+filepath.Base(r.Target)]++
				case r.Kind == "user" && r.PID == sudo.Process.Pid:
					told["user "+r.Type+" "+r.Operation]++
				}
			}
			for _, want := range []string{fmt.Sprint("exec ", shell.Process.Pid), fmt.Sprint("exit ", shell.Process.Pid), fmt.Sprint("fork ", shell.Process.Pid),
				fmt.Sprint("exec ", sudo.Process.Pid), fmt.Sprint("exit ", sudo.Process.Pid), "connect", "file create new", "file rename new", "file delete moved",
				"user USER_CMD command"} {
				if told[want] != 1 {
					t.Errorf("%s is told %d times", want, told[want])
				}
			}
			for what, n := range told {
				if strings.HasPrefix(what, "fork ") && n > 1 || strings.HasPrefix(what, "exit ") && n > 1 || strings.HasPrefix(what, "file ") && n > 1 {
					t.Errorf("%s is told %d times", what, n)
				}
			}
		})
	}
}

// sourceRow is what these tests read of an event.
type sourceRow struct {
	Kind, Source, Type, Operation, Message, Reason string
	PID, Count                                     int
	ChildPID                                       int    `json:"child_pid"`
	RemotePort                                     int    `json:"remote_port"`
	ProcessID                                      string `json:"process_id"`
	Target                                         string `json:"target_path"`
}

// auditctl is the state of audit, as its own tool tells it, without what counts.
func auditctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("auditctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("auditctl %v: %v\n%s", args, err, out)
	}
	var kept []string
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(line, " "); name != "lost" && name != "backlog" && name != "backlog_wait_time_actual" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// auditFlagCase is flags of osquery's, and what they make of the kernel's audit.
type auditFlagCase struct {
	flags        map[string]string
	with         []string // in auditctl -l
	without      []string
	state        string // a line of auditctl -s
	user         bool   // messages of programs are told
	othersLasted bool   // rules of others, while it ran
	othersBack   bool   // and afterwards
}

// start starts run with the flags, or the daemon with them in its options.
func (c *auditFlagCase) start(t *testing.T, command, watched string) (l *live, stop func()) {
	t.Helper()
	root := t.TempDir()
	if command == "run" {
		args := []string{"--format", "json", "--source", "audit", "--watch", watched + "/%%"}
		for flag, value := range c.flags {
			args = append(args, "--"+flag+"="+value)
		}
		l = startRun(t, root, args...)
		return l, func() {
			t.Helper()
			if code, stderr := l.stop(os.Interrupt); code != 0 {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		}
	}
	options := []string{`"enable_file_events": true`}
	for flag, value := range c.flags {
		options = append(options, fmt.Sprintf("%q: %s", flag, value))
	}
	configure(t, root, fmt.Sprintf(`{"options": {%s}, "file_paths": {"flags": ["%s/%%%%"]}}`, strings.Join(options, ", "), watched))
	r := startDaemon(t, root, "--disable_events=false", "--source=audit", "--disable_audit=false")
	return &live{t: t, root: root}, r.stop
}

// TestLiveAuditFlags gives osquery's flags to run and, the same, to the daemon in its options,
// and looks what they make of the kernel's audit while it runs, and afterwards.
func TestLiveAuditFlags(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("auditctl"); err != nil {
		t.Skip("needs auditctl (Debian's package auditd)")
	}
	watched := t.TempDir()
	others := []string{"/etc/goshawk-flags-test", "-p", "wa", "-k", "somebody"}
	all := []string{"execve", "connect", "exit_group", "dir=" + watched, "kill", "never,exclude"}
	for _, c := range []auditFlagCase{
		{nil, all, nil, "backlog_limit 8192\n", true, true, true},
		{map[string]string{"audit_allow_process_events": "false"}, []string{"connect", "dir=" + watched}, []string{"execve", "exit_group", "clone"}, "", true, true, true},
		{map[string]string{"audit_allow_fork_process_events": "false", "audit_allow_kill_process_events": "false"}, []string{"execve"}, []string{"clone", "tgkill"}, "", true, true, true},
		{map[string]string{"audit_allow_sockets": "false"}, []string{"execve", "dir=" + watched}, []string{"connect", "accept", "bind", "listen"}, "", true, true, true},
		{map[string]string{"audit_allow_fim_events": "false"}, []string{"execve", "connect"}, []string{"dir=" + watched}, "", true, true, true},
		{map[string]string{"audit_allow_user_events": "false"}, []string{"execve"}, nil, "", false, true, true},
		{map[string]string{"audit_allow_config": "false"}, nil, append(all, "key=goshawk"), "pid 0\n", true, true, true},
		{map[string]string{"audit_backlog_limit": "1234"}, all, nil, "backlog_limit 1234\n", true, true, true},
		{map[string]string{"audit_force_reconfigure": "true"}, all, nil, "", true, false, true},
		{map[string]string{"audit_force_unconfigure": "true"}, all, nil, "", true, true, false},
	} {
		for _, command := range []string{"run", "daemon"} {
			name := command
			for flag, value := range c.flags {
				name += " " + flag + "=" + value
			}
			t.Run(name, func(t *testing.T) {
				// A mere reader has nobody's leave to switch audit on.
				back := auditctl(t, "-s")
				auditctl(t, "-e", "1")
				defer func() {
					auditctl(t, "-e", strings.Fields(back)[1])                               // enabled N
					_ = exec.Command("auditctl", append([]string{"-W"}, others...)...).Run() // one test removes it
					if got := auditctl(t, "-s"); got != back {
						t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", back, got)
					}
				}()
				auditctl(t, append([]string{"-w"}, others...)...)
				before := auditctl(t, "-s") + auditctl(t, "-l")
				l, stop := c.start(t, command, watched)
				rules, state := auditctl(t, "-l"), auditctl(t, "-s")
				// The daemon's files come with its configuration, which it puts in force when it runs.
				for end := time.Now().Add(time.Minute); command == "daemon" && slices.ContainsFunc(c.with, func(want string) bool { return !strings.Contains(rules, want) }) &&
					time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
					rules = auditctl(t, "-l")
				}
				for _, want := range c.with {
					if !strings.Contains(rules, want) {
						t.Errorf("no rule has %s in:\n%s", want, rules)
					}
				}
				for _, no := range c.without {
					for line := range strings.Lines(rules) {
						if strings.Contains(line, no) && !strings.Contains(line, "somebody") {
							t.Errorf("a rule has %s: %s", no, line)
						}
					}
				}
				if !strings.Contains(state, c.state) {
					t.Errorf("no %q in:\n%s", c.state, state)
				}
				if strings.Contains(rules, "somebody") != c.othersLasted {
					t.Errorf("rules of others: want %v in:\n%s", c.othersLasted, rules)
				}
				auditctl(t, "-m", "goshawk flags test")
				count := "SELECT count(*) AS n FROM session_events WHERE message LIKE '%goshawk flags test%'"
				if c.user {
					l.eventually(count, "n\n1\n")
				} else { // what comes after it tells that it has been read
					child := exec.Command("/bin/true")
					if err := child.Run(); err != nil {
						t.Fatal(err)
					}
					l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM exec_events WHERE pid = %d", child.Process.Pid), "n\n1\n")
					l.eventually(count, "n\n0\n")
				}
				stop()
				after := auditctl(t, "-s") + auditctl(t, "-l")
				if c.othersBack && after != before || !c.othersBack && strings.Contains(after, "somebody") {
					t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
	if s := audit.Look(procfs.At("")); s.Case != audit.CaseOwn {
		t.Errorf("audit is left as %q", s.Case)
	}
}

// TestLiveAuditDisabled leaves audit alone, as run and as the daemon.
func TestLiveAuditDisabled(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("auditctl"); err != nil {
		t.Skip("needs auditctl (Debian's package auditd)")
	}
	before := auditctl(t, "-s") + auditctl(t, "-l")
	see := func(t *testing.T, l *live) {
		l.eventually("SELECT DISTINCT source FROM goshawk_sources WHERE active AND source IN ('ebpf', 'audit')", "source\nebpf\n")
		if during := auditctl(t, "-s") + auditctl(t, "-l"); during != before {
			t.Errorf("audit is changed.\nbefore:\n%s\nwhile it runs:\n%s", before, during)
		}
	}
	t.Run("run", func(t *testing.T) {
		l := startRun(t, t.TempDir(), "--format", "json", "--source", "auto", "--kinds", "exec,user", "--disable_audit")
		see(t, l)
		if code, stderr := l.stop(os.Interrupt); code != 0 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
	t.Run("daemon", func(t *testing.T) {
		root := t.TempDir()
		configure(t, root, `{"options": {"disable_audit": true}}`)
		r := startDaemon(t, root, "--disable_events=false", "--kinds=exec,user")
		see(t, &live{t: t, root: root})
		r.stop()
	})
}

// TestLiveAuditPersist has somebody remove all rules: they are added again, unless that is not
// wanted.
func TestLiveAuditPersist(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("auditctl"); err != nil {
		t.Skip("needs auditctl (Debian's package auditd)")
	}
	for _, persist := range []string{"true", "false"} {
		t.Run(persist, func(t *testing.T) {
			l := startRun(t, t.TempDir(), "--format", "json", "--source", "audit", "--kinds", "exec,user", "--audit_persist="+persist)
			auditctl(t, "-D")
			back := func() bool { return strings.Contains(auditctl(t, "-l"), "goshawk") }
			// It looks for its rules 3 s after a change.
			end := time.Now().Add(8 * time.Second)
			if persist == "true" {
				end = time.Now().Add(time.Minute)
			}
			for !back() && time.Now().Before(end) {
				time.Sleep(50 * time.Millisecond)
			}
			if got := fmt.Sprint(back()); got != persist {
				t.Errorf("with audit_persist=%s the rules are back: %s", persist, got)
			}
			code, stderr := l.stop(os.Interrupt)
			if code != 0 || strings.Contains(stderr, "somebody removed our rules; they are added again") != (persist == "true") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

// TestLiveAuditBeside starts Debian's auditd: check says that it owns audit and what to do, run reads
// beside it and says what is not seen, and changes nothing but what a flag asks for.
func TestLiveAuditBeside(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("auditd"); err != nil {
		t.Skip("needs auditd (Debian's package auditd)")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), []byte("log_file = "+dir+"/audit.log\nlog_group = root\nspace_left = 75\nspace_left_action = IGNORE\n"+
		"admin_space_left = 50\nadmin_space_left_action = IGNORE\nplugin_dir = "+dir+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	was := auditctl(t, "-s")
	defer func() { // auditd leaves it switched on
		auditctl(t, "-e", strings.Fields(was)[1])
		if got := auditctl(t, "-s"); got != was {
			t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", was, got)
		}
	}()
	auditd := exec.Command("auditd", "-n", "-c", dir)
	auditd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := auditd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- auditd.Wait() }()
	stop := sync.OnceFunc(func() {
		auditd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	defer stop()
	owns := fmt.Sprintf("pid %d\n", auditd.Process.Pid)
	for end := time.Now().Add(time.Minute); !strings.Contains(auditctl(t, "-s"), owns); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("auditd does not own audit after a minute")
		}
	}
	before := auditctl(t, "-s") + auditctl(t, "-l")
	same := func(what string) {
		t.Helper()
		if now := auditctl(t, "-s") + auditctl(t, "-l"); now != before {
			t.Errorf("%s: audit is not what it was.\nbefore:\n%s\nnow:\n%s", what, before, now)
		}
	}
	r := checked(t, 0)
	advice := strings.Join(r.Audit.Advice, "; ")
	if r.Audit.Case != audit.CaseBeside || r.Audit.Owner != uint32(auditd.Process.Pid) {
		t.Errorf("check: %+v", r.Audit)
	}
	for _, want := range []string{"audit belongs to auditd (pid ", "not seen: exec, fork", "--audit-with-auditd adds goshawk's rules", "--stop-auditd takes its place"} {
		if !strings.Contains(advice, want) {
			t.Errorf("check advises %q, not %q", advice, want)
		}
	}
	same("check")

	l := startRun(t, t.TempDir(), "--format", "json", "--source", "audit")
	same("run beside auditd")
	auditctl(t, "-m", "goshawk beside test")
	l.eventually("SELECT count(*) AS n FROM session_events WHERE message LIKE '%goshawk beside test%'", "n\n1\n")
	if code, stderr := l.stop(os.Interrupt); code != 0 || strings.Count(stderr, "audit belongs to auditd") != 1 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	same("after run beside auditd")

	l = startRun(t, t.TempDir(), "--format", "json", "--source", "audit", "--audit-with-auditd")
	if now := auditctl(t, "-s"); !strings.Contains(now, owns) || !strings.Contains(auditctl(t, "-l"), "key=goshawk") || strings.Contains(auditctl(t, "-l"), "exclude") {
		t.Errorf("with --audit-with-auditd:\n%s%s", now, auditctl(t, "-l"))
	}
	if code, stderr := l.stop(os.Interrupt); code != 0 || !strings.Contains(stderr, "their records go to the owner, too") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	same("after run with auditd")

	l = startRun(t, t.TempDir(), "--format", "json", "--source", "audit", "--stop-auditd")
	select {
	case err := <-ended:
		ended <- err
	case <-time.After(time.Minute):
		t.Error("auditd has not ended")
	}
	if now := auditctl(t, "-s"); !strings.Contains(now, fmt.Sprintf("pid %d\n", l.cmd.Process.Pid)) {
		t.Errorf("with --stop-auditd goshawk does not own audit:\n%s", now)
	}
	if code, stderr := l.stop(os.Interrupt); code != 0 || !strings.Contains(stderr, "it is not started again when goshawk ends") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// TestLiveDaemonFilesByAudit has the daemon watch files with audit alone, and then others: a file
// that both configurations name is told of each time.
func TestLiveDaemonFilesByAudit(t *testing.T) {
	needAudit(t)
	if _, err := exec.LookPath("auditctl"); err != nil {
		t.Skip("needs auditctl (Debian's package auditd)")
	}
	before := auditctl(t, "-s") + auditctl(t, "-l")
	root, both, first, second := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	config := func(dir string) {
		configure(t, root, fmt.Sprintf(`{"options": {"enable_file_events": true}, "file_paths": {"both": ["%s/%%%%"], "own": ["%s/%%%%"]}}`, both, dir))
	}
	rules := func(with, without string) {
		t.Helper()
		var now string
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if now = auditctl(t, "-l"); strings.Contains(now, "dir="+with) && !strings.Contains(now, "dir="+without) && strings.Contains(now, "dir="+both) {
				return
			}
		}
		t.Fatalf("want a rule for %s and none for %s:\n%s", with, without, now)
	}
	write := func(dirs ...string) {
		t.Helper()
		for _, dir := range dirs {
			if out, err := exec.Command("/bin/sh", "-c", "echo x >> "+filepath.Join(dir, "f")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	config(first)
	r := startDaemon(t, root, "--disable_events=false", "--source=audit", "--disable_audit=false", "--kinds=exec,file")
	l := &live{t: t, root: root}
	rules(first, second)
	write(both, first, second)
	count := func(dir string) string {
		return "SELECT count(*) AS n FROM filesystem_events WHERE operation IN ('create', 'open') AND target_path = '" + dir + "/f'"
	}
	l.eventually(count(first), "n\n1\n")
	config(second)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	rules(second, first)
	write(both, first, second)
	l.eventually(count(second), "n\n1\n")
	l.eventually(count(both), "n\n2\n")
	l.eventually(count(first), "n\n1\n")
	r.stop()
	if after := auditctl(t, "-s") + auditctl(t, "-l"); after != before {
		t.Errorf("audit is not what it was.\nbefore:\n%s\nafter:\n%s", before, after)
	}
}
