//go:build kernels

package kerneltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A said is what a command of the bare guest has printed, and its exit code.
type said struct{ out, err, code string }

var bareLine = regexp.MustCompile(`^=== (begin|out|err|code|end) ?(\S*) ?(\S*)$`)

// bare boots a guest with goshawk and BusyBox and nothing else: no /etc, no cgroups, a root
// that can only be read, in the year 1970. There goshawk's commands must do their work. An old
// guest also lacks what 3.10 as of RHEL 7 lacks (testdata/old.c).
func bare(t *testing.T, g *guest, kernel, goshawk string, old bool) {
	t.Parallel()
	what, hooks := "bare", map[string]string{"exec": "tp_btf", "fork": "tp_btf", "exit": "tp_btf", "tcp_state": "tp_btf",
		"connect": "fexit", "accept": "fexit", "bind": "fexit", "listen": "fexit", "datagram": "cgroup", "dns": "cgroup", "cgroup": "tp_btf"}
	f := newTree(t, g.arch, "bare-init")
	must(t, f.mkdir("writable"))
	f.copy(goshawk, "goshawk")
	variables := "RESULTS=" + machines[g.arch].results + "\n"
	if old {
		what, hooks = "old", map[string]string{"exec": "kprobe", "fork": "kprobe", "exit": "tracepoint", "tcp_state": "kprobe",
			"connect": "kprobe", "accept": "kprobe", "bind": "kprobe", "listen": "kprobe", "datagram": "kprobe", "dns": "kprobe", "cgroup": ""}
		f.copy(compileC(t, t.TempDir(), g.arch, "testdata/old.c"), "old")
		variables += "OLD=1\n"
	}
	f.write("variables", variables)
	f.write("statements", countRows(t))
	initrd := f.pack()
	boot := func() []string {
		return surroundings(g.boot(t, kernel, initrd, "-rtc", "base=1970-01-01T00:00:00"), what, hooks, old)
	}
	wrong := boot()
	if len(wrong) > 0 && os.Getenv("CI") != "" { // once more, as tests elsewhere
		why, _, _ := strings.Cut(wrong[0], "\n")
		note(t, "kernel %-11s %s surroundings failed, and run once more: %s", g.name, what, why)
		wrong = boot()
	}
	for _, w := range wrong {
		t.Error(w)
	}
	if len(wrong) > 0 {
		t.Logf("again with: make test-kernels K=%s RUN=%s", g.name, what)
		return
	}
	note(t, "kernel %-11s %s surroundings: all well", g.name, what)
}

// surroundings says what is wrong with what a guest has told; hooks are the tiers that it must have.
func surroundings(r run, what string, hooks map[string]string, old bool) (wrong []string) {
	errorf := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	all, err := readSaid(r, what)
	if err != nil {
		return []string{err.Error()}
	}
	check := func(name, code string, wants ...string) string {
		wrong = append(wrong, all.check(name, code, wants...)...)
		if s := all[name]; s != nil {
			return s.out
		}
		return ""
	}
	check("begin", "1970")
	report := struct {
		Hooks []struct {
			Name, Tier, Refused string
			Best                bool
		}
		Kernel []struct{ Name, Value string }
	}{}
	// tiers compares what one of the reports says of the hooks.
	tiers := func(name string) {
		if err := json.Unmarshal([]byte(check(name, "0")), &report); err != nil {
			errorf("%s: %v", name, err)
		}
		got := map[string]string{}
		for _, h := range report.Hooks {
			got[h.Name] = h.Tier
			if _, known := hooks[h.Name]; h.Tier == "" && (h.Refused == "" || !known && !old) {
				errorf("%s: hook %s has no tier: %q", name, h.Name, h.Refused)
			}
		}
		for hook, want := range hooks {
			if got[hook] != want {
				errorf("%s: hook %s is at %q, want %q: %+v", name, hook, got[hook], want, report.Hooks)
			}
		}
	}
	tiers("check-json")
	works, best := 0, 0
	for _, h := range report.Hooks {
		if h.Tier != "" {
			works++
		}
		if h.Best {
			best++
		}
	}
	last := fmt.Sprintf("eBPF works: %d hooks, %d at their best tier", works, best)
	if old {
		last = fmt.Sprintf("eBPF works: %d of %d hooks, ", works, len(report.Hooks))
	}
	check("check", "0", `^  exec +`+hooks["exec"]+` `, `^  cgroups +missing +not mounted: `, "^"+last)
	check("self-test", "0", "^"+last, `; self-test passed: `)
	check("check-beside", "0", "^"+last)
	if old {
		for _, f := range report.Kernel {
			if f.Name == "btf" && f.Value[:len("/writable/kernel.btf")] != "/writable/kernel.btf" {
				errorf("BTF is %q", f.Value)
			}
		}
	}
	check("query-agent", "0", `"path": ?"/bin/busybox"`, `mark`)
	check("query-hooks", "0", `"tier": ?"`+hooks["exec"]+`"`)
	events := map[string]int{}
	for line := range strings.Lines(check("run", "0", `^ready: `)) {
		var e struct {
			Kind, Path string
			Time       string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			errorf("run: %v in %q", err, line)
			continue
		}
		events[e.Kind]++
		if at, err := time.Parse(time.RFC3339Nano, e.Time); e.Time != "" && (err != nil || at.Year() != 1970) {
			errorf("run: time %q", e.Time)
		}
	}
	for _, kind := range []string{"exec", "fork", "exit"} {
		if events[kind] == 0 {
			errorf("run: no %s among %v", kind, events)
		}
	}
	check("query-store", "0", `"n": ?"[1-9]`)
	check("tables", "0", `^processes,[1-9]`, `^users,0`, `^mounts,[1-9]`, `^goshawk_hooks,`)
	check("run-readonly", "1", `read-only`, `--root-dir`)
	check("run-text", "0", `^ready: `)
	check("dir", "0", `events\.db`)
	return wrong
}

// countRows are statements that read every table of present state; those that need a condition
// have none.
func countRows(t *testing.T) string {
	t.Helper()
	c := exec.Command("go", "run", "./cmd/goshawk", "tables", "--format", "json")
	c.Dir = ".."
	out, err := c.Output()
	must(t, err)
	var tables []struct {
		Name    string
		Events  bool
		Columns []struct{ Flags []string }
	}
	must(t, json.Unmarshal(out, &tables))
	var b strings.Builder
next:
	for _, table := range tables {
		for _, c := range table.Columns {
			if slices.Contains(c.Flags, "required") {
				continue next
			}
		}
		if !table.Events {
			fmt.Fprintf(&b, "SELECT '%s' AS name, count(*) AS n FROM %[1]s;\n", table.Name)
		}
	}
	if b.Len() == 0 {
		t.Fatalf("no tables in:\n%s", out)
	}
	return b.String()
}

// script is what the commands of a guest's script have said, by the names that it gives them.
type script map[string]*said

// check says what is wrong with a command: its exit code, or a pattern that no line of it matches.
func (all script) check(name, code string, wants ...string) (wrong []string) {
	s := all[name]
	if s == nil {
		return []string{name + ": was not run"}
	}
	if s.code != code {
		wrong = append(wrong, fmt.Sprintf("%s: exit code %s, want %s: %s%s", name, s.code, code, s.err, s.out))
	}
	for _, w := range wants {
		if !regexp.MustCompile("(?m)" + w).MatchString(s.out + s.err) {
			wrong = append(wrong, fmt.Sprintf("%s: no match for %q in:\n%s%s", name, w, s.out, s.err))
		}
	}
	return wrong
}

// readSaid is readScript of a guest that must have come to the end of its script.
func readSaid(r run, what string) (script, error) {
	all, ended := readScript(r.results)
	if r.err != nil || !ended {
		return nil, fmt.Errorf("the %s guest did not come to its end: %v\nit printed last:\n%s\nits console ends:\n%s",
			what, r.err, tail(r.results), tail(r.console))
	}
	return all, nil
}

// readScript takes apart what bare-init and systemd-init write.
func readScript(b []byte) (all script, ended bool) {
	all = script{}
	var to *string
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), "\r\n")
		m := bareLine.FindStringSubmatch(text)
		if m == nil {
			if to != nil {
				*to += text + "\n"
			}
			continue
		}
		what, name := m[1], m[2]
		switch what {
		case "end":
			return all, true
		case "begin":
			all["begin"] = &said{code: m[3]}
			continue
		}
		if all[name] == nil {
			all[name] = &said{}
		}
		switch what {
		case "out":
			to = &all[name].out
		case "err":
			to = &all[name].err
		case "code":
			all[name].code, to = m[3], nil
		}
	}
	return all, false
}
