package procfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What one file of one process may cost in memory. A process chooses the length of its
// own arguments, environment and maps, so each has an end here; what is cut says so.
const (
	// maxFile bounds files that the kernel writes; status with 65,536 groups is the largest.
	maxFile = 1 << 20
	// MaxArgs bounds arguments and environment. execve(2) takes 2 MiB by default and 6 at
	// most; a thousand processes of that would be a weapon.
	MaxArgs = 256 << 10
	// maxLine bounds a line of maps and of the socket lists: a path of 4,095 bytes, each
	// escaped to four, and its numbers.
	maxLine = 20 << 10
	// maxLink is what the kernel can print of a path (fs/proc/base.c, do_proc_readlink).
	maxLink = 4096
)

// Dir is an open /proc. It and the Process it hands out belong to one goroutine.
type Dir struct {
	fd   int
	buf  []byte // what was read last
	link []byte
	name []byte
	proc Process
}

// Open opens the proc file system for reading processes.
func (fs FS) Open() (*Dir, error) {
	fd, err := unix.Open(fs.Proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", fs.Proc, err)
	}
	d := &Dir{fd: fd, buf: make([]byte, 16<<10), link: make([]byte, maxLink), name: make([]byte, 0, 32)}
	d.proc.fd = -1
	return d, nil
}

// Close closes the directory and the process last opened.
func (d *Dir) Close() error {
	d.proc.close()
	if d.fd < 0 {
		return nil
	}
	err := unix.Close(d.fd)
	d.fd = -1
	return err
}

// Pids appends the number of every process (not thread) to dst, ascending.
func (d *Dir) Pids(dst []int) ([]int, error) {
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return dst, fmt.Errorf("list processes: %w", err)
	}
	err := d.list(d.fd, func(pid int) { dst = append(dst, pid) })
	if err != nil {
		return dst, fmt.Errorf("list processes: %w", err)
	}
	return dst, nil
}

// list calls fn for each numeric name in the directory fd.
func (d *Dir) list(fd int, fn func(n int)) error {
	for {
		n, err := unix.Getdents(fd, d.buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n <= 0:
			return nil
		}
		eachNumber(d.buf[:n], fn)
	}
}

// Process is one process (or thread) held open by its directory: all that is read
// through it is of the same process, whatever happens to its pid meanwhile.
type Process struct {
	PID int
	d   *Dir
	fd  int
}

// Process opens the process, or the thread, numbered pid. The result is valid until the
// next call of Process or Close. The error is ErrGone when there is no such process.
func (d *Dir) Process(pid int) (*Process, error) {
	d.proc.close()
	if pid <= 0 {
		return nil, ErrGone
	}
	d.name = append(strconv.AppendInt(d.name[:0], int64(pid), 10), 0)
	fd, err := openat(d.fd, unsafe.String(&d.name[0], len(d.name)), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, processError("open", "", pid, err)
	}
	d.proc = Process{PID: pid, d: d, fd: fd}
	return &d.proc, nil
}

func (p *Process) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// processError is ErrGone, or err with its place. nameZ may end in NUL.
func processError(verb, nameZ string, pid int, err error) error {
	if gone(err) {
		return ErrGone
	}
	if nameZ == "" {
		return fmt.Errorf("%s process %d: %w", verb, pid, err)
	}
	return fmt.Errorf("%s %s of process %d: %w", verb, strings.TrimSuffix(nameZ, "\x00"), pid, err)
}

// read reads a file that the kernel hands over in one piece as long as the buffer is
// large enough, up to limit bytes. The result is valid until the next read.
func (p *Process) read(nameZ string, limit int) (data []byte, cut bool, err error) {
	fd, err := openat(p.fd, nameZ, unix.O_RDONLY)
	if err != nil {
		return nil, false, processError("open", nameZ, p.PID, err)
	}
	defer unix.Close(fd)
	d, n := p.d, 0
	for {
		m, err := read(fd, d.buf[n:])
		if err != nil {
			return nil, false, processError("read", nameZ, p.PID, err)
		}
		n += m
		if n < len(d.buf) {
			return d.buf[:min(n, limit)], n > limit, nil
		}
		if n > limit {
			return d.buf[:limit], true, nil
		}
		d.buf = append(d.buf, make([]byte, len(d.buf))...)
	}
}

// lines calls fn with each line of a file, without its newline. A line that is longer
// than maxLine is cut there. The line is valid during the call.
func (p *Process) lines(nameZ string, fn func(line []byte)) error {
	fd, err := openat(p.fd, nameZ, unix.O_RDONLY)
	if err != nil {
		return processError("open", nameZ, p.PID, err)
	}
	defer unix.Close(fd)
	d := p.d
	if len(d.buf) < maxLine {
		d.buf = append(d.buf, make([]byte, maxLine-len(d.buf))...)
	}
	s := splitter{buf: d.buf}
	for {
		n, err := read(fd, s.room())
		if err != nil {
			return processError("read", nameZ, p.PID, err)
		}
		if n == 0 {
			s.end(fn)
			return nil
		}
		s.add(n, fn)
	}
}

// readlink returns a link's target, valid until the next call.
func (p *Process) readlink(nameZ string) ([]byte, error) {
	n, err := readlinkat(p.fd, nameZ, p.d.link)
	if err != nil {
		return nil, processError("read", nameZ, p.PID, err)
	}
	return p.d.link[:n], nil
}

// Stat reads /proc/<pid>/stat into s, overwriting all of it.
func (p *Process) Stat(s *Stat) error {
	b, _, err := p.read("stat\x00", maxFile)
	if err != nil {
		return err
	}
	if err := parseStat(b, s); err != nil {
		return fmt.Errorf("read stat of process %d: %w", p.PID, err)
	}
	return nil
}

// Status reads /proc/<pid>/status into s, overwriting all of it.
func (p *Process) Status(s *Status) error {
	b, _, err := p.read("status\x00", maxFile)
	if err != nil {
		return err
	}
	parseStatus(b, s)
	return nil
}

// IO reads /proc/<pid>/io into s. It needs ptrace rights over the process.
func (p *Process) IO(s *IO) error {
	b, _, err := p.read("io\x00", maxFile)
	if err != nil {
		return err
	}
	parseIO(b, s)
	return nil
}

// Cmdline returns the arguments, each ending in NUL, as they now are in the memory of the
// process, which may have rewritten them (and their NULs). It is empty for kernel threads
// and zombies. The bytes are valid until the next read; cut says that MaxArgs were reached.
func (p *Process) Cmdline() (args []byte, cut bool, err error) {
	return p.read("cmdline\x00", MaxArgs)
}

// Environ returns the environment like Cmdline: as it was given to execve(2), unless the
// process wrote over it. It needs ptrace rights over the process.
func (p *Process) Environ() (env []byte, cut bool, err error) {
	return p.read("environ\x00", MaxArgs)
}

// Cgroup returns the lines of /proc/<pid>/cgroup, valid until the next read; see CgroupPath.
func (p *Process) Cgroup() ([]byte, error) {
	b, _, err := p.read("cgroup\x00", maxFile)
	return b, err
}

// Loginuid returns the audit user id, 4294967295 when unset. It is ErrGone on kernels
// without audit.
func (p *Process) Loginuid() (uint32, error) { return p.number("loginuid\x00") }

// Sessionid returns the audit session id, 4294967295 when unset. It is ErrGone on kernels
// without audit.
func (p *Process) Sessionid() (uint32, error) { return p.number("sessionid\x00") }

func (p *Process) number(nameZ string) (uint32, error) {
	b, _, err := p.read(nameZ, maxFile)
	if err != nil {
		return 0, err
	}
	n, ok := parseDecimal(b)
	if !ok || n > 1<<32-1 {
		return 0, processError("read", nameZ, p.PID, fmt.Errorf("%.20q is no number", b))
	}
	return uint32(n), nil
}

// deletedMark is what the kernel appends to the path of an unlinked file (d_path).
const deletedMark = " (deleted)"

// Exe returns the path of the executable, as seen from this process's root or, across
// mount namespaces, from the root of the other's; deleted says that the path no longer
// leads to the file (the kernel's " (deleted)" is taken off). A file that merely bears
// that name is told apart by its inode. ErrGone is also what kernel threads answer.
func (p *Process) Exe() (path string, deleted bool, err error) {
	b, err := p.readlink("exe\x00")
	if err != nil {
		return "", false, err
	}
	path = string(b)
	bare, marked := strings.CutSuffix(path, deletedMark)
	if !marked || p.isExe(path) {
		return path, false, nil
	}
	return bare, true, nil
}

// isExe reports whether path, seen from the root of the process or from ours, is the very
// file that the process executes.
func (p *Process) isExe(path string) bool {
	var exe, st unix.Stat_t
	if unix.Fstatat(p.fd, "exe", &exe, 0) != nil {
		return false
	}
	for _, root := range [...]struct {
		dir  int
		path string
	}{{p.fd, "root" + path}, {p.d.fd, "self/root" + path}} {
		// d_path leaves no symbolic links in a path, so none needs to be followed.
		if unix.Fstatat(root.dir, root.path, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Dev == exe.Dev && st.Ino == exe.Ino {
			return true
		}
	}
	return false
}

// Cwd returns the working directory as the kernel prints it, with " (deleted)" if it is.
func (p *Process) Cwd() (string, error) {
	b, err := p.readlink("cwd\x00")
	return string(b), err
}

// Root returns the root directory as the kernel prints it: "/" unless changed.
func (p *Process) Root() (string, error) {
	b, err := p.readlink("root\x00")
	return string(b), err
}

// FDs calls fn with each open descriptor and what its link shows: a path, "socket:[1]",
// "pipe:[2]", "anon_inode:[eventpoll]" … The target is valid during the call, in which
// nothing else may be read. A descriptor closed meanwhile is left out.
func (p *Process) FDs(fn func(fd int, target []byte)) error {
	dir, err := openat(p.fd, "fd\x00", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return processError("list", "fd\x00", p.PID, err)
	}
	defer unix.Close(dir)
	d := p.d
	err = d.list(dir, func(n int) {
		d.name = append(strconv.AppendInt(d.name[:0], int64(n), 10), 0)
		m, err := readlinkat(dir, unsafe.String(&d.name[0], len(d.name)), d.link)
		if err == nil {
			fn(n, d.link[:m])
		}
	})
	if err != nil {
		return processError("list", "fd\x00", p.PID, err)
	}
	return nil
}

// FD returns what the link of one open descriptor shows, and which file it is: as stat(2)
// has it, on whatever file system.
func (p *Process) FD(fd int) (target string, device, inode uint64, err error) {
	name := append(strconv.AppendInt([]byte("fd/"), int64(fd), 10), 0)
	nameZ := unsafe.String(&name[0], len(name))
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd, nameZ[:len(nameZ)-1], &st, 0); err != nil {
		return "", 0, 0, processError("read", nameZ, p.PID, err)
	}
	b, err := p.readlink(nameZ)
	return string(b), uint64(st.Dev), st.Ino, err
}

// FDPipe reports whether one open descriptor is a pipe, named or not, which one, and whether it
// is open for reading and for writing, which the permissions of its link tell (proc_pid_fd(5)).
func (p *Process) FDPipe(fd int) (device, inode uint64, read, write, ok bool) {
	name := "fd/" + strconv.Itoa(fd)
	var link, file unix.Stat_t
	if unix.Fstatat(p.fd, name, &file, 0) != nil || file.Mode&unix.S_IFMT != unix.S_IFIFO ||
		unix.Fstatat(p.fd, name, &link, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0, 0, false, false, false
	}
	return uint64(file.Dev), file.Ino, link.Mode&0o400 != 0, link.Mode&0o200 != 0, true
}

// Maps calls fn with each memory mapping, in order of address. The Map is valid during the
// call, in which nothing else may be read. It needs ptrace rights over the process.
func (p *Process) Maps(fn func(m *Map)) error {
	var m Map
	return p.lines("maps\x00", func(line []byte) {
		if parseMap(line, &m) {
			fn(&m)
		}
	})
}

// Namespaces are the inode numbers of a process's namespaces (namespaces(7)); 0 is unknown,
// because the kernel is older than the namespace or the reader may not see it.
type Namespaces struct {
	Cgroup, IPC, Mnt, Net, PID, User, UTS uint64
}

// Namespaces reads the links in /proc/<pid>/ns. It is ErrGone for a zombie, which has
// none, and needs ptrace rights over the process.
func (p *Process) Namespaces(ns *Namespaces) error {
	*ns = Namespaces{}
	var first error
	for _, l := range [...]struct {
		name, nameZ string
		at          *uint64
	}{
		{"mnt", "ns/mnt\x00", &ns.Mnt},
		{"net", "ns/net\x00", &ns.Net},
		{"pid", "ns/pid\x00", &ns.PID},
		{"user", "ns/user\x00", &ns.User},
		{"uts", "ns/uts\x00", &ns.UTS},
		{"ipc", "ns/ipc\x00", &ns.IPC},
		{"cgroup", "ns/cgroup\x00", &ns.Cgroup},
	} {
		n, err := p.namespace(l.name, l.nameZ)
		if err != nil && first == nil {
			first = err
		}
		*l.at = n
	}
	if *ns == (Namespaces{}) {
		return first
	}
	return nil
}

// NetNamespace reads one of Namespaces.
func (p *Process) NetNamespace() (uint64, error) { return p.namespace("net", "ns/net\x00") }

func (p *Process) namespace(name, nameZ string) (uint64, error) {
	b, err := p.readlink(nameZ)
	if err != nil {
		return 0, err
	}
	n, ok := parseBracketed(b, name)
	if !ok {
		return 0, fmt.Errorf("read %s namespace of process %d: %q is no namespace", name, p.PID, b)
	}
	return n, nil
}

// HasThread reports whether the process pid has a thread tid now (/proc/PID/task, proc(5)).
func (fs FS) HasThread(pid, tid uint32) bool {
	_, err := os.Lstat(fmt.Sprintf("%s/%d/task/%d", fs.Proc, pid, tid))
	return err == nil
}
