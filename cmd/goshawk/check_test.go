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

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/canary"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/kernel"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/sensor"
)

func TestCheckConcludes(t *testing.T) {
	hooks := []hookText{{Name: "exec", Tier: "tp_btf", Best: true}, {Name: "connect", Tier: "tracepoint"}, {Name: "dns"}}
	lacking := []kernel.Fact{{Name: "release", State: kernel.OK, Advice: "never said"}, {Name: "btf", State: kernel.Missing, Advice: "give --btf"}}
	no := auditText{Case: audit.CaseNone, Advice: []string{"use audit: no such protocol"}}
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
		{"none", report{Hooks: hooks[2:], Kernel: lacking, Audit: no}, errors.New("attach:\nno"), exitUnsupported, "",
			"eBPF cannot run: attach:; no; give --btf; nor can audit: use audit: no such protocol"},
		{"no reason", report{Audit: no}, nil, exitUnsupported, "", "eBPF cannot run: no hook is known; nor can audit: use audit: no such protocol"},
		{"audit instead", report{Hooks: hooks[2:], Audit: auditText{Case: audit.CaseOwn}}, errors.New("attach: no"), exitOK, "audit",
			"eBPF cannot run: attach: no; audit works: goshawk run uses it, as with --source audit"},
	} {
		code := c.r.conclude(c.err)
		check(t, c.name, []any{code, c.r.Source, c.r.Result}, []any{c.code, c.source, c.want})
	}
	r := report{Audit: no}
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
	beside := map[string]string{"bind_below": "bind", "connect_below": "connect", "io_uring": "connect"}
	for _, name := range sensor.HookNames() {
		if name == "module" && !procfs.At("").HasModules() {
			continue // this kernel has none to load
		}
		if slices.ContainsFunc(r.Hooks, func(h hookText) bool { return h.Name == beside[name] && !strings.HasPrefix(h.Tier, "tracepoint") }) {
			continue // what it stands beside tells of all
		}
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
	if r.Audit.Case == "" || len(r.Audit.Advice) == 0 || r.Source != "ebpf" || !strings.HasPrefix(r.Result, "eBPF works: ") {
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
	tiers := map[string]string{}
	for _, h := range all.Hooks {
		tiers[h.Name] = h.Tier
	}
	for _, gone := range all.Hooks {
		r := checked(t, 0, "--tier", gone.Name+"=none")
		for _, h := range r.Hooks { // those beside the one that is gone are not needed then
			if h.Name != gone.Name {
				check(t, "without "+gone.Name+": "+h.Name, h.Tier, tiers[h.Name])
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
	code, source := exitUnsupported, ""
	if all.Audit.Case != audit.CaseNone {
		code, source = exitOK, "audit"
	}
	r := checked(t, code, off...)
	if r.Source != source || !strings.HasPrefix(r.Result, "eBPF cannot run: ") {
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

// TestLiveSelfTest proves every hook of this kernel, and that a hook which is off is said
// to be untried rather than passed.
func TestLiveSelfTest(t *testing.T) {
	needRoot(t)
	r := checked(t, 0, "--self-test")
	tried := map[string]bool{}
	soon := 1000.0
	if os.Getenv("GOSHAWK_KERNELTEST") != "" { // an emulated processor
		soon *= 5
	}
	for _, x := range r.SelfTest.Trials {
		if x.OK != (x.Skipped == "" && x.Problem == "") || x.OK && (x.Latency <= 0 || x.Latency > soon) {
			t.Errorf("trial %+v", x)
		}
		tried[x.Hook] = tried[x.Hook] || x.OK
	}
	untried := 0
	for _, h := range r.Hooks {
		if h.Tier != "" && canary.Untried[h.Name] != "" {
			untried++
		} else if h.Tier != "" && !tried[h.Name] {
			t.Errorf("hook %s was not proved: %+v", h.Name, r.SelfTest.Trials)
		}
	}
	for _, b := range r.SelfTest.Balance {
		if !b.OK || b.Generated == 0 {
			t.Errorf("balance %+v", b)
		}
	}
	rest := ""
	if untried > 0 {
		rest = fmt.Sprintf(", %d were not tried", untried)
	}
	if !regexp.MustCompile(`; self-test passed: (\d+) of \d+ things done were told` + rest + `$`).MatchString(r.Result) {
		t.Errorf("result %q", r.Result)
	}

	r = checked(t, 0, "--self-test", "--tier", "dns=none")
	for _, x := range r.SelfTest.Trials {
		if canary.Untried[x.Hook] == "" && x.OK == (x.Kind == "dns") || x.Kind == "dns" && x.Skipped != "no hook observes it" {
			t.Errorf("without the dns hook: %+v", x)
		}
	}
	if !strings.HasSuffix(r.Result, fmt.Sprintf("things done were told, %d were not tried", 1+untried)) {
		t.Errorf("result %q", r.Result)
	}
}

func TestSelfTestFails(t *testing.T) {
	told := trialText{Hook: "exec", Kind: "exec", What: "start goshawk", Latency: 12.345, OK: true}
	silent := trialText{Hook: "dns", Kind: "dns", What: "ask", Problem: "not told within 1s"}
	even := balanceText{Kind: "exec", Generated: 3, Delivered: 1, Filtered: 1, Lost: 1, OK: true}
	for _, c := range []struct {
		name string
		test *selfTest
		err  error
		code int
		want string
	}{
		{"not asked for", nil, nil, exitOK, "R"},
		{"passed", &selfTest{[]trialText{told}, []balanceText{even}}, nil, exitOK, "R; self-test passed: 1 of 1 things done were told"},
		{"silent", &selfTest{[]trialText{told, silent}, nil}, nil, exitFailed, "R; self-test failed: ask (dns) not told within 1s"},
		{"odd", &selfTest{[]trialText{told}, []balanceText{{Kind: "exec", Generated: 3, Delivered: 2}}}, nil, exitFailed,
			"R; self-test failed: exec: 3 generated, but 2 delivered, 0 filtered and 0 lost"},
		{"stopped", nil, errors.New("wait for records: no"), exitFailed, "R; self-test failed: wait for records: no"},
	} {
		r := report{Result: "R", SelfTest: c.test}
		check(t, c.name, []any{r.concludeTest(c.err), r.Result}, []any{c.code, c.want})
	}
	var out bytes.Buffer
	skipped := trialText{Kind: "accept", What: "accept", Skipped: "no hook observes it"}
	if err := (&selfTest{[]trialText{told, silent, skipped}, []balanceText{even}}).text(&out); err != nil {
		t.Fatal(err)
	}
	check(t, "text", out.String(), ""+
		"SELF-TEST  KIND       LATENCY    RESULT                          DONE\n"+
		"  exec     exec       12.3 ms    ok                              start goshawk\n"+
		"  dns      dns        -          not told within 1s              ask\n"+
		"  -        accept     -          not tried: no hook observes it  accept\n"+
		"BALANCE    GENERATED  DELIVERED  FILTERED                        LOST\n"+
		"  exec     3          1          1                               1\n")
}

func TestBalanceOfCounts(t *testing.T) {
	s := &selfTest{}
	count := func(k event.ID, what, reason string, n uint64) event.Count {
		return event.Count{Source: "ebpf", Kind: k, What: what, Reason: reason, N: n}
	}
	s.balance([]event.Count{
		count(event.KindExec, event.Generated, "", 9), count(event.KindExec, event.Delivered, "", 5),
		count(event.KindExec, event.Lost, "ring_full", 3), count(event.KindExec, event.Lost, "malformed", 1),
		count(event.KindDNS, event.Generated, "", 2), count(event.KindDNS, event.Filtered, "merged", 1),
		count(event.KindFork, event.Lost, "malformed", 1),
	})
	check(t, "balance", s.Balance, []balanceText{
		{Kind: "exec", Generated: 9, Delivered: 5, Lost: 4, OK: true},
		{Kind: "fork", Lost: 1},
		{Kind: "dns", Generated: 2, Filtered: 1},
	})
}
