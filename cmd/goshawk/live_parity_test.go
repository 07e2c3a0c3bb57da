package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// parityKinds are the kinds that the sources are compared by.
const parityKinds = "exec,fork,exit,connect,accept,bind,listen,close,file,user"

// anyValue are columns that differ between two runs of one source; only whether they are
// there is compared.
var anyValue = []string{
	"time", "ntime", "eid", "pid", "tid", "ppid", "process_id", "parent_process_id", "child_pid", "child_process_id", "child_ppid",
	"duration_ns", "user_time_ns", "system_time_ns", "max_rss_bytes", "local_port", "remote_port", "socket_cookie", "net_namespace",
	"leader_pid", "leader_process_id", "spawner_pid", "spawner_process_id", "cgroup_id", "ancestors", "session_id", "inode", "mtime_ns", "ctime_ns", "atime_ns",
}

// parityWork does, below dir, what both sources tell of, and returns what names each event:
// by pid of a child, or by port or path of a socket.
func parityWork(t *testing.T, dir string) (names map[string]string) {
	t.Helper()
	names = map[string]string{}
	start := func(name string, args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		names[fmt.Sprint(cmd.Process.Pid)] = name
		return cmd
	}
	many := []string{"/bin/echo"}
	for i := range 300 {
		many = append(many, fmt.Sprintf("argument %d", i))
	}
	for name, args := range map[string][]string{
		"program": {"/bin/true", "two words", "\xff"}, "many arguments": many, "long argument": {"/bin/true", strings.Repeat("x y ", 5000)},
		"script": {"./script", "one"}, "relative": {"./sub/../link", "x"}, "failure": {"/bin/sh", "-c", "exit 3"},
	} {
		start(name, args...).Wait()
	}
	killed := start("killed", "/bin/sleep", "60")
	killed.Process.Kill()
	killed.Wait()

	for _, network := range []string{"tcp4", "tcp6", "unix"} {
		address := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(dir, "socket")}[network]
		server, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		address = server.Addr().String()
		port := address[strings.LastIndexByte(address, ':')+1:]
		names[port] = network
		client, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		if own := client.LocalAddr().String(); network != "unix" {
			names[own[strings.LastIndexByte(own, ':')+1:]] = network
		}
		peer, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
		peer.Close()
		server.Close()
		if client, err := net.Dial(network, address); err == nil {
			client.Close()
			t.Fatalf("%s answers after its server is closed", address)
		}
	}
	logins, err := filepath.Abs("testdata/logins.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"files":  {"/bin/sh", "-ec", parityFiles},
		"logins": {"unshare", "-m", "--propagation", "private", "sh", logins, dir},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setsid: true}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	time.Sleep(300 * time.Millisecond)
	return names
}

// parityFiles changes files that are watched. What a source looks up afterwards it has the time for.
const parityFiles = `cd watched
echo x > new
sleep 0.2
chmod 640 new
sleep 0.2
chown 12:13 new
sleep 0.2
mv new moved
ln moved linked
ln -s elsewhere symbolic
truncate -s 100 linked
sleep 0.2
mkdir sub
sleep 0.2
rmdir sub
rm linked`

// marked are the programs that users start in testdata/logins.sh, by their last argument.
var marked = regexp.MustCompile(`^\["/bin/true","(by [a-z]+)"\]$`)

// onTerminal is a terminal that another run would have another number of.
var onTerminal = regexp.MustCompile(`pts/\d+`)

// parityRows runs the work under a source and returns its rows by what they tell of, each
// a column's JSON by its name.
func parityRows(t *testing.T, source string) map[string]map[string]string {
	t.Helper()
	// Where the user that logs in finds its shell.
	dir, err := os.MkdirTemp("", "goshawk-parity-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh -e\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"sub", "watched"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/bin/true", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", parityKinds, "--source", source, "--watch", dir+"/watched/%%")
	names := parityWork(t, dir)
	if code, stderr := l.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	f, err := os.Open(l.out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := map[string]map[string]string{}
	add := func(name string, row map[string]string) {
		if rows[name] != nil {
			t.Errorf("%s tells twice of %s", source, name)
		}
		rows[name] = row
	}
	self := fmt.Sprint(os.Getpid())
	for d := json.NewDecoder(f); ; {
		var raw map[string]json.RawMessage
		if err := d.Decode(&raw); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		row := map[string]string{}
		for column, value := range raw {
			// The directory's name and numbers of terminals are of this run.
			row[column] = onTerminal.ReplaceAllString(string(bytes.ReplaceAll(value, []byte(dir), []byte("DIR"))), "pts/N")
		}
		kind := strings.Trim(row["kind"], `"`)
		if m := marked.FindStringSubmatch(row["args"]); kind == "exec" && m != nil {
			names[row["pid"]] = m[1]
		}
		switch {
		case kind == "file":
			name, watched := strings.CutPrefix(strings.Trim(row["target_path"], `"`), "DIR/watched/")
			if row["operation"] == `"link"` || row["operation"] == `"symlink"` {
				name, watched = strings.CutPrefix(strings.Trim(row["destination_path"], `"`), "DIR/watched/")
			}
			if watched {
				rows["file "+strings.Trim(row["operation"], `"`)+": "+name] = row
			}
		case kind == "user":
			if row["account"] == `"gosh-par"` || strings.Contains(row["command"], "by sudo") {
				rows["user: "+strings.Trim(row["type"], `"`)+" "+filepath.Base(strings.Trim(row["path"], `"`))] = row
			}
		case kind == "fork" && row["pid"] == self && names[row["child_pid"]] != "":
			add("fork: "+names[row["child_pid"]], row)
		case (kind == "exec" || kind == "exit") && names[row["pid"]] != "":
			add(kind+": "+names[row["pid"]], row)
		case row["pid"] != self:
		case kind == "listen" && source == "audit": // no address: told in the order of the work
			for _, network := range []string{"tcp4", "tcp6", "unix"} {
				if rows["listen: "+network] == nil {
					add("listen: "+network, row)
					break
				}
			}
		case kind == "bind" && row["local_port"] == "": // port 0
			if name := map[string]string{`"127.0.0.1"`: "tcp4", `"::1"`: "tcp6"}[row["local_address"]]; name != "" {
				// package net tries what the host can do, once, with port 0 and ::1.
				rows[kind+": "+name] = row
			}
		default:
			name := names[row["remote_port"]]
			if name == "" || kind == "bind" || kind == "listen" {
				name = names[row["local_port"]]
			}
			if row["socket_path"] == `"DIR/socket"` || kind == "accept" && row["family"] == `"unix"` {
				name = "unix"
			}
			if name == "" {
				break
			}
			if kind == "connect" && strings.Contains(row["result"], "REFUSED") || strings.Contains(row["result"], "ENOENT") {
				name += " refused"
			}
			if kind == "close" {
				rows["close: "+name] = row // of each side
				break
			}
			if kind == "connect" && rows["connect: "+name] != nil { // not known how it ended
				name += " refused"
			}
			add(kind+": "+name, row)
		}
	}
	return rows
}

// differs is a line of the table in docs/sources.md: | kind | column | … |.
var differs = regexp.MustCompile(`(?m)^\| ([a-z]+(?: [a-z]+)?) \| (?:` + "`([a-z0-9_]+)`" + `|the row) \|`)

// TestLiveParity does the same under both sources. Where their rows differ, docs/sources.md
// says so and why; and what it says is so.
func TestLiveParity(t *testing.T) {
	needAudit(t)
	doc, err := os.ReadFile("../../docs/sources.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range differs.FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]+"."+m[2]] = false
	}
	if len(documented) < 10 {
		t.Fatalf("docs/sources.md names %d differences", len(documented))
	}
	found := func(kind, column, what string) {
		first, _, _ := strings.Cut(kind, " ") // of files, the operation follows
		for _, k := range []string{"all." + column, kind + "." + column, first + "." + column} {
			if _, ok := documented[k]; ok {
				documented[k] = true
				return
			}
		}
		t.Errorf("docs/sources.md does not say: %s", what)
	}
	ebpf, audit := parityRows(t, "ebpf"), parityRows(t, "audit")
	for _, name := range slices.Sorted(maps.Keys(ebpf)) {
		kind, _, _ := strings.Cut(name, ": ")
		a, b := ebpf[name], audit[name]
		if b == nil {
			found(kind, "", name+" is told by eBPF only")
			continue
		}
		columns := maps.Clone(a)
		maps.Copy(columns, b)
		for _, column := range slices.Sorted(maps.Keys(columns)) {
			x, y := a[column], b[column]
			if x == y || x != "" && y != "" && slices.Contains(anyValue, column) {
				continue
			}
			if kind == "exec" && strings.HasPrefix(column, "spawner_") && y == "" { // the exec came before the fork's record
				continue
			}
			if kind == "exit" && column == "duration_ns" && y == "" { // less than a tick of audit's clock, as the page says
				continue
			}
			if kind == "file link" && column == "target_path" && x == "" { // the kernel may have that name by chance, as docs/file-integrity.md says
				continue
			}
			found(kind, column, fmt.Sprintf("%s: %s is %.200s by eBPF, %.200s by audit", name, column, x, y))
		}
	}
	for name := range audit {
		if kind, _, _ := strings.Cut(name, ": "); ebpf[name] == nil {
			found(kind, "", name+" is told by audit only")
		}
	}
	// Under audit the process table may know a cgroup, from /proc, or may not in time; so with digests.
	for k, seen := range documented {
		kind, _, _ := strings.Cut(k, ".")
		kind, _, _ = strings.Cut(kind, " ")
		if !seen && k != "all.cgroup_id" && k != "file.sha256" && (kind == "all" || strings.Contains(parityKinds, kind)) {
			t.Errorf("docs/sources.md says that %s differs, and it did not", k)
		}
	}
	for _, want := range []string{"exec: script", "exit: failure", "fork: program", "connect: tcp6", "accept: unix", "bind: tcp4", "listen: tcp4",
		"exec: by su", "exec: by sudo", "exec: by login", "exit: by login", "file create: new", "file rename: new", "file delete: linked"} {
		if ebpf[want] == nil || audit[want] == nil {
			t.Errorf("%s is not told by both", want)
		}
	}
	for _, want := range []string{"user: USER_AUTH su", "user: USER_START su", "user: USER_CMD sudo", "user: USER_START sudo", "user: USER_LOGIN login"} {
		if audit[want] == nil {
			t.Errorf("%s is not told by audit", want)
		}
	}
}
