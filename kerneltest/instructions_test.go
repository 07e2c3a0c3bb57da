//go:build kernels

package kerneltest

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// instructions is what K names it.
const instructions = "instructions"

// instructionsFile is what docs/performance.md shows of this test (`make docs`).
const instructionsFile = "testdata/instructions.json"

// A cost is what one thing takes, in instructions of the guest.
type cost struct {
	Side   string  `json:"side"`
	What   string  `json:"what"`
	Least  float64 `json:"least"`
	Median float64 `json:"median"`
}

var costLine = regexp.MustCompile(`(?m)^=== cost (\S+) (\S+) (\S+) (\S+)$`)

// countInstructions runs where QEMU counts instructions as time, so that the figures are the
// same in every run. A system call that nobody watches must cost what it costs without goshawk.
func countInstructions(t *testing.T) {
	t.Parallel()
	g := guest{name: instructions, version: "6.1", arch: "amd64"}
	_, kernel := g.image(t)
	dir := t.TempDir()
	f := newTree(t, g.arch, "instructions-init")
	f.copy(compile(t, dir, g.arch, "build", "-buildvcs=false", "./cmd/goshawk"), "goshawk")
	f.copy(compileC(t, dir, g.arch, "testdata/cost.c"), "cost")
	f.copy(compileC(t, dir, g.arch, "../bench/nothing.c", "-nostdlib"), "nothing")
	f.addCompiler("../bench/load.c", "load.c")
	f.write("variables", "RESULTS="+machines[g.arch].results+"\n")
	initrd := f.pack()
	r := g.boot(t, kernel, initrd, "-smp", "1", "-icount", "shift=0,sleep=off")
	release := regexp.MustCompile(`(?m)^=== kernel (\S+)$`).FindSubmatch(r.results)
	if r.err != nil || release == nil || !regexp.MustCompile(`(?m)^=== end$`).Match(r.results) {
		t.Fatalf("the guest did not come to its end: %v\nit printed last:\n%s\nits console ends:\n%s", r.err, tail(r.results), tail(r.console))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with: %s; the guest printed:\n%s", g.again(""), tail(r.results))
		}
	})
	var all []cost
	least := map[string]float64{}
	for _, m := range costLine.FindAllSubmatch(r.results, -1) {
		c := cost{Side: string(m[1]), What: string(m[2])}
		var err error
		c.Least, err = strconv.ParseFloat(string(m[3]), 64)
		must(t, err)
		c.Median, err = strconv.ParseFloat(string(m[4]), 64)
		must(t, err)
		note(t, "%s %s: %.2f, median %.2f", c.Side, c.What, c.Least, c.Median)
		if c.Side != "warm" {
			all = append(all, c)
		}
		least[c.Side+" "+c.What] = c.Least
	}
	for _, side := range []string{"goshawk", "goshawk-processes", "goshawk-kprobe", "again"} {
		if got, want := least[side+" getpid"], least["bare getpid"]; want == 0 || got > want+0.5 {
			t.Errorf("%s: getpid takes %.2f instructions, %.2f on a bare host", side, got, want)
		}
	}
	// What a build costs more where its files are not watched (issue 6): programs at functions may cost
	// 3 %. fanotify also has the agent look at each file, which the same processor does here.
	for _, side := range []string{"files-fexit", "files-kprobe"} {
		if got, bare := least[side+" build"], least["bare build"]; bare == 0 || got == 0 || got > 1.03*bare {
			t.Errorf("%s: a build takes %.0f instructions, %.0f on a bare host", side, got, bare)
		}
	}
	if os.Getenv("UPDATE") == "" || t.Failed() {
		return
	}
	b, err := json.MarshalIndent(struct {
		Kernel string `json:"kernel"`
		Costs  []cost `json:"costs"`
	}{string(release[1]), all}, "", "\t")
	must(t, err)
	must(t, os.WriteFile(instructionsFile, append(b, '\n'), 0o644))
}
