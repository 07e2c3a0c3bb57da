package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sysWith returns a /sys with one file.
func sysWith(t *testing.T, name, text string) FS {
	t.Helper()
	f := FS{Sys: t.TempDir()}
	path := filepath.Join(f.Sys, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSecurityModules(t *testing.T) {
	got, err := sysWith(t, "kernel/security/lsm", "lockdown,capability,yama,apparmor,bpf").SecurityModules()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"lockdown", "capability", "yama", "apparmor", "bpf"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := (FS{Sys: t.TempDir()}).SecurityModules(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestLockdown(t *testing.T) {
	for text, want := range map[string]string{
		"[none] integrity confidentiality\n": "none",
		"none integrity [confidentiality]\n": "confidentiality",
	} {
		got, err := sysWith(t, "kernel/security/lockdown", text).Lockdown()
		if got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := sysWith(t, "kernel/security/lockdown", "none integrity\n").Lockdown(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("nothing marked: %v", err)
	}
}

func TestBTF(t *testing.T) {
	f := sysWith(t, "kernel/btf/vmlinux", "12345")
	path, size, err := f.BTF()
	if path != f.Sys+"/kernel/btf/vmlinux" || size != 5 || err != nil {
		t.Errorf("%q, %d, %v", path, size, err)
	}
	if _, _, err := (FS{Sys: t.TempDir()}).BTF(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestSelf(t *testing.T) {
	if n, err := At("").SelfPeak(); err != nil || n < 1<<20 || n > 1<<33 {
		t.Errorf("peak %d, %v", n, err)
	}
	if os.Geteuid() == 0 {
		if n, err := At("").OwnCapabilities(); err != nil || n == 0 {
			t.Errorf("capabilities %x, %v", n, err)
		}
	}
}

// TestLiveSecurityModules asks this kernel, wherever its securityfs is mounted.
func TestLiveSecurityModules(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts securityfs where it is not mounted")
	}
	names, err := At("").SecurityModules()
	if err != nil || !slices.Contains(names, "capability") { // the one that is always there
		t.Errorf("%q, %v", names, err)
	}
}
