package table

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// processChild is a process to be looked at: a copy of this test program that does what
// its mode says, reports, and waits.
type processChild struct {
	name  string // of the executable; a copy is made in a new directory
	mode  string
	args  []string // without the two that make it a child
	env   []string
	dir   string
	files []*os.File // descriptors 3 and up
	attr  *syscall.SysProcAttr

	// What start sets.
	*os.Process
	path   string
	report map[string]int
}

const processChildMode = "GOSHAWK_TEST_CHILD"

func (c *processChild) start(t *testing.T) *processChild {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	c.path = filepath.Join(t.TempDir(), c.name)
	must(t, os.WriteFile(c.path, self, 0o755))
	r, stdin, err := os.Pipe()
	must(t, err)
	stdout, w, err := os.Pipe()
	must(t, err)
	defer stdout.Close()
	c.Process, err = os.StartProcess(c.path, append([]string{"argv zero", "-test.run=^TestProcessChild$"}, c.args...), &os.ProcAttr{
		Dir: c.dir, Env: append([]string{processChildMode + "=" + c.mode}, c.env...),
		Files: append([]*os.File{r, w, os.Stderr}, c.files...), Sys: c.attr,
	})
	r.Close()
	w.Close()
	must(t, err)
	t.Cleanup(func() {
		c.Kill()
		c.Wait()
		stdin.Close()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("child %s says %q: %v", c.mode, line, err)
	}
	must(t, json.Unmarshal(line, &c.report))
	return c
}

// TestProcessChild is what a child runs; it tests nothing itself.
func TestProcessChild(t *testing.T) {
	mode, isChild := os.LookupEnv(processChildMode)
	if !isChild {
		return
	}
	report := map[string]int{}
	switch mode {
	case "wait":
	case "map":
		f, err := os.Open(os.Args[2])
		must(t, err)
		_, err = unix.Mmap(int(f.Fd()), 4096, 8192, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
		must(t, err)
	case "remount": // executes itself from a file system that only it sees
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(t, unix.Mount("child", os.Args[2], "tmpfs", 0, ""))
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		path := filepath.Join(os.Args[2], "hidden")
		must(t, os.WriteFile(path, self, 0o755))
		must(t, unix.Exec(path, os.Args, []string{processChildMode + "=wait"}))
	case "sockets":
		openChildSockets(t, report)
	default:
		t.Fatalf("no mode %q", mode)
	}
	line, err := json.Marshal(report)
	must(t, err)
	os.Stdout.Write(append(line, '\n'))
	io.Copy(io.Discard, os.Stdin)
}

// openChildSockets opens sockets and reports their descriptors, inodes and ports.
func openChildSockets(t *testing.T, report map[string]int) {
	open := func(name string, family, kind int, bind unix.Sockaddr) int {
		fd, err := unix.Socket(family, kind, 0)
		must(t, err)
		if bind != nil {
			must(t, unix.Bind(fd, bind))
		}
		var st unix.Stat_t
		must(t, unix.Fstat(fd, &st))
		report[name+" fd"], report[name] = fd, int(st.Ino)
		switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
		case *unix.SockaddrInet4:
			report[name+" port"] = sa.Port
		case *unix.SockaddrInet6:
			report[name+" port"] = sa.Port
		}
		return fd
	}
	tcp := open("tcp", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{})
	must(t, unix.Listen(tcp, 1))
	report["second fd"] = must1(unix.Dup(tcp))(t)
	open("udp6", unix.AF_INET6, unix.SOCK_DGRAM, &unix.SockaddrInet6{})
	open("unix", unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: os.Args[2]})
	open("unnamed", unix.AF_UNIX, unix.SOCK_STREAM, nil)
	if os.Getuid() == 0 {
		open("packet", unix.AF_PACKET, unix.SOCK_RAW, nil)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// processTable returns the table called name over this host's /proc.
func processTable(t *testing.T, name string) schema.Relation {
	t.Helper()
	for _, r := range processTables(&Env{FS: procfs.At("/")}) {
		if r.Def().Name == name {
			return r
		}
	}
	t.Fatalf("no table %s", name)
	return nil
}

// rowsWhere scans the table called name with pid constrained to pids, if any are given,
// and returns all columns as text, NULL as "NULL".
func rowsWhere(t *testing.T, name string, pids ...int) []map[string]string {
	t.Helper()
	r := processTable(t, name)
	q := &schema.Query{Warn: func(s string) { t.Logf("warning: %s", s) }}
	if len(pids) > 0 {
		c := schema.Constraint{Column: r.Def().Column("pid"), Op: schema.In}
		for _, pid := range pids {
			c.Values = append(c.Values, schema.IntValue(int64(pid)))
		}
		q.Constraints = append(q.Constraints, c)
	}
	return rowsFor(t, r, q)
}

func rowsFor(t *testing.T, r schema.Relation, q *schema.Query) []map[string]string {
	t.Helper()
	cursor, err := r.Open(context.Background(), q)
	must(t, err)
	defer cursor.Close()
	var rows []map[string]string
	for {
		more, err := cursor.Next()
		must(t, err)
		if !more {
			return rows
		}
		row := map[string]string{}
		for i, c := range r.Def().Columns {
			v := cursor.Value(i)
			row[c.Name] = v.Text()
			if v.IsNull() {
				row[c.Name] = "NULL"
			}
		}
		rows = append(rows, row)
	}
}

// only keeps the rows whose column has the value.
func only(rows []map[string]string, column, value string) []map[string]string {
	var kept []map[string]string
	for _, r := range rows {
		if r[column] == value {
			kept = append(kept, r)
		}
	}
	return kept
}

func needRootForProcesses(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make namespaces and packet sockets")
	}
}
