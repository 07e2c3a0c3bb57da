//go:build ignore

// Command report reads `go test -json` and prints what go test would, in brief: the line
// of each package, all of what a failed test said, what any test calls a note, and every
// skip with its reason. With
// CI set, a skip fails the run unless its reason names a fact of the kernel or the
// hardware: there is nothing else that our tests cannot install or be given.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json; build-output: go help buildjson).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

var excused = regexp.MustCompile(`(?i)\b(kernels?|architecture|\w+-endian|BTF|processors?|KVM|hardware)\b`)

func main() {
	outputs := map[string][]string{} // of the tests that have not ended
	var skips []string
	failed, unexcused, tests, bad := false, 0, 0, 0
	in := bufio.NewScanner(os.Stdin)
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
			case e.Action == "fail":
				bad++
				fmt.Print(strings.Join(out, ""))
			case e.Action == "skip":
				reason := why(out)
				mark := "skipped"
				if !excused.MatchString(reason) {
					mark, unexcused = "skipped, which CI counts as failed", unexcused+1
				}
				skips = append(skips, fmt.Sprintf("%s: %s %s: %s", mark, e.Package, e.Test, reason))
			default:
				tests++
			}
			failed = failed || e.Action == "fail"
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "read test output:", err)
		os.Exit(1)
	}
	for _, out := range outputs { // of a run that broke off
		fmt.Print(strings.Join(out, ""))
		failed = true
	}
	slices.Sort(skips)
	for _, s := range skips {
		fmt.Println(s)
	}
	if os.Getenv("CI") != "" {
		bad += unexcused
		failed = failed || unexcused > 0
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", tests, bad, len(skips))
	if failed {
		os.Exit(1)
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
