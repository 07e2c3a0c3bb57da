package fanotify

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// meta is how a file was when it was looked at last.
type meta struct {
	mode, uid, gid, nlink uint32
	size, inode           uint64
	mtime, ctime, atime   int64
}

const maxKnown = 131_072 // files of which it is remembered how they were, about 200 bytes each

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
