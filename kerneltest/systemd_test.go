//go:build kernels

package kerneltest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// systemd is the guest, by K, in which a Debian with systemd installs our package.
const systemd = "systemd"

// unitOfProof has systemd-init run when the guest is up.
const unitOfProof = `[Service]
Type=oneshot
ExecStart=/bin/bash /root/systemd-init
`

// underSystemd boots a Debian and has it install, run and remove the package that
// `make packages` makes.
func underSystemd(t *testing.T) {
	t.Helper()
	g := &guest{name: systemd, version: "6.12", arch: "amd64", line: "systemd.unit=multi-user.target systemd.default_timeout_start_sec=300"}
	_, kernel := g.image(t)
	dir := filepath.Join(t.TempDir(), "tree")
	run := func(name string, args ...string) {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = ".."
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run("cp", "-a", fetch(t, systemd, g.arch), dir)
	run("make", "-s", "packages", "VERSION=1.2.3")
	f := &tree{t, dir, g.arch}
	f.copy("../bin/goshawk_1.2.3_amd64.deb", "root/goshawk.deb")
	f.copy("systemd-init", "root/systemd-init")
	f.write("root/goshawk.conf", `{"schedule": {
	"execs": {"query": "SELECT path, cmdline FROM process_events WHERE path LIKE '%/uname'", "interval": 1},
	"before": {"query": "SELECT version FROM osquery_info", "interval": 3600}}}`)
	f.write("etc/systemd/system/proof.service", unitOfProof)
	must(t, f.mkdir("etc/systemd/system/multi-user.target.wants"))
	must(t, os.Symlink("../proof.service", f.path("etc/systemd/system/multi-user.target.wants/proof.service")))
	must(t, os.Symlink("sbin/init", f.path("init")))
	initrd := f.pack()
	t.Parallel()
	r := g.boot(t, kernel, initrd, "-m", "3072")
	for _, w := range administered(r) {
		t.Error(w)
	}
	if !t.Failed() {
		note(t, "kernel %-11s installed, run and removed: all well", systemd)
	}
}

// administered says what is wrong with what systemd-init has told.
func administered(r run) (wrong []string) {
	all, err := readSaid(r, systemd)
	if err != nil {
		return []string{err.Error()}
	}
	for _, want := range []struct {
		name, code string
		texts      []string
	}{
		{"install", "0", nil},
		{"enable", "0", nil},
		{"status", "0", []string{"^ActiveState=active", "^SubState=running", "^StatusText=watching; worker is process", "^NRestarts=0"}},
		{"cgroups", "0", []string{"goshawk-watcher", "goshawk-worker"}}, // Delegate=
		{"rows", "0", []string{"/uname,"}},
		{"hooks", "0", []string{"^exec,tp_btf,", "^connect,fexit,", "^credential,fentry,"}},
		{"unit", "0", []string{"^active,running"}},
		{"process", "0", []string{`^NoNewPrivs:\s1`, `^Seccomp:\s2`, `^CapBnd:\s000000e441a8100c`}},
		{"reload", "0", nil},
		{"reloaded", "0", []string{"^after"}},
		{"restarted", "0", []string{"^NRestarts=1"}},
		{"active", "0", []string{"^ActiveState=active"}},
		{"again", "0", []string{"/uname,"}}, // what was seen before it was killed
		{"stop", "0", nil},
		{"stopped", "0", []string{"^ActiveState=inactive", "^SubState=dead", "^Result=success"}},
		{"logged", "0", []string{`"name":"execs".*uname -s.*"action":"added"`}},
		{"journal", "0", []string{"^ready: daemon", "Scheduled restart job"}},
		{"purge", "0", nil},
		{"left", "2", []string{"cannot access '/var/lib/goshawk'"}},
	} {
		wrong = append(wrong, all.check(want.name, want.code, want.texts...)...)
	}
	if s := all["left"]; s != nil && s.out != "" {
		wrong = append(wrong, "a purge leaves "+s.out)
	}
	if s := all["journal"]; s != nil {
		for line := range strings.Lines(s.out) {
			if regexp.MustCompile(`already exists but|Failed to|Failed at|Unknown|lvalue|ignoring`).MatchString(line) {
				wrong = append(wrong, "systemd says of the unit: "+line)
			}
		}
	}
	if s := all["journal"]; len(wrong) > 0 && s != nil {
		wrong = append(wrong, "the journal of the unit:\n"+s.out)
	}
	return wrong
}
