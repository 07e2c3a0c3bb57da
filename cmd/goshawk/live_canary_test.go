package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// links returns the BPF links that a process holds to programs whose names begin so.
func links(t *testing.T, pid int, program string) []link.Link {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`(?m)^link_id:\s*(\d+)$`)
	var out []link.Link
	for _, name := range infos {
		text, err := os.ReadFile(name)
		m := number.FindSubmatch(text)
		if err != nil || m == nil {
			continue // closed meanwhile, or no link
		}
		id, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		l, err := link.NewFromID(link.ID(id))
		if err != nil {
			t.Fatal(err)
		}
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		p, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			t.Fatal(err)
		}
		i, err := p.Info()
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(i.Name, program) {
			out = append(out, l)
		} else {
			l.Close()
		}
	}
	return out
}

// TestLiveCanary detaches programs of a running agent, as anybody with CAP_BPF can: it
// tells of that, as a loss, in its tables and on standard error, and of nothing else.
func TestLiveCanary(t *testing.T) {
	l := startRun(t, t.TempDir(), "--format", "json", "--canary-interval", "1s", "--container-runtime", "none")
	socket := "--socket=" + filepath.Join(l.root, "run/goshawk/goshawk.sock")
	ask := func(sql string) string {
		t.Helper()
		out, err := exec.Command("goshawk", "query", "--format", "csv", socket, sql).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	time.Sleep(2500 * time.Millisecond)
	check(t, "silent before", ask("SELECT name FROM goshawk_hooks WHERE silent"), "name")

	gone := links(t, l.cmd.Process.Pid, "on_dns_")
	if len(gone) == 0 {
		t.Skip("needs links to cgroups, which others may detach: before Linux 5.7 there are none")
	}
	for _, k := range gone {
		if err := k.(interface{ Detach() error }).Detach(); err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	detached := time.Now()
	for ask("SELECT reason FROM goshawk_losses WHERE kind = 'dns'") != "reason\nhook_silent" {
		if time.Since(detached) > 20*time.Second {
			t.Fatal("nothing is said of the detached hook")
		}
		time.Sleep(100 * time.Millisecond)
	}
	// An interval, two rounds of a second each, and what the machine takes for them.
	if d := time.Since(detached); d > 10*time.Second {
		t.Errorf("said after %v", d)
	}
	check(t, "silent", ask("SELECT name FROM goshawk_hooks WHERE silent"), "name\ndns")
	check(t, "the source's books", ask("SELECT count(*) FROM goshawk_sources WHERE source = 'ebpf' AND kind = 'dns' "+
		"AND lost > 0 AND generated >= delivered + filtered + lost"), "count(*)\n1")

	_, stderr := l.stop(os.Interrupt)
	if !strings.Contains(stderr, "goshawk: silent: hook dns no longer tells what happens (ask a name server was not told within 1s)") {
		t.Errorf("standard error:\n%s", stderr)
	}
	var lost, others []string
	for _, r := range l.rows() {
		switch {
		case r.Kind == "loss":
			lost = append(lost, r.KindLost+" "+r.Reason)
		case strings.HasSuffix(r.SocketPath, "/goshawk.sock"): // where the queries come in
		case r.PID == l.cmd.Process.Pid || r.PPID == l.cmd.Process.Pid:
			others = append(others, fmt.Sprintf("%s %v %v", r.Kind, r.Path, r.Args))
		}
	}
	if len(lost) == 0 || slices.ContainsFunc(lost, func(s string) bool { return s != "dns hook_silent" }) {
		t.Errorf("losses told: %q", lost)
	}
	check(t, "what it did itself", others, []string(nil))
}
