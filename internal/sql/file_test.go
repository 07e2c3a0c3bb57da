package sql

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"
)

func TestFileTable(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.db", "b.db"} {
		db, err := sqlite3.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Exec("CREATE TABLE t (a, b, c); INSERT INTO t VALUES ('" + name + "', 1, x'00ff'), (NULL, 2.5, 'x')"); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	bad := filepath.Join(dir, "bad.db")
	if err := os.WriteFile(bad, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	paths := func() ([]string, error) {
		return []string{filepath.Join(dir, "a.db"), bad, filepath.Join(dir, "none.db"), filepath.Join(dir, "b.db")}, nil
	}
	const text = "SELECT a, b, c FROM t"
	e := openEngine(t, Options{},
		NewFileTable("good", text, []string{"C", "a", "b", "z"}, paths),
		NewFileTable("attach", "ATTACH '"+dir+"/x.db' AS x", []string{"a"}, paths),
		NewFileTable("change", "DELETE FROM t RETURNING a", []string{"a"}, paths),
		NewFileTable("hungry", "SELECT group_concat(hex(zeroblob(1000000))) AS a FROM t, t, t, t, t", []string{"a"}, paths),
	)
	a := &answer{}
	if err := e.Query(context.Background(), "SELECT * FROM good", a); err != nil {
		t.Fatal(err)
	}
	want := []string{"00ff|a.db|1||/a.db", "x||2.5||/a.db", "00ff|b.db|1||/b.db", "x||2.5||/b.db"}
	var got []string
	for _, r := range query(t, e, "SELECT c||'|'||a||'|'||b||'|'||z||'|'||path FROM good") {
		got = append(got, strings.ReplaceAll(r, dir, ""))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(a.warnings) != 2 {
		t.Errorf("warnings %q", a.warnings)
	}
	for _, name := range []string{"attach", "change", "hungry"} {
		if rows := query(t, e, "SELECT * FROM "+name); len(rows) != 0 {
			t.Errorf("%s: %q", name, rows)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("files %v", entries)
	}
}
