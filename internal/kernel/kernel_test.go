package kernel

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// host makes the files of a host.
func host(t *testing.T, files map[string]string) procfs.FS {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return procfs.At(root)
}

func TestFacts(t *testing.T) {
	full := host(t, map[string]string{
		"proc/sys/kernel/osrelease":    "6.1.0-21-cloud-amd64\n",
		"proc/self/status":             "Name:\tgoshawk\nCapEff:\t000001ffffffffff\n",
		"proc/1/mounts":                "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
		"sys/kernel/btf/vmlinux":       "0123456789",
		"sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
		"sys/kernel/security/lsm":      "lockdown,capability,bpf",
	})
	bare := host(t, map[string]string{
		"proc/self/status":             "Name:\tgoshawk\nCapEff:\t0000000000000000\n",
		"proc/1/mounts":                "",
		"sys/kernel/security/lockdown": "none integrity [confidentiality]\n",
	})
	hybrid := host(t, map[string]string{
		"proc/1/mounts": "c /sys/fs/cgroup/memory cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"})
	old := host(t, map[string]string{"proc/1/mounts": "c /sys/fs/cgroup/memory cgroup rw 0 0\n"})
	v1 := host(t, map[string]string{"proc/1/mounts": "c /sys/fs/cgroup/memory cgroup rw 0 0\n", "proc/filesystems": "nodev\tcgroup\n\text4\n"})
	neither := host(t, map[string]string{"proc/1/mounts": "", "proc/filesystems": "nodev\tproc\n"})
	unmounted := host(t, map[string]string{"proc/1/mounts": "", "proc/filesystems": "nodev\tcgroup2\n"})
	given := filepath.Join(t.TempDir(), "kernel.btf")
	if err := os.WriteFile(given, make([]byte, 3<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	root := func(name, text string) string {
		return filepath.Dir(host(t, map[string]string{name: text}).Proc)
	}
	debian := root("etc/os-release", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n")
	vendor := root("usr/lib/os-release", "PRETTY_NAME=Alpine")
	nameless := root("etc/os-release", "NAME=x\n")
	unlocked := host(t, map[string]string{"sys/kernel/security/lsm": "capability,yama"})
	some := host(t, map[string]string{"proc/self/status": "CapEff:\t0000000000201000\n"}) // SYS_ADMIN, NET_ADMIN
	for _, c := range []struct {
		name string
		got  Fact
		want Fact
	}{
		{"release", release(full), Fact{Name: "release", Value: "6.1.0-21-cloud-amd64", State: OK}},
		{"btf", typeInformation(full, ""), Fact{Name: "btf", Value: filepath.Join(full.Sys, "kernel/btf/vmlinux") + ", 0 KiB", State: OK}},
		{"no btf", typeInformation(bare, ""), Fact{Name: "btf", Value: "none", State: Missing,
			Advice: "give --btf this kernel's BTF file, or use a kernel built with CONFIG_DEBUG_INFO_BTF (most distributions' from 5.4 on are)"}},
		{"root", capabilities(full), Fact{Name: "capabilities", State: OK,
			Value: "CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"}},
		{"nobody", capabilities(bare), Fact{Name: "capabilities", State: Missing,
			Value:  "none of those used, not CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH",
			Advice: "run as root, or grant CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_NET_ADMIN"}},
		{"SYS_ADMIN stands for BPF", capabilities(some), Fact{Name: "capabilities", State: OK,
			Value: "CAP_SYS_ADMIN CAP_NET_ADMIN, not CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"}},
		{"lockdown", lockdown(full), Fact{Name: "lockdown", Value: "integrity", State: OK}},
		{"locked down", lockdown(bare), Fact{Name: "lockdown", Value: "confidentiality", State: Missing,
			Advice: "boot with lockdown=integrity: this mode forbids BPF to read the kernel"}},
		{"lsm", modules(full), Fact{Name: "lsm", Value: "lockdown capability bpf", State: OK}},
		{"no lockdown", lockdown(unlocked), Fact{Name: "lockdown", Value: "not in this kernel, or not in force", State: OK}},
		{"lsm without bpf", modules(unlocked), Fact{Name: "lsm", Value: "capability yama", State: OK,
			Advice: "LSM tiers need bpf in this list; boot with lsm=capability,yama,bpf"}},
		{"no securityfs", modules(some), Fact{Name: "lsm", Value: "cannot be seen: securityfs is not mounted", State: Unknown}},
		{"btf given", typeInformation(bare, given), Fact{Name: "btf", Value: given + ", 3 KiB, as told", State: OK}},
		{"btf not there", typeInformation(full, "/nowhere/x.btf"), Fact{Name: "btf", State: Missing,
			Value: "stat /nowhere/x.btf: no such file or directory", Advice: "give --btf a file that can be read"}},
		{"cgroup v2", cgroups(full), Fact{Name: "cgroups", Value: "v2 at /sys/fs/cgroup", State: OK}},
		{"hybrid", cgroups(hybrid), Fact{Name: "cgroups", Value: "hybrid, v2 at /sys/fs/cgroup/unified", State: OK}},
		{"cgroup v1", cgroups(old), Fact{Name: "cgroups", Value: "v1 only", State: Missing,
			Advice: "mount -t cgroup2 none /sys/fs/cgroup/unified: dns and datagrams are seen there"}},
		{"no cgroups", cgroups(bare), Fact{Name: "cgroups", Value: "not mounted", State: Missing,
			Advice: "mount -t cgroup2 none /sys/fs/cgroup: dns and datagrams are seen there"}},
		{"cgroup v1 alone", cgroups(v1), Fact{Name: "cgroups", Value: "v1; this kernel has no v2 (from Linux 4.5)", State: OK}},
		{"no cgroups at all", cgroups(neither), Fact{Name: "cgroups", Value: "not mounted; this kernel has no v2 (from Linux 4.5)", State: OK}},
		{"cgroup v2 to be had", cgroups(unmounted), Fact{Name: "cgroups", Value: "not mounted", State: Missing,
			Advice: "mount -t cgroup2 none /sys/fs/cgroup: dns and datagrams are seen there"}},
		{"distribution", distribution(debian), Fact{Name: "distribution", Value: "Debian GNU/Linux 12 (bookworm)", State: OK}},
		{"distribution's own copy", distribution(vendor), Fact{Name: "distribution", Value: "Alpine", State: OK}},
		{"no name", distribution(nameless), Fact{Name: "distribution", Value: "it does not say: os-release has no PRETTY_NAME", State: Unknown}},
		{"no distribution", distribution(t.TempDir()), Fact{Name: "distribution", Value: "it does not say: there is no os-release", State: Unknown}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, c.got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestRuntimes(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"run/crio", "run/podman"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	docker := filepath.Join(root, "run/docker.sock")
	l, err := net.Listen("unix", docker)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(root, "run/podman/podman.sock"), nil, 0o600); err != nil { // no socket
		t.Fatal(err)
	}
	if d := cmp.Diff([]Runtime{{"docker", docker}}, Runtimes(root)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]Runtime{}, Runtimes(t.TempDir())); d != "" {
		t.Errorf("none (-want +got):\n%s", d)
	}
}
