package table

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// The columns of osquery 5.23.1 in the notation of its compatibility notes: T text,
// I integer, B bigint; i index, o optimized, a additional; after ‖ hidden.
var processSchemas = map[string]string{
	"processes": "pid:B[io], name:T, path:T, cmdline:T, state:T, cwd:T, root:T, uid:B, gid:B, euid:B, egid:B, suid:B, sgid:B, on_disk:I, wired_size:B, resident_size:B, total_size:B, user_time:B, system_time:B, disk_bytes_read:B, disk_bytes_written:B, start_time:B, parent:B, pgroup:B, threads:I, nice:I, cgroup_path:T" +
		" ‖ elevated_token:I, secure_process:I, protection_type:T, virtual_process:I, elapsed_time:B, handle_count:B, percent_processor_time:B, upid:B, uppid:B, cpu_type:I, cpu_subtype:I, translated:I",
	"process_envs":         "pid:I[io], key:T, value:T",
	"process_open_pipes":   "pid:B, fd:B, mode:T, inode:B, type:T, partner_pid:B, partner_fd:B, partner_mode:T",
	"process_open_files":   "pid:B[i], fd:B, path:T",
	"process_memory_map":   "pid:I[io], start:T, end:T, permissions:T, offset:B, device:T, inode:I, path:T, pseudo:I ‖ deleted:I",
	"process_namespaces":   "pid:I[io], cgroup_namespace:T, ipc_namespace:T, mnt_namespace:T, net_namespace:T, pid_namespace:T, user_namespace:T, uts_namespace:T",
	"process_open_sockets": "pid:I[a], fd:B, socket:B, family:I, protocol:I, local_address:T, remote_address:T, local_port:I, remote_port:I, path:T, state:T, net_namespace:T",
	"listening_ports":      "pid:I, port:I, protocol:I, family:I, address:T, fd:B, socket:B, path:T, net_namespace:T",
}

func TestProcessSchemas(t *testing.T) {
	got := map[string]string{}
	for _, r := range processTables(&Env{FS: procfs.At("/")}) {
		var b strings.Builder
		hidden := false
		for i, c := range r.Def().Columns {
			switch {
			case c.Has(schema.Hidden) && !hidden:
				hidden = true
				b.WriteString(" ‖ ")
			case c.Has(schema.Hidden) != hidden:
				t.Errorf("%s: %s is visible after hidden columns", r.Def().Name, c.Name)
			case i > 0:
				b.WriteString(", ")
			}
			b.WriteString(c.Name + ":" + map[schema.Type]string{schema.Text: "T", schema.Integer: "I", schema.BigInt: "B"}[c.Type])
			flags := ""
			for _, f := range []struct {
				flag   schema.Flag
				letter string
			}{{schema.Additional, "a"}, {schema.Index, "i"}, {schema.Optimized, "o"}, {schema.Required, "!"}} {
				if c.Has(f.flag) {
					flags += f.letter
				}
			}
			if flags != "" {
				b.WriteString("[" + flags + "]")
			}
			if c.Doc == "" || strings.HasSuffix(c.Doc, ".") {
				t.Errorf("%s.%s is described as %q", r.Def().Name, c.Name, c.Doc)
			}
		}
		got[r.Def().Name] = b.String()
	}
	if d := cmp.Diff(processSchemas, got); d != "" {
		t.Errorf("tables (-want +got):\n%s", d)
	}
}

func TestProcessRow(t *testing.T) {
	cwd := t.TempDir()
	before := time.Now().Unix()
	c := (&processChild{name: "a) S 0 (\nb\\\xff c d", mode: "wait", args: []string{"a b", "", "c\nd", " "}, dir: cwd}).start(t)
	after := time.Now().Unix()
	must(t, unix.Setpriority(unix.PRIO_PROCESS, c.Pid, 5))
	rows := rowsWhere(t, "processes", c.Pid)
	if len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	got := rows[0]

	// What differs from run to run is checked here and taken out of the row.
	number := func(column string, least, most int64) {
		t.Helper()
		n, err := strconv.ParseInt(got[column], 10, 64)
		if err != nil || n < least || n > most {
			t.Errorf("%s is %q, want a number from %d to %d", column, got[column], least, most)
		}
		delete(got, column)
	}
	number("start_time", before-2, after+1) // osquery's sum of whole seconds may be one less
	number("resident_size", 1<<20, 1<<30)
	number("total_size", 1<<20, 1<<40)
	number("user_time", 0, 10_000)
	number("system_time", 0, 10_000)
	number("disk_bytes_read", 0, 1<<30)
	number("disk_bytes_written", 0, 1<<20)
	number("threads", 1, 100)
	if !strings.Contains("RSD", got["state"]) || got["state"] == "" {
		t.Errorf("state is %q", got["state"])
	}
	delete(got, "state")

	id := strconv.Itoa
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	line, _, _ := strings.Cut(string(cgroup), "\n")
	want := map[string]string{
		"pid": id(c.Pid), "name": "a) S 0 (\nb\\\xff c ", "path": c.path,
		"cmdline": "argv zero -test.run=^TestProcessChild$ a b  c\nd",
		"cwd":     cwd, "root": "/",
		"uid": id(os.Getuid()), "gid": id(os.Getgid()), "euid": id(os.Getuid()), "egid": id(os.Getgid()),
		"suid": id(os.Getuid()), "sgid": id(os.Getgid()), "on_disk": "1", "wired_size": "0",
		"parent": id(os.Getpid()), "pgroup": id(unix.Getpgrp()), "nice": "5",
		"cgroup_path":    strings.SplitN(line, ":", 3)[2],
		"elevated_token": "NULL", "secure_process": "NULL", "protection_type": "", "virtual_process": "NULL",
		"elapsed_time": "NULL", "handle_count": "NULL", "percent_processor_time": "NULL",
		"upid": "NULL", "uppid": "NULL", "cpu_type": "NULL", "cpu_subtype": "NULL", "translated": "NULL",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("row (-want +got):\n%s", d)
	}
}

func TestProcessTimesAndIdentities(t *testing.T) {
	r := &process{
		stat:   procfs.Stat{UserTicks: 150, SysTicks: 75, Virtual: 4096, Resident: 3},
		status: procfs.Status{UID: 1, EUID: 2, SUID: 3, GID: 4, EGID: 5, SGID: 4294967295},
		io:     procfs.IO{ReadBytes: 4096, WriteBytes: 100, CancelledWriteBytes: 300}, hasIO: true,
	}
	table := processes(procfs.At("/"))
	got := map[string]string{}
	for i := range table.Columns {
		switch c := &table.Columns[i]; c.Name {
		case "uid", "euid", "suid", "gid", "egid", "sgid", "user_time", "system_time", "total_size", "resident_size", "disk_bytes_read", "disk_bytes_written":
			got[c.Name] = c.Value(r).Text()
		}
	}
	want := map[string]string{
		"uid": "1", "euid": "2", "suid": "3", "gid": "4", "egid": "5", "sgid": "4294967295",
		"user_time": "1500", "system_time": "750", "total_size": "4096", "resident_size": strconv.Itoa(3 * os.Getpagesize()),
		"disk_bytes_read": "4096", "disk_bytes_written": "-200",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("cells (-want +got):\n%s", d)
	}
}

func TestProcessOnDisk(t *testing.T) {
	look := func(pid int, path, onDisk string) {
		t.Helper()
		rows := rowsWhere(t, "processes", pid)
		if len(rows) != 1 || rows[0]["path"] != path || rows[0]["on_disk"] != onDisk {
			t.Errorf("got %v, want path %q and on_disk %s", rows, path, onDisk)
		}
	}
	c := (&processChild{name: "prog (deleted)", mode: "wait"}).start(t)
	look(c.Pid, c.path, "1")
	must(t, os.Remove(c.path))
	look(c.Pid, c.path, "0")
	must(t, c.Kill())
	for range 500 { // a zombie has no executable
		if rowsWhere(t, "processes", c.Pid)[0]["state"] == "Z" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	look(c.Pid, "", "-1")
	if row := rowsWhere(t, "processes", c.Pid)[0]; row["resident_size"] != "NULL" || row["total_size"] != "NULL" || row["cmdline"] != "" || row["cwd"] != "" {
		t.Errorf("a zombie has %v", row)
	}
	c.Wait()
	if rows := rowsWhere(t, "processes", c.Pid); rows != nil {
		t.Errorf("a process that is gone has %v", rows)
	}
}

func TestProcessOnDiskInAnotherMountNamespace(t *testing.T) {
	needRootForProcesses(t)
	dir := t.TempDir()
	c := (&processChild{name: "child", mode: "remount", args: []string{dir}, attr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}}).start(t)
	hidden := filepath.Join(dir, "hidden")
	if _, err := os.Stat(hidden); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s can be seen from here: %v", hidden, err)
	}
	if rows := rowsWhere(t, "processes", c.Pid); len(rows) != 1 || rows[0]["path"] != hidden || rows[0]["on_disk"] != "1" {
		t.Errorf("got %v, want path %q on disk", rows, hidden)
	}
}

// A thread is found by its number, as in osquery, but not listed.
func TestProcessThread(t *testing.T) {
	c := (&processChild{name: "child", mode: "wait"}).start(t)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.Pid))
	must(t, err)
	tid, err := strconv.Atoi(tasks[len(tasks)-1].Name())
	must(t, err)
	if tid == c.Pid {
		t.Fatal("the child has one thread")
	}
	if rows := rowsWhere(t, "processes", tid); len(rows) != 1 || rows[0]["pid"] != strconv.Itoa(tid) || rows[0]["path"] != c.path {
		t.Errorf("thread %d has %v", tid, rows)
	}
	all := rowsWhere(t, "processes")
	if rows := only(all, "pid", strconv.Itoa(tid)); rows != nil {
		t.Errorf("thread %d is listed: %v", tid, rows)
	}
	if rows := only(all, "pid", strconv.Itoa(c.Pid)); len(rows) != 1 {
		t.Errorf("process %d is listed %d times", c.Pid, len(rows))
	}
}

func TestProcessPidConstraints(t *testing.T) {
	r := processTable(t, "processes")
	pid, parent := os.Getpid(), os.Getppid()
	text := strconv.Itoa(pid)
	for _, c := range []struct {
		name   string
		values []schema.Value
		want   []string
	}{
		{"integer", []schema.Value{schema.IntValue(int64(pid))}, []string{text}},
		{"text", []schema.Value{schema.TextValue(text)}, []string{text}},
		{"whole float", []schema.Value{schema.FloatValue(float64(pid))}, []string{text}},
		{"fraction", []schema.Value{schema.FloatValue(float64(pid) + 0.5)}, nil},
		{"text that is no number", []schema.Value{schema.TextValue("self")}, nil},
		{"climbing", []schema.Value{schema.TextValue("../proc/" + text)}, nil},
		{"null", []schema.Value{schema.Null}, nil},
		{"none", []schema.Value{}, nil},
		{"twice", []schema.Value{schema.IntValue(int64(pid)), schema.TextValue(text)}, []string{text}},
		{"out of range", []schema.Value{schema.IntValue(int64(pid) + 1<<32), schema.IntValue(0), schema.IntValue(-1)}, nil},
		{"two", []schema.Value{schema.IntValue(int64(pid)), schema.IntValue(int64(parent))}, []string{strconv.Itoa(min(pid, parent)), strconv.Itoa(max(pid, parent))}},
	} {
		var got []string
		for _, row := range rowsFor(t, r, &schema.Query{Constraints: []schema.Constraint{{Column: 0, Op: schema.In, Values: c.values}}}) {
			got = append(got, row["pid"])
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// What a query does not use is not read.
func TestProcessColumnsUnused(t *testing.T) {
	r := processTable(t, "processes")
	used := make([]bool, len(r.Def().Columns))
	used[r.Def().Column("name")] = true
	row := rowsFor(t, r, &schema.Query{Used: used, Constraints: []schema.Constraint{{Column: 0, Op: schema.Eq, Value: schema.IntValue(int64(os.Getpid()))}}})[0]
	for column, want := range map[string]string{
		"name": filepath.Base(os.Args[0])[:min(15, len(filepath.Base(os.Args[0])))], "path": "", "cmdline": "", "cwd": "", "root": "",
		"cgroup_path": "", "disk_bytes_read": "NULL", "on_disk": "0",
	} {
		if row[column] != want {
			t.Errorf("%s is %q, want %q", column, row[column], want)
		}
	}
	used = make([]bool, len(r.Def().Columns))
	used[r.Def().Column("on_disk")] = true
	row = rowsFor(t, r, &schema.Query{Used: used, Constraints: []schema.Constraint{{Column: 0, Op: schema.Eq, Value: schema.IntValue(int64(os.Getpid()))}}})[0]
	if row["on_disk"] != "1" {
		t.Errorf("on_disk alone is %q", row["on_disk"])
	}
}

func TestProcessScanEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, r := range processTables(&Env{FS: procfs.At("/")}) {
		if _, err := r.Open(ctx, &schema.Query{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that the context ended", r.Def().Name, err)
		}
	}
}

func TestProcessCmdlineCutIsTold(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	c := (&processChild{name: "child", mode: "wait", args: []string{long, long, long}, env: []string{"L=" + long, "M=" + long, "N=" + long}}).start(t)
	for name, want := range map[string]string{
		"processes":    fmt.Sprintf("Table processes is incomplete: cmdline of process %d is cut at 262144 bytes", c.Pid),
		"process_envs": fmt.Sprintf("Table process_envs is incomplete: environment of process %d is cut at 262144 bytes", c.Pid),
	} {
		var got []string
		rowsFor(t, processTable(t, name), &schema.Query{
			Constraints: []schema.Constraint{{Column: 0, Op: schema.Eq, Value: schema.IntValue(int64(c.Pid))}},
			Warn:        func(s string) { got = append(got, s) },
		})
		if d := cmp.Diff([]string{want}, got); d != "" {
			t.Errorf("%s warns (-want +got):\n%s", name, d)
		}
	}
}

func TestJoinArgs(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"\x00":                      "",
		"a\x00b\x00":                "a b",
		"nginx: worker":             "nginx: worker",
		"\t a\x00\x00b \n\x00\x00":  "a  b",
		"\xff\x00":                  "\xff",
		"a\x00\v\f\r\x00":           "a",
		"\u00a0no-break space\x00a": "\u00a0no-break space a",
	} {
		if got := joinArgs([]byte(in)); got != want {
			t.Errorf("joinArgs(%q) = %q, want %q", in, got, want)
		}
	}
}

// A row costs itself and its strings.
func TestProcessAllocations(t *testing.T) {
	var pids []int
	for range 3 {
		pids = append(pids, (&processChild{name: "child", mode: "wait"}).start(t).Pid)
	}
	r := processTable(t, "processes")
	budget := func(column string, most float64) {
		t.Helper()
		used := make([]bool, len(r.Def().Columns))
		used[r.Def().Column(column)] = true
		scan := func(n int) float64 {
			q := &schema.Query{Used: used, Constraints: []schema.Constraint{{Column: 0, Op: schema.In}}}
			// The same scan of one process and of three parts the cost of a process
			// from that of a scan.
			for _, pid := range pids[:n] {
				q.Constraints[0].Values = append(q.Constraints[0].Values, schema.IntValue(int64(pid)))
			}
			return testing.AllocsPerRun(50, func() {
				if _, err := r.Open(context.Background(), q); err != nil {
					t.Fatal(err)
				}
			})
		}
		if got := (scan(3) - scan(1)) / 2; got > most {
			t.Errorf("%s costs %v allocations a process, want at most %v", column, got, most)
		}
	}
	budget("pid", 4) // the row, its name, and the lists of pids and rows that grow
	budget("cmdline", 5)
	budget("path", 5)
}
