package fanotify

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/selection"
)

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
			if p, ok := s.views.Seen(to); ok && s.set.Inside(p) { // with what is in it
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
		p1, m1, ok1 = s.views.Match(s.set, from)
	}
	p2, m2, ok2 := "", selection.Match{}, false
	if to != "" {
		p2, m2, ok2 = s.views.Match(s.set, to)
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
			c.Path = s.views.Shown(from)
		} else {
			c.Path = ".../" + string(e.from.name)
		}
	}
	if c.Destination = p2; !ok2 {
		if to != "" {
			c.Destination = s.views.Shown(to)
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
			d.inside = s.views.Inside(s.set, d.path)
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
