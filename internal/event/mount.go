package event

import "github.com/goshawk-project/goshawk/internal/schema"

// Mount is a change of a mount tree: mount(2), umount2(2), move_mount(2), pivot_root(2),
// mount_setattr(2).
type Mount struct {
	Header
	Operation      string // mount, remount, bind, move, propagation, attributes, umount, pivot_root
	Source         string // device, directory or name
	Target         string // mount point
	FilesystemType string
	Flags          string // MS_*, MNT_* or MOVE_MOUNT_*, joined by |
	Options        string // data of mount(2)
	Result         string // "ok" or an errno's name
	Syscall        string
}

// Reset empties e for use again.
func (e *Mount) Reset() { *e = Mount{} }

var mountKind = kindOf[Mount](Kind{
	ID: KindMount, Table: "mount_events", Critical: true,
	Doc: "Changes of mount trees",
	Columns: columns(
		schema.Str("operation", func(e *Mount) *string { return &e.Operation }, "mount, remount, bind, move, propagation, attributes, umount or pivot_root"),
		schema.Str("mount_source", func(e *Mount) *string { return &e.Source }, "Device, directory or name mounted"),
		schema.Str("mount_target", func(e *Mount) *string { return &e.Target }, "Mount point"),
		schema.Str("filesystem_type", func(e *Mount) *string { return &e.FilesystemType }, "Type of file system"),
		schema.Str("flags", func(e *Mount) *string { return &e.Flags }, "Flags of the call, joined by |"),
		schema.Str("options", func(e *Mount) *string { return &e.Options }, "Options of the file system"),
		schema.Str("result", func(e *Mount) *string { return &e.Result }, "ok, or the error's name"),
		schema.Str("syscall", func(e *Mount) *string { return &e.Syscall }, "System call that asked for it"),
	),
})
