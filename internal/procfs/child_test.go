package procfs

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// child is a process to be looked at: a copy of this test program that does what its mode
// says, reports, and waits.
type child struct {
	name  string   // of the executable; a copy is made in a new directory
	args  []string // without the two that make it a child
	mode  string
	env   []string
	dir   string
	files []*os.File // descriptors 3 and up
	attr  *syscall.SysProcAttr

	// What start sets.
	*os.Process
	path   string
	argv   []string
	report map[string]int
	stdin  *os.File
}

const childMode = "GOSHAWK_TEST_CHILD"

func (c *child) start(t *testing.T) *child {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if c.path == "" {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.path = filepath.Join(dir, c.name)
	}
	if err := os.WriteFile(c.path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	r, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	c.argv = append([]string{"argv zero", "-test.run=^TestChildProcess$"}, c.args...)
	c.env = append([]string{childMode + "=" + c.mode}, c.env...)
	c.Process, err = os.StartProcess(c.path, c.argv, &os.ProcAttr{
		Dir: c.dir, Env: c.env, Files: append([]*os.File{r, w, os.Stderr}, c.files...), Sys: c.attr,
	})
	r.Close()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	t.Cleanup(func() {
		c.Kill()
		c.Wait()
		stdin.Close()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("child %s says %q: %v", c.mode, line, err)
	}
	if err := json.Unmarshal(line, &c.report); err != nil {
		t.Fatalf("child %s says %q: %v", c.mode, line, err)
	}
	return c
}

// TestChildProcess is what a child runs; it tests nothing itself.
func TestChildProcess(t *testing.T) {
	mode, isChild := os.LookupEnv(childMode)
	if !isChild {
		return
	}
	report := map[string]int{}
	switch mode {
	case "wait":
	case "write":
		f, err := os.Create(os.Args[2])
		check(t, err)
		_, err = f.Write(make([]byte, 1<<20))
		check(t, err)
		check(t, f.Sync())
	case "map":
		f, err := os.Open(os.Args[2])
		check(t, err)
		b, err := unix.Mmap(int(f.Fd()), 4096, 8192, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
		check(t, err)
		report["length"] = len(b)
	case "remount": // executes itself from a file system that only it sees
		check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		check(t, unix.Mount("child", os.Args[2], "tmpfs", 0, ""))
		self, err := os.ReadFile("/proc/self/exe")
		check(t, err)
		path := filepath.Join(os.Args[2], "hidden")
		check(t, os.WriteFile(path, self, 0o755))
		check(t, unix.Exec(path, os.Args, []string{childMode + "=wait"}))
	case "sockets":
		openSockets(t, report)
	default:
		t.Fatalf("no mode %q", mode)
	}
	line, err := json.Marshal(report)
	check(t, err)
	os.Stdout.Write(append(line, '\n'))
	io.Copy(io.Discard, os.Stdin)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openSockets opens a socket of each sort that a plain user may, and of the others if it
// is root, and reports descriptors, inodes and ports.
func openSockets(t *testing.T, report map[string]int) {
	open := func(name string, family, kind, protocol int, bind unix.Sockaddr) int {
		fd, err := unix.Socket(family, kind, protocol)
		check(t, err)
		if bind != nil {
			check(t, unix.Bind(fd, bind))
		}
		var st unix.Stat_t
		check(t, unix.Fstat(fd, &st))
		report[name+" fd"], report[name] = fd, int(st.Ino)
		switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
		case *unix.SockaddrInet4:
			report[name+" port"] = sa.Port
		case *unix.SockaddrInet6:
			report[name+" port"] = sa.Port
		}
		return fd
	}
	any4, any6 := &unix.SockaddrInet4{}, &unix.SockaddrInet6{}
	check(t, unix.Listen(open("tcp", unix.AF_INET, unix.SOCK_STREAM, 0, any4), 1))
	check(t, unix.Listen(open("tcp6", unix.AF_INET6, unix.SOCK_STREAM, 0, any6), 1))
	open("udp", unix.AF_INET, unix.SOCK_DGRAM, 0, any4)
	open("udp6", unix.AF_INET6, unix.SOCK_DGRAM, 0, any6)
	open("unix", unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: os.Args[2]})
	open("abstract", unix.AF_UNIX, unix.SOCK_DGRAM, 0, &unix.SockaddrUnix{Name: os.Args[3]})
	open("unnamed", unix.AF_UNIX, unix.SOCK_STREAM, 0, nil)
	open("netlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if os.Getuid() == 0 {
		open("raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP, nil)
		open("raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_UDP, nil)
		open("packet", unix.AF_PACKET, unix.SOCK_RAW, 0xcc88, nil) // LLDP, 0x88cc in network order
	}
}

// open opens /proc and the process numbered pid.
func openProcess(t *testing.T, pid int) (*Dir, *Process) {
	t.Helper()
	d, err := At("/").Open()
	check(t, err)
	t.Cleanup(func() { d.Close() })
	p, err := d.Process(pid)
	check(t, err)
	return d, p
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces and to read processes of others")
	}
}
