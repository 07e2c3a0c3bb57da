package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDaemonKilledWithEvents kills a daemon at random moments while programs start that an
// event query tells of. Every start that reached the store is in the log, once or, in a run
// that was committed and not acknowledged, more often under the same counter.
func TestDaemonKilledWithEvents(t *testing.T) {
	needRoot(t)
	rounds := 5
	if os.Getenv("CI") != "" {
		rounds = 20
	}
	if n, err := strconv.Atoi(os.Getenv("GOSHAWK_TEST_KILLS")); err == nil {
		rounds = n
	}
	root := t.TempDir()
	configure(t, root, `{"schedule":{"e":{"query":"SELECT cmdline, eid FROM process_events","interval":1},
		"j":{"query":"SELECT a.eid FROM process_events a JOIN process_events b USING (eid)","interval":2}}}`)
	args := []string{"daemon", "--root_dir", root, "--schedule_splay_percent=0", "--source=ebpf", "--kinds=exec,exit"}
	n := 0
	run := func() {
		n++
		_ = exec.Command("/bin/true", fmt.Sprintf("goshawk-kill-%d-end", n)).Run()
	}
	seed := uint64(time.Now().UnixNano())
	for range rounds {
		cmd := exec.Command("goshawk", args...)
		err := &said{}
		cmd.Stderr = err
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); !strings.Contains(err.String(), "ready:"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not ready: %s", err)
			}
		}
		seed = seed*6364136223846793005 + 1442695040888963407
		wait := time.Duration(500+seed>>33%3000) * time.Millisecond
		for end := time.Now().Add(wait); time.Now().Before(end); {
			run()
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	last := exec.Command("goshawk", args...)
	said := &said{}
	last.Stderr = said
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	defer last.Process.Kill()
	// What the store has is in the log a while later.
	stored := map[string]bool{}
	for end := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "json",
			"SELECT cmdline, eid FROM process_events WHERE cmdline LIKE '%goshawk-kill-%-end'").Output()
		if err == nil {
			var rows []map[string]string
			if err := json.Unmarshal(out, &rows); err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				stored[r["eid"]] = true
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no answer: %v, %s", err, said)
		}
	}
	time.Sleep(4 * time.Second)
	last.Process.Signal(os.Interrupt)
	last.Wait()

	b, err := os.ReadFile(filepath.Join(root, "var/log/goshawk/osqueryd.results.log"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]int{"e": {}, "j": {}} // by query and event: counter
	again := 0
	for i, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		var l struct {
			Name    string
			Counter int
			Columns map[string]string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %d is torn: %v: %.200s", i+1, err, line)
		}
		if seen[l.Name] == nil { // an alert: the daemon was killed
			continue
		}
		eid := l.Columns["eid"]
		if have, ok := seen[l.Name][eid]; ok {
			again++
			if have != l.Counter {
				t.Errorf("%s: event %s under counters %d and %d", l.Name, eid, have, l.Counter)
			}
		}
		seen[l.Name][eid] = l.Counter
	}
	missing := 0
	for eid := range stored {
		for _, query := range []string{"e", "j"} {
			if _, ok := seen[query][eid]; !ok {
				missing++
			}
		}
	}
	if missing > 0 || len(stored) < rounds {
		t.Errorf("%d of %d stored starts are not in the log", missing, len(stored))
	}
	t.Logf("%d kills, %d starts, %d stored, %d told again", rounds, n, len(stored), again)
}
