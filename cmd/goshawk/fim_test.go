package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fim runs goshawk fim and returns its exit code and what it printed.
func fim(t *testing.T, root string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command("goshawk", append([]string{"fim", args[0], "--root-dir", root}, args[1:]...)...)
	out, err := cmd.Output()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestFIM(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/same", "a/text", "a.b/mode", "a/gone", "cache/x", "z"} {
		put(name, name)
	}
	if code, _ := fim(t, root, "diff"); code != exitFailed {
		t.Errorf("diff without a baseline: exit code %d", code)
	}
	if code, _ := fim(t, root, "baseline"); code != exitUsage {
		t.Errorf("a baseline of nothing: exit code %d", code)
	}
	code, out := fim(t, root, "baseline", "--watch", dir+"/%%", "--exclude", dir+"/cache/%%")
	if code != 0 || out != "8 files taken down\n" {
		t.Errorf("baseline: exit code %d, %q", code, out)
	}
	if code, out := fim(t, root, "diff"); code != 0 || out != "" {
		t.Errorf("diff of nothing: exit code %d, %q", code, out)
	}
	put("a/text", "a/TEXT")
	put("new", "")
	put("cache/y", "")
	if err := os.Chmod(filepath.Join(dir, "a.b/mode"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "a/gone")); err != nil {
		t.Fatal(err)
	}
	code, out = fim(t, root, "diff", "--format", "json")
	var got []string
	for line := range strings.Lines(out) {
		var d difference
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		got = append(got, d.What+" "+strings.TrimPrefix(d.Path, dir+"/")+" "+strings.Join(slices.DeleteFunc(d.Fields, func(s string) bool { return s == "mtime" }), ","))
	}
	want := []string{"changed a.b/mode mode", "removed a/gone ", "changed a/text sha256", "added new "}
	if code != exitFailed || !slices.Equal(got, want) {
		t.Errorf("diff: exit code %d\n%q, want\n%q", code, got, want)
	}
}

// TestFIMResumed: a baseline that was stopped goes on, and is whole at the end.
func TestFIMResumed(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	for i := range 300 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%7))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := &fimOptions{host: host{rootDir: root}, watch: []string{dir + "/%%"}, hash: []string{"none"}}
	stopped := &stopAfter{Context: t.Context(), n: 150}
	if err := o.baseline(stopped, os.Stderr, os.Stderr); err == nil {
		t.Fatal("it was not stopped")
	}
	if code, _ := fim(t, root, "diff"); code != exitFailed {
		t.Errorf("diff with half a baseline: exit code %d", code)
	}
	var out strings.Builder
	if err := o.baseline(t.Context(), &out, os.Stderr); err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(out.String(), "%d files", &n); err != nil || n == 0 || n >= 307 {
		t.Errorf("it began anew: %q", out.String())
	}
	if code, out := fim(t, root, "diff"); code != 0 {
		t.Errorf("diff: exit code %d, %q", code, out)
	}
}

// stopAfter is a context that ends when it was asked so often.
type stopAfter struct {
	context.Context
	n int
}

func (c *stopAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}
