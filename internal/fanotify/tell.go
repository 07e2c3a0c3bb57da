package fanotify

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// tell yields what the mask says, in the order in which it can have happened. The kernel
// joins what one process does to one file while it waits to be read.
func (r *Reader) tell(s *system, e *raw, c Change, yield func(*Change)) {
	if name := string(e.dir.name); e.target.handle == nil && (name == "." || name == "") {
		e.target = object{fsid: e.dir.fsid, handle: e.dir.handle} // the directory itself
	}
	key := string(e.target.handle)
	if key == "" {
		key = string(e.dir.handle) + "/" + string(e.dir.name)
	}
	key = string(e.dir.fsid[:]) + key
	before, known := r.known[key]
	after, there := r.stat(s, &e.target, &c)
	n := 0
	say := func(op string) {
		out := c
		out.Operation = op
		n++
		r.emit(&out, n, yield)
	}
	if e.mask&(unix.FAN_MOVED_FROM|unix.FAN_MOVED_TO) != 0 {
		r.half(e.mask, c, key, after, there, yield)
		return
	}
	if r.temporary(e, key, &c, after, there, yield) {
		return
	}
	if e.mask&unix.FAN_CREATE != 0 {
		n++
		r.created(s, e, c, after, there, yield)
		if t := r.temps[key]; t != nil {
			if t.path = c.Path; t.closed {
				delete(r.temps, key)
				if t.changed {
					say("write")
				}
			}
		}
		before, known = after, there
		// What it was made with is no change of it.
		before.mode, before.uid, before.gid = after.mode, after.uid, after.gid
		if e.mask&unix.FAN_ATTRIB != 0 && there {
			say("attrib") // which of them cannot be told: it came with the making
			e.mask &^= unix.FAN_ATTRIB
		}
	}
	if e.mask&unix.FAN_OPEN != 0 && c.Match.Accesses && e.mask&(unix.FAN_ONDIR|unix.FAN_CREATE) == 0 {
		say("open")
	}
	if e.mask&unix.FAN_ATTRIB != 0 {
		n += r.attributes(&c, before, after, known, there, n, yield)
	}
	pending := r.open[key]
	switch {
	case e.mask&unix.FAN_MODIFY != 0 && (isDir(e, after, there)):
		say("utimes") // the time of change alone was set: utimensat(2) with UTIME_OMIT
	case e.mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) == unix.FAN_MODIFY && e.mask&unix.FAN_DELETE == 0:
		if pending == nil {
			if len(r.open) >= maxOpen {
				r.Settle(^uint64(0), yield)
			}
			r.open[key] = &change{Change: c, key: key, deadline: r.now + settle, at: time.Now().UnixNano(), before: before, known: known}
		}
		if n == 0 {
			r.filtered[byMerged].Add(1) // it is told when the file is closed
		}
		n++
		known = false // until then it is not known how it is
	case e.mask&(unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE) != 0:
		changed := e.mask&unix.FAN_MODIFY != 0 || pending != nil
		if !changed && e.mask&(unix.FAN_CREATE|unix.FAN_ATTRIB) == 0 {
			// Through a mapping, which tells nothing but the time of the change.
			changed = !known || !there || before.mtime != after.mtime || before.size != after.size
		}
		delete(r.open, key)
		if changed {
			say("write")
		}
	}
	if e.mask&unix.FAN_DELETE != 0 {
		if !c.Stat && known {
			c.Inode, c.Mode, c.UID, c.GID = before.inode, before.mode, before.uid, before.gid
		}
		delete(r.open, key)
		say("delete")
		if !there || after.nlink == 0 {
			r.forget(key)
			there = false
		}
	}
	if n == 0 {
		r.filtered[byUnchanged].Add(1)
	}
	if there && (r.open[key] == nil || !known) {
		r.remember(key, after)
	}
}

// temporary is an O_TMPFILE: what is done to it before it is linked into a directory is told
// when it has been, and is closed; under its name, which is then another.
type temporary struct {
	path            string
	changed, closed bool
}

// temporary takes events of a file that has no name, which the kernel calls # and its inode
// (d_mark_tmpfile); true when there is nothing more to tell. A path found is put in c.
func (r *Reader) temporary(e *raw, key string, c *Change, after meta, there bool, yield func(*Change)) bool {
	name := string(e.dir.name)
	if len(name) < 2 || name[0] != '#' || !there || name[1:] != strconv.FormatUint(c.Inode, 10) || e.mask&unix.FAN_CREATE != 0 {
		return false
	}
	t := r.temps[key]
	if t == nil {
		if len(r.temps) >= maxOpen {
			clear(r.temps)
		}
		t = &temporary{}
		r.temps[key] = t
	}
	t.changed = t.changed || e.mask&unix.FAN_MODIFY != 0
	if e.mask&unix.FAN_CLOSE_WRITE != 0 {
		// Joined with what was done before it was linked, closing comes first.
		if t.closed = true; t.path != "" || after.nlink == 0 {
			delete(r.temps, key)
		}
		if t.path != "" && t.changed {
			c.Path, c.Operation = t.path, "write"
			r.remember(key, after)
			out := *c
			r.emit(&out, 1, yield)
			return true
		}
	}
	r.filtered[byMerged].Add(1)
	return true
}

// isDir reports whether an event is on what cannot be written to: a directory or a link.
func isDir(e *raw, after meta, there bool) bool {
	return e.mask&unix.FAN_ONDIR != 0 || there && after.mode&unix.S_IFMT == unix.S_IFLNK
}

// emit yields what one event of the kernel's makes: the nth of it.
func (r *Reader) emit(c *Change, n int, yield func(*Change)) {
	if n > 1 {
		r.told.Add(1) // it stood for several
	}
	r.events.Add(1)
	yield(c)
}

// created tells of a new name: of a new file, or of one that had names before.
func (r *Reader) created(s *system, e *raw, c Change, after meta, there bool, yield func(*Change)) {
	c.Operation = "create"
	switch {
	case !there:
	case c.Mode&unix.S_IFMT == unix.S_IFLNK:
		c.Operation, c.Destination = "symlink", c.Path
		c.Text = r.text(s, &e.target)
	case c.Mode&unix.S_IFMT != unix.S_IFDIR && after.nlink > 1:
		c.Operation, c.Destination = "link", c.Path
		c.Path = r.otherName(s, &e.target, c.Path)
	}
	r.emit(&c, 1, yield)
}

// text is where a symbolic link leads.
func (r *Reader) text(s *system, o *object) string {
	fd, err := openHandle(s.fd, o.handle)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	n, err := unix.Readlinkat(fd, "", r.link)
	if err != nil {
		return ""
	}
	return string(r.link[:n])
}

// otherName is a name that the kernel has for a file, other than this one.
func (r *Reader) otherName(s *system, o *object, not string) string {
	fd, err := openHandle(s.fd, o.handle)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	name, err := procfs.LinkOf(fd, r.link)
	if err != nil || name == not || !strings.HasPrefix(name, "/") || strings.HasSuffix(name, " (deleted)") {
		return ""
	}
	return name
}

// attributes tells which attributes differ from what was known.
func (r *Reader) attributes(c *Change, before, after meta, known, there bool, n int, yield func(*Change)) (told int) {
	say := func(op string) {
		out := *c
		out.Operation = op
		told++
		r.emit(&out, n+told, yield)
	}
	if !known || !there {
		say("attrib")
		return told
	}
	if before.mode&0o7777 != after.mode&0o7777 {
		say("chmod")
	}
	if before.uid != after.uid || before.gid != after.gid {
		say("chown")
	}
	switch {
	case told > 0:
	case before.size != after.size || before.ctime == after.ctime:
		say("attrib") // it was changed since, too, or within one tick of its clock
	case before.mtime != after.mtime || before.atime != after.atime:
		say("utimes")
	case before.nlink == after.nlink:
		say("setxattr")
	default:
		r.filtered[byLinks].Add(1)
		if n > 0 {
			r.told.Add(1)
		}
		return 1 // accounted for
	}
	return told
}
