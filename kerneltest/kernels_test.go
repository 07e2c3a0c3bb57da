//go:build kernels

// Package kerneltest boots stock kernels under QEMU and runs the live tests inside: the
// same test binaries that run on this machine, in an initramfs with BusyBox and nothing
// else. It is behind the build tag "kernels"; `make test-kernels` sets it.
package kerneltest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A suite is the tests of a package that run in a guest.
type suite struct {
	path   string
	run    string // what runs when RUN does not say
	skip   string // what does not: it is slow, and the same on every kernel
	arm64  string // what runs there, where all would take too long; empty: none
	flags  []string
	legacy bool // runs with the legacy object, too
}

var suites = []suite{
	{"./internal/sensor", "^TestLive|^TestOpen", "^TestLive(KindsChooseHooks|Race)$",
		"^TestLive(Exec|Grants|Verifier)$|^TestLiveSocket$/./^tcp$", []string{"-cover"}, true},
	{"./internal/kernel", ".", "", ".", nil, false},
	{"./internal/procfs", "^Test", "", "", nil, false},
	{"./cmd/goshawk", "^TestLive(Check|SelfTest|ExecAndExit|Connection|Query|TinyRing)$", "", "^TestLiveSelfTest$", nil, false},
	// The last, as it locks audit until the next boot. What needs auditd or gcc runs elsewhere.
	{"./internal/audit", "^TestLive", "^TestLive(Beside|StopOwner|Yield|Overrun|Storm)$", "", nil, false},
}

// TestKernels runs the live tests on the kernels named in K (comma-separated; empty: all, and
// instructions, which counts what goshawk costs).
// RUN narrows the tests, as -run does, and PACKAGES the packages; RUN=bare runs none of
// them, but what there is in bare surroundings, RUN=old what there is where also 3.10 is
// pretended (on the oldest kernel). With UPDATE what the kernels grant is kept.
func TestKernels(t *testing.T) {
	chosen := guests
	run := os.Getenv("RUN")
	k := os.Getenv("K")
	if k == "" && run == "" {
		t.Run(instructions, countInstructions)
	}
	if k != "" {
		chosen = nil
		for name := range strings.SplitSeq(k, ",") {
			i := slices.IndexFunc(guests, func(g guest) bool { return g.name == name })
			switch {
			case name == instructions:
				t.Run(name, countInstructions)
			case i < 0:
				t.Fatalf("K names kernel %q; there are %v, and %s", name, guests, instructions)
			default:
				chosen = append(chosen, guests[i])
			}
		}
	}
	built := map[string]programs{}
	for _, g := range chosen {
		if _, ok := built[g.arch]; !ok {
			built[g.arch] = build(t, g.arch)
		}
	}
	if tests := built[runtime.GOARCH].tests["./internal/sensor"]; len(chosen) == len(guests) && os.Getenv("UPDATE") != "" && tests != "" {
		t.Run("host", func(t *testing.T) { hostRecord(t, tests) })
	}
	byTime := slices.Clone(chosen) // what takes longest begins first
	slices.SortStableFunc(byTime, func(a, b guest) int { return strings.Compare(b.arch, a.arch) })
	for _, g := range byTime {
		root, kernel := g.image(t)
		if run != "bare" && run != "old" {
			t.Run(g.name, func(t *testing.T) {
				initrd := liveTree(t, &g, root, built[g.arch])
				t.Parallel()
				report(t, &g, g.boot(t, kernel, initrd))
			})
		}
		if (run == "" || run == "bare") && g.object == "" {
			t.Run(g.name+" bare", func(t *testing.T) { bare(t, &g, kernel, built[g.arch].goshawk, false) })
		}
		if (run == "" || run == "old") && g.name == oldest {
			t.Run(g.name+" old", func(t *testing.T) { bare(t, &g, kernel, built[g.arch].goshawk, true) })
		}
	}
}

// programs are the files that run in a guest of an architecture.
type programs struct {
	tests   map[string]string // by the path of the package
	helper  string            // does what Go cannot: threads that leave, raw clones
	goshawk string
}

func build(t *testing.T, arch string) programs {
	t.Helper()
	dir := t.TempDir()
	p := programs{tests: map[string]string{}}
	for _, s := range chosenSuites() {
		if s.pattern(arch) != "" {
			p.tests[s.path] = compile(t, dir, arch, append(append([]string{"test", "-c"}, s.flags...), s.path)...)
		}
	}
	p.goshawk = compile(t, dir, arch, "build", "-buildvcs=false", "./cmd/goshawk")
	p.helper = compileC(t, dir, arch, "../internal/sensor/testdata/helper.c", "-lpthread")
	return p
}

func chosenSuites() []suite {
	only := os.Getenv("PACKAGES")
	switch {
	case os.Getenv("RUN") == "bare" || os.Getenv("RUN") == "old":
		return nil
	case only == "":
		return suites
	}
	var out []suite
	for _, path := range strings.Split(only, ",") {
		if i := slices.IndexFunc(suites, func(s suite) bool { return s.path == path }); i >= 0 {
			out = append(out, suites[i])
		} else {
			out = append(out, suite{path: path, run: ".", arm64: "."})
		}
	}
	return out
}

func (s *suite) pattern(arch string) string {
	if run := os.Getenv("RUN"); run != "" {
		return run
	}
	if arch == "arm64" {
		return s.arm64
	}
	return s.run
}

// liveTree is the initramfs of a guest that runs the live tests.
func liveTree(t *testing.T, g *guest, root string, p programs) string {
	t.Helper()
	f := newTree(t, g.arch, "init")
	f.addModules(root)
	f.copy(p.helper, "helper")
	if g.arch == "amd64" {
		f.copyDynamic("/sbin/ip", "usr/sbin/ip") // BusyBox's own makes no veth pairs
	}
	f.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	f.write("variables", "export GOSHAWK_KERNELTEST=1 GOSHAWK_TEST_HELPER=/helper GOSHAWK_TIERS=/results/tiers GOSHAWK_TEST_OBJECT="+g.object+
		" RESULTS="+machines[g.arch].results+"\n")
	var jobs strings.Builder
	for _, s := range chosenSuites() {
		if p.tests[s.path] == "" || g.object != "" && !s.legacy {
			continue
		}
		dir := filepath.Join("/work", s.path)
		must(t, os.MkdirAll(f.path(dir), 0o755))
		data := filepath.Join("..", s.path, "testdata")
		if _, err := os.Stat(data); err == nil {
			must(t, os.CopyFS(f.path(filepath.Join(dir, "testdata")), os.DirFS(data)))
		}
		program := filepath.Join("/tests", strings.ReplaceAll(strings.TrimPrefix(s.path, "./"), "/", "_"))
		f.copy(p.tests[s.path], program)
		fmt.Fprintf(&jobs, "%s %s -test.v=test2json -test.short -test.timeout=%s -test.run=%s",
			dir, program, guestTimeout/2, s.pattern(g.arch))
		if s.skip != "" && os.Getenv("RUN") == "" {
			jobs.WriteString(" -test.skip=" + s.skip)
		}
		jobs.WriteString("\n")
	}
	f.write("jobs", jobs.String())
	return f.pack()
}

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
type event struct{ Action, Test, Output string }

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
	c := exec.Command("go", "tool", "test2json")
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

// report makes subtests of the tests that failed or were skipped in the guest; those that
// passed are counted.
func report(t *testing.T, g *guest, r run) {
	o := parse(t, r.results)
	said := map[string][]string{}
	passed, failed := 0, 0
	var skipped []skip
	var broken []string // tests that had not ended
	for _, e := range o.Events {
		switch e.Action {
		case "run":
			said[e.Test] = nil // another suite may have one of the same name
			broken = append(broken, e.Test)
		case "output":
			said[e.Test] = append(said[e.Test], e.Output)
			continue
		case "pass", "skip", "fail":
			broken = slices.DeleteFunc(broken, func(s string) bool { return s == e.Test })
		}
		if e.Test == "" {
			continue
		}
		switch e.Action {
		case "pass":
			passed++
		case "skip":
			skipped = append(skipped, skip{e.Test, reason(said[e.Test])})
			t.Run(e.Test, func(t *testing.T) { t.Skip(reason(said[e.Test])) })
		case "fail":
			failed++
			t.Run(e.Test, func(t *testing.T) {
				t.Errorf("on kernel %s (%s):\n%sagain with: %s", g.name, o.Kernel, strings.Join(said[e.Test], ""), g.again(e.Test))
			})
		}
	}
	switch {
	case r.err != nil || !o.Ended:
		t.Errorf("kernel %s did not come to its end: %v\nin test: %v\nagain with: %s\nit printed last:\n%s\nits console ends:\n%s",
			g.name, r.err, broken, g.again(first(broken)), tail(r.results), tail(r.console))
	case len(o.Suites) == 0 || passed == 0:
		t.Errorf("kernel %s: no test ran; its console ends:\n%s", g.name, tail(r.console))
	}
	for i, code := range o.Exits {
		if code != "0" && failed == 0 {
			t.Errorf("kernel %s: %s exited with %s; again with: %s\n%s", g.name, o.Suites[i], code, g.again(""), tail([]byte(strings.Join(said[""], ""))))
		}
	}
	note(t, "kernel %-11s %-28s %d passed, %d failed, %d skipped in %v; coverage of internal/sensor %s",
		g.name, o.Kernel, passed, failed, len(skipped), r.took, o.Coverage)
	if tiers := o.Files["tiers"]; os.Getenv("UPDATE") != "" && tiers != nil && g.object == "" && !t.Failed() {
		keep(t, record{g.name, o.Kernel, g.arch, tiers, skipped})
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

var place = regexp.MustCompile(`^\s*\w+\.go:\d+: `)

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
