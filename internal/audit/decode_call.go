package audit

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// call is a SYSCALL or URINGOP record.
type callRecord struct {
	arch    uint32
	nr      uint64
	def     *callDef
	args    [4]uint64
	exit    int64
	success bool
	ended   bool // success and exit are told; not of a call that never returned
	items   int
	known   uint8 // required fields that are there

	pid, ppid                                      uint32
	uid, euid, suid, fsuid, gid, egid, sgid, fsgid uint32
	auid, ses                                      uint32
	tty, comm, exe, key                            string
}

const (
	hasPID = 1 << iota
	hasNumber
	hasArch
	hasUring
	hasAUID
)

// parseCall reads a SYSCALL or URINGOP record into d.call; false when it lacks what says
// who did what.
func (d *decoder) parseCall(text []byte) bool {
	c := &d.call
	*c = callRecord{
		uid: unset, euid: unset, suid: unset, fsuid: unset, gid: unset, egid: unset, sgid: unset, fsgid: unset,
		auid: unset, ses: unset,
	}
	f := pairs{text}
	for x, ok := f.next(); ok; x, ok = f.next() {
		switch string(x.key) {
		case "arch":
			if n, ok := hexNumber(x.value); ok {
				c.arch = uint32(n)
				c.known |= hasArch
			}
		case "syscall":
			if n, ok := integer(x.value); ok {
				c.nr = uint64(n)
				c.known |= hasNumber
			}
		case "uring_op":
			if n, ok := integer(x.value); ok {
				c.nr = uint64(n)
				c.known |= hasUring
			}
		case "success":
			c.success = string(x.value) == "yes"
			c.ended = true
		case "exit":
			c.exit, _ = integer(x.value)
		case "a0":
			c.args[0], _ = hexNumber(x.value)
		case "a1":
			c.args[1], _ = hexNumber(x.value)
		case "a2":
			c.args[2], _ = hexNumber(x.value)
		case "a3":
			c.args[3], _ = hexNumber(x.value)
		case "items":
			n, _ := integer(x.value)
			c.items = int(n)
		case "pid":
			if n := uid(x.value); n != unset {
				c.pid = n
				c.known |= hasPID
			}
		case "ppid":
			if n := uid(x.value); n != unset {
				c.ppid = n
			}
		case "auid", "loginuid":
			c.auid = uid(x.value)
			c.known |= hasAUID
		case "uid":
			c.uid = uid(x.value)
		case "gid":
			c.gid = uid(x.value)
		case "euid":
			c.euid = uid(x.value)
		case "suid":
			c.suid = uid(x.value)
		case "fsuid":
			c.fsuid = uid(x.value)
		case "egid":
			c.egid = uid(x.value)
		case "sgid":
			c.sgid = uid(x.value)
		case "fsgid":
			c.fsgid = uid(x.value)
		case "ses":
			c.ses = uid(x.value)
		case "tty":
			c.tty = d.tty(x.value)
		case "comm":
			c.comm = d.untrusted(&x)
		case "exe":
			c.exe = d.untrusted(&x)
		case "key":
			c.key = d.untrusted(&x)
		}
	}
	switch {
	case c.known&hasPID == 0:
		return false
	case c.known&hasUring != 0:
		c.def = uringDef(c.nr)
	case c.known&(hasNumber|hasArch) == hasNumber|hasArch:
		c.def = defOf(c.arch, c.nr)
	default:
		return false
	}
	return true
}

// untrusted returns the decoded text of a field as a string that stays.
func (d *decoder) untrusted(x *pair) string {
	b := x.untrusted(d.buf)
	if x.quote == 0 && cap(b) > cap(d.buf) && len(b) < len(x.value) {
		d.buf = b
	}
	return d.strings.get(b)
}

// tty names a terminal as the sensor does: pts/0 where records have pts0.
func (d *decoder) tty(b []byte) string {
	if string(b) == "(none)" || string(b) == "?" {
		return ""
	}
	if len(b) > 3 && string(b[:3]) == "pts" && b[3] != '/' {
		d.text = append(append(d.text[:0], "pts/"...), b[3:]...)
		b = d.text
	}
	return d.strings.get(b)
}

// caller fills in what a call's record says about who made it.
func (d *decoder) caller(h *event.Header) {
	c := &d.call
	h.PID, h.PPID = c.pid, c.ppid
	h.UID, h.GID, h.EUID, h.EGID = c.uid, c.gid, c.euid, c.egid
	if c.known&hasAUID != 0 {
		h.AUID, h.Session = c.auid, c.ses
	}
	h.TTY, h.Comm = c.tty, c.comm
	h.Path, _ = alive(c.exe)
}

// result is what became of the call: "ok" or the name of an errno.
func (c *callRecord) result() string {
	switch {
	case !c.ended:
		return ""
	case c.success:
		return "ok"
	case c.exit == -int64(unix.EINPROGRESS):
		return "in_progress"
	}
	return errnoName(-c.exit)
}

func errnoName(n int64) string {
	if n > 0 && n < 4096 {
		if s := unix.ErrnoName(unix.Errno(n)); s != "" {
			return s
		}
		if s, ok := restarts[n]; ok {
			return s
		}
	}
	return strconv.FormatInt(-n, 10)
}

// restarts are errors that only the kernel sees (include/linux/errno.h): the call was
// interrupted, and begins again or returns EINTR. Audit tells some of them as EINTR.
var restarts = map[int64]string{
	512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 515: "ENOIOCTLCMD", 516: "ERESTART_RESTARTBLOCK",
	517: "EPROBE_DEFER", 524: "ENOTSUPP", 529: "EIOCBQUEUED",
}

// signed is an argument that the kernel takes as an int: 64-bit programs may leave
// anything in the upper half.
func (c *callRecord) signed(i int) int32 { return int32(uint32(c.args[i])) }

// action is what is decoded of a call.
type action uint8

const (
	doNothing action = iota
	doExec
	doFork
	doClone
	doClone3
	doExit
	doConnect
	doAccept
	doBind
	doListen
	doSocketCall
	doCredential
	doPtrace
	doSignal
	doModule
	doMount
	doFile
)

// callDef is what is known of a system call that becomes an event. Places are numbers of
// arguments; 0 stands for none in those that are never the first.
type callDef struct {
	name string
	do   action
	op   string // of files: the operation

	nargs  uint8 // of credentials: how many numbers it takes
	signal uint8 // place of the number; 0: none
	flags  uint8 // place of flags, mode, length, or owner before group
	form   form  // how that is shown
	at     uint8 // place of the descriptor of a name's directory, plus 1
	at2    uint8 // the same for the second name
	fd     bool  // the first argument is the file's descriptor
	two    bool  // there are two names
}

// form is how a number is shown as the argument of a file operation.
type form uint8

const (
	noArgument form = iota
	asFlags
	asMode
	asOwners
	asLength
)

// callDefs are the calls that become events. Those with 32 or 64 in their name are what
// 32-bit programs use.
var callDefs = []callDef{
	{name: "execve", do: doExec},
	{name: "execveat", do: doExec},
	{name: "fork", do: doFork},
	{name: "vfork", do: doFork},
	{name: "clone", do: doClone},
	{name: "clone3", do: doClone3},
	{name: "exit_group", do: doExit},

	{name: "connect", do: doConnect},
	{name: "accept", do: doAccept},
	{name: "accept4", do: doAccept},
	{name: "bind", do: doBind},
	{name: "listen", do: doListen},
	{name: "socketcall", do: doSocketCall},

	{name: "setuid", do: doCredential, nargs: 1},
	{name: "setgid", do: doCredential, nargs: 1},
	{name: "setreuid", do: doCredential, nargs: 2},
	{name: "setregid", do: doCredential, nargs: 2},
	{name: "setresuid", do: doCredential, nargs: 3},
	{name: "setresgid", do: doCredential, nargs: 3},
	{name: "setfsuid", do: doCredential, nargs: 1},
	{name: "setfsgid", do: doCredential, nargs: 1},
	{name: "setgroups", do: doCredential},
	{name: "setuid32", do: doCredential, nargs: 1},
	{name: "setgid32", do: doCredential, nargs: 1},
	{name: "setreuid32", do: doCredential, nargs: 2},
	{name: "setregid32", do: doCredential, nargs: 2},
	{name: "setresuid32", do: doCredential, nargs: 3},
	{name: "setresgid32", do: doCredential, nargs: 3},
	{name: "setfsuid32", do: doCredential, nargs: 1},
	{name: "setfsgid32", do: doCredential, nargs: 1},
	{name: "setgroups32", do: doCredential},
	{name: "capset", do: doCredential},

	{name: "ptrace", do: doPtrace},
	{name: "process_vm_readv", do: doPtrace},
	{name: "process_vm_writev", do: doPtrace},

	{name: "kill", do: doSignal, signal: 1},
	{name: "tkill", do: doSignal, signal: 1},
	{name: "tgkill", do: doSignal, signal: 2},
	{name: "rt_sigqueueinfo", do: doSignal, signal: 1},
	{name: "rt_tgsigqueueinfo", do: doSignal, signal: 2},
	{name: "pidfd_send_signal", do: doSignal, signal: 1},

	{name: "init_module", do: doModule},
	{name: "finit_module", do: doModule},
	{name: "delete_module", do: doModule},

	{name: "mount", do: doMount},
	{name: "umount", do: doMount},
	{name: "umount2", do: doMount},
	{name: "move_mount", do: doMount},
	{name: "mount_setattr", do: doMount},
	{name: "pivot_root", do: doMount},

	{name: "open", do: doFile, op: "open", flags: 1, form: asFlags},
	{name: "openat", do: doFile, op: "open", flags: 2, form: asFlags, at: 1},
	{name: "openat2", do: doFile, op: "open", at: 1},
	{name: "creat", do: doFile, op: "open"},
	{name: "open_by_handle_at", do: doFile, op: "open", flags: 2, form: asFlags},
	{name: "mkdir", do: doFile, op: "create", flags: 1, form: asMode},
	{name: "mkdirat", do: doFile, op: "create", flags: 2, form: asMode, at: 1},
	{name: "mknod", do: doFile, op: "create", flags: 1, form: asMode},
	{name: "mknodat", do: doFile, op: "create", flags: 2, form: asMode, at: 1},
	{name: "truncate", do: doFile, op: "truncate", flags: 1, form: asLength},
	{name: "ftruncate", do: doFile, op: "truncate", flags: 1, form: asLength, fd: true},
	{name: "truncate64", do: doFile, op: "truncate", flags: 1, form: asLength},
	{name: "ftruncate64", do: doFile, op: "truncate", flags: 1, form: asLength, fd: true},
	{name: "unlink", do: doFile, op: "delete"},
	{name: "unlinkat", do: doFile, op: "delete", at: 1},
	{name: "rmdir", do: doFile, op: "delete"},
	{name: "rename", do: doFile, op: "rename", two: true},
	{name: "renameat", do: doFile, op: "rename", two: true, at: 1, at2: 3},
	{name: "renameat2", do: doFile, op: "rename", two: true, at: 1, at2: 3},
	{name: "link", do: doFile, op: "link", two: true},
	{name: "linkat", do: doFile, op: "link", two: true, at: 1, at2: 3},
	{name: "symlink", do: doFile, op: "symlink", two: true},
	{name: "symlinkat", do: doFile, op: "symlink", two: true, at2: 2},
	{name: "chmod", do: doFile, op: "chmod", flags: 1, form: asMode},
	{name: "fchmod", do: doFile, op: "chmod", flags: 1, form: asMode, fd: true},
	{name: "fchmodat", do: doFile, op: "chmod", flags: 2, form: asMode, at: 1},
	{name: "fchmodat2", do: doFile, op: "chmod", flags: 2, form: asMode, at: 1},
	{name: "chown", do: doFile, op: "chown", flags: 1, form: asOwners},
	{name: "lchown", do: doFile, op: "chown", flags: 1, form: asOwners},
	{name: "fchown", do: doFile, op: "chown", flags: 1, form: asOwners, fd: true},
	{name: "fchownat", do: doFile, op: "chown", flags: 2, form: asOwners, at: 1},
	{name: "chown32", do: doFile, op: "chown", flags: 1, form: asOwners},
	{name: "lchown32", do: doFile, op: "chown", flags: 1, form: asOwners},
	{name: "fchown32", do: doFile, op: "chown", flags: 1, form: asOwners, fd: true},
	{name: "setxattr", do: doFile, op: "setxattr"},
	{name: "lsetxattr", do: doFile, op: "setxattr"},
	{name: "fsetxattr", do: doFile, op: "setxattr", fd: true},
	{name: "setxattrat", do: doFile, op: "setxattr", at: 1},
	{name: "removexattr", do: doFile, op: "removexattr"},
	{name: "lremovexattr", do: doFile, op: "removexattr"},
	{name: "fremovexattr", do: doFile, op: "removexattr", fd: true},
	{name: "removexattrat", do: doFile, op: "removexattr", at: 1},
	{name: "utime", do: doFile, op: "utimes"},
	{name: "utimes", do: doFile, op: "utimes"},
	{name: "futimesat", do: doFile, op: "utimes", at: 1},
	{name: "utimensat", do: doFile, op: "utimes", at: 1},
	{name: "utimensat_time64", do: doFile, op: "utimes", at: 1},
}

// uringOps are the operations of io_uring that become events, by their number in
// linux/io_uring.h. Their records hold no arguments.
var uringOps = map[uint64]callDef{
	13: {name: "accept", do: doAccept},
	16: {name: "connect", do: doConnect},
	18: {name: "openat", do: doFile, op: "open", at: 1},
	28: {name: "openat2", do: doFile, op: "open", at: 1},
	35: {name: "renameat", do: doFile, op: "rename", two: true, at: 1, at2: 3},
	36: {name: "unlinkat", do: doFile, op: "delete", at: 1},
	37: {name: "mkdirat", do: doFile, op: "create", at: 1},
	38: {name: "symlinkat", do: doFile, op: "symlink", two: true, at2: 2},
	39: {name: "linkat", do: doFile, op: "link", two: true, at: 1, at2: 3},
	41: {name: "fsetxattr", do: doFile, op: "setxattr", fd: true},
	42: {name: "setxattr", do: doFile, op: "setxattr"},
	55: {name: "ftruncate", do: doFile, op: "truncate", fd: true},
	56: {name: "bind", do: doBind},
	57: {name: "listen", do: doListen},
}
