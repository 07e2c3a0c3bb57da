//go:build ignore

// Command report runs `go test -json` and prints what go test would, in brief: the line
// of each package, all of what a failed test said, what any test calls a note, and every
// skip with its reason. With
// CI set, a skip fails the run unless its reason names a fact of the kernel or the
// hardware: there is nothing else that our tests cannot install or be given.
//
//	go run .ci/report.go [-again] go test -json ARGUMENT...
//
// With -again and CI set, a few tests that failed are run a second time, alone: on a busy machine a
// live test may fail for what others did. One that passes then is named as flaky, and does not fail the
// run; what it said when it failed has been printed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json; build-output: go help buildjson).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

var excused = regexp.MustCompile(`(?i)\b(kernels?|architecture|\w+-endian|BTF|processors?|KVM|hardware)\b`)

// maxAgain is how many tests may fail before it is taken for the change's fault.
const maxAgain = 3

// A report is of one run.
type report struct {
	tests, bad, unexcused int
	skips                 []string
	failed                map[string][]string // the tests of each package that failed, without subtests
	broken                bool                // something failed that is no test
}

func main() {
	args := os.Args[1:]
	again := len(args) > 0 && args[0] == "-again"
	if again {
		args = args[1:]
	}
	r := run(args)
	n := 0
	for _, tests := range r.failed {
		n += len(tests)
	}
	if again && os.Getenv("CI") != "" && !r.broken && 0 < n && n <= maxAgain {
		r.again()
	}
	slices.Sort(r.skips)
	for _, s := range r.skips {
		fmt.Println(s)
	}
	if os.Getenv("CI") != "" {
		r.bad += r.unexcused
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.tests, r.bad, len(r.skips))
	if r.bad > 0 || r.broken {
		os.Exit(1)
	}
}

// again runs what failed once more.
func (r *report) again() {
	for pkg, tests := range r.failed {
		fmt.Printf("once more, alone: %s %s\n", pkg, strings.Join(tests, " "))
		second := run([]string{"go", "test", "-json", "-count=1", "-timeout", "9m", "-run", "^(" + strings.Join(tests, "|") + ")$", pkg})
		if second.broken || second.bad > 0 || second.tests == 0 {
			return
		}
		for _, name := range tests {
			fmt.Printf("flaky: %s %s failed, and passed alone: find out why\n", pkg, name)
		}
		r.tests += len(tests)
		delete(r.failed, pkg)
	}
	r.bad = 0
}

// run runs go test and prints what it tells.
func run(args []string) *report {
	r := &report{failed: map[string][]string{}}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r.read(out)
	if err := cmd.Wait(); err != nil && len(r.failed) == 0 {
		fmt.Fprintln(os.Stderr, err)
		r.broken = true
	}
	return r
}

func (r *report) read(from io.Reader) {
	outputs := map[string][]string{} // of the tests that have not ended
	in := bufio.NewScanner(from)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		key := e.Package + "\x00" + e.Test
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			outputs[key] = append(outputs[key], e.Output)
			if _, text, ok := strings.Cut(e.Output, ": note: "); ok {
				fmt.Print(text)
			}
		case "pass", "skip", "fail":
			out := outputs[key]
			delete(outputs, key)
			switch {
			case e.Test == "":
				closing(out, e.Action)
				r.broken = r.broken || e.Action == "fail" && len(r.failed[e.Package]) == 0
			case e.Action == "fail":
				r.bad++
				name, _, _ := strings.Cut(e.Test, "/")
				if !slices.Contains(r.failed[e.Package], name) {
					r.failed[e.Package] = append(r.failed[e.Package], name)
				}
				fmt.Print(strings.Join(out, ""))
			case e.Action == "skip":
				reason := why(out)
				mark := "skipped"
				if !excused.MatchString(reason) {
					mark = "skipped, which CI counts as failed"
					r.unexcused++
				}
				r.skips = append(r.skips, fmt.Sprintf("%s: %s %s: %s", mark, e.Package, e.Test, reason))
			default:
				r.tests++
			}
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "read test output:", err)
		r.broken = true
	}
	for _, out := range outputs { // of a run that broke off
		fmt.Print(strings.Join(out, ""))
		r.broken = true
	}
}

// closing prints what belongs to a package: its ok or FAIL line, and when it failed all
// that no test of it said (a panic, a race, a time-out).
func closing(out []string, action string) {
	for _, line := range out {
		if action == "fail" && line != "FAIL\n" || strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "ok\t") {
			fmt.Print(line)
		}
	}
}

// why is the reason a test gave for its skip.
func why(out []string) string {
	var lines []string
	for _, line := range out {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "no reason given"
	}
	return strings.Join(lines, " ")
}
