// Package procfs reads /proc and /sys, and is alone in doing so. What it returns is
// untrusted text of the kernel and of processes: every parser takes bytes, bounds what it
// reads, and has a fuzz target. It knows no events and no tables, and owns no state but
// open directory descriptors.
package procfs

import "path/filepath"

// FS is a pair of mounted proc and sysfs file systems.
type FS struct {
	Proc string // usually /proc
	Sys  string // usually /sys
}

// At returns the file systems below a host root directory ("" or "/" for this host's).
func At(hostRoot string) FS {
	return FS{Proc: filepath.Join("/", hostRoot, "proc"), Sys: filepath.Join("/", hostRoot, "sys")}
}
