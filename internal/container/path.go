package container

import "strings"

// Ref is what the path of a cgroup says of the container that is in it.
type Ref struct {
	ID      string // 64 hexadecimal digits for most runtimes, a name for others
	Runtime string // docker, podman …; empty when the path does not tell
	PodUID  string // of Kubernetes, with dashes as the API has it
	Root    string // the container's own cgroup: path, or what it lies below
}

// Runtimes, as the column runtime has them.
const (
	Docker     = "docker"
	Podman     = "podman"
	Containerd = "containerd"
	CRIO       = "cri-o"
	Runc       = "runc"
	Crun       = "crun"
	LXC        = "lxc"
	Nspawn     = "systemd-nspawn"
	LibvirtLXC = "libvirt-lxc"
	BuildKit   = "buildkit"
	Kata       = "kata"
	Garden     = "garden"
	ECS        = "ecs"
)

// prefixes are what runtimes put before the 64 digits of an id, with or without systemd's
// .scope behind them.
var prefixes = [...]struct{ name, runtime string }{
	{"docker", Docker},
	{"cri-containerd", Containerd},
	{"containerd", Containerd},
	{"nerdctl", Containerd},
	{"crio", CRIO},
	{"libpod", Podman},
	{"libpod-payload", Podman},
	{"kata", Kata},
	{"kata_overhead", Kata},
}

// ParsePath finds the innermost container that the path of a cgroup names, in any of the
// forms that runtimes give it with either cgroup driver; false when it names none. A path
// is the kernel's, from the root of its hierarchy, or from another cgroup namespace with
// leading "/.."; what it holds is chosen by whoever may make cgroups.
func ParsePath(path string) (Ref, bool) {
	path = strings.TrimSuffix(path, " (deleted)")
	for end := len(path); end > 0; {
		start := strings.LastIndexByte(path[:end], '/')
		name := path[start+1 : end]
		above := path[:max(start, 0)]
		id, runtime, is := component(name, above, path[end:])
		switch is {
		case itself:
			r := Ref{ID: id, Runtime: runtime, PodUID: podUID(above), Root: path[:end]}
			if slice, _, ok := strings.Cut(name, ":"); ok && r.PodUID == "" {
				r.PodUID = podUID(slice)
			}
			if runtime == Nspawn && strings.HasPrefix(path[end:], "/payload") {
				r.Root = path[:end+len("/payload")]
			}
			return r, true
		case outside:
			return Ref{}, false
		}
		end = max(start, 0)
	}
	return Ref{}, false
}

// verdict is what one name in a path is.
type verdict uint8

const (
	other   verdict = iota
	itself          // a container's cgroup
	outside         // a runtime's own process, beside its container
)

// component judges one name of a path by itself, by what is above it and below it.
func component(name, above, below string) (id, runtime string, is verdict) {
	unit, scope := strings.CutSuffix(name, ".scope")
	parent := above[strings.LastIndexByte(above, '/')+1:]

	if len(unit) >= 64 {
		id = unit[len(unit)-64:]
		if isHex(id) {
			switch before := unit[:len(unit)-64]; {
			case before == "":
				return bare(id, parent)
			case before[len(before)-1] == '-', before[len(before)-1] == '_', before[len(before)-1] == ':':
				before = before[:len(before)-1]
				if i := strings.LastIndexByte(before, ':'); i >= 0 {
					before = before[i+1:] // "slice:prefix:id", where a driver took it as it is
				}
				if strings.HasSuffix(before, "conmon") {
					return "", "", outside
				}
				for _, p := range prefixes {
					if before == p.name {
						return id, p.runtime, itself
					}
				}
			}
		}
	}
	switch {
	case scope && strings.HasPrefix(unit, "runc-"):
		return unit[len("runc-"):], Runc, some(unit[len("runc-"):])
	case scope && strings.HasPrefix(unit, "crun-"):
		return unit[len("crun-"):], Crun, some(unit[len("crun-"):])
	case scope && strings.HasPrefix(unit, "machine-"):
		return machine(unescape(unit[len("machine-"):]), below)
	case strings.HasPrefix(name, "systemd-nspawn@") && strings.HasSuffix(name, ".service"):
		if below != "/payload" && !strings.HasPrefix(below, "/payload/") {
			return "", "", outside // systemd-nspawn itself
		}
		id = unescape(strings.TrimSuffix(name[len("systemd-nspawn@"):], ".service"))
		return id, Nspawn, some(id)
	case strings.HasPrefix(name, "lxc.payload."):
		id = name[len("lxc.payload."):]
		return id, LXC, some(id)
	case strings.HasPrefix(name, "lxc.monitor"), name == "lxc.pivot":
		return "", "", outside
	}
	switch parent {
	case "lxc", "lxc.payload":
		return name, LXC, some(name)
	case "buildkit":
		if len(name) == 25 && isLowerAlnum(name) {
			return name, BuildKit, itself
		}
	case "garden":
		if name != "init" {
			return name, Garden, some(name)
		}
	}
	// Amazon's Fargate: /ecs/TASK/TASK-NUMBER, where TASK is 32 digits.
	if len(name) > 33 && name[32] == '-' && name[:32] == parent && isHex(parent) && isDigits(name[33:]) {
		return name, ECS, itself
	}
	return "", "", other
}

// bare judges 64 digits without a prefix by the name above them.
func bare(id, parent string) (string, string, verdict) {
	switch parent {
	case "docker":
		return id, Docker, itself
	case "libpod_parent":
		return "", "", other // a pod of podman's, whose containers are below
	}
	return id, "", itself
}

// machine judges a scope that systemd-machined made.
func machine(name, below string) (string, string, verdict) {
	switch {
	case strings.HasPrefix(name, "qemu-"):
		return "", "", outside // a virtual machine is no container
	case strings.HasPrefix(name, "lxc-"):
		// lxc-NUMBER-NAME, as libvirt calls its own
		if number, rest, ok := strings.Cut(name[len("lxc-"):], "-"); ok && isDigits(number) {
			return rest, LibvirtLXC, some(rest)
		}
	case below == "/supervisor" || strings.HasPrefix(below, "/supervisor/"):
		return "", "", outside // systemd-nspawn itself
	}
	return name, Nspawn, some(name)
}

func some(id string) verdict {
	if id == "" {
		return other
	}
	return itself
}

// podUID finds the Kubernetes pod in what is above a container: podUID below kubepods, or
// …-podUID.slice with underscores for dashes, which a slice's name cannot hold.
func podUID(above string) string {
	name := above[strings.LastIndexByte(above, '/')+1:]
	if slice, ok := strings.CutSuffix(name, ".slice"); ok {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 || !strings.Contains(slice, "kubepods") {
			return ""
		}
		return strings.ReplaceAll(slice[i+len("-pod"):], "_", "-")
	}
	uid, ok := strings.CutPrefix(name, "pod")
	if !ok || len(uid) != 36 && len(uid) != 32 || !isHexDashed(uid) {
		return ""
	}
	return uid
}

// Guess names the container of a process that a runtime has put into a pid namespace of its
// own and into a cgroup whose path says nothing (runc, crun and ctr take any path): the last
// name of the path. False where that name is a unit of systemd's, or none.
func Guess(path string) (Ref, bool) {
	path = strings.TrimSuffix(path, " (deleted)")
	for {
		i := strings.LastIndexByte(path, '/')
		name := path[i+1:]
		switch {
		case i < 0 || name == "" || name == ".." || name == "payload" || name == "supervisor":
			return Ref{}, false
		case name == "container" || name == "init":
			path = path[:i] // what crun and podman make below the container's own
			continue
		}
		for _, suffix := range [...]string{".scope", ".service", ".slice", ".mount", ".socket", ".swap"} {
			if strings.HasSuffix(name, suffix) {
				return Ref{}, false
			}
		}
		return Ref{ID: name, Root: path}, true
	}
}

// unescape undoes systemd's \xNN in names of units (systemd-escape(1)).
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			hi, lo := digit(s[i+2]), digit(s[i+3])
			if hi < 16 && lo < 16 {
				b = append(b, hi<<4|lo)
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// digit is the value of a hexadecimal digit, 16 or more for another byte.
func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if digit(s[i]) > 15 {
			return false
		}
	}
	return s != ""
}

func isHexDashed(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] != '-' && digit(s[i]) > 15 {
			return false
		}
	}
	return true
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func isLowerAlnum(s string) bool {
	for i := 0; i < len(s); i++ {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'z') {
			return false
		}
	}
	return s != ""
}
