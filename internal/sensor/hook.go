package sensor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
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
		{"tracepoint", []string{"on_accept_exit", "on_accept4_exit"}},
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
		{"tracepoint_pair", pairs(credentialNames...)},
	}},
	{"ptrace", []event.ID{event.KindPtrace}, acts("ptrace", "process_vm_readv", "process_vm_writev")},
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
	{"syscall", []event.ID{event.KindSyscall}, acts("socket", "io_uring_setup?", "kexec_load?", "kexec_file_load?", "settimeofday",
		"clock_settime", "clock_adjtime", "adjtimex", "keyctl?", "add_key?", "request_key?")},
	// The last: what we load and attach ourselves is over by then, but for the iterator.
	{"bpf", []event.ID{event.KindBPF}, acts("bpf")},
}

// credentialNames are the system calls that change who a process is.
var credentialNames = []string{"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset"}

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
	return t
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
	refused  []string
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

type loader struct {
	spec   *ebpf.CollectionSpec
	maps   map[string]*ebpf.Map
	cache  *btf.Cache // the kernel's types, decoded once for all programs
	types  *btf.Spec  // instead of the running kernel's, or nil
	forced map[string]string
	denied map[string]error // tiers that this kernel grants to nobody

	wantFiles bool // hook file is attached

	fs      procfs.FS
	files   *fanotify.Reader // once hook file is attached at its tier
	cgroup  string           // the root of cgroup2, found when first needed
	mounted *os.File         // it, where nobody else has mounted it
	tracefs *tracefs
}

// load loads the programs at places, over the maps that are there. They are called as entry
// is: one that is bound to its function when it is loaded is another at each.
func (l *loader) load(places ...place) (*ebpf.Collection, error) {
	spec := &ebpf.CollectionSpec{
		Maps: l.spec.Maps, Types: l.spec.Types, ByteOrder: l.spec.ByteOrder,
		Programs: make(map[string]*ebpf.ProgramSpec, len(places)),
	}
	for _, at := range places {
		p := l.spec.Programs[at.program]
		if p == nil {
			return nil, fmt.Errorf("BUG: no program %q in the object", at.program)
		}
		if p.Type == ebpf.Tracing && at.function != "" {
			p = p.Copy()
			p.AttachTo = at.function
		}
		spec.Programs[at.loadedAs(p)] = p
	}
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: l.maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: l.types},
		Cache:           l.cache,
	})
}

// loadedAs is the name under which load keeps p.
func (at place) loadedAs(p *ebpf.ProgramSpec) string {
	if p.Type == ebpf.Tracing {
		return at.entry
	}
	return at.program
}

// close gives back what was needed for attaching only.
func (l *loader) close() error {
	var errs []error
	if l.tracefs != nil {
		errs = append(errs, l.tracefs.close())
	}
	if l.mounted != nil {
		errs = append(errs, l.mounted.Close())
	}
	return errors.Join(errs...)
}

// findCgroup2 finds the root of cgroup2. Every process is in that hierarchy, mounted or not.
func (l *loader) findCgroup2() error {
	root, err := l.fs.Cgroup2()
	if err == nil {
		l.cgroup = root
		return nil
	}
	mounted, err2 := mountForUs("cgroup2")
	if err2 != nil {
		return errors.Join(err, err2)
	}
	l.mounted, l.cgroup = mounted, pathOf(mounted)
	return nil
}

// attachAll attaches every hook that a wanted kind needs. It fails when not one of those that
// were asked for works.
func (l *loader) attachAll(hooks []hook, wanted, asked uint64) ([]*attached, error) {
	if err := l.checkForced(hooks); err != nil {
		return nil, err
	}
	var all []*attached
	var denied error
	works := 0
	for i := range hooks {
		if kindMask(hooks[i].kinds)&wanted == 0 || hooks[i].name == FileHook && !l.wantFiles || hooks[i].absent(l.fs) {
			continue
		}
		if of := beside[hooks[i].name]; of != nil && !slices.ContainsFunc(all, func(a *attached) bool {
			return slices.Contains(of, a.hook.name) && a.atCalls()
		}) {
			continue
		}
		a := &attached{hook: &hooks[i]}
		if err := l.attach(a); errors.Is(err, unix.EPERM) {
			denied = err
		}
		if a.tier != nil && kindMask(hooks[i].kinds)&asked != 0 {
			works++
		}
		all = append(all, a)
	}
	if works > 0 {
		return all, nil
	}
	var errs []error
	all = slices.DeleteFunc(all, func(a *attached) bool {
		if kindMask(a.hook.kinds)&asked != 0 {
			return false
		}
		errs = append(errs, a.close())
		return true
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if denied != nil && os.Geteuid() != 0 {
		return nil, fmt.Errorf("attach BPF programs: %w", denied)
	}
	u := &Unsupported{}
	for _, a := range all {
		u.Hooks = append(u.Hooks, a.status())
	}
	return nil, u
}

func (l *loader) checkForced(hooks []hook) error {
next:
	for name, t := range l.forced {
		for _, h := range hooks {
			if h.name != name {
				continue
			}
			if t == "none" {
				continue next
			}
			var known []string
			for _, have := range h.tiers {
				if have.name == t {
					continue next
				}
				known = append(known, have.name)
			}
			return fmt.Errorf("hook %q has no tier %q; it has %s, none", name, t, strings.Join(known, ", "))
		}
		var known []string
		for _, h := range hooks {
			known = append(known, h.name)
		}
		return fmt.Errorf("no hook is called %q; hooks are %s", name, strings.Join(known, ", "))
	}
	return nil
}

// attach tries the tiers of a hook in turn and returns the error of the last refused.
func (l *loader) attach(a *attached) error {
	var last error
	only := l.forced[a.hook.name]
	for i := range a.hook.tiers {
		t := &a.hook.tiers[i]
		if only != "" && t.name != only {
			a.refused = append(a.refused, t.name+": not wanted")
			continue
		}
		err := l.denied[t.name]
		if err == nil {
			err = l.attachTier(a, t)
		}
		if err != nil {
			if l.denied[t.name] == nil && denied(err) {
				l.denied[t.name] = fmt.Errorf("denied, as to hook %s: %w", a.hook.name, unix.EPERM)
			}
			last = err
			a.refused = append(a.refused, t.name+": "+oneLine(err))
			if e := a.close(); e != nil {
				a.refused = append(a.refused, e.Error())
			}
			continue
		}
		a.tier = t
		return nil
	}
	return last
}

// denied reports whether a kernel refused a kind of program, and not this one in particular.
func denied(err error) bool {
	var v *ebpf.VerifierError
	return errors.Is(err, unix.EPERM) && !(errors.As(err, &v) && len(v.Log) > 0)
}

func oneLine(err error) string {
	var v *ebpf.VerifierError
	if errors.As(err, &v) && len(v.Log) > 0 {
		return fmt.Sprintf("%v (verifier: %s)", v.Cause, strings.TrimSpace(v.Log[len(v.Log)-1]))
	}
	return strings.ReplaceAll(noise.ReplaceAllString(err.Error(), ""), "\n", " ")
}

// noise is what the library says that helps nobody: a guess at a cause that is wrong from 5.11 on
// and lifted before, and names that differ from one try to the next.
var noise = regexp.MustCompile(` \(MEMLOCK may be too low, consider rlimit\.RemoveMemlock\)| \(arch-specific fallback for "\w+"\)|: creating probe entry on tracefs|goshawk_[0-9a-f]{16}/`)

func (l *loader) attachTier(a *attached, t *tier) error {
	if t.name == tierFanotify {
		var err error
		l.files, err = fanotify.Open(l.fs)
		return err
	}
	if a.hook.name == FileHook && t.name == "fexit" && l.preempts() {
		return errors.New("this kernel preempts such programs, and passes over what others do to files meanwhile")
	}
	if a.hook.name == FileHook && t.name == "kprobe" && !kernelAtLeast(5, 12) {
		return errors.New("before Linux 5.12 probes do not tell what renames are asked for")
	}
	// The library takes __x64_sys_mount for sys_mount where there is no other.
	if t.name == tierPlain && kernelAtLeast(4, 17) {
		return fmt.Errorf("the functions behind system calls are given registers since 4.17: %w", fs.ErrNotExist)
	}
	places, err := l.places(t)
	if err != nil {
		return err
	}
	if err := l.haveKprobes(places); err != nil {
		return err // before the verifier has worked for nothing
	}
	c, err := l.load(places...)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer c.Close()
	absent := map[string]bool{} // functions that this kernel has not
	for _, at := range places {
		// Up to 5.10 a kretprobe of what is not there is EINVAL, as much else is. The kprobe
		// before it knows.
		if absent[at.function] {
			continue
		}
		spec := l.spec.Programs[at.program]
		k, err := l.link(spec, at.function, c.Programs[at.loadedAs(spec)])
		if at.optional && errors.Is(err, fs.ErrNotExist) {
			absent[at.function] = true
			continue
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", at.entry, err)
		}
		a.links = append(a.links, k)
	}
	if len(a.links) == 0 {
		return fmt.Errorf("this kernel has none of what it attaches to: %w", fs.ErrNotExist)
	}
	for _, at := range places {
		if p := c.DetachProgram(at.loadedAs(l.spec.Programs[at.program])); p != nil {
			a.programs = append(a.programs, p)
		}
	}
	return nil
}

// haveKprobes fails where one of the places is a kprobe and this kernel was built without: it has
// neither the PMU (4.17, and RHEL 7's) nor the file in tracefs.
func (l *loader) haveKprobes(places []place) error {
	if !slices.ContainsFunc(places, func(at place) bool { return l.spec.Programs[at.program].Type == ebpf.Kprobe }) {
		return nil
	}
	for _, name := range []string{"bus/event_source/devices/kprobe/type", "kernel/tracing/kprobe_events", "kernel/debug/tracing/kprobe_events"} {
		if _, err := os.Stat(filepath.Join(l.fs.Sys, name)); err == nil {
			return nil
		}
	}
	return errors.New("this kernel has no kprobes, or neither tracefs nor debugfs is mounted")
}

// places are the entries of a tier that concern this kernel.
func (l *loader) places(t *tier) ([]place, error) {
	var out []place
	for _, entry := range t.programs {
		at := placeOf(entry)
		if at.optional && l.spec.Programs[at.program].Type == ebpf.Tracing {
			kernel, err := l.cache.Kernel() // where the function is looked up for attaching, too
			if err != nil {
				return nil, fmt.Errorf("read the kernel's BTF: %w", err)
			}
			var f *btf.Func
			if err := kernel.TypeByName(at.function, &f); errors.Is(err, btf.ErrNotFound) {
				continue
			} else if err != nil && !errors.Is(err, btf.ErrMultipleMatches) { // which attaching will say
				return nil, err
			}
		}
		out = append(out, at)
	}
	return out, nil
}

// link attaches p where its section says, or to function.
func (l *loader) link(spec *ebpf.ProgramSpec, function string, p *ebpf.Program) (io.Closer, error) {
	kind, where, _ := strings.Cut(spec.SectionName, "/")
	if function != "" {
		where = function
	}
	switch kind {
	case "tp_btf", "fentry", "fexit":
		return link.AttachTracing(link.TracingOptions{Program: p, AttachType: spec.AttachType})
	case "kprobe":
		return link.Kprobe(where, p, &link.KprobeOptions{TraceFSPrefix: "goshawk"})
	case "kretprobe":
		return link.Kretprobe(where, p, &link.KprobeOptions{TraceFSPrefix: "goshawk"})
	case "raw_tp":
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: where, Program: p})
	case "tracepoint":
		if l.tracefs == nil {
			fs, err := openTracefs(l.fs)
			if err != nil {
				return nil, err
			}
			l.tracefs = fs
		}
		return l.tracefs.attach(where, p)
	case "cgroup", "cgroup_skb":
		if l.cgroup == "" {
			if err := l.findCgroup2(); err != nil {
				return nil, err
			}
		}
		return link.AttachCgroup(link.CgroupOptions{Path: l.cgroup, Attach: spec.AttachType, Program: p})
	}
	return nil, fmt.Errorf("BUG: section %q has no way to attach", spec.SectionName)
}
