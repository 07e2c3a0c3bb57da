package main

import (
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/remotetest"
)

// A query that takes more memory than the worker may have is the worker's end: another takes
// its place, does not run that query, goes on with the others, and tells the server.
func TestDaemonWatchdog(t *testing.T) {
	s := remotetest.Start(t)
	root := t.TempDir()
	configure(t, root, `{"schedule":{"good":{"query":"SELECT 1 AS one","interval":1,"snapshot":true}}}`)
	r := startDaemon(t, root, "--watchdog_memory_limit=20", "--watchdog_delay=1", "--logger_plugin=tls,filesystem", "--logger_tls_period=1",
		"--tls_hostname="+s.Host, "--tls_server_certs="+s.CA, "--enroll_tls_endpoint="+remotetest.Enroll, "--logger_tls_endpoint="+remotetest.Log,
		"--enroll_secret_path="+s.SecretFile(), "--pidfile="+filepath.Join(root, "pid"))
	pids := func() (pid, watcher int) {
		f := strings.Split(strings.TrimSpace(ask(root, "SELECT pid, watcher FROM osquery_info")), "\n")
		if len(f) != 2 {
			return 0, 0
		}
		a, b, _ := strings.Cut(f[1], ",")
		pid, _ = strconv.Atoi(a)
		watcher, _ = strconv.Atoi(b)
		return pid, watcher
	}
	first, watcher := pids()
	if watcher != r.cmd.Process.Pid || first == watcher || r.file("pid") != strconv.Itoa(watcher) {
		t.Errorf("worker %d, watcher %d, started %d, pid file %q", first, watcher, r.cmd.Process.Pid, r.file("pid"))
	}
	// What the worker begins with is measured after three seconds.
	r.until("that the worker was looked at", func() bool {
		return ask(root, "SELECT unix_time - start_time > 5 AS yes FROM time, osquery_info") == "yes\n1\n"
	})
	configure(t, root, `{"schedule":{"good":{"query":"SELECT 1 AS one","interval":1,"snapshot":true},
		"big":{"query":"WITH RECURSIVE big(a, b, c) AS MATERIALIZED (SELECT randomblob(15000000), randomblob(15000000), randomblob(15000000)), n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n, big WHERE length(a) = -x","interval":1}}}`)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.until("another worker", func() bool { pid, _ := pids(); return pid != 0 && pid != first })
	r.until("the denylist", func() bool {
		return ask(root, "SELECT name, denylisted FROM osquery_schedule ORDER BY name") == "name,denylisted\nbig,1\ngood,0\n"
	})
	for _, text := range []string{"Memory limits exceeded", "Scheduled query may have failed: big"} {
		r.until("at the server: "+text, func() (found bool) {
			s.Do(func() {
				found = slices.ContainsFunc(s.Statuses, func(line json.RawMessage) bool { return strings.Contains(string(line), text) })
			})
			return found
		})
	}
	before := strings.Count(r.file("var/log/goshawk/osqueryd.snapshots.log"), `"name":"good"`)
	r.until("the good query goes on", func() bool {
		return strings.Count(r.file("var/log/goshawk/osqueryd.snapshots.log"), `"name":"good"`) > before
	})
	r.stop()
	if r.file("pid") != "" {
		t.Error("the pid file stays")
	}
}

// The service manager hears that the daemon is ready, that it lives, and that it stops.
func TestDaemonNotify(t *testing.T) {
	root := shortRoot(t)
	socket := filepath.Join(root, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := &said{}
	go func() { // ends with conn
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			heard.Write(append(b[:n:n], '\n'))
		}
	}()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "600000")
	r := startDaemon(t, root)
	r.until("READY", func() bool { return strings.Contains(heard.String(), "READY=1\nSTATUS=") })
	r.until("three signs of life", func() bool { return strings.Count(heard.String(), "WATCHDOG=1") >= 3 })
	r.stop()
	r.until("STOPPING", func() bool { return strings.Contains(heard.String(), "STOPPING=1") })
	// A variable that means another process is not heeded.
	t.Setenv("WATCHDOG_PID", "1")
	if got := watchdogInterval(0); got != 0 {
		t.Errorf("pings for process 1 each %v", got)
	}
	if got := watchdogInterval(1); got != 200*time.Millisecond {
		t.Errorf("for a watcher that is process 1 each %v", got)
	}
}
