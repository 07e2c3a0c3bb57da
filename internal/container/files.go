package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file of a runtime's.
const maxFile = 16 << 20

// files reads files below the host's root directory, wherever that is mounted. Symbolic
// links lead nowhere but below it, and nothing but regular files is opened: not a pipe that
// nobody writes to, nor a device. Safe for concurrent use.
type files struct {
	root string // "/" or a host root
	fd   int
}

func openFiles(root string) (*files, error) {
	root = filepath.Join("/", root)
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root directory %q: %w", root, err)
	}
	return &files{root, fd}, nil
}

func (f *files) close() error { return unix.Close(f.fd) }

// at is the path by which this process reaches a path of the host's.
func (f *files) at(path string) string { return filepath.Join(f.root, path) }

// read returns the content of a file of at most limit bytes, and who owns it.
func (f *files) read(path string, limit int64) ([]byte, uint32, error) {
	fd, err := f.open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open %q: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, fmt.Errorf("open %q: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, fmt.Errorf("open %q: not a regular file", path)
	}
	if st.Size > limit {
		return nil, 0, fmt.Errorf("read %q: %w: %d bytes", path, errTooLarge, st.Size)
	}
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %q: %w", path, err)
	}
	return b, st.Uid, nil
}

func (f *files) open(path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 8 {
		fd, err := unix.Openat2(f.fd, path, &how)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
			continue
		case err != unix.ENOSYS && err != unix.EPERM:
			return fd, err
		}
		break
	}
	// Before 5.6: no link at all, in the last place.
	for {
		fd, err := unix.Open(f.at(path), flags|unix.O_NOFOLLOW, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// list returns the names in a directory; none when it is not there.
func (f *files) list(path string) []string {
	entries, err := os.ReadDir(f.at(path))
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// isSocket reports whether there is a unix socket at path.
func (f *files) isSocket(path string) bool {
	st, err := os.Stat(f.at(path))
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

func (f *files) exists(path string) bool {
	_, err := os.Stat(f.at(path))
	return err == nil
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
