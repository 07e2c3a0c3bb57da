// Package procfs reads /proc and /sys, and is alone in doing so. What it returns is
// untrusted text of the kernel and of processes: every parser takes bytes, bounds what it
// reads, and has a fuzz target. It knows no events and no tables, and owns no state but
// open directory descriptors.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is a pair of mounted proc and sysfs file systems.
type FS struct {
	Proc string // usually /proc
	Sys  string // usually /sys
}

// At returns the file systems below a host root directory ("" or "/" for this host's).
func At(hostRoot string) FS {
	return FS{Proc: filepath.Join("/", hostRoot, "proc"), Sys: filepath.Join("/", hostRoot, "sys")}
}

// root is the host root directory that At was given.
func (fs FS) root() string { return filepath.Dir(fs.Sys) }

// first is the process whose view of mounts and cgroups is the host's: this one or, below a
// host root, the host's first. /proc/self would be the agent's own container there.
func (fs FS) first() string {
	if fs.Proc != "/proc" {
		return "1"
	}
	return "self"
}

// ErrGone says that a process, or the part of it that was asked for, is not there: it has
// exited, or (a kernel thread, a zombie) never had an executable or namespaces to show.
// Callers skip; nothing went wrong.
var ErrGone = errors.New("process is gone")

// BootID returns the identity of this boot of the kernel, 36 characters of a random UUID
// (random(4), /proc/sys/kernel/random/boot_id).
func (fs FS) BootID() (string, error) {
	b, err := os.ReadFile(filepath.Join(fs.Proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	b = bytes.TrimSpace(b)
	if len(b) != 36 {
		return "", fmt.Errorf("read boot id: %q is no UUID", b)
	}
	return string(b), nil
}

// BootTime returns when the kernel booted, in unix nanoseconds: what must be added to
// nanoseconds since boot (CLOCK_BOOTTIME, which counts through suspend) to get unix time.
// It is measured between two readings of CLOCK_REALTIME and is good to less than a
// microsecond on an idle machine. It moves whenever the wall clock is set.
func BootTime() (int64, error) {
	var best, width int64 = 0, 1<<63 - 1
	for range 8 {
		var before, boot, after unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &before); err != nil {
			return 0, fmt.Errorf("read wall clock: %w", err)
		}
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
			return 0, fmt.Errorf("read boot clock: %w", err)
		}
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &after); err != nil {
			return 0, fmt.Errorf("read wall clock: %w", err)
		}
		if w := after.Nano() - before.Nano(); w >= 0 && w < width {
			best, width = before.Nano()+w/2-boot.Nano(), w
		}
	}
	if width == 1<<63-1 {
		return 0, errors.New("read wall clock: it went backwards eight times")
	}
	return best, nil
}
