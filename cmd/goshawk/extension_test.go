package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	osquery "github.com/osquery/osquery-go"
	"github.com/osquery/osquery-go/plugin/table"
)

// shortRoot is a root directory whose sockets' paths are short enough for extensions.
func shortRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "goshawk-ext-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return root
}

// ask is what goshawk query answers below root, as CSV; "" when it fails.
func ask(root, text string) string {
	out, err := exec.Command("goshawk", "query", "--root-dir", root, "--format", "csv", text).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// An extension as its authors write them, with osquery-go, brings a table to the daemon: the
// schedule runs over it, a view joins it, and it goes when the extension does.
func TestDaemonExtension(t *testing.T) {
	root := shortRoot(t)
	configure(t, root, `{"schedule":{"w":{"query":"SELECT city, degrees FROM weather","interval":1}},"views":{"warm":"SELECT city FROM weather WHERE degrees > 10"}}`)
	r := startDaemon(t, root, "--extensions_interval=1", "--disable_tables=weather,acpi_tables")
	socket := filepath.Join(root, "run/goshawk/goshawk.em")
	if got := ask(root, "SELECT (SELECT extensions FROM osquery_info) AS e, count(*) AS n FROM osquery_extensions"); got != "e,n\nactive,1\n" {
		t.Errorf("before: %q", got)
	}
	s, err := osquery.NewExtensionManagerServer("meteo", socket, osquery.ServerTimeout(20*time.Second), osquery.ServerPingInterval(time.Second), osquery.ExtensionVersion("2.1"))
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterPlugin(table.NewPlugin("weather", []table.ColumnDefinition{table.TextColumn("city"), table.IntegerColumn("degrees")},
		func(_ context.Context, q table.QueryContext) ([]map[string]string, error) {
			return []map[string]string{{"city": "Ulm", "degrees": "7"}, {"city": "Rom", "degrees": "21"}}, nil
		}))
	go func() { _ = s.Run() }() // ends with Shutdown
	r.until("the table", func() bool { return ask(root, "SELECT city FROM warm") == "city\nRom\n" })
	if got := ask(root, "SELECT name, version, type FROM osquery_extensions WHERE uuid > 0"); got != "name,version,type\nmeteo,2.1,extension\n" {
		t.Errorf("osquery_extensions: %q", got)
	}
	if got := ask(root, "SELECT count(*) AS n FROM osquery_registry r JOIN osquery_extensions e ON r.owner_uuid = e.uuid WHERE r.name = 'weather' AND r.registry = 'table' AND active = 1"); got != "n\n1\n" {
		t.Errorf("osquery_registry: %q", got)
	}
	r.until("lines of the schedule", func() bool {
		return strings.Contains(r.file("var/log/goshawk/osqueryd.results.log"), `"columns":{"city":"Ulm","degrees":"7"},"action":"added"`)
	})
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	r.until("no table", func() bool {
		return ask(root, "SELECT count(*) AS n FROM osquery_registry WHERE name = 'weather'") == "n\n0\n"
	})
	r.stop()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket stays")
	}
}

func TestDaemonExtensionFlags(t *testing.T) {
	root := shortRoot(t)
	out, err := exec.Command("goshawk", "daemon", "--root_dir", root, "--disable_events", "--extensions_require=absent", "--extensions_timeout=1").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "absent did not register within 1s") {
		t.Errorf("%v: %s", err, out)
	}
	r := startDaemon(t, root, "--disable_extensions")
	if got := ask(root, "SELECT (SELECT extensions FROM osquery_info) AS e, count(*) AS n FROM osquery_extensions"); got != "e,n\ninactive,0\n" {
		t.Errorf("disabled: %q", got)
	}
	if _, err := os.Stat(filepath.Join(root, "run/goshawk/goshawk.em")); err == nil {
		t.Error("a socket although extensions are disabled")
	}
	r.stop()
}

// goshawk extension brings its tables to a manager of extensions. A stock osqueryd is not to
// be had here; the daemon speaks the same protocol, and its own tables of events are turned off.
func TestLiveExtension(t *testing.T) {
	needRoot(t)
	root, other := shortRoot(t), shortRoot(t)
	r := startDaemon(t, root, "--disable_tables=exec_events,exit_events,bpf_process_events,goshawk_losses")
	if got := ask(root, "SELECT count(*) AS n FROM osquery_registry WHERE name = 'exec_events'"); got != "n\n0\n" {
		t.Fatalf("%q", got)
	}
	// By the name under which osqueryd starts what extensions.load names.
	cmd := exec.Command("goshawk.ext", "--socket", filepath.Join(root, "run/goshawk/goshawk.em"), "--timeout", "20", "--interval", "3", "--verbose",
		"--root-dir", other, "--source", "ebpf", "--kinds", "exec,exit")
	text := &said{}
	cmd.Stderr = text
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r.until("its tables", func() bool {
		return ask(root, "SELECT count(*) AS n FROM osquery_registry WHERE owner_uuid > 0 AND name IN ('exec_events', 'exit_events', 'bpf_process_events', 'goshawk_losses')") == "n\n4\n"
	})
	if err := exec.Command("/bin/true", "goshawk-extension-test").Run(); err != nil {
		t.Fatal(err)
	}
	if got := ask(root, "SELECT count(*) AS n, min(uid) AS u FROM exec_events WHERE args LIKE '%goshawk-extension-test%' AND path LIKE '%/true' AND time > 1"); got != "n,u\n1,0\n" {
		t.Errorf("exec_events: %q; it said %s", got, text)
	}
	if got := ask(root, "SELECT syscall FROM bpf_process_events WHERE cmdline LIKE '%goshawk-extension-test%' AND path LIKE '%/true'"); got != "syscall\nexec\n" {
		t.Errorf("bpf_process_events: %q", got)
	}
	r.stop()
	if err := cmd.Wait(); err == nil {
		t.Error("the extension does not tell that osqueryd is gone")
	}
}
