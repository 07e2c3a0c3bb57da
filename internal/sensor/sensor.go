// Package sensor loads the BPF programs, attaches each hook at the best tier that this
// kernel grants, reads the rings, and decodes records into events. It knows event and
// nothing above it: not the process table, the store or a rule. Everything that arrives
// from the rings is checked before use. A Sensor owns its maps, links and readers; its one
// goroutine is the caller of Run.
package sensor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
	"golang.org/x/sys/unix"
)

// Sizes of the rings when Options leave them zero. A ring is mapped twice, so it costs
// twice its bytes of resident memory.
const (
	DefaultCritical = 2 << 20
	DefaultBulk     = 4 << 20
)

// Options say what to sense. The zero Options sense everything with the running kernel's BTF.
type Options struct {
	Kinds         []event.ID        // nil means all
	Also          []event.ID        // kinds that help to complete the others: sensed when they can be
	Tiers         map[string]string // hook → the only tier to try
	CriticalBytes int               // size of the ring for critical kinds: a power of two, a page or more
	BulkBytes     int               // size of the ring for the others
	Env           []string          // environment variables to keep with an exec
	BTF           string            // file with the kernel's types (LoadTypes), "" for the running kernel's own
	BootID        string            // identity of this boot, for the events
	Object        string            // "modern", "legacy", or "" for the best that this kernel takes
	FS            procfs.FS         // where arguments of running processes are read
	Files         *selection.Set    // files of which kind file tells; nil: none, now or later; see Watch
}

// Sensor is a loaded set of BPF programs.
type Sensor struct {
	options Options
	object  *object
	maps    map[string]*ebpf.Map
	hooks   []*attached
	boot    bootClock
	decode  *decoder

	seed        *ebpf.Collection // the task iterator, nil where it is refused
	seedRefused error

	critical, bulk buffer
	wake           int // eventfd that ends Run's wait
	poll           int // epoll over both buffers and wake

	settings bpf.LegacySettings // of the legacy object
	numbers  *numbers           // of the records in its buffers

	watched   *watched         // nil unless hook file is at a tier of programs
	files     *fanotify.Reader // nil unless it is at that one
	filesRead uint64           // when it was read last, ns since boot
	filesMore bool             // there is more to read
	changes   []fanotify.Change

	held     held
	fresh    []byte // bulk records read ahead, one after the other
	freshAt  []int  // where each ends
	detached bool
	mu       sync.Mutex // guards maps and the programs of hooks, once they are set, and final
	final    []event.Count
	closed   sync.Once
	closeErr error
}

// Open loads and attaches. It fails as a whole only when not one hook works: with an error
// that wraps unix.EPERM when the privilege is missing, else with *Unsupported.
func Open(o Options) (*Sensor, error) {
	s := &Sensor{options: o, wake: -1, poll: -1}
	s.held.init()
	if err := s.open(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Sensor) open() error {
	o := &s.options
	// Before 5.11 maps count against RLIMIT_MEMLOCK. Where it may not be raised, creating
	// them tells whether it had to be.
	_ = rlimit.RemoveMemlock()
	var err error
	if s.object, err = choose(o.Object); err != nil {
		return err
	}
	cache := btf.NewCache()
	if o.BTF == "" {
		// Reading the kernel's types takes as long as reading the object.
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = cache.Kernel() }) // who needs them hears the error
		defer reading.Wait()
	}
	spec, err := s.object.spec()
	if err != nil {
		return fmt.Errorf("read BPF object: %w", err)
	}
	asked := kindMask(o.Kinds)
	wanted := asked
	for _, k := range o.Also {
		wanted |= 1 << k
	}
	var types *btf.Spec
	if o.BTF != "" {
		if types, err = LoadTypes(o.BTF); err != nil {
			return err
		}
	}
	if err := configure(s.object, spec, o, wanted, cache, types); err != nil {
		return err
	}
	l := loader{spec: spec, cache: cache, types: types, forced: o.Tiers, tried: map[string]bool{}, denied: map[string]error{}, fs: o.FS, wantFiles: o.Files != nil}
	base, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Maps: spec.Maps, Variables: spec.Variables, Types: spec.Types, ByteOrder: spec.ByteOrder})
	if err != nil {
		return fmt.Errorf("create BPF maps: %w", err)
	}
	s.maps = base.Maps
	base.Maps = nil
	base.Close()
	if s.object.perf {
		s.settings = legacySettings(o, wanted, cache, types)
		s.boot.suspended = s.settings.BootOffset
		s.numbers = newNumbers(int(s.maps["critical"].MaxEntries()))
		if err := errors.Join(s.putSettings(), s.nameCPUs()); err != nil {
			return err
		}
	}
	// Before the hooks: a record must find the way to us.
	if err := s.openBuffers(); err != nil {
		return err
	}

	l.maps = s.maps
	s.hooks, err = l.attachAll(s.object.hooks, wanted, asked)
	s.files = l.files
	if err = errors.Join(err, l.close()); err != nil {
		return err
	}
	if slices.ContainsFunc(s.hooks, func(a *attached) bool {
		return a.hook.name == FileHook && a.tier != nil && a.tier.name != tierFanotify
	}) {
		if s.watched, err = newWatched(o.FS, s.maps["file_roots"]); err != nil {
			return err
		}
		s.watched.opened, s.watched.refused = l.load(placeOf(fileSeedProgram))
	}
	if err := s.startFiles(); err != nil {
		return err
	}
	if s.object.perf {
		s.seedRefused = fmt.Errorf("BPF iterators: %w", ebpf.ErrNotSupported)
	} else {
		s.seed, s.seedRefused = l.load(placeOf(seedProgram))
	}
	if err := s.tellHooks(spec); err != nil {
		return err
	}
	s.decode = newDecoder(o)
	if s.object.perf {
		s.decode.proc = &o.FS
	}
	return nil
}

// configure sets sizes and constants before anything is created.
func configure(obj *object, spec *ebpf.CollectionSpec, o *Options, wanted uint64, cache *btf.Cache, types *btf.Spec) error {
	if o.CriticalBytes == 0 {
		o.CriticalBytes = DefaultCritical
	}
	if o.BulkBytes == 0 {
		o.BulkBytes = DefaultBulk
	}
	page := os.Getpagesize()
	for _, n := range []int{o.CriticalBytes, o.BulkBytes} {
		if n < page || n&(n-1) != 0 {
			return fmt.Errorf("ring of %d bytes: the size must be a power of two of at least %d", n, page)
		}
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		cpus = runtime.NumCPU()
	}
	spec.Maps["builds"].MaxEntries = uint32(cpus) + 1
	if obj.perf {
		spec.Maps["critical"].MaxEntries = uint32(cpus)
		spec.Maps["bulk"].MaxEntries = uint32(cpus)
		return nil
	}
	spec.Maps["critical"].MaxEntries = uint32(o.CriticalBytes)
	spec.Maps["bulk"].MaxEntries = uint32(o.BulkBytes)
	// Before 6.1 the kernel allocates the elements of such maps as anybody would: not from
	// within everything that a tracepoint may interrupt. There they are all made beforehand.
	if features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnUserRingbufDrain) != nil {
		for _, m := range spec.Maps {
			m.Flags &^= unix.BPF_F_NO_PREALLOC
		}
	}
	controller, hierarchy := o.v1(cache, types)
	values := map[string]any{}
	if o.Files != nil {
		values = fileArguments(cache)
	} else { // nothing of hook file is loaded
		for _, name := range []string{"file_roots", "file_calls", "file_opens"} {
			spec.Maps[name].MaxEntries = 1
		}
	}
	maps.Copy(values, map[string]any{
		"v1_controller":    int32(controller),
		"v1_hierarchy":     int32(hierarchy),
		"ovl_inode":        true,
		"ovl_metacopy":     kernelAtLeast(4, 19),
		"cgroup_path_told": kernelAtLeast(4, 19),
		"kinds":            wanted,
		"rare_calls":       rareNumbers(),
		"with_env":         len(o.Env) > 0,
		"iterator_slot":    uint32(cpus),
		"preemptible":      kernelAtLeast(6, 15),
		"task_regs":        features.HaveProgramHelper(ebpf.Kprobe, asm.FnTaskPtRegs) == nil,
		"cgroup_task_regs": features.HaveProgramHelper(ebpf.CGroupSock, asm.FnTaskPtRegs) == nil &&
			features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnTaskPtRegs) == nil,
	})
	for name, value := range values {
		v := spec.Variables[name]
		if v == nil {
			return fmt.Errorf("BUG: BPF object has no variable %q", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set BPF constant %q: %w", name, err)
		}
	}
	return nil
}

// kernelAtLeast compares the running kernel's version. What can be probed is probed.
func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

func kindMask(kinds []event.ID) uint64 {
	if kinds == nil {
		return ^uint64(0)
	}
	var m uint64
	for _, k := range kinds {
		m |= 1 << k
	}
	return m
}

// tellHooks lets the programs know which hooks are there to tell what, and which are not: the
// exit of connect(2) speaks for TCP when nothing below it can, and what is asked in other ways than
// a native system call is told apart when the hooks see nothing else (bpf/way.bpf.h).
func (s *Sensor) tellHooks(spec *ebpf.CollectionSpec) error {
	var noState, uring uint32 = 1, 0
	var byCall uint64
	for _, h := range s.hooks {
		switch {
		case h.tier == nil:
		case h.hook.name == "tcp_state":
			noState = 0
		case h.hook.name == "io_uring":
			uring = 1
		case slices.Contains(beside["io_uring"], h.hook.name) && h.atCalls():
			byCall |= 1 << h.hook.kinds[0]
		}
	}
	if s.object.perf {
		s.settings.NoStateHook = noState
		return s.putSettings()
	}
	bss := s.maps[".bss"]
	if bss == nil {
		return errors.New("BUG: BPF object has no .bss")
	}
	value := make([]byte, bss.ValueSize())
	put := func(name string, n uint64) {
		v := spec.Variables[name]
		b := binary.NativeEndian.AppendUint64(nil, n) // little-endian, as the objects are
		copy(value[v.Offset:v.Offset+v.Size()], b)
	}
	put("no_state_hook", uint64(noState))
	put("uring_hook", uint64(uring))
	put("by_call", byCall)
	return bss.Put(uint32(0), value)
}

// Hooks returns the state of every hook that an enabled kind needs.
func (s *Sensor) Hooks() []event.Hook {
	seen := s.Counts()
	out := make([]event.Hook, 0, len(s.hooks))
	for _, h := range s.hooks {
		e := h.status()
		for _, c := range seen {
			for _, k := range e.Kinds[:1] {
				if c.Kind == k && c.What == event.Generated {
					e.Seen += c.N
				}
			}
		}
		out = append(out, e)
	}
	return out
}

// Run reads the rings until ctx ends, and sends batches to out. Then it detaches the hooks
// and reads what is left. It blocks while out is full; the rings then fill, and what they
// cannot take is counted. It may be called once, after Seed.
func (s *Sensor) Run(ctx context.Context, out chan<- *event.Batch) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.interrupt()
		close(interrupted)
	})
	defer func() {
		if !stop() { // it has begun, and must not meet a closed eventfd
			<-interrupted
		}
	}()
	return s.read(ctx, out)
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL of linux/membarrier.h

// detach takes all programs off their hooks, waits until none runs any more, and lets go of
// them.
func (s *Sensor) detach() error {
	s.detached = true
	// Taking a program off waits for grace periods of the kernel: all together, for the same.
	errs := make([]error, len(s.hooks))
	var wait sync.WaitGroup
	for i, h := range s.hooks {
		wait.Go(func() { errs[i] = h.unlink() })
	}
	wait.Wait()
	// A grace period of RCU (membarrier(2)): programs run within its read side.
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); err != 0 {
		time.Sleep(50 * time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.hooks {
		errs = append(errs, h.unload())
	}
	return errors.Join(errs...)
}

// Close detaches everything. Run must have returned. No event arrives afterwards.
func (s *Sensor) Close() error {
	s.closed.Do(func() {
		var errs []error
		if !s.detached && len(s.hooks) > 0 {
			errs = append(errs, s.detach())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.final = s.counts()
		if s.seed != nil {
			s.seed.Close()
		}
		errs = append(errs, s.closeBuffers())
		if s.files != nil {
			errs = append(errs, s.files.Close())
			s.files = nil
		}
		if s.watched != nil {
			errs = append(errs, s.watched.close())
			s.watched = nil
		}
		for _, m := range s.maps {
			errs = append(errs, m.Close())
		}
		s.maps = nil
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// Unsupported says that this kernel runs not one of the hooks, and why.
type Unsupported struct{ Hooks []event.Hook }

func (u *Unsupported) Error() string {
	if len(u.Hooks) == 0 {
		return "attach BPF programs: no kind is enabled"
	}
	return fmt.Sprintf("attach BPF programs: none of %d hooks works on this kernel; %s: %s",
		len(u.Hooks), u.Hooks[0].Name, u.Hooks[0].Refused)
}
