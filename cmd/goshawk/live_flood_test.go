package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// floodTime is how long files are changed as fast as can be.
const floodTime = 30 * time.Second

// TestLiveFlood changes watched files without end, with a ring far too small for it, and meanwhile
// loads a kernel module, or a BPF program where the kernel has no modules: it is told, with an alert.
func TestLiveFlood(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "file,module,bpf", "--watch", base+"/%%", "--hash", "none",
		"--ring-size", "65536", "--rules", "builtin", "--where", "kind <> 'file'")
	var changed atomic.Int64
	var floods sync.WaitGroup
	end := time.Now().Add(floodTime)
	for w := range 4 {
		floods.Go(func() {
			name := filepath.Join(base, strconv.Itoa(w))
			for time.Now().Before(end) {
				if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
					t.Error(err)
					return
				}
				if err := os.Rename(name, name+"-"); err != nil {
					t.Error(err)
					return
				}
				changed.Add(1)
			}
		})
	}
	time.Sleep(floodTime / 2)
	rule, kind := "BPF program loaded", "bpf"
	if procfs.At("").HasModules() {
		rule, kind = loadModule(t), "module"
	} else {
		loadProgram(t)
	}
	a := l.await(rule, func(a alertRow) bool { return a.RuleName == rule && a.PID == os.Getpid() })
	if time.Now().After(end) {
		t.Error("the alert came when the flood was over")
	}
	floods.Wait()
	if len(a.Evidence) != 1 || a.Evidence[0].Kind != kind {
		t.Errorf("the alert is %+v", a)
	}
	code, stderr := l.stop(os.Interrupt)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	sum := ""
	if kind == "module" {
		data, err := os.ReadFile(os.Getenv("GOSHAWK_TEST_MODULE"))
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(data)
		sum = hex.EncodeToString(digest[:])
	}
	told, lost, found := 0, map[string]int{}, false
	if m := regexp.MustCompile(`stopped: .*\bfile (\d+)`).FindStringSubmatch(stderr); m != nil {
		told, _ = strconv.Atoi(m[1])
	}
	for _, r := range l.rows() {
		switch r.Kind {
		case "loss":
			lost[r.KindLost] += r.Count
		case kind:
			if r.PID == os.Getpid() && len(a.Evidence) == 1 && r.EID == a.Evidence[0].EID {
				found = true
				if r.SHA256 != sum {
					t.Errorf("the digest is %q, want %q", r.SHA256, sum)
				}
			}
		}
	}
	if !found || lost[kind] != 0 || lost["alert"] != 0 {
		t.Errorf("its event is there: %v; lost %v", found, lost)
	}
	t.Logf("%d files written and renamed in %v; of files %d events told, %d lost", changed.Load(), floodTime, told, lost["file"])
	if told+lost["file"] < int(changed.Load()) {
		t.Errorf("%d files were changed, %d events told and %d lost", changed.Load(), told, lost["file"])
	}
}

// loadModule loads a module and unloads it, and returns the rule that finds it.
func loadModule(t *testing.T) string {
	t.Helper()
	file := os.Getenv("GOSHAWK_TEST_MODULE")
	if file == "" {
		t.Skip("kernel module to load is not known: name its file in GOSHAWK_TEST_MODULE, as the guests of make test-kernels do")
	}
	name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
	_ = unix.DeleteModule(name, 0) // it may be there already
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.DeleteModule(name, 0); err != nil {
		t.Fatal(err)
	}
	return "Kernel module loaded from outside the system's directories"
}

// forks is how many processes TestLiveForkStorm makes; GOSHAWK_FORKS says otherwise.
func forks(t *testing.T) int {
	n := 50_000
	if testing.Short() {
		n = 5_000
	}
	if text := os.Getenv("GOSHAWK_FORKS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("GOSHAWK_FORKS: %v", err)
		}
	}
	return n
}

// TestLiveForkStorm makes processes as fast as four can, and now and then one that a rule finds:
// each of these is found, what is not told of the others is counted, and memory stays within its
// bound.
func TestLiveForkStorm(t *testing.T) {
	needRoot(t)
	n := forks(t)
	helper := helperProgram(t)
	dir := t.TempDir()
	mark := fmt.Sprintf("mark-%d", os.Getpid())
	rule := fmt.Sprintf("title: Marked\nid: marked\nlogsource: {category: process_creation}\ndetection: {s: {'CommandLine|contains': ' %s-'}, condition: s}\n", mark)
	if err := os.WriteFile(filepath.Join(dir, "a.yml"), []byte(rule), 0o644); err != nil {
		t.Fatal(err)
	}
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "exec,fork,exit", "--rules", dir, "--where", "kind = 'alert'")
	began := time.Now()
	var storm sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		storm.Go(func() {
			if out, err := exec.Command(helper, "forks", strconv.Itoa(n/4), "x").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	go func() {
		storm.Wait()
		close(over)
	}()
	marked := 0
	for going := true; going; marked++ {
		runPID(t, exec.Command("/bin/true", fmt.Sprintf("%s-%d", mark, marked)))
		select {
		case <-over:
			going = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	took := time.Since(began)
	found := map[string]bool{} // command lines
	for end := time.Now().Add(time.Minute); len(found) < marked && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, a := range l.alerts() {
			if a.RuleName == "Marked" {
				found[a.Summary] = true
			}
		}
	}
	if len(found) != marked {
		t.Errorf("%d alerts of %d processes that the rule finds", len(found), marked)
	}
	ask := func(column, kind string) int {
		t.Helper()
		out, err := exec.Command("goshawk", "query", "--root-dir", l.root, "--format", "csv",
			"SELECT sum("+column+") AS n FROM goshawk_sources WHERE source = 'ebpf' AND kind = '"+kind+"'").CombinedOutput()
		got, err2 := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(string(out)), "n\n"))
		if err != nil || err2 != nil {
			t.Fatalf("%v, %v: %s", err, err2, out)
		}
		return got
	}
	time.Sleep(time.Second) // for what is on its way
	lost := 0
	for _, kind := range []string{"fork", "exit"} {
		generated, delivered, filtered, gone := ask("generated", kind), ask("delivered", kind), ask("filtered", kind), ask("lost", kind)
		if generated < n/4*4 || delivered+gone < n/4*4 {
			t.Errorf("%s: %d processes, %d generated, %d delivered, %d filtered, %d lost", kind, n, generated, delivered, filtered, gone)
		}
		lost += gone
	}
	memory := peak(t, l.cmd.Process.Pid)
	if code, stderr := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	t.Logf("%d processes in %v, %d of %d others found, %d events lost, peak memory %d MB", n, took.Round(time.Millisecond), len(found), marked, lost, memory>>20)
	if memory > 80<<20 {
		t.Errorf("%d bytes of peak memory", memory)
	}
}

// helperProgram is internal/sensor/testdata/helper.c, built.
func helperProgram(t *testing.T) string {
	t.Helper()
	if helper := os.Getenv("GOSHAWK_TEST_HELPER"); helper != "" {
		return helper
	}
	helper := filepath.Join(t.TempDir(), "helper")
	if out, err := exec.Command("gcc", "-static", "-O1", "-Wall", "-o", helper, "../../internal/sensor/testdata/helper.c", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("build the helper: %v\n%s", err, out)
	}
	return helper
}
