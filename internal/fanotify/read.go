package fanotify

import (
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
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

// meta is how a file was when it was looked at last.
type meta struct {
	mode, uid, gid, nlink uint32
	size, inode           uint64
	mtime, ctime, atime   int64
}

// change is a file that was changed and not closed since.
type change struct {
	Change
	key      string
	deadline uint64
	at       int64 // unix ns
	before   meta
	known    bool
}

const (
	maxKnown = 131_072 // files of which it is remembered how they were, about 200 bytes each
	maxOpen  = 4_096
	settle   = 1_000_000_000 // ns after which a change is told although the file is still open
)

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
	path, m, ok := r.selected(s, from)
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

// selected finds the view in which a path is selected.
func (r *Reader) selected(s *system, name string) (string, selection.Match, bool) {
	for _, v := range s.views {
		if p, ok := v.show(name); ok {
			if m, ok := s.set.Match(p); ok {
				return p, m, true
			}
		}
	}
	return "", selection.Match{}, false
}

// seen is the path in the first view that shows it.
func (s *system) seen(name string) (string, bool) {
	for _, v := range s.views {
		if p, ok := v.show(name); ok {
			return p, true
		}
	}
	return "", false
}

// shown is a path in the first view that shows it.
func (s *system) shown(name string) string {
	if p, ok := s.seen(name); ok {
		return p
	}
	return ".../" + strings.TrimPrefix(name, "/")
}

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

// rename tells of a rename that came as one event.
func (r *Reader) rename(s *system, e *raw, yield func(*Change)) {
	var from, to string
	var inFrom, inTo *directory
	if e.from.handle != nil {
		if inFrom = r.directory(s, &e.from); inFrom != nil {
			from = join(inFrom.path, string(e.from.name))
		}
	}
	if e.to.handle != nil {
		if inTo = r.directory(s, &e.to); inTo != nil {
			to = join(inTo.path, string(e.to.name))
		}
	}
	if e.mask&unix.FAN_ONDIR != 0 {
		if to != "" {
			r.movedTo(s, string(e.target.handle), from, to)
			if p, ok := s.seen(to); ok && s.set.Inside(p) { // with what is in it
				r.scan.dirs = append(r.scan.dirs, p)
				r.scanning.Store(true)
			}
		} else {
			r.forgetDirs(s)
		}
	}
	if e.pid == r.self {
		r.filtered[byOwn].Add(1)
		return
	}
	if e.mask&unix.FAN_ONDIR != 0 {
		r.listen() // what is in it may be watched by now
	} else {
		r.named(s, &e.target)
	}
	c := Change{Operation: "rename", PID: uint32(e.pid), Device: s.device}
	p1, m1, ok1 := "", selection.Match{}, false
	if from != "" {
		p1, m1, ok1 = r.selected(s, from)
	}
	p2, m2, ok2 := "", selection.Match{}, false
	if to != "" {
		p2, m2, ok2 = r.selected(s, to)
	}
	switch {
	case !ok1 && !ok2 && (from == "" || to == ""):
		r.unknown()
		return
	case !ok1 && !ok2:
		r.filtered[byNotWatched].Add(1)
		return
	}
	if c.Path, c.Match = p1, m1; !ok1 {
		c.Match = m2
		if from != "" {
			c.Path = s.shown(from)
		} else {
			c.Path = ".../" + string(e.from.name)
		}
	}
	if c.Destination = p2; !ok2 {
		if to != "" {
			c.Destination = s.shown(to)
		} else {
			c.Destination = ".../" + string(e.to.name)
		}
	}
	after, there := r.stat(s, &e.target, &c)
	if there {
		r.remember(string(e.from.fsid[:])+string(e.target.handle), after)
	}
	if !ok1 && ok2 && inWork(from) { // an overlay makes things there, and puts them where they belong
		c.Operation, c.Path, c.Destination = "create", c.Destination, ""
		if c.whiteout {
			c = Change{Operation: "delete", Path: c.Path, Match: c.Match, PID: c.PID, Device: c.Device}
		}
	}
	for _, p := range r.open { // what is told later is told under its new name
		if selection.Within(p.Path, c.Path) && strings.HasPrefix(c.Destination, "/") {
			p.Path = c.Destination + p.Path[len(c.Path):]
		}
	}
	r.emit(&c, 1, yield)
}

// inWork reports whether a path is what an overlay calls things in its work directory
// (OVL_WORKDIR_NAME and ovl_lookup_temp() in fs/overlayfs), where nobody else may write.
func inWork(name string) bool {
	dir, base := path.Split(name)
	number, ok := strings.CutPrefix(base, "#")
	return ok && strings.HasSuffix(dir, "/work/") && number != "" && strings.Trim(number, "0123456789abcdef") == ""
}

// movedTo gives a directory, and all that are known below it, their new name.
func (r *Reader) movedTo(s *system, handle, from, to string) {
	old := from
	if d := s.dirs[handle]; d != nil {
		old = d.path
	}
	if old == "" { // what is known below it cannot be told
		r.forgetDirs(s)
		r.learn(s, handle, to)
		return
	}
	r.learn(s, handle, old)
	for _, d := range s.dirs {
		if selection.Within(d.path, old) {
			d.path = to + d.path[len(old):]
			d.inside = r.inside(s, d.path)
		}
	}
}

// half takes one of the two events that a rename is before 5.17.
func (r *Reader) half(mask uint64, c Change, key string, after meta, there bool, yield func(*Change)) {
	c.Operation = "rename"
	if mask&unix.FAN_MOVED_FROM != 0 {
		r.flushMoved(yield)
		r.moved = &c
		return
	}
	if there {
		r.remember(key, after)
	}
	if m := r.moved; m != nil && m.PID == c.PID {
		r.moved = nil
		c.Destination, c.Path = c.Path, m.Path
		r.filtered[byMerged].Add(1)
	} else {
		r.flushMoved(yield)
		c.Destination, c.Path = c.Path, ""
	}
	r.emit(&c, 1, yield)
}

func (r *Reader) flushMoved(yield func(*Change)) {
	if m := r.moved; m != nil {
		r.moved = nil
		r.emit(m, 1, yield)
	}
}

// Settle tells of changes of files that stay open, at their time.
func (r *Reader) Settle(now uint64, yield func(*Change)) {
	for key, p := range r.open {
		if now < p.deadline {
			continue
		}
		delete(r.open, key)
		c := p.Change
		c.Operation = "write"
		switch {
		case p.known && c.Stat && c.Size < p.before.size:
			c.Operation = "truncate"
		case p.known && c.Stat && c.Size == p.before.size && (c.MTime+settle < p.at || c.MTime > p.at+settle):
			c.Operation = "utimes" // of another time than when it happened
		}
		r.told.Add(1)
		r.emit(&c, 1, yield)
	}
}

// Due is when Settle has something to do; 0 never.
func (r *Reader) Due() uint64 {
	var due uint64
	for _, p := range r.open {
		if due == 0 || p.deadline < due {
			due = p.deadline
		}
	}
	return due
}

// stat looks at a file by its handle: whatever its name means by now, it is this file.
func (r *Reader) stat(s *system, o *object, c *Change) (meta, bool) {
	var st unix.Stat_t
	if o.handle != nil {
		fd, err := openHandle(s.fd, o.handle)
		if err != nil {
			return meta{}, false
		}
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return meta{}, false
		}
	} else if unix.Lstat(c.Path, &st) != nil { // before 5.17 of what directories say
		return meta{}, false
	}
	c.Inode, c.Mode, c.UID, c.GID, c.Size = st.Ino, st.Mode, st.Uid, st.Gid, uint64(st.Size)
	c.whiteout = st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	c.ATime, c.MTime, c.CTime, c.Stat = st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano(), true
	c.Device = strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
	return metaOf(&st), true
}

func metaOf(st *unix.Stat_t) meta {
	return meta{mode: st.Mode, uid: st.Uid, gid: st.Gid, nlink: uint32(st.Nlink), size: uint64(st.Size), inode: st.Ino,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), atime: st.Atim.Nano()}
}

func (r *Reader) remember(key string, m meta) {
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	r.known[key] = m
	r.remembered.Store(int64(len(r.known)))
}

func (r *Reader) forget(key string) {
	delete(r.known, key)
	r.remembered.Store(int64(len(r.known)))
}

func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}
