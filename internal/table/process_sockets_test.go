package table

import (
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// childSocketRows are the rows of a child's sockets in process_open_sockets, by name.
func childSocketRows(t *testing.T, c *processChild, path string) map[string]map[string]string {
	t.Helper()
	ns := rowsWhere(t, "process_namespaces", c.Pid)[0]["net_namespace"]
	row := func(name, fd, family, protocol, address, path, state string) map[string]string {
		return map[string]string{
			"pid": strconv.Itoa(c.Pid), "fd": strconv.Itoa(c.report[fd]), "socket": strconv.Itoa(c.report[name]),
			"family": family, "protocol": protocol, "local_address": address, "remote_address": address,
			"local_port": strconv.Itoa(c.report[name+" port"]), "remote_port": "0", "path": path, "state": state, "net_namespace": ns,
		}
	}
	want := map[string]map[string]string{
		"tcp":       row("tcp", "tcp fd", "2", "6", "0.0.0.0", "", "LISTEN"),
		"tcp again": row("tcp", "second fd", "2", "6", "0.0.0.0", "", "LISTEN"),
		"udp6":      row("udp6", "udp6 fd", "10", "17", "::", "", ""),
		"unix":      row("unix", "unix fd", "1", "0", "", path, ""),
		"unnamed":   row("unnamed", "unnamed fd", "1", "0", "", "", ""),
	}
	if os.Getuid() == 0 {
		want["packet"] = row("packet", "packet fd", "17", "0", "", "", "NONE")
	}
	return want
}

func sortedByFD(rows map[string]map[string]string) []map[string]string {
	var out []map[string]string
	for _, r := range rows {
		out = append(out, r)
	}
	return byFD(out)
}

func byFD(rows []map[string]string) []map[string]string {
	sort.Slice(rows, func(i, j int) bool {
		a, _ := strconv.Atoi(rows[i]["fd"])
		b, _ := strconv.Atoi(rows[j]["fd"])
		return a < b
	})
	return rows
}

// listening is the row of listening_ports for one of process_open_sockets.
func listening(open map[string]string) map[string]string {
	row := map[string]string{}
	for column, from := range map[string]string{
		"pid": "pid", "port": "local_port", "protocol": "protocol", "family": "family", "address": "local_address",
		"fd": "fd", "socket": "socket", "path": "path", "net_namespace": "net_namespace",
	} {
		row[column] = open[from]
	}
	return row
}

func TestProcessSocketRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a name")
	testProcessSockets(t, (&processChild{name: "child", mode: "sockets", args: []string{path}}).start(t), path)
}

func TestProcessSocketRowsInAnotherNamespace(t *testing.T) {
	needRootForProcesses(t)
	path := filepath.Join(t.TempDir(), "a name")
	c := (&processChild{
		name: "child", mode: "sockets", args: []string{path},
		attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET},
	}).start(t)
	testProcessSockets(t, c, path)
	own := rowsWhere(t, "process_namespaces", os.Getpid())[0]["net_namespace"]
	for _, r := range rowsWhere(t, "process_open_sockets", c.Pid) {
		if r["net_namespace"] == own {
			t.Errorf("in our namespace: %v", r)
		}
	}
}

func testProcessSockets(t *testing.T, c *processChild, path string) {
	t.Helper()
	named := childSocketRows(t, c, path)
	want := sortedByFD(named)
	if d := cmp.Diff(want, byFD(rowsWhere(t, "process_open_sockets", c.Pid))); d != "" {
		t.Errorf("rows by pid (-want +got):\n%s", d)
	}
	pid := strconv.Itoa(c.Pid)
	if d := cmp.Diff(want, byFD(only(rowsWhere(t, "process_open_sockets"), "pid", pid))); d != "" {
		t.Errorf("rows of all processes (-want +got):\n%s", d)
	}
	var ports []map[string]string
	for name, r := range named {
		if name != "unnamed" {
			l := listening(r)
			if name == "unix" {
				l["socket"] = "0"
			}
			ports = append(ports, l)
		}
	}
	if d := cmp.Diff(byFD(ports), byFD(only(rowsWhere(t, "listening_ports"), "pid", pid))); d != "" {
		t.Errorf("listening ports (-want +got):\n%s", d)
	}
}

// Two processes that share a socket both have it, whether asked for or not.
func TestSharedSocket(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 1))
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	inode := strconv.FormatUint(st.Ino, 10)
	c := (&processChild{name: "child", mode: "wait", files: []*os.File{f}}).start(t)
	for _, table := range []string{"process_open_sockets", "listening_ports"} {
		got := map[string]string{}
		for _, r := range only(rowsWhere(t, table), "socket", inode) {
			got[r["pid"]] = r["fd"]
		}
		want := map[string]string{strconv.Itoa(c.Pid): "3", strconv.Itoa(os.Getpid()): strconv.Itoa(fd)}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: holders (-want +got):\n%s", table, d)
		}
	}
	if rows := only(rowsWhere(t, "process_open_sockets", c.Pid), "socket", inode); len(rows) != 1 || rows[0]["fd"] != "3" || rows[0]["local_address"] != "127.0.0.1" {
		t.Errorf("the child's socket is %v", rows)
	}
}

// A connection is no listening port; without its process it has pid -1.
func TestConnectedAndUnheldSockets(t *testing.T) {
	listener, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(listener)
	must(t, unix.Bind(listener, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}))
	must(t, unix.Listen(listener, 1))
	at, err := unix.Getsockname(listener)
	must(t, err)
	client, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Connect(client, at))
	var st unix.Stat_t
	must(t, unix.Fstat(client, &st))
	inode := strconv.FormatUint(st.Ino, 10)
	port := strconv.Itoa(at.(*unix.SockaddrInet6).Port)

	rows := only(rowsWhere(t, "process_open_sockets", os.Getpid()), "socket", inode)
	if len(rows) != 1 || rows[0]["state"] != "ESTABLISHED" || rows[0]["remote_address"] != "::1" || rows[0]["remote_port"] != port || rows[0]["local_port"] == "0" {
		t.Errorf("the connection is %v", rows)
	}
	if rows := only(rowsWhere(t, "listening_ports"), "socket", inode); rows != nil {
		t.Errorf("a connection listens: %v", rows)
	}

	// The server's end has not been accepted: it exists, and no process holds it.
	unheld := func(rows []map[string]string) []map[string]string {
		return only(only(only(rows, "local_port", port), "state", "ESTABLISHED"), "family", "10")
	}
	for name, rows := range map[string][]map[string]string{
		"all": rowsWhere(t, "process_open_sockets"),
		"-1":  rowsWhere(t, "process_open_sockets", -1),
	} {
		if rows := unheld(rows); len(rows) != 1 || rows[0]["pid"] != "-1" || rows[0]["fd"] != "-1" {
			t.Errorf("%s: the connection that was not accepted is %v", name, rows)
		}
	}
	if rows := unheld(rowsWhere(t, "process_open_sockets", os.Getpid())); rows != nil {
		t.Errorf("asked by pid, a socket that nobody holds is %v", rows)
	}
	unix.Close(client)
}

// A process may hold a socket of a namespace in which it is not.
func TestSocketOfAnotherNamespace(t *testing.T) {
	needRootForProcesses(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	c := (&processChild{name: "child", mode: "wait", files: []*os.File{f}, attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}}).start(t)
	own := rowsWhere(t, "process_namespaces", os.Getpid())[0]["net_namespace"]
	rows := only(rowsWhere(t, "process_open_sockets", c.Pid), "socket", strconv.FormatUint(st.Ino, 10))
	if len(rows) != 1 || rows[0]["fd"] != "3" || rows[0]["net_namespace"] != own || rows[0]["local_address"] != "127.0.0.1" {
		t.Errorf("the socket is %v, want it in namespace %s", rows, own)
	}
}
