package procfs

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const maxMounts = 64 << 20 // a node with 10,000 overlay mounts writes about 10 MiB

// Mount is one line of /proc/PID/mounts: a mounted file system as its process sees it.
type Mount struct {
	Device  string // device or source, "none" when there is none
	Path    string // where it is mounted
	Type    string // file system type, with a subtype as in fuse.sshfs
	Options string // comma-separated
}

// Mounts lists the mounts of this process or, below a host root, those of the host's
// first process: /proc/self would be the agent's own container there.
func (fs FS) Mounts() ([]Mount, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, fs.first(), "mounts"), maxMounts)
	if err != nil {
		return nil, err
	}
	return ParseMounts(b), nil
}

// ParseMounts reads /proc/PID/mounts (fstab(5)): words separated by a space, in which
// the kernel writes space, tab, newline, backslash and # as a backslash and three octal
// digits. A line of fewer than four words is left out.
func ParseMounts(b []byte) []Mount {
	var out []Mount
	for line := range bytes.Lines(b) {
		words := bytes.SplitN(bytes.TrimRight(line, "\n"), []byte{' '}, 5)
		if len(words) < 4 {
			continue
		}
		out = append(out, Mount{
			Device: unescape(words[0]), Path: unescape(words[1]),
			Type: unescape(words[2]), Options: unescape(words[3]),
		})
	}
	return out
}

func unescape(word []byte) string {
	if bytes.IndexByte(word, '\\') < 0 {
		return string(word)
	}
	out := make([]byte, 0, len(word))
	for i := 0; i < len(word); i++ {
		if word[i] == '\\' && i+3 < len(word) {
			a, b, c := word[i+1]-'0', word[i+2]-'0', word[i+3]-'0'
			if a < 4 && b < 8 && c < 8 {
				out = append(out, a<<6|b<<3|c)
				i += 3
				continue
			}
		}
		out = append(out, word[i])
	}
	return string(out)
}

// MountPoint is one line of /proc/PID/mountinfo: a mounted file system, or a part of one.
type MountPoint struct {
	ID, Parent int
	Device     string // major:minor of the file system
	Root       string // what of the file system is mounted
	Path       string // where
	Type       string
	Source     string
	Upper      string // of an overlay: the directory that holds what was written, "" for none
}

// MountPoints lists the mounts of this process in the order in which they were made, as
// Mounts does.
func (fs FS) MountPoints() ([]MountPoint, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, fs.first(), "mountinfo"), maxMounts)
	if err != nil {
		return nil, err
	}
	return ParseMountPoints(b), nil
}

// OpenMountPoints opens the file that MountPoints reads: poll(2) tells by POLLPRI that mounts
// have changed.
func (fs FS) OpenMountPoints() (int, error) {
	name := filepath.Join(fs.Proc, fs.first(), "mountinfo")
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// ParseMountPoints reads /proc/PID/mountinfo (proc_pid_mountinfo(5)). A line that is none is
// left out.
func ParseMountPoints(b []byte) []MountPoint {
	var out []MountPoint
	for line := range bytes.Lines(b) {
		words := bytes.Split(bytes.TrimRight(line, "\n"), []byte{' '})
		if len(words) < 9 {
			continue
		}
		rest := words[6:]
		for len(rest) > 0 && string(rest[0]) != "-" { // optional fields
			rest = rest[1:]
		}
		id, err := strconv.Atoi(string(words[0]))
		parent, err2 := strconv.Atoi(string(words[1]))
		if len(rest) < 3 || err != nil || err2 != nil {
			continue
		}
		m := MountPoint{
			ID: id, Parent: parent, Device: string(words[2]), Root: unescape(words[3]), Path: unescape(words[4]),
			Type: unescape(rest[1]), Source: unescape(rest[2]),
		}
		if m.Type == "overlay" && len(rest) > 3 {
			m.Upper = upperOf(rest[3])
		}
		out = append(out, m)
	}
	return out
}

// upperOf finds upperdir among the options of an overlay; "" when there is none, or it is not named
// from the root. A comma in a name has a backslash before it (ovl_parse_opt() in fs/overlayfs).
func upperOf(options []byte) string {
	const key = "upperdir="
	for at := 0; at < len(options); {
		end := at
		for end < len(options) && options[end] != ',' {
			if options[end] == '\\' && end+1 < len(options) && options[end+1] == ',' {
				end++
			}
			end++
		}
		end = min(end, len(options))
		if value, ok := bytes.CutPrefix(options[at:end], []byte(key)); ok {
			name := unescape(bytes.ReplaceAll(value, []byte(`\,`), []byte(",")))
			if strings.HasPrefix(name, "/") {
				return filepath.Clean(name)
			}
			return ""
		}
		at = end + 1
	}
	return ""
}

// LinkOf reads what an open file of this process is called (proc_pid_fd(5)); buf is where it
// is read to.
func LinkOf(fd int, buf []byte) (string, error) {
	name := append(append(make([]byte, 0, 32), "/proc/self/fd/"...), strconv.Itoa(fd)...)
	n, err := unix.Readlink(string(name), buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}
