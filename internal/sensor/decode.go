package sensor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// errShort says that a record ends before its structure or its spans do.
var errShort = errors.New("record is shorter than it says")

// errKind says that no decoder is for this kind.
var errKind = errors.New("record is of an unknown kind")

// errValue says that a field of a record holds a number that means nothing.
var errValue = errors.New("record holds a value without meaning")

// decoder turns records into events. Records are untrusted: every length is checked, and
// the only memory read is the record's own.
type decoder struct {
	bootID  string
	proc    *procfs.FS // where cut paths are completed, or nil
	env     map[string]bool
	toUnix  int64
	pages   uint64
	strings interner
	paths   interner
	addrs   map[[17]byte]string
	ttys    map[uint64]string
	exits   recent
	self    uint32 // this process, as it calls itself
	sun     []byte
	count   [bpf.GoshawkKindKIND_MAX]tally
}

func newDecoder(o *Options) *decoder {
	d := &decoder{bootID: o.BootID, pages: pageSize, addrs: map[[17]byte]string{}, ttys: map[uint64]string{}, self: uint32(os.Getpid())}
	if len(o.Env) > 0 {
		d.env = map[string]bool{}
		for _, n := range o.Env {
			d.env[n] = true
		}
	}
	return d
}

// record decodes raw and adds what it makes to the batch of dr.
func (d *decoder) record(raw []byte, dr *drain) error {
	if len(raw) < int(unsafe.Sizeof(bpf.GoshawkRecHead{})) {
		return errShort
	}
	head := as[bpf.GoshawkRecHead](raw)
	if int(head.Size) > len(raw) || head.Size < uint32(unsafe.Sizeof(*head)) {
		return errShort
	}
	raw = raw[:head.Size]
	switch event.ID(head.Kind) {
	case event.KindExec:
		return d.exec(raw, dr.batch)
	case event.KindFork:
		return d.fork(raw, dr.batch)
	case event.KindExit:
		return d.exit(raw, dr.batch)
	case event.KindConnect, event.KindAccept, event.KindBind, event.KindListen, event.KindClose:
		return d.socket(raw, dr)
	case event.KindDNS:
		return d.dns(raw, dr)
	case event.KindContainer:
		return d.cgroup(raw, dr.batch)
	case event.KindPtrace, event.KindModule, event.KindBPF, event.KindMount, event.KindNamespace, event.KindMemory, event.KindSyscall:
		return d.act(raw, dr.batch)
	case event.KindCredential:
		return d.credential(raw, dr.batch)
	case event.KindSignal:
		return d.signal(raw, dr.batch)
	case event.KindFile:
		return d.file(raw, dr)
	}
	return fmt.Errorf("%w, %d", errKind, head.Kind)
}

// malformed counts a record that no decoder takes.
func (d *decoder) malformed(raw []byte, err error) {
	kind := 0
	if len(raw) >= int(unsafe.Sizeof(bpf.GoshawkRecHead{})) {
		if k := int(as[bpf.GoshawkRecHead](raw).Kind); k < len(d.count) {
			kind = k
		}
	}
	d.count[kind].malformed.Add(1)
}

// as looks at the start of raw as a record structure; the caller has checked the length.
// The layout is the compiler's on both sides; TestWireLayout compares the two.
func as[T any](raw []byte) *T {
	var t T
	if len(raw) < int(unsafe.Sizeof(t)) {
		panic("BUG: record not checked for length")
	}
	if uintptr(unsafe.Pointer(&raw[0]))%unsafe.Alignof(t) != 0 {
		c := new(T)
		copy(unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(t)), raw)
		return c
	}
	return (*T)(unsafe.Pointer(&raw[0]))
}

// fixed checks that raw is long enough for T and returns it.
func fixed[T any](raw []byte) (*T, error) {
	var t T
	if len(raw) < int(unsafe.Sizeof(t)) {
		return nil, errShort
	}
	return as[T](raw), nil
}

// span returns the variable data that s names.
func span(raw []byte, s bpf.GoshawkSpan) ([]byte, error) {
	end := uint64(s.Off) + uint64(s.Len)
	if end > uint64(len(raw)) {
		return nil, errShort
	}
	return raw[s.Off:end], nil
}

func has(h *bpf.GoshawkRecHead, f bpf.GoshawkFlag) bool { return h.Flags&uint32(f) != 0 }

// header fills in what a record's head says.
func (d *decoder) header(h *event.Header, r *bpf.GoshawkRecHead) {
	h.NTime = r.Time
	h.Time = int64(r.Time) + d.toUnix
	h.Source = "ebpf"
	h.Fidelity = event.FidelityKernel
	h.BootID = d.bootID
	h.PID, h.TID, h.PPID = r.Pid, r.Tid, r.Ppid
	h.Start, h.PStart = r.Start, r.Pstart
	h.Comm = d.strings.get(cString(r.Comm[:]))
	h.UID, h.GID, h.EUID, h.EGID = r.Uid, r.Gid, r.Euid, r.Egid
	h.AUID, h.Session = r.Auid, r.Session
	h.CgroupID, h.CgroupV1 = r.Cgroup, r.Cgroup1
	h.ContainerPID, h.PIDNamespace = r.NsPid, r.PidNs
	if r.TtyMajor != 0 {
		h.TTY = d.tty(r.TtyMajor, r.TtyMinor)
	}
}

func cString(b []int8) []byte {
	u := unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), len(b))
	for i, c := range u {
		if c == 0 {
			return u[:i]
		}
	}
	return u
}

// tty names a terminal by its device number (Documentation/admin-guide/devices.txt).
func (d *decoder) tty(major uint16, minor uint32) string {
	key := uint64(major)<<32 | uint64(minor)
	if s, ok := d.ttys[key]; ok {
		return s
	}
	n := strconv.FormatUint(uint64(minor), 10)
	var s string
	switch {
	case major >= 136 && major <= 143:
		s = "pts/" + strconv.FormatUint(uint64(major-136)<<8+uint64(minor), 10)
	case major == 4 && minor < 64:
		s = "tty" + n
	case major == 4:
		s = "ttyS" + strconv.FormatUint(uint64(minor-64), 10)
	case major == 5 && minor == 1:
		s = "console"
	case major == 204 && minor >= 64:
		s = "ttyAMA" + strconv.FormatUint(uint64(minor-64), 10)
	case major == 229:
		s = "hvc" + n
	default:
		s = strconv.Itoa(int(major)) + ":" + n
	}
	if len(d.ttys) < 4096 {
		d.ttys[key] = s
	}
	return s
}

// address prints an address; the same address yields the same string.
func (d *decoder) address(family uint16, a *[16]uint8) string {
	var key [17]byte
	copy(key[1:], a[:])
	six := family == afInet6
	if six {
		key[0] = 6
	} else {
		clear(key[5:])
	}
	if s, ok := d.addrs[key]; ok {
		return s
	}
	ip := netip.AddrFrom4([4]byte(a[:4]))
	if six {
		ip = netip.AddrFrom16(*a).Unmap()
	}
	s := ip.String()
	if len(d.addrs) >= 8192 {
		clear(d.addrs)
	}
	d.addrs[key] = s
	return s
}

// interner gives equal bytes the same string. It is bounded: when full it starts again.
type interner struct {
	m     map[string]string
	bytes int
}

const internBytes = 1 << 20

func (in *interner) get(b []byte) string {
	if s, ok := in.m[string(b)]; ok {
		return s
	}
	s := string(b)
	in.put(s, s)
	return s
}

func (in *interner) put(key, s string) {
	if in.m == nil || in.bytes > internBytes {
		in.m, in.bytes = make(map[string]string, 256), 0
	}
	in.bytes += len(key) + len(s) + 64
	in.m[key] = s
}

// path joins names that go from the leaf up, each with its NUL, into a path; the root has
// none. A path whose first names were cut starts with "...", so that nobody takes it for one
// that starts at the root.
func (d *decoder) path(raw []byte, s bpf.GoshawkSpan, cut bool) (string, error) {
	names, err := span(raw, s)
	if err != nil || s.Off == 0 {
		return "", err
	}
	if cut {
		return "..." + joinNames(names), nil
	}
	if s, ok := d.paths.m[string(names)]; ok {
		return s, nil
	}
	path := joinNames(names)
	if path == "" {
		path = "/"
	}
	if len(names) < 1024 {
		d.paths.put(string(names), path)
	}
	return path, nil
}

func joinNames(names []byte) string {
	out := make([]byte, 0, len(names)+1)
	end := len(names)
	for end > 0 {
		// names[:end] ends in NUL, unless the last name was cut
		stop := end
		if names[stop-1] == 0 {
			stop--
		}
		begin := stop
		for begin > 0 && names[begin-1] != 0 {
			begin--
		}
		if name := names[begin:stop]; len(name) > 0 && !(len(name) == 1 && name[0] == '/') {
			out = append(append(out, '/'), name...)
		}
		end = begin
	}
	return string(out)
}

// Counts returns what became of every record, of both sides of the rings; after Close, what
// had become of them by then. It may be called from any goroutine.
func (s *Sensor) Counts() []event.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts()
}

func (s *Sensor) counts() []event.Count {
	var out []event.Count
	add := func(k event.ID, what, reason string, n uint64) {
		if n > 0 {
			out = append(out, event.Count{Source: "ebpf", Kind: k, What: what, Reason: reason, N: n})
		}
	}
	if s.decode == nil || s.maps["counters"] == nil {
		return s.final
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil
	}
	passed := s.passedOver(cpus)
	per := make([]bpf.GoshawkCounts, cpus)
	for k := uint32(0); k < uint32(bpf.GoshawkKindKIND_MAX); k++ {
		if k >= 1 && event.ByID(event.ID(k)) == nil {
			continue
		}
		if err := s.maps["counters"].Lookup(k, &per); err != nil {
			continue
		}
		var sum bpf.GoshawkCounts
		for _, c := range per {
			sum.Generated += c.Generated
			sum.LostRing += c.LostRing
			sum.LostMap += c.LostMap
			sum.Filtered += c.Filtered
			sum.Sent += c.Sent
			sum.LostBusy += c.LostBusy
		}
		t := &s.decode.count[k]
		id := event.ID(k)
		if n := s.numbers; n != nil {
			sum.LostRing = uint64(max(0, n.lost[k].Load()))
			if n.found[k].Load()+sum.LostRing < sum.Sent && !n.unsettled.Swap(true) {
				s.interrupt() // on the way, or lost: the reader finds out
			}
		}
		passed[id] += sum.LostBusy
		if id == event.KindFile {
			s.fileCounts(&sum.Generated, add)
		}
		add(id, event.Generated, "", sum.Generated+passed[id]-sum.LostBusy)
		add(id, event.Delivered, "", t.delivered.Load())
		add(id, event.Lost, "ring_full", sum.LostRing)
		add(id, event.Lost, "map_full", sum.LostMap)
		add(id, event.Lost, "program_busy", passed[id])
		add(id, event.Lost, "malformed", t.malformed.Load())
		add(id, event.Filtered, "kernel", sum.Filtered)
		add(id, event.Filtered, "merged", t.merged.Load())
		add(id, event.Filtered, "not_asked_here", t.answers.Load())
		add(id, event.Filtered, "repeated", t.repeated.Load())
		add(id, event.Filtered, "own", t.own.Load())
		add(id, event.Filtered, "own_thread", t.threads.Load())
	}
	return out
}

// passedOver is how many records the kernel never began, by the kind that their hook
// reports: at most, since a program may also be passed over where it had nothing to tell.
func (s *Sensor) passedOver(cpus int) map[event.ID]uint64 {
	out := map[event.ID]uint64{}
	for _, h := range s.hooks {
		n := h.passedOver()
		if n > 0 && h.tier.standIn() {
			per := make([]bpf.GoshawkStateBusy, cpus)
			if s.maps["busy"].Lookup(uint32(0), &per) == nil {
				for _, b := range per {
					n -= min(n, b.Seen)
				}
			}
		}
		if n > 0 {
			out[h.hook.kinds[0]] += n
		}
	}
	return out
}
