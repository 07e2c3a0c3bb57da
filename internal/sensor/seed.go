package sensor

import (
	"context"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// The iterators: of tasks, and of the files that they have open. No hook names them.
const (
	seedProgram     = "on_seed"
	fileSeedProgram = "on_file_seed"
)

// Seed tells of every process that runs now, in no order: an Exec with Fidelity state. It
// takes them from the kernel's task iterator, with exact start times; where that is refused,
// or passes over a process (some machines hide pid 1 from it), from /proc, whose start times
// have a grain of 10 ms. The Exec is valid during the call only.
func (s *Sensor) Seed(ctx context.Context, yield func(*event.Exec)) error {
	s.boot.update()
	s.decode.toUnix = s.boot.offset
	dir, err := s.options.FS.Open()
	if err != nil {
		return err
	}
	defer dir.Close()
	known := seeded{seen: map[uint32]bool{}, starts: map[uint32]uint64{}, before: event.BootNow()}
	raw, err := s.iterate()
	if err != nil {
		raw, known.before = nil, ^uint64(0)
	}
	for len(raw) > 0 && ctx.Err() == nil {
		r, err := fixed[bpf.GoshawkRecExec](raw)
		if err != nil || int(r.Head.Size) > len(raw) || r.Head.Size < uint32(unsafe.Sizeof(*r)) {
			return fmt.Errorf("read task iterator: %w", errShort)
		}
		one := raw[:r.Head.Size]
		raw = raw[r.Head.Size:]
		b := event.NewBatch()
		if err := s.decode.exec(one, b); err != nil {
			s.decode.malformed(one, err)
		} else {
			e := b.Events[0].(*event.Exec)
			e.Fidelity = event.FidelityState
			s.completeFromProc(dir, e)
			known.seen[e.PID], known.starts[e.PID], known.starts[e.PPID] = true, e.Start, e.PStart
			yield(e)
		}
		b.Release()
	}
	return s.seedFromProc(ctx, dir, known, yield)
}

const tick = 10e6 // ns, the grain of /proc/PID/stat (USER_HZ)

// iterate runs the task iterator once and returns its records, one after the other.
func (s *Sensor) iterate() ([]byte, error) {
	if s.seed == nil {
		return nil, s.seedRefused
	}
	return iterate(s.seed.Programs[seedProgram])
}

// iterate runs an iterator to its end, and returns what it wrote.
func iterate(program *ebpf.Program) ([]byte, error) {
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// completeFromProc adds what lies in the process's own memory: its arguments.
func (s *Sensor) completeFromProc(dir *procfs.Dir, e *event.Exec) {
	p, err := dir.Process(int(e.PID))
	if err != nil {
		return // gone meanwhile
	}
	args, cut, err := p.Cmdline()
	if err != nil {
		return
	}
	e.Args = string(args)
	e.ArgsLength = uint64(len(args))
	e.ArgsTruncated = cut
}

// seeded is what the task iterator has told.
type seeded struct {
	seen   map[uint32]bool
	starts map[uint32]uint64 // of processes and of their parents
	before uint64            // younger processes are none of the seed's business: the hooks saw them
}

// seedFromProc tells of the processes that are not known: all without the task iterator
// (before 5.8, or refused).
func (s *Sensor) seedFromProc(ctx context.Context, dir *procfs.Dir, known seeded, yield func(*event.Exec)) error {
	pids, err := dir.Pids(nil)
	if err != nil {
		return err
	}
	var stat procfs.Stat
	var status procfs.Status
	pids = slices.DeleteFunc(pids, func(pid int) bool { return known.seen[uint32(pid)] })
	for _, pid := range pids {
		p, err := dir.Process(pid)
		if err != nil || p.Stat(&stat) != nil {
			continue
		}
		// A child that the iterator has told of knows better, within the grain.
		start := stat.StartTimeNs()
		if exact := known.starts[uint32(pid)]; exact < start || exact-start >= tick {
			known.starts[uint32(pid)] = start
		}
	}
	for _, pid := range pids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p, err := dir.Process(pid)
		if err != nil || p.Stat(&stat) != nil || p.Status(&status) != nil {
			continue // gone meanwhile
		}
		if stat.StartTimeNs() > known.before {
			continue
		}
		e := event.Exec{}
		e.Kind, e.Source, e.Fidelity = event.KindExec, "procfs", event.FidelityState
		e.BootID = s.options.BootID
		e.NTime = event.BootNow()
		e.Time = int64(e.NTime) + s.decode.toUnix
		e.PID, e.TID, e.PPID = uint32(pid), uint32(pid), uint32(stat.PPID)
		e.Start, e.PStart = known.starts[e.PID], known.starts[e.PPID]
		e.Comm = stat.Comm
		e.UID, e.EUID, e.SUID, e.FSUID = status.UID, status.EUID, status.SUID, status.FSUID
		e.GID, e.EGID, e.SGID, e.FSGID = status.GID, status.EGID, status.SGID, status.FSGID
		e.AUID, e.Session = ^uint32(0), ^uint32(0)
		if n, err := p.Loginuid(); err == nil {
			e.AUID = n
		}
		if n, err := p.Sessionid(); err == nil {
			e.Session = n
		}
		if path, deleted, err := p.Exe(); err == nil {
			e.Path, e.Deleted = path, deleted
		}
		if cwd, err := p.Cwd(); err == nil {
			e.Cwd = cwd
		}
		s.completeFromProc(dir, &e)
		yield(&e)
	}
	return nil
}
