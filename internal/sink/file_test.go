package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/goshawk-project/goshawk/internal/state"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	ok(t, err)
	if strings.HasSuffix(path, ".zst") {
		r, err := zstd.NewReader(strings.NewReader(string(b)))
		ok(t, err)
		defer r.Close()
		b, err = io.ReadAll(r)
		ok(t, err)
	}
	return string(b)
}

// TestFileResume kills a process, in effect, after every byte that it wrote: the next one
// writes what is missing, whatever the size of its writes.
func TestFileResume(t *testing.T) {
	dir := t.TempDir()
	const before, batch = "first\n", "second\nthird\nfourth\n"
	for cut := range len(batch) + 1 {
		for _, size := range []int{1, 2, 3} { // lines a write
			path := filepath.Join(dir, fmt.Sprintf("%d.%d", cut, size))
			f := &File{Path: path, Mode: 0o640}
			mark, err := f.Write([]byte(before), "")
			ok(t, err)
			_, err = f.Write([]byte(batch), mark) // whose mark is lost
			ok(t, err)
			ok(t, os.Truncate(path, int64(len(before)+cut)))
			f = &File{Path: path, Mode: 0o640}
			lines := strings.SplitAfter(batch+"fifth\n", "\n")
			for len(lines) > 1 {
				n := min(size, len(lines)-1)
				mark, err = f.Write([]byte(strings.Join(lines[:n], "")), mark)
				ok(t, err)
				lines = lines[n:]
			}
			if got := content(t, path); got != before+batch+"fifth\n" {
				t.Fatalf("cut after %d bytes, %d lines a write: %q", cut, size, got)
			}
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var saved []string
	f := &File{Path: path, Mode: 0o604, Save: func(m string) error { saved = append(saved, m); return nil }}
	mark, err := f.Write([]byte("a\n"), "")
	ok(t, err)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o604 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	// logrotate moves it away.
	ok(t, os.Rename(path, path+".old"))
	mark, err = f.Write([]byte("b\n"), mark)
	ok(t, err)
	if content(t, path) != "b\n" || content(t, path+".old") != "a\n" || len(saved) != 2 {
		t.Errorf("%q, %q, saved %q", content(t, path), content(t, path+".old"), saved)
	}

	// Somebody else wrote after the mark, and left half a line.
	ok(t, os.WriteFile(path, []byte("b\nfoo"), 0))
	f = &File{Path: path, Mode: 0o604}
	_, err = f.Write([]byte("c\n"), mark)
	ok(t, err)
	if got := content(t, path); got != "b\nfoo\nc\n" {
		t.Errorf("%q", got)
	}

	// The mark is of another file, or none.
	ok(t, os.Remove(path))
	ok(t, os.WriteFile(path, []byte("other"), 0))
	f = &File{Path: path, Mode: 0o604}
	_, err = f.Write([]byte("d\n"), mark)
	ok(t, err)
	if got := content(t, path); got != "other\nd\n" {
		t.Errorf("%q", got)
	}

	ok(t, os.Remove(path))
	ok(t, os.Symlink("/dev/null", path))
	if _, err := f.Write([]byte("x\n"), ""); err == nil {
		t.Error("a link is followed")
	}
	if _, err := (&File{Path: "/nonexistent/x", Mode: 0o600}).Write([]byte("x\n"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "osqueryd.results.log")
	f := &File{Path: path, Mode: 0o640, Rotation: func() Rotation { return Rotation{Size: 4, Files: 3} }}
	mark := ""
	for i := range 6 {
		var err error
		mark, err = f.Write([]byte(fmt.Sprintf("line%d\n", i)), mark)
		ok(t, err)
	}
	got := map[string]string{}
	entries, err := os.ReadDir(dir)
	ok(t, err)
	for _, e := range entries {
		got[e.Name()] = content(t, filepath.Join(dir, e.Name()))
		if info, _ := e.Info(); info.Mode() != 0o640 {
			t.Errorf("%s: %v", e.Name(), info.Mode())
		}
	}
	want := map[string]string{
		"osqueryd.results.log": "line5\n", "osqueryd.results.log.1": "line4\n",
		"osqueryd.results.log.2.zst": "line3\n", "osqueryd.results.log.3.zst": "line2\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, files := range []int{0, 1} {
		dir := t.TempDir()
		f := &File{Path: filepath.Join(dir, "l"), Mode: 0o640, Rotation: func() Rotation { return Rotation{Size: 1, Files: files} }}
		for range 4 {
			_, err := f.Write([]byte("x\n"), "")
			ok(t, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 2 {
			t.Errorf("%d files kept: %v", files, entries)
		}
	}
}

// TestDrain checks that lines stay until they are taken, that failures are waited for, and
// that lines that are too long are counted.
func TestDrain(t *testing.T) {
	db, err := state.Open(state.Options{Dir: t.TempDir()})
	ok(t, err)
	defer db.Close()
	add := func(lines string) {
		ok(t, db.Update(true, func(tx *state.Tx) error { return tx.Add("s", []byte(lines)) }))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var waits []time.Duration
	var told []error
	failing := 3
	got, marks := "", ""
	taken := make(chan string, 10)
	d := &Drain{
		State: db, Stream: "s", Limits: func() (int, int) { return 2, 1 << 20 },
		Write: func(_ context.Context, b state.Batch, mark string) (int, string, error) {
			if failing > 0 {
				failing--
				return 0, "", errors.New("refused")
			}
			got += string(b.Lines)
			marks += mark + ";"
			taken <- got
			tooLong := strings.Count(string(b.Lines), "long")
			return tooLong, fmt.Sprint(len(got)), nil
		},
		Backoff: func(n int) time.Duration { return time.Duration(n*n) * time.Second },
		Sleep:   func(_ context.Context, d time.Duration) error { waits = append(waits, d); return nil },
		Failed:  func(err error) { told = append(told, err) },
	}
	add("1\n2\n3\n")
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	next := func() string {
		t.Helper()
		select {
		case s := <-taken:
			return s
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is written")
			return ""
		}
	}
	if s := next(); s != "1\n2\n" {
		t.Errorf("first %q", s)
	}
	if s := next(); s != "1\n2\n3\n" {
		t.Errorf("then %q", s)
	}
	add("4\nlong\n")
	if s := next(); s != "1\n2\n3\n4\nlong\n" {
		t.Errorf("then %q", s)
	}
	cancel()
	<-done
	if diff := cmp.Diff([]time.Duration{time.Second, 4 * time.Second, 9 * time.Second}, waits); diff != "" {
		t.Error(diff)
	}
	if len(told) != 1 || marks != ";4;6;" {
		t.Errorf("told %v, marks %q", told, marks)
	}
	add("5\n")
	ok(t, d.Flush(context.Background()))
	if n, _ := db.Waiting("s"); n != 0 || !strings.HasSuffix(got, "5\n") {
		t.Errorf("%d wait, %q", n, got)
	}
	counts := fmt.Sprint(db.Counts())
	if !strings.Contains(counts, "line_too_long 1") || !strings.Contains(counts, "delivered  5") {
		t.Errorf("counts %s", counts)
	}
}
