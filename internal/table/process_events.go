package table

import (
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// processEvents is osquery's process_events, which it fills from the audit subsystem:
// programs started and, when asked, processes made.
func processEvents(o EventOptions) *eventTable {
	t := &eventTable{
		name:    "process_events",
		doc:     "Programs started, as osquery's audit subsystem tells them",
		kinds:   []event.ID{event.KindExec},
		columns: [][]event.Column{over(slices.Concat(processEventColumns, additions[*event.Exec](), execAdditions, additionalTime[*event.Exec]()))},
	}
	if o.AllowFork {
		t.kinds = append(t.kinds, event.KindFork)
		t.convert = forkRows
		t.convertUses = []string{"child_pid", "child_start", "child_ppid", "pid", "start", "parent_start"}
	}
	return t
}

var processEventColumns = []schema.Column[*event.Exec]{
	schema.Int("pid", func(e *event.Exec) *uint32 { return &e.PID }, "Process").From("pid"),
	schema.Str("path", func(e *event.Exec) *string { return &e.Path }, "File executed").From("path"),
	schema.Calc("mode", schema.Text, execMode, "Type and permissions of the file executed, octal").From("mode"),
	schema.Calc("cmdline", schema.Text, func(e *event.Exec) schema.Value { return schema.TextValue(joined(e.Args)) }, "Arguments, joined by spaces and not quoted").From("args"),
	schema.Int("cmdline_size", func(e *event.Exec) *uint64 { return &e.ArgsLength }, "Bytes of all arguments, also of those cut off", schema.Hidden).From("args_length"),
	schema.Calc("env", schema.Text, func(e *event.Exec) schema.Value { return schema.TextValue(joined(e.Env)) }, "Environment variables asked for by name, joined by spaces", schema.Hidden).From("env").Alias("environment"),
	schema.Calc("env_count", schema.BigInt, envCount, "Environment variables in env", schema.Hidden).From("env").Alias("environment_count"),
	schema.Calc("env_size", schema.BigInt, envSize, "Bytes of env", schema.Hidden).From("env").Alias("environment_size"),
	schema.Str("cwd", func(e *event.Exec) *string { return &e.Cwd }, "Working directory").From("cwd"),
	schema.Int("auid", func(e *event.Exec) *uint32 { return &e.AUID }, "Login user, 4294967295 when none logged in").From("auid"),
	schema.Int("uid", func(e *event.Exec) *uint32 { return &e.UID }, "Real user").From("uid"),
	schema.Int("euid", func(e *event.Exec) *uint32 { return &e.EUID }, "Effective user").From("euid"),
	schema.Int("gid", func(e *event.Exec) *uint32 { return &e.GID }, "Real group").From("gid"),
	schema.Int("egid", func(e *event.Exec) *uint32 { return &e.EGID }, "Effective group").From("egid"),
	schema.Int("owner_uid", func(e *event.Exec) *uint32 { return &e.OwnerUID }, "Owner of the file executed", schema.OmitUnset).From("owner_uid"),
	schema.Int("owner_gid", func(e *event.Exec) *uint32 { return &e.OwnerGID }, "Group of the file executed", schema.OmitUnset).From("owner_gid"),
	schema.Absent[*event.Exec]("atime", schema.BigInt, "Not known: osquery looks it up afterwards, when the file may be another").Alias("access_time"),
	schema.Absent[*event.Exec]("mtime", schema.BigInt, "Not known, as atime").Alias("modify_time"),
	schema.Absent[*event.Exec]("ctime", schema.BigInt, "Not known, as atime").Alias("change_time"),
	schema.Absent[*event.Exec]("btime", schema.BigInt, "Not known, as atime").Alias("create_time"),
	schema.Calc("overflows", schema.Text, overflows, "What was cut: cmdline, path (also cwd), or both joined by a comma", schema.Hidden).From("args_truncated", "path_truncated"),
	schema.Calc("parent", schema.BigInt, func(e *event.Exec) schema.Value { return parentOf(&e.Header) }, "Parent, -1 when not known").From("pid", "ppid"),
	schema.Time("time", func(e *event.Exec) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time"),
	schema.Calc("uptime", schema.BigInt, func(e *event.Exec) schema.Value { return uptimeOf(&e.Header) }, "When it happened, seconds since boot").From("ntime"),
	schema.Calc("eid", schema.Text, func(e *event.Exec) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
	schema.Int("fsuid", func(e *event.Exec) *uint32 { return &e.FSUID }, "File system user", schema.OmitUnset).From("fsuid"),
	schema.Int("suid", func(e *event.Exec) *uint32 { return &e.SUID }, "Saved user", schema.OmitUnset).From("suid"),
	schema.Int("fsgid", func(e *event.Exec) *uint32 { return &e.FSGID }, "File system group", schema.OmitUnset).From("fsgid"),
	schema.Int("sgid", func(e *event.Exec) *uint32 { return &e.SGID }, "Saved group", schema.OmitUnset).From("sgid"),
	schema.Calc("syscall", schema.Text, execSyscall, "System call: execve or execveat, execve when not known; clone for a process made").From("syscall"),
	schema.Absent[*event.Exec]("status", schema.BigInt, "Of other systems", schema.Hidden),
}

// forkRows makes of a fork what osquery's row for one is: the process made, its parent,
// and of the program only its path.
func forkRows() func(event.Event) event.Event {
	row := new(event.Exec)
	return func(e event.Event) event.Event {
		f, ok := e.(*event.Fork)
		if !ok {
			return e
		}
		*row = event.Exec{Header: f.Header, Syscall: "clone"}
		row.PID, row.TID, row.Start = f.ChildPID, f.ChildPID, f.ChildStart
		row.PPID, row.PStart = f.ChildPPID, f.Start
		if f.ChildPPID != f.PID { // CLONE_PARENT
			row.PStart = f.PStart
		}
		return row
	}
}

// additions are the columns that osquery does not have: hidden, so that SELECT * answers as
// there, and called as in the native tables.
func additions[T event.Event]() []schema.Column[T] {
	return []schema.Column[T]{
		schema.Calc("process_id", schema.Text, func(e T) schema.Value {
			h := e.Head()
			return schema.TextValue(event.ProcessID(h.BootID, h.PID, h.Start))
		}, "Identity of the process, unique across pid reuse and boots", schema.Hidden).From("pid", "start", "boot_id"),
		schema.Calc("parent_process_id", schema.Text, func(e T) schema.Value {
			h := e.Head()
			return schema.TextValue(event.ProcessID(h.BootID, h.PPID, h.PStart))
		}, "Identity of the parent", schema.Hidden).From("ppid", "parent_start", "boot_id"),
		schema.Calc("ancestors", schema.Text, ancestors[T], "Parent, grandparent and so on of a program started, a JSON array of pid, path and cmdline", schema.Hidden).From("ancestors"),
		schema.Str("origin", func(e T) *string { return &e.Head().Origin }, "How the session that the process belongs to began: ssh, console, cron, service, container or kernel", schema.Hidden).From("origin"),
		schema.Calc("disguise", schema.Text, disguise[T], "In what the process is not what it seems, a JSON array; empty when it is", schema.Hidden).From("disguise"),
		schema.Str("container_id", func(e T) *string { return &e.Head().ContainerID }, "Container, empty on the host", schema.Hidden).From("container_id"),
		schema.Str("container_name", func(e T) *string { return &e.Head().ContainerName }, "Name of the container", schema.Hidden).From("container_name"),
		schema.Str("image", func(e T) *string { return &e.Head().Image }, "Image of the container", schema.Hidden).From("image"),
		schema.Str("pod_name", func(e T) *string { return &e.Head().PodName }, "Kubernetes pod", schema.Hidden).From("pod_name"),
		schema.Str("pod_namespace", func(e T) *string { return &e.Head().PodNamespace }, "Kubernetes namespace of the pod", schema.Hidden).From("pod_namespace"),
		schema.Str("fidelity", func(e T) *string { return &e.Head().Fidelity }, "Whether names were read from kernel objects (kernel), user memory (user) or afterwards (state)", schema.Hidden).From("fidelity"),
		schema.Str("source", func(e T) *string { return &e.Head().Source }, "Where the record came from: ebpf, audit or procfs", schema.Hidden).From("source"),
	}
}

// execAdditions are those of programs started.
var execAdditions = []schema.Column[*event.Exec]{
	schema.Int("leader_pid", func(e *event.Exec) *uint32 { return &e.LeaderPID }, "Process whose start began the session", schema.OmitZero, schema.Hidden).From("leader_pid"),
	schema.Str("leader_path", func(e *event.Exec) *string { return &e.LeaderPath }, "Executable of that process", schema.Hidden).From("leader_path"),
	schema.Int("spawner_pid", func(e *event.Exec) *uint32 { return &e.SpawnerPID }, "Process that made this one, which need not be its parent", schema.OmitZero, schema.Hidden).From("spawner_pid"),
	schema.Str("spawner_path", func(e *event.Exec) *string { return &e.SpawnerPath }, "What that process ran when it made this one", schema.Hidden).From("spawner_path"),
}

// additionalTime is for the tables that have no ntime of osquery's.
func additionalTime[T event.Event]() []schema.Column[T] {
	return []schema.Column[T]{
		schema.Int("ntime", func(e T) *uint64 { return &e.Head().NTime }, "When it happened, nanoseconds since boot", schema.Hidden).From("ntime"),
	}
}

func ancestors[T event.Event](e T) schema.Value {
	if x, ok := event.Event(e).(*event.Exec); ok {
		return schema.TextValue(x.Ancestors)
	}
	return schema.TextValue("")
}

func disguise[T event.Event](e T) schema.Value {
	if d := e.Head().Disguise; d != "" {
		return schema.TextValue(string(schema.AppendList(nil, d)))
	}
	return schema.TextValue("")
}

// execMode is the file's mode as an audit record prints it: %#ho.
func execMode(e *event.Exec) schema.Value {
	if e.Mode == 0 {
		return schema.TextValue("")
	}
	return schema.TextValue("0" + strconv.FormatUint(uint64(e.Mode), 8))
}

func execSyscall(e *event.Exec) schema.Value {
	if e.Syscall == "" {
		return schema.TextValue("execve")
	}
	return schema.TextValue(e.Syscall)
}

func envCount(e *event.Exec) schema.Value {
	n := strings.Count(e.Env, "\x00")
	if e.Env != "" && !strings.HasSuffix(e.Env, "\x00") { // the last one was cut
		n++
	}
	return schema.IntValue(int64(n))
}

func envSize(e *event.Exec) schema.Value { return schema.IntValue(int64(len(e.Env))) }

func overflows(e *event.Exec) schema.Value {
	switch {
	case e.ArgsTruncated && e.PathTruncated:
		return schema.TextValue("cmdline,path")
	case e.ArgsTruncated:
		return schema.TextValue("cmdline")
	case e.PathTruncated:
		return schema.TextValue("path")
	}
	return schema.TextValue("")
}

// parentOf is the parent, or -1. Only the first processes of the kernel have none.
func parentOf(h *event.Header) schema.Value {
	if h.PPID == 0 && h.PID > 2 {
		return schema.IntValue(-1)
	}
	return schema.IntValue(int64(h.PPID))
}

func uptimeOf(h *event.Header) schema.Value { return schema.IntValue(int64(h.NTime / 1_000_000_000)) }

// eidText is the event's number as osquery keeps it: ten digits, so that text sorts.
func eidText(h *event.Header) schema.Value {
	s := strconv.FormatInt(h.EID, 10)
	if n := 10 - len(s); n > 0 {
		s = "0000000000"[:n] + s
	}
	return schema.TextValue(s)
}

// joined replaces the NULs between the strings of a list by spaces.
func joined(list string) string {
	return strings.ReplaceAll(strings.TrimSuffix(list, "\x00"), "\x00", " ")
}
