package table

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// scan returns all rows of one scan.
func scan(t *testing.T, r schema.Relation, q *schema.Query) [][]schema.Value {
	t.Helper()
	rows, err := tryScan(r, q)
	if err != nil {
		t.Fatalf("scan %s: %v", r.Def().Name, err)
	}
	return rows
}

func tryScan(r schema.Relation, q *schema.Query) (rows [][]schema.Value, err error) {
	c, err := r.Open(context.Background(), q)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	for {
		ok, err := c.Next()
		if err != nil || !ok {
			return rows, err
		}
		row := make([]schema.Value, len(r.Def().Columns))
		for i := range row {
			row[i] = c.Value(i)
		}
		rows = append(rows, row)
	}
}

// cells returns the named columns of the rows as text, NULL as "NULL".
func cells(r schema.Relation, rows [][]schema.Value, columns ...string) [][]string {
	var out [][]string
	for _, row := range rows {
		var line []string
		for _, name := range columns {
			v := row[r.Def().Column(name)]
			if v.IsNull() {
				line = append(line, "NULL")
			} else {
				line = append(line, v.Text())
			}
		}
		out = append(out, line)
	}
	return out
}

// where is a query with column = or IN values.
func where(r schema.Relation, column string, values ...any) *schema.Query {
	return (&schema.Query{Constraints: []schema.Constraint{equals(r, column, values...)}})
}

func equals(r schema.Relation, column string, values ...any) schema.Constraint {
	var vs []schema.Value
	for _, v := range values {
		switch v := v.(type) {
		case int:
			vs = append(vs, schema.IntValue(int64(v)))
		case string:
			vs = append(vs, schema.TextValue(v))
		default:
			panic("BUG: value of an odd type")
		}
	}
	c := schema.Constraint{Column: r.Def().Column(column), Op: schema.Eq, Value: vs[0]}
	if len(vs) > 1 {
		c = schema.Constraint{Column: c.Column, Op: schema.In, Values: vs}
	}
	return c
}

func whereLike(r schema.Relation, column, pattern string) *schema.Query {
	return &schema.Query{Constraints: []schema.Constraint{{
		Column: r.Def().Column(column), Op: schema.Like, Value: schema.TextValue(pattern),
	}}}
}

// here is this host; at is a host whose root is a directory.
func here() *Env { return &Env{FS: procfs.At("")} }

func at(root string) *Env { return &Env{FS: procfs.At(root), HostRoot: root} }

// tree makes files below a new directory: a name that ends in a slash is a directory, a
// content that begins with "-> " a symbolic link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		up := filepath.Dir(path)
		if name[len(name)-1] == '/' {
			up = path
		}
		if err := os.MkdirAll(up, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case up == path:
		case len(content) > 3 && content[:3] == "-> ":
			err = os.Symlink(content[3:], path)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fixture is a host root in testdata.
func fixture(t *testing.T, name string) *Env {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return at(dir)
}

// whereAll is a query without constraints.
func whereAll() *schema.Query { return &schema.Query{} }

func mkfifo(path string) error { return unix.Mkfifo(path, 0o644) }
