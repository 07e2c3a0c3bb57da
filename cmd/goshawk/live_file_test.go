package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// What a container does to watched files is left out by the container's id.
func TestLiveFilesSparedContainer(t *testing.T) {
	c := newBench(t)
	engine := c.oci("runc", "runc")
	keepDelegation(t)
	root := t.TempDir()
	l := startRun(t, root, "--kinds", "file", "--watch", c.rootfs+"/var/%%", "--hash", "none", "--exclude-container", "goshawk-spared")
	for i, name := range []string{"spared", "told"} {
		b := &box{engine: "runc", name: "goshawk-" + name, token: name, port: 41301 + i}
		engine.run(t, b)
		within(t, name+" has made its file", func() bool {
			_, err := os.Stat(filepath.Join(c.rootfs, "var", name))
			return err == nil
		})
		defer engine.stop(t, b)
	}
	l.eventually("SELECT DISTINCT replace(target_path, '"+c.rootfs+"/var/', '') AS name, container_id, container_path FROM filesystem_events WHERE target_path LIKE '%/told'",
		"name,container_id,container_path\ntold,goshawk-told,/var/told\n")
	l.eventually("SELECT count(*) AS n FROM filesystem_events WHERE target_path LIKE '%/spared'", "n\n0\n")
	l.eventually("SELECT filtered >= 1 AS counted FROM goshawk_sources WHERE source = 'agent' AND kind = 'file'", "counted\n1\n")
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
