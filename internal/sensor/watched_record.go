package sensor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// Bits of iattr.ia_valid (linux/fs.h).
const (
	attrMode = 1 << iota
	attrUID
	attrGID
	attrSize
	attrATime
	attrMTime
	attrKill = 1<<11 | 1<<12 // the bits that let others run it as its owner are taken off
)

// fileID is a file of one file system.
type fileID struct {
	dev   uint32
	inode uint64
}

// writing is a watched file that was written to, and has not been closed since.
type writing struct {
	event    event.File
	id       fileID
	deadline uint64
}

const (
	writingSettles = 1_000_000_000 // ns after which a write is told although the file is still open
	maxWriting     = 16_384
)

// fileRecord is a record as it is being decoded.
type fileRecord struct {
	*bpf.GoshawkRecFile
	now         *scope
	views       selection.Views
	path, other string // from the root of the file system
	text        string
}

// file decodes rec_file: what was done to what may be watched.
func (d *decoder) file(raw []byte, dr *drain) error {
	rec, err := fixed[bpf.GoshawkRecFile](raw)
	if err != nil {
		return err
	}
	w := dr.s.watched
	if w == nil {
		return fmt.Errorf("%w: no file is watched", errValue)
	}
	if has(&rec.Head, bpf.GoshawkFlagFLAG_PATH_CUT) || has(&rec.Head, bpf.GoshawkFlagFLAG_OTHER_CUT) {
		w.cut.Add(1) // deeper than any path that a program can name at once
		return nil
	}
	r := fileRecord{GoshawkRecFile: rec, now: w.now.Load()}
	if r.path, err = d.path(raw, rec.Path, false); err != nil {
		return err
	}
	if rec.Other.Len > 0 {
		if r.other, err = d.path(raw, rec.Other, false); err != nil {
			return err
		}
	}
	text, err := span(raw, rec.Text)
	if err != nil {
		return err
	}
	r.text = string(text)
	r.views = r.now.systems[rec.Inode.Dev]
	if has(&rec.Head, bpf.GoshawkFlagFLAG_PIVOT) {
		if err := w.appeared(&rec.Inode, r.path, r.other); err != nil {
			return err
		}
	}
	return d.fileDone(&r, w, dr)
}

// fileDone makes events of a record.
func (d *decoder) fileDone(r *fileRecord, w *watched, dr *drain) error {
	id := fileID{r.Inode.Dev, r.Inode.Inode}
	merged := &d.count[event.KindFile].merged
	switch op := bpf.GoshawkFileOp(r.Op); op {
	case bpf.GoshawkFileOpFILE_CREATE, bpf.GoshawkFileOpFILE_MKDIR:
		return d.tellFile(r, w, dr, "create", r.path, "")
	case bpf.GoshawkFileOpFILE_OPEN:
		return d.tellFile(r, w, dr, "open", r.path, "")
	case bpf.GoshawkFileOpFILE_MMAP:
		if unnamed(r.path, id.inode) {
			merged.Add(1) // so is that
			return nil
		}
		return d.tellFile(r, w, dr, "mmap", r.path, "")
	case bpf.GoshawkFileOpFILE_TOUCH, bpf.GoshawkFileOpFILE_WRITE:
		closed := op == bpf.GoshawkFileOpFILE_WRITE
		if unnamed(r.path, id.inode) {
			name, ok := w.temps[id]
			if !ok {
				merged.Add(1) // it is told of once it has a name
				return nil
			}
			r.path = name
		}
		before := w.open[r.File]
		if closed {
			delete(w.temps, id)
			delete(w.open, r.File)
		}
		switch {
		case r.Inode.Inode != 0 && r.Inode.Nlink == 0:
			merged.Add(1) // it was deleted meanwhile
		case closed:
			return d.tellFile(r, w, dr, "write", r.path, "")
		case before == nil && len(w.open) >= maxWriting:
			return d.tellFile(r, w, dr, "write", r.path, "") // before it is closed
		default:
			now := &writing{id: id, deadline: event.BootNow() + writingSettles}
			if d.fillFile(&now.event, r, w, "write", r.path, "") {
				if before != nil {
					now.deadline = before.deadline
				}
				w.open[r.File] = now
				merged.Add(1)
			}
		}
		return nil
	case bpf.GoshawkFileOpFILE_DELETE:
		if r.Inode.Nlink == 0 {
			for key, o := range w.open {
				if o.id == id {
					delete(w.open, key)
				}
			}
		}
		return d.tellFile(r, w, dr, "delete", r.path, "")
	case bpf.GoshawkFileOpFILE_RENAME:
		w.renamed(r)
		if err := d.tellFile(r, w, dr, "rename", r.path, r.other); err != nil || !has(&r.Head, bpf.GoshawkFlagFLAG_EXCHANGE) {
			return err
		}
		w.more.Add(1)
		r.Inode = bpf.GoshawkRecInode{Dev: id.dev} // how the other file is was not told
		return d.tellFile(r, w, dr, "rename", r.other, r.path)
	case bpf.GoshawkFileOpFILE_LINK:
		if r.Inode.Nlink != 1 || !unnamed(r.path, id.inode) {
			return d.tellFile(r, w, dr, "link", r.path, r.other)
		}
		if len(w.temps) >= maxWriting {
			clear(w.temps)
		}
		w.temps[id] = r.other
		return d.tellFile(r, w, dr, "create", r.other, "")
	case bpf.GoshawkFileOpFILE_SYMLINK:
		return d.tellFile(r, w, dr, "symlink", r.path, "")
	case bpf.GoshawkFileOpFILE_SETXATTR:
		return d.tellFile(r, w, dr, "setxattr", r.path, "")
	case bpf.GoshawkFileOpFILE_REMOVEXATTR:
		return d.tellFile(r, w, dr, "removexattr", r.path, "")
	case bpf.GoshawkFileOpFILE_ATTRIBUTES:
		names := r.attributes()
		if len(names) == 0 {
			w.unchanged.Add(1)
			return nil
		}
		w.more.Add(uint64(len(names) - 1))
		for _, name := range names {
			if err := d.tellFile(r, w, dr, name, r.path, ""); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%w, operation %d on a file", errValue, r.Op)
}

// tellFile adds an event, unless its file is not watched or it is our own doing.
func (d *decoder) tellFile(r *fileRecord, w *watched, dr *drain, operation, path, other string) error {
	e, err := dr.nextFile()
	if err == nil && !d.fillFile(e, r, w, operation, path, other) {
		dr.batch.Drop()
	}
	return err
}

// nextFile is an event in a batch that has room.
func (dr *drain) nextFile() (*event.File, error) {
	if dr.batch != nil && dr.batch.Full() {
		if err := dr.flush(); err != nil {
			return nil, err
		}
	}
	if dr.batch == nil {
		dr.batch = event.NewBatch()
	}
	return dr.batch.Add(event.KindFile).(*event.File), nil
}

// unnamed reports whether a path is that of a file made with O_TMPFILE, which the kernel calls #
// and its inode (d_mark_tmpfile).
func unnamed(path string, inode uint64) bool {
	at := strings.LastIndexByte(path, '/')
	return at >= 0 && strings.HasPrefix(path[at+1:], "#") && path[at+2:] == strconv.FormatUint(inode, 10)
}

// attributes are the operations that notify_change() was asked for.
func (r *fileRecord) attributes() []string {
	var out []string
	if r.Valid&(attrMode|attrKill) == attrMode || (r.OldMode^r.Inode.Mode)&0o7777 != 0 {
		out = append(out, "chmod")
	}
	if r.Valid&(attrUID|attrGID) != 0 {
		out = append(out, "chown")
	}
	switch {
	case r.Valid&attrSize != 0:
		out = append(out, "truncate")
	case r.Valid&(attrATime|attrMTime) != 0:
		out = append(out, "utimes")
	}
	return out
}

// fillFile fills in an event; false when its file is not watched, or it is our own doing.
func (d *decoder) fillFile(e *event.File, r *fileRecord, w *watched, operation, path, other string) bool {
	p1, m, ok := r.views.Match(r.now.set, path)
	p2, ok2 := "", false
	if other != "" {
		var m2 selection.Match
		if p2, m2, ok2 = r.views.Match(r.now.set, other); !ok2 {
			p2 = r.views.Shown(other)
		} else if !ok {
			m = m2
		}
	}
	switch {
	case !ok && !ok2, operation == "open" && !m.Accesses:
		w.unwatched.Add(1)
		return false
	case r.Head.Pid == d.self || r.Head.NsPid == d.self:
		d.count[event.KindFile].own.Add(1)
		return false
	case !ok:
		p1 = r.views.Shown(path)
	}
	d.header(&e.Header, &r.Head)
	e.Kind = event.KindFile
	e.Operation, e.TargetPath, e.DestinationPath, e.Category, e.Result = operation, p1, p2, m.Category, "ok"
	e.SUID, e.SGID, e.FSUID, e.FSGID = event.Unset, event.Unset, event.Unset, event.Unset
	e.OwnerUID, e.OwnerGID = event.Unset, event.Unset
	if in := &r.Inode; in.Inode != 0 {
		e.Device, e.Inode, e.Mode, e.OwnerUID, e.OwnerGID, e.Size = deviceText(in.Dev), in.Inode, in.Mode, in.Uid, in.Gid, in.Size
		e.ATime, e.MTime, e.CTime = int64(in.Atime), int64(in.Mtime), int64(in.Ctime)
	}
	switch operation {
	case "symlink":
		e.TargetPath, e.DestinationPath = r.text, p1
	case "setxattr", "removexattr":
		e.Argument = r.text
	case "chmod":
		e.Argument = "0" + strconv.FormatUint(uint64(e.Mode&0o7777), 8)
	case "chown":
		uid, gid := int64(-1), int64(-1)
		if r.Valid&attrUID != 0 {
			uid = int64(e.OwnerUID)
		}
		if r.Valid&attrGID != 0 {
			gid = int64(e.OwnerGID)
		}
		e.Argument = strconv.FormatInt(uid, 10) + ":" + strconv.FormatInt(gid, 10)
	case "truncate":
		e.Argument = strconv.FormatUint(e.Size, 10)
	}
	return true
}

// renamed gives what is told later its new name.
func (w *watched) renamed(r *fileRecord) {
	if len(w.open) == 0 {
		return
	}
	from, ok := r.views.Seen(r.path)
	to, ok2 := r.views.Seen(r.other)
	for _, o := range w.open {
		if ok && ok2 && o.id.dev == r.Inode.Dev && selection.Within(o.event.TargetPath, from) {
			o.event.TargetPath = to + o.event.TargetPath[len(from):]
		}
	}
}

// settle tells of files that stay open after they were written to, at their time.
func (w *watched) settle(now uint64, dr *drain) error {
	for key, o := range w.open {
		if now < o.deadline && !w.last {
			continue
		}
		delete(w.open, key)
		w.more.Add(1)
		e, err := dr.nextFile()
		if err != nil {
			return err
		}
		*e = o.event
		e.NTime, e.Time = now, int64(now)+dr.s.decode.toUnix
		// How it is by now, if that name is still that file.
		var st unix.Stat_t
		if unix.Lstat(e.TargetPath, &st) == nil && st.Ino == e.Inode {
			e.Mode, e.OwnerUID, e.OwnerGID, e.Size = st.Mode, st.Uid, st.Gid, uint64(st.Size)
			e.ATime, e.MTime, e.CTime = st.Atim.Nano(), st.Mtim.Nano(), st.Ctim.Nano()
		}
	}
	return nil
}

// due is when settle has something to do; 0 never.
func (w *watched) due() uint64 {
	var due uint64
	for _, o := range w.open {
		if due == 0 || o.deadline < due {
			due = o.deadline
		}
	}
	return due
}
