package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
)

func openTest(t *testing.T, o Options) *DB {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestValues(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, Options{Dir: dir})
	check(t, d.Put("a", "k2", "v\x00é"))
	check(t, d.Put("a", "k1", "old"))
	check(t, d.Put("a", "k1", ""))
	check(t, d.Put("b", "k1", "other"))
	check(t, d.Delete("b", "none"))
	fail := errors.New("no")
	if err := d.Update(true, func(tx *Tx) error {
		if err := tx.Delete("a", "k2"); err != nil {
			return err
		}
		return fail
	}); err != fail {
		t.Fatal(err)
	}
	check(t, d.Close())
	if err := d.Put("a", "k", "v"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed: %v", err)
	}

	d = openTest(t, Options{Dir: dir})
	list, err := d.List("a")
	check(t, err)
	if diff := cmp.Diff([]Pair{{"k1", ""}, {"k2", "v\x00é"}}, list); diff != "" {
		t.Error(diff)
	}
	if v, ok, err := d.Get("b", "k1"); v != "other" || !ok || err != nil {
		t.Errorf("got %q, %v, %v", v, ok, err)
	}
	if v, ok, err := d.Get("b", "k2"); v != "" || ok || err != nil {
		t.Errorf("got %q, %v, %v", v, ok, err)
	}
	for _, name := range []string{"state.db", "state.db-wal", "state.db-shm"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// lines makes n numbered lines.
func lines(from, n int) []byte {
	var b []byte
	for i := from; i < from+n; i++ {
		b = fmt.Appendf(b, "line %d\n", i)
	}
	return b
}

func add(t *testing.T, d *DB, stream string, b []byte) {
	t.Helper()
	check(t, d.Update(true, func(tx *Tx) error { return tx.Add(stream, b) }))
}

func TestLines(t *testing.T) {
	dir := t.TempDir()
	d := openTest(t, Options{Dir: dir})
	big := strings.Repeat("x", 3*maxChunk) + "\n"
	add(t, d, "tls", append(lines(0, 5), big...))
	add(t, d, "tls", lines(5, 5))
	add(t, d, "other", lines(0, 1))
	select {
	case <-d.Ready("tls"):
	default:
		t.Error("nothing is ready")
	}
	check(t, d.Close())

	// The lines outlive the process, and come in order whatever the sizes asked for.
	want := string(lines(0, 5)) + big + string(lines(5, 5))
	for _, size := range []struct{ lines, bytes int }{{1, 1 << 30}, {2, 1}, {3, 20}, {1000, 1 << 30}} {
		d = openTest(t, Options{Dir: dir})
		if n, b := d.Waiting("tls"); n != 11 || int(b) != len(want) {
			t.Errorf("%d lines of %d bytes wait", n, b)
		}
		select {
		case <-d.Ready("tls"):
		default:
			t.Error("nothing is ready")
		}
		var got strings.Builder
		for {
			again, err := d.Take("tls", size.lines, size.bytes)
			check(t, err)
			b, err := d.Take("tls", size.lines, size.bytes) // as after a failure
			check(t, err)
			if string(again.Lines) != string(b.Lines) || b.Count != strings.Count(string(b.Lines), "\n") || b.Count > size.lines {
				t.Fatalf("%+v: %d lines, %d bytes", size, b.Count, len(b.Lines))
			}
			if b.Count == 0 {
				break
			}
			if len(b.Lines) > size.bytes && b.Count > 1 {
				t.Fatalf("%+v: %d lines of %d bytes", size, b.Count, len(b.Lines))
			}
			got.Write(b.Lines)
			check(t, d.Done(b, 0, func(tx *Tx) error { return tx.Put("mark", "tls", fmt.Sprint(got.Len())) }))
		}
		if got.String() != want {
			t.Fatalf("%+v: lines differ", size)
		}
		if n, b := d.Waiting("tls"); n != 0 || b != 0 {
			t.Errorf("%d lines of %d bytes wait", n, b)
		}
		if v, _, _ := d.Get("mark", "tls"); v != fmt.Sprint(len(want)) {
			t.Errorf("mark %q", v)
		}
		add(t, d, "tls", []byte(want))
		check(t, d.Close())
	}
	d = openTest(t, Options{Dir: dir})
	if b, err := d.Take("other", 10, 100); err != nil || string(b.Lines) != "line 0\n" {
		t.Errorf("%q, %v", b.Lines, err)
	}
}

// TestLimits checks that the newest lines stay, that what goes is counted, and that lines in
// a logger's hands are not taken from it.
func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name              string
		maxLines, maxSize int64
		first, waiting    int
	}{
		{"lines", 10, 0, 90, 10},
		{"bytes", 0, 80, 90, 10},
		{"neither", 0, 0, 0, 100},
		{"both", 20, 80, 90, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			warned := 0
			d := openTest(t, Options{MaxLines: tt.maxLines, MaxBytes: tt.maxSize, Warn: func(string) { warned++ }})
			for i := range 100 {
				add(t, d, "s", []byte(fmt.Sprintf("line %02d\n", i)))
			}
			b, err := d.Take("s", 1000, 1<<20)
			check(t, err)
			if b.Count != tt.waiting || !strings.HasPrefix(string(b.Lines), fmt.Sprintf("line %02d\n", tt.first)) {
				t.Fatalf("%d lines: %.20q", b.Count, b.Lines)
			}
			add(t, d, "s", []byte("line A\nline B\n"))
			check(t, d.Done(b, 1, nil))
			c, err := d.Take("s", 1000, 1<<20)
			check(t, err)
			if string(c.Lines) != "line A\nline B\n" {
				t.Fatalf("then %q", c.Lines)
			}
			lost := uint64(100 - tt.waiting)
			want := []event.Count{
				{Source: "s", What: event.Generated, N: 102},
				{Source: "s", What: event.Delivered, N: uint64(tt.waiting) - 1},
			}
			if lost > 0 {
				want = append(want, event.Count{Source: "s", What: event.Lost, Reason: ReasonBufferFull, N: lost})
			}
			want = append(want, event.Count{Source: "s", What: event.Lost, Reason: ReasonLineTooLong, N: 1})
			if diff := cmp.Diff(want, d.Counts()); diff != "" {
				t.Error(diff)
			}
			if (warned > 0) != (lost > 0) {
				t.Errorf("%d warnings", warned)
			}
		})
	}
}

func TestRows(t *testing.T) {
	d := openTest(t, Options{Dir: t.TempDir()})
	h := func(s string) (h Hash) { copy(h[:], s); return h }
	check(t, d.Update(false, func(tx *Tx) error {
		for _, s := range []string{"a", "b", "c"} {
			if err := tx.SetRow("q", h(s), 2, []byte("row "+s)); err != nil {
				return err
			}
		}
		return tx.SetRow("other", h("a"), 1, []byte("row"))
	}))
	check(t, d.Update(false, func(tx *Tx) error {
		return errors.Join(tx.SetRow("q", h("a"), 0, nil), tx.SetRow("q", h("b"), 5, nil))
	}))
	got, err := d.Hashes("q")
	check(t, err)
	if diff := cmp.Diff(map[Hash]int64{h("b"): 5, h("c"): 2}, got); diff != "" {
		t.Error(diff)
	}
	check(t, d.Update(false, func(tx *Tx) error {
		if row, err := tx.Row("q", h("b")); string(row) != "row b" || err != nil {
			t.Errorf("row %q, %v", row, err)
		}
		if row, err := tx.Row("q", h("a")); row != nil || err != nil {
			t.Errorf("row %q, %v", row, err)
		}
		return tx.ForgetRows("q")
	}))
	if got, err := d.Hashes("q"); len(got) != 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := d.Hashes("other"); len(got) != 1 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	check(t, os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o644))
	var warned []string
	d := openTest(t, Options{Dir: dir, Warn: func(s string) { warned = append(warned, s) }})
	check(t, d.Put("a", "k", "v"))
	check(t, d.Close())
	if files, _ := filepath.Glob(path + ".corrupt-*"); len(files) == 0 || len(warned) != 1 {
		t.Errorf("files %v, warnings %v", files, warned)
	}

	d = openTest(t, Options{Dir: dir})
	check(t, d.db.Exec("PRAGMA user_version=9"))
	check(t, d.Close())
	var newer *NewerError
	if _, err := Open(Options{Dir: dir}); !errors.As(err, &newer) || newer.Have != 9 {
		t.Errorf("newer: %v", err)
	}
}
