package watchdog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// group is a cgroup that holds a worker: memory and CPU may lie in two hierarchies of
// version 1 (Documentation/admin-guide/cgroup-v1), or together in one of version 2
// (cgroup-v2.rst).
type group struct {
	memory, quota string // directories; "" when that is not held
	unified       bool
	before        uint64 // ended by the kernel before
}

// errNoCgroup says that this process has no cgroup of its own in which to make one: under
// version 2 that takes delegation (systemd's Delegate=).
var errNoCgroup = errors.New("no cgroup was delegated")

const (
	period = 100 * time.Millisecond
	name   = "goshawk-worker"
	leaf   = "goshawk-watcher" // where this process goes: under version 2 inner cgroups hold no process
)

// hold puts a running worker into a cgroup with limits.
func hold(fs procfs.FS, pid int, l Limits, first int64) (*group, error) {
	if l.Memory == 0 && l.CPU == 0 {
		return nil, errNoCgroup
	}
	memory, cpu, unified, err := own(fs)
	if err != nil {
		return nil, err
	}
	g := &group{unified: unified}
	if unified {
		dir, err := delegate(memory, pid)
		if err != nil {
			return nil, err
		}
		g.memory, g.quota = dir, dir
	} else {
		for _, h := range []struct {
			parent string
			at     *string
		}{{memory, &g.memory}, {cpu, &g.quota}} {
			if h.parent == "" {
				continue
			}
			dir := filepath.Join(h.parent, name+"-"+strconv.Itoa(os.Getpid()))
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				continue
			}
			*h.at = dir
		}
		if g.memory == "" && g.quota == "" {
			return nil, errNoCgroup
		}
	}
	g.before = g.oomKills()
	if err := g.limit(l, first); err != nil {
		g.remove()
		return nil, err
	}
	for _, dir := range []string{g.memory, g.quota} {
		if dir == "" {
			continue
		}
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			g.remove()
			return nil, err
		}
	}
	return g, nil
}

// own finds the cgroups that this process is in and that have the two controllers.
func own(fs procfs.FS) (memory, cpu string, unified bool, err error) {
	hierarchies, err := fs.Hierarchies()
	if err != nil {
		return "", "", false, err
	}
	dir, err := fs.Open()
	if err != nil {
		return "", "", false, err
	}
	defer dir.Close()
	p, err := dir.Process(os.Getpid())
	if err != nil {
		return "", "", false, err
	}
	text, err := p.Cgroup()
	if err != nil {
		return "", "", false, err
	}
	at := map[int]string{} // by hierarchy
	procfs.EachCgroup(text, func(line procfs.CgroupLine) { at[line.Hierarchy] = string(line.Path) })
	two := ""
	for _, h := range hierarchies {
		path := filepath.Join(h.Mount, at[h.ID])
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); h.Mount == "" || at[h.ID] == "" || err != nil {
			continue // seen from another root
		}
		if h.ID == 0 {
			two = path
		}
		if slices.Contains(h.Controllers, "memory") {
			memory = path
		}
		if slices.Contains(h.Controllers, "cpu") {
			cpu = path
		}
	}
	if memory == "" && cpu == "" && two != "" {
		return two, two, true, nil
	}
	if memory == "" && cpu == "" {
		return "", "", false, errNoCgroup
	}
	return memory, cpu, false, nil
}

// delegate makes the cgroups of version 2 below our own: one for this process, and one for the worker.
func delegate(parent string, pid int) (string, error) {
	if strings.HasSuffix(parent, "/"+leaf) { // of the worker before
		parent = filepath.Dir(parent)
	}
	b, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil || !strings.Contains(string(b), "memory") || !strings.Contains(string(b), "cpu") {
		return "", errNoCgroup
	}
	// Only where nobody else is: a session's cgroup is not ours to divide.
	procs, err := os.ReadFile(filepath.Join(parent, "cgroup.procs"))
	if err != nil {
		return "", errNoCgroup
	}
	for _, text := range strings.Fields(string(procs)) {
		n, _ := strconv.Atoi(text)
		if n != os.Getpid() && n != pid {
			return "", errNoCgroup
		}
	}
	if _, err := os.Stat(filepath.Join(parent, "cgroup.type")); err != nil { // the root has none
		return "", errNoCgroup
	}
	mine, theirs := filepath.Join(parent, leaf), filepath.Join(parent, name)
	for _, dir := range []string{mine, theirs} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", errNoCgroup
		}
	}
	for at, n := range map[string]int{mine: os.Getpid(), theirs: pid} {
		if err := write(at, "cgroup.procs", strconv.Itoa(n)); err != nil {
			return "", err
		}
	}
	if err := write(parent, "cgroup.subtree_control", "+memory +cpu"); err != nil {
		return "", err
	}
	return theirs, nil
}

// limit writes the bounds: memory a little above what the watcher allows, which looks only
// every few seconds, and CPU exactly.
func (g *group) limit(l Limits, first int64) error {
	if l.Memory > 0 && g.memory != "" {
		file := "memory.limit_in_bytes"
		if g.unified {
			file = "memory.max"
		}
		if err := write(g.memory, file, strconv.FormatInt(first+l.Memory+headroom, 10)); err != nil {
			return err
		}
		if g.unified {
			_ = write(g.memory, "memory.swap.max", "0") // where there is swap
		}
	}
	if l.CPU > 0 && g.quota != "" {
		quota := int64(runtime.NumCPU()) * int64(l.CPU) * period.Microseconds() / 100
		if g.unified {
			return write(g.quota, "cpu.max", fmt.Sprintf("%d %d", quota, period.Microseconds()))
		}
		if err := write(g.quota, "cpu.cfs_period_us", strconv.FormatInt(period.Microseconds(), 10)); err != nil {
			return err
		}
		return write(g.quota, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
	}
	return nil
}

// cpu reports whether the kernel holds the worker's CPU.
func (g *group) cpu() bool { return g != nil && g.quota != "" }

// killed reports whether the kernel ended a process for the bound on memory.
func (g *group) killed() bool { return g.oomKills() > g.before }

// oomKills counts the processes that the kernel ended in the cgroup. Before 4.13 version 1
// did not count them.
func (g *group) oomKills() uint64 {
	file := "memory.oom_control"
	if g.unified {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.memory, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			count, _ := strconv.ParseUint(n, 10, 64)
			return count
		}
	}
	return 0
}

// remove removes the cgroup when the worker has left it.
func (g *group) remove() {
	for _, dir := range []string{g.memory, g.quota} {
		for range 50 { // the kernel takes a moment to see that it is empty
			if dir == "" || os.Remove(dir) == nil || errors.Is(dirError(dir), os.ErrNotExist) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func dirError(dir string) error {
	_, err := os.Stat(dir)
	return err
}

func write(dir, file, text string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644)
}
