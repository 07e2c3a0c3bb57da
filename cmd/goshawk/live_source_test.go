package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

// needAudit skips a test that wants audit for itself.
func needAudit(t *testing.T) {
	t.Helper()
	needRoot(t)
	if s := audit.Look(procfs.At("")); s.Case != audit.CaseOwn {
		t.Skip("needs an audit subsystem without an owner: " + strings.Join(s.Lines(), "; "))
	}
}

// TestLiveExternalTypes reads this kernel's own types as an old kernel's are read: from a file,
// a directory and an archive, with the object for such kernels.
func TestLiveExternalTypes(t *testing.T) {
	needRoot(t)
	own, _, err := procfs.At("").BTF()
	if err != nil {
		t.Skipf("this kernel carries no BTF: %v", err)
	}
	all, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	release, err := procfs.At("").Release()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, release+".btf")
	if err := os.WriteFile(file, all, 0o644); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(dir, "btf.tar.gz")
	if goTool, err := exec.LookPath("go"); err == nil { // not in a guest
		if out, err := exec.Command(goTool, "run", "../btf", "-out", packed, dir).CombinedOutput(); err != nil {
			t.Fatalf("pack: %v\n%s", err, out)
		}
	} else {
		packed = ""
	}
	plain := checked(t, 0, "--object", "legacy")
	for _, path := range []string{file, dir, packed} {
		if path == "" {
			continue
		}
		r := checked(t, 0, "--object", "legacy", "--btf", path)
		check(t, path, r.Result, plain.Result)
		for i, h := range r.Hooks {
			check(t, path+" "+h.Name, h.Tier, plain.Hooks[i].Tier)
		}
		for _, f := range r.Kernel {
			if f.Name == "btf" && (f.State != kernel.OK || !strings.HasPrefix(f.Value, dir)) {
				t.Errorf("%s: %+v", path, f)
			}
		}
	}
	out, err := exec.Command("goshawk", "check", "--btf", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "has no "+release+".btf") {
		t.Errorf("an empty directory: %v: %s", err, out)
	}
}

// noHook is every hook of eBPF forced off: what a kernel without BPF would leave.
func noHook() []string {
	var args []string
	for _, name := range sensor.HookNames() {
		args = append(args, "--tier", name+"=none")
	}
	return args
}

// TestLiveSources asks for sources in different ways, and looks which run.
func TestLiveSources(t *testing.T) {
	needAudit(t)
	before := audit.Look(procfs.At(""))
	for _, c := range []struct {
		name   string
		args   []string
		ready  string
		says   string // on standard error
		tables string // active rows of goshawk_sources by eBPF and audit
	}{
		{"auto", nil, "ready: source=ebpf ", "", "ebpf"},
		{"auto with a kind that eBPF has not", []string{"--kinds", "exec,user"}, "ready: source=ebpf,audit ", "goshawk: source: ebpf, and audit for user\n", "audit ebpf"},
		{"auto without eBPF", noHook(), "ready: source=audit ", "goshawk: source: audit, since eBPF cannot run: attach BPF programs: none of ", "audit"},
		{"both", []string{"--source", "both", "--kinds", "exec,policy"}, "ready: source=ebpf,audit ", "goshawk: source: ebpf, and audit for policy\n", "audit ebpf"},
		{"both, where eBPF does", []string{"--source", "both", "--kinds", "exec"}, "ready: source=ebpf ", "goshawk: source: ebpf, which tells of everything asked for; audit is left alone\n", "ebpf"},
		{"audit", []string{"--source", "audit", "--kinds", "exec,exit"}, "ready: source=audit ", "", "audit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := startRun(t, t.TempDir(), append([]string{"--format", "json", "--source", "auto"}, c.args...)...)
			out, err := exec.Command("goshawk", "query", "--format", "csv", "--socket", filepath.Join(l.root, "run/goshawk/goshawk.sock"),
				"SELECT DISTINCT source FROM goshawk_sources WHERE active AND source IN ('ebpf', 'audit') ORDER BY 1").Output()
			if err != nil {
				t.Error(err)
			}
			check(t, "goshawk_sources", strings.Fields(string(out)), append([]string{"source"}, strings.Fields(c.tables)...))
			code, stderr := l.stop(os.Interrupt)
			if code != 0 || !strings.Contains(stderr, c.ready) || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %q and %q in:\n%s", code, c.ready, c.says, stderr)
			}
		})
	}
	after := audit.Look(procfs.At(""))
	check(t, "audit afterwards", []any{after.Case, after.Enabled, after.Rules, after.Failure, after.BacklogLimit},
		[]any{before.Case, before.Enabled, before.Rules, before.Failure, before.BacklogLimit})
}

// TestLiveWithoutAudit is on a kernel that has no audit, or was told to have none: what eBPF does
// works, and a line says what is not told.
func TestLiveWithoutAudit(t *testing.T) {
	needRoot(t)
	var without *audit.Unsupported
	if s := audit.Look(procfs.At("")); !errors.As(s.Err, &without) {
		t.Skip("needs a kernel without audit, or booted with audit=0 (make test-kernels K=6.1-noaudit)")
	}
	const why = "use audit: this kernel has no audit subsystem, or was booted with audit=0: open audit socket: protocol not supported"
	r := checked(t, 0)
	check(t, "audit", []any{r.Audit.Case, r.Audit.Advice, r.Source}, []any{audit.CaseNone, []string{why}, "ebpf"})
	text, err := exec.Command("goshawk", "check").Output()
	if err != nil || !strings.Contains(string(text), why) {
		t.Errorf("check: %v\n%s", err, text)
	}
	for _, c := range []struct {
		name string
		args []string
		says string // on standard error, before it is ready
	}{
		{"auto", nil, ""},
		{"auto, asked by name", []string{"--kinds", "exec,user"}, "goshawk: source: ebpf without user: " + why + "\n"},
		{"both", []string{"--source", "both", "--kinds", "exec,user,policy"}, "goshawk: source: ebpf without user, policy: " + why + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := startRun(t, t.TempDir(), append([]string{"--format", "json", "--source", "auto"}, c.args...)...)
			child := exec.Command("/bin/true")
			if err := child.Run(); err != nil {
				t.Fatal(err)
			}
			l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM exec_events WHERE pid = %d AND source = 'ebpf'", child.Process.Pid), "n\n1\n")
			code, stderr := l.stop(os.Interrupt)
			if code != 0 || !strings.HasPrefix(stderr, c.says+"ready: source=ebpf ") {
				t.Errorf("exit code %d, want %q first in:\n%s", code, c.says, stderr)
			}
		})
	}
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"audit", []string{"--source", "audit"}, "goshawk: " + why + "\n"},
		{"what audit alone tells", []string{"--kinds", "user"}, "goshawk: " + why + "\n"},
		{"nor eBPF", append(noHook(), "--kinds", "exec"), "; nor can audit: " + why + "; goshawk check says what this kernel lacks\n"},
	} {
		var stderr strings.Builder
		cmd := exec.Command("goshawk", append([]string{"run", "--root-dir", t.TempDir()}, c.args...)...)
		cmd.Stderr = &stderr
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != exitUnsupported || strings.Count(stderr.String(), "\n") != 1 || !strings.HasSuffix(stderr.String(), c.says) {
			t.Errorf("%s: exit code %d, want %q: %s", c.name, code, c.says, &stderr)
		}
	}
}

func TestLiveNoSource(t *testing.T) {
	needRoot(t)
	var stderr strings.Builder
	cmd := exec.Command("goshawk", append([]string{"run", "--root-dir", t.TempDir(), "--kinds", "dns"}, noHook()...)...)
	cmd.Stderr = &stderr
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUnsupported || strings.Count(stderr.String(), "\n") != 1 ||
		!strings.HasPrefix(stderr.String(), "goshawk: attach BPF programs: none of 1 hooks works on this kernel") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
