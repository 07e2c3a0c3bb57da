package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	lockName = "lock"
	lockText = "pid %10d\neid %20d\n"

	// eidReserve is how many numbers are set aside at a time. A process that is killed
	// leaves the rest of them unused.
	eidReserve = 1 << 20
)

// lockFile is the file that one agent holds. It also keeps the highest event number that
// may have been given out, apart from the database, so that numbers stay unique when
// that is replaced; and it is overwritten in place, which works on a full disk.
type lockFile struct {
	file *os.File
	eid  int64 // as kept in the file
}

// lockDir takes the lock in dir, or fails with a *LockedError.
func lockDir(dir string) (*lockFile, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", classify(err))
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	pid, eid := readLock(f)
	if err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, &LockedError{Dir: dir, PID: pid}
		}
		return nil, fmt.Errorf("lock %q: %w", path, err)
	}
	l := &lockFile{file: f, eid: eid}
	if err := l.write(eid); err != nil {
		l.close()
		return nil, fmt.Errorf("lock store: %w", classify(err))
	}
	return l, nil
}

// readLock returns what a lock file says; zeros when it says nothing.
func readLock(f *os.File) (pid int, eid int64) {
	var b [64]byte
	n, _ := f.ReadAt(b[:], 0)
	for line := range strings.Lines(string(b[:n])) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || v < 0 {
			continue
		}
		switch name {
		case "pid":
			pid = int(v)
		case "eid":
			eid = v
		}
	}
	return pid, eid
}

// write records eid durably.
func (l *lockFile) write(eid int64) error {
	if _, err := l.file.WriteAt(fmt.Appendf(nil, lockText, os.Getpid(), eid), 0); err != nil {
		return err
	}
	if err := syscall.Fdatasync(int(l.file.Fd())); err != nil {
		return fmt.Errorf("sync %q: %w", l.file.Name(), err)
	}
	l.eid = eid
	return nil
}

func (l *lockFile) close() error { return l.file.Close() }
