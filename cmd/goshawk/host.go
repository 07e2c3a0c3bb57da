package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/ctl"
	"github.com/goshawk-project/goshawk/internal/store"
)

// host is where things are. Every path is a flag, and all lie under one root directory
// unless they are given.
type host struct {
	rootDir  string
	storeDir string
	socket   string
	hostRoot string
}

func (h *host) flags(f *pflag.FlagSet) {
	f.StringVar(&h.rootDir, "root-dir", "/", "directory below which all files of goshawk lie")
	f.StringVar(&h.storeDir, "store-dir", "", "directory of the event store (default <root-dir>/var/lib/goshawk)")
	f.StringVar(&h.hostRoot, "host-root", "/", "where the root directory of the host is, for goshawk in a container")
	f.StringVar(&h.socket, "socket", "", "socket of the running agent (default <root-dir>/run/goshawk/goshawk.sock)")
}

func (h *host) store() string {
	if h.storeDir != "" {
		return h.storeDir
	}
	return filepath.Join(h.rootDir, "var/lib/goshawk")
}

func (h *host) socketPath() string {
	if h.socket != "" {
		return h.socket
	}
	return filepath.Join(h.rootDir, "run/goshawk/goshawk.sock")
}

// failed gives an error the exit code that belongs to its cause.
func failed(err error) error {
	var exit *exitError
	var inUse *ctl.ErrInUse
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return err
	case errors.Is(err, store.ErrLocked), errors.As(err, &inUse):
		return &exitError{exitBusy, err}
	case errors.Is(err, unix.EROFS):
		return failf(exitFailed, "%w: give --root-dir a directory that can be written", err)
	case errors.Is(err, store.ErrDenied) && unix.Geteuid() != 0:
		return failf(exitPrivilege, "%w: run as root, or give --root-dir a directory of your own", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES) && unix.Geteuid() != 0:
		return failf(exitPrivilege, "%w: run as root", err)
	}
	return &exitError{exitFailed, err}
}
