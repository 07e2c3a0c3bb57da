package table

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

func TestRowsOfFileEvents(t *testing.T) {
	file := func(operation, target, destination string) *event.File {
		return &event.File{Header: header(event.KindFile), Operation: operation, Result: "ok", TargetPath: target, DestinationPath: destination,
			Category: "c", Inode: 12, OwnerUID: 3, OwnerGID: 4, Mode: unix.S_IFREG | 0o4640, Size: 5, MTime: 7_999_999_999, CTime: 8e9, ATime: 9e9}
	}
	written := file("write", "/a", "")
	written.SHA256, written.MD5 = "ab", "cd"
	late := file("write", "/b", "")
	late.HashError = "busy"
	denied := file("delete", "/c", "")
	denied.Result = "EACCES"
	byAudit := file("open", "/a", "")
	byAudit.Argument = "O_RDWR|O_CREAT"
	log := storeOf(t, file("create", "/a", ""), written, late, denied, file("rename", "/a", "/d/a"), file("link", "/x", "/d/x"),
		file("symlink", "text", "/d/y"), file("chmod", "/a", ""), file("open", "/a", ""), byAudit, file("delete", "/a", ""))
	row := func(action, target, operation string, more ...string) map[string]string {
		m := map[string]string{"target_path": target, "category": "c", "action": action, "transaction_id": "0", "inode": "12", "uid": "3", "gid": "4",
			"mode": "04640", "size": "5", "mtime": "7", "ctime": "8", "atime": "9", "hashed": "0", "operation": operation, "pid": "4242",
			"path": "/usr/bin/bash", "process_uid": "1000", "auid": "4294967295"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	checkRows(t, log, EventOptions{}, "file_events",
		row("CREATED", "/a", "create"), row("UPDATED", "/a", "write", "sha256", "ab", "md5", "cd", "hashed", "1"),
		row("UPDATED", "/b", "write", "hashed", "-1", "hash_error", "busy"),
		row("MOVED_FROM", "/a", "rename", "destination_path", "/d/a", "transaction_id", "5"),
		row("MOVED_TO", "/d/a", "moved_to", "destination_path", "/d/a", "transaction_id", "5"),
		row("CREATED", "/d/x", "link", "destination_path", "/d/x"), row("CREATED", "/d/y", "symlink", "destination_path", "/d/y"),
		row("ATTRIBUTES_MODIFIED", "/a", "chmod"), row("OPENED", "/a", "open"), row("UPDATED", "/a", "open"), row("DELETED", "/a", "delete"))
}
