package kernel

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// maxRelease bounds what is read of os-release(5).
const maxRelease = 64 << 10

// distribution is what the host below root calls itself: PRETTY_NAME of os-release(5).
func distribution(root string) Fact {
	var b []byte
	err := error(nil)
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if b, err = readHead(filepath.Join("/", root, name)); err == nil {
			break
		}
	}
	if err != nil {
		return Fact{Name: "distribution", Value: "it does not say: there is no os-release", State: Unknown}
	}
	for line := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("PRETTY_NAME=")); ok {
			if name := strings.Trim(string(value), `"'`); name != "" {
				return Fact{Name: "distribution", Value: name, State: OK}
			}
		}
	}
	return Fact{Name: "distribution", Value: "it does not say: os-release has no PRETTY_NAME", State: Unknown}
}

func readHead(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRelease))
}

// architecture is the machine's as uname(2) gives it, and that of this program where the
// two differ: a 32-bit program does not know 64-bit structures, for one.
func architecture() Fact {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return unknown("architecture", fmt.Errorf("ask uname(2): %w", err))
	}
	machine := unix.ByteSliceToString(u.Machine[:])
	if machine != "x86_64" && machine != "aarch64" {
		return Fact{Name: "architecture", Value: machine, State: Missing, Advice: "goshawk knows x86_64 and aarch64"}
	}
	return Fact{Name: "architecture", Value: machine, State: OK}
}

// cgroups says which versions of cgroups(7) are mounted: only v2 has places where
// programs attach, and identities that every record carries.
func cgroups(f procfs.FS) Fact {
	mounts, err := f.Mounts()
	if err != nil {
		return unknown("cgroups", err)
	}
	var two string
	one := 0
	for _, m := range mounts {
		switch {
		case m.Type == "cgroup":
			one++
		case m.Type == "cgroup2" && two == "":
			two = m.Path
		}
	}
	const advice = "mount -t cgroup2 none /sys/fs/cgroup/unified: dns and datagrams are seen there"
	known, err := f.Filesystem("cgroup2")
	switch {
	case err == nil && !known && one > 0:
		return Fact{Name: "cgroups", Value: "v1; this kernel has no v2 (from Linux 4.5)", State: OK}
	case err == nil && !known:
		return Fact{Name: "cgroups", Value: "not mounted; this kernel has no v2 (from Linux 4.5)", State: OK}
	case two != "" && one == 0:
		return Fact{Name: "cgroups", Value: "v2 at " + two, State: OK}
	case two != "":
		return Fact{Name: "cgroups", Value: "hybrid, v2 at " + two, State: OK}
	case one > 0:
		return Fact{Name: "cgroups", Value: "v1 only", State: Missing, Advice: advice}
	}
	return Fact{Name: "cgroups", Value: "not mounted", State: Missing, Advice: strings.Replace(advice, "/unified", "", 1)}
}

// Runtime is a container runtime that listens on this host.
type Runtime struct {
	Name   string `json:"name"`
	Socket string `json:"socket"`
}

// sockets are where runtimes listen unless they were told otherwise. Below /run, which
// /var/run is a link to.
var sockets = []Runtime{
	{"docker", "run/docker.sock"},
	{"containerd", "run/containerd/containerd.sock"},
	{"containerd of docker", "run/docker/containerd/containerd.sock"},
	{"containerd of k3s", "run/k3s/containerd/containerd.sock"},
	{"cri-o", "run/crio/crio.sock"},
	{"podman", "run/podman/podman.sock"},
}

// Runtimes finds container runtimes of the host below root by their sockets.
func Runtimes(root string) []Runtime {
	out := []Runtime{}
	for _, r := range sockets {
		r.Socket = filepath.Join("/", root, r.Socket)
		if st, err := os.Stat(r.Socket); err == nil && st.Mode().Type() == os.ModeSocket {
			out = append(out, r)
		}
	}
	return out
}
