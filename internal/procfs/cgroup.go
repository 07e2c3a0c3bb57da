package procfs

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
)

// Hierarchy is one tree of cgroups (cgroups(7)).
type Hierarchy struct {
	ID          int      // 0 for v2
	Controllers []string // of v1; name=systemd for one without
	Mount       string   // where it is mounted, as this process sees it; empty when it is not
}

// Hierarchies lists the cgroup hierarchies: v2 first when there is one.
func (fs FS) Hierarchies() ([]Hierarchy, error) {
	mounts, err := fs.Mounts()
	if err != nil {
		return nil, err
	}
	b, err := readAtMost(filepath.Join(fs.Proc, fs.first(), "cgroup"), maxFile)
	if err != nil {
		return nil, err
	}
	out := parseHierarchies(b)
	for i := range out {
		h := &out[i]
		for _, m := range mounts {
			if h.ID == 0 && m.Type == "cgroup2" || h.ID != 0 && m.Type == "cgroup" && containsAll(m.Options, h.Controllers) {
				h.Mount = filepath.Join(fs.root(), m.Path)
				break
			}
		}
	}
	return out, nil
}

// parseHierarchies reads the lines of /proc/<pid>/cgroup, "8:cpu,cpuacct:/path" or "0::/path".
func parseHierarchies(b []byte) []Hierarchy {
	var out []Hierarchy
	for line := range bytes.Lines(b) {
		l, ok := parseCgroupLine(line)
		if !ok {
			continue
		}
		h := Hierarchy{ID: l.Hierarchy}
		if len(l.Controllers) > 0 {
			h.Controllers = strings.Split(string(l.Controllers), ",")
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b Hierarchy) int { return a.ID - b.ID })
	return out
}

func containsAll(options string, names []string) bool {
	have := strings.Split(options, ",")
	for _, n := range names {
		if !slices.Contains(have, n) {
			return false
		}
	}
	return len(names) > 0
}

// containerControllers are the v1 controllers that container runtimes use, those first that
// hardly any container goes without: every OCI runtime limits devices.
var containerControllers = []string{"devices", "pids", "memory", "freezer", "cpuset", "cpu"}

// ContainerHierarchy returns the cgroup v1 hierarchy in which containers are told apart
// best, and its controller's name; "" where no v1 controller is in use.
func (fs FS) ContainerHierarchy() (Hierarchy, string) {
	all, err := fs.Hierarchies()
	if err != nil {
		return Hierarchy{}, ""
	}
	for _, name := range containerControllers {
		for _, h := range all {
			if h.ID != 0 && h.Mount != "" && slices.Contains(h.Controllers, name) {
				return h, name
			}
		}
	}
	return Hierarchy{}, ""
}

// CgroupControllers returns the names of the v1 controllers as /proc/cgroups lists them.
func (fs FS) CgroupControllers() ([]string, error) {
	b, err := readAtMost(filepath.Join(fs.Proc, "cgroups"), maxFile)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range bytes.Lines(b) {
		if name, _ := nextField(line); len(name) > 0 && name[0] != '#' {
			out = append(out, string(name))
		}
	}
	return out, nil
}

// Cgroup2Hierarchy returns the cgroup v2 hierarchy, and its name; "" where it is not mounted.
func (fs FS) Cgroup2Hierarchy() (Hierarchy, string) {
	all, err := fs.Hierarchies()
	if err != nil || len(all) == 0 || all[0].ID != 0 || all[0].Mount == "" {
		return Hierarchy{}, ""
	}
	return all[0], "cgroup2"
}

// Cgroup2 returns where the cgroup v2 hierarchy is mounted.
func (fs FS) Cgroup2() (string, error) {
	all, err := fs.Hierarchies()
	if err != nil {
		return "", err
	}
	for _, h := range all {
		if h.ID == 0 && h.Mount != "" {
			return h.Mount, nil
		}
	}
	return "", errors.New("find cgroup2: not mounted; mount -t cgroup2 none /sys/fs/cgroup")
}

// CgroupLine is one line of /proc/<pid>/cgroup; its bytes are those of the file.
type CgroupLine struct {
	Hierarchy   int // 0 for v2
	Controllers []byte
	Path        []byte
}

// EachCgroup calls fn with each line of what Process.Cgroup returns.
func EachCgroup(cgroup []byte, fn func(CgroupLine)) {
	for line := range bytes.Lines(cgroup) {
		if l, ok := parseCgroupLine(line); ok {
			fn(l)
		}
	}
}

// parseCgroupLine splits a line at its first two colons; controllers have none, a path may.
// The kernel writes a newline in a path as it is (proc_cgroup_show), so that what follows it
// is a line of its own, and rarely a valid one.
func parseCgroupLine(line []byte) (CgroupLine, bool) {
	id, rest, ok := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{':'})
	if !ok {
		return CgroupLine{}, false
	}
	controllers, path, ok := bytes.Cut(rest, []byte{':'})
	n, number := parseDecimal(id)
	if !ok || !number || n > 1<<30 || len(path) == 0 || path[0] != '/' {
		return CgroupLine{}, false
	}
	return CgroupLine{Hierarchy: int(n), Controllers: controllers, Path: path}, true
}
