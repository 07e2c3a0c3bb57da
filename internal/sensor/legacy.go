package sensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// An object is one compilation of the BPF programs, with what it can hook.
type object struct {
	name  string
	spec  func() (*ebpf.CollectionSpec, error)
	hooks []hook
	perf  bool // perf buffers in place of rings, and settings in a map in place of variables
}

// objects are the compilations there are; the first that a kernel takes is its best.
var objects = []*object{
	{name: "modern", spec: bpf.LoadGoshawk, hooks: hooks},
	{name: "legacy", spec: bpf.LoadLegacy, hooks: legacyHooks, perf: true},
}

// legacyHooks is every place where the legacy object looks, best tier first: from 3.10, as
// Red Hat has it since RHEL 7.6, to the last kernel without ring buffers, 5.7. Before 4.15 a
// tracepoint takes one program, whosesoever, so each hook has a tier that needs none.
var legacyHooks = []hook{
	{"exec", []event.ID{event.KindExec}, []tier{
		{"kprobe", []string{"on_exec_begins", "on_exec_tracepoint", "on_exec_ends"}},
		{"kprobe_late", []string{"on_exec_begins", "on_exec_ends"}},
		{"tracepoint", []string{"on_exec_tracepoint"}},
	}},
	{"fork", []event.ID{event.KindFork}, []tier{
		{"kprobe", []string{"on_fork_kprobe"}},
		{"tracepoint", []string{"on_fork_tracepoint"}},
	}},
	{"exit", []event.ID{event.KindExit}, []tier{
		{"tracepoint", []string{"on_exit_tracepoint"}},
		{"kprobe", []string{"on_exit_kprobe"}},
	}},
	{"tcp_state", []event.ID{event.KindClose, event.KindConnect}, []tier{
		{"tracepoint", []string{"on_state_tracepoint"}},
		{"kprobe", []string{"on_state_kprobe"}},
	}},
	{"connect", []event.ID{event.KindConnect}, []tier{
		{"kprobe", slices.Concat(
			both("on_connect_sent", "tcp_v4_connect", "tcp_v6_connect?", "mptcp_connect?"),
			both("on_connect", "inet_dgram_connect", "unix_stream_connect", "unix_dgram_connect", "mptcp_stream_connect?"),
			both("on_connect_denied", "security_socket_connect"))},
		{"tracepoint_pair", []string{"on_connect_pair_enter", "on_connect_pair_exit"}},
	}},
	{"accept", []event.ID{event.KindAccept, event.KindClose}, []tier{
		{"kprobe", slices.Concat([]string{"on_accept_kprobe"}, both("on_accept_denied", "security_socket_accept"))},
		{"tracepoint_pair", []string{"on_accept_pair_enter", "on_accept_pair_exit",
			"on_accept4_pair_enter", "on_accept4_pair_exit"}},
	}},
	{"bind", []event.ID{event.KindBind}, []tier{
		{"kprobe", slices.Concat(
			both("on_bind", "inet_bind", "inet6_bind?", "unix_bind", "mptcp_bind?"),
			both("on_bind_denied", "security_socket_bind"))},
		{"tracepoint_pair", []string{"on_bind_pair_enter", "on_bind_pair_exit"}},
	}},
	{"listen", []event.ID{event.KindListen}, []tier{
		{"kprobe", slices.Concat(
			both("on_listen", "inet_listen", "unix_listen", "mptcp_listen?"),
			both("on_listen_denied", "security_socket_listen"))},
		{"tracepoint_pair", []string{"on_listen_pair_enter", "on_listen_pair_exit"}},
	}},
	{"datagram", []event.ID{event.KindConnect}, []tier{
		{"kprobe", []string{"on_datagram4_kprobe", "on_datagram6_kprobe@udpv6_sendmsg?"}},
	}},
	{"dns", []event.ID{event.KindDNS}, []tier{
		{"kprobe", []string{"on_question_kprobe", "on_question6_kprobe@ip6_send_skb?", "on_question6_old_kprobe@ip6_local_out?",
			"on_answer_kprobe@__udp_enqueue_schedule_skb?", "on_answer_kprobe@sock_queue_rcv_skb?"}},
	}},
	{FileHook, []event.ID{event.KindFile}, []tier{
		{tierFanotify, nil},
	}},
	{"cgroup", []event.ID{event.KindContainer}, []tier{
		{"tracepoint", []string{"on_cgroup_mkdir_tracepoint", "on_cgroup_rmdir_tracepoint", "on_cgroup_rename_tracepoint"}},
	}},
	{"credential", []event.ID{event.KindCredential}, []tier{
		{"kprobe", []string{"on_commit_kprobe"}},
		{"tracepoint_pair", credentialPairs()},
	}},
	{"ptrace", []event.ID{event.KindPtrace}, withMemory(legacyActs("ptrace", "process_vm_readv", "process_vm_writev"))},
	{"signal", []event.ID{event.KindSignal}, []tier{{"tracepoint", []string{"on_signal_tracepoint"}}}},
	{"module", []event.ID{event.KindModule}, []tier{{"tracepoint", []string{"on_module_load_tracepoint", "on_module_free_tracepoint"}}}},
	{"mount", []event.ID{event.KindMount}, legacyActs("mount", "umount", "pivot_root")},
	{"namespace", []event.ID{event.KindNamespace}, legacyActs("setns", "unshare", "chroot")},
	{"memory", []event.ID{event.KindMemory}, legacyActs("memfd_create?", "mprotect", "mmap?")},
	{"bpf", []event.ID{event.KindBPF}, legacyActs("bpf?")},
}

// tierPlain is on functions that are given the arguments of a system call, and not registers.
const tierPlain = "kprobe_plain"

// legacyActs are the tiers of a hook on system calls: on the functions behind them, which are given
// the arguments themselves before 4.17 (4.19 on arm64), or on their tracepoints.
func legacyActs(calls ...string) []tier {
	t := []tier{{name: "kprobe"}, {name: tierPlain}, {"tracepoint_pair", pairs(calls...)}}
	for _, c := range calls {
		name := "on_" + strings.TrimSuffix(c, "?")
		t[0].programs = append(t[0].programs, both(name, callFunction+c)...)
		t[1].programs = append(t[1].programs, name+"_plain_kprobe@sys_"+c, name+"_kretprobe@sys_"+c)
	}
	return t
}

// choose returns the object called name; for "", the best that this kernel takes.
func choose(name string) (*object, error) {
	if name == "" {
		// Every kernel with ring buffers (5.8) has what the modern object needs besides.
		if errors.Is(features.HaveMapType(ebpf.RingBuf), ebpf.ErrNotSupported) {
			return objects[1], nil
		}
		return objects[0], nil
	}
	for _, o := range objects {
		if o.name == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("no BPF object is called %q; objects are modern, legacy", name)
}

// legacySettings is what variables are in the modern object.
func legacySettings(o *Options, wanted uint64, cache *btf.Cache, types *btf.Spec) bpf.LegacySettings {
	controller, hierarchy := o.v1(cache, types)
	set := func(b bool) uint32 {
		if b {
			return 1
		}
		return 0
	}
	return bpf.LegacySettings{
		Kinds:        wanted,
		BootOffset:   suspended(),
		DnsPort:      53,
		WithEnv:      set(len(o.Env) > 0),
		V1Controller: int32(controller),
		V1Hierarchy:  int32(hierarchy),
		OvlInode:     set(kernelAtLeast(4, 13)),
		OvlMetacopy:  set(kernelAtLeast(4, 19)),
	}
}

// nameCPUs writes its number into each CPU's scratch.
func (s *Sensor) nameCPUs() error {
	m := s.maps["scratch"]
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %w", err)
	}
	values := make([][]byte, cpus)
	for cpu := range values {
		values[cpu] = binary.NativeEndian.AppendUint32(nil, uint32(cpu))
		values[cpu] = append(values[cpu], make([]byte, m.ValueSize()-4)...)
	}
	if err := m.Put(uint32(0), values); err != nil {
		return fmt.Errorf("write BPF map %q: %w", "scratch", err)
	}
	return nil
}

func (s *Sensor) putSettings() error {
	if err := s.maps["options"].Put(uint32(0), s.settings); err != nil {
		return fmt.Errorf("write BPF map %q: %w", "options", err)
	}
	return nil
}

// followClock keeps the legacy programs' clock in step after the machine was suspended: they
// have the one that stood still meanwhile.
func (s *Sensor) followClock() error {
	if !s.object.perf || s.settings.BootOffset == s.boot.suspended {
		return nil
	}
	s.settings.BootOffset = s.boot.suspended
	return s.putSettings()
}

// settle accounts for records that did not arrive.
func (s *Sensor) settle() {
	if s.numbers == nil {
		return
	}
	s.numbers.unsettled.Store(false)
	s.numbers.settle(func(kind uint32) []uint64 {
		var sent []uint64
		var per []bpf.GoshawkCounts
		if s.maps["counters"].Lookup(kind, &per) == nil {
			for _, c := range per {
				sent = append(sent, c.Sent)
			}
		}
		return sent
	})
}
