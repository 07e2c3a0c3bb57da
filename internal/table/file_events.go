package table

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// fileEvents is osquery's file_events, with what inotify cannot tell: who did it.
func fileEvents() *eventTable {
	return &eventTable{
		name:      "file_events",
		doc:       "What was done to the files that file_paths or --watch name",
		kinds:     []event.ID{event.KindFile},
		columns:   [][]event.Column{over(slices.Concat(fileEventColumns, fileActor, additions[*event.File](), additionalTime[*event.File]()))},
		keep:      fileDone,
		keepUses:  []string{"operation", "result"},
		split:     bothNames,
		splitUses: []string{"operation", "target_path", "destination_path"},
	}
}

// fileDone leaves out what failed, and what osquery has no word for: a mapping is followed by a write.
func fileDone(e event.Event) bool {
	f := e.(*event.File)
	return (f.Result == "ok" || f.Result == "") && f.Operation != "mmap"
}

// movedTo is how the second row of a rename is told from its first.
const movedTo = "moved_to"

// bothNames makes two rows of a rename, one for each name; a link and a symbolic link are made
// under their new name.
func bothNames(e event.Event) (first, second event.Event) {
	f := e.(*event.File)
	switch {
	case f.DestinationPath == "":
		return f, nil
	case f.Operation == "rename":
		to := *f
		to.Operation, to.TargetPath = movedTo, f.DestinationPath
		return f, &to
	}
	to := *f
	to.TargetPath = f.DestinationPath
	return &to, nil
}

// fileAction is the operation in the words of osquery's file_events.
func fileAction(e *event.File) schema.Value {
	switch e.Operation {
	case "create", "link", "symlink":
		return schema.TextValue("CREATED")
	case "write", "truncate":
		return schema.TextValue("UPDATED")
	case "delete":
		return schema.TextValue("DELETED")
	case "rename":
		return schema.TextValue("MOVED_FROM")
	case movedTo:
		return schema.TextValue("MOVED_TO")
	case "open":
		// Audit tells how a file was opened, and not whether it was then written to.
		if strings.HasPrefix(e.Argument, "O_WRONLY") || strings.HasPrefix(e.Argument, "O_RDWR") || strings.Contains(e.Argument, "O_TRUNC") {
			return schema.TextValue("UPDATED")
		}
		return schema.TextValue("OPENED")
	}
	return schema.TextValue("ATTRIBUTES_MODIFIED")
}

func hashedFlag(e *event.File) schema.Value {
	switch {
	case e.SHA256 != "":
		return schema.IntValue(1)
	case e.HashError != "":
		return schema.IntValue(-1)
	}
	return schema.IntValue(0)
}

// seconds is a time of the file, in whole seconds; NULL when it is not known.
func seconds(name string, at func(*event.File) int64, doc string) schema.Column[*event.File] {
	return schema.Calc(name, schema.BigInt, func(e *event.File) schema.Value {
		if at(e) == 0 {
			return schema.Null
		}
		return schema.IntValue(at(e) / 1e9)
	}, doc).From(name + "_ns")
}

var fileEventColumns = []schema.Column[*event.File]{
	schema.Str("target_path", func(e *event.File) *string { return &e.TargetPath }, "File acted upon; of a rename a row for each name").From("target_path"),
	schema.Str("category", func(e *event.File) *string { return &e.Category }, "Category of file_paths that asked for it").From("category"),
	schema.Calc("action", schema.Text, fileAction, "CREATED, UPDATED (by audit: opened for that), DELETED, MOVED_FROM, MOVED_TO, ATTRIBUTES_MODIFIED, or OPENED for file_accesses").From("operation", "argument"),
	schema.Calc("transaction_id", schema.BigInt, func(e *event.File) schema.Value {
		if e.Operation == "rename" || e.Operation == movedTo {
			return schema.IntValue(e.EID)
		}
		return schema.IntValue(0)
	}, "Joins the two rows of a rename: the number of the event").From("eid", "operation"),
	schema.Int("inode", func(e *event.File) *uint64 { return &e.Inode }, "Inode of the file", schema.OmitZero).From("inode"),
	schema.Int("uid", func(e *event.File) *uint32 { return &e.OwnerUID }, "Owner of the file", schema.OmitUnset).From("owner_uid"),
	schema.Int("gid", func(e *event.File) *uint32 { return &e.OwnerGID }, "Group of the file", schema.OmitUnset).From("owner_gid"),
	schema.Calc("mode", schema.Text, func(e *event.File) schema.Value {
		if e.Mode == 0 {
			return schema.TextValue("")
		}
		return schema.TextValue("0" + strconv.FormatUint(uint64(e.Mode&^unix.S_IFMT), 8))
	}, "Permission bits, octal").From("mode"),
	schema.Int("size", func(e *event.File) *uint64 { return &e.Size }, "Bytes in the file afterwards").From("size"),
	seconds("atime", func(e *event.File) int64 { return e.ATime }, "When it was read last"),
	seconds("mtime", func(e *event.File) int64 { return e.MTime }, "When its contents changed last"),
	seconds("ctime", func(e *event.File) int64 { return e.CTime }, "When it or what is said of it changed last"),
	schema.Str("md5", func(e *event.File) *string { return &e.MD5 }, "MD5 of the contents, when asked for").Collated("nocase").From("md5"),
	schema.Str("sha1", func(e *event.File) *string { return &e.SHA1 }, "SHA-1 of the contents, when asked for").Collated("nocase").From("sha1"),
	schema.Str("sha256", func(e *event.File) *string { return &e.SHA256 }, "SHA-256 of the contents").Collated("nocase").From("sha256"),
	schema.Calc("hashed", schema.Integer, hashedFlag, "1 when there is a digest, 0 when none was wanted, -1 when there should be one").From("sha256", "hash_error"),
	schema.Time("time", func(e *event.File) *int64 { return &e.Time }, "When it happened, unix seconds from the kernel's clock", schema.Additional).From("time"),
	schema.Calc("eid", schema.Text, func(e *event.File) schema.Value { return eidText(&e.Header) }, "Number of the event, ten digits or more", schema.Hidden).From("eid"),
}

// fileActor says who it was, which inotify does not know.
var fileActor = []schema.Column[*event.File]{
	schema.Str("operation", func(e *event.File) *string { return &e.Operation }, "What was done, in the words of filesystem_events", schema.Hidden).From("operation"),
	schema.Str("destination_path", func(e *event.File) *string { return &e.DestinationPath }, "New name: of rename, link and symlink", schema.Hidden).From("destination_path"),
	schema.Int("pid", func(e *event.File) *uint32 { return &e.PID }, "Process that did it", schema.Hidden).From("pid"),
	schema.Str("path", func(e *event.File) *string { return &e.Path }, "Executable of the process", schema.Hidden).From("path"),
	schema.Int("process_uid", func(e *event.File) *uint32 { return &e.UID }, "Real user of the process", schema.Hidden, schema.OmitUnset).From("uid"),
	schema.Int("auid", func(e *event.File) *uint32 { return &e.AUID }, "Login user, 4294967295 when none logged in", schema.Hidden).From("auid"),
	schema.Str("hash_error", func(e *event.File) *string { return &e.HashError }, "Why there is no digest", schema.Hidden).From("hash_error"),
}
