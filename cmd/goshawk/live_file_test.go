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
	l.eventually(fmt.Sprintf("SELECT DISTINCT operation FROM filesystem_events WHERE target_path LIKE '%s/later%%' ORDER BY eid", dir),
		"operation\ncreate\nwrite\ndelete\n")
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
