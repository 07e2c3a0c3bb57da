package procfs

import (
	"bytes"
	"path/filepath"
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
