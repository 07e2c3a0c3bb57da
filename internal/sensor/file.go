package sensor

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

const (
	fileHook     = "file"
	tierFanotify = "fanotify"
	// scanStep is how long the reader may look at files at once while nothing happens, ns.
	scanStep = 2_000_000
)

// Watch makes set the files of which kind file tells, while the sensor runs. What both the
// old and the new set select is told without a gap. Options.Files must not have been nil.
func (s *Sensor) Watch(set *selection.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		return nil // the hook is refused, as Hooks says
	}
	if err := s.files.Watch(set); err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	s.interrupt() // there is something to scan
	return nil
}

// startFiles begins to read what fanotify tells.
func (s *Sensor) startFiles() error {
	if s.files == nil {
		return nil
	}
	for fd, events := range map[int]uint32{s.files.FD(): unix.EPOLLIN, s.files.Mounts(): unix.EPOLLPRI | unix.EPOLLERR} {
		e := unix.EpollEvent{Events: events, Fd: int32(fd)}
		if err := unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return fmt.Errorf("add to epoll: %w", err)
		}
	}
	s.filesRead = bootNow()
	if err := s.files.Watch(s.options.Files); err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	return nil
}

// filesTimeout bounds a wait, in ms and -1 for ever, by what is to be told or scanned then.
func (s *Sensor) filesTimeout(timeout int) int {
	if s.files == nil {
		return timeout
	}
	due := s.files.Due()
	switch now := bootNow(); {
	case s.files.Scanning():
		return 1
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
	now := bootNow()
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
}

// emitFiles makes events of what was read. They are stamped now: when each happened since the
// last reading is not told.
func (d *drain) emitFiles() error {
	s := d.s
	if s.files == nil {
		return nil
	}
	now := bootNow()
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

// fileCounts adds what fanotify counts.
func (s *Sensor) fileCounts(generated *uint64, add func(k event.ID, what, reason string, n uint64)) {
	c := s.files.Counts()
	*generated += c.Told
	for reason, n := range c.Filtered {
		add(event.KindFile, event.Filtered, reason, n)
	}
	for reason, n := range c.Lost {
		add(event.KindFile, event.Lost, reason, n)
	}
}

// CannotWatch are the file systems of this host that tier fanotify cannot watch, with why, and
// what it cannot tell of the others.
func CannotWatch(fs procfs.FS) (systems, deeds []string, err error) {
	r, err := fanotify.Open(fs)
	if err != nil {
		return nil, nil, err
	}
	all, _ := selection.Compile(selection.Options{Watch: []selection.Rule{{Pattern: "/**"}}})
	err = r.Watch(all)
	return r.Counts().Blind, fanotify.Unseen, errors.Join(err, r.Close())
}

// Blind are the file systems that a watch names and that cannot be watched, and why.
func (s *Sensor) Blind() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		return ""
	}
	return strings.Join(s.files.Counts().Blind, "; ")
}
