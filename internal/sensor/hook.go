package sensor

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// A tier is one way to attach a hook: programs that are attached all or none. An entry is
// the name of a program, or program@function where it is attached to another function of the
// kernel than its section names; a function with ? may be absent from a kernel.
type tier struct {
	name     string
	programs []string
}

// place is where one entry of a tier is attached.
type place struct {
	entry, program string
	function       string // "" for what the section says
	optional       bool
}

func placeOf(entry string) place {
	program, function, _ := strings.Cut(entry, "@")
	name, optional := strings.CutSuffix(function, "?")
	return place{entry: entry, program: program, function: name, optional: optional}
}

// standIn reports whether the second program acts for the first when that is under way
// (bpf/socket.bpf.h).
func (t *tier) standIn() bool {
	return len(t.programs) == 2 && strings.HasSuffix(t.programs[1], "_second")
}

// A hook is one logical place to observe kinds; the first kind is the one it reports.
type hook struct {
	name  string
	kinds []event.ID
	tiers []tier // best first
}

// absent reports whether the kernel has nothing that the hook could tell of.
func (h *hook) absent(fs procfs.FS) bool { return h.name == "module" && !fs.HasModules() }

// hooks is every place where we look, best tier first. A better tier (LSM, fentry, kprobe)
// goes on top of its list.
var hooks = []hook{
	{"exec", []event.ID{event.KindExec}, []tier{
		{"tp_btf", []string{"on_exec_tp_btf"}},
		{"raw_tp", []string{"on_exec_raw_tp"}},
		{"tracepoint", []string{"on_exec_tracepoint"}},
	}},
	{"fork", []event.ID{event.KindFork}, []tier{
		{"tp_btf", []string{"on_fork_tp_btf"}},
		{"raw_tp", []string{"on_fork_raw_tp"}},
		{"tracepoint", []string{"on_fork_tracepoint"}},
	}},
	{"exit", []event.ID{event.KindExit}, []tier{
		{"tp_btf", []string{"on_exit_tp_btf"}},
		{"raw_tp", []string{"on_exit_raw_tp"}},
		{"tracepoint", []string{"on_exit_tracepoint"}},
	}},
	{"tcp_state", []event.ID{event.KindClose, event.KindConnect}, []tier{
		{"tp_btf", []string{"on_state_tp_btf", "on_state_tp_btf_second"}},
		{"raw_tp", []string{"on_state_raw_tp", "on_state_raw_tp_second"}},
		{"tracepoint", []string{"on_state_tracepoint"}},
	}},
	{"connect", []event.ID{event.KindConnect}, []tier{
		{"fexit", slices.Concat(
			each("on_connect_sent_fexit", "tcp_v4_connect", "tcp_v6_connect", "mptcp_connect?"),
			each("on_connect_fexit", "inet_dgram_connect", "unix_stream_connect", "unix_dgram_connect", "mptcp_stream_connect?"),
			each("on_connect_denied_fexit", "security_socket_connect"))},
		{"kprobe", slices.Concat(
			both("on_connect_sent", "tcp_v4_connect", "tcp_v6_connect", "mptcp_connect?"),
			both("on_connect", "inet_dgram_connect", "unix_stream_connect", "unix_dgram_connect", "mptcp_stream_connect?"),
			both("on_connect_denied", "security_socket_connect"))},
		{"tracepoint", []string{"on_connect_exit"}},
		{"tracepoint_pair", []string{"on_connect_pair_enter", "on_connect_pair_exit"}},
	}},
	{"accept", []event.ID{event.KindAccept, event.KindClose}, []tier{
		{"fexit", []string{"on_accept_fentry", "on_accept_denied_fexit"}},
		{"kprobe", slices.Concat([]string{"on_accept_kprobe"}, both("on_accept_denied", "security_socket_accept"))},
		{"tracepoint", []string{"on_accept_exit", "on_accept_exit@syscalls/sys_exit_accept4"}},
		{"tracepoint_pair", []string{"on_accept_pair_enter", "on_accept_pair_exit",
			"on_accept4_pair_enter", "on_accept4_pair_exit"}},
	}},
	{"bind", []event.ID{event.KindBind}, []tier{
		{"fexit", slices.Concat(
			each("on_bind_fexit", "inet_bind", "inet6_bind", "unix_bind", "mptcp_bind?"),
			each("on_bind_denied_fexit", "security_socket_bind"))},
		{"kprobe", slices.Concat(
			both("on_bind", "inet_bind", "inet6_bind", "unix_bind", "mptcp_bind?"),
			both("on_bind_denied", "security_socket_bind"))},
		{"tracepoint", []string{"on_bind_exit"}},
		{"tracepoint_pair", []string{"on_bind_pair_enter", "on_bind_pair_exit"}},
	}},
	{"listen", []event.ID{event.KindListen}, []tier{
		{"fexit", slices.Concat(
			each("on_listen_fexit", "inet_listen", "unix_listen", "mptcp_listen?"),
			each("on_listen_denied_fexit", "security_socket_listen"))},
		{"kprobe", slices.Concat(
			both("on_listen", "inet_listen", "unix_listen", "mptcp_listen?"),
			both("on_listen_denied", "security_socket_listen"))},
		{"tracepoint", []string{"on_listen_exit"}},
		{"tracepoint_pair", []string{"on_listen_pair_enter", "on_listen_pair_exit"}},
	}},
	{"bind_below", []event.ID{event.KindBind}, []tier{
		{"cgroup", []string{"on_bind4", "on_bind6"}},
	}},
	{"connect_below", []event.ID{event.KindConnect}, []tier{
		{"cgroup", []string{"on_connect4", "on_connect6"}},
	}},
	{"io_uring", []event.ID{event.KindConnect, event.KindAccept, event.KindBind, event.KindListen}, []tier{
		{"tp_btf", []string{"on_uring_connect_tp_btf", "on_uring_accept_tp_btf", "on_uring_bind_tp_btf"}},
		{"raw_tp", []string{"on_uring_connect_raw_tp", "on_uring_accept_raw_tp", "on_uring_bind_raw_tp"}},
	}},
	{"datagram", []event.ID{event.KindConnect}, []tier{
		{"cgroup", []string{"on_sendmsg4", "on_sendmsg6"}},
	}},
	{"dns", []event.ID{event.KindDNS}, []tier{
		{"cgroup", []string{"on_dns_egress", "on_dns_ingress"}},
	}},
	{FileHook, []event.ID{event.KindFile}, fileTiers()},
	{"cgroup", []event.ID{event.KindContainer}, []tier{
		{"tp_btf", []string{"on_cgroup_mkdir_tp_btf", "on_cgroup_rmdir_tp_btf", "on_cgroup_rename_tp_btf"}},
		{"raw_tp", []string{"on_cgroup_mkdir_raw_tp", "on_cgroup_rmdir_raw_tp", "on_cgroup_rename_raw_tp"}},
		{"tracepoint", []string{"on_cgroup_mkdir_tracepoint", "on_cgroup_rmdir_tracepoint", "on_cgroup_rename_tracepoint"}},
	}},
	{"credential", []event.ID{event.KindCredential}, []tier{
		{"fentry", []string{"on_commit_fentry"}},
		{"kprobe", []string{"on_commit_kprobe"}},
		{"tracepoint_pair", credentialPairs()},
	}},
	{"ptrace", []event.ID{event.KindPtrace}, withMemory(acts("ptrace", "process_vm_readv", "process_vm_writev"))},
	{"signal", []event.ID{event.KindSignal}, []tier{
		{"tp_btf", []string{"on_signal_tp_btf"}},
		{"raw_tp", []string{"on_signal_raw_tp"}},
		{"tracepoint", []string{"on_signal_tracepoint"}},
	}},
	{"module", []event.ID{event.KindModule}, []tier{
		{"tp_btf", []string{"on_module_load_tp_btf", "on_module_free_tp_btf"}},
		{"raw_tp", []string{"on_module_load_raw_tp", "on_module_free_raw_tp"}},
		{"tracepoint", []string{"on_module_load_tracepoint", "on_module_free_tracepoint"}},
	}},
	{"mount", []event.ID{event.KindMount}, acts("mount", "umount", "pivot_root", "move_mount?", "mount_setattr?")},
	{"namespace", []event.ID{event.KindNamespace}, acts("setns", "unshare", "chroot")},
	{"memory", []event.ID{event.KindMemory}, acts("memfd_create", "mprotect", "mmap")},
	{"clone", []event.ID{event.KindNamespace}, []tier{
		{"tp_btf", []string{"on_clone_tp_btf"}},
		{"raw_tp", []string{"on_clone_raw_tp"}},
	}},
	{"syscall", []event.ID{event.KindSyscall}, rareActs("socket", "io_uring_setup?", "kexec_load?", "kexec_file_load?", "settimeofday",
		"clock_settime", "clock_adjtime", "adjtimex", "keyctl?", "add_key?", "request_key?")},
	// The last: what we load and attach ourselves is over by then, but for the iterator.
	{"bpf", []event.ID{event.KindBPF}, acts("bpf")},
}

// acts are the tiers of a hook on system calls (bpf/act.bpf.h): on the functions behind them,
// which no other call pays for, or on their tracepoints, for which all do. Calls with ? are
// later than some kernels.
func acts(calls ...string) []tier {
	t := []tier{{name: "fexit"}, {name: "kprobe"}, {name: "tracepoint"}, {name: "tracepoint_pair", programs: pairs(calls...)}}
	for _, c := range calls {
		name := strings.TrimSuffix(c, "?")
		t[0].programs = append(t[0].programs, "on_"+name+"_fexit@"+callFunction+c)
		t[1].programs = append(t[1].programs, both("on_"+name, callFunction+c)...)
		t[2].programs = append(t[2].programs, "on_"+name+"_exit@syscalls/sys_exit_"+c)
	}
	for _, c := range calls {
		name := strings.TrimSuffix(c, "?")
		if at := smallCalls[name]; at != "" { // a kernel may be built without
			t[0].programs = append(t[0].programs, "on_"+name+"_fexit@"+at+"?")
			t[1].programs = append(t[1].programs, both("on_"+name, at+"?")...)
		}
	}
	return t
}

// rareActs are those of bpf/rare.bpf.h: one program stands where all of the calls end.
func rareActs(calls ...string) []tier {
	t := []tier{{name: "fexit"}, {name: "kprobe"}, {name: "tracepoint"}, {name: "tracepoint_pair"}}
	for _, c := range calls {
		name := "on_" + strings.TrimSuffix(c, "?")
		t[0].programs = append(t[0].programs, name+"_fexit@"+callFunction+c)
		t[1].programs = append(t[1].programs, name+"_kprobe@"+callFunction+c, "on_rare_kretprobe@"+callFunction+c)
		t[2].programs = append(t[2].programs, "on_rare_exit@syscalls/sys_exit_"+c)
		t[3].programs = append(t[3].programs, name+"_pair_enter@syscalls/sys_enter_"+c, "on_rare_pair_exit@syscalls/sys_exit_"+c)
		if at := smallCalls[strings.TrimSuffix(c, "?")]; at != "" {
			t[0].programs = append(t[0].programs, name+"_fexit@"+at+"?")
			t[1].programs = append(t[1].programs, name+"_kprobe@"+at+"?", "on_rare_kretprobe@"+at+"?")
		}
	}
	return t
}

// credentialPairs are the programs on the system calls that change who a process is; one stands
// where all of them end.
func credentialPairs() []string {
	var out []string
	for _, c := range []string{"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset"} {
		out = append(out, "on_"+c+"_pair_enter@syscalls/sys_enter_"+c, "on_credential_pair_exit@syscalls/sys_exit_"+c)
	}
	return out
}

// smallCalls are the functions behind 32-bit system calls, where these are others than those of
// 64 bits and take the same arguments: of the calls that code uses which wants to hide, since each
// costs a start-up some time.
var smallCalls = map[string]map[string]string{
	"amd64": {
		"ptrace": "__ia32_compat_sys_ptrace", "process_vm_writev": "__ia32_sys_process_vm_writev", "bpf": "__ia32_sys_bpf",
		"mount": "__ia32_sys_mount", "setns": "__ia32_sys_setns", "unshare": "__ia32_sys_unshare",
		"memfd_create": "__ia32_sys_memfd_create", "mprotect": "__ia32_sys_mprotect", "mmap": "__ia32_sys_mmap_pgoff",
		"socket": "__ia32_sys_socket",
	},
	"arm64": {"ptrace": "__arm64_compat_sys_ptrace", "mmap": "__arm64_compat_sys_aarch32_mmap2"},
}[runtime.GOARCH]

// withMemory adds to the tiers on functions what writes to /proc/PID/mem, which no system call of
// its own does.
func withMemory(tiers []tier) []tier {
	const function = "access_remote_vm?"
	for i := range tiers {
		switch t := &tiers[i]; t.name {
		case "fexit":
			t.programs = append(t.programs, "on_mem_write_fexit@"+function)
		case "kprobe", tierPlain:
			t.programs = append(t.programs, both("on_mem_write", function)...)
		}
	}
	return tiers
}

// callFunction begins the name of the function behind a system call, which is given registers
// (4.17, 4.19 on arm64).
var callFunction = map[string]string{"amd64": "__x64_sys_", "arm64": "__arm64_sys_"}[runtime.GOARCH]

// pairs are the programs on entry to and exit from system calls.
func pairs(calls ...string) []string {
	var out []string
	for _, c := range calls {
		name := strings.TrimSuffix(c, "?")
		out = append(out, "on_"+name+"_pair_enter@syscalls/sys_enter_"+c, "on_"+name+"_pair_exit@syscalls/sys_exit_"+c)
	}
	return out
}

// beside are hooks for what the tracepoints of system calls do not tell of (bpf/way.bpf.h): they
// are attached only where a hook named here is at one of those.
var beside = map[string][]string{
	"bind_below":    {"bind"},
	"connect_below": {"connect"},
	"io_uring":      {"connect", "accept", "bind", "listen"},
}

// atCalls reports whether a hook is at tracepoints of system calls, if it is one named in beside.
func (a *attached) atCalls() bool {
	return a.tier != nil && strings.HasPrefix(a.tier.name, "tracepoint")
}

// each attaches one program to several functions.
func each(program string, functions ...string) []string {
	var out []string
	for _, f := range functions {
		out = append(out, program+"@"+f)
	}
	return out
}

// both attaches a kprobe to the entry and a kretprobe to the return of each function.
func both(name string, functions ...string) []string {
	var out []string
	for _, f := range functions {
		out = append(out, name+"_kprobe@"+f, name+"_kretprobe@"+f)
	}
	return out
}

// attached is a hook as it is on this kernel.
type attached struct {
	hook     *hook
	tier     *tier // nil when none works
	past     int   // tiers that were refused
	refused  []string
	last     error // why the last of them was
	programs []*ebpf.Program
	links    []io.Closer
	passed   uint64 // passedOver, once the programs are gone
}

func (a *attached) status() event.Hook {
	h := event.Hook{Source: "ebpf", Name: a.hook.name, Kinds: a.hook.kinds, Refused: strings.Join(a.refused, "; ")}
	if a.tier != nil {
		h.Tier, h.Best = a.tier.name, a.tier == &a.hook.tiers[0]
	}
	return h
}

// passedOver is how often the kernel did not run a program of the hook because one of its
// programs was under way on the same CPU (from 5.12 on the kernel tells). A second program
// that stands in for the first is not asked: what it has seen is counted apart.
func (a *attached) passedOver() uint64 {
	n := a.passed
	if a.tier == nil {
		return n
	}
	for _, p := range a.programs {
		if stats, err := p.Stats(); err == nil {
			n += stats.RecursionMisses
		}
		if a.tier.standIn() {
			break
		}
	}
	return n
}

func (a *attached) close() error { return errors.Join(a.unlink(), a.unload()) }

func (a *attached) unlink() error {
	var errs []error
	for _, l := range a.links {
		errs = append(errs, l.Close())
	}
	a.links = nil
	return errors.Join(errs...)
}

func (a *attached) unload() error {
	a.passed = a.passedOver()
	var errs []error
	for _, p := range a.programs {
		errs = append(errs, p.Close())
	}
	a.programs = nil
	return errors.Join(errs...)
}
