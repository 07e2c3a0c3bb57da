package fanotify

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/selection"
)

// Change is something done to a selected file.
type Change struct {
	Operation    string // create, open, write, delete, rename, link, symlink, chmod, chown, utimes, attrib, truncate, mkdir is create
	Path         string // "" unknown: a hard link whose other name was not found
	Destination  string // new name: of rename and link
	Text         string // of a symbolic link
	Match        selection.Match
	PID          uint32
	Device       string // major:minor
	Inode        uint64 // 0 unknown, with all below
	Mode         uint32
	UID, GID     uint32
	Size         uint64
	ATime        int64 // ns, as the two below
	MTime, CTime int64
	Stat         bool // the file was looked at
	whiteout     bool // it is what an overlay hides a file of its lower layers by
}

// Read reads what the kernel has queued, at most so much that others have their turn, and
// yields what is done to selected files. more says that there is more.
func (r *Reader) Read(now uint64, yield func(*Change)) (more bool, err error) {
	r.now = now
	for range 8 {
		n, err := unix.Read(r.fd, r.buf)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false, nil
		case err != nil:
			return false, err
		case n <= 0:
			return false, nil
		}
		r.batch(r.buf[:n], yield)
	}
	return true, nil
}

// batch goes through one read.
func (r *Reader) batch(b []byte, yield func(*Change)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.set.Load()
	for len(b) > 0 {
		var e raw
		rest, err := next(b, &e)
		r.told.Add(1)
		if e.fd >= 0 && err == nil {
			unix.Close(int(e.fd)) // a group with handles gets none
		}
		switch {
		case err != nil:
			r.lost[lostMalformed].Add(1)
		case e.mask&unix.FAN_Q_OVERFLOW != 0:
			r.lost[lostOverflow].Add(1)
			for _, s := range r.systems { // directories may have been renamed meanwhile
				r.forgetDirs(s)
			}
		default:
			r.event(&e, set, yield)
		}
		b = rest
	}
	r.flushMoved(yield)
}

// event tells what one event of the kernel's says.
func (r *Reader) event(e *raw, set *selection.Set, yield func(*Change)) {
	first := &e.dir
	if e.mask&markRename != 0 {
		first = &e.from
		if first.handle == nil {
			first = &e.to
		}
	}
	if first.handle == nil {
		// The file by itself, with no name: its links were counted anew.
		r.filtered[byLinks].Add(1)
		return
	}
	s := r.systems[first.fsid]
	if s == nil {
		r.filtered[byNotWatched].Add(1) // its mark has just been taken away
		return
	}
	r.apply(s, set)
	if e.mask&markRename != 0 {
		r.rename(s, e, yield)
		return
	}
	d := r.directory(s, first)
	isDir := e.mask&unix.FAN_ONDIR != 0
	if d == nil {
		if e.pid == r.self {
			r.filtered[byOwn].Add(1)
			return
		}
		r.unknown()
		return
	}
	name := string(e.dir.name)
	var from string
	if name == "." || name == "" {
		from = d.path
	} else {
		from = join(d.path, name)
	}
	if isDir && e.target.handle != nil {
		switch {
		case e.mask&(unix.FAN_CREATE|unix.FAN_MOVED_TO) != 0:
			if e.mask&unix.FAN_MOVED_TO != 0 {
				r.movedTo(s, string(e.target.handle), "", from)
			} else {
				r.learn(s, string(e.target.handle), from)
			}
		case e.mask&unix.FAN_DELETE != 0:
			defer delete(s.dirs, string(e.target.handle))
		}
	}
	if isDir && e.target.handle == nil && e.mask&(unix.FAN_MOVED_FROM|unix.FAN_MOVED_TO) != 0 {
		r.forgetDirs(s) // before 5.17: which one it was is not told
	}
	if e.pid == r.self {
		r.filtered[byOwn].Add(1)
		return
	}
	if e.mask&(unix.FAN_CREATE|unix.FAN_MOVED_TO) != 0 {
		r.named(s, &e.target)
	}
	if !d.inside && name != "." {
		r.unwatched(s, e)
		return
	}
	path, m, ok := s.views.Match(s.set, from)
	if !ok {
		r.unwatched(s, e)
		return
	}
	c := Change{Path: path, Match: m, PID: uint32(e.pid), Device: s.device}
	r.tell(s, e, c, yield)
}

// unknown counts what was done in a directory that is gone and was never heard of. Once
// everything selected has been looked at, that was none of it.
func (r *Reader) unknown() {
	if r.scanning.Load() || r.doubt {
		r.lost[lostPath].Add(1)
	} else {
		r.filtered[byNotWatched].Add(1)
	}
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}
