package sensor

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refusals are the tiers that kernels are known to refuse. Any other refusal is a fault, of
// ours or of this list: a kernel that is not in it must grant every tier.
var refusals = []struct {
	release string // part of uname -r
	tiers   string
	why     string
}{
	{"5.10.", "tracepoint", "bpf_task_pt_regs() is there since 5.15"},
	{"-fc", "fexit fentry", "trampolines are refused to everybody (EPERM); seen on all of make test-kernels"},
	{"-fc", "kprobe", "built without CONFIG_KPROBES; seen on all of make test-kernels"},
}

// refusal says why this kernel does not grant a tier, "" where it must.
func refusal(t testing.TB, tier string) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	for _, r := range refusals {
		for name := range strings.FieldsSeq(r.tiers) {
			if name == tier && strings.Contains(release, r.release) {
				return r.why
			}
		}
	}
	return ""
}

func needTier(t testing.TB, tier string) {
	t.Helper()
	if why := refusal(t, tier); why != "" {
		t.Skipf("this kernel refuses tier %s: %s", tier, why)
	}
}
