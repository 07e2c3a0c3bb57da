package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

func TestCheckConcludes(t *testing.T) {
	hooks := []hookText{{Name: "exec", Tier: "tp_btf", Best: true}, {Name: "connect", Tier: "tracepoint"}, {Name: "dns"}}
	lacking := []kernel.Fact{{Name: "release", State: kernel.OK, Advice: "never said"}, {Name: "btf", State: kernel.Missing, Advice: "give --btf"}}
	for _, c := range []struct {
		name   string
		r      report
		err    error
		code   int
		source string
		want   string
	}{
		{"all", report{Hooks: hooks[:2]}, nil, exitOK, "ebpf", "eBPF works: 2 hooks, 1 at their best tier"},
		{"some", report{Hooks: hooks}, nil, exitOK, "ebpf", "eBPF works: 2 of 3 hooks, 1 at their best tier; goshawk run goes without dns"},
		{"none", report{Hooks: hooks[2:], Kernel: lacking}, errors.New("attach:\nno"), exitUnsupported, "", "eBPF cannot run: attach:; no; give --btf"},
		{"no reason", report{}, nil, exitUnsupported, "", "eBPF cannot run: no hook is known"},
	} {
		code := c.r.conclude(c.err)
		check(t, c.name, []any{code, c.r.Source, c.r.Result}, []any{c.code, c.source, c.want})
	}
	var r report
	code := r.conclude(fmt.Errorf("load: %w", unix.EPERM))
	check(t, "denied", code, exitPrivilege)
	if !regexp.MustCompile(`^eBPF cannot run for this (user: run goshawk check as root|root: grant CAP_BPF, )`).MatchString(r.Result) {
		t.Errorf("denied: %s", r.Result)
	}
}

// checked runs check, which must end with code.
func checked(t *testing.T, code int, args ...string) report {
	t.Helper()
	cmd := exec.Command("goshawk", append([]string{"check", "--format", "json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, _ := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code || stderr.Len() > 0 {
		t.Fatalf("check %v: exit code %d, want %d: %s%s", args, got, code, &stderr, out)
	}
	var r report
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("not one object: %v\n%s", err, out)
	}
	return r
}

func TestLiveCheck(t *testing.T) {
	needRoot(t)
	r := checked(t, 0)
	for _, name := range sensor.HookNames() {
		if !slices.ContainsFunc(r.Hooks, func(h hookText) bool { return h.Name == name && (h.Tier != "" || h.Refused != "") }) {
			t.Errorf("hook %s has neither a tier nor a reason: %+v", name, r.Hooks)
		}
	}
	check(t, "rings", r.Rings, []sensor.Ring{{Name: "critical", Bytes: sensor.DefaultCritical}, {Name: "bulk", Bytes: sensor.DefaultBulk}})
	var facts []string
	for _, f := range r.Kernel {
		facts = append(facts, f.Name)
	}
	check(t, "facts", facts, []string{"release", "distribution", "architecture", "btf", "ring_buffer", "capabilities", "lockdown", "lsm", "cgroups"})
	if r.Audit.State == "" || r.Source != "ebpf" || !strings.HasPrefix(r.Result, "eBPF works: ") {
		t.Errorf("audit %+v, source %q, result %q", r.Audit, r.Source, r.Result)
	}

	// For people it says the same, and ends with the same line.
	out, err := exec.Command("goshawk", "check").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	check(t, "last line", lines[len(lines)-1], r.Result)
	for _, h := range r.Hooks {
		if !regexp.MustCompile(`(?m)^  ` + h.Name + ` +` + h.Tier + ` +` + strings.Join(h.Kinds, ", ")).Match(out) {
			t.Errorf("no line about hook %s:\n%s", h.Name, out)
		}
	}
}

// TestLiveCheckWithoutAHook forces each hook off in turn: every other one stays as it is.
func TestLiveCheckWithoutAHook(t *testing.T) {
	needRoot(t)
	all := checked(t, 0)
	for _, gone := range all.Hooks {
		r := checked(t, 0, "--tier", gone.Name+"=none")
		for i, h := range r.Hooks {
			if h.Name != gone.Name {
				check(t, "without "+gone.Name+": "+h.Name, h.Tier, all.Hooks[i].Tier)
			} else if h.Tier != "" || !strings.HasSuffix(h.Refused, ": not wanted") {
				t.Errorf("%s is there all the same: %+v", gone.Name, h)
			}
		}
		if !strings.HasSuffix(r.Result, "goes without "+gone.Name) {
			t.Errorf("without %s: %s", gone.Name, r.Result)
		}
	}
	var off []string
	for _, h := range all.Hooks {
		off = append(off, "--tier", h.Name+"=none")
	}
	r := checked(t, exitUnsupported, off...)
	if r.Source != "" || !strings.HasPrefix(r.Result, "eBPF cannot run: ") {
		t.Errorf("without all: source %q, result %q", r.Source, r.Result)
	}
}

func TestLiveCheckUnprivileged(t *testing.T) {
	needRoot(t)
	binary, err := exec.LookPath("goshawk")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	// A test's own directory is closed to others.
	dir, err := os.MkdirTemp("", "goshawk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	open := filepath.Join(dir, "goshawk")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(open, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(open, "check")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	check(t, "exit code", cmd.ProcessState.ExitCode(), exitPrivilege)
	if !strings.HasSuffix(string(out), "\neBPF cannot run for this user: run goshawk check as root\n") {
		t.Errorf("it says:\n%s", out)
	}
}
