//go:build kernels

// Package kerneltest boots stock kernels under QEMU and runs the live tests inside: the
// same test binaries that run on this machine, in an initramfs with BusyBox and nothing
// else. It is behind the build tag "kernels"; `make test-kernels` sets it.
package kerneltest

import (
	"fmt"
	"os"
	"path/filepath"
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
	once   string // what does not with the legacy object: it tries both objects
	arm64  string // what runs there, where all would take too long; empty: none
	flags  []string
	legacy bool // runs with the legacy object, too
}

var suites = []suite{
	{path: "./internal/sensor", run: "^TestLive|^TestOpen", skip: "^TestLive(KindsChooseHooks|Race)$", once: "^TestLive(Grants|Verifier)$",
		arm64: "^TestLive(Exec|Grants|Verifier)$|^TestLiveSocket$/./^tcp$", flags: []string{"-cover"}, legacy: true},
	{path: "./internal/kernel", run: ".", arm64: "."},
	{path: "./internal/procfs", run: "^Test"},
	{path: "./cmd/goshawk", run: "^TestLive(Check|SelfTest|ExecAndExit|Connection|Query|TinyRing)$", arm64: "^TestLiveSelfTest$"},
	{path: "./internal/watchdog", run: "^TestLive"},
	// The last, as it locks audit until the next boot. What needs auditd or gcc runs elsewhere.
	{path: "./internal/audit", run: "^TestLive", skip: "^TestLive(Beside|StopOwner|Yield|Yielding|ReadOnlyBeside|Overrun|Storm|Logins)$"},
}

// more is what also runs of a package in one guest: it takes minutes, and has been the same on
// all. Real containers run there under cgroup v2 alone; the flood is to hide a module, which the host
// may not have.
var more = map[[2]string]string{
	{"6.1", "./cmd/goshawk"}:  "^TestLive(Containers|ContainerRush|HostileRuntimes)$",
	{"6.12", "./cmd/goshawk"}: "^TestLiveFlood$",
}

// TestKernels runs the live tests on the kernels named in K (comma-separated; empty: all, and
// instructions, which counts what goshawk costs, and systemd, which runs the package).
// RUN narrows the tests, as -run does, and PACKAGES the packages; RUN=bare runs none of
// them, but what there is in bare surroundings, RUN=old what there is where also 3.10 is
// pretended (on the oldest kernel). With UPDATE what the kernels grant is kept.
func TestKernels(t *testing.T) {
	chosen := guests
	only := os.Getenv("RUN")
	k := os.Getenv("K")
	if k == "" && only == "" {
		t.Run(instructions, countInstructions)
		t.Run(systemd, underSystemd)
	}
	if k != "" {
		chosen = nil
		for name := range strings.SplitSeq(k, ",") {
			i := slices.IndexFunc(guests, func(g guest) bool { return g.name == name })
			switch {
			case name == instructions:
				t.Run(name, countInstructions)
			case name == systemd:
				t.Run(name, underSystemd)
			case i < 0:
				t.Fatalf("K names kernel %q; there are %v, %s and %s", name, guests, instructions, systemd)
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
		if only != "bare" && only != "old" {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				initrd := liveTree(t, &g, root, built[g.arch], only)
				report(t, &g, g.boot(t, kernel, initrd), func(tests string) run {
					return g.boot(t, kernel, liveTree(t, &g, root, built[g.arch], tests))
				})
			})
		}
		if only == "" && g.bare || only == "bare" && g.object == "" && g.run == "" {
			t.Run(g.name+" bare", func(t *testing.T) { bare(t, &g, kernel, built[g.arch].goshawk, false) })
		}
		if (only == "" || only == "old") && g.name == oldest {
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
		if s.pattern(arch, os.Getenv("RUN")) != "" {
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

// pattern is what runs of s: what only says, if it says anything.
func (s *suite) pattern(arch, only string) string {
	if only != "" {
		return only
	}
	if arch == "arm64" {
		return s.arm64
	}
	return s.run
}

// skipped is what of s does not run in g.
func (s *suite) skipped(g *guest) string {
	var out []string
	if s.skip != "" {
		out = append(out, s.skip)
	}
	if s.once != "" && g.object != "" {
		out = append(out, s.once)
	}
	return strings.Join(out, "|")
}

// liveTree is the initramfs of a guest that runs the live tests.
func liveTree(t *testing.T, g *guest, root string, p programs, only string) string {
	t.Helper()
	f := newTree(t, g.arch, "init")
	f.addModules(root)
	f.copy(p.helper, "helper")
	if g.arch == "amd64" {
		f.copyDynamic("/sbin/ip", "usr/sbin/ip") // BusyBox's own makes no veth pairs
		f.copyDynamic("/usr/sbin/runc", "usr/sbin/runc")
	}
	f.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	f.addPackage(root, "package.tar")
	f.write("variables", "export GOSHAWK_KERNELTEST=1 GOSHAWK_TEST_PACKAGE=/package.tar GOSHAWK_TEST_HELPER=/helper GOSHAWK_TIERS=/results/tiers GOSHAWK_TEST_OBJECT="+g.object+
		" RESULTS="+machines[g.arch].results+"\n")
	var jobs strings.Builder
	for _, s := range chosenSuites() {
		if p.tests[s.path] == "" || g.object != "" && !s.legacy {
			continue
		}
		if m := more[[2]string{g.name, s.path}]; m != "" {
			s.run += "|" + m
		}
		if g.run != "" && only == "" {
			if !slices.Contains(strings.Split(g.of, ","), s.path) {
				continue
			}
			s.run = g.run
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
			dir, program, guestTimeout*4/5, s.pattern(g.arch, only))
		if skip := s.skipped(g); skip != "" && only == "" {
			jobs.WriteString(" -test.skip=" + skip)
		}
		jobs.WriteString("\n")
	}
	f.write("jobs", jobs.String())
	return f.pack()
}
