package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want map[string]string // Text of flags
		err  string
	}{
		{name: "nothing", want: map[string]string{"verbose": "false", "config_refresh": "0", "logger_path": "/var/log/goshawk"}},
		{name: "equals sign", args: []string{"--config_path=/a b=c"}, want: map[string]string{"config_path": "/a b=c"}},
		{name: "next argument", args: []string{"--config_path", "/a", "-tls_hostname", "h:1"}, want: map[string]string{"config_path": "/a", "tls_hostname": "h:1"}},
		{name: "value that looks like a flag", args: []string{"--tls_hostname", "--verbose"}, want: map[string]string{"tls_hostname": "--verbose", "verbose": "false"}},
		{name: "empty value", args: []string{"--logger_plugin="}, want: map[string]string{"logger_plugin": ""}},
		{name: "bool alone", args: []string{"--verbose", "--noevents_optimize"}, want: map[string]string{"verbose": "true", "events_optimize": "false"}},
		{name: "bool takes no next argument", args: []string{"--verbose", "true"}, err: `"true" is no flag`},
		{name: "bool words", args: []string{"--verbose=Yes", "--force=T", "--disable_events=1", "--disable_distributed=n"},
			want: map[string]string{"verbose": "true", "force": "true", "disable_events": "true", "disable_distributed": "false"}},
		{name: "bad bool", args: []string{"--verbose=maybe"}, err: `--verbose: "maybe" is neither true nor false`},
		{name: "dash for underscore", args: []string{"--root-dir=/r", "--logger-plugin=stdout"}, want: map[string]string{"root_dir": "/r", "logger_plugin": "stdout", "logger_path": "/r/var/log/goshawk"}},
		{name: "numbers", args: []string{"--config_refresh=0x10", "--logger_min_status=-1", "--distributed_interval=010"},
			want: map[string]string{"config_refresh": "16", "logger_min_status": "-1", "distributed_interval": "10"}},
		{name: "not negative", args: []string{"--config_refresh=-1"}, err: `--config_refresh: "-1" is no number from 0 to 18446744073709551615`},
		{name: "too large", args: []string{"--carver_block_size=4294967296"}, err: `--carver_block_size: "4294967296" is no number from 0 to 4294967295`},
		{name: "alias", args: []string{"--config_tls_refresh=7"}, want: map[string]string{"config_refresh": "7", "config_tls_refresh": "7"}},
		{name: "later wins", args: []string{"--config_refresh=1", "--config_tls_refresh=2"}, want: map[string]string{"config_refresh": "2"}},
		{name: "unknown", args: []string{"--config_pth=/a"}, err: "no flag is called --config_pth; did you mean --config_path?"},
		{name: "unknown, unlike any", args: []string{"--frobnicate"}, err: "no flag is called --frobnicate"},
		{name: "unknown negation", args: []string{"--noconfig_path"}, err: "no flag is called --noconfig_path; did you mean --config_path?"},
		{name: "value missing", args: []string{"--config_path"}, err: "--config_path: the value is missing"},
		{name: "no flag", args: []string{"start"}, err: `"start" is no flag`},
		{name: "end of flags", args: []string{"--verbose", "--"}, want: map[string]string{"verbose": "true"}},
		{name: "after the end", args: []string{"--", "x"}, err: `"x" is no flag`},
		{name: "help", args: []string{"--verbose", "--help"}, err: ErrHelp.Error()},
		{name: "flag file that is not there", args: []string{"--flagfile=/nonexistent/x"}, err: "--flagfile: read flag file: open /nonexistent/x: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, problems, err := Parse(tt.args)
			if got := errorText(err); got != tt.err {
				t.Fatalf("error %q, want %q", got, tt.err)
			}
			if len(problems) > 0 {
				t.Errorf("problems %v", problems)
			}
			for name, want := range tt.want {
				if got := f.Text(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagFile(t *testing.T) {
	dir := t.TempDir()
	inner := write(t, filepath.Join(dir, "inner.flags"), "--tls_hostname=inner\n--distributed_interval=5")
	file := write(t, filepath.Join(dir, "osquery.flags"), `
# a comment
--config_refresh=10
  -verbose
--logger_plugin tls,filesystem
--nodisable_distributed
--enable_frobnication=true
--config_pth=/x
--tls_hostname=outer
logger_tls_period=5
--flagfile=`+inner+`
`)
	f, problems, err := Parse([]string{"--config_refresh=1", "--distributed_interval=9", "--flagfile", file, "--verbose=false"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"config_refresh": "10", "verbose": "false", "logger_plugin": "tls,filesystem", "disable_distributed": "false",
		"tls_hostname": "inner", "distributed_interval": "5", "logger_tls_period": "4",
	} {
		if got := f.Text(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	var got []string
	for _, p := range problems {
		got = append(got, strings.TrimPrefix(p.String(), dir))
	}
	want := []string{
		"/osquery.flags:7: no flag is called --enable_frobnication",
		"/osquery.flags:8: no flag is called --config_pth; did you mean --config_path?",
		"/osquery.flags:10: this is no flag: it does not begin with --",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	loop := filepath.Join(dir, "loop.flags")
	write(t, loop, "--flagfile="+loop)
	for text, want := range map[string]string{
		"--verbose=x":        ":1: --verbose: \"x\" is neither true nor false",
		"\n--config_path":    ":2: --config_path: the value is missing",
		"--flagfile=" + loop: "more than 16 flag files: do they name each other?",
	} {
		_, _, err := Parse([]string{"--flagfile=" + write(t, filepath.Join(dir, "bad.flags"), text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestWith(t *testing.T) {
	line, _, err := Parse([]string{"--events_expiry=10", "--logger_tls_period=3", "--root_dir=/r", "--enable_bpf_events"})
	if err != nil {
		t.Fatal(err)
	}
	f, problems := line.With([]Option{
		{Name: "events_expiry", Value: "20", Where: "c:1:1"},
		{Name: "config_path", Value: "/x", Where: "c:2:1"},
		{Name: "custom_site", Value: "lab", Where: "c:3:1"},
		{Name: "frobnicate", Value: "1", Where: "c:4:1"},
		{Name: "verbose", Value: "perhaps", Where: "c:5:1"},
		{Name: "logger_path", Value: "/etc/cron.d", Where: "c:6:1"},
		{Name: "log_numerics_as_numbers", Value: "true", Where: "c:7:1"},
	}, true)
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	want := []string{
		"c:2:1: The CLI only flag --config_path set via config file will be ignored, please use a flagfile or pass it to the process at startup",
		"c:4:1: Cannot set unknown or invalid flag: frobnicate",
		`c:5:1: option verbose: "perhaps" is neither true nor false`,
		"c:6:1: --logger_path is a path, which a server may not set: it is ignored",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if f.Int("events_expiry") != 20 || f.Seconds("logger_tls_period") != 3*time.Second || !f.Bool("logger_numerics") ||
		f.String("logger_path") != "/r/var/log/goshawk" || f.Text("custom_site") != "lab" {
		t.Errorf("values are %v %v", f.line, f.options)
	}
	if line.Int("events_expiry") != 10 {
		t.Error("With changed the flags that it was called on")
	}
	if diff := cmp.Diff([]string{"custom_site"}, f.Custom()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"enable_bpf_events"}, f.Idle()); diff != "" {
		t.Error(diff)
	}
	if f, _ := line.With([]Option{{Name: "logger_path", Value: "/x"}}, false); f.String("logger_path") != "/x" {
		t.Error("a local configuration cannot set logger_path")
	}
}

// TestFlags checks the list itself.
func TestFlags(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		if seen[f.Name] {
			t.Errorf("%s is there twice", f.Name)
		}
		seen[f.Name] = true
		if f.Description == "" || strings.HasSuffix(f.Description, ".") {
			t.Errorf("%s is described as %q", f.Name, f.Description)
		}
		if v, err := check(f.Type, f.Default); err != nil || f.Type != "string" && v != f.Default {
			t.Errorf("%s: default %q: %v", f.Name, f.Default, err)
		}
		if f.Below != strings.HasPrefix(f.Default, "/") && f.Used && f.Name != "root_dir" && f.Name != "host_root" && f.Name != "docker_socket" /* which are others' */ {
			t.Errorf("%s: a default path lies below root_dir, nothing else does", f.Name)
		}
		if f.Alias == "" {
			continue
		}
		of, ok := Known(f.Alias)
		if !ok || of.Alias != "" || of.Type != f.Type || of.Default != f.Default || of.CommandLine != f.CommandLine || of.Used != f.Used {
			t.Errorf("%s is an alias of %+v", f.Name, of)
		}
	}
	// Fleet reads these four.
	for name, want := range map[string]string{
		"distributed_interval": "60", "config_tls_refresh": "0", "config_refresh": "0", "logger_tls_period": "4",
	} {
		if got := Defaults().Text(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, ok := Known("no_such_flag"); ok {
		t.Error("no_such_flag is known")
	}
	var unknown *errUnknown
	if _, _, err := Parse([]string{"--no_such_flag"}); !errors.As(err, &unknown) {
		t.Errorf("error %v", err)
	}
}

func FuzzFlagFile(f *testing.F) {
	for _, seed := range []string{"--verbose\n", "# c\n--config_refresh=1", "-x", "--", "--no", "--flagfile=", "--a b=c\n\x00", "--config_path"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if strings.Contains(string(text), "flagfile") {
			return // it could name any file
		}
		path := filepath.Join(t.TempDir(), "flags")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		flags, _, err := Parse([]string{"--flagfile", path})
		if err != nil {
			return
		}
		for _, flag := range All() {
			if v, err := check(flag.Type, flags.Text(flag.Name)); err != nil || v != flags.Text(flag.Name) {
				t.Errorf("%s has the value %q: %v", flag.Name, flags.Text(flag.Name), err)
			}
		}
	})
}
