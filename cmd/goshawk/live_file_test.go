package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eventually waits until a query's answer is what it should be.
func (l *live) eventually(query, want string) {
	l.t.Helper()
	var got string
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command("goshawk", "query", "--root-dir", l.root, "--format", "csv", query).Output()
		if got = strings.ReplaceAll(string(out), "\r", ""); err == nil && got == want {
			return
		}
	}
	l.t.Errorf("%s\nanswered %q, want %q", query, got, want)
}

// What is done to a watched file is told with who did it and what is in it; its neighbours are
// not told of.
func TestLiveWatch(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "file", "--watch", dir+"/%%", "--hash", "sha256,md5")
	script := fmt.Sprintf("cd %s && echo hello > new && mv new deep/moved && echo x > %s/unseen && mkdir later && echo more > later/f && rm later/f", dir, other)
	cmd := exec.Command("/bin/sh", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sum := sha256.Sum256([]byte("hello\n"))
	pid := cmd.Process.Pid
	l.eventually("SELECT count(*) AS n FROM filesystem_events WHERE operation = 'delete'", "n\n1\n")
	l.eventually(fmt.Sprintf("SELECT action, hashed, uid FROM file_events WHERE target_path = '%s/deep/moved'", dir), "action,hashed,uid\nMOVED_TO,1,0\n")
	l.eventually(fmt.Sprintf("SELECT operation, pid, executable LIKE '%%/%%sh' AS sh, uid FROM process_file_events WHERE path = '%s/new' AND operation = 'write'", dir),
		fmt.Sprintf("operation,pid,sh,uid\nwrite,%d,1,0\n", pid))
	l.eventually(fmt.Sprintf("SELECT sha256 FROM file_events WHERE target_path = '%s/deep/moved'", dir), "sha256\n"+hex.EncodeToString(sum[:])+"\n")
	// Not by eid: what waits for a digest may be told after what came later.
	l.eventually(fmt.Sprintf("SELECT DISTINCT operation FROM filesystem_events WHERE target_path LIKE '%s/later%%' ORDER BY operation", dir),
		"operation\ncreate\ndelete\nwrite\n")
	l.eventually("SELECT count(*) AS n FROM filesystem_events WHERE target_path LIKE '%unseen'", "n\n0\n")
	l.eventually("SELECT count(*) AS n FROM exec_events", "n\n0\n") // sensed for the actor's sake, and asked for by nobody
	if code, said := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, said)
	}
	for _, r := range l.rows() {
		if r.Kind != "file" && r.Kind != "loss" {
			t.Errorf("a %s event, which was not asked for", r.Kind)
		}
	}
}

// What certain programs and users do to watched files is left out, and counted.
func TestLiveFilesSpared(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	tee, err := exec.LookPath("tee")
	if err == nil {
		tee, err = filepath.EvalSymlinks(tee)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "file", "--watch", dir+"/%%", "--hash", "none", "--exclude-exe", tee, "--exclude-uid", "65534")
	for _, c := range []struct {
		script string
		uid    uint32
	}{{"echo x | tee %[1]s/program >/dev/null; echo x >%[1]s/shell", 0}, {"echo x >%s/user", 65534}, {"echo x >%s/last", 0}} {
		cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("umask 0; "+c.script, dir))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM filesystem_events WHERE target_path = '%s/last' AND operation = 'write'", dir), "n\n1\n")
	l.eventually("SELECT DISTINCT replace(target_path, '"+dir+"/', '') AS name FROM filesystem_events ORDER BY name", "name\nlast\nshell\n")
	l.eventually("SELECT filtered >= 4 AS counted FROM goshawk_sources WHERE source = 'agent' AND kind = 'file'", "counted\n1\n")
}

// fileRow is what the tests read of a file event.
type fileRow struct {
	Kind, Operation, Category string
	Target                    string `json:"target_path"`
	Destination               string `json:"destination_path"`
	Size, Mode                int64
	Reason                    string
	Count                     int
	PID                       int
	NTime                     int64
}

func (l *live) fileRows() []fileRow {
	l.t.Helper()
	f, err := os.Open(l.out)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	var out []fileRow
	for d := json.NewDecoder(f); ; {
		var r fileRow
		if err := d.Decode(&r); err == io.EOF {
			return out
		} else if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, r)
	}
}

// A build and the unpacking of an archive in a watched directory: what the events say was made,
// moved and removed is what is there afterwards, file by file, with the size that it has.
func TestLiveFilesReconcile(t *testing.T) {
	dir := t.TempDir()
	// Digests come later than the rest, and this test follows the order of what happened.
	l := startRun(t, t.TempDir(), "--format", "json", "--kinds", "file", "--watch", dir+"/%%", "--hash", "none", "--ring-size", "8388608")
	for _, sub := range []string{"cache", "tmp", "bin", "tar"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module build\n\ngo 1.26\n", "main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println() }\n"} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bin")+"/", ".")
	build.Dir = source
	build.Env = append(os.Environ(), "GOCACHE="+filepath.Join(dir, "cache"), "GOTMPDIR="+filepath.Join(dir, "tmp"), "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	unpack := exec.Command("/bin/sh", "-c", "tar cf - -C ../.. internal docs bpf | tar xf - -C "+filepath.Join(dir, "tar")+" && rm -r "+filepath.Join(dir, "tar/internal/sensor")+
		" && mv "+filepath.Join(dir, "tar/internal")+" "+filepath.Join(dir, "tar/moved")+" && touch "+filepath.Join(dir, "last"))
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.eventually(fmt.Sprintf("SELECT count(*) AS n FROM filesystem_events WHERE target_path = '%s/last' AND operation = 'create'", dir), "n\n1\n")
	if code, said := l.stop(syscall.SIGINT); code != 0 {
		t.Errorf("exit code %d: %s", code, said)
	}

	told := map[string]int64{} // path → size after the last event, -1 for what has none
	events, written := 0, map[string]int64{}
	for _, r := range l.fileRows() {
		if r.Kind == "loss" {
			t.Errorf("lost: %d, %s", r.Count, r.Reason)
			continue
		}
		events++
		switch r.Operation {
		case "create", "symlink", "link":
			name := r.Target
			if r.Destination != "" {
				name = r.Destination
			}
			if _, ok := told[name]; ok {
				t.Errorf("%s is made twice", name)
			}
			told[name] = r.Size
		case "write", "truncate":
			if _, ok := told[r.Target]; !ok {
				t.Errorf("%s is written and not there", r.Target)
			}
			written[r.Target] = r.Size
		case "delete":
			if _, ok := told[r.Target]; !ok {
				t.Errorf("%s is deleted and not there", r.Target)
			}
			delete(told, r.Target)
		case "rename":
			for name, size := range told {
				if name == r.Target || strings.HasPrefix(name, r.Target+"/") {
					to := r.Destination + strings.TrimPrefix(name, r.Target)
					delete(told, name)
					told[to], written[to] = size, written[name]
				}
			}
		}
	}
	for _, sub := range []string{"cache", "tmp", "bin", "tar"} { // made by the test, which is no process of theirs
		if _, ok := told[filepath.Join(dir, sub)]; !ok {
			t.Errorf("%s was not told of", sub)
		}
	}
	there := map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		there[name] = true
		if _, ok := told[name]; !ok {
			t.Errorf("missing: %s", name)
		}
		info, err := d.Info()
		if err == nil && d.Type().IsRegular() && info.Size() > 0 && written[name] != info.Size() {
			t.Errorf("%s has %d bytes, its last write says %d", name, info.Size(), written[name])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range told {
		if !there[name] {
			t.Errorf("invented: %s", name)
		}
	}
	if len(there) < 500 {
		t.Errorf("%d files are too few to prove something", len(there))
	}
	t.Logf("%d events, %d files", events, len(there))
}

// The daemon watches what its configuration names, and goes on without a gap when that changes:
// a file that both configurations name is told of each time that it is changed.
func TestLiveDaemonFiles(t *testing.T) {
	needRoot(t)
	root, dir := t.TempDir(), t.TempDir()
	write := func(name string) {
		t.Helper()
		if out, err := exec.Command("/bin/sh", "-c", "echo x >> "+filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	config := func(second string) {
		configure(t, root, fmt.Sprintf(`{"options":{"enable_file_events":true},"file_paths":{"both":["%[1]s/both"],%[2]s},
			"exclude_paths":{"both":["%[1]s/%%%%.tmp"]},"file_paths_query":{"asked":["SELECT '%[1]s/asked' AS path"]}}`, dir, second))
	}
	config(fmt.Sprintf(`"first":["%s/first%%"]`, dir))
	r := startDaemon(t, root, "--disable_events=false", "--source=ebpf", "--kinds=file", "--verbose", "--exclude_uid=4711")
	l := &live{t: t, root: root}
	for _, name := range []string{"both", "first", "first.tmp", "second", "asked"} {
		write(name)
	}
	const rows = "SELECT category, action FROM file_events WHERE action = 'UPDATED' ORDER BY target_path, eid"
	l.eventually(rows, "category,action\nasked,UPDATED\nboth,UPDATED\nfirst,UPDATED\n")
	config(fmt.Sprintf(`"second":["%s/second%%"]`, dir))
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n := 1
	for end := time.Now().Add(time.Minute); !strings.Contains(r.err.String()+r.file("var/log/goshawk/osqueryd.INFO"), "SIGHUP") && time.Now().Before(end) || n < 50; n++ {
		write("both")
	}
	l.eventually("SELECT count(*) AS n FROM file_events WHERE category = 'both' AND action = 'UPDATED'", fmt.Sprintf("n\n%d\n", n))
	write("first")
	write("second")
	l.eventually("SELECT category, count(*) AS n FROM file_events WHERE action = 'UPDATED' AND category <> 'both' GROUP BY category", "category,n\nasked,1\nfirst,1\nsecond,1\n")
}
