package main

import (
	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// lookup returns the process table's way to ask /proc about one process. It belongs to
// the goroutine of the agent's loop.
func lookup(dir *procfs.Dir, c *containers) func(pid uint32, into *event.Exec) bool {
	var stat procfs.Stat
	return func(pid uint32, into *event.Exec) bool {
		p, err := dir.Process(int(pid))
		if err != nil || p.Stat(&stat) != nil {
			return false
		}
		into.Source, into.Fidelity = "procfs", event.FidelityState
		into.PID, into.TID, into.PPID = pid, pid, uint32(stat.PPID)
		into.Start, into.Comm = stat.StartTimeNs(), stat.Comm
		into.AUID, into.Session = ^uint32(0), ^uint32(0)
		if n, err := p.Loginuid(); err == nil {
			into.AUID = n
		}
		if n, err := p.Sessionid(); err == nil {
			into.Session = n
		}
		if path, deleted, err := p.Exe(); err == nil {
			into.Path, into.Deleted = path, deleted
		}
		if args, cut, err := p.Cmdline(); err == nil {
			into.Args, into.ArgsLength, into.ArgsTruncated = string(args), uint64(len(args)), cut
		}
		c.place(p, &into.Header)
		return true
	}
}
