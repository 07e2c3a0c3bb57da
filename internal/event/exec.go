package event

import (
	"slices"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Exec is a program started: a successful execve(2) or execveat(2). Path in the header is
// the file that the kernel executed (the interpreter of a script, else the program).
type Exec struct {
	Header
	Filename      string // the file name as asked for, from the kernel's copy
	Args          string // argv, each string ending in NUL
	ArgsLength    uint64 // bytes of all arguments with their NULs, as the kernel laid them out
	ArgsTruncated bool   // Args holds less than that
	Cwd           string
	Env           string // the variables asked for, NAME=value, each ending in NUL
	Interpreter   string // what runs the script, empty for a binary
	Script        string // the script run, empty for a binary
	Memfd         bool   // the file lives in memory only (memfd_create(2))
	Deleted       bool   // the file has no name left (nlink 0)
	Inode         uint64
	Mode          uint32 // file type and permission bits
	OwnerUID      uint32 // Unset unknown, as the five below
	OwnerGID      uint32
	SUID          uint32
	SGID          uint32
	FSUID         uint32
	FSGID         uint32
	PathTruncated bool   // Path, Cwd or Filename was cut
	Syscall       string // execve or execveat, empty when not known
	Ancestors     string // JSON array of {pid, path, cmdline}, nearest first

	LeaderPID    uint32 // whose start began the session; 0 unknown
	LeaderStart  uint64 // ns since boot
	LeaderPath   string
	SpawnerPID   uint32 // who forked the process, whoever its parent is by now; 0 unknown
	SpawnerStart uint64 // ns since boot
	SpawnerPath  string // what it ran then

	UpperLayer bool   // the content is in the upper layer of an overlay
	OtherMount bool   // the file is not on the mount of the root directory
	Entered    bool   // the parent is in an outer pid namespace
	NotInImage bool   // in a container: the file is none of its image's
	HostPath   string // where the host sees the file, of a container; empty when not known
	Confinement
}

// Reset empties e for use again.
func (e *Exec) Reset() { *e = Exec{} }

var execKind = kindOf[Exec](Kind{
	ID: KindExec, Table: "exec_events", Critical: true,
	Doc: "Programs started, one row for each successful execve or execveat",
	Columns: slices.Concat(columns(
		schema.Strings("args", func(e *Exec) *string { return &e.Args }, "Arguments, a JSON array"),
		schema.Int("args_length", func(e *Exec) *uint64 { return &e.ArgsLength }, "Bytes of all arguments, also of those cut off"),
		schema.Bool("args_truncated", func(e *Exec) *bool { return &e.ArgsTruncated }, "1 when args holds less than all arguments"),
		schema.Str("filename", func(e *Exec) *string { return &e.Filename }, "File name as the caller gave it"),
		schema.Str("cwd", func(e *Exec) *string { return &e.Cwd }, "Working directory"),
		schema.Strings("env", func(e *Exec) *string { return &e.Env }, "Environment variables asked for by name, a JSON array"),
		schema.Str("interpreter", func(e *Exec) *string { return &e.Interpreter }, "Interpreter that runs the script, empty for a binary"),
		schema.Str("script", func(e *Exec) *string { return &e.Script }, "Script that is run, empty for a binary"),
		schema.Bool("memfd", func(e *Exec) *bool { return &e.Memfd }, "1 when the file executed exists in memory only"),
		schema.Bool("deleted", func(e *Exec) *bool { return &e.Deleted }, "1 when the file executed has no name left"),
		schema.Int("inode", func(e *Exec) *uint64 { return &e.Inode }, "Inode of the file executed", schema.OmitZero),
		schema.Int("mode", func(e *Exec) *uint32 { return &e.Mode }, "Type and permission bits of the file executed", schema.OmitZero),
		schema.Int("owner_uid", func(e *Exec) *uint32 { return &e.OwnerUID }, "Owner of the file executed", schema.OmitUnset),
		schema.Int("owner_gid", func(e *Exec) *uint32 { return &e.OwnerGID }, "Group of the file executed", schema.OmitUnset),
		schema.Int("suid", func(e *Exec) *uint32 { return &e.SUID }, "Saved user", schema.OmitUnset),
		schema.Int("sgid", func(e *Exec) *uint32 { return &e.SGID }, "Saved group", schema.OmitUnset),
		schema.Int("fsuid", func(e *Exec) *uint32 { return &e.FSUID }, "File system user", schema.OmitUnset),
		schema.Int("fsgid", func(e *Exec) *uint32 { return &e.FSGID }, "File system group", schema.OmitUnset),
		schema.Bool("path_truncated", func(e *Exec) *bool { return &e.PathTruncated }, "1 when path, filename or cwd was cut"),
		schema.Bool("upper_layer", func(e *Exec) *bool { return &e.UpperLayer }, "1 when the file's content is in the upper layer of an overlay: written since the image was made"),
		schema.Bool("not_in_image", func(e *Exec) *bool { return &e.NotInImage }, "1 in a container when the file is none of its image's: written since, or on another mount"),
		schema.Str("host_path", func(e *Exec) *string { return &e.HostPath }, "Path of the file as the host sees it, in a container whose root directory is known"),
		schema.Str("syscall", func(e *Exec) *string { return &e.Syscall }, "System call that started it, empty when not known"),
		schema.Int("leader_pid", func(e *Exec) *uint32 { return &e.LeaderPID }, "Process whose start began the session, as origin says how", schema.OmitZero),
		schema.Calc("leader_process_id", schema.Text, func(e *Exec) schema.Value {
			return schema.TextValue(ProcessID(e.BootID, e.LeaderPID, e.LeaderStart))
		}, "Identity of that process").From("leader_pid", "leader_start", "boot_id"),
		schema.Int("leader_start", func(e *Exec) *uint64 { return &e.LeaderStart }, "Start of that process, nanoseconds since boot", schema.Internal),
		schema.Str("leader_path", func(e *Exec) *string { return &e.LeaderPath }, "Executable of that process"),
		schema.Int("spawner_pid", func(e *Exec) *uint32 { return &e.SpawnerPID }, "Process that made this one, which need not be its parent", schema.OmitZero),
		schema.Calc("spawner_process_id", schema.Text, func(e *Exec) schema.Value {
			return schema.TextValue(ProcessID(e.BootID, e.SpawnerPID, e.SpawnerStart))
		}, "Identity of the process that made this one").From("spawner_pid", "spawner_start", "boot_id"),
		schema.Int("spawner_start", func(e *Exec) *uint64 { return &e.SpawnerStart }, "Start of the process that made this one, nanoseconds since boot", schema.Internal),
		schema.Str("spawner_path", func(e *Exec) *string { return &e.SpawnerPath }, "What that process ran when it made this one"),
		schema.Raw("ancestors", func(e *Exec) *string { return &e.Ancestors }, "Parent, grandparent and so on, a JSON array of pid, path and cmdline"),
	), confinementColumns(func(e Event) *Confinement { return &e.(*Exec).Confinement })),
})
