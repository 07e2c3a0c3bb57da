package event

import "github.com/goshawk-project/goshawk/internal/schema"

// File is something done to a file by name or through a descriptor. The file is Target;
// calls that take two names (rename, link, symlink) have the second in Destination.
type File struct {
	Header
	Operation       string // create, open, write, delete, rename, link, symlink, chmod, chown, setxattr, truncate …
	TargetPath      string // begins with ".../" when the directory is not known
	DestinationPath string
	ContainerPath   string // of the target, as the container of the process sees it; empty when not known
	Category        string // name of the watch that asked for it
	Argument        string // what the call was given beside names; see its column
	Result          string // "ok" or an errno's name
	Syscall         string
	Cwd             string
	Device          string // of the target, major:minor as in /proc/self/mountinfo
	Inode           uint64 // of the target, 0 unknown
	Mode            uint32 // of the target, type and permission bits, 0 unknown
	OwnerUID        uint32 // of the target, Unset unknown
	OwnerGID        uint32
	Size            uint64 // of the target after the operation, 0 unknown
	ATime           int64  // of the target afterwards, unix ns; 0 unknown, as the two below
	MTime           int64
	CTime           int64
	MD5             string // of the target's contents, afterwards; hexadecimal
	SHA1            string
	SHA256          string
	HashError       string // why there is no digest where one was wanted
	SUID            uint32 // saved and file system users and groups of the process
	SGID            uint32
	FSUID           uint32
	FSGID           uint32
}

// Reset empties e for use again.
func (e *File) Reset() { *e = File{} }

var fileKind = kindOf[File](Kind{
	ID: KindFile, Table: "filesystem_events",
	Doc: "Files made, opened, changed, renamed and deleted",
	Columns: columns(
		schema.Str("operation", func(e *File) *string { return &e.Operation }, "create, open, write, delete, rename, link, symlink, chmod, chown, setxattr, removexattr, truncate, utimes or mmap (shared, for writing)"),
		schema.Str("target_path", func(e *File) *string { return &e.TargetPath }, "File acted upon; begins with .../ when its directory is not known"),
		schema.Str("destination_path", func(e *File) *string { return &e.DestinationPath }, "New name: of rename, link and symlink"),
		schema.Str("container_path", func(e *File) *string { return &e.ContainerPath }, "Path of the target as the container sees it that the process is in"),
		schema.Str("category", func(e *File) *string { return &e.Category }, "Name of the watch that asked for this file"),
		schema.Str("argument", func(e *File) *string { return &e.Argument }, "What was asked for: flags of open, mode of chmod, owner:group of chown, name of an attribute, length of truncate"),
		schema.Str("result", func(e *File) *string { return &e.Result }, "ok, or the error's name"),
		schema.Str("syscall", func(e *File) *string { return &e.Syscall }, "System call, empty when not known"),
		schema.Str("cwd", func(e *File) *string { return &e.Cwd }, "Working directory"),
		schema.Str("device", func(e *File) *string { return &e.Device }, "Device that the file is on, major:minor"),
		schema.Int("inode", func(e *File) *uint64 { return &e.Inode }, "Inode of the file", schema.OmitZero),
		schema.Int("mode", func(e *File) *uint32 { return &e.Mode }, "Type and permission bits of the file", schema.OmitZero),
		schema.Int("owner_uid", func(e *File) *uint32 { return &e.OwnerUID }, "Owner of the file", schema.OmitUnset),
		schema.Int("owner_gid", func(e *File) *uint32 { return &e.OwnerGID }, "Group of the file", schema.OmitUnset),
		schema.Int("size", func(e *File) *uint64 { return &e.Size }, "Bytes in the file afterwards", schema.OmitZero),
		schema.Int("mtime_ns", func(e *File) *int64 { return &e.MTime }, "When the contents changed last, nanoseconds since 1970", schema.OmitZero),
		schema.Int("ctime_ns", func(e *File) *int64 { return &e.CTime }, "When the file or what is said of it changed last, nanoseconds since 1970", schema.OmitZero),
		schema.Int("atime_ns", func(e *File) *int64 { return &e.ATime }, "When the contents were read last, nanoseconds since 1970", schema.OmitZero),
		schema.Str("sha256", func(e *File) *string { return &e.SHA256 }, "SHA-256 of the contents afterwards, hexadecimal"),
		schema.Str("sha1", func(e *File) *string { return &e.SHA1 }, "SHA-1 of the contents, when asked for"),
		schema.Str("md5", func(e *File) *string { return &e.MD5 }, "MD5 of the contents, when asked for"),
		schema.Str("hash_error", func(e *File) *string { return &e.HashError }, "Why there are no digests where there should be: too_large, changed, other_file, gone, not_regular, unreadable, stuck (its file system does not answer), busy or stopped"),
		schema.Int("suid", func(e *File) *uint32 { return &e.SUID }, "Saved user of the process", schema.OmitUnset),
		schema.Int("sgid", func(e *File) *uint32 { return &e.SGID }, "Saved group of the process", schema.OmitUnset),
		schema.Int("fsuid", func(e *File) *uint32 { return &e.FSUID }, "File system user of the process", schema.OmitUnset),
		schema.Int("fsgid", func(e *File) *uint32 { return &e.FSGID }, "File system group of the process", schema.OmitUnset),
	),
})
