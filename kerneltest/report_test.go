//go:build kernels

package kerneltest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	kernelLine   = regexp.MustCompile(`^=== kernel (\S+)$`)
	runLine      = regexp.MustCompile(`^=== run (\S+)$`)
	exitLine     = regexp.MustCompile(`^=== exit (\d+)$`)
	fileLine     = regexp.MustCompile(`^=== file (\S+)$`)
	coverageLine = regexp.MustCompile(`^coverage: (\S+) of statements`)
)

// An outcome is what a guest has told of itself.
type outcome struct {
	Kernel   string            // its release
	Suites   []string          // in their order
	Exits    []string          // their exit codes
	Events   []event           // of all tests
	Coverage string            // of the first suite that says
	Files    map[string][]byte // what the tests have left in /results
	Ended    bool
}

// event is one line of `go tool test2json` (go doc test2json).
type event struct {
	Action, Test, Output string
	Elapsed              float64 // in seconds
}

// parse reads what the guest has printed.
func parse(t *testing.T, b []byte) *outcome {
	t.Helper()
	o := &outcome{Files: map[string][]byte{}}
	var part bytes.Buffer // of a suite, or of a file
	var file string
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	suite := func() {
		if part.Len() > 0 {
			o.Events = append(o.Events, convert(t, part.Bytes())...)
			part.Reset()
		}
	}
	for s.Scan() {
		line := strings.TrimRight(s.Text(), "\r")
		switch {
		case kernelLine.MatchString(line):
			o.Kernel = kernelLine.FindStringSubmatch(line)[1]
		case runLine.MatchString(line):
			o.Suites = append(o.Suites, runLine.FindStringSubmatch(line)[1])
		case exitLine.MatchString(line):
			o.Exits = append(o.Exits, exitLine.FindStringSubmatch(line)[1])
			suite()
		case fileLine.MatchString(line):
			file = fileLine.FindStringSubmatch(line)[1]
		case line == "=== end of file":
			o.Files[file] = bytes.Clone(part.Bytes())
			part.Reset()
		case line == "=== end":
			o.Ended = true
		default:
			if m := coverageLine.FindStringSubmatch(line); m != nil && o.Coverage == "" {
				o.Coverage = m[1]
			}
			part.WriteString(line + "\n")
		}
	}
	suite() // of a guest that died
	return o
}

// convert makes events of what a test binary has printed.
func convert(t *testing.T, b []byte) []event {
	t.Helper()
	c := exec.Command("go", "tool", "test2json", "-t")
	c.Stdin = bytes.NewReader(b)
	out, err := c.Output()
	must(t, err)
	var all []event
	for line := range bytes.Lines(out) {
		var e event
		must(t, json.Unmarshal(line, &e))
		all = append(all, e)
	}
	return all
}

// A verdict is what came of the tests in a guest.
type verdict struct {
	*outcome
	passed  int
	failed  []failure
	skipped []skip
	broken  []string // tests that had not ended
	took    []event  // ends of tests that are no subtests
	trouble string   // with the guest as a whole
}

// A failure is a test and what it has printed.
type failure struct{ test, text string }

func judge(t *testing.T, g *guest, r run) *verdict {
	v := &verdict{outcome: parse(t, r.results)}
	text := map[string][]string{}
	for _, e := range v.Events {
		switch e.Action {
		case "run":
			text[e.Test] = nil // another suite may have one of the same name
			v.broken = append(v.broken, e.Test)
		case "output":
			text[e.Test] = append(text[e.Test], e.Output)
			continue
		case "pass", "skip", "fail":
			v.broken = slices.DeleteFunc(v.broken, func(s string) bool { return s == e.Test })
		}
		if e.Test == "" {
			continue
		}
		if !strings.Contains(e.Test, "/") && e.Elapsed > 0 {
			v.took = append(v.took, e)
		}
		switch e.Action {
		case "pass":
			v.passed++
		case "skip":
			v.skipped = append(v.skipped, skip{e.Test, reason(text[e.Test])})
		case "fail":
			v.failed = append(v.failed, failure{e.Test, strings.Join(text[e.Test], "")})
		}
	}
	switch {
	case r.err != nil || !v.Ended:
		v.trouble = fmt.Sprintf("it did not come to its end: %v\nin test: %v\nagain with: %s\nit printed last:\n%s\nits console ends:\n%s",
			r.err, v.broken, g.again(first(v.broken)), tail(r.results), tail(r.console))
	case len(v.Suites) == 0 || v.passed == 0:
		v.trouble = fmt.Sprintf("no test ran; it printed:\n%s\nits console ends:\n%s", tail(r.results), tail(r.console))
	}
	for i, code := range v.Exits {
		if code != "0" && len(v.failed) == 0 && v.trouble == "" {
			v.trouble = fmt.Sprintf("%s exited with %s; again with: %s\n%s", v.Suites[i], code, g.again(""), tail([]byte(strings.Join(text[""], ""))))
		}
	}
	return v
}

// longest names the tests that took most of the time.
func (v *verdict) longest() string {
	slices.SortStableFunc(v.took, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	var words []string
	for _, e := range v.took[:min(len(v.took), 8)] {
		words = append(words, fmt.Sprintf("%s %.0f s", e.Test, e.Elapsed))
	}
	return strings.Join(words, ", ")
}

func (v *verdict) good() bool { return len(v.failed) == 0 && v.trouble == "" }

// tests are those that failed or did not end, by the names of what go test runs.
func (v *verdict) tests() []string {
	var names []string
	add := func(test string) {
		if name, _, _ := strings.Cut(test, "/"); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, f := range v.failed {
		add(f.test)
	}
	for _, test := range v.broken {
		add(test)
	}
	return names
}

// mostAgain is how many tests may run again in CI: more is no accident.
const mostAgain = 5

// report makes subtests of the tests that failed or were skipped in the guest; those that
// passed are counted. As in CI elsewhere (.ci/report.go), a few that failed run once more, in
// a guest of their own, and when these pass they are named and have not failed.
func report(t *testing.T, g *guest, r run, again func(tests string) run) {
	v := judge(t, g, r)
	if tests := v.tests(); os.Getenv("CI") != "" && !v.good() && len(tests) <= mostAgain {
		only := ""
		if len(tests) > 0 {
			only = "^(" + strings.Join(tests, "|") + ")$"
		}
		if once := judge(t, g, again(only)); once.good() {
			note(t, "kernel %-11s failed, and passed when run once more: %s", g.name, strings.Join(tests, " "))
			for _, f := range v.failed {
				if said := place.FindStringIndex(f.text); said != nil {
					line, _, _ := strings.Cut(f.text[said[0]:], "\n")
					note(t, "%s said first: %s", f.test, strings.TrimSpace(line))
				}
			}
			if v.trouble != "" {
				note(t, "%s", v.trouble)
			}
			v.failed, v.trouble = nil, ""
		}
	}
	for _, s := range v.skipped {
		t.Run(s.Test, func(t *testing.T) { t.Skip(s.Reason) })
	}
	for _, f := range v.failed {
		t.Run(f.test, func(t *testing.T) {
			t.Errorf("on kernel %s (%s):\n%sagain with: %s", g.name, v.Kernel, f.text, g.again(f.test))
		})
	}
	if v.trouble != "" {
		t.Errorf("kernel %s: %s", g.name, v.trouble)
	}
	note(t, "kernel %-11s %-28s %d passed, %d failed, %d skipped in %v; coverage of internal/sensor %s",
		g.name, v.Kernel, v.passed, len(v.failed), len(v.skipped), r.took, v.Coverage)
	t.Logf("longest: %s", v.longest())
	if tiers := v.Files["tiers"]; os.Getenv("UPDATE") != "" && tiers != nil && g.object == "" && g.run == "" && !t.Failed() {
		keep(t, record{g.name, v.Kernel, g.arch, tiers, v.skipped})
	}
}

// note prints a line that .ci/report.go passes on even when all is well.
func note(t *testing.T, format string, args ...any) {
	t.Logf("note: "+format, args...)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

var place = regexp.MustCompile(`(?m)^\s*\w+\.go:\d+: `)

// reason is what a test gave for its skip.
func reason(said []string) string {
	var out []string
	for _, s := range said {
		if s = strings.TrimSpace(place.ReplaceAllString(s, "")); s != "" && !strings.HasPrefix(s, "=== ") && !strings.HasPrefix(s, "--- ") {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

// What a guest prints is judged as what happened there.
func TestJudge(t *testing.T) {
	const begin = "=== kernel 1.2.3\n=== run /tests/x\n"
	line := func(s string) string { return "\x16" + s + "\n" } // as -test.v=test2json marks it
	good := line("=== RUN   TestA") + line("--- PASS: TestA (0.00s)")
	bad := line("=== RUN   TestB") + line("=== RUN   TestB/part") + "    x_test.go:1: wrong\n" +
		line("--- FAIL: TestB (0.00s)") + line("    --- FAIL: TestB/part (0.00s)")
	for _, c := range []struct {
		name, results string
		good          bool
		tests         []string
		trouble       string
	}{
		{"all well", begin + good + line("PASS") + "=== exit 0\n=== end\n", true, nil, ""},
		{"one failed", begin + good + bad + line("FAIL") + "=== exit 1\n=== end\n", false, []string{"TestB"}, ""},
		{"died in one", begin + good + line("=== RUN   TestC") + "some", false, []string{"TestC"}, "did not come to its end"},
		{"exit code alone", begin + good + line("PASS") + "left: a mount\n=== exit 1\n=== end\n", false, nil, "exited with 1"},
		{"nothing ran", "=== kernel 1.2.3\n=== end\n", false, nil, "no test ran"},
		{"nothing at all", "", false, nil, "did not come to its end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, &guests[0], run{results: []byte(c.results)})
			if v.good() != c.good || !slices.Equal(v.tests(), c.tests) || c.trouble != "" && !strings.Contains(v.trouble, c.trouble) || c.trouble == "" && v.trouble != "" {
				t.Errorf("good %v, tests %q, trouble %q", v.good(), v.tests(), v.trouble)
			}
		})
	}
}
