package kernel

import (
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
	some := host(t, map[string]string{"proc/self/status": "CapEff:\t0000000000201000\n"}) // SYS_ADMIN, NET_ADMIN
	for _, c := range []struct {
		name string
		got  Fact
		want Fact
	}{
		{"release", release(full), Fact{Name: "release", Value: "6.1.0-21-cloud-amd64", State: OK}},
		{"btf", typeInformation(full), Fact{Name: "btf", Value: filepath.Join(full.Sys, "kernel/btf/vmlinux") + ", 0 KiB", State: OK}},
		{"no btf", typeInformation(bare), Fact{Name: "btf", Value: "none", State: Missing,
			Advice: "use a kernel built with CONFIG_DEBUG_INFO_BTF (most distributions' from 5.4 on are)"}},
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
		{"no securityfs", modules(some), Fact{Name: "lsm", Value: "cannot be seen: securityfs is not mounted", State: Unknown}},
		{"cgroup2", cgroup2(full), Fact{Name: "cgroup2", Value: "/sys/fs/cgroup", State: OK}},
		{"no cgroup2", cgroup2(bare), Fact{Name: "cgroup2", State: Missing, Advice: "mount cgroup2: dns and datagrams are seen there",
			Value: "find cgroup2: not mounted; mount -t cgroup2 none /sys/fs/cgroup"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, c.got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
