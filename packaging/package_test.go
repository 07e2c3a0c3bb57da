// Package packaging_test makes the deb and the rpm, and installs and removes them below a
// directory, with dpkg and rpm themselves.
package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// run runs a program in the repository's root directory.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// build makes a package, with the program built anew below a directory of its own.
func build(t *testing.T, kind string) (file string) {
	t.Helper()
	dir := t.TempDir()
	run(t, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/goshawk", "./cmd/goshawk")
	text, err := os.ReadFile("nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(dir, "nfpm.yaml")
	if err := os.WriteFile(yaml, []byte(strings.Replace(string(text), "bin/goshawk\n", dir+"/goshawk\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, []string{"VERSION=1.2.3", "ARCH=" + runtime.GOARCH}, "go", "tool", "-modfile=packaging/nfpm.mod", "nfpm", "package", "-f", yaml, "-p", kind, "-t", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*."+kind))
	if err != nil || len(files) != 1 {
		t.Fatalf("packages %q, %v", files, err)
	}
	return files[0]
}

// installed are the files of a package with their modes.
var installed = map[string]os.FileMode{
	"usr/bin/goshawk": 0o755, "usr/lib/systemd/system/goshawk.service": 0o644, "etc/goshawk": 0o700,
	"etc/goshawk/rules": 0o700, "etc/goshawk/goshawk.flags": 0o600, "etc/goshawk/goshawk.conf": 0o600, "usr/share/doc/goshawk/osquery.md": 0o644,
}

func checkInstalled(t *testing.T, root string) {
	t.Helper()
	for name, mode := range installed {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", name, info, err, mode)
		}
	}
	program := filepath.Join(root, "usr/bin/goshawk")
	if out := run(t, nil, program, "version"); !strings.HasPrefix(out, "goshawk ") {
		t.Errorf("version: %q", out)
	}
	// The configuration and the flags that come with it are good ones.
	if out := run(t, nil, program, "daemon", "--flagfile="+filepath.Join(root, "etc/goshawk/goshawk.flags"), "--config_path="+filepath.Join(root, "etc/goshawk/goshawk.conf"), "--config_check"); out != "" {
		t.Errorf("config_check: %s", out)
	}
}

// checkGone finds no file below root but those in directories that are the package manager's.
func checkGone(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root+"/")
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if strings.HasPrefix(name, "var/lib/dpkg") || strings.HasPrefix(name, "var/lib/rpm") || strings.HasPrefix(name, "usr/lib/sysimage") || strings.HasPrefix(name, "root") {
				return filepath.SkipDir
			}
		case !strings.HasPrefix(name, "var/log/dpkg"):
			t.Errorf("%s stays", name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func needPackager(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: apt-get install %s", name, strings.Split(name, "-")[0])
		}
	}
	if unix.Geteuid() != 0 {
		t.Skip("installing packages needs root")
	}
}

func TestDeb(t *testing.T) {
	needPackager(t, "dpkg", "dpkg-deb")
	file := build(t, "deb")
	root := t.TempDir()
	for _, dir := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		t.Helper()
		// Scripts run here, not in a root directory without a shell, and are told which one is meant.
		return run(t, nil, "dpkg", append([]string{"--root=" + root, "--log=/dev/null", "--force-script-chrootless", "--force-not-root", "--force-architecture", "--force-bad-path"}, args...)...)
	}
	dpkg("--install", file)
	checkInstalled(t, root)
	if out := dpkg("--status", "goshawk"); !strings.Contains(out, "Status: install ok installed\n") || !strings.Contains(out, "Version: 1.2.3\n") {
		t.Errorf("status:\n%s", out)
	}
	// An administrator's change survives an upgrade.
	flags := filepath.Join(root, "etc/goshawk/goshawk.flags")
	if err := os.WriteFile(flags, []byte("--verbose\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dpkg("--force-confold", "--install", file)
	if b, err := os.ReadFile(flags); err != nil || string(b) != "--verbose\n" {
		t.Errorf("flags after an upgrade: %q, %v", b, err)
	}
	for _, dir := range []string{"var/lib/goshawk", "var/log/goshawk"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "kept"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dpkg("--remove", "goshawk")
	if _, err := os.Stat(flags); err != nil {
		t.Errorf("the flags are gone before a purge: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "var/lib/goshawk/kept")); err != nil {
		t.Errorf("what was seen is gone before a purge: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/goshawk")); err == nil {
		t.Error("the program stays")
	}
	dpkg("--purge", "goshawk")
	checkGone(t, root)
}

func TestRPM(t *testing.T) {
	needPackager(t, "rpm")
	file := build(t, "rpm")
	root := t.TempDir()
	rpm := func(args ...string) string {
		t.Helper()
		// Without scripts: rpm runs them in the root directory, where there is no shell; they are the deb's.
		return run(t, nil, "rpm", append([]string{"--root=" + root, "--dbpath=/var/lib/rpm"}, args...)...)
	}
	rpm("--initdb")
	rpm("--install", "--nodeps", "--noscripts", "--ignorearch", file)
	checkInstalled(t, root)
	if out := rpm("--query", "--queryformat", "%{NAME} %{VERSION} %{LICENSE}", "goshawk"); out != "goshawk 1.2.3 Apache-2.0" {
		t.Errorf("query: %q", out)
	}
	if out := run(t, nil, "rpm", "--query", "--package", "--scripts", file); !strings.Contains(out, "systemctl disable --now goshawk.service") || !strings.Contains(out, "systemctl daemon-reload") {
		t.Errorf("scripts:\n%s", out)
	}
	rpm("--verify", "goshawk")
	rpm("--erase", "--noscripts", "goshawk")
	checkGone(t, root)
}

// The unit means something to systemd, and gives away little.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("goshawk.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"NoNewPrivileges=yes", "ProtectSystem=strict", "Type=notify", "LimitCORE=0", "UMask=0077"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the unit has no %s", line)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("no systemd-analyze on this host: the unit's words are not checked")
		return
	}
	dir := t.TempDir()
	unit := filepath.Join(dir, "goshawk.service")
	if err := os.WriteFile(unit, []byte(strings.Replace(string(text), "/usr/bin/goshawk", "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "goshawk.service") {
			t.Errorf("systemd: %s", line)
		}
	}
	if err != nil {
		t.Logf("systemd-analyze: %v\n%s", err, out)
	}
}
