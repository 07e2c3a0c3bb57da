package sensor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

const (
	// FileHook is the name of the hook that tells of files.
	FileHook     = "file"
	tierFanotify = "fanotify"
	// scanStep is how long the reader may look at files at once while nothing happens, ns.
	scanStep = 2_000_000
)

// fileFunctions are the functions of the kernel that bpf/file.bpf.h stands on, in the order of its
// enum file_function; those with ? came later. dentry and other are where they have their dentries
// up to Linux 5.11. From 5.12 on there is one argument more before those; fileArguments asks the
// kernel's own types where it has them.
var fileFunctions = []struct {
	name, function string
	dentry, other  uint8
}{
	{"create", "vfs_create", 1, 0},
	{"mkdir", "vfs_mkdir", 1, 0},
	{"mknod", "vfs_mknod", 1, 0},
	{"symlink", "vfs_symlink", 1, 0},
	{"link", "vfs_link", 0, 2},
	{"unlink", "vfs_unlink", 1, 0},
	{"rmdir", "vfs_rmdir", 1, 0},
	{"rename", "vfs_rename", 1, 3},
	{"attributes", "notify_change", 0, 0},
	{"setxattr", "vfs_setxattr", 0, 0},
	{"removexattr", "vfs_removexattr", 0, 0},
	{"setacl", "vfs_set_acl?", 0, 0},
	{"removeacl", "vfs_remove_acl?", 0, 0},
}

// fileTiers are the programs on these functions, and on those that see files opened, written to
// and closed.
func fileTiers() []tier {
	t := []tier{
		{"fexit", []string{"on_file_open_fexit", "on_file_write_fentry", "on_file_mmap_fentry", "on_file_mprotect_fentry", "on_file_close_fentry"}},
		{"kprobe", []string{"on_file_open_kprobe", "on_file_write_kprobe", "on_file_mmap_kprobe", "on_file_mprotect_kprobe", "on_file_close_kprobe"}},
		{tierFanotify, nil},
	}
	for _, f := range fileFunctions {
		name := "on_file_" + f.name
		t[0].programs = append(t[0].programs, name+"_fentry@"+f.function, name+"_fexit@"+f.function)
		t[1].programs = append(t[1].programs, both(name, f.function)...)
	}
	// Where two of them are part of their callers.
	t[0].programs = append(t[0].programs, "on_file_rmdir_inner_fentry", "on_file_rmdir_done_fexit@d_delete",
		"on_file_rename_inner_fentry", "on_file_rename_done_fexit@d_move", "on_file_rename_done_fexit@d_exchange")
	t[1].programs = slices.Concat(t[1].programs, []string{"on_file_rmdir_inner_kprobe", "on_file_rename_inner_kprobe"},
		both("on_file_rmdir_done", "d_delete"), both("on_file_rename_done", "d_move", "d_exchange"))
	return t
}

// preempts reports whether this kernel takes the CPU from programs at functions while they run. It runs
// none within itself on one CPU: what another process does then would be lost. Probes are not
// preempted. From 6.13 on kernels do so lazily, from 7.0 on all of them (kernel/Kconfig.preempt).
func (l *loader) preempts() bool {
	mode, err := os.ReadFile(filepath.Join(l.fs.Sys, "kernel/debug/sched/preempt"))
	if err != nil {
		return kernelAtLeast(6, 13)
	}
	return strings.Contains(string(mode), "(full)") || strings.Contains(string(mode), "(lazy)")
}

// fileArguments are the variables by which the programs find the arguments of these functions.
func fileArguments(cache *btf.Cache) map[string]any {
	var dentry, other, result [16]uint8
	later := kernelAtLeast(5, 12)
	kernel, err := cache.Kernel()
	for i, f := range fileFunctions {
		dentry[i], other[i] = f.dentry, f.other
		if later && f.name != "link" {
			dentry[i]++
		} else if later {
			other[i]++
		}
		var fn *btf.Func
		if err != nil || kernel.TypeByName(strings.TrimSuffix(f.function, "?"), &fn) != nil {
			continue // such a program is not attached, or is a kprobe
		}
		proto, ok := fn.Type.(*btf.FuncProto)
		if !ok {
			continue
		}
		result[i] = uint8(len(proto.Params))
		var at []uint8
		for n, p := range proto.Params {
			if to, ok := btf.UnderlyingType(p.Type).(*btf.Pointer); ok && btf.UnderlyingType(to.Target).TypeName() == "dentry" {
				at = append(at, uint8(n))
			}
		}
		if len(at) > 0 {
			dentry[i] = at[0]
		}
		if len(at) > 1 {
			other[i] = at[1]
		}
	}
	return map[string]any{"file_dentry": dentry, "file_other": other, "file_result": result, "file_renamedata": later}
}

// Watch makes set the files of which kind file tells, while the sensor runs. What both the
// old and the new set select is told without a gap. Options.Files must not have been nil.
func (s *Sensor) Watch(set *selection.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.watched != nil:
		err = s.watched.watch(set)
	case s.files != nil: // else the hook is refused, as Hooks says
		err = s.files.Watch(set)
		s.interrupt() // there is something to scan
	}
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	return nil
}

// startFiles begins to read what fanotify tells, or has the programs look for what is watched.
func (s *Sensor) startFiles() error {
	fds := map[int]uint32{}
	switch {
	case s.watched != nil:
		fds[s.watched.mounts] = unix.EPOLLPRI | unix.EPOLLERR
	case s.files != nil:
		fds[s.files.FD()], fds[s.files.Mounts()] = unix.EPOLLIN, unix.EPOLLPRI|unix.EPOLLERR
	}
	for fd, events := range fds {
		e := unix.EpollEvent{Events: events, Fd: int32(fd)}
		if err := unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return fmt.Errorf("add to epoll: %w", err)
		}
	}
	s.filesRead = event.BootNow()
	return s.Watch(s.options.Files)
}

// remount looks for what is watched on mounts that have changed, when one of the events says so.
func (s *Sensor) remount(events []unix.EpollEvent) error {
	changed := func(fd int) bool {
		return slices.ContainsFunc(events, func(e unix.EpollEvent) bool { return int(e.Fd) == fd })
	}
	var err error
	switch {
	case s.watched != nil && changed(s.watched.mounts):
		err = s.watched.watch(nil)
	case s.files != nil && changed(s.files.Mounts()):
		err = s.files.Remount()
	}
	if err != nil {
		return fmt.Errorf("watch files of new mounts: %w", err)
	}
	return nil
}

// filesTimeout bounds a wait, in ms and -1 for ever, by what is to be told or scanned then.
func (s *Sensor) filesTimeout(timeout int) int {
	var due uint64
	switch {
	case s.watched != nil:
		due = s.watched.due()
	case s.files == nil:
		return timeout
	case s.files.Scanning():
		return 1
	default:
		due = s.files.Due()
	}
	switch now := event.BootNow(); {
	case due == 0:
	case due <= now:
		return 0
	case timeout < 0 || uint64(timeout) > (due-now)/1e6+1:
		return int((due-now)/1e6) + 1
	}
	return timeout
}

// readFiles reads what is queued.
func (s *Sensor) readFiles() error {
	s.filesMore = false
	if s.files == nil {
		return nil
	}
	now := event.BootNow()
	keep := func(c *fanotify.Change) { s.changes = append(s.changes, *c) }
	var err error
	if s.filesMore, err = s.files.Read(now, keep); err != nil {
		return fmt.Errorf("read fanotify: %w", err)
	}
	s.files.Settle(now, keep)
	if !s.filesMore && !s.detached {
		s.files.Scan(scanStep)
	}
	return nil
}

// settleFiles makes the next reading the last: nothing is marked any more.
func (s *Sensor) settleFiles() {
	if s.files != nil {
		s.files.Stop()
	}
	if s.watched != nil {
		s.watched.last = true
	}
}

// emitFiles makes events of what was read. They are stamped now: when each happened since the
// last reading is not told.
func (d *drain) emitFiles() error {
	s := d.s
	now := event.BootNow()
	if s.watched != nil {
		return s.watched.settle(now, d)
	}
	if s.files == nil {
		return nil
	}
	within := min(now-s.filesRead, 10e9)
	s.filesRead = now
	for i := range s.changes {
		if d.batch == nil {
			d.batch = event.NewBatch()
		}
		s.decode.change(d.batch.Add(event.KindFile).(*event.File), &s.changes[i], now, within)
		if d.batch.Full() {
			if err := d.flush(); err != nil {
				return err
			}
		}
	}
	clear(s.changes)
	if s.changes = s.changes[:0]; cap(s.changes) > 4096 {
		s.changes = nil
	}
	return nil
}

// change makes an event of what fanotify told. Who did it is completed by pid.
func (d *decoder) change(e *event.File, c *fanotify.Change, now, within uint64) {
	e.NTime, e.Time, e.Within = now, int64(now)+d.toUnix, within
	e.Source, e.Fidelity, e.BootID = "fanotify", event.FidelityKernel, d.bootID
	e.PID = c.PID
	e.UID, e.GID, e.EUID, e.EGID = event.Unset, event.Unset, event.Unset, event.Unset
	e.SUID, e.SGID, e.FSUID, e.FSGID = event.Unset, event.Unset, event.Unset, event.Unset
	e.OwnerUID, e.OwnerGID = event.Unset, event.Unset
	e.Operation, e.TargetPath, e.DestinationPath, e.Category = c.Operation, c.Path, c.Destination, c.Match.Category
	if c.Operation == "symlink" {
		e.TargetPath = c.Text
	}
	e.Result = "ok"
	e.Device = c.Device
	if c.Stat || c.Inode != 0 {
		e.Inode, e.Mode, e.OwnerUID, e.OwnerGID, e.Size = c.Inode, c.Mode, c.UID, c.GID, c.Size
		e.ATime, e.MTime, e.CTime = c.ATime, c.MTime, c.CTime
	}
}

// fileCounts adds what fanotify counts, or what was found out about records of files.
func (s *Sensor) fileCounts(generated *uint64, add func(k event.ID, what, reason string, n uint64)) {
	if w := s.watched; w != nil {
		*generated += w.more.Load()
		add(event.KindFile, event.Filtered, "not_watched", w.unwatched.Load())
		add(event.KindFile, event.Filtered, "unchanged", w.unchanged.Load())
		add(event.KindFile, event.Lost, "path_unknown", w.cut.Load())
		return
	}
	if s.files == nil {
		return
	}
	c := s.files.Counts()
	*generated += c.Told
	for reason, n := range c.Filtered {
		add(event.KindFile, event.Filtered, reason, n)
	}
	for reason, n := range c.Lost {
		add(event.KindFile, event.Lost, reason, n)
	}
}

// unseen is what the programs of bpf/file.bpf.h cannot tell; docs/file-integrity.md says more.
var unseen = []string{
	"a file opened by a handle (open_by_handle_at) when nothing in memory leads from it to a directory",
	"whether a write that failed, or a mapping shared for writing, changed anything: both are told as write",
	"attributes that a file system sets by ioctl (chattr), and what is done beside the kernel: by other hosts, to the device",
	"calls that failed",
}

// CannotWatch are the file systems of this host that a tier of hook file cannot watch, with why, and
// what it cannot tell of the others.
func CannotWatch(fs procfs.FS, tier string) (systems, deeds []string, err error) {
	if tier != tierFanotify {
		return nil, unseen, nil
	}
	r, err := fanotify.Open(fs)
	if err != nil {
		return nil, nil, err
	}
	all, _ := selection.Compile(selection.Options{Watch: []selection.Rule{{Pattern: "/**"}}})
	err = r.Watch(all)
	return r.Counts().Blind, fanotify.Unseen, errors.Join(err, r.Close())
}

// Blind is what a watch names and cannot be watched, and why.
func (s *Sensor) Blind() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched != nil && s.watched.refused != nil {
		return fmt.Sprintf("files that were open before: %v", s.watched.refused)
	}
	if s.files == nil {
		return ""
	}
	return strings.Join(s.files.Counts().Blind, "; ")
}
