package table

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// file is a row of the table file.
type file struct {
	target
	st     unix.Stat_t
	birth  int64
	link   bool
	to     string // target of the symbolic link
	typing string
}

// fileKinds are osquery's words for the types of file.
var fileKinds = map[uint32]string{
	unix.S_IFREG: "regular", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink",
	unix.S_IFBLK: "block", unix.S_IFCHR: "character", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
}

// stat makes the row of a target: of what a symbolic link leads to, or of the link itself
// when it leads nowhere, which has the type unknown, all as in osquery.
func (f *file) stat(q *schema.Query, birthColumn int) bool {
	fd, err := f.open(f.path, false)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &f.st) != nil {
		return false
	}
	f.typing = fileKinds[f.st.Mode&unix.S_IFMT]
	if f.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		f.link = true
		f.to, _ = readlink(fd)
		f.typing = "unknown"
		if behind, err := f.open(f.path, true); err == nil {
			defer unix.Close(behind)
			if unix.Fstat(behind, &f.st) != nil {
				return false
			}
			f.typing = fileKinds[f.st.Mode&unix.S_IFMT]
			fd = behind
		}
	}
	if q.Uses(birthColumn) {
		f.birth = birth(fd)
	}
	return true
}

// birth is when a file was created, 0 where the file system or the kernel (before 4.11)
// does not tell.
func birth(fd int) int64 {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec
}

func fileTable(env *Env) schema.Relation {
	type row = *file
	number := func(name string, kind schema.Type, of func(*unix.Stat_t) int64, doc string) schema.Column[row] {
		return schema.Calc(name, kind, func(f row) schema.Value { return schema.IntValue(of(&f.st)) }, doc)
	}
	absent := func(name, doc string) schema.Column[row] {
		return schema.Absent[row](name, schema.Text, doc, schema.Hidden)
	}
	t := newPathTable(env, "file", "Metadata of the files that the query names by path or directory.", []schema.Column[row]{
		schema.Str("path", func(f row) *string { return &f.path }, "Path, as the query spells it", schema.Required, schema.Index, schema.Optimized),
		schema.Str("directory", func(f row) *string { return &f.directory }, "Directory, as the query spells it", schema.Required, schema.Optimized),
		schema.Calc("filename", schema.Text, func(f row) schema.Value { return schema.TextValue(base(f.path)) }, "Last part of the path"),
		number("inode", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Ino) }, "Inode number"),
		number("uid", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Uid) }, "Owner"),
		number("gid", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Gid) }, "Owning group"),
		schema.Calc("mode", schema.Text, func(f row) schema.Value {
			return schema.TextValue(fmt.Sprintf("%04o", f.st.Mode&0o7777))
		}, "Permission bits, four octal digits"),
		number("device", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Rdev) }, "Device that a device file stands for, else 0"),
		number("size", schema.BigInt, func(s *unix.Stat_t) int64 { return s.Size }, "Size in bytes"),
		number("block_size", schema.Integer, func(s *unix.Stat_t) int64 { return int64(s.Blksize) }, "Preferred size of reads and writes in bytes"),
		number("atime", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Atim.Sec) }, "Last access, unix seconds"),
		number("mtime", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Mtim.Sec) }, "Last change of the content, unix seconds"),
		number("ctime", schema.BigInt, func(s *unix.Stat_t) int64 { return int64(s.Ctim.Sec) }, "Last change of content or metadata, unix seconds"),
		schema.Int("btime", func(f row) *int64 { return &f.birth }, "Creation, unix seconds; 0 when not recorded"),
		number("hard_links", schema.Integer, func(s *unix.Stat_t) int64 { return int64(s.Nlink) }, "Hard links"),
		schema.Bool("symlink", func(f row) *bool { return &f.link }, "1 for a symbolic link, whose other columns are of what it leads to"),
		schema.Str("type", func(f row) *string { return &f.typing }, "Type: regular, directory, block, character, fifo, socket; unknown for a dangling link"),
		schema.Str("symlink_target_path", func(f row) *string { return &f.to }, "What the symbolic link holds"),
		schema.Calc("pid_with_namespace", schema.Integer, func(f row) schema.Value { return schema.IntValue(f.pid) }, namespaceDoc, schema.Hidden, schema.Additional),
		schema.Calc("mount_namespace_id", schema.Text, func(f row) schema.Value { return schema.TextValue(f.mount) }, mountDoc, schema.Hidden),
		absent("attributes", "Attributes on Windows"),
		absent("volume_serial", "Volume's serial number on Windows"),
		absent("file_id", "File's number on Windows"),
		absent("file_version", "Version of a program file on Windows"),
		absent("product_version", "Product version of a program file on Windows"),
		absent("original_filename", "Original name of a program file on Windows"),
		absent("shortcut_target_path", "What a Windows shortcut leads to"),
		absent("shortcut_target_type", "Type of what a Windows shortcut leads to"),
		absent("shortcut_target_location", "Folder of what a Windows shortcut leads to"),
		absent("shortcut_start_in", "Working directory of a Windows shortcut"),
		absent("shortcut_run", "Window mode of a Windows shortcut"),
		absent("shortcut_comment", "Comment of a Windows shortcut"),
		absent("bsd_flags", "File flags on macOS"),
	})
	birthColumn := t.def.Column("btime")
	t.row = func(q *schema.Query, at target) (row, bool) {
		f := &file{target: at}
		return f, f.stat(q, birthColumn)
	}
	return t
}
