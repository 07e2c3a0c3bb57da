package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/goshawk-project/goshawk/internal/audit"
	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/event"
)

func auditFlags(t *testing.T, args ...string) *auditing {
	t.Helper()
	a := &auditing{}
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	a.flags(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuditFlags(t *testing.T) {
	a := auditFlags(t, "--audit-exclude-exe", "/usr/bin/a,b", "--audit-exclude-dir=/var/log", "--audit-exclude-uid=5,6", "--audit-rate=exec=100,file=0",
		"--audit_backlog_limit=1000", "--audit_persist=false", "--audit_force_reconfigure", "--audit_force_unconfigure",
		"--audit_allow_null_accept_socket_events", "--audit_allow_apparmor_events=false", "--stop-auditd")
	got, err := a.options()
	if err != nil {
		t.Fatal(err)
	}
	want := audit.Options{StopOwner: true, Yielding: true, Replace: true, Clear: true, Backlog: 1000, ExcludeExes: []string{"/usr/bin/a,b"},
		ExcludeDirs: []string{"/var/log"}, ExcludeUIDs: []uint32{5, 6}, Rates: map[string]float64{"exec": 100, "file": 0},
		NullAccepts: true, OmitModules: []string{"apparmor"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, c := range []struct{ source, args, want string }{
		{"audit", "--disable_audit", "--source audit asks for audit"},
		{"ebpf", "--stop-auditd", "audit is not used with --source ebpf"},
		{"audit", "--stop-auditd --audit-with-auditd", "exclude each other"},
		{"audit", "--audit_allow_config=false --audit_force_reconfigure", "change audit's configuration"},
		{"audit", "--audit-exclude-uid=root", `"root" is no number of a user`},
		{"audit", "--audit-exclude-dir=log", "the path must be absolute"},
		{"audit", "--audit-rate=exec", `"exec" is not HOOK=N`},
		{"audit", "--audit-rate=execs=5", `there is no such hook; hooks are exec, fork`},
		{"audit", "--audit-rate=exec=-1", "use 0 (no limit)"},
		{"audit", "--audit-rate=exec=NaN", "use 0 (no limit)"},
		{"auto", "", ""},
	} {
		err := auditFlags(t, strings.Fields(c.args)...).check(c.source)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("--source %s %s: %v, want %q", c.source, c.args, err, c.want)
		}
	}
}

func TestAuditAllowed(t *testing.T) {
	names := func(kinds []event.ID) (out []string) {
		for _, k := range kinds {
			out = append(out, k.String())
		}
		slices.Sort(out)
		return out
	}
	all := names(audit.Kinds())
	for _, c := range []struct{ args, without string }{
		{"", ""},
		{"--audit_allow_process_events=false", "exec,exit,fork"},
		{"--audit_allow_fork_process_events=false", "fork"},
		{"--audit_allow_kill_process_events=false", "signal"},
		{"--audit_allow_sockets=false", "accept,bind,connect,listen"},
		{"--audit_allow_accept_socket_events=false", "accept"},
		{"--audit_allow_user_events=false", "user"},
		{"--audit_allow_fim_events=false", "file"},
		{"--audit_allow_selinux_events=false --audit_allow_apparmor_events=false", ""},
		{"--audit_allow_selinux_events=false --audit_allow_apparmor_events=false --audit_allow_seccomp_events=false", "policy"},
		{"--disable_audit", strings.Join(all, ",")},
	} {
		left := names(auditFlags(t, strings.Fields(c.args)...).allowed(audit.Kinds()))
		var gone []string
		for _, name := range all {
			if !slices.Contains(left, name) {
				gone = append(gone, name)
			}
		}
		if got := strings.Join(gone, ","); got != c.without {
			t.Errorf("%s: leaves out %q, want %q", c.args, got, c.without)
		}
	}
}

// TestAuditingOf gives the daemon flags on the command line and options of its configuration.
func TestAuditingOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "goshawk.conf")
	text := `{"options": {"audit_allow_sockets": false, "audit_backlog_limit": 500, "audit_allow_config": false}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	parse := func(args ...string) *config.Flags {
		f, problems, err := config.Parse(append([]string{"--config_path=" + file}, args...))
		if err != nil || len(problems) > 0 {
			t.Fatal(problems, err)
		}
		return f
	}
	a := auditingOf(parse())
	if d := cmp.Diff(*auditFlags(t), a, cmp.AllowUnexported(auditing{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("without flags it is not what run does without flags: %s", d)
	}
	a = auditingOf(withLocalOptions(parse("--disable_audit=false", "--audit_exclude_exe=/a,/b c", "--audit_rate=exec=5", "--audit_allow_fim_events=false")))
	want := auditFlags(t, "--audit_allow_sockets=false", "--audit_backlog_limit=500", "--audit_allow_config=false", "--audit_allow_fim_events=false",
		"--audit-exclude-exe=/a", "--audit-exclude-exe=/b c", "--audit-rate=exec=5")
	if d := cmp.Diff(*want, a, cmp.AllowUnexported(auditing{}), cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if !auditingOf(parse("--disable_audit")).disabled {
		t.Error("--disable_audit is not heeded")
	}
}
