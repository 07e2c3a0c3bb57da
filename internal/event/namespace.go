package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Namespace is a process that enters other namespaces or another root directory: setns(2),
// unshare(2), chroot(2).
type Namespace struct {
	Header
	Operation  string // setns, unshare or chroot
	Namespaces string // mnt, pid, net …, joined by commas: those made or entered
	Inode      uint64 // setns: of the file that named the namespace; 0 unknown
	TargetPath string // chroot: the new root, as the caller named it
	Result     string // "ok" or an errno's name
}

// Reset empties e for use again.
func (e *Namespace) Reset() { *e = Namespace{} }

var namespaceKind = kindOf[Namespace](Kind{
	ID: KindNamespace, Table: "namespace_events", Critical: true,
	Doc: "Processes that entered other namespaces, or another root directory",
	Columns: columns(
		schema.Str("operation", func(e *Namespace) *string { return &e.Operation }, "setns, unshare or chroot"),
		schema.Str("namespaces", func(e *Namespace) *string { return &e.Namespaces }, "Namespaces made or entered: mnt, pid, net, user, uts, ipc, cgroup, time, joined by commas; empty when setns was given none in particular"),
		schema.Int("namespace_inode", func(e *Namespace) *uint64 { return &e.Inode }, "Inode of the file that named the namespace, as /proc/PID/ns has them", schema.OmitZero),
		schema.Str("target_path", func(e *Namespace) *string { return &e.TargetPath }, "New root directory, as the caller named it"),
		schema.Str("result", func(e *Namespace) *string { return &e.Result }, "ok, or the error's name"),
	),
})
