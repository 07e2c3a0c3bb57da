package rule

import (
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

// auditKinds are the kinds that tell what auditd's records do.
var auditKinds = []event.ID{
	event.KindExec, event.KindConnect, event.KindAccept, event.KindBind, event.KindListen, event.KindFile,
	event.KindCredential, event.KindPtrace, event.KindSignal, event.KindModule, event.KindMount, event.KindUser, event.KindPolicy,
}

// auditNames are auditd's fields (the names of its records' fields) that are a column.
var auditNames = map[string]string{
	"exe": "path", "comm": "comm", "pid": "pid", "ppid": "ppid", "uid": "uid", "gid": "gid", "euid": "euid", "egid": "egid",
	"auid": "auid", "ses": "session_id", "tty": "tty", "cwd": "cwd", "key": "category", "acct": "account", "op": "operation",
	"addr": "address", "hostname": "hostname", "terminal": "terminal", "unit": "object", "msg": "message", "ouid": "owner_uid",
	"ogid": "owner_gid", "inode": "inode", "dev": "device", "proctitle": "@command",
}

// auditTypes are the records that auditd writes of what a kind tells.
var auditTypes = map[event.ID]string{
	event.KindExec:       "SYSCALL EXECVE CWD PATH PROCTITLE",
	event.KindConnect:    "SYSCALL SOCKADDR PROCTITLE",
	event.KindAccept:     "SYSCALL SOCKADDR PROCTITLE",
	event.KindBind:       "SYSCALL SOCKADDR PROCTITLE",
	event.KindListen:     "SYSCALL PROCTITLE",
	event.KindFile:       "SYSCALL CWD PATH PROCTITLE",
	event.KindCredential: "SYSCALL BPRM_FCAPS CAPSET PROCTITLE",
	event.KindPtrace:     "SYSCALL OBJ_PID PROCTITLE",
	event.KindSignal:     "SYSCALL OBJ_PID PROCTITLE",
	event.KindModule:     "SYSCALL KERN_MODULE PATH PROCTITLE",
	event.KindMount:      "SYSCALL PATH CWD PROCTITLE",
}

// auditField is what auditd calls name on events of a kind.
func auditField(kind *event.Kind, name string) (field, bool) {
	low := strings.ToLower(name)
	switch low {
	case "type":
		if types, ok := auditTypes[kind.ID]; ok {
			return fixed("type", strings.ReplaceAll(types, " ", "\x00")+"\x00"), true
		}
	case "syscall":
		return auditSyscall(kind)
	case "name":
		switch kind.ID {
		case event.KindExec:
			return columnField(kind.Column("path")), true
		case event.KindModule:
			return columnField(kind.Column("name")), true
		case event.KindMount:
			return columnField(kind.Column("mount_target")), true
		case event.KindFile:
			// The records of a renaming name both.
			return field{name: "@names", list: true, text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
				x, ok := e.(*event.File)
				if !ok {
					return "", buf
				}
				buf = append(append(buf[:0], x.TargetPath...), 0)
				if x.DestinationPath != "" {
					buf = append(append(buf, x.DestinationPath...), 0)
				}
				return view(buf), buf
			}}, true
		}
		return field{}, false
	case "nametype":
		if kind.ID != event.KindFile {
			return field{}, false
		}
		return field{name: "@nametype", text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
			x, ok := e.(*event.File)
			switch {
			case !ok:
				return "", buf
			case x.Operation == "create" || x.Operation == "link" || x.Operation == "symlink":
				return "CREATE", buf
			case x.Operation == "delete":
				return "DELETE", buf
			}
			return "NORMAL", buf
		}}, true
	case "success", "res", "result":
		c := kind.Column("result")
		yes, no := "yes", "no"
		if low != "success" {
			yes, no = "success", "failed"
		}
		if c == nil {
			if kind.ID == event.KindExec {
				return fixed("success", yes+"\x00"), true
			}
			return field{}, false
		}
		return field{name: "@" + low, text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
			switch c.Str(e) {
			case "ok", "success":
				return yes, buf
			case "":
				return "", buf
			}
			return no, buf
		}}, true
	}
	if n, ok := strings.CutPrefix(low, "a"); ok {
		if i, err := strconv.ParseUint(n, 10, 16); err == nil {
			if kind.ID != event.KindExec { // numbers, which nothing here keeps
				return field{}, false
			}
			return field{name: low, text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
				x, ok := e.(*event.Exec)
				if !ok {
					return "", buf
				}
				return word(x.Args, int(i)), buf
			}}, true
		}
	}
	native, ok := auditNames[low]
	if !ok {
		return field{}, false
	}
	if f, ok := special[native]; ok {
		return field{name: native, text: f}, kind.ID == event.KindExec
	}
	if c := kind.Column(native); c != nil {
		return columnField(c), true
	}
	return field{}, false
}

// auditSyscall is the name of the system call behind an event.
func auditSyscall(kind *event.Kind) (field, bool) {
	switch kind.ID {
	case event.KindExec:
		return fixed("syscall", "execve\x00"), true
	case event.KindConnect, event.KindBind, event.KindListen:
		return fixed("syscall", kind.Name+"\x00"), true
	case event.KindAccept:
		return fixed("syscall", "accept\x00accept4\x00"), true
	case event.KindCredential:
		return columnField(kind.Column("operation")), true
	case event.KindPtrace:
		return field{name: "@syscall", text: func(_ *Engine, buf []byte, e event.Event) (string, []byte) {
			x, ok := e.(*event.Ptrace)
			switch {
			case !ok:
				return "", buf
			case strings.HasPrefix(x.Request, "process_vm_"):
				return x.Request, buf
			}
			return "ptrace", buf
		}}, true
	}
	if c := kind.Column("syscall"); c != nil {
		return columnField(c), true
	}
	return field{}, false
}

// fixed is a field that is the same for all events: values that each end in a NUL byte.
func fixed(name, list string) field {
	return field{name: name, list: true, constant: true, text: func(_ *Engine, buf []byte, _ event.Event) (string, []byte) { return list, buf }}
}

// word is the one numbered i of a list.
func word(list string, i int) string {
	for ; list != ""; i-- {
		s, rest, _ := strings.Cut(list, "\x00")
		if i == 0 {
			return s
		}
		list = rest
	}
	return ""
}
