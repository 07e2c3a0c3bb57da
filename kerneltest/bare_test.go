//go:build kernels

package kerneltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A said is what a command of the bare guest has printed, and its exit code.
type said struct{ out, err, code string }

var bareLine = regexp.MustCompile(`^=== (begin|out|err|code|end) ?(\S*) ?(\S*)$`)

// bare boots a guest with goshawk and BusyBox and nothing else: no /etc, no cgroups, a root
// that can only be read, in the year 1970. There goshawk's commands must do their work.
func bare(t *testing.T, g *guest, root, kernel, goshawk string) {
	f := newTree(t, g.arch, "bare-init")
	must(t, f.mkdir("writable"))
	f.copy(goshawk, "goshawk")
	f.write("variables", "RESULTS="+machines[g.arch].results+"\n")
	initrd := f.pack()
	t.Parallel()
	r := g.boot(t, kernel, initrd, "-rtc", "base=1970-01-01T00:00:00")
	all, ended := readBare(r.results)
	if r.err != nil || !ended {
		t.Fatalf("the bare guest did not come to its end: %v\nagain with: make test-kernels K=%s RUN=bare\nit printed last:\n%s\nits console ends:\n%s",
			r.err, g.name, tail(r.results), tail(r.console))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with: make test-kernels K=%s RUN=bare", g.name)
		}
	})
	check := func(name, code string, wants ...string) string {
		t.Helper()
		s, ok := all[name]
		switch {
		case !ok:
			t.Errorf("%s: was not run", name)
		case s.code != code:
			t.Errorf("%s: exit code %s, want %s: %s%s", name, s.code, code, s.out, s.err)
		}
		for _, w := range wants {
			if !regexp.MustCompile("(?m)" + w).MatchString(s.out + s.err) {
				t.Errorf("%s: no match for %q in:\n%s%s", name, w, s.out, s.err)
			}
		}
		return s.out
	}
	check("begin", "1970")
	check("check", "0", `^  exec +tp_btf `, `cgroup2`, `hooks`)
	var report struct{ Hooks []struct{ Name, Tier string } }
	if err := json.Unmarshal([]byte(check("check-json", "0")), &report); err != nil || len(report.Hooks) == 0 {
		t.Errorf("check --format json: %v, %d hooks", err, len(report.Hooks))
	}
	check("query-agent", "0", `"path": ?"/bin/busybox"`, `mark`)
	check("query-hooks", "0", `"exec"`)
	events := map[string]int{}
	for line := range strings.Lines(check("run", "0", `^ready: `)) {
		var e struct {
			Kind, Path string
			Time       string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("run: %v in %q", err, line)
			continue
		}
		events[e.Kind]++
		if at, err := time.Parse(time.RFC3339Nano, e.Time); e.Time != "" && (err != nil || at.Year() != 1970) {
			t.Errorf("run: time %q", e.Time)
		}
	}
	for _, kind := range []string{"exec", "fork", "exit"} {
		if events[kind] == 0 {
			t.Errorf("run: no %s among %v", kind, events)
		}
	}
	check("query-store", "0", `"n": ?"[1-9]`)
	check("tables", "0", `^processes,[1-9]`, `^users,0`, `^mounts,[1-9]`, `^goshawk_hooks,`)
	check("run-readonly", "1", `read-only`, `--root-dir`)
	check("run-text", "0", `^ready: `)
	check("dir", "0", `events\.db`)
	note(t, "kernel %-7s bare surroundings: %s in %v", g.name, fmt.Sprint(events), r.took)
}

// readBare takes apart what bare-init writes.
func readBare(b []byte) (all map[string]*said, ended bool) {
	all = map[string]*said{}
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
