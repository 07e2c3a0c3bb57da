package table

import (
	"context"
	"errors"
	"fmt"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// processTables are the tables over /proc/<pid>.
func processTables(env *Env) []schema.Relation {
	return []schema.Relation{
		processes(env.FS),
		processEnvs(env.FS),
		processOpenFiles(env.FS),
		processOpenPipes(env.FS),
		processMemoryMap(env.FS),
		processNamespaces(env.FS),
		processOpenSockets(env.FS),
		listeningPorts(env.FS),
	}
}

// process is a row of processes: what the files that the query needed had to say.
type process struct {
	stat    procfs.Stat
	status  procfs.Status
	io      procfs.IO
	hasIO   bool
	start   int64 // unix seconds
	onDisk  int8  // 1 yes, 0 no, -1 unknown
	path    string
	cmdline string
	cwd     string
	root    string
	cgroup  string
}

// processes follows osquery 5.23.1, except that on_disk asks the kernel whether the
// executable's name still leads to it, where osquery looks for the path in its own mount
// namespace and so denies every program in a container.
func processes(fs procfs.FS) *schema.Table[*process] {
	type row = *process
	id := func(name, doc string, at func(*procfs.Status) *uint32) schema.Column[row] {
		return schema.Int(name, func(r row) *uint32 { return at(&r.status) }, doc)
	}
	bytes := func(name, doc string, get func(*process) (uint64, bool)) schema.Column[row] {
		return schema.Calc(name, schema.BigInt, func(r row) schema.Value {
			if n, ok := get(r); ok {
				return schema.IntValue(int64(n))
			}
			return schema.Null
		}, doc)
	}
	t := &schema.Table[row]{
		Name: "processes",
		Doc:  "All running processes on the host",
		Columns: []schema.Column[row]{
			schema.Int("pid", func(r row) *int { return &r.stat.PID }, "Process (or thread) ID", schema.Index, schema.Optimized),
			schema.Str("name", func(r row) *string { return &r.stat.Comm }, "Name of the process, at most 15 bytes, as it last set it"),
			schema.Str("path", func(r row) *string { return &r.path }, "Path to the executed binary"),
			schema.Str("cmdline", func(r row) *string { return &r.cmdline }, "Arguments joined by spaces, as they now are in its memory"),
			schema.Calc("state", schema.Text, func(r row) schema.Value { return schema.TextValue(string(rune(r.stat.State))) }, "Process state, a letter of proc_pid_stat(5)"),
			schema.Str("cwd", func(r row) *string { return &r.cwd }, "Current working directory"),
			schema.Str("root", func(r row) *string { return &r.root }, "Root directory"),
			id("uid", "Unsigned user ID", func(s *procfs.Status) *uint32 { return &s.UID }),
			id("gid", "Unsigned group ID", func(s *procfs.Status) *uint32 { return &s.GID }),
			id("euid", "Unsigned effective user ID", func(s *procfs.Status) *uint32 { return &s.EUID }),
			id("egid", "Unsigned effective group ID", func(s *procfs.Status) *uint32 { return &s.EGID }),
			id("suid", "Unsigned saved user ID", func(s *procfs.Status) *uint32 { return &s.SUID }),
			id("sgid", "Unsigned saved group ID", func(s *procfs.Status) *uint32 { return &s.SGID }),
			schema.Int("on_disk", func(r row) *int8 { return &r.onDisk }, "Whether the path still leads to the binary: yes 1, no 0, unknown -1").As(schema.Integer),
			bytes("wired_size", "Bytes of memory that cannot be paged out; always 0 on Linux", func(*process) (uint64, bool) { return 0, true }),
			bytes("resident_size", "Bytes of memory resident, NULL without an address space", func(r *process) (uint64, bool) { return r.stat.ResidentBytes(), r.stat.Virtual > 0 }),
			bytes("total_size", "Bytes of virtual memory, NULL without an address space", func(r *process) (uint64, bool) { return r.stat.Virtual, r.stat.Virtual > 0 }),
			bytes("user_time", "Processor time spent outside the kernel, milliseconds", func(r *process) (uint64, bool) { return r.stat.UserMs(), true }),
			bytes("system_time", "Processor time spent in the kernel, milliseconds", func(r *process) (uint64, bool) { return r.stat.SysMs(), true }),
			bytes("disk_bytes_read", "Bytes read from disk", func(r *process) (uint64, bool) { return r.io.ReadBytes, r.hasIO }),
			bytes("disk_bytes_written", "Bytes written to disk", func(r *process) (uint64, bool) { return r.io.WriteBytes - r.io.CancelledWriteBytes, r.hasIO }),
			schema.Int("start_time", func(r row) *int64 { return &r.start }, "When the process started, unix seconds"),
			schema.Int("parent", func(r row) *int { return &r.stat.PPID }, "PID of the parent"),
			schema.Int("pgroup", func(r row) *int { return &r.stat.PGroup }, "Process group"),
			schema.Int("threads", func(r row) *int { return &r.stat.Threads }, "Number of threads").As(schema.Integer),
			schema.Int("nice", func(r row) *int { return &r.stat.Nice }, "Nice level, -20 to 19").As(schema.Integer),
			schema.Str("cgroup_path", func(r row) *string { return &r.cgroup }, "Full hierarchical path of the control group"),
			schema.Absent[row]("elevated_token", schema.Integer, "Windows only", schema.Hidden),
			schema.Absent[row]("secure_process", schema.Integer, "Windows only", schema.Hidden),
			schema.Absent[row]("protection_type", schema.Text, "Windows only", schema.Hidden),
			schema.Absent[row]("virtual_process", schema.Integer, "Windows only", schema.Hidden),
			schema.Absent[row]("elapsed_time", schema.BigInt, "Windows only", schema.Hidden),
			schema.Absent[row]("handle_count", schema.BigInt, "Windows only", schema.Hidden),
			schema.Absent[row]("percent_processor_time", schema.BigInt, "Windows only", schema.Hidden),
			schema.Absent[row]("upid", schema.BigInt, "macOS only", schema.Hidden),
			schema.Absent[row]("uppid", schema.BigInt, "macOS only", schema.Hidden),
			schema.Absent[row]("cpu_type", schema.Integer, "macOS only", schema.Hidden),
			schema.Absent[row]("cpu_subtype", schema.Integer, "macOS only", schema.Hidden),
			schema.Absent[row]("translated", schema.Integer, "macOS only", schema.Hidden),
		},
	}
	t.Bind()
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*process, error) {
		boot, err := procfs.BootTime()
		if err != nil {
			return nil, err
		}
		// osquery adds whole seconds to whole seconds, and so must we to agree with it.
		bootSeconds := boot / 1e9
		used := func(names ...string) bool { return uses(t.Def(), q, names...) }
		need := needs{
			status:  used("uid", "gid", "euid", "egid", "suid", "sgid"),
			exe:     used("path", "on_disk"),
			cmdline: used("cmdline"),
			cwd:     used("cwd"),
			root:    used("root"),
			io:      used("disk_bytes_read", "disk_bytes_written"),
			cgroup:  used("cgroup_path"),
		}
		var rows []*process
		err = eachProcess(ctx, fs, t.Def(), q, func(p *procfs.Process) error {
			r := new(process)
			shown, err := need.read(p, r)
			if shown {
				r.start = bootSeconds + int64(r.stat.StartTimeNs()/1e9)
				rows = append(rows, r)
			}
			return err
		})
		return rows, err
	}
	return t
}

// needs says which files of a process a query needs besides stat.
type needs struct{ status, exe, cmdline, cwd, root, io, cgroup bool }

// read fills r. A row is shown when stat and, where it is needed, status could be read;
// what else the reader may not see stays empty and is the error.
func (n *needs) read(p *procfs.Process, r *process) (shown bool, err error) {
	if err := p.Stat(&r.stat); err != nil {
		return false, err
	}
	if n.status {
		if err := p.Status(&r.status); err != nil {
			return false, err
		}
	}
	var refused error
	note := func(err error) {
		if err != nil && !errors.Is(err, procfs.ErrGone) && refused == nil {
			refused = err
		}
	}
	if n.exe {
		path, deleted, err := p.Exe()
		note(err)
		r.path, r.onDisk = path, 1
		switch {
		case path == "":
			r.onDisk = -1
		case deleted:
			r.onDisk = 0
		}
	}
	if n.cmdline {
		args, cut, err := p.Cmdline()
		if cut {
			err = fmt.Errorf("cmdline of process %d is cut at %d bytes", p.PID, len(args))
		}
		note(err)
		r.cmdline = joinArgs(args)
	}
	if n.cwd {
		r.cwd, err = p.Cwd()
		note(err)
	}
	if n.root {
		r.root, err = p.Root()
		note(err)
	}
	if n.io {
		err = p.IO(&r.io)
		r.hasIO = err == nil
		note(err)
	}
	if n.cgroup {
		lines, err := p.Cgroup()
		note(err)
		r.cgroup = procfs.CgroupPath(lines)
	}
	return true, refused
}

// joinArgs is osquery's cmdline: every NUL becomes a space, and white space at both ends
// goes. args is overwritten.
func joinArgs(args []byte) string {
	for i, c := range args {
		if c == 0 {
			args[i] = ' '
		}
	}
	return string(trimSpace(args))
}

func trimSpace(b []byte) []byte {
	space := func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
	for len(b) > 0 && space(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && space(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
