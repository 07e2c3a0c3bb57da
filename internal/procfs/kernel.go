package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// BTF returns the path and size of the type information that the kernel carries; the
// error is fs.ErrNotExist when it has none (CONFIG_DEBUG_INFO_BTF, from Linux 5.2).
func (f FS) BTF() (path string, size int64, err error) {
	path = filepath.Join(f.Sys, "kernel/btf/vmlinux")
	st, err := os.Stat(path)
	if err != nil {
		return path, 0, err
	}
	return path, st.Size(), nil
}

// SecurityModules returns the Linux security modules in force, in their order. The error
// is fs.ErrNotExist when securityfs can be neither found nor mounted, or before Linux 4.12.
func (f FS) SecurityModules() ([]string, error) {
	b, err := f.security("lsm")
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(bytes.TrimSpace(b)), func(r rune) bool { return r == ',' }), nil
}

// security reads a file of securityfs. Where that is not mounted it is mounted for us
// alone, seen by no other process and gone with its descriptor (fsopen(2), Linux 5.2).
func (f FS) security(name string) ([]byte, error) {
	b, err := readAtMost(filepath.Join(f.Sys, "kernel/security", name), maxSmallFile)
	if !errors.Is(err, fs.ErrNotExist) || f.Sys != "/sys" {
		return b, err
	}
	context, e := unix.Fsopen("securityfs", unix.FSOPEN_CLOEXEC)
	if e != nil {
		return nil, err
	}
	defer unix.Close(context)
	if unix.FsconfigCreate(context) != nil {
		return nil, err
	}
	mount, e := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if e != nil {
		return nil, err
	}
	defer unix.Close(mount)
	return readAtMost(filepath.Join(f.Proc, "self/fd", strconv.Itoa(mount), name), maxSmallFile)
}

// Lockdown returns the mode of kernel_lockdown(7): none, integrity or confidentiality. The
// error is fs.ErrNotExist when securityfs can be neither found nor mounted, the kernel has
// no lockdown, or before Linux 5.4.
func (f FS) Lockdown() (string, error) {
	b, err := f.security("lockdown")
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(b), "[")
	mode, _, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return "", fmt.Errorf("parse lockdown: no mode is marked in %q: %w", b, fs.ErrInvalid)
	}
	return mode, nil
}

// Filesystem reports whether the kernel knows a type of filesystem (/proc/filesystems), as
// built in or loaded.
func (f FS) Filesystem(name string) (bool, error) {
	b, err := readAtMost(filepath.Join(f.Proc, "filesystems"), maxSmallFile)
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(b) {
		if fields := bytes.Fields(line); len(fields) > 0 && string(fields[len(fields)-1]) == name {
			return true, nil
		}
	}
	return false, nil
}

// OwnCapabilities returns the effective capabilities of this process, a bit each.
func (f FS) OwnCapabilities() (uint64, error) {
	b, err := readAtMost(filepath.Join(f.Proc, "self/status"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	var s Status
	parseStatus(b, &s)
	return s.CapEff, nil
}
