package table

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// A lookup below a root never leaves it, with the kernel's help and without.
func TestRootStaysInside(t *testing.T) {
	outside := tree(t, map[string]string{"secret": "outside"})
	long := strings.Repeat("d/", maxDepth+8)
	dir := tree(t, map[string]string{
		"secret":      "inside",
		"sub/secret":  "sub",
		"absolute":    "-> /secret",
		"climbing":    "-> ../../../../../../secret",
		"sub/up":      "-> ../secret",
		"sub/away":    "-> " + outside + "/secret",
		"dirlink":     "-> /sub",
		"chain1":      "-> chain2",
		"chain2":      "-> /sub/../chain3",
		"chain3":      "-> secret",
		"loop":        "-> loop",
		"dangling":    "-> nowhere",
		long + "leaf": "deep",
	})
	r, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	tests := []struct {
		path   string
		follow bool
		want   string // content, a link's target after "-> ", or an error's text
	}{
		{"/secret", true, "inside"},
		{"secret", true, "inside"},
		{"//./secret", true, "inside"},
		{"/../../secret", true, "inside"},
		{"/sub/../secret", true, "inside"},
		{"/absolute", true, "inside"},
		{"/absolute", false, "-> /secret"},
		{"/climbing", true, "inside"},
		{"/sub/up", true, "inside"},
		{"/sub/away", true, unix.ENOENT.Error()},
		{"/dirlink/secret", false, "sub"},
		{"/dirlink/up", true, "inside"},
		{"/dirlink", false, "-> /sub"},
		{"/chain1", true, "inside"},
		{"/loop", true, unix.ELOOP.Error()},
		{"/loop", false, "-> loop"},
		{"/dangling", true, unix.ENOENT.Error()},
		{"/dangling", false, "-> nowhere"},
		{"/secret/", true, unix.ENOTDIR.Error()},
		{"/secret/x", true, unix.ENOTDIR.Error()},
		{"/secret/..", true, unix.ENOTDIR.Error()},
		{"", true, unix.ENOENT.Error()},
	}
	ways := map[string]func(string, bool) (int, error){"openat2": r.open, "walk": r.walk}
	for name, open := range ways {
		for _, tt := range tests {
			if got := lookUp(open, tt.path, tt.follow); got != tt.want {
				t.Errorf("%s %q follow=%v: got %q, want %q", name, tt.path, tt.follow, got, tt.want)
			}
		}
		for _, path := range []string{"/", "/sub/..", "/dirlink/", "/dirlink/.."} {
			fd, err := open(path, false)
			if err != nil {
				t.Errorf("%s %q: %v", name, path, err)
				continue
			}
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
				t.Errorf("%s %q: mode %o, %v; want a directory", name, path, st.Mode, err)
			}
			unix.Close(fd)
		}
	}
	before := openDescriptors(t)
	if got, want := lookUp(r.walk, long+"leaf", true), unix.ENAMETOOLONG.Error(); got != want {
		t.Errorf("walk %d levels: got %q, want %q", maxDepth+8, got, want)
	}
	lookUp(r.walk, "/sub/../secret", true)
	lookUp(r.walk, "/secret/x", true)
	lookUp(r.walk, "/loop", true)
	if after := openDescriptors(t); after != before {
		t.Errorf("walks left %d descriptors open", after-before)
	}
}

// lookUp returns what is found: a content, a link's target, or an error's text.
func lookUp(open func(string, bool) (int, error), path string, follow bool) string {
	fd, err := open(path, follow)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	if to, err := readlink(fd); err == nil {
		return "-> " + to
	}
	n, err := openRegular(fd)
	if err != nil {
		return err.Error()
	}
	f := os.NewFile(uintptr(n), "")
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestReadFile(t *testing.T) {
	dir := tree(t, map[string]string{"f": "12345", "d/": ""})
	if err := mkfifo(dir + "/fifo"); err != nil {
		t.Fatal(err)
	}
	own := root{ownRoot}
	if b, err := own.readFile(dir+"/f", 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	for path, want := range map[string]string{
		"/f":    "more than 4 bytes",
		"/fifo": "not a regular file",
		"/d":    "not a regular file",
		"/none": "no such file or directory",
	} {
		b, err := own.readFile(dir+path, 4)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v; want error %q", path, b, err, want)
		}
	}
	if b, err := own.readFile("/dev/null", 4); err == nil {
		t.Errorf("/dev/null: got %q, want an error", b)
	}
}

func TestNamesOfLargeDirectory(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{}
	for i := range 1500 { // several blocks
		name := "f" + strconv.Itoa(i)
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := root{ownRoot}.open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := names(fd, func(name string) bool {
		if !want[name] {
			t.Errorf("%q came twice or from nowhere", name)
		}
		delete(want, name)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) != 0 {
		t.Errorf("%d names never came", len(want))
	}
	n := 0
	if err := names(fd, func(string) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("stopped after %d names, %v; want 3", n, err)
	}
}

// asContainer starts a process whose root is dir in a mount namespace of its own: this
// test binary, which waits in TestContained.
func asContainer(t *testing.T, dir string) (pid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts a process with chroot in a new mount namespace")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestContained$")
	cmd.Env = append(os.Environ(), "GOSHAWK_TEST_ROOT="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatalf("contained process: %v", err)
	}
	return cmd.Process.Pid
}

// TestContained is not a test but the process that asContainer starts.
func TestContained(t *testing.T) {
	dir := os.Getenv("GOSHAWK_TEST_ROOT")
	if dir == "" {
		return
	}
	if err := unix.Chroot(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chdir("/"); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("ready\n")
	io.Copy(io.Discard, os.Stdin)
}

// pid_with_namespace shows the files of a container, whose links lead where they would
// inside it.
func TestPidWithNamespace(t *testing.T) {
	dir := tree(t, map[string]string{
		"etc/os-release":     "-> /usr/lib/os-release",
		"usr/lib/os-release": "NAME=Contained\nID=contained\nVERSION_ID=1.2\n",
		"etc/passwd":         "inmate:x:7:7::/:/bin/sh\n",
		"etc/group":          "inmates:x:7:\n",
		"etc/hosts":          "192.0.2.1 inside\n",
		"escape":             "-> /../../../../etc/passwd",
	})
	pid := asContainer(t, dir)
	p := strconv.Itoa(pid)
	link, err := os.Readlink("/proc/" + p + "/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	ns := strings.Trim(link, "mnt:[]")
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || own == link {
		t.Fatalf("the process shares our mount namespace %s (%v)", own, err)
	}
	env := here()
	tests := []struct {
		table   schema.Relation
		extra   []schema.Constraint
		columns []string
		want    [][]string
	}{
		{usersTable(env), nil, []string{"username", "pid_with_namespace"}, [][]string{{"inmate", p}}},
		{groupsTable(env), nil, []string{"groupname", "pid_with_namespace"}, [][]string{{"inmates", p}}},
		{etcHostsTable(env), nil, []string{"address", "hostnames", "pid_with_namespace"}, [][]string{{"192.0.2.1", "inside", p}}},
		{
			osVersionTable(env), nil,
			[]string{"name", "major", "minor", "pid_with_namespace", "mount_namespace_id"},
			[][]string{{"Contained", "1", "2", p, ns}},
		},
		{
			fileTable(env), []schema.Constraint{equals(fileTable(env), "path", "/escape")},
			[]string{"path", "size", "symlink", "symlink_target_path", "pid_with_namespace", "mount_namespace_id"},
			[][]string{{"/escape", "24", "1", "/../../../../etc/passwd", p, ns}},
		},
		{
			hashTable(env), []schema.Constraint{equals(hashTable(env), "path", "/escape")},
			[]string{"path", "directory", "md5", "pid_with_namespace", "mount_namespace_id"},
			[][]string{{"/escape", "/", digestOf(t, "md5sum", dir+"/etc/passwd"), p, ns}},
		},
	}
	for _, tt := range tests {
		q := where(tt.table, "pid_with_namespace", pid)
		q.Constraints = append(q.Constraints, tt.extra...)
		if diff := cmp.Diff(tt.want, cells(tt.table, scan(t, tt.table, q), tt.columns...)); diff != "" {
			t.Errorf("%s: %s", tt.table.Def().Name, diff)
		}
	}
	// The host and the container in one query.
	r := usersTable(env)
	q := where(r, "pid_with_namespace", 0, pid, pid)
	var inmates, roots int
	for _, row := range cells(r, scan(t, r, q), "username", "pid_with_namespace") {
		switch {
		case row[0] == "inmate" && row[1] == p:
			inmates++
		case row[0] == "root" && row[1] == "0":
			roots++
		}
	}
	if inmates != 1 || roots != 1 {
		t.Errorf("%d inmates and %d roots, want one each", inmates, roots)
	}
}

// A process that is gone is a warning and no rows.
func TestPidWithNamespaceGone(t *testing.T) {
	r := usersTable(here())
	for _, pid := range []int{maxPID, maxPID + 1, -1} {
		var warnings []string
		q := where(r, "pid_with_namespace", pid)
		q.Warn = func(s string) { warnings = append(warnings, s) }
		if rows := scan(t, r, q); len(rows) != 0 {
			t.Errorf("pid %d: %d rows, want none", pid, len(rows))
		}
		if pid == maxPID && len(warnings) != 1 {
			t.Errorf("pid %d: warnings %q, want one", pid, warnings)
		}
	}
}
