package store

import (
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// sqlOn runs SQL on the database of a store that is closed.
func sqlOn(t *testing.T, dir, sql string) {
	t.Helper()
	c, err := openDB(dbPath(dir), "", readWrite, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(c)
	if err := c.Exec(sql); err != nil {
		t.Fatal(err)
	}
}

// filled makes a store of n events in dir and returns them.
func filled(t *testing.T, dir string, n int) []event.Event {
	t.Helper()
	s := open(t, Options{Dir: dir})
	events := newFeed().batch(n)
	for _, e := range events {
		s.Append(e)
	}
	commit(t, s)
	shut(t, s)
	return events
}

func TestDamagedFilesAreMovedAside(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
	}{
		{"garbage", func(t *testing.T, path string) { write(t, path, []byte(strings.Repeat("not a database ", 1000))) }},
		{"another application", func(t *testing.T, path string) {
			os.Remove(path)
			write(t, path, nil)
			sqlOn(t, filepath.Dir(path), `CREATE TABLE notes (text TEXT)`)
		}},
		{"tables gone", func(t *testing.T, path string) { sqlOn(t, filepath.Dir(path), `DROP TABLE data`) }},
		{"first page", func(t *testing.T, path string) { overwrite(t, path, 100, 3000) }},
		{"directory", func(t *testing.T, path string) { overwrite(t, path, 2*4096, 5*4096) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			filled(t, dir, 6000)
			c.damage(t, dbPath(dir))
			damaged, err := os.ReadFile(dbPath(dir))
			if err != nil {
				t.Fatal(err)
			}
			if r, err := OpenReader(dir); err == nil {
				_, err := collect(t.Context(), r, event.Selection{})
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, errBlock) {
					t.Errorf("a reader says %v", err)
				}
				r.Close()
			} else if !errors.Is(err, ErrCorrupt) {
				t.Errorf("a reader says %v", err)
			}
			var w warnings
			s := open(t, Options{Dir: dir, Warn: w.add})
			e := newFeed().nextExec()
			s.Append(e)
			commit(t, s)
			same(t, "in the new one", []event.Event{e}, all(t, s, event.Selection{}))
			w.expect(t, "damaged and was moved to")
			aside, err := filepath.Glob(dbPath(dir) + ".corrupt-*Z")
			if err != nil || len(aside) != 1 {
				t.Fatalf("moved to %q, %v", aside, err)
			}
			kept, err := os.ReadFile(aside[0])
			if err != nil || !slices.Equal(kept, damaged) {
				t.Errorf("what was moved aside is not what was damaged (%v)", err)
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, from, to int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, to-from)
	r := rand.NewChaCha8([32]byte{})
	r.Read(b)
	if _, err := f.WriteAt(b, from); err != nil {
		t.Fatal(err)
	}
}

// TestDamageFoundLater breaks the file under a store that is open.
func TestDamageFoundLater(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 30_000)
	var w warnings
	s := open(t, Options{Dir: dir, Warn: w.add})
	info, err := os.Stat(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, dbPath(dir), 4096, info.Size())
	if _, err := collect(t.Context(), s, event.Selection{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a scan says %v", err)
	}
	want := newFeed().batch(10)
	for _, e := range want {
		s.Append(e)
	}
	commit(t, s)
	same(t, "afterwards", want, all(t, s, event.Selection{}))
	w.expect(t, "damaged and was moved to")
}

// TestOneDamagedBlock costs its rows, which are counted once, and no others.
func TestOneDamagedBlock(t *testing.T) {
	dir := t.TempDir()
	events := filled(t, dir, 9000)
	sqlOn(t, dir, `UPDATE data SET columns = CAST(substr(columns, 1, 500) || x'00' || substr(columns, 502) AS BLOB) WHERE last_eid =
		(SELECT last_eid FROM block WHERE stream = 'exit_events' ORDER BY last_eid LIMIT 1 OFFSET 1)`)
	sqlOn(t, dir, `UPDATE block SET layout = 77 WHERE last_eid =
		(SELECT last_eid FROM block WHERE stream = 'exec_events' ORDER BY last_eid LIMIT 1)`)
	var w warnings
	s := open(t, Options{Dir: dir, Warn: w.add})
	for range 2 {
		got := all(t, s, event.Selection{})
		if len(got) != len(events)-2000 {
			t.Errorf("%d events are left of %d", len(got), len(events))
		}
	}
	if diff := cmp.Diff(map[string]uint64{"damaged exit": 1000, "damaged exec": 1000}, lost(s)); diff != "" {
		t.Error(diff)
	}
	w.expect(t, "1000 rows of exec_events (eid 1 to 2998) cannot be read", "1000 rows of exit_events (eid 3003 to 6000) cannot be read")
}

func TestAStoreOfTheFuture(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 10)
	sqlOn(t, dir, `PRAGMA user_version = 2`)
	want := NewerError{Path: dbPath(dir), Have: 2, Known: 1}
	for _, open := range []func() error{
		func() error { _, err := Open(Options{Dir: dir}); return err },
		func() error { _, err := OpenReader(dir); return err },
	} {
		var newer *NewerError
		if err := open(); !errors.Is(err, ErrNewer) || !errors.As(err, &newer) || *newer != want {
			t.Errorf("got %v", err)
		}
	}
	if _, err := os.Stat(dbPath(dir)); err != nil {
		t.Error(err)
	}
}

// kindsWith returns the kinds, exec with columns of its own choosing.
func kindsWith(columns func([]event.Column) []event.Column) []*event.Kind {
	kinds := slices.Clone(event.Kinds)
	for i, k := range kinds {
		if k.ID == event.KindExec {
			c := *k
			c.Columns = columns(slices.Clone(k.Columns))
			kinds[i] = &c
		}
	}
	return kinds
}

func TestColumnsComeAndGo(t *testing.T) {
	dir := t.TempDir()
	without := func(names ...string) func([]event.Column) []event.Column {
		return func(all []event.Column) []event.Column {
			return slices.DeleteFunc(all, func(c event.Column) bool { return slices.Contains(names, c.Name) })
		}
	}
	run := func(kinds []*event.Kind, check func(s *Store, last *event.Exec)) {
		t.Helper()
		s := open(t, Options{Dir: dir, kinds: kinds})
		e := newFeed().nextExec()
		e.Memfd = true
		s.Append(e)
		commit(t, s)
		check(s, e)
		shut(t, s)
	}
	// An old agent knew neither memfd nor cwd, and had a column that is gone since.
	gone := schema.Str("gone", func(e event.Event) *string { return &e.(*event.Exec).Script }, "")
	run(kindsWith(func(all []event.Column) []event.Column {
		return append([]event.Column{gone}, without("memfd", "cwd", "script")(all)...)
	}), func(*Store, *event.Exec) {})
	// The present one.
	run(nil, func(s *Store, last *event.Exec) {
		got := all(t, s, event.Selection{})
		if len(got) != 2 {
			t.Fatalf("%d events", len(got))
		}
		old := *last
		old.EID, old.Memfd, old.Cwd = 1, false, ""
		if diff := cmp.Diff([]event.Event{&old, last}, got); diff != "" {
			t.Error(diff)
		}
		for value, want := range map[int64]int{0: 1, 1: 1} {
			if got := all(t, s, event.Selection{Equal: []event.Equal{{Column: "memfd", Values: []int64{value}}}}); len(got) != want {
				t.Errorf("memfd = %d: %d events", value, len(got))
			}
		}
	})
	// And an old one again, which must not forget what it does not know.
	run(kindsWith(without("args")), func(s *Store, _ *event.Exec) {
		for range 200 {
			s.Append(newFeed().nextExec())
			commit(t, s)
		}
	})
	run(nil, func(s *Store, last *event.Exec) {
		with := 0
		for _, e := range all(t, s, event.Selection{}) {
			if e.(*event.Exec).Args == last.Args {
				with++
			}
		}
		if with != 3 {
			t.Errorf("%d events have their arguments, not 3", with)
		}
	})
}

func TestReadingWithoutAnAgent(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReader(dir); !errors.Is(err, ErrMissing) {
		t.Errorf("no store: %v", err)
	}
	want := filled(t, dir, 3000)
	for _, c := range []struct {
		name string
		make func() error
	}{
		{"as it was left", func() error { return nil }},
		{"again", func() error { return nil }},
		// Neither may its files be made: what a read-only file system says, as root too.
		{"where nothing can be made", func() error {
			os.Remove(dbPath(dir) + "-wal")
			return os.Symlink("nowhere", dbPath(dir)+"-wal")
		}},
	} {
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		same(t, c.name, want, all(t, r, event.Selection{}))
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzBlock gives the decoder any bytes: it complains or it decodes, in bounded memory.
func FuzzBlock(f *testing.F) {
	all, byKind := streamsOf(event.Kinds)
	p, err := newPacker()
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{1, 3, 300} {
		for _, kind := range []event.ID{event.KindExec, event.KindConnect, event.KindExit} {
			b := newBuilder(byKind[kind], maphash.MakeSeed())
			for i, e := range newFeed().only(kind, n) {
				e.Head().EID = int64(i + 1)
				b.add(e.Head())
			}
			data := p.pack(b).data
			f.Add(data[:len(data)-crcBytes])
		}
	}
	z, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = sealed(data)
		for _, st := range all {
			l, err := parseLayout(st, st.layout)
			if err != nil {
				t.Fatal(err)
			}
			h, err := newHead(st, &pool{streams: all, byKind: byKind}, &event.Selection{MaxEID: 1 << 60, From: -1 << 60, To: 1 << 62})
			if err != nil {
				t.Fatal(err)
			}
			h.columns = make([]columnBuffer, len(st.columns))
			b := block{zstd: z}
			if err = b.open(data, l); err == nil {
				err = h.decode(&b, len(data)%2 == 0)
			}
			if err != nil {
				if !errors.Is(err, errBlock) {
					t.Fatal(err)
				}
				continue
			}
			for h.at < len(h.rows) {
				h.next()
			}
		}
	})
}

// FuzzLayout gives the parser of layouts any text.
func FuzzLayout(f *testing.F) {
	_, byKind := streamsOf(event.Kinds)
	st := byKind[event.KindExec]
	f.Add(st.layout)
	f.Add("i pid\ns pid\nx\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLayout(st, text)
		if err != nil {
			return
		}
		for i, at := range l.at {
			if at >= len(l.text) || at >= 0 && l.text[at] != (st.columns[i].Str != nil) {
				t.Fatalf("column %d is at %d of %v", i, at, l.text)
			}
		}
	})
}
