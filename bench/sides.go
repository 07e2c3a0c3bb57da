package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// bare is the host alone.
type bare struct{}

func (*bare) name() string                { return "bare" }
func (*bare) start(context.Context) error { return nil }
func (*bare) tasks() []int                { return nil }
func (*bare) stop() error                 { return nil }

func (*bare) told(context.Context, load, int) (tally, error) { return tally{}, nil }

// goshawk is `goshawk run`, its stream written to /dev/null and its store kept.
type goshawk struct {
	bench *bench
	title string
	kinds string // empty: all
	audit bool   // its source is audit, with the rules that auditd has; it keeps what it is told, once, as auditd does
	files bool   // it watches files
	cmd   *exec.Cmd
	root  string
}

func (g *goshawk) name() string { return g.title }

func (g *goshawk) start(ctx context.Context) error {
	var err error
	if g.root, err = os.MkdirTemp(g.bench.dir, "root-"); err != nil {
		return err
	}
	source := "ebpf"
	if g.audit {
		source = "audit"
	}
	args := []string{"run", "--source", source, "--root-dir", g.root}
	if g.audit {
		args = append(args, "--quiet")
	} else {
		args = append(args, "--format", "json")
	}
	if g.kinds != "" {
		args = append(args, "--kinds", g.kinds)
	}
	if g.audit || g.files {
		args = append(args, "--watch", g.bench.watched()+"/%%")
	}
	g.cmd = exec.Command(g.bench.binary, args...)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	g.cmd.Stdout = null
	said, err := g.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := g.cmd.Start(); err != nil {
		g.cmd = nil
		return err
	}
	ready := make(chan string, 1)
	go func() { // ends with goshawk's standard error
		s := bufio.NewScanner(said)
		var first []string
		for s.Scan() {
			first = append(first, s.Text())
			if strings.HasPrefix(s.Text(), "ready:") {
				ready <- ""
				break
			}
		}
		for s.Scan() {
		}
		ready <- strings.Join(first, "; ")
		close(ready)
	}()
	select {
	case last := <-ready:
		if last != "" {
			return fmt.Errorf("goshawk said %q", last)
		}
		return nil
	case <-time.After(20 * time.Second):
		return errors.New("goshawk was not ready in 20 s")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *goshawk) tasks() []int {
	if g.cmd == nil {
		return nil
	}
	pids := []int{g.cmd.Process.Pid}
	if k := kauditd(); g.audit && k != 0 {
		pids = append(pids, k)
	}
	return pids
}

// told asks the running agent, as a user would.
func (g *goshawk) told(ctx context.Context, l load, n int) (tally, error) {
	nothing, load := quote(g.bench.starts(l)), quote(g.bench.program(l))
	switch {
	case l == storm && g.audit:
		return g.count(ctx, g.bench.stormEvents(n), "'exec', 'connect', 'file', 'unknown'",
			"SELECT (SELECT count(*) FROM exec_events WHERE time > 0 AND path = "+load+")"+
				" + (SELECT count(*) FROM network_events WHERE time > 0 AND path = "+load+")"+
				" + (SELECT count(*) FROM filesystem_events WHERE time > 0 AND path = "+load+")")
	case l == process && g.audit:
		return g.count(ctx, n, "'exec'", "SELECT count(*) FROM exec_events WHERE time > 0 AND path = "+nothing)
	case l == connection && g.audit:
		return g.count(ctx, 2*n, "'connect', 'accept'",
			"SELECT count(*) FROM network_events WHERE time > 0 AND path = "+load+" AND kind IN ('connect', 'accept')")
	case l == process: // exec, fork and exit
		return g.count(ctx, 3*n, "'exec', 'fork', 'exit'",
			"SELECT (SELECT count(*) FROM exec_events WHERE time > 0 AND path = "+nothing+")"+
				" + (SELECT count(*) FROM exit_events WHERE time > 0 AND path = "+nothing+")"+
				" + (SELECT count(DISTINCT child_process_id) FROM fork_events WHERE time > 0 AND child_process_id IN"+
				" (SELECT process_id FROM exec_events WHERE time > 0 AND path = "+nothing+"))")
	case l == connection && g.kinds == "": // connect, accept and both closes
		return g.count(ctx, 4*n, "'connect', 'accept', 'close'",
			"SELECT count(*) FROM network_events WHERE time > 0 AND path = "+load+
				" AND kind IN ('connect', 'accept', 'close')")
	}
	return tally{}, nil
}

// stormEvents is what a storm of n turns makes: a program started, a connect and a file opened in
// each; and the start of the storm itself and the files made.
func (b *bench) stormEvents(n int) int { return 3*n + 1 + b.workers }

// count asks how many events were captured, and how many of the same kinds were lost on
// the way to the store.
func (g *goshawk) count(ctx context.Context, generated int, kinds, captured string) (tally, error) {
	t := tally{generated: generated}
	var err error
	if t.captured, err = g.number(ctx, "SELECT ("+captured+") AS n"); err != nil {
		return t, err
	}
	t.lost, err = g.number(ctx, "SELECT coalesce(sum(count), 0) AS n FROM goshawk_losses"+
		" WHERE source IN ('ebpf', 'audit', 'agent', 'store') AND kind IN ("+kinds+")")
	return t, err
}

// number runs a query whose answer is one number.
func (g *goshawk) number(ctx context.Context, sql string) (int, error) {
	out, err := exec.CommandContext(ctx, g.bench.binary, "query", "--root-dir", g.root, "--format", "json", sql).Output()
	if err != nil {
		var e *exec.ExitError
		if errors.As(err, &e) {
			return 0, fmt.Errorf("query: %w: %s", err, strings.TrimSpace(string(e.Stderr)))
		}
		return 0, fmt.Errorf("query: %w", err)
	}
	var rows []struct{ N string }
	if err := json.Unmarshal(out, &rows); err != nil || len(rows) != 1 {
		return 0, fmt.Errorf("read the answer %q: %w", out, err)
	}
	return strconv.Atoi(rows[0].N)
}

func (g *goshawk) stop() error {
	if g.cmd == nil {
		return nil
	}
	err := end(g.cmd, 30*time.Second)
	g.cmd = nil
	return errors.Join(err, os.RemoveAll(g.root))
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
