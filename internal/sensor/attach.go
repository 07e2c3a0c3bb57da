package sensor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// loader loads programs and attaches them to the running kernel.
type loader struct {
	spec   *ebpf.CollectionSpec
	maps   map[string]*ebpf.Map
	cache  *btf.Cache // the kernel's types, decoded once for all programs
	types  *btf.Spec  // instead of the running kernel's, or nil
	forced map[string]string
	tried  map[string]bool  // tiers that a hook has tried
	denied map[string]error // those that this kernel grants to nobody

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
	var all, first, second []*attached
	for i := range hooks {
		h := &hooks[i]
		if kindMask(h.kinds)&wanted == 0 || h.name == FileHook && !l.wantFiles || h.absent(l.fs) {
			continue
		}
		a := &attached{hook: h}
		all = append(all, a)
		// What tells of bpf(2) comes last: what we load and attach ourselves is over by then, but
		// for the iterator.
		if beside[h.name] != nil || h.name == "bpf" {
			second = append(second, a)
		} else {
			first = append(first, a)
		}
	}
	l.keep(all)
	l.attachTogether(first)
	unneeded := func(a *attached) bool {
		of := beside[a.hook.name]
		return of != nil && !slices.ContainsFunc(first, func(b *attached) bool {
			return slices.Contains(of, b.hook.name) && b.atCalls()
		})
	}
	all, second = slices.DeleteFunc(all, unneeded), slices.DeleteFunc(second, unneeded)
	l.attachTogether(second)

	var denied error
	works := 0
	for _, a := range all {
		if a.tier == nil && errors.Is(a.last, unix.EPERM) {
			denied = a.last
		}
		if a.tier != nil && kindMask(a.hook.kinds)&asked != 0 {
			works++
		}
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

// keep lets go of programs that none of hooks can use. All of them are several times as large in
// memory as the agent's own state.
func (l *loader) keep(hooks []*attached) {
	needed := map[string]bool{seedProgram: true, fileSeedProgram: l.wantFiles}
	for _, a := range hooks {
		for i := range a.hook.tiers {
			for _, e := range a.hook.tiers[i].programs {
				needed[placeOf(e).program] = true
			}
		}
	}
	maps.DeleteFunc(l.spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !needed[name] })
}

// attachTogether takes each of hooks to the best tier that this kernel grants it. The verifier's
// work is most of what starting takes, so what the hooks are to try next is loaded at the same
// time, and then attached in their order, until all have a tier or have none left. Of a tier that
// nobody has tried one hook tries it alone: many kernels deny fexit or kprobes to everybody.
func (l *loader) attachTogether(hooks []*attached) {
	for {
		var turn []*trial
		alone := map[string]bool{}
		for _, a := range hooks {
			t := l.next(a)
			if t == nil || alone[t.name] {
				continue
			}
			alone[t.name] = !l.tried[t.name]
			turn = append(turn, &trial{hook: a, tier: t})
		}
		if len(turn) == 0 {
			return
		}
		l.loadTogether(turn)
		for _, x := range turn {
			err := x.err
			if err == nil {
				err = l.link(x)
			}
			l.tried[x.tier.name] = true
			if err == nil {
				x.hook.tier = x.tier
				continue
			}
			if l.denied[x.tier.name] == nil && denied(err) {
				l.denied[x.tier.name] = fmt.Errorf("denied, as to hook %s: %w", x.hook.hook.name, unix.EPERM)
			}
			x.hook.refuse(x.tier, err)
			if e := x.hook.close(); e != nil {
				x.hook.refused = append(x.hook.refused, e.Error())
			}
		}
	}
}

// next is the tier that a hook is to try, nil when it has one or none is left. What need not be
// tried to be refused is passed over.
func (l *loader) next(a *attached) *tier {
	if a.tier != nil {
		return nil
	}
	only := l.forced[a.hook.name]
	for a.past < len(a.hook.tiers) {
		t := &a.hook.tiers[a.past]
		if only != "" && t.name != only {
			a.refused = append(a.refused, t.name+": not wanted")
			a.past++
			continue
		}
		err := l.denied[t.name]
		if err == nil {
			err = l.unfit(a.hook, t)
		}
		if err == nil {
			return t
		}
		a.refuse(t, err)
	}
	return nil
}

// refuse keeps why a hook could not have a tier, and goes on to the next.
func (a *attached) refuse(t *tier, err error) {
	a.refused = append(a.refused, t.name+": "+oneLine(err))
	a.last = err
	a.past++
}

// trial is a hook that tries a tier, with the programs once they are loaded.
type trial struct {
	hook   *attached
	tier   *tier
	places []place
	loaded *ebpf.Collection // nil for a tier without programs
	err    error
}

// mostLoaders bounds how many programs the verifier looks at at a time: it takes memory for each.
const mostLoaders = 4

// loadTogether loads what all trials need, and is done when all are.
func (l *loader) loadTogether(turn []*trial) {
	bySize := slices.Clone(turn) // what takes longest begins first
	slices.SortStableFunc(bySize, func(x, y *trial) int { return len(y.tier.programs) - len(x.tier.programs) })
	var next atomic.Int32
	var wait sync.WaitGroup
	for range min(len(turn), runtime.GOMAXPROCS(0), mostLoaders) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(bySize) {
					return
				}
				bySize[i].err = l.loadTier(bySize[i])
			}
		})
	}
	wait.Wait()
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

// unfit says why a hook can not have a tier here, where that shows before the verifier has worked
// for nothing; nil when it is worth a try.
func (l *loader) unfit(h *hook, t *tier) error {
	switch {
	case h.name == FileHook && t.name == "fexit" && l.preempts():
		return errors.New("this kernel preempts such programs, and passes over what others do to files meanwhile")
	case h.name == FileHook && t.name == "kprobe" && !kernelAtLeast(5, 12):
		return errors.New("before Linux 5.12 probes do not tell what renames are asked for")
	// The library takes __x64_sys_mount for sys_mount where there is no other.
	case t.name == tierPlain && kernelAtLeast(4, 17):
		return fmt.Errorf("the functions behind system calls are given registers since 4.17: %w", fs.ErrNotExist)
	}
	return l.haveKprobes(t)
}

// loadTier loads the programs of a tier. It may run for several at a time.
func (l *loader) loadTier(x *trial) error {
	if x.tier.name == tierFanotify {
		return nil
	}
	var err error
	if x.places, err = l.places(x.tier); err != nil {
		return err
	}
	if x.loaded, err = l.load(x.places...); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// link attaches what loadTier has loaded.
func (l *loader) link(x *trial) error {
	if x.tier.name == tierFanotify {
		var err error
		l.files, err = fanotify.Open(l.fs)
		return err
	}
	a, c := x.hook, x.loaded
	defer c.Close()
	absent := map[string]bool{} // functions that this kernel has not
	for _, at := range x.places {
		// Up to 5.10 a kretprobe of what is not there is EINVAL, as much else is. The kprobe
		// before it knows.
		if absent[at.function] {
			continue
		}
		spec := l.spec.Programs[at.program]
		k, err := l.linkAt(spec, at.function, c.Programs[at.loadedAs(spec)])
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
	for _, at := range x.places {
		if p := c.DetachProgram(at.loadedAs(l.spec.Programs[at.program])); p != nil {
			a.programs = append(a.programs, p)
		}
	}
	return nil
}

// haveKprobes fails where a program of the tier is a kprobe and this kernel was built without: it has
// neither the PMU (4.17, and RHEL 7's) nor the file in tracefs.
func (l *loader) haveKprobes(t *tier) error {
	if !slices.ContainsFunc(t.programs, func(e string) bool { return l.spec.Programs[placeOf(e).program].Type == ebpf.Kprobe }) {
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

// linkAt attaches p where its section says, or to function.
func (l *loader) linkAt(spec *ebpf.ProgramSpec, function string, p *ebpf.Program) (io.Closer, error) {
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
