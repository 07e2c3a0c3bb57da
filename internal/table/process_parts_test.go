package table

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestProcessEnvRows(t *testing.T) {
	c := (&processChild{name: "child", mode: "wait", env: []string{"ODD=a=b\nc", "NOEQUALS", "", "=x", "EMPTY=", "LAST=\xff"}}).start(t)
	pid := strconv.Itoa(c.Pid)
	want := []map[string]string{
		{"pid": pid, "key": "GOSHAWK_TEST_CHILD", "value": "wait"},
		{"pid": pid, "key": "ODD", "value": "a=b\nc"},
		{"pid": pid, "key": "NOEQUALS", "value": "NOEQUALS"},
		{"pid": pid, "key": "", "value": "x"},
		{"pid": pid, "key": "EMPTY", "value": ""},
		{"pid": pid, "key": "LAST", "value": "\xff"},
	}
	if d := cmp.Diff(want, rowsWhere(t, "process_envs", c.Pid)); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, only(rowsWhere(t, "process_envs"), "pid", pid)); d != "" {
		t.Errorf("rows of all processes (-want +got):\n%s", d)
	}
}

func TestProcessOpenFileRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe:[1] socket:[2] anon_inode:x")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	gone, err := os.CreateTemp(t.TempDir(), "gone")
	must(t, err)
	defer gone.Close()
	must(t, os.Remove(gone.Name()))
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	sf := os.NewFile(uintptr(sock), "socket")
	defer sf.Close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must(t, err)
	ef := os.NewFile(uintptr(epoll), "epoll")
	defer ef.Close()
	c := (&processChild{name: "child", mode: "wait", files: []*os.File{f, gone, null, sf, ef}}).start(t)
	pid := strconv.Itoa(c.Pid)
	var got []map[string]string
	for _, r := range rowsWhere(t, "process_open_files", c.Pid) {
		if n, _ := strconv.Atoi(r["fd"]); n >= 3 && n <= 7 {
			got = append(got, r)
		}
	}
	want := []map[string]string{
		{"pid": pid, "fd": "3", "path": path},
		{"pid": pid, "fd": "4", "path": gone.Name() + " (deleted)"},
		{"pid": pid, "fd": "5", "path": "/dev/null"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
}

func TestProcessMemoryMapRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mapped file")
	must(t, os.WriteFile(path, make([]byte, 16384), 0o755))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	c := (&processChild{name: "child", mode: "map", args: []string{path}}).start(t)
	inode := strconv.FormatUint(st.Ino, 10)
	look := func(deleted string) {
		t.Helper()
		rows := rowsWhere(t, "process_memory_map", c.Pid)
		got := only(rows, "inode", inode)
		if len(got) != 1 {
			t.Fatalf("%d rows", len(got))
		}
		start, err1 := strconv.ParseUint(strings.TrimPrefix(got[0]["start"], "0x"), 16, 64)
		end, err2 := strconv.ParseUint(strings.TrimPrefix(got[0]["end"], "0x"), 16, 64)
		if err1 != nil || err2 != nil || end-start != 8192 || !strings.HasPrefix(got[0]["start"], "0x") {
			t.Errorf("from %s to %s, want 8192 bytes", got[0]["start"], got[0]["end"])
		}
		want := map[string]string{
			"pid": strconv.Itoa(c.Pid), "start": got[0]["start"], "end": got[0]["end"], "permissions": "r-xs", "offset": "4096",
			"device": fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), "inode": inode, "path": path,
			"pseudo": "0", "deleted": deleted,
		}
		if d := cmp.Diff(want, got[0]); d != "" {
			t.Errorf("row (-want +got):\n%s", d)
		}
		stack := only(rows, "path", "[stack]")
		if len(stack) != 1 || stack[0]["pseudo"] != "1" || stack[0]["inode"] != "0" || stack[0]["deleted"] != "0" {
			t.Errorf("stack is %v", stack)
		}
		if anonymous := only(rows, "path", ""); len(anonymous) == 0 || anonymous[0]["pseudo"] != "0" {
			t.Errorf("memory without a name is %v", anonymous)
		}
	}
	look("0")
	must(t, os.Remove(path))
	look("1")
}

func TestProcessHexAddress(t *testing.T) {
	for in, want := range map[uint64]string{
		0: "0x00000000", 0x400000: "0x00400000", 0x7ffd12345000: "0x7ffd12345000", 0xffffffffff600000: "0xffffffffff600000",
	} {
		if got := hexAddress(in).Text(); got != want {
			t.Errorf("hexAddress(%#x) = %q, want %q", in, got, want)
		}
	}
}

func TestProcessNamespaceRows(t *testing.T) {
	c := &processChild{name: "child", mode: "wait"}
	if os.Getuid() == 0 {
		c.attr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	}
	c.start(t)
	inode := func(name string) string {
		var st unix.Stat_t
		must(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.Pid, name), &st))
		return strconv.FormatUint(st.Ino, 10)
	}
	want := []map[string]string{{
		"pid": strconv.Itoa(c.Pid), "cgroup_namespace": inode("cgroup"), "ipc_namespace": inode("ipc"), "mnt_namespace": inode("mnt"),
		"net_namespace": inode("net"), "pid_namespace": inode("pid"), "user_namespace": inode("user"), "uts_namespace": inode("uts"),
	}}
	if d := cmp.Diff(want, rowsWhere(t, "process_namespaces", c.Pid)); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}
	own := rowsWhere(t, "process_namespaces", os.Getpid())
	if different := own[0]["uts_namespace"] != want[0]["uts_namespace"]; different != (os.Getuid() == 0) {
		t.Errorf("own namespaces %v, the child's %v", own, want)
	}
}

// A pipe has its two ends in two processes, whichever way it is called.
func TestProcessOpenPipeRows(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	named, err := os.OpenFile(fifo, os.O_RDWR, 0)
	must(t, err)
	defer named.Close()
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	defer writer.Close()
	// Its descriptors 3 and 4.
	c := (&processChild{name: "child", mode: "wait", files: []*os.File{writer, named}}).start(t)
	pid, own := strconv.Itoa(c.Pid), strconv.Itoa(os.Getpid())
	row := func(fd, mode string, inode uint64, kind string, f *os.File, otherMode string) map[string]string {
		return map[string]string{"pid": pid, "fd": fd, "mode": mode, "inode": fmt.Sprint(inode), "type": kind,
			"partner_pid": own, "partner_fd": fmt.Sprint(f.Fd()), "partner_mode": otherMode}
	}
	inode := func(f *os.File) uint64 {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		return st.Ino
	}
	for _, want := range []map[string]string{
		row("3", "w", inode(reader), "anonymous", reader, "r"), row("4", "rw", inode(named), "named", named, "rw"),
	} {
		found := 0
		for _, r := range only(rowsWhere(t, "process_open_pipes"), "pid", pid) {
			if r["fd"] == want["fd"] && r["partner_fd"] == want["partner_fd"] && r["partner_pid"] == own {
				found++
				if d := cmp.Diff(want, r); d != "" {
					t.Errorf("row (-want +got):\n%s", d)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d rows of descriptor %s", found, want["fd"])
		}
	}
}
