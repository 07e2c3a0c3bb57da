package store

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
	"golang.org/x/sys/unix"
)

// flockName is a VFS of SQLite that locks with flock(2): locks of open file descriptions
// (fcntl(2), F_OFD_SETLK), which SQLite's usual one needs, are there since Linux 3.15, and
// ordinary ones would be let go whenever any other descriptor of the file is closed. Without
// shared memory there is no write-ahead log: a reader holds up commits while it reads.
const flockName = "goshawk-flock"

var registerFlock = sync.OnceFunc(func() { vfs.Register(flockName, flockVFS{vfs.Find("")}) })

// lockVFS returns the VFS whose locks this kernel has, asked on any open file.
func lockVFS(f *os.File) string {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &unix.Flock_t{Type: unix.F_RDLCK})
	if !errors.Is(err, unix.EINVAL) {
		return ""
	}
	return flockName
}

func journalMode(vfs string) string {
	if vfs == flockName {
		return "truncate"
	}
	return "wal"
}

type flockVFS struct{ vfs.VFS }

func (v flockVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, flags, err := v.VFS.(vfs.VFSFilename).OpenFilename(name, flags)
	if err != nil || flags&vfs.OPEN_MAIN_DB == 0 {
		return file, flags, err
	}
	f := &flockFile{File: file}
	if f.whole, err = os.Open(name.String()); err == nil {
		f.reserved, err = os.Open(name.String() + "-shm") // which is there in any case, and not used otherwise
	}
	if err != nil {
		f.Close()
		return nil, flags, sqlite3.CANTOPEN
	}
	return f, flags, nil
}

// flockFile is a database with the levels of locks that SQLite asks for
// (https://sqlite.org/lockingv3.html): shared and exclusive on the file itself, reserved on another.
type flockFile struct {
	vfs.File
	whole, reserved *os.File
	level           vfs.LockLevel
}

func (f *flockFile) Close() error {
	errs := []error{f.File.Close()}
	for _, l := range []*os.File{f.whole, f.reserved} {
		if l != nil {
			errs = append(errs, l.Close()) // with its lock
		}
	}
	return errors.Join(errs...)
}

// take changes a lock without waiting.
func take(f *os.File, how int) error {
	for {
		switch err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err {
		case nil:
			return nil
		case syscall.EINTR:
		case syscall.EWOULDBLOCK:
			return sqlite3.BUSY
		default:
			return sqlite3.IOERR_LOCK
		}
	}
}

func (f *flockFile) Lock(level vfs.LockLevel) error {
	if f.level >= level {
		return nil
	}
	switch level {
	case vfs.LOCK_SHARED:
		if err := take(f.whole, syscall.LOCK_SH); err != nil {
			return err
		}
	case vfs.LOCK_RESERVED:
		if err := take(f.reserved, syscall.LOCK_EX); err != nil {
			return err
		}
	case vfs.LOCK_EXCLUSIVE:
		if err := take(f.whole, syscall.LOCK_EX); err != nil {
			// The shared lock went with the attempt (flock(2)). Nobody can have written in
			// between: who writes holds the reserved lock, or found a journal that is not ours.
			if take(f.whole, syscall.LOCK_SH) != nil {
				return sqlite3.IOERR_LOCK
			}
			return err
		}
	}
	f.level = level
	return nil
}

func (f *flockFile) Unlock(level vfs.LockLevel) error {
	if f.level <= level {
		return nil
	}
	how := syscall.LOCK_UN
	if level == vfs.LOCK_SHARED {
		how = syscall.LOCK_SH
	}
	err := take(f.whole, how)
	if e := take(f.reserved, syscall.LOCK_UN); err == nil {
		err = e
	}
	f.level = level
	return err
}

func (f *flockFile) CheckReservedLock() (bool, error) {
	if f.level >= vfs.LOCK_RESERVED {
		return true, nil
	}
	err := take(f.reserved, syscall.LOCK_SH)
	if err == sqlite3.BUSY {
		return true, nil
	}
	if err == nil {
		err = take(f.reserved, syscall.LOCK_UN)
	}
	return false, err
}
