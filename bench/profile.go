package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// profile runs goshawk once more under load, with perf looking on, and returns the functions
// that took most: first by themselves, then ours with all that they call.
func (b *bench) profile(ctx context.Context) (lines []string, err error) {
	if _, err := exec.LookPath("perf"); err != nil {
		return nil, errors.New("profile: no perf here; `apt-get install linux-perf`")
	}
	g := &goshawk{title: "profile", bench: b}
	if b.audit != nil {
		if err := b.audit.prepare(false); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	if err := g.start(ctx); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	data := filepath.Join(b.dir, "perf.data")
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-F", "999", "-g", "-o", data, "-p", strconv.Itoa(g.cmd.Process.Pid))
	if err := perf.Start(); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	err = pause(ctx, time.Second)
	for _, l := range []load{process, connection} {
		if err == nil {
			_, err = b.put(ctx, l)
		}
	}
	err = errors.Join(err, pause(ctx, 2*time.Second), perf.Process.Signal(unix.SIGINT))
	// perf passes the signal on to itself when it is done: its exit code says nothing.
	_ = perf.Wait()
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	own, err := perfReport(ctx, data, "--no-children", "overhead", func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	all, err := perfReport(ctx, data, "--children", "overhead_children", func(s string) bool {
		return strings.Contains(s, "goshawk/internal/") || strings.Contains(s, "runtime.gcBgMarkWorker") ||
			strings.Contains(s, "runtime.sysmon") || strings.Contains(s, "runtime.mallocgc") ||
			strings.Contains(s, "runtime.growslice") || strings.Contains(s, "do_syscall_64")
	})
	return append(append(append([]string{"by themselves"}, own...), "", "with what they call"), all...), err
}

// perfReport returns the first 25 functions that keep is true of.
func perfReport(ctx context.Context, data, how, column string, keep func(string) bool) ([]string, error) {
	out, err := exec.CommandContext(ctx, "perf", "report", "-i", data, how, "-g", "none",
		"--percent-limit", "0.5", "--stdio", "-F", column+",sym").Output()
	if err != nil {
		return nil, fmt.Errorf("profile: perf report: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || !keep(line) {
			continue
		}
		line = strings.ReplaceAll(line, "github.com/goshawk-project/goshawk/", "")
		if len(line) > 110 {
			line = line[:110] + "…"
		}
		if lines = append(lines, line); len(lines) == 25 {
			break
		}
	}
	return lines, nil
}
