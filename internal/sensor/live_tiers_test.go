package sensor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// refusals are the tiers that kernels are known to refuse. Any other refusal is a fault, of
// ours or of this list: a kernel that is not in it must grant every tier.
var refusals = []struct {
	release string // part of uname -r
	hooks   string // "" for all
	tiers   string
	why     string
}{
	{"5.10.", "connect accept bind listen ptrace bpf mount namespace memory syscall", "tracepoint", "bpf_task_pt_regs() is there since 5.15"},
	{"5.10.", "io_uring", "tp_btf raw_tp", "io_uring_complete is given the request since 5.19"},
	{"6.1.", "ptrace bpf memory syscall", "fexit", "BTF has two functions of one name for system calls that may be left out of a kernel"},
	{"", "ptrace bpf mount namespace memory", "kprobe_plain", "the functions of system calls are given registers since 4.17"},
	{"5.10.", "file", "kprobe", "renames that exchange two names are not told from others there"},
	{"7.3.", "file", "fexit", "programs at functions are preempted, and what happens meanwhile is passed over"},
	{"-fc", "", "fexit fentry", "trampolines are refused to everybody (EPERM); seen on all of make test-kernels"},
	{"-fc", "", "kprobe", "built without CONFIG_KPROBES; seen on all of make test-kernels"},
}

// refusal says why this kernel does not grant a tier of a hook, "" where it must.
func refusal(t testing.TB, hook, tier string) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	for _, r := range refusals {
		if strings.Contains(release, r.release) && slices.Contains(strings.Fields(r.tiers), tier) &&
			(r.hooks == "" || slices.Contains(strings.Fields(r.hooks), hook)) {
			return r.why
		}
	}
	return ""
}

// tested names the test that tries every tier of a hook, with all that the hook tells.
var tested = map[string]string{
	"exec": "TestLiveExec", "fork": "TestLiveProcess", "exit": "TestLiveProcess",
	"tcp_state": "TestLiveSocket", "connect": "TestLiveSocket", "accept": "TestLiveSocket", "bind": "TestLiveSocket",
	"listen": "TestLiveSocket", "datagram": "TestLiveSocket",
	"bind_below": "TestLiveWays", "connect_below": "TestLiveWays", "io_uring": "TestLiveWays",
	"dns": "TestLiveDNS", "file": "TestLiveFile", "cgroup": "TestLiveCgroup",
	"credential": "TestLiveActs", "ptrace": "TestLiveActs", "signal": "TestLiveActs", "module": "TestLiveModule", "bpf": "TestLiveActs",
	"mount": "TestLiveActs", "namespace": "TestLiveActs", "memory": "TestLiveActs", "clone": "TestLiveClone", "syscall": "TestLiveRare",
}

func TestTiersTested(t *testing.T) {
	for _, h := range slices.Concat(hooks, legacyHooks) {
		if tested[h.name] == "" {
			t.Errorf("no test tries the tiers of hook %s: have one call eachTier, and name it in tested", h.name)
		}
	}
}

// eachTier runs a test with the hooks that are its own forced to the first of the tiers that
// this kernel must grant, then to the second, until each tier had its turn.
func eachTier(t *testing.T, o Options, run func(t *testing.T, l *live)) {
	t.Helper()
	needRoot(t)
	granted := map[string][]string{}
	runs := 0
	hooks := testObject(t).hooks
	for _, h := range hooks {
		if tested[h.name] != t.Name() {
			continue
		}
		for _, tr := range h.tiers {
			if refusal(t, h.name, tr.name) == "" {
				granted[h.name] = append(granted[h.name], tr.name)
			}
		}
		runs = max(runs, len(granted[h.name]))
	}
	for i := range runs {
		o.Tiers = map[string]string{}
		var names []string
		for _, h := range hooks {
			if g := granted[h.name]; len(g) > 0 {
				o.Tiers[h.name] = g[min(i, len(g)-1)]
				if !slices.Contains(names, o.Tiers[h.name]) {
					names = append(names, o.Tiers[h.name])
				}
			}
		}
		o := o
		t.Run(strings.Join(names, "+"), func(t *testing.T) { run(t, watch(t, o)) })
	}
}

// A tier that a kernel refuses is told as refused, with a reason, and takes no other hook along:
// neither one that tells of the same, nor those of processes. More would prove no more.
func TestLiveTierRefused(t *testing.T) {
	needRoot(t)
	for _, h := range testObject(t).hooks {
		for _, tr := range h.tiers {
			why := refusal(t, h.name, tr.name)
			if why == "" {
				continue
			}
			t.Run(h.name+"="+tr.name, func(t *testing.T) {
				s, err := Open(Options{Kinds: slices.Concat(h.kinds, processKinds), Tiers: map[string]string{h.name: tr.name}, FS: procfs.At(""), Object: testObject(t).name})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for _, got := range s.Hooks() {
					switch {
					case got.Name != h.name && got.Tier == "":
						t.Errorf("hook %s is not attached: %s", got.Name, got.Refused)
					case got.Name == h.name && got.Tier != "":
						t.Errorf("tier %s is granted here: strike it from refusals (%s)", tr.name, why)
					case got.Name == h.name && !regexp.MustCompile(`(^|; )`+tr.name+`: \S+`).MatchString(got.Refused):
						t.Errorf("refused %q tells nothing of %s", got.Refused, tr.name)
					}
				}
			})
		}
	}
}

// A function that a kernel has not, though it might, takes nothing along: neither its kprobe nor
// its kretprobe, which kernels up to 5.10 refuse with another error.
func TestLiveAbsentFunction(t *testing.T) {
	needRoot(t)
	if why := refusal(t, "connect", "kprobe"); why != "" {
		t.Skipf("this kernel refuses kprobes: %s", why)
	}
	obj := testObject(t)
	h := hook{"connect", []event.ID{event.KindConnect}, []tier{
		{"kprobe", both("on_connect_sent", "tcp_v4_connect", "goshawk_has_no_such?", "tcp_v6_connect?")}}}
	at := *obj
	at.hooks = []hook{h}
	known := objects
	objects = []*object{&at}
	defer func() { objects = known }()
	s, err := Open(Options{FS: procfs.At(""), Object: at.name})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Hooks(); len(got) != 1 || got[0].Tier != "kprobe" || got[0].Refused != "" {
		t.Errorf("hooks are %+v", got)
	}
	if n := len(s.hooks[0].links); n != 4 {
		t.Errorf("%d probes are attached, want two of each function that is there", n)
	}
}

// Neither tracefs nor cgroup2 need be mounted.
func TestLiveNothingMounted(t *testing.T) {
	needRoot(t)
	if testObject(t).perf {
		t.Skip("the legacy object has no hook of a cgroup: its kernels may lack them")
	}
	root := t.TempDir()
	without(t, "/proc", filepath.Join(root, "proc"), "1", "self", "thread-self")
	without(t, "/proc/1", filepath.Join(root, "proc/1"), "mounts")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	mounts = regexp.MustCompile(`(?m)^\S+ \S+ (cgroup2|tracefs|debugfs) .*\n`).ReplaceAll(mounts, nil)
	if err := os.WriteFile(filepath.Join(root, "proc/1/mounts"), mounts, 0o644); err != nil {
		t.Fatal(err)
	}
	without(t, "/sys", filepath.Join(root, "sys"), "kernel")
	without(t, "/sys/kernel", filepath.Join(root, "sys/kernel"), "tracing", "debug")
	o := Options{FS: procfs.At(root), Kinds: append([]event.ID{event.KindDNS}, socketKinds...), Tiers: map[string]string{
		"connect": "tracepoint_pair", "accept": "tracepoint_pair", "bind": "tracepoint_pair", "listen": "tracepoint_pair",
		"datagram": "cgroup", "dns": "cgroup"}}
	l := watch(t, o)
	datagrams(t, l)
	inNetwork(t, l, func(s *side) {
		s.serveDNS(nil)
		c := s.socket(unix.AF_INET, unix.SOCK_DGRAM)
		s.ask(c, &unix.SockaddrInet4{Addr: loop4, Port: 53}, query(t, 7, "no.", 1), true)
		cport := uint16(port(t, c))
		s.close(c)
		s.expectDNS(&event.DNS{Question: "no", QueryType: "A", ResponseCode: "NXDOMAIN", Server: "127.0.0.1", ServerPort: 53, ClientPort: cport, QueryID: 7})
	})
}

// without makes a directory of links to what is in another, but for the names.
func without(t *testing.T, from, to string, names ...string) {
	t.Helper()
	all, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !slices.Contains(names, e.Name()) {
			if err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}
