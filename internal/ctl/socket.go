package ctl

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a live process listens on a socket.
type ErrInUse struct {
	Path string
	PID  int // 0 when it is not known
}

func (e *ErrInUse) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("listen on %q: another agent holds it", e.Path)
	}
	return fmt.Sprintf("listen on %q: another agent holds it, process %d", e.Path, e.PID)
}

// maxPath is sizeof(sockaddr_un.sun_path) without its NUL.
const maxPath = 107

// socket is a listening socket and the lock that makes it ours. The lock, on a file next
// to the socket that is never removed, closes the gap between finding a socket stale and
// replacing it, in which two agents could end up with one path.
type socket struct {
	*net.UnixListener
	path string
	lock *os.File
}

func listen(path string) (s *socket, err error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %q: the path is %d bytes long, a socket's may be %d", path, len(path), maxPath)
	}
	if err := directory(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := clear(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, cause(err))
	}
	// Clients that come before this are checked as well, by their credentials.
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return &socket{l, path, lock}, nil
}

// stop closes the socket and removes it; unlock then lets another agent have it.
func (s *socket) stop() error { return s.UnixListener.Close() }

func (s *socket) unlock() error { return s.lock.Close() }

// directory makes dir, if need be, for this user alone. One that exists stays as it is,
// but must not let others replace what is in it.
func directory(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("listen in %q: it is no directory", dir)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("listen in %q: other users may write to it (mode %v); make it 0700", dir, info.Mode().Perm())
	}
	return nil
}

// acquire locks path for this process, and writes its pid into the lock.
func acquire(path string) (*os.File, error) {
	name := path + ".lock"
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer lock.Close()
		if err == unix.EWOULDBLOCK {
			text := make([]byte, 20)
			n, _ := lock.ReadAt(text, 0)
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
			return nil, &ErrInUse{path, pid}
		}
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	if err = lock.Truncate(0); err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	return lock, nil
}

// clear removes a socket nobody listens on from path.
func clear(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %q: there is a file that is no socket", path)
	}
	// The lock is ours, so this is stale, unless its owner does not know of locks.
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		defer c.Close()
		used := &ErrInUse{Path: path}
		if peer, err := credentials(c); err == nil {
			used.PID = int(peer.Pid)
		}
		return used
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("listen on %q: tell whether it is in use: %w", path, cause(err))
	}
	return os.Remove(path)
}

// credentials asks the kernel who is at the other end.
func credentials(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return peer, failed
}

// trusted reports whether a user is root or the one who runs this process.
func trusted(uid uint32) bool { return uid == 0 || int64(uid) == int64(os.Geteuid()) }

// cause is err without the addresses that package net adds.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		var sys *os.SyscallError
		if errors.As(op.Err, &sys) {
			return sys.Err
		}
		return op.Err
	}
	return err
}
