package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// query asks as goshawk query does and returns the rows.
func query(t *testing.T, root, sql string) []map[string]string {
	t.Helper()
	cmd := exec.Command("goshawk", "query", "--root-dir", root, "--format", "json", sql)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", sql, err, &stderr)
	}
	var rows []map[string]string
	if err := json.Unmarshal(out, &rows); err != nil {
		t.Fatalf("%s: %v in %s", sql, err, out)
	}
	return rows
}

// TestLiveQuery asks a running agent about what has just happened, and the store about
// the same after the agent was killed.
func TestLiveQuery(t *testing.T) {
	root := t.TempDir()
	l := startRun(t, root)
	mark := fmt.Sprintf("query-%d", os.Getpid())
	if err := exec.Command("/bin/sh", "-c", "exit 0", mark).Run(); err != nil {
		t.Fatal(err)
	}
	sql := fmt.Sprintf("SELECT ppid, process_id, json_extract(args, '$[3]') AS mark FROM exec_events WHERE mark = '%s' AND time > %d",
		mark, l.begun.Unix()-5)
	rows := query(t, root, sql)
	if len(rows) != 1 {
		t.Fatalf("%d rows from the agent: %v", len(rows), rows)
	}
	check(t, "mark", rows[0]["mark"], mark)
	check(t, "ppid", rows[0]["ppid"], strconv.Itoa(os.Getpid()))

	hooks := query(t, root, "SELECT name, tier, seen FROM goshawk_hooks WHERE name = 'exec'")
	if len(hooks) != 1 || hooks[0]["tier"] == "" || hooks[0]["seen"] == "0" {
		t.Errorf("hooks %v", hooks)
	}
	check(t, "losses", query(t, root, "SELECT * FROM goshawk_losses"), []map[string]string{})
	check(t, "publisher", query(t, root, "SELECT publisher, active FROM osquery_events WHERE name = 'process_events'"),
		[]map[string]string{{"publisher": "ebpf", "active": "1"}})

	flags := query(t, root, "SELECT name, value FROM osquery_flags WHERE name IN ('events_expiry', 'enable_bpf_events') ORDER BY name")
	check(t, "flags", flags, []map[string]string{{"name": "enable_bpf_events", "value": "true"}, {"name": "events_expiry", "value": "86400"}})
	info := "SELECT instance_id FROM osquery_info"
	instance := query(t, root, info)
	if !uuidForm.MatchString(instance[0]["instance_id"]) {
		t.Errorf("instance %v", instance)
	}

	// What was committed for the query survives a kill.
	l.stop(os.Kill)
	check(t, "from the store", query(t, root, sql), rows)
	check(t, "instance from the store", query(t, root, info), instance)
}

// TestLiveTop looks at a running agent: as text, and on a terminal.
func TestLiveTop(t *testing.T) {
	root := t.TempDir()
	startRun(t, root, "--kinds", "exec,fork,exit")
	load(t, "top", 40)
	out, err := exec.Command("goshawk", "top", "--root-dir", root, "--interval", "100ms", "--count", "2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`(?m)^goshawk [\d:]{8}  source=ebpf  0\.0 events/s  lost 0$`, `(?m)^goshawk .*  source=ebpf  [\d.]+ events/s  lost 0$`,
		`(?m)^exec +- +\d{2,} +0$`, `(?m)^exec +\d+\.\d +\d{2,} +0$`, `(?m)^\d{2,} +\d{2,} +- +/\S*/true$`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("nothing like %s in\n%s", want, out)
		}
	}

	cmd := exec.Command("goshawk", "top", "--root-dir", root, "--interval", "100ms")
	cmd.Env = append(os.Environ(), "TERM=xterm")
	s := startOnScreen(t, cmd)
	s.expect(`source=ebpf`)
	s.expect(`exec .*[0-9]`)
	s.expect(`/true`)
	s.send("q")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after q: %v", err)
	}
}

// TestLiveBalanceBySQL asks the agent whether generated = delivered + filtered + lost.
func TestLiveBalanceBySQL(t *testing.T) {
	root := t.TempDir()
	l := startRun(t, root, "--ring-size", "4096", "--kinds", "exec,fork,exit")
	l.held(func() { load(t, "x", 500) })
	load(t, "y", 500)
	lost := query(t, root, "SELECT sum(count) AS n FROM goshawk_losses WHERE source = 'ebpf'")
	if lost[0]["n"] == "" || lost[0]["n"] == "0" {
		t.Errorf("nothing was lost: %v", lost)
	}
	// Between two events of the host, nothing is under way.
	var open []map[string]string
	for range 100 {
		open = query(t, root, `SELECT source, kind, generated, delivered, filtered, lost FROM goshawk_sources
			WHERE source IN ('ebpf', 'store') AND kind != '' AND generated != delivered + filtered + lost`)
		if len(open) == 0 {
			break
		}
	}
	if len(open) > 0 {
		t.Errorf("out of balance: %v", open)
	}
	l.stop(os.Interrupt)
}
