package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// full is the example of osquery's keys.
const full = `{
  // a comment
  "options": {"host_identifier":"uuid","disable_audit":false,"events_expiry":3600,"custom_site":"lab","empty":"","none":null},
  "schedule": {
    "procs": {"query":"SELECT * \
FROM process_events","interval":60,"removed":false,
              "snapshot":false,"platform":"linux","version":"5.2.0","shard":100,
              "denylist":true,"description":"free text"},
    # another
    "all": {"query":"SELECT 1","snapshot":"true","blacklist":false,"startup_priority":2},
    "other": {"query":"SELECT 1","interval":60,"platform":"darwin"},
    "newer": {"query":"SELECT 1","interval":60,"version":"5.23.2"},
    "long": {"query":"SELECT 1","interval":604801},
    "none": {"interval":60},
    "text": "SELECT 1"
  },
  "packs": {
    "ir": {"platform":"linux","version":"5.0.0","shard":50,"oncall":"sec",
           "discovery":["SELECT pid FROM processes WHERE name='sshd'"],
           "queries":{"crontab":{"query":"SELECT * FROM crontab","interval":"3600","removed":false}},
           "file_paths":{"etc":["/etc/cron.d/%%"]}},
    "win": {"platform":"windows","queries":{"x":{"query":"SELECT 1","interval":5}}}
  },
  "decorators": {
    "load": ["SELECT uuid AS host_uuid FROM system_info"],
    "always": ["SELECT user AS username FROM logged_in_users ORDER BY time DESC LIMIT 1"],
    "interval": {"3600": ["SELECT total_seconds AS uptime FROM uptime"], "60": ["SELECT 1 AS one"], "90": ["SELECT 2"]}
  },
  "file_paths": {"etc":["/etc/%%"],"homes":["/home/%/.ssh/%%"]},
  "file_paths_query": {"units":["SELECT fragment_path AS path FROM systemd_units"]},
  "file_accesses": ["homes"],
  "exclude_paths": {"etc":["/etc/mtab"]},
  "yara": {"signatures":{"grp":["/etc/osquery/yara/a.yar"]}},
  "auto_table_construction": {"my_db":{"query":"SELECT a,b FROM t","path":"/var/lib/x/%.db",
                              "columns":["a","b","Path"],"platform":"linux"},
                              "win_db":{"query":"SELECT a","path":"/x","columns":["a"],"platform":"windows"},
                              "bad_db":{"query":"SELECT a"}},
  "views": {"shells":"SELECT pid,path FROM processes WHERE name LIKE '%sh'"},
  "events": {"enable_subscribers":["process_events"],"disable_subscribers":["user_events"]},
  "unknown": {"a":[1,2,{}]}
}`

// shard 0: SHA-1 of this name begins with 00.
const lowHost = "host-593"

func TestLoad(t *testing.T) {
	if Shard(lowHost) != 0 || Shard("web-1") == 0 {
		t.Fatalf("shards are %d and %d", Shard(lowHost), Shard("web-1"))
	}
	c, err := Load([]Source{{"a.conf", []byte(full)}}, Options{Version: "5.23.1", Host: lowHost})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range c.Problems {
		got = append(got, p.String())
	}
	wantProblems := []string{
		"a.conf:3:121: Cannot parse unknown value type for option: none",
		"a.conf:13:44: Query has invalid interval: long: 604801; it is from 1 to 604800 seconds",
		`a.conf:14:13: query "none" has no text: it is left out`,
		`a.conf:15:13: query "text" is text, not an object: it is ignored`,
		"a.conf:27:107: Invalid decorator interval rate 90: it is a multiple of 60 seconds",
		"a.conf:35:50: ATC Table: my_db is misconfigured. The configuration includes `Path`. This is a reserved column name",
		"a.conf:37:40: ATC Table: Skipping bad_db because it is misconfigured (missing query or path)",
	}
	if diff := cmp.Diff(wantProblems, got); diff != "" {
		t.Error(diff)
	}
	c.Problems = nil
	want := &Config{
		Options: []Option{
			{"host_identifier", "uuid", "a.conf:3:33"}, {"disable_audit", "false", "a.conf:3:56"},
			{"events_expiry", "3600", "a.conf:3:78"}, {"custom_site", "lab", "a.conf:3:97"},
		},
		Schedule: []Query{
			{Name: "all", SQL: "SELECT 1", Snapshot: true, Removed: true, Priority: 2, Where: "a.conf:10:12"},
			{Name: "procs", SQL: "SELECT * FROM process_events", Interval: 60, Denylist: true, Platform: "linux", Version: "5.2.0", Shard: 100, Where: "a.conf:5:14"},
		},
		Packs: []Pack{
			{
				Name: "ir", Platform: "linux", Version: "5.0.0", Shard: 50, Here: true, Where: "a.conf:18:11",
				Discovery: []string{"SELECT pid FROM processes WHERE name='sshd'"},
				Queries:   []Query{{Name: "crontab", SQL: "SELECT * FROM crontab", Interval: 3600, Denylist: true, Where: "a.conf:20:33"}},
			},
			{Name: "win", Platform: "windows", Where: "a.conf:22:12"},
		},
		Decorators: Decorators{
			Load:     []string{"SELECT uuid AS host_uuid FROM system_info"},
			Always:   []string{"SELECT user AS username FROM logged_in_users ORDER BY time DESC LIMIT 1"},
			Interval: []IntervalDecorator{{60, []string{"SELECT 1 AS one"}}, {3600, []string{"SELECT total_seconds AS uptime FROM uptime"}}},
		},
		Views:              []View{{"shells", "SELECT pid,path FROM processes WHERE name LIKE '%sh'", "a.conf:38:22"}},
		FilePaths:          map[string][]string{"etc": {"/etc/%%", "/etc/cron.d/%%"}, "homes": {"/home/%/.ssh/%%"}},
		FilePathsQuery:     map[string][]string{"units": {"SELECT fragment_path AS path FROM systemd_units"}},
		FileAccesses:       []string{"homes"},
		ExcludePaths:       map[string][]string{"etc": {"/etc/mtab"}},
		EnableSubscribers:  []string{"process_events"},
		DisableSubscribers: []string{"user_events"},
		Tables:             []Table{{"my_db", "SELECT a,b FROM t", "/var/lib/x/%.db", []string{"a", "b"}, "a.conf:34:39"}},
		Other:              map[string][]byte{"yara": []byte(`{"signatures":{"grp":["/etc/osquery/yara/a.yar"]}}`)},
		Hash:               c.Hash,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	// sha1sum of the file, then sha1sum of its hexadecimal digits.
	if len(c.Hash) != 40 {
		t.Errorf("hash %q", c.Hash)
	}
	if c, err = Load([]Source{{"", []byte("{}")}}, Options{}); err != nil || c.Hash != "f80dee827635db39077a458243379b3ad63311fd" {
		t.Errorf("hash of {} is %q, %v", c.Hash, err)
	}
}

func TestLoadErrors(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "f:1:1: the configuration ends too early"},
		{"only comments", "# a\n// b\n", "f:3:1: the configuration ends too early"},
		{"list", "[]", "f:1:1: the configuration is a list, not an object"},
		{"cut", "{\"a\": 1,\n", "f:2:1: the configuration ends too early"},
		{"comma too many", "{\n  \"a\": 1,\n}", "f:3:1: invalid character '}'"},
		{"colon missing", "{\n  \"a\" 1\n}", "f:2:7: invalid character '1' after object key"},
		{"after comment", "# x\n{\n# y\n  \"é\": x}", "f:4:8: invalid character 'x' looking for beginning of value"},
		{"after continuation", "{\"a\": \"b\\\nc\\\n  d\", x}", "f:3:7: invalid character 'x'"},
		{"newline in text", "{\"a\": \"b\nc\"}", "f:1:9: invalid character '\\n' in string literal"},
		{"two roots", "{}\n {}", "f:2:2: invalid character '{' after top-level value"},
		{"deep", deep, "f:1:161: nested more than 32 deep"},
		{"large", "{}" + strings.Repeat(" ", maxSource), "f:1:1: the configuration is 4194306 bytes long, more than 4194304"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load([]Source{{"f", []byte(tt.text)}}, Options{})
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "osquery.conf"), `{"schedule":{"a":{"query":"SELECT 1","interval":1},"b":{"query":"SELECT 2","interval":2}},
 "packs":{"one":"`+dir+`/packs/one.conf","none":"`+dir+`/packs/none.conf","bad":"`+dir+`/packs.d/bad.conf","*":"`+dir+`/packs.d/%.conf"}}`)
	write(t, path+".d/20.conf", `{"schedule":{"b":{"query":"SELECT 3","interval":3}}}`)
	write(t, path+".d/10.conf", `{"schedule":{"b":{"query":"SELECT 4","interval":4},"c":{"query":"SELECT 5","interval":5}}}`)
	write(t, path+".d/README", `no JSON`)
	write(t, dir+"/packs/one.conf", "// pack\n"+`{"queries":{"q":{"query":"SELECT 6","interval":6}}}`)
	write(t, dir+"/packs.d/two.conf", `{"queries":{"q":{"query":"SELECT 7","interval":7}}}`)
	write(t, dir+"/packs.d/bad.conf", `{"queries":`)
	sources, err := ReadFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(sources, Options{Files: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range c.Schedule {
		got = append(got, q.Name+" "+q.SQL)
	}
	for _, p := range c.Packs {
		for _, q := range p.Queries {
			got = append(got, p.Name+" "+q.Name+" "+q.SQL)
		}
	}
	if diff := cmp.Diff([]string{"a SELECT 1", "b SELECT 3", "c SELECT 5", "one q SELECT 6", "two q SELECT 7"}, got); diff != "" {
		t.Error(diff)
	}
	got = nil
	for _, p := range c.Problems {
		got = append(got, strings.ReplaceAll(p.String(), dir, ""))
	}
	want := []string{
		"/osquery.conf:2:" + column(t, path, `"`+dir+`/packs/none`) + ": Error reading the query pack named: none: open /packs/none.conf: no such file or directory",
		`Error parsing the "bad" pack JSON: /packs.d/bad.conf:1:12: the configuration ends too early`,
		`Error parsing the "bad" pack JSON: /packs.d/bad.conf:1:12: the configuration ends too early`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	// A server may not name files.
	c, err = Load(sources[:1], Options{})
	if err != nil || len(c.Packs) != 0 || len(c.Problems) != 4 {
		t.Errorf("packs %v, problems %v, %v", c.Packs, c.Problems, err)
	}

	if _, err := ReadFiles(dir); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := ReadFiles(dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// column is where text begins in its line of a file.
func column(t *testing.T, path, text string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), text)
	return strings.TrimSpace(cmpInt(at - strings.LastIndex(string(data[:at]), "\n")))
}

func cmpInt(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/x.conf", "a/y.conf", "b/x.conf", "b/c/d/z.conf", "b[1]/x.conf"} {
		write(t, filepath.Join(dir, name), "")
	}
	for _, tt := range []struct{ pattern, want string }{
		{"/a/%.conf", "/a/x.conf /a/y.conf"},
		{"/%/x.conf", "/a/x.conf /b/x.conf /b[1]/x.conf"},
		{"/b/%%", "/b/c /b/c/d /b/c/d/z.conf /b/x.conf"},
		{"/b/**", "/b/c /b/c/d /b/c/d/z.conf /b/x.conf"},
		{"/none/%", ""},
		{"/a/x.conf", "/a/x.conf"},
	} {
		got, err := Glob(dir + tt.pattern)
		if err != nil {
			t.Error(err)
		}
		if text := strings.ReplaceAll(strings.Join(got, " "), dir, ""); text != tt.want {
			t.Errorf("%s: %q, want %q", tt.pattern, text, tt.want)
		}
	}
	if _, err := Glob("etc/%"); err == nil {
		t.Error("a relative pattern is taken")
	}
}

func TestConditions(t *testing.T) {
	for platform, want := range map[string]bool{
		"": true, "null": true, "any": true, "all": true, "linux": true, "ubuntu,darwin": true, "centos": true, "posix": true,
		"darwin": false, "windows": false, "freebsd": false,
	} {
		if got := PlatformHere(platform); got != want {
			t.Errorf("platform %q: %v", platform, got)
		}
	}
	for _, tt := range []struct {
		least, have string
		want        bool
	}{
		{"", "5.23.1", true}, {"5.23.1", "5.23.1", true}, {"5.23", "5.23.1", true}, {"5.23.1", "5.23", false}, {"5.3.0", "5.23.1", true},
		{"5.24.0", "5.23.1", false}, {"6", "5.23.1", false}, {"1.4.5-16-g", "5.23.1", true}, {"5.23.1-rc1", "5.23.1", true},
	} {
		if got := VersionAtLeast(tt.least, tt.have); got != tt.want {
			t.Errorf("version %s of %s: %v", tt.least, tt.have, got)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		full, "{}", "", "# x\n{\"a\": \"b\\\nc\"}\\", "{\"schedule\":{\"\":{\"query\":\"\\ud800\",\"interval\":1e9}}}",
		`{"packs":{"*":{"a":{"queries":[]}},"b":"/x"},"decorators":[],"views":{"a":1},"options":{"a":[{}]}}`,
		`{"auto_table_construction":{"t":{"query":"q","path":"p","columns":[1,"","path"]}}}`, "{\"a\":\x00}", "//\\\n{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Load([]Source{{"f", text}}, Options{Version: "5.23.1"})
		var syntax *SyntaxError
		if err != nil {
			if !errors.As(err, &syntax) {
				t.Fatalf("error without a place: %v", err)
			}
			if lines := strings.Count(string(text), "\n") + 1; syntax.Line < 1 || syntax.Line > lines || syntax.Column < 1 {
				t.Fatalf("%v of %d lines", err, lines)
			}
			return
		}
		for _, q := range c.Schedule {
			if strings.TrimSpace(q.SQL) == "" || q.Interval > maxInterval {
				t.Fatalf("query %+v", q)
			}
		}
		Defaults().With(c.Options, true)
	})
}
