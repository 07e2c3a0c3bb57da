package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// audit is the kernel's audit subsystem, with what was set before we came.
//
// Once audit was enabled since boot, each new task keeps an audit context, and every
// system call of it costs more, even when audit is off again and has no rules. The rule
// never,task makes new tasks without one, as on a host that has never seen audit; all
// sides but those that use audit run under it.
type audit struct {
	before map[string]string
}

// openAudit remembers the kernel's audit settings; nil where there is no auditctl.
func openAudit(ctx context.Context) (*audit, error) {
	if _, err := exec.LookPath("auditctl"); err != nil {
		return nil, nil
	}
	status, err := auditStatus(ctx)
	if err != nil {
		return nil, err
	}
	if status["pid"] != "0" {
		return nil, fmt.Errorf("use audit: process %s has it; stop that first", status["pid"])
	}
	rules, err := exec.CommandContext(ctx, "auditctl", "-l").Output()
	if err != nil {
		return nil, fmt.Errorf("list audit rules: %w", err)
	}
	if s := strings.TrimSpace(string(rules)); s != "No rules" {
		return nil, fmt.Errorf("use audit: it has rules that are not ours: %q; remove them first", s)
	}
	return &audit{before: status}, nil
}

func auditStatus(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "auditctl", "-s").Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the state of audit: %w", err)
	}
	m := map[string]string{}
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		m[name] = value
	}
	return m, nil
}

// prepare clears the rules, and sets those that the next side needs.
func (a *audit) prepare(used bool) error {
	ctx := context.Background()
	if err := command(ctx, "auditctl", "-D"); err != nil {
		return err
	}
	if used {
		return nil
	}
	if err := command(ctx, "auditctl", "-e", "0"); err != nil {
		return err
	}
	return command(ctx, "auditctl", "-a", "never,task")
}

// restore puts back what openAudit found. It must work when all else has failed.
func (a *audit) restore() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(
		command(ctx, "auditctl", "-D"),
		command(ctx, "auditctl", "-e", a.before["enabled"]),
		command(ctx, "auditctl", "-b", a.before["backlog_limit"]),
		command(ctx, "auditctl", "--backlog_wait_time", a.before["backlog_wait_time"]),
	)
}

// auditd is Debian's audit daemon with the rules that tell of the same load.
type auditd struct {
	bench *bench
	title string
	files bool // it has only the watch on a directory
	cmd   *exec.Cmd
	dir   string
	log   string
	pids  []int
}

func (a *auditd) name() string { return a.title }

// auditdConfig is Debian's own, but for the places, and for a log that is not rotated away
// under the load.
const auditdConfig = `local_events = yes
write_logs = yes
log_file = %s
log_group = root
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 8000
num_logs = 5
priority_boost = 4
name_format = NONE
max_log_file_action = IGNORE
space_left = 75
space_left_action = IGNORE
verify_email = no
action_mail_acct = root
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
use_libwrap = no
tcp_listen_queue = 5
tcp_max_per_addr = 1
distribute_network = no
q_depth = 2000
overflow_action = SYSLOG
max_restarts = 10
plugin_dir = %s
end_of_event_timeout = 2
`

func (a *auditd) start(ctx context.Context) error {
	var err error
	if a.dir, err = os.MkdirTemp(a.bench.dir, "auditd-"); err != nil {
		return err
	}
	a.log = filepath.Join(a.dir, "audit.log")
	plugins := filepath.Join(a.dir, "plugins.d")
	if err := os.Mkdir(plugins, 0o750); err != nil {
		return err
	}
	config := fmt.Sprintf(auditdConfig, a.log, plugins)
	if err := os.WriteFile(filepath.Join(a.dir, "auditd.conf"), []byte(config), 0o640); err != nil {
		return err
	}
	a.cmd = exec.Command("auditd", "-n", "-c", a.dir)
	if err := a.cmd.Start(); err != nil {
		a.cmd = nil
		return err
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	// Debian's rules set the first two (/etc/audit/rules.d/audit.rules).
	rules := [][]string{
		{"auditctl", "-b", "8192"},
		{"auditctl", "--backlog_wait_time", "60000"},
		{"auditctl", "--reset-lost"},
		{"auditctl", "-w", a.bench.watched(), "-p", "wa", "-k", "goshawk-bench"},
	}
	if !a.files {
		rules = append(rules, []string{"auditctl", "-a", "always,exit", "-F", "arch=b64",
			"-S", "execve,execveat,connect,accept,accept4,bind", "-k", "goshawk-bench"})
	}
	for _, args := range rules {
		if err := command(ctx, args...); err != nil {
			return err
		}
	}
	a.pids = []int{a.cmd.Process.Pid}
	if k := kauditd(); k != 0 {
		a.pids = append(a.pids, k)
	}
	return nil
}

// ready waits until the kernel sends its records to our auditd.
func (a *auditd) ready(ctx context.Context) error {
	pid := strconv.Itoa(a.cmd.Process.Pid)
	for range 100 {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		status, err := auditStatus(ctx)
		if err != nil {
			return err
		}
		if status["pid"] == pid && status["enabled"] == "1" {
			return nil
		}
	}
	return errors.New("wait for auditd: it has not registered in 5 s")
}

// kauditd is the kernel thread that carries records to auditd: part of what audit costs.
func kauditd() int {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, n := range names {
		if data, _ := os.ReadFile(n); string(data) == "kauditd\n" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(n)))
			return pid
		}
	}
	return 0
}

// sendingTime is kauditd's CPU time, 0 where it is none of tasks.
func sendingTime(tasks []int) time.Duration {
	k := kauditd()
	if !slices.Contains(tasks, k) {
		return 0
	}
	d, err := cpuOf([]int{k})
	if err != nil {
		return 0
	}
	return d
}

func (a *auditd) tasks() []int { return a.pids }

// told reads the log once for each load: one SYSCALL record is one event.
func (a *auditd) told(ctx context.Context, l load, n int) (tally, error) {
	var t tally
	exe := a.bench.program(l)
	var calls []string
	switch l {
	case process: // exec; auditd has no forks and no exits
		exe, calls, t.generated = a.bench.starts(l), []string{"execve", "execveat"}, n
	case connection: // connect and accept; auditd has no closes
		calls, t.generated = []string{"connect", "accept", "accept4"}, 2*n
	case storm:
		calls, t.generated = []string{"execve", "connect", "open", "openat"}, a.bench.stormEvents(n)
	default:
		return t, nil
	}
	status, err := auditStatus(ctx)
	if err != nil {
		return t, err
	}
	// Of any kind: the kernel keeps one counter, which a.start has set to zero.
	if t.lost, err = strconv.Atoi(status["lost"]); err != nil {
		return t, fmt.Errorf("read audit's lost records: %w", err)
	}
	f, err := os.Open(a.log)
	if err != nil {
		return t, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		if !strings.HasPrefix(line, "type=SYSCALL") || !strings.Contains(line, `exe="`+exe+`"`) {
			continue
		}
		for _, c := range calls {
			if strings.Contains(line, "SYSCALL="+c+" ") {
				t.captured++
			}
		}
	}
	return t, s.Err()
}

func (a *auditd) stop() error {
	a.pids = nil
	if a.cmd == nil {
		return nil
	}
	ctx := context.Background()
	errs := []error{command(ctx, "auditctl", "-D"), command(ctx, "auditctl", "-e", "0")}
	errs = append(errs, end(a.cmd, 10*time.Second))
	a.cmd = nil
	return errors.Join(append(errs, os.RemoveAll(a.dir))...)
}

// end asks a process that we started to go, and makes it when it does not.
func end(cmd *exec.Cmd, patience time.Duration) error {
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		return fmt.Errorf("end %s: it did not go in %v", cmd.Path, patience)
	}
	return err
}
