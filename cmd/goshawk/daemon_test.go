package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/remotetest"
)

// The tests in this file run the real binary, as goshawk daemon, without events: they need
// no root.

// running is a daemon.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	root string
	out  *bytes.Buffer
	err  *said
}

// said is standard error while it is written.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startDaemon starts a daemon below root and waits until it is ready.
func startDaemon(t *testing.T, root string, args ...string) *running {
	t.Helper()
	return startDaemonBy(t, nil, root, args...)
}

// startDaemonBy is startDaemon by a command that executes what it is given.
func startDaemonBy(t *testing.T, by []string, root string, args ...string) *running {
	t.Helper()
	r := &running{t: t, root: root, out: &bytes.Buffer{}, err: &said{}}
	args = slices.Concat(by, []string{"goshawk", "daemon", "--root_dir", root, "--disable_events", "--schedule_splay_percent=0"}, args)
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.err
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	r.until("ready", func() bool { return strings.Contains(r.err.String(), "ready: daemon") })
	return r
}

// until waits for something.
func (r *running) until(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within a minute: %s; it said:\n%s", what, r.err)
		}
	}
}

// stop ends the daemon as a service manager does.
func (r *running) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Fatalf("%v; it said:\n%s", err, r.err)
	}
}

func (r *running) file(name string) string {
	b, _ := os.ReadFile(filepath.Join(r.root, name)) // not there yet is empty
	return string(b)
}

// configure writes the configuration below root.
func configure(t *testing.T, root, text string) {
	t.Helper()
	path := filepath.Join(root, "etc/goshawk/goshawk.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonReload(t *testing.T) {
	root := t.TempDir()
	configure(t, root, `{"schedule":{"one":{"query":"SELECT 1 AS a","interval":1}},"views":{"v":"SELECT 'x' AS x"}}`)
	r := startDaemon(t, root, "--verbose", "--pidfile="+filepath.Join(root, "pid"))
	results := "var/log/goshawk/osqueryd.results.log"
	r.until("a first line", func() bool { return strings.Contains(r.file(results), `"name":"one"`) })
	if r.file("pid") != strconv.Itoa(r.cmd.Process.Pid) {
		t.Errorf("pid file %q", r.file("pid"))
	}
	ask := func(text string) string {
		t.Helper()
		out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "csv", text).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v, %s", text, err, out)
		}
		return string(out)
	}
	if got := ask("SELECT x FROM v"); got != "x\nx\n" {
		t.Errorf("view: %q", got)
	}
	if got := ask("SELECT name, value FROM osquery_flags WHERE name = 'verbose'"); !strings.Contains(got, "verbose,true") {
		t.Errorf("flags: %q", got)
	}

	configure(t, root, "{\n \"schedule\": {")
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.until("the fault's place", func() bool {
		return strings.Contains(r.err.String(), "goshawk.conf:2:15: the configuration ends too early")
	})
	if got := ask("SELECT name FROM osquery_schedule"); got != "name\none\n" {
		t.Errorf("after a bad configuration: %q", got)
	}
	if got := ask("SELECT config_valid FROM osquery_info"); got != "config_valid\n0\n" {
		t.Errorf("config_valid: %q", got)
	}
	configure(t, root, `{"options":{"logger_tls_period":9},"schedule":{"two":{"query":"SELECT * FROM w","interval":1}},"views":{"w":"SELECT 2 AS b"},
		"auto_table_construction":{"users":{"query":"SELECT 1","path":"/x","columns":["a"]},"t":{"query":"SELECT a FROM t","path":"/nonexistent/%","columns":["a"]}}}`)
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.until("a line of the new query", func() bool { return strings.Contains(r.file(results), `"columns":{"b":"2"},"action":"added"}`) })
	if got := ask("SELECT (SELECT value FROM osquery_flags WHERE name='logger_tls_period') AS p, (SELECT count(*) FROM t) AS n, (SELECT count(*) > 0 FROM users) AS u"); got != "p,n,u\n9,0,1\n" {
		t.Errorf("after it: %q", got)
	}
	r.stop()
	if !strings.Contains(r.file("var/log/goshawk/osqueryd.INFO"), "ATC Table: users overrides core table") {
		t.Errorf("status file %s", r.file("var/log/goshawk/osqueryd.INFO"))
	}
	if r.file("pid") != "" {
		t.Error("the pid file stays")
	}
	if info, err := os.Stat(filepath.Join(root, "var/lib/goshawk/state.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state %v, %v", info.Mode(), err)
	}
}

// TestDaemonSilence keeps a query that is marked as detection silent, in a daemon that was told of no
// rules and has no directory of them at first.
func TestDaemonSilence(t *testing.T) {
	root := t.TempDir()
	configure(t, root, `{"schedule":{"found":{"query":"SELECT datetime('now') AS now","interval":1,"detection":"low"}}}`)
	r := startDaemon(t, root, "--disable_watchdog")
	defer r.stop()
	results := "var/log/goshawk/osqueryd.results.log"
	r.until("an alert", func() bool { return strings.Contains(r.file(results), `"rule_id":"query:found"`) })
	rules := filepath.Join(root, "etc/goshawk/rules")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("goshawk", "rules", "silence", rules, "--for", "1h").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	counts := func(column string) int {
		out, _ := exec.Command("goshawk", "query", "--root-dir", root, "--format", "csv",
			"SELECT coalesce(max("+column+"), 0) AS n FROM goshawk_sources WHERE source = 'rules' AND kind = 'alert'").Output()
		n, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(string(out)), "n\n"))
		return n
	}
	r.until("silence", func() bool { return counts("filtered") > 0 })
	told, before := strings.Count(r.file(results), `"rule_id":"query:found"`), counts("filtered")
	r.until("two more that are kept back", func() bool { return counts("filtered") > before+1 })
	if n := strings.Count(r.file(results), `"rule_id":"query:found"`); n != told {
		t.Errorf("%d alerts while there is silence", n-told)
	}
}

// TestDaemonServer runs a host under a server, from enrolment to a distributed query, with
// what servers do to agents in between.
func TestDaemonServer(t *testing.T) {
	s := remotetest.Start(t)
	s.Config = `{"options":{"distributed_interval":1,"logger_tls_period":1,"logger_path":"/nonexistent/x"},
		"schedule":{"snap":{"query":"SELECT 1 AS one","interval":1,"snapshot":true},"diff":{"query":"SELECT 'x' AS x","interval":1}},
		"packs":{"p":"/etc/passwd"},"decorators":{"load":["SELECT 'd' AS deco"]}}`
	s.Queries = map[string]string{"q1": "SELECT uid FROM users WHERE uid=0", "q2": "SELECT * FROM nowhere"}
	s.Discovery = map[string]string{"q1": "SELECT 1"}
	root := t.TempDir()
	args := []string{
		"--tls_hostname=" + s.Host, "--tls_server_certs=" + s.CA, "--config_plugin=tls", "--logger_plugin=tls,filesystem",
		"--enroll_tls_endpoint=" + remotetest.Enroll, "--config_tls_endpoint=" + remotetest.Config, "--logger_tls_endpoint=" + remotetest.Log,
		"--disable_distributed=false", "--distributed_tls_read_endpoint=" + remotetest.Read, "--distributed_tls_write_endpoint=" + remotetest.Write,
		"--enroll_secret_path=" + s.SecretFile(), "--config_refresh=2", "--config_accelerated_refresh=1", "--verbose",
		"--disable_carver=false", "--carver_start_endpoint=" + remotetest.CarveStart, "--carver_continue_endpoint=" + remotetest.CarveContinue,
	}
	r := startDaemon(t, root, args...)
	has := func(list *[]json.RawMessage, texts ...string) func() bool {
		return func() (found bool) {
			s.Do(func() {
				found = slices.ContainsFunc(*list, func(line json.RawMessage) bool {
					for _, text := range texts {
						if !strings.Contains(string(line), text) {
							return false
						}
					}
					return true
				})
			})
			return found
		}
	}
	r.until("a snapshot at the server", has(&s.Results, `"snapshot":[{"one":"1"}]`, `"decorations":{"deco":"d"}`))
	r.until("a difference at the server", has(&s.Results, `"name":"diff"`, `"counter":0`, `"action":"added"`))
	r.until("a status at the server", has(&s.Statuses, `"severity":1`, `logger_path is a path, which a server may not set`, `"version":"5.23.1"`, `"line":`))
	r.until("the pack's refusal", has(&s.Statuses, `pack \"p\" names a file`))
	r.until("distributed results", func() (found bool) {
		s.Do(func() {
			if len(s.Written) > 0 {
				w := s.Written[0]
				found = len(w.Queries["q1"]) == 1 && w.Queries["q1"][0]["uid"] == "0" && w.Statuses["q2"] == 1 && w.Messages["q2"] == "no such table: nowhere"
			}
		})
		return found
	})
	if !strings.Contains(r.file("var/log/goshawk/osqueryd.results.log"), `"name":"diff"`) {
		t.Error("the filesystem logger has nothing")
	}
	s.Do(func() {
		var e struct {
			Details map[string]map[string]string `json:"host_details"`
		}
		if err := json.Unmarshal(s.Enrolled[0], &e); err != nil || e.Details["os_version"]["platform"] == "" ||
			e.Details["osquery_info"]["version"] != "5.23.1" || e.Details["system_info"]["hostname"] == "" {
			t.Errorf("host details %v, %v", e.Details, err)
		}
		// The server forgets the host, which enrols anew.
		clear(s.Keys)
	})
	r.until("a second enrolment", func() (again bool) {
		s.Do(func() { again = len(s.Enrolled) == 2 })
		return again
	})
	// A query changes while the daemon runs, and a file is carved.
	secret := filepath.Join(root, "file")
	if err := os.WriteFile(secret, []byte("carve me"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Do(func() {
		s.Config = `{"options":{"distributed_interval":1,"logger_tls_period":1},"schedule":{"diff":{"query":"SELECT 'y' AS x","interval":1}}}`
		s.Queries = map[string]string{"c1": "SELECT * FROM carves WHERE carve=1 AND path LIKE '" + root + "/fil%'"}
	})
	r.until("the change", has(&s.Results, `"columns":{"x":"y"},"action":"added"`))
	r.until("what it removes", has(&s.Results, `"columns":{"x":"x"},"action":"removed"`))
	r.until("the carve", func() (done bool) {
		s.Do(func() {
			for _, c := range s.Carves {
				done = c.Request == "c1" && int64(len(c.Data)) == c.Blocks && bytes.Contains(c.Data[0], []byte("carve me"))
			}
		})
		return done
	})
	// What happens while the server is away waits for it.
	s.Do(func() {
		s.Fault = refuse(remotetest.Log)
		s.Config = strings.Replace(s.Config, "'y'", "'z'", 1)
	})
	r.until("a line that waits", func() bool { return strings.Contains(r.file("var/log/goshawk/osqueryd.results.log"), `"x":"z"`) })
	r.stop()
	s.Do(func() { s.Fault = nil })
	if has(&s.Results, `"x":"z"`)() {
		t.Error("a refused line arrived")
	}
	again := startDaemon(t, root, args...)
	again.until("the line that waited", has(&s.Results, `"x":"z"`, `"action":"added"`))
	again.stop()
	s.Do(func() {
		if len(s.Enrolled) != 2 {
			t.Errorf("enrolled %d times", len(s.Enrolled))
		}
		for _, line := range append(s.Results, s.Statuses...) {
			if strings.Contains(string(line), s.Secret) || strings.Contains(string(line), "node-key-") {
				t.Errorf("a secret is logged: %s", line)
			}
		}
	})
	for _, text := range []string{r.err.String(), again.err.String(), r.file("var/log/goshawk/osqueryd.INFO")} {
		if strings.Contains(text, s.Secret) || strings.Contains(text, "node-key-") {
			t.Errorf("a secret is said: %s", text)
		}
	}
}

// TestDaemonKilled kills a daemon at random moments while a directory changes, and rebuilds
// the directory from its lines: none is missing, none is there twice, none is torn.
func TestDaemonKilled(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv("GOSHAWK_TEST_KILLS")); err == nil {
		rounds = n
	}
	root, dir := t.TempDir(), t.TempDir()
	configure(t, root, `{"schedule":{"files":{"query":"SELECT filename, size FROM file WHERE directory='`+dir+`'","interval":1,"denylist":false},
		"large":{"query":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 3000) SELECT i, (SELECT unix_time FROM time) AS t, hex(zeroblob(100)) AS pad FROM n","interval":1,"removed":false,"denylist":false}}}`)
	var mu sync.Mutex
	changed := 0
	change := func() {
		mu.Lock()
		defer mu.Unlock()
		changed++
		name := filepath.Join(dir, fmt.Sprint("f", changed%37))
		if changed%3 == 0 {
			os.Remove(name)
			return
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte("x"), changed), 0o600); err != nil {
			t.Error(err)
		}
	}
	seed := time.Now().UnixNano()
	for range rounds {
		cmd := exec.Command("goshawk", "daemon", "--root_dir", root, "--disable_events", "--schedule_splay_percent=0")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seed = seed*6364136223846793005 + 1442695040888963407
		wait := time.Duration(300+uint64(seed)>>33%2000) * time.Millisecond
		for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(7 * time.Millisecond) {
			change()
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	r := startDaemon(t, root)
	time.Sleep(2500 * time.Millisecond)
	r.stop()

	type row struct{ Filename, Size string }
	state, counter, runs := map[row]int{}, 0, map[int]int{}
	told := 0 // that the daemon was killed, by the one after it
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(r.file("var/log/goshawk/osqueryd.results.log"), "\n"), "\n") {
		var l struct {
			Name    string
			Counter int
			Action  string
			Columns struct{ Filename, Size, I, T string }
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %d is torn: %v: %.200s", i+1, err, line)
		}
		if seen[line] {
			t.Fatalf("line %d is there twice: %.200s", i+1, line)
		}
		seen[line] = true
		switch l.Name {
		case "large":
			runs[l.Counter]++
			continue
		case "goshawk_alerts":
			told++
			continue
		}
		if l.Counter != counter && l.Counter != counter+1 {
			t.Fatalf("line %d: counter %d after %d", i+1, l.Counter, counter)
		}
		counter = l.Counter
		key := row{l.Columns.Filename, l.Columns.Size}
		if l.Action == "added" {
			state[key]++
		} else {
			state[key]--
		}
		if state[key] < 0 || state[key] > 1 {
			t.Fatalf("line %d: %v is there %d times", i+1, key, state[key])
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if state[row{e.Name(), fmt.Sprint(info.Size())}] != 1 {
			t.Errorf("%s of %d bytes is not in the lines", e.Name(), info.Size())
		}
		delete(state, row{e.Name(), fmt.Sprint(info.Size())})
	}
	for key, n := range state {
		if n != 0 {
			t.Errorf("%v is in the lines, and not there", key)
		}
	}
	if told == 0 || told > rounds {
		t.Errorf("%d kills are told as %d", rounds, told)
	}
	for c := range len(runs) {
		if runs[c] != 3000 {
			t.Errorf("run %d of the large query has %d lines", c, runs[c])
		}
	}
	t.Logf("%d kills, %d changes, %d differences, %d large runs", rounds, changed, counter+1, len(runs))
}

// refuse is a fault that answers an endpoint's requests with a failure.
func refuse(endpoint string) func(w http.ResponseWriter, r *http.Request, body []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != endpoint {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
}
