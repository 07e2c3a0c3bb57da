package procfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
// is fs.ErrNotExist when securityfs is not mounted, or before Linux 4.12.
func (f FS) SecurityModules() ([]string, error) {
	b, err := readAtMost(filepath.Join(f.Sys, "kernel/security/lsm"), maxSmallFile)
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(bytes.TrimSpace(b)), func(r rune) bool { return r == ',' }), nil
}

// Lockdown returns the mode of kernel_lockdown(7): none, integrity or confidentiality. The
// error is fs.ErrNotExist when securityfs is not mounted, the kernel has no lockdown, or
// before Linux 5.4.
func (f FS) Lockdown() (string, error) {
	b, err := readAtMost(filepath.Join(f.Sys, "kernel/security/lockdown"), maxSmallFile)
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
