//go:build kernels

package kerneltest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// recordsFile is what docs/kernels.md is made from (`make docs`); `make test-kernels UPDATE=1`
// writes it.
const recordsFile = "testdata/kernels.json"

// A record is what a kernel grants.
type record struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Arch    string `json:"arch"`
	// Tiers is what internal/sensor's TestLiveGrants writes.
	Tiers json.RawMessage `json:"tiers"`
	// Skipped are the tests that this kernel has not what it takes for.
	Skipped []skip `json:"skipped,omitempty"`
}

type skip struct {
	Test   string `json:"test"`
	Reason string `json:"reason"`
}

var recording sync.Mutex

// keep writes r in the place of what the file had of the same kernel.
func keep(t *testing.T, r record) {
	t.Helper()
	recording.Lock()
	defer recording.Unlock()
	var all []record
	b, err := os.ReadFile(recordsFile)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(all, func(o record) bool { return o.Name == r.Name }); i >= 0 {
		if os.Getenv("RUN") != "" { // which is not all that could be skipped
			r.Skipped = all[i].Skipped
		}
		all = slices.Delete(all, i, i+1)
	}
	all = append(all, r)
	place := func(r record) int { // the host comes last
		if i := slices.IndexFunc(guests, func(g guest) bool { return g.name == r.Name }); i >= 0 {
			return i
		}
		return len(guests)
	}
	slices.SortFunc(all, func(a, b record) int { return place(a) - place(b) })
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "\t")
	must(t, e.Encode(all))
	must(t, os.MkdirAll(filepath.Dir(recordsFile), 0o755))
	must(t, os.WriteFile(recordsFile, out.Bytes(), 0o644))
}

// hostRecord asks this machine's kernel the same.
func hostRecord(t *testing.T, tests string) {
	tiers := filepath.Join(t.TempDir(), "tiers")
	c := exec.Command(tests, "-test.run=^TestLiveGrants$")
	c.Dir = "../internal/sensor"
	c.Env = append(os.Environ(), "GOSHAWK_TIERS="+tiers)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("ask this machine's kernel: %v\n%s", err, out)
	}
	b, err := os.ReadFile(tiers)
	must(t, err)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	keep(t, record{Name: "host", Release: strings.TrimSpace(string(release)), Arch: runtime.GOARCH, Tiers: b})
}
