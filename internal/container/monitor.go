package container

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// monitored is what the arguments of the process that watches over a container say of it.
type monitored struct {
	id, name, runtime string
	bundle            string // directory with config.json
}

// maxAbove is how far up a container's monitor is looked for: shells and tools may be
// between it and the process that was seen.
const maxAbove = 8

// byMonitor finds the container of a process among its ancestors, outside its pid
// namespace. A monitor is believed when root owns its program: who started it with which
// arguments is another matter, so what it says is good for that pid namespace alone.
func byMonitor(proc procfs.FS, d *procfs.Dir, pid int) (monitored, bool) {
	var stat procfs.Stat
	for range maxAbove {
		p, err := d.Process(pid)
		if err != nil || p.Stat(&stat) != nil {
			break
		}
		if args, _, err := p.Cmdline(); err == nil {
			if m, ok := parseMonitor(bytes.Split(bytes.TrimSuffix(args, []byte{0}), []byte{0})); ok && ownedByRoot(proc, pid) {
				return m, true
			}
		}
		if pid = stat.PPID; pid <= 1 {
			break
		}
	}
	return monitored{}, false
}

func ownedByRoot(proc procfs.FS, pid int) bool {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(proc.Proc, strconv.Itoa(pid), "exe"), &st)
	return err == nil && st.Uid == 0
}

// parseMonitor reads the arguments of conmon, containerd's shim, systemd-nspawn, LXC's
// monitor, and gVisor's sandbox.
func parseMonitor(args [][]byte) (monitored, bool) {
	if len(args) == 0 {
		return monitored{}, false
	}
	name := string(args[0][bytes.LastIndexByte(args[0], '/')+1:])
	value := func(names ...string) string {
		for i, a := range args[1:] {
			for _, n := range names {
				if string(a) == n && i+2 < len(args) {
					return string(args[i+2])
				}
				if v, ok := bytes.CutPrefix(a, []byte(n+"=")); ok && len(n) > 0 {
					return string(v)
				}
			}
		}
		return ""
	}
	var m monitored
	switch {
	case name == "conmon":
		m = monitored{id: value("-c", "--cid"), name: value("-n", "--name"), runtime: Podman, bundle: value("-b", "--bundle")}
	case strings.HasPrefix(name, "containerd-shim"):
		m = monitored{id: value("-id", "--id"), runtime: Containerd}
		if value("-namespace", "--namespace") == "moby" {
			m.runtime = Docker
		}
	case name == "systemd-nspawn":
		m = monitored{id: value("-M", "--machine"), runtime: Nspawn}
		if dir := value("-D", "--directory"); m.id == "" && dir != "" {
			m.id = filepath.Base(dir)
		}
	case strings.HasPrefix(string(args[0]), "[lxc monitor] "):
		// LXC puts it all into one argument: "[lxc monitor] /var/lib/lxc web".
		if words := strings.Fields(string(args[0])); len(words) > 3 {
			m = monitored{id: words[len(words)-1], runtime: LXC}
		}
	case name == "runsc-sandbox":
		m = monitored{id: string(args[len(args)-1]), runtime: "gvisor", bundle: value("--bundle")}
	}
	m.id, m.name = text(m.id), text(m.name)
	if m.id == "" || strings.ContainsAny(m.id, "/\x00") {
		return monitored{}, false
	}
	if m.name == "" && !lasting(m.id) {
		m.name = m.id
	}
	return m, true
}

// systemdActivates reports whether connecting to a socket would start a service that does
// not run: systemd listens there in its stead.
func systemdActivates(f *files, unit string) bool {
	if !f.exists("/run/systemd/system") {
		return false
	}
	socket := false
	for _, dir := range [...]string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := os.Lstat(f.at(filepath.Join(dir, unit+".socket"))); err == nil {
			socket = true
		}
	}
	if !socket {
		return false
	}
	for _, mount := range [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if f.exists(filepath.Join(mount, "system.slice", unit+".service")) {
			return false
		}
	}
	return true
}
