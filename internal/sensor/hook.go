package sensor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// A tier is one way to attach a hook: programs that are attached all or none.
type tier struct {
	name     string
	programs []string
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

// hooks is every place where we look, best tier first. A better tier (LSM, fentry, kprobe)
// goes on top of its list.
var hooks = []hook{
	{"exec", []event.ID{event.KindExec}, []tier{
		{"tp_btf", []string{"on_exec_tp_btf"}},
		{"raw_tp", []string{"on_exec_raw_tp"}},
	}},
	{"fork", []event.ID{event.KindFork}, []tier{
		{"tp_btf", []string{"on_fork_tp_btf"}},
		{"raw_tp", []string{"on_fork_raw_tp"}},
	}},
	{"exit", []event.ID{event.KindExit}, []tier{
		{"tp_btf", []string{"on_exit_tp_btf"}},
		{"raw_tp", []string{"on_exit_raw_tp"}},
	}},
	{"tcp_state", []event.ID{event.KindClose, event.KindConnect}, []tier{
		{"tp_btf", []string{"on_state_tp_btf", "on_state_tp_btf_second"}},
		{"raw_tp", []string{"on_state_raw_tp", "on_state_raw_tp_second"}},
	}},
	{"connect", []event.ID{event.KindConnect}, []tier{
		{"fexit", []string{"on_connect_fexit"}},
		{"tracepoint", []string{"on_connect_exit"}},
		{"tracepoint_pair", []string{"on_connect_pair_enter", "on_connect_pair_exit"}},
	}},
	{"accept", []event.ID{event.KindAccept, event.KindClose}, []tier{
		{"fexit", []string{"on_accept_fexit_inet", "on_accept_fexit_unix"}},
		{"tracepoint", []string{"on_accept_exit", "on_accept4_exit"}},
		{"tracepoint_pair", []string{"on_accept_pair_enter", "on_accept_pair_exit",
			"on_accept4_pair_enter", "on_accept4_pair_exit"}},
	}},
	{"bind", []event.ID{event.KindBind}, []tier{
		{"fexit", []string{"on_bind_fexit_inet", "on_bind_fexit_inet6", "on_bind_fexit_unix"}},
		{"tracepoint", []string{"on_bind_exit"}},
		{"tracepoint_pair", []string{"on_bind_pair_enter", "on_bind_pair_exit"}},
	}},
	{"listen", []event.ID{event.KindListen}, []tier{
		{"fexit", []string{"on_listen_fexit_inet", "on_listen_fexit_unix"}},
		{"tracepoint", []string{"on_listen_exit"}},
		{"tracepoint_pair", []string{"on_listen_pair_enter", "on_listen_pair_exit"}},
	}},
	{"datagram", []event.ID{event.KindConnect}, []tier{
		{"cgroup", []string{"on_sendmsg4", "on_sendmsg6"}},
	}},
	{"dns", []event.ID{event.KindDNS}, []tier{
		{"cgroup", []string{"on_dns_egress", "on_dns_ingress"}},
	}},
	{"cgroup", []event.ID{event.KindContainer}, []tier{
		{"tp_btf", []string{"on_cgroup_mkdir_tp_btf", "on_cgroup_rmdir_tp_btf", "on_cgroup_rename_tp_btf"}},
		{"raw_tp", []string{"on_cgroup_mkdir_raw_tp", "on_cgroup_rmdir_raw_tp", "on_cgroup_rename_raw_tp"}},
	}},
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

	fs      procfs.FS
	cgroup  string // the cgroup2 mount, found when first needed
	tracefs *tracefs
}

// load loads the programs called names, over the maps that are there.
func (l *loader) load(names ...string) (*ebpf.Collection, error) {
	spec := &ebpf.CollectionSpec{
		Maps: l.spec.Maps, Types: l.spec.Types, ByteOrder: l.spec.ByteOrder,
		Programs: make(map[string]*ebpf.ProgramSpec, len(names)),
	}
	for _, name := range names {
		p := l.spec.Programs[name]
		if p == nil {
			return nil, fmt.Errorf("BUG: no program %q in the object", name)
		}
		spec.Programs[name] = p
	}
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: l.maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: l.types},
		Cache:           l.cache,
	})
}

// close gives back what was needed for attaching only.
func (l *loader) close() error {
	if l.tracefs == nil {
		return nil
	}
	return l.tracefs.close()
}

// attachAll attaches every hook that a wanted kind needs.
func (l *loader) attachAll(hooks []hook, wanted uint64) ([]*attached, error) {
	if err := l.checkForced(hooks); err != nil {
		return nil, err
	}
	var all []*attached
	var denied error
	works := 0
	for i := range hooks {
		if kindMask(hooks[i].kinds)&wanted == 0 {
			continue
		}
		a := &attached{hook: &hooks[i]}
		if err := l.attach(a); errors.Is(err, unix.EPERM) {
			denied = err
		}
		if a.tier != nil {
			works++
		}
		all = append(all, a)
	}
	if works > 0 {
		return all, nil
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
	// The library's guess at a cause is wrong from 5.11 on, and lifted before.
	text := strings.ReplaceAll(err.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
	return strings.ReplaceAll(text, "\n", " ")
}

func (l *loader) attachTier(a *attached, t *tier) error {
	c, err := l.load(t.programs...)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer c.Close()
	for _, name := range t.programs {
		p := c.DetachProgram(name)
		a.programs = append(a.programs, p)
		k, err := l.link(l.spec.Programs[name].SectionName, p, l.spec.Programs[name].AttachType)
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		a.links = append(a.links, k)
	}
	return nil
}

func (l *loader) link(section string, p *ebpf.Program, as ebpf.AttachType) (io.Closer, error) {
	kind, where, _ := strings.Cut(section, "/")
	switch kind {
	case "tp_btf":
		return link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
	case "fexit":
		return link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceFExit})
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
			root, err := l.fs.Cgroup2()
			if err != nil {
				return nil, err
			}
			l.cgroup = root
		}
		return link.AttachCgroup(link.CgroupOptions{Path: l.cgroup, Attach: as, Program: p})
	}
	return nil, fmt.Errorf("BUG: section %q has no way to attach", section)
}
