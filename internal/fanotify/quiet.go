package fanotify

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// A file that nobody watches and that is written to all the time costs its writer about a
// microsecond each time: the kernel makes an event, and we throw it away. After a few of these
// the kernel is told to ignore what is written to that file, until it gets a name that
// may be watched.

const (
	quietAfter    = 16   // events
	maxQuiet      = 1024 // files; each mark takes some 100 bytes of the kernel's
	markEvictable = 0x200
)

// noise counts what is written to files that are not watched, by their handles.
type noise struct {
	seen  map[string]int
	quiet map[string]bool
}

// unwatched counts an event on a file that is not watched.
func (r *Reader) unwatched(s *system, e *raw) {
	r.filtered[byNotWatched].Add(1)
	if e.mask != unix.FAN_MODIFY || e.target.handle == nil {
		return
	}
	key := string(e.dir.fsid[:]) + string(e.target.handle)
	if r.noise.quiet[key] {
		return // it was under way
	}
	if len(r.noise.seen) >= 4*maxQuiet {
		clear(r.noise.seen)
	}
	if r.noise.seen[key]++; r.noise.seen[key] < quietAfter {
		return
	}
	delete(r.noise.seen, key)
	if len(r.noise.quiet) >= maxQuiet {
		r.listen()
	}
	if r.ignore(s, e.target.handle, unix.FAN_MARK_ADD) {
		r.noise.quiet[key] = true
	}
}

// ignore has the kernel leave out what is written to a file, or tell it again.
func (r *Reader) ignore(s *system, handle []byte, add uint) bool {
	fd, err := openHandle(s.fd, handle)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	const flags = unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY
	if add == unix.FAN_MARK_REMOVE {
		return unix.FanotifyMark(r.fd, add|unix.FAN_MARK_IGNORED_MASK, unix.FAN_MODIFY, unix.AT_FDCWD, name) == nil
	}
	// Evictable (5.19): the mark does not keep the inode in memory.
	if unix.FanotifyMark(r.fd, add|flags|markEvictable, unix.FAN_MODIFY, unix.AT_FDCWD, name) == nil {
		return true
	}
	return unix.FanotifyMark(r.fd, add|flags, unix.FAN_MODIFY, unix.AT_FDCWD, name) == nil
}

// named listens again to a file that gets another name, which may be watched.
func (r *Reader) named(s *system, o *object) {
	if len(r.noise.quiet) == 0 || o.handle == nil {
		return
	}
	if key := string(o.fsid[:]) + string(o.handle); r.noise.quiet[key] {
		delete(r.noise.quiet, key)
		r.ignore(s, o.handle, unix.FAN_MARK_REMOVE)
	}
}

// listen listens to all files again.
func (r *Reader) listen() {
	if len(r.noise.quiet) > 0 {
		// Of marks on inodes there are no others. It fails when there is none any more.
		_ = unix.FanotifyMark(r.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/")
	}
	clear(r.noise.quiet)
	clear(r.noise.seen)
}
