package sensor

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// oldKernels are kernels before BTF, by what their structures lack of those in bpf/lib/kernel.h
// and have of its flavours. A structure without a member goes away.
var oldKernels = []struct {
	name     string
	constant bool // see oldVerifier
	lacks    []string
	flavours []string
	refused  []string // programs that stand on what is not there, by parts of their names
}{
	{"3.10 as of RHEL 7", true,
		slices.Concat(before5_5, before4_14, []string{
			"task_struct.start_boottime", "task_struct.thread_pid", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node",
			"pid_namespace.ns", "net.ns", "sock_common.skc_net", "sock_common.skc_cookie", "sock_common.skc_flags",
			"msghdr.msg_iocb", "trace_event_raw_sched_process_fork", "trace_event_raw_sched_process_exit", "trace_event_raw_cgroup",
			"trace_event_raw_sys_enter", "trace_event_raw_sys_exit"}),
		[]string{"task_struct___before_3_17", "task_struct___before_4_19", "cgroup___before_3_15", "pid_namespace___before_3_19",
			"net___before_3_19", "sock_common___before_4_1", "sock___before_3_18", "sock___before_5_6"},
		[]string{"_pair_", "on_cgroup", "on_state_tracepoint"}},
	{"3.10 with plain ids", true,
		slices.Concat(before5_5, before4_14, plainIDs, []string{
			"task_struct.start_boottime", "task_struct.thread_pid", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node",
			"pid_namespace.ns", "net.ns", "sock_common.skc_net", "sock_common.skc_cookie", "sock_common.skc_flags",
			"msghdr.msg_iocb", "trace_event_raw_sched_process_fork", "trace_event_raw_sched_process_exit", "trace_event_raw_cgroup",
			"trace_event_raw_sys_enter", "trace_event_raw_sys_exit"}),
		[]string{"task_struct___before_3_17", "task_struct___before_4_19", "cgroup___before_3_15", "pid_namespace___before_3_19",
			"net___before_3_19", "sock_common___before_4_1", "sock___before_3_18", "sock___before_5_6",
			"cred___plain", "inode___plain", "task_struct___plain"},
		[]string{"_pair_", "on_cgroup", "on_state_tracepoint"}},
	{"4.14", false,
		slices.Concat(before5_5, before4_14, []string{"task_struct.start_boottime", "task_struct.thread_pid", "kernfs_node.id",
			"trace_event_raw_sched_process_exit.group_dead", "trace_event_raw_cgroup", "ftrace_raw_sched_process_fork"}),
		[]string{"task_struct___before_5_5", "task_struct___before_4_19", "kernfs_node___before_5_5", "sock___before_5_6"},
		[]string{"on_cgroup", "on_state_tracepoint"}},
	{"4.19", true,
		slices.Concat(before5_5, []string{"task_struct.start_boottime", "kernfs_node.id",
			"trace_event_raw_sched_process_exit.group_dead", "trace_event_raw_cgroup", "ftrace_raw_sched_process_fork"}),
		[]string{"task_struct___before_5_5", "kernfs_node___before_5_5", "sock___before_5_6"},
		[]string{"on_cgroup"}},
	{"5.7", true,
		[]string{"trace_event_raw_sched_process_exit.group_dead", "ftrace_raw_sched_process_fork"}, nil, nil},
}

var (
	before5_5  = []string{"tcp_sock.is_mptcp", "sock.sk_type", "sock.sk_protocol"}
	before4_14 = []string{"tcp_sock.bytes_retrans", "tcp_sock.bytes_sent", "trace_event_raw_inet_sock_set_state"}
	plainIDs   = []string{"cred", "inode.i_uid", "inode.i_gid", "task_struct.loginuid"}
)

// kernelTypes makes the types of an old kernel from those that the object knows.
type kernelTypes struct {
	local    map[string]*btf.Struct
	lacks    map[string]bool
	flavours map[string][]string // essential name → flavours
	made     map[string]*btf.Struct
}

func newKernelTypes(object *btf.Spec, lacks, flavours []string) (*btf.Spec, error) {
	k := kernelTypes{local: map[string]*btf.Struct{}, lacks: map[string]bool{}, flavours: map[string][]string{}, made: map[string]*btf.Struct{}}
	for t, err := range object.All() {
		if err != nil {
			return nil, err
		}
		if s, ok := t.(*btf.Struct); ok && s.Name != "" {
			k.local[s.Name] = s
		}
	}
	for _, l := range lacks {
		k.lacks[l] = true
	}
	for _, f := range flavours {
		name, _, _ := strings.Cut(f, "___")
		k.flavours[name] = append(k.flavours[name], f)
	}
	var all []btf.Type
	for _, name := range slices.Sorted(maps.Keys(k.local)) {
		essential, _, _ := strings.Cut(name, "___")
		if s := k.structure(essential); len(s.Members) > 0 {
			all = append(all, s)
		}
	}
	b, err := btf.NewBuilder(all, nil)
	if err != nil {
		return nil, err
	}
	return b.Spec()
}

// structure is the kernel's own of that name.
func (k *kernelTypes) structure(name string) *btf.Struct {
	if s := k.made[name]; s != nil {
		return s
	}
	s := &btf.Struct{Name: name}
	k.made[name] = s
	if strings.Contains(name, "trace_event_raw_") || strings.HasPrefix(name, "ftrace_raw_") {
		s.Size = 8 // what every event begins with, struct trace_entry
	}
	parts := k.flavours[name]
	if k.local[name] == nil && parts == nil { // gone since: a part of what one of the others has
		for other := range k.local {
			if strings.HasPrefix(other, name+"___") {
				parts = append(parts, other)
			}
		}
	}
	if !k.lacks[name] {
		parts = append([]string{name}, parts...)
	}
	for _, part := range parts {
		l := k.local[part]
		if l == nil {
			continue
		}
		for _, m := range l.Members {
			if part == name && k.lacks[name+"."+m.Name] {
				continue
			}
			if strings.HasPrefix(part, "sock___before_4_1") { // says no more than that sock_common differs
				continue
			}
			k.add(s, m)
		}
	}
	s.Size = (s.Size + 7) &^ 7
	return s
}

// add gives a member the next place: bit fields share a word, as they do there.
func (k *kernelTypes) add(s *btf.Struct, m btf.Member) {
	m.Type = k.convert(m.Type)
	size, err := btf.Sizeof(m.Type)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if m.BitfieldSize > 0 && len(s.Members) > 0 && s.Members[len(s.Members)-1].BitfieldSize > 0 {
		last := s.Members[len(s.Members)-1]
		m.Offset = last.Offset + last.BitfieldSize
	} else {
		m.Offset = btf.Bits(s.Size) * 8
		s.Size += uint32(max(size, 8)+7) &^ 7
	}
	s.Members = append(s.Members, m)
}

func (k *kernelTypes) convert(t btf.Type) btf.Type {
	switch t := t.(type) {
	case *btf.Pointer:
		switch to := btf.UnderlyingType(t.Target).(type) {
		case *btf.Struct:
			if to.Name != "" {
				name, _, _ := strings.Cut(to.Name, "___")
				return &btf.Pointer{Target: &btf.Fwd{Name: name}}
			}
		case *btf.Pointer:
			return &btf.Pointer{Target: k.convert(to)}
		}
		return &btf.Pointer{Target: &btf.Void{}}
	case *btf.Struct:
		if t.Name != "" {
			name, _, _ := strings.Cut(t.Name, "___")
			return k.structure(name)
		}
		c := &btf.Struct{}
		for _, m := range t.Members {
			k.add(c, m)
		}
		return c
	case *btf.Union:
		name, _, _ := strings.Cut(t.Name, "___")
		c := &btf.Union{Name: name, Size: t.Size}
		for _, m := range t.Members {
			m.Type = k.convert(m.Type)
			if n, err := btf.Sizeof(m.Type); err == nil {
				c.Size = max(c.Size, uint32(n))
			}
			c.Members = append(c.Members, m)
		}
		return c
	case *btf.Typedef:
		return &btf.Typedef{Name: t.Name, Type: k.convert(t.Type)}
	case *btf.Const:
		return &btf.Const{Type: k.convert(t.Type)}
	case *btf.Volatile:
		return &btf.Volatile{Type: k.convert(t.Type)}
	case *btf.Array:
		return &btf.Array{Index: t.Index, Type: k.convert(t.Type), Nelems: t.Nelems}
	}
	return t
}

// relocate returns a program as it is loaded on a kernel of these types.
func relocate(t *testing.T, p *ebpf.ProgramSpec, types *btf.Spec) []asm.Instruction {
	t.Helper()
	ins := slices.Clone(p.Instructions)
	var relos []*btf.CORERelocation
	var at []int
	for i := range ins {
		if r := btf.CORERelocationMetadata(&ins[i]); r != nil {
			relos, at = append(relos, r), append(at, i)
		}
	}
	if len(relos) == 0 {
		return ins
	}
	fixups, err := btf.CORERelocate(relos, []*btf.Spec{types}, binary.LittleEndian, func(btf.Type) (btf.TypeID, error) { return 1, nil })
	if err != nil {
		t.Fatalf("%s: %v", p.Name, err)
	}
	for i, f := range fixups {
		if err := f.Apply(&ins[at[i]]); err != nil {
			t.Fatalf("%s: %d: %v", p.Name, at[i], err)
		}
	}
	return ins
}

// Every program of the legacy object is taken by the verifiers of old kernels, as we know
// them, relocated for the structures of those kernels; no way leads to an access that was
// not relocated. What stands on a tracepoint that a kernel lacks is refused there.
func TestLegacyOldKernels(t *testing.T) {
	for _, file := range files["legacy"] {
		spec, err := ebpf.LoadCollectionSpec(file)
		if err != nil {
			t.Fatal(err)
		}
		cpus := uint32(4)
		spec.Maps["builds"].MaxEntries = cpus
		for _, k := range oldKernels {
			t.Run(k.name+"/"+strings.TrimSuffix(strings.TrimPrefix(file, "../../bpf/legacy_"), "_bpfel_gen.o"), func(t *testing.T) {
				types, err := newKernelTypes(spec.Types, k.lacks, k.flavours)
				if err != nil {
					t.Fatal(err)
				}
				most, name := 0, ""
				for _, p := range spec.Programs {
					v := oldVerifier{ins: relocate(t, p, types), maps: spec.Maps, constant: k.constant, context: 2048, from: 8}
					if p.Type == ebpf.Kprobe {
						v.context, v.from = 512, 0 // a made up struct pt_regs
					}
					n, err := v.verify()
					refused := slices.ContainsFunc(k.refused, func(part string) bool { return strings.Contains(p.Name, part) })
					switch {
					case err != nil && !refused:
						t.Errorf("%s: %v (after %d)", p.Name, err, n)
					case err == nil && refused:
						t.Errorf("%s is taken: strike it from refused", p.Name)
					}
					if err == nil && n > most {
						most, name = n, p.Name
					}
				}
				t.Logf("%s is the longest, %d instructions of %d", name, most, oldWalked)
			})
		}
	}
}
