package procfs

import (
	"os"
	"path/filepath"
	"strings"
)

// Sysctl is a value below /proc/sys (proc_sys(5)).
type Sysctl struct {
	Path  string // below /proc/sys
	Value string // without white space around it; lines and columns are kept
}

const (
	maxSysctls     = 65_536 // about 1,000, and 60 for each interface
	maxSysctlDepth = 16
	maxSysctl      = 64 << 10
)

// silent are those that reading has an effect on, or that are secret: an automount point, a
// command to collect statistics, the seed of stable addresses (RFC 7217).
func silentSysctl(path string) bool {
	return path == "fs/binfmt_misc" || path == "vm/stat_refresh" || strings.HasSuffix(path, "/stable_secret")
}

// Sysctl reads one value; false when there is none, or it is only for writing.
func (fs FS) Sysctl(path string) (Sysctl, bool) {
	if path = filepath.Clean("/" + path)[1:]; path == "" || silentSysctl(path) || strings.HasPrefix(path, "fs/binfmt_misc/") {
		return Sysctl{}, false
	}
	file := filepath.Join(fs.Proc, "sys", path)
	st, err := os.Lstat(file)
	if err != nil || !st.Mode().IsRegular() || st.Mode()&0o444 == 0 {
		return Sysctl{}, false
	}
	b, err := readAtMost(file, maxSysctl)
	if err != nil {
		return Sysctl{}, false // unset, or not for this user
	}
	return Sysctl{Path: path, Value: strings.TrimSpace(string(b))}, true
}

// Sysctls reads all values that can be read below a directory, "" for all there are.
func (fs FS) Sysctls(below string, yield func(Sysctl) bool) {
	left := maxSysctls
	fs.sysctls(below, maxSysctlDepth, &left, yield)
}

func (fs FS) sysctls(dir string, depth int, left *int, yield func(Sysctl) bool) bool {
	if depth == 0 || silentSysctl(dir) {
		return true
	}
	list, err := os.ReadDir(filepath.Join(fs.Proc, "sys", dir))
	if err != nil {
		return true
	}
	for _, entry := range list {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			if !fs.sysctls(path, depth-1, left, yield) {
				return false
			}
			continue
		}
		if *left--; *left < 0 {
			return false
		}
		if s, ok := fs.Sysctl(path); ok && !yield(s) {
			return false
		}
	}
	return true
}
