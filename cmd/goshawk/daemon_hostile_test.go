package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/remotetest"
)

// serverArgs make a daemon of s's.
func serverArgs(s *remotetest.Server) []string {
	return []string{
		"--tls_hostname=" + s.Host, "--tls_server_certs=" + s.CA, "--config_plugin=tls", "--logger_plugin=tls,filesystem",
		"--enroll_tls_endpoint=" + remotetest.Enroll, "--config_tls_endpoint=" + remotetest.Config, "--logger_tls_endpoint=" + remotetest.Log,
		"--disable_distributed=false", "--distributed_tls_read_endpoint=" + remotetest.Read, "--distributed_tls_write_endpoint=" + remotetest.Write,
		"--config_refresh=1", "--config_accelerated_refresh=1", "--logger_tls_period=1", "--distributed_interval=1", "--verbose",
	}
}

// daemonPids are the pids of a daemon: its worker and its watcher.
func daemonPids(t *testing.T, root string) []int {
	t.Helper()
	var worker, watcher int
	if _, err := fmt.Sscanf(ask(root, "SELECT pid, watcher FROM osquery_info"), "pid,watcher\n%d,%d", &worker, &watcher); err != nil || worker <= 0 || watcher <= 0 {
		t.Fatalf("worker %d, watcher %d: %v", worker, watcher, err)
	}
	return []int{worker, watcher}
}

// A secret, and the key that it was exchanged for, are nowhere but in the state; nothing of either
// process can be dumped; and what the daemon writes only its user can read.
func TestDaemonSecrets(t *testing.T) {
	s := remotetest.Start(t)
	s.Config = `{"options":{"distributed_interval":1},"schedule":{"flags":{"query":"SELECT * FROM osquery_flags","interval":1,"snapshot":true}}}`
	root := t.TempDir()
	r := startDaemon(t, root, append(serverArgs(s), "--enroll_secret_path="+s.SecretFile(), "--tls_dump=true")...)
	r.until("enrolment, and flags at the server", func() (there bool) {
		s.Do(func() { there = len(s.Enrolled) > 0 && len(s.Results) > 0 })
		return there
	})
	var secrets []string
	s.Do(func() {
		secrets = []string{s.Secret}
		for key := range s.Keys {
			secrets = append(secrets, key)
		}
	})
	clean := func(where, text string) {
		t.Helper()
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	clean("osquery_flags", ask(root, "SELECT * FROM osquery_flags"))
	for _, pid := range daemonPids(t, root) {
		proc := "/proc/" + strconv.Itoa(pid)
		args, err := os.ReadFile(proc + "/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		clean("the arguments of a process", string(args))
		limits, err := os.ReadFile(proc + "/limits")
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes") {
			t.Errorf("process %d may dump core: %v\n%s", pid, err, limits)
		}
	}
	r.stop()
	clean("standard error", r.err.String())
	clean("standard output", r.out.String())
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && !d.IsDir() || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		want := fs.FileMode(0o600)
		switch {
		case d.IsDir():
			want = 0o700
		case strings.HasPrefix(name, "var/log/"):
			want = 0o640 // logger_mode
		}
		if inner := strings.Count(name, "/") > 1 || !d.IsDir(); inner && info.Mode().Perm()&^want != 0 {
			t.Errorf("%s has mode %v, want at most %v", name, info.Mode().Perm(), want)
		}
		if d.Type().IsRegular() && strings.HasPrefix(name, "var/log/") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			clean(name, string(text))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Neither process is dumpable: without CAP_SYS_PTRACE (or PERFMON, from 6.15) not even root with all rights that they
// have may look into their memory, as it may into another's (ptrace(2), PTRACE_MODE_READ).
func TestDaemonNotDumpable(t *testing.T) {
	needRoot(t)
	few := []string{"setpriv", "--bounding-set=-sys_ptrace,-perfmon,-sys_admin", "--inh-caps=-all"}
	look := func(pid int) (string, error) {
		args := append(few[:len(few):len(few)], "cat", "/proc/"+strconv.Itoa(pid)+"/maps")
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	root := t.TempDir()
	configure(t, root, `{}`)
	r := startDaemonBy(t, few, root)
	other := exec.Command(few[0], append(few[1:len(few):len(few)], "sleep", "600")...)
	mustDo(t, other.Start())
	defer func() { other.Process.Kill(); other.Wait() }()
	within(t, "another process can be looked into", func() bool {
		out, err := look(other.Process.Pid)
		return err == nil && strings.Contains(out, "/sleep")
	})
	for _, pid := range daemonPids(t, root) {
		if out, err := look(pid); err == nil || !strings.Contains(out, "Permission denied") {
			t.Errorf("process %d shows its memory: %v\n%.500s", pid, err, out)
		}
	}
	r.stop()
}

// A server that means harm gets nothing written outside the daemon's own directories, no
// program run, no file read into a configuration, and no more memory than the daemon may have.
func TestDaemonHostileServer(t *testing.T) {
	s := remotetest.Start(t)
	target := t.TempDir() // outside of root
	const config = `{"options":{"logger_path":"TARGET","database_path":"TARGET","pidfile":"TARGET/pid","extensions_socket":"TARGET/em","extensions_autoload":"TARGET/run",
		"config_path":"TARGET/conf","tls_server_certs":"TARGET/ca","enroll_secret_path":"/etc/shadow","host_identifier":"specified","specified_identifier":"../../TARGET",
		"events_max_bytes":1e99,"disable_watchdog":true,"watchdog_level":-1,"root_dir":"TARGET","daemonize":true,"logger_plugin":"filesystem","carver_start_endpoint":"/x"},
		"packs":{"shadow":"/etc/shadow","../../TARGET":{"queries":{"../../TARGET/x":{"query":"SELECT 1","interval":1}}}},
		"auto_table_construction":{"a":{"query":"ATTACH 'TARGET/attached.db' AS x","path":"TARGET/%","columns":["a"]},
			"b":{"query":"SELECT writefile('TARGET/written', 'x')","path":"TARGET/%","columns":["a"]}},
		"views":{"v":"SELECT 1; ATTACH 'TARGET/view.db' AS y","sqlite_master":"SELECT 1"},
		"decorators":{"load":["ATTACH 'TARGET/deco.db' AS z"],"always":["SELECT randomblob(1000000000) AS big"]},
		"schedule":{"attach":{"query":"ATTACH DATABASE 'TARGET/sched.db' AS s","interval":1},"vacuum":{"query":"VACUUM INTO 'TARGET/vacuum.db'","interval":1},
			"write":{"query":"SELECT writefile('TARGET/w','x'), load_extension('TARGET/x.so'), edit('x','sh -c id')","interval":1},
			"pragma":{"query":"PRAGMA temp_store_directory='TARGET'","interval":1},
			"memory":{"query":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 5000) SELECT group_concat(hex(zeroblob(100000))) FROM n","interval":1},
			"name\n../../x":{"query":"SELECT 1 AS one","interval":1},
			"alive":{"query":"SELECT 'alive' AS alive","interval":1,"snapshot":true}}}`
	if err := os.WriteFile(filepath.Join(target, "some.db"), []byte("SQLite format 3\x00 and no more"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Config = strings.ReplaceAll(config, "TARGET", target)
	s.Queries = map[string]string{
		"attach": "ATTACH '" + target + "/dist.db' AS d; CREATE TABLE d.t(a)", "carve": "SELECT * FROM carves WHERE carve=1 AND path='/etc/passwd'",
		"memory":                  "WITH RECURSIVE n(i, b) AS (SELECT 1, randomblob(100000) UNION ALL SELECT i + 1, randomblob(100000) FROM n LIMIT 5000) SELECT count(*) FROM (SELECT * FROM n ORDER BY b)",
		"rows":                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 5000000) SELECT hex(randomblob(100)) AS r FROM n",
		"../../" + target + "/id": "SELECT 1",
	}
	root := t.TempDir()
	r := startDaemon(t, root, append(serverArgs(s), "--enroll_secret_path="+s.SecretFile())...)
	written := func(n int) func() bool {
		return func() (there bool) {
			s.Do(func() {
				all := map[string]bool{}
				for _, w := range s.Written {
					for id := range w.Statuses {
						all[id] = true
					}
				}
				there = len(all) >= n
			})
			return there
		}
	}
	r.until("answers to all queries", written(5))
	alive := func() int { return strings.Count(r.file("var/log/goshawk/osqueryd.snapshots.log"), `"alive":"alive"`) }
	r.until("the schedule goes on", func() bool { return alive() > 2 })
	// Then it floods: answers without end, of junk, deep, to everything.
	floods := 0
	s.Do(func() {
		s.Fault = func(w http.ResponseWriter, req *http.Request, _ []byte) bool {
			floods++
			chunk := strings.Repeat([]string{" ", "[", `{"a":`, "\x00", `"x",`}[floods%5], 1<<16)
			for range 1 << 9 { // 32 MiB and more
				if _, err := w.Write([]byte(chunk)); err != nil {
					break
				}
			}
			return true
		}
	})
	r.until("floods", func() (enough bool) { s.Do(func() { enough = floods > 20 }); return enough })
	before := alive()
	r.until("the schedule goes on under floods", func() bool { return alive() > before })
	pids := daemonPids(t, root)
	memory := 0
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pids[0]) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(kb, &memory); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("the worker took %d MB at most", memory>>10)
	if memory == 0 || memory > 400<<10 {
		t.Errorf("the worker took %d kB", memory)
	}
	// Then it says nothing any more, to nobody.
	release, silent := make(chan struct{}), map[string]bool{}
	s.Do(func() {
		s.Fault = func(_ http.ResponseWriter, req *http.Request, _ []byte) bool {
			silent[req.URL.Path] = true
			s.Unlock()
			<-release
			s.Lock()
			return true
		}
	})
	r.until("silence to configuration, logs and queries", func() (enough bool) { s.Do(func() { enough = len(silent) >= 3 }); return enough })
	before = alive()
	r.until("the schedule goes on in silence", func() bool { return alive() > before+3 })
	// And in the end its configuration has queries that never end, for all to wait for.
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
	close(release)
	s.Do(func() {
		s.Fault = nil
		s.Config = `{"schedule":{"endless":{"query":"` + endless + `","interval":1}},"decorators":{"always":["` + endless + `"]},"packs":{"p":{"discovery":["` + endless + `"],"queries":{}}}}`
	})
	r.until("a query without end", func() bool { return strings.Contains(r.err.String(), "Executing scheduled query endless") })
	s.Do(func() {
		s.Config = `{"schedule":{"alive":{"query":"SELECT 'alive' AS alive","interval":1,"snapshot":true}}}`
	})
	before = alive()
	r.until("the schedule goes on after it", func() bool { return alive() > before })
	r.stop()
	entries, err := os.ReadDir(target)
	if err != nil || len(entries) != 1 {
		t.Errorf("the server wrote %v, %v", entries, err)
	}
	s.Do(func() {
		for _, line := range s.Statuses {
			if strings.Contains(string(line), "root:") {
				t.Errorf("a file's content: %s", line)
			}
		}
		for _, w := range s.Written {
			if w.Statuses["attach"] == 0 && w.Messages["attach"] == "" && len(w.Queries["attach"]) > 0 {
				t.Errorf("ATTACH answered %v", w.Queries["attach"])
			}
		}
	})
}
