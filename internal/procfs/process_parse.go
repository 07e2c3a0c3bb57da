package procfs

import (
	"bytes"
	"errors"
	"math"
	"os"
)

// ticksPerSecond is USER_HZ, which the kernel's interface fixes at 100 on every
// architecture that Go runs on (include/asm-generic/param.h).
const ticksPerSecond = 100

// nsPerTick is the grain of every time in /proc/<pid>/stat: ten milliseconds.
const nsPerTick = 1e9 / ticksPerSecond

var pageSize = uint64(os.Getpagesize())

// Stat is /proc/<pid>/stat (proc_pid_stat(5), fs/proc/array.c, do_task_stat).
type Stat struct {
	PID        int
	Comm       string // 15 bytes of anything but NUL; kernel threads may have 63
	State      byte   // R S D Z T t X I …
	PPID       int
	PGroup     int
	Session    int
	TTY        int32  // device number, 0 for none
	Flags      uint32 // PF_* of include/linux/sched.h
	UserTicks  uint64
	SysTicks   uint64
	Nice       int
	Threads    int
	StartTicks uint64 // since boot
	Virtual    uint64 // bytes; 0 when there is no address space (kernel threads, zombies)
	Resident   uint64 // pages
}

// StartTimeNs is when the process started, in nanoseconds since boot, cut to the 10 ms
// grain of /proc: the same process's start as eBPF sees it is up to 9,999,999 ns later.
func (s *Stat) StartTimeNs() uint64 { return s.StartTicks * nsPerTick }

// ResidentBytes is Resident in bytes.
func (s *Stat) ResidentBytes() uint64 { return s.Resident * pageSize }

// UserMs is the processor time spent outside the kernel, in milliseconds, a multiple of ten.
func (s *Stat) UserMs() uint64 { return s.UserTicks * (1000 / ticksPerSecond) }

// SysMs is the processor time spent in the kernel, in milliseconds, a multiple of ten.
func (s *Stat) SysMs() uint64 { return s.SysTicks * (1000 / ticksPerSecond) }

// KernelThread reports whether the process is one of the kernel's own (PF_KTHREAD).
func (s *Stat) KernelThread() bool { return s.Flags&0x00200000 != 0 }

var errStat = errors.New("stat is malformed")

// parseStat reads "pid (comm) state ppid …". The name may hold spaces, newlines and
// parentheses; no later field can hold a parenthesis, so the last one closes it.
func parseStat(b []byte, s *Stat) error {
	comm := s.Comm
	*s = Stat{}
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || shut < open || len(b) < shut+4 || b[shut+1] != ' ' {
		return errStat
	}
	pid, ok := parseDecimal(b[:open])
	if !ok || pid > math.MaxInt32 {
		return errStat
	}
	s.PID = int(pid)
	if string(b[open+1:shut]) == comm { // a reused Stat keeps its string
		s.Comm = comm
	} else {
		s.Comm = string(b[open+1 : shut])
	}
	rest := b[shut+2:]
	s.State = rest[0]
	rest = rest[1:]
	// Fields are numbered as in proc_pid_stat(5); state was the third.
	for field := 4; field <= 24; field++ {
		var word []byte
		word, rest = nextField(rest)
		n, ok := parseInteger(word)
		if !ok {
			return errStat
		}
		switch field {
		case 4:
			s.PPID = int(n)
		case 5:
			s.PGroup = int(n)
		case 6:
			s.Session = int(n)
		case 7:
			s.TTY = int32(n)
		case 9:
			s.Flags = uint32(n)
		case 14:
			s.UserTicks = n
		case 15:
			s.SysTicks = n
		case 19:
			s.Nice = int(n)
		case 20:
			s.Threads = int(n)
		case 22:
			s.StartTicks = n
		case 23:
			s.Virtual = n
		case 24:
			s.Resident = n
		}
	}
	return nil
}

// Status is the part of /proc/<pid>/status (proc_pid_status(5)) that stat lacks.
type Status struct {
	TGID                   int // the process that a thread belongs to
	TracerPID              int
	UID, EUID, SUID, FSUID uint32 // as seen from the reader's user namespace
	GID, EGID, SGID, FSGID uint32
	NSPID                  int    // pid in the innermost pid namespace; 0 before Linux 4.1
	CapEff                 uint64 // capabilities(7)
}

// parseStatus reads "Key:\tvalue" lines. Name, which the process chooses, has its newlines
// escaped by the kernel and is the first line, so it cannot pass for another.
func parseStatus(b []byte, s *Status) {
	*s = Status{}
	for len(b) > 0 {
		var line []byte
		line, b = nextLine(b)
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		switch string(key) {
		case "Tgid":
			s.TGID = parseInt(value)
		case "TracerPid":
			s.TracerPID = parseInt(value)
		case "Uid":
			parseIDs(value, &s.UID, &s.EUID, &s.SUID, &s.FSUID)
		case "Gid":
			parseIDs(value, &s.GID, &s.EGID, &s.SGID, &s.FSGID)
		case "NSpid":
			for word, rest := nextField(value); len(word) > 0; word, rest = nextField(rest) {
				s.NSPID = parseInt(word)
			}
		case "CapEff":
			word, _ := nextField(value)
			s.CapEff, _ = parseHex(word)
		}
	}
}

func parseIDs(b []byte, ids ...*uint32) {
	for _, id := range ids {
		var word []byte
		word, b = nextField(b)
		n, _ := parseDecimal(word)
		*id = uint32(n)
	}
}

// IO is what a process has read and written (proc_pid_io(5)), in bytes.
type IO struct {
	ReadChars, WriteChars uint64 // through system calls, wherever they ended
	ReadBytes, WriteBytes uint64 // that reached, or will reach, a device
	CancelledWriteBytes   uint64 // of those, what was truncated before it did
}

func parseIO(b []byte, s *IO) {
	*s = IO{}
	for len(b) > 0 {
		var line []byte
		line, b = nextLine(b)
		key, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		n, _ := parseDecimal(value)
		switch string(key) {
		case "rchar":
			s.ReadChars = n
		case "wchar":
			s.WriteChars = n
		case "read_bytes":
			s.ReadBytes = n
		case "write_bytes":
			s.WriteBytes = n
		case "cancelled_write_bytes":
			s.CancelledWriteBytes = n
		}
	}
}

// Map is one line of /proc/<pid>/maps (proc_pid_maps(5)). Its bytes are valid only while
// the function that was handed it runs.
type Map struct {
	Start, End  uint64
	Permissions []byte // rwxp or rwxs
	Offset      uint64 // bytes into the file
	Device      []byte // major:minor in hexadecimal
	Inode       uint64 // 0 for memory without a file
	Path        []byte // of the file, or [heap], [stack] …; newlines are written \012
	Deleted     bool   // the file was unlinked; " (deleted)" is taken off Path
}

// parseMap reads "start-end perms offset dev inode   path". The path may hold spaces.
func parseMap(line []byte, m *Map) bool {
	addresses, rest := nextField(line)
	start, end, ok := bytes.Cut(addresses, []byte{'-'})
	if !ok {
		return false
	}
	var ok1, ok2, ok3, ok4 bool
	m.Start, ok1 = parseHex(start)
	m.End, ok2 = parseHex(end)
	m.Permissions, rest = nextField(rest)
	offset, rest := nextField(rest)
	m.Offset, ok3 = parseHex(offset)
	m.Device, rest = nextField(rest)
	inode, rest := nextField(rest)
	m.Inode, ok4 = parseDecimal(inode)
	m.Path = bytes.TrimLeft(rest, " ")
	m.Path, m.Deleted = bytes.CutSuffix(m.Path, []byte(deletedMark))
	return ok1 && ok2 && ok3 && ok4
}

// CgroupPath returns what osquery shows as cgroup_path: the path on the first line of
// /proc/<pid>/cgroup, which is the only one with cgroup v2 and that of the newest
// hierarchy with v1. Empty when there is none.
func CgroupPath(cgroup []byte) string {
	line, _ := nextLine(cgroup)
	// "0::/user.slice", "12:cpu,cpuacct:/user.slice"; a path may hold colons.
	_, line, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return ""
	}
	_, path, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return ""
	}
	return string(path)
}

// parseBracketed reads "kind:[number]", the form of links to what has no path.
func parseBracketed(b []byte, kind string) (uint64, bool) {
	if len(b) < len(kind)+4 || string(b[:len(kind)]) != kind || b[len(kind)] != ':' ||
		b[len(kind)+1] != '[' || b[len(b)-1] != ']' {
		return 0, false
	}
	n, ok := parseDecimal(b[len(kind)+2 : len(b)-1])
	return n, ok && n != 0
}

// SocketInode returns the inode in what FDs shows of a socket, "socket:[inode]".
func SocketInode(target []byte) (uint64, bool) { return parseBracketed(target, "socket") }

// nextLine splits after the first newline, which is in neither part.
func nextLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// nextField splits off the first word; words are parted by blanks and tabs.
func nextField(b []byte) (word, rest []byte) {
	i := 0
	for i < len(b) && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	j := i
	for j < len(b) && b[j] != ' ' && b[j] != '\t' {
		j++
	}
	return b[i:j], b[j:]
}

// parseDecimal reads an unsigned number with white space around it.
func parseDecimal(b []byte) (uint64, bool) {
	b = bytes.TrimSpace(b)
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxUint64-uint64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}

// parseInteger reads a number that may be negative; its bits are those of an int64 then.
func parseInteger(b []byte) (uint64, bool) {
	if len(b) > 0 && b[0] == '-' {
		n, ok := parseDecimal(b[1:])
		return -n, ok && n <= 1<<63
	}
	return parseDecimal(b)
}

// parseInt reads a number that the kernel keeps in an int; 0 when it is none.
func parseInt(b []byte) int {
	n, ok := parseInteger(bytes.TrimSpace(b))
	if !ok {
		return 0
	}
	return int(int32(n))
}

// parseHex reads at most 16 hexadecimal digits of either case.
func parseHex(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return n, true
}

// splitter cuts what is read into buf piecemeal into lines.
type splitter struct {
	buf  []byte
	n    int  // bytes of an unfinished line at the start of buf
	skip bool // the rest of a line that was too long
}

// room is where the next bytes go; it is never empty.
func (s *splitter) room() []byte { return s.buf[s.n:] }

// add takes n bytes put into room.
func (s *splitter) add(n int, fn func(line []byte)) {
	b := s.buf[:s.n+n]
	for {
		i := bytes.IndexByte(b[min(s.n, len(b)):], '\n')
		if i < 0 {
			break
		}
		i += s.n
		if !s.skip {
			fn(b[:i])
		}
		s.skip, s.n, b = false, 0, b[i+1:]
	}
	if s.skip {
		b = b[:0]
	}
	s.n = copy(s.buf, b)
	if s.n == len(s.buf) {
		fn(s.buf)
		s.n, s.skip = 0, true
	}
}

// end delivers a last line without a newline.
func (s *splitter) end(fn func(line []byte)) {
	if s.n > 0 {
		fn(s.buf[:s.n])
	}
	s.n = 0
}
