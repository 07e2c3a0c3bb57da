package table

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/schema"
	engine "github.com/goshawk-project/goshawk/internal/sql"
)

// fleetQueries ask what Fleet's own detail queries ask of a Linux host (its
// server/service/osquery_utils/queries.go), with the tables, columns, joins and functions
// they use. Fleet takes an error as a host that is broken, so none may fail anywhere.
var fleetQueries = map[string]string{
	"network_interface": `SELECT ia.address, id.mac FROM interface_addresses ia JOIN interface_details id ON id.interface = ia.interface
		JOIN routes r ON r.interface = ia.interface
		WHERE (r.destination = '0.0.0.0' OR r.destination = '::') AND r.netmask = 0 AND r.type = 'gateway'
		AND (inet_aton(ia.address) IS NOT NULL AND (split(ia.address, '.', 0) = '10'
			OR (split(ia.address, '.', 0) = '172' AND (CAST(split(ia.address, '.', 1) AS INTEGER) & 0xf0) = 16)
			OR (split(ia.address, '.', 0) = '192' AND split(ia.address, '.', 1) = '168'))
		OR (inet_aton(ia.address) IS NULL AND regex_match(lower(ia.address), '^f[cd][0-9a-f][0-9a-f]:[0-9a-f:]+', 0) IS NOT NULL))
		ORDER BY r.metric ASC, inet_aton(ia.address) IS NOT NULL DESC LIMIT 1;`,
	"os_version":    "SELECT * FROM os_version LIMIT 1",
	"osquery_flags": `select name, value from osquery_flags where name in ("distributed_interval", "config_tls_refresh", "config_refresh", "logger_tls_period")`,
	"osquery_info":  "select * from osquery_info limit 1",
	"system_info":   "select * from system_info limit 1",
	"uptime":        "select * from uptime limit 1",
	"disk_space": `SELECT (blocks_available * 100 / blocks) AS percent, round((blocks_available * blocks_size * 10e-10), 2) AS free,
		(SELECT round(SUM(blocks * blocks_size) * 10e-10, 2) FROM mounts WHERE blocks > 0 AND blocks_size > 0
			AND path NOT LIKE '/media%' AND type IN ('ext4', 'xfs', 'btrfs', 'zfs') AND (device LIKE '/dev/sd%' OR device LIKE '/dev/vd%')) AS every
		FROM mounts WHERE path = '/' LIMIT 1;`,
	"os_unix_like": `SELECT os.name, os.major, os.minor, os.patch, os.extra, os.build, os.arch, os.platform, os.version AS version, k.version AS kernel_version
		FROM os_version os, kernel_info k`,
	"disk_encryption":       "SELECT de.encrypted, m.path FROM disk_encryption de JOIN mounts m ON m.device_alias = de.name;",
	"users":                 fleetUsers,
	"scheduled_query_stats": `SELECT *, (SELECT value from osquery_flags where name = 'pack_delimiter') AS delimiter FROM osquery_schedule`,
	"software_linux": `WITH cached_users AS (` + fleetUsers + `)
		SELECT name AS name, version AS version, '' AS extension_id, 'deb_packages' AS source, '' AS release, '' AS vendor, '' AS arch FROM deb_packages WHERE status LIKE '% ok installed'
		UNION SELECT package AS name, version AS version, '', 'portage_packages', '', '', '' FROM portage_packages
		UNION SELECT name, version, '', 'rpm_packages', release, vendor, arch FROM rpm_packages
		UNION SELECT name, version, '', 'npm_packages', '', '', '' FROM npm_packages
		UNION SELECT name, version, identifier, 'chrome_extensions', '', '', browser_type FROM cached_users CROSS JOIN chrome_extensions USING (uid)
		UNION SELECT name, version, identifier, 'firefox_addons', '', '', '' FROM cached_users CROSS JOIN firefox_addons USING (uid);`,
	"software_vscode": `WITH cached_users AS (` + fleetUsers + `) SELECT name, version, vscode_extensions.uuid AS extension_id, vscode_edition, publisher, path
		FROM cached_users CROSS JOIN vscode_extensions USING (uid)`,
	"software_jetbrains": `WITH cached_users AS (` + fleetUsers + `) SELECT name, version, product_type, vendor, path FROM cached_users CROSS JOIN jetbrains_plugins USING (uid)`,
	"software_python":    `WITH cached_users AS (` + fleetUsers + `) SELECT name, version, path FROM cached_users CROSS JOIN python_packages USING (uid)`,
	"python_discovery": `SELECT 1 FROM (SELECT CAST(substr(version, 1, instr(version, '.') - 1) AS INTEGER) major,
		CAST(substr(version, instr(version, '.') + 1, instr(substr(version, instr(version, '.') + 1), '.') - 1) AS INTEGER) minor from osquery_info) AS version_parts
		WHERE major > 5 OR (major = 5 AND minor >= 16)`,
	"deb_last_opened": `SELECT package, MAX(atime) AS last_opened_at FROM deb_package_files CROSS JOIN file USING (path)
		WHERE type = 'regular' AND regex_match(file.mode, '[1357]', 0) GROUP BY package`,
	"rpm_last_opened": `SELECT package, MAX(atime) AS last_opened_at FROM (SELECT package, path FROM rpm_package_files WHERE regex_match(mode, '[1357]', 0))
		CROSS JOIN file USING (path) WHERE type = 'regular' GROUP BY package`,
	"discovery":      "SELECT 1 FROM osquery_registry WHERE active = true AND registry = 'table' AND name = 'orbit_info'",
	"discovery_here": "SELECT 1 FROM osquery_registry WHERE active = true AND registry = 'table' AND name = 'vscode_extensions'",
	"all_linux":      `SELECT 1 FROM osquery_info WHERE build_platform LIKE '%ubuntu%' OR build_distro LIKE '%centos%';`,
	"certificates":   `SELECT ca, common_name, subject, issuer, key_algorithm, key_strength, key_usage, signing_algorithm, not_valid_after, not_valid_before, serial, sha1, path FROM certificates`,
}

const fleetUsers = `WITH cached_groups AS (select * from groups)
	SELECT uid, uuid, username, type, groupname, shell FROM users LEFT JOIN cached_groups USING (gid)
	WHERE type <> 'special' AND shell NOT LIKE '%/false' AND shell NOT LIKE '%/nologin' AND shell NOT LIKE '%/shutdown' AND shell NOT LIKE '%/halt'
	AND username NOT LIKE '%$' AND username NOT LIKE '\_%' ESCAPE '\' AND NOT (username = 'sync' AND shell ='/bin/sync' AND directory <> '')`

// answer is the rows of one statement.
type answer struct {
	names []string
	rows  [][]string
}

func (a *answer) Columns(names, _ []string) error { a.names = names; return nil }
func (a *answer) Row(values []schema.Value) error {
	var row []string
	for _, v := range values {
		row = append(row, v.Text())
	}
	a.rows = append(a.rows, row)
	return nil
}
func (a *answer) Warning(string) {}

func fleetHost(t *testing.T, env *Env) func(query string) *answer {
	t.Helper()
	env.SQLite = sqliteTable
	env.Flags = func() []Flag {
		return []Flag{{Name: "distributed_interval", Value: "60"}, {Name: "config_refresh", Value: "0"}, {Name: "logger_tls_period", Value: "4"}, {Name: "pack_delimiter", Value: "_"}}
	}
	env.Schedule = func() []ScheduledQuery { return []ScheduledQuery{{Name: "q", SQL: "SELECT 1"}} }
	e, err := engine.Open(All(env), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return func(name string) *answer {
		t.Helper()
		a := &answer{}
		if err := e.Query(context.Background(), fleetQueries[name], a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return a
	}
}

func TestFleetQueriesHere(t *testing.T) {
	ask := fleetHost(t, here())
	for name := range fleetQueries {
		a := ask(name)
		switch name {
		case "os_version", "osquery_info", "system_info", "uptime", "disk_space", "os_unix_like", "users", "software_linux", "scheduled_query_stats", "discovery_here", "python_discovery", "all_linux":
			if len(a.rows) == 0 {
				t.Errorf("%s: no rows on this host", name)
			}
		case "discovery":
			if len(a.rows) != 0 {
				t.Errorf("%s: %q", name, a.rows)
			}
		}
	}
}

// A CentOS host's root directory, with its own database of packages.
func TestFleetQueriesRHEL(t *testing.T) {
	env, _ := rpmFixture(t, "centos7-plain")
	for _, name := range []string{"etc/group", "etc/passwd", "etc/centos-release", "usr/lib/os-release"} {
		b, err := os.ReadFile(filepath.Join("testdata/centos-7", name))
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(env.HostRoot, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("centos-release", filepath.Join(env.HostRoot, "etc/redhat-release")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(env.HostRoot, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(env.HostRoot, "usr/bin/bash"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	env.FS = here().FS // the kernel's own files are this machine's
	ask := fleetHost(t, env)
	for name := range fleetQueries {
		a := ask(name)
		text := ""
		for _, row := range a.rows {
			text += strings.Join(row, "|") + "\n"
		}
		want := map[string]string{
			"os_version": "|rhel|", "users": "0||root||root|/bin/bash", "software_linux": "bash|4.2.46||rpm_packages|30.el7|CentOS|x86_64", "rpm_last_opened": "bash|",
		}[name]
		if !strings.Contains(text, want) {
			t.Errorf("%s: %.2000q, want %q", name, text, want)
		}
	}
}
