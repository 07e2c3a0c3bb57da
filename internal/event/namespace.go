package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Namespace is a process that enters other namespaces or another root directory, or makes a
// child that does: setns(2), unshare(2), chroot(2), clone(2).
type Namespace struct {
	Header
	Operation  string // setns, unshare, chroot or clone
	Namespaces string // mnt, pid, net …, joined by commas: those made or entered
	Inode      uint64 // setns: of the file that named the namespace; 0 unknown
	TargetPath string // chroot: the new root, as the caller named it
	Result     string // "ok" or an errno's name
	ChildPID   uint32 // clone: the process made
	ChildStart uint64 // ns since boot
}

// Reset empties e for use again.
func (e *Namespace) Reset() { *e = Namespace{} }

var namespaceKind = kindOf[Namespace](Kind{
	ID: KindNamespace, Table: "namespace_events", Critical: true,
	Doc: "Processes that entered other namespaces or another root directory, or made a child that did",
	Columns: columns(
		schema.Str("operation", func(e *Namespace) *string { return &e.Operation }, "setns, unshare, chroot, or clone: a process made together with its namespaces"),
		schema.Str("namespaces", func(e *Namespace) *string { return &e.Namespaces }, "Namespaces made or entered: mnt, pid, net, user, uts, ipc, cgroup, time, joined by commas; empty when setns was given none in particular"),
		schema.Int("namespace_inode", func(e *Namespace) *uint64 { return &e.Inode }, "Inode of the file that named the namespace, as /proc/PID/ns has them", schema.OmitZero),
		schema.Str("target_path", func(e *Namespace) *string { return &e.TargetPath }, "New root directory, as the caller named it"),
		schema.Int("child_pid", func(e *Namespace) *uint32 { return &e.ChildPID }, "Process made by clone", schema.OmitZero),
		schema.Calc("child_process_id", schema.Text, func(e *Namespace) schema.Value {
			return schema.TextValue(ProcessID(e.BootID, e.ChildPID, e.ChildStart))
		}, "Identity of that process").From("child_pid", "child_start", "boot_id"),
		schema.Int("child_start", func(e *Namespace) *uint64 { return &e.ChildStart }, "Start of that process, nanoseconds since boot", schema.Internal),
		schema.Str("result", func(e *Namespace) *string { return &e.Result }, "ok, or the error's name"),
	),
})
