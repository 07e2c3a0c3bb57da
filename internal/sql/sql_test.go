package sql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/goshawk-project/goshawk/internal/schema"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
	os.Exit(0)
}

// answer is a Receiver that keeps everything as text: NULL is "NULL", statements are
// separated by a row "--".
type answer struct {
	names, types []string
	rows         []string
	warnings     []string
}

func (a *answer) Columns(names, types []string) error {
	if a.names != nil {
		a.rows = append(a.rows, "--")
	}
	a.names, a.types = names, types
	return nil
}

func (a *answer) Row(values []schema.Value) error {
	cells := make([]string, len(values))
	for i, v := range values {
		cells[i] = v.Text()
		if v.IsNull() {
			cells[i] = "NULL"
		}
	}
	a.rows = append(a.rows, strings.Join(cells, "|"))
	return nil
}

func (a *answer) Warning(s string) { a.warnings = append(a.warnings, s) }

// recorded is a relation over literal rows that remembers what scans were asked for.
type recorded struct {
	def  schema.Def
	rows [][]schema.Value
	// exact makes scans leave out what = and IN on keyed columns rule out, like a real
	// relation; else all rows are returned and SQLite must filter.
	exact  bool
	seen   []string
	open   atomic.Int32 // cursors not closed
	reads  []int        // columns whose cells were read
	before func(ctx context.Context, q *schema.Query) error
	next   func(ctx context.Context, i int) error
}

func (r *recorded) Def() *schema.Def { return &r.def }

var opNames = [...]string{"=", ">", ">=", "<", "<=", "LIKE", "GLOB", "IN"}

func (r *recorded) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	var words []string
	for _, c := range q.Constraints {
		word := r.def.Columns[c.Column].Name + " " + opNames[c.Op] + " "
		if c.Op == schema.In {
			var values []string
			for _, v := range c.Values {
				values = append(values, show(v))
			}
			word += "(" + strings.Join(values, ",") + ")"
		} else {
			word += show(c.Value)
		}
		words = append(words, word)
	}
	r.seen = append(r.seen, strings.Join(words, " AND "))
	if r.before != nil {
		if err := r.before(ctx, q); err != nil {
			return nil, err
		}
	}
	r.open.Add(1)
	return &recordedCursor{relation: r, q: q, ctx: ctx, at: -1}, nil
}

func show(v schema.Value) string {
	switch v.Kind() {
	case schema.KindText:
		return "'" + v.Text() + "'"
	case schema.KindFloat:
		return v.Text() + "f"
	}
	return v.Text()
}

type recordedCursor struct {
	relation *recorded
	q        *schema.Query
	ctx      context.Context
	at       int
}

func (k *recordedCursor) Next() (bool, error) {
	for {
		k.at++
		if k.relation.next != nil {
			if err := k.relation.next(k.ctx, k.at); err != nil {
				return false, err
			}
			return true, nil
		}
		if k.at >= len(k.relation.rows) {
			return false, nil
		}
		if !k.relation.exact || k.meets() {
			return true, nil
		}
	}
}

func (k *recordedCursor) meets() bool {
	row := k.relation.rows[k.at]
	for i := range k.relation.def.Columns {
		values, ok := k.q.Equals(i)
		if !ok || !isKeyed(&k.relation.def.Columns[i]) {
			continue
		}
		found := false
		for _, v := range values {
			found = found || v.Text() == row[i].Text() ||
				k.relation.def.Columns[i].Collate == "nocase" && strings.EqualFold(v.Text(), row[i].Text())
		}
		if !found {
			return false
		}
	}
	return true
}

func (k *recordedCursor) Value(i int) schema.Value {
	k.relation.reads = append(k.relation.reads, i)
	if k.relation.next != nil {
		return schema.IntValue(int64(k.at))
	}
	return k.relation.rows[k.at][i]
}

func (k *recordedCursor) Close() error { k.relation.open.Add(-1); return nil }

func column(name string, t schema.Type, flags schema.Flag) schema.ColumnDef {
	return schema.ColumnDef{Name: name, Type: t, Flags: flags, Doc: "for a test"}
}

func row(cells ...any) []schema.Value {
	var out []schema.Value
	for _, c := range cells {
		switch c := c.(type) {
		case nil:
			out = append(out, schema.Null)
		case int:
			out = append(out, schema.IntValue(int64(c)))
		case float64:
			out = append(out, schema.FloatValue(c))
		case string:
			out = append(out, schema.TextValue(c))
		default:
			panic(fmt.Sprintf("no cell of %T", c))
		}
	}
	return out
}

// The tables of most tests: users and processes as osquery has them, and file, which
// needs a path or a directory.
func testTables() (users, processes, file *recorded) {
	users = &recorded{exact: true, def: schema.Def{Name: "users", Columns: []schema.ColumnDef{
		column("uid", schema.BigInt, schema.Index),
		column("username", schema.Text, schema.Additional),
		column("directory", schema.Text, 0),
		column("is_hidden", schema.Integer, schema.Hidden),
	}}, rows: [][]schema.Value{
		row(0, "root", "/root", 0),
		row(1000, "ann", "/home/ann", 0),
		row(1001, "bob", "/home/bob", 1),
	}}
	processes = &recorded{exact: true, def: schema.Def{Name: "processes", Columns: []schema.ColumnDef{
		column("pid", schema.BigInt, schema.Index|schema.Optimized),
		column("name", schema.Text, 0),
		column("uid", schema.BigInt, 0),
		column("load", schema.Double, 0),
		{Name: "denylisted", Type: schema.Integer, Aliases: []string{"blacklisted"}},
		column("raw", schema.Text, schema.Internal),
		{Name: "version", Type: schema.Text, Collate: "version"},
		{Name: "uuid", Type: schema.Text, Collate: "nocase", Flags: schema.Index},
	}, Aliases: []string{"procs"}}, rows: [][]schema.Value{
		row(1, "systemd", 0, 0.5, 0, "x", "1.9", "AA"),
		row(7, "sshd", 0, 1.0, 1, "x", "1.10", "bb"),
		row(42, "bash", 1000, nil, 0, "x", "", "aa"),
	}}
	file = &recorded{exact: true, def: schema.Def{Name: "file", Columns: []schema.ColumnDef{
		column("path", schema.Text, schema.Required|schema.Index|schema.Optimized),
		column("directory", schema.Text, schema.Required|schema.Optimized),
		column("size", schema.BigInt, 0),
	}}, rows: [][]schema.Value{
		row("/root/a", "/root", 1),
		row("/home/ann/b", "/home/ann", 2),
		row("/home/ann/c", "/home/ann", 3),
	}}
	return users, processes, file
}

func openEngine(t testing.TB, o Options, relations ...schema.Relation) *Engine {
	t.Helper()
	e, err := Open(relations, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func query(t testing.TB, e *Engine, text string) []string {
	t.Helper()
	var a answer
	if err := e.Query(context.Background(), text, &a); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a.rows
}

func queryError(t testing.TB, e *Engine, text string) *Error {
	t.Helper()
	var a answer
	err := e.Query(context.Background(), text, &a)
	var failed *Error
	if !errors.As(err, &failed) {
		t.Fatalf("%s: got error %v and rows %q, want an *Error", text, err, a.rows)
	}
	return failed
}

func TestQuery(t *testing.T) {
	users, processes, file := testTables()
	e := openEngine(t, Options{}, users, processes, file)
	tests := []struct {
		name, text string
		want       []string
	}{
		{"all", "SELECT * FROM users", []string{"0|root|/root", "1000|ann|/home/ann", "1001|bob|/home/bob"}},
		{"hidden", "SELECT uid, is_hidden FROM users WHERE is_hidden = 1", []string{"1001|1"}},
		{"internal columns do not exist", "SELECT count(*) FROM pragma_table_xinfo('processes') WHERE name = 'raw'", []string{"0"}},
		{"column alias", "SELECT pid, blacklisted FROM processes WHERE blacklisted = 1", []string{"7|1"}},
		{"column alias is hidden", "SELECT * FROM processes WHERE pid = 7", []string{"7|sshd|0|1|1|1.10|bb"}},
		{"table alias", "SELECT name FROM procs WHERE pid = 42", []string{"bash"}},
		{"case of names", "SELECT Name FROM PROCESSES WHERE PID = 42", []string{"bash"}},
		{"null", "SELECT load FROM processes WHERE pid = 42", []string{"NULL"}},
		{"double quotes for text", `SELECT pid FROM processes WHERE name = "bash"`, []string{"42"}},
		{"several statements", " ; SELECT 1; -- x\n/* y */ ; SELECT 2 ;; ", []string{"1", "--", "2"}},
		{"nothing", " -- only a comment", nil},
		{"like", "SELECT pid FROM processes WHERE name LIKE 'S%' ORDER BY pid", []string{"1", "7"}},
		{"like with escape", `SELECT path FROM file WHERE path LIKE '/home/ann/_' ESCAPE '\' AND directory = '/home/ann' ORDER BY 1`, []string{"/home/ann/b", "/home/ann/c"}},
		{"glob", "SELECT pid FROM processes WHERE name GLOB 's*' ORDER BY pid", []string{"1", "7"}},
		{"nocase column", "SELECT pid FROM processes WHERE uuid = 'AA' ORDER BY pid", []string{"1", "42"}},
		{"version column", "SELECT version FROM processes WHERE version > '1.9'", []string{"1.10"}},
		{"version order", "SELECT version FROM processes ORDER BY version DESC", []string{"1.10", "1.9", ""}},
		{"or over one table", "SELECT pid FROM processes WHERE pid = 1 OR uuid = 'aa' ORDER BY pid", []string{"1", "42"}},
		{"or over required columns", "SELECT path FROM file WHERE path = '/home/ann/b' OR directory = '/home/ann' OR path = '/root/a' ORDER BY 1",
			[]string{"/home/ann/b", "/home/ann/c", "/root/a"}},
		{"join supplies the required column", "SELECT username, size FROM users u JOIN file f ON f.directory = u.directory ORDER BY size", []string{"root|1", "ann|2", "ann|3"}},
		{"join the other way round", "SELECT username, size FROM file f JOIN users u USING (directory) ORDER BY size", []string{"root|1", "ann|2", "ann|3"}},
		{"left join", "SELECT username, size FROM users u LEFT JOIN file f ON f.path = u.directory || '/a' ORDER BY uid", []string{"root|1", "ann|NULL", "bob|NULL"}},
		{"cross join using", "SELECT username, name FROM users CROSS JOIN processes USING (uid) ORDER BY pid", []string{"root|systemd", "root|sshd", "ann|bash"}},
		{"in a subquery", "SELECT size FROM file WHERE path IN (SELECT directory || '/a' FROM users)", []string{"1"}},
		{"common table expression", "WITH h AS (SELECT directory FROM users WHERE uid >= 1000) SELECT count(*) FROM h", []string{"2"}},
		{"recursion", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n", []string{"15"}},
		{"union", "SELECT uid FROM users UNION SELECT uid FROM processes ORDER BY 1", []string{"0", "1000", "1001"}},
		{"json", "SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]')", []string{"2"}},
		{"temporary view", "CREATE TEMP VIEW v AS SELECT name FROM processes; SELECT count(*) FROM v; DROP VIEW v", []string{"3"}},
		{"table_info", "SELECT name, type FROM pragma_table_info('users')", []string{"uid|BIGINT", "username|TEXT", "directory|TEXT"}},
		{"table_info as a statement", "PRAGMA table_info(users)", []string{"0|uid|BIGINT|0|NULL|0", "1|username|TEXT|0|NULL|0", "2|directory|TEXT|0|NULL|0"}},
		{"arbitrary bytes", "SELECT hex(CAST(x'ff00fe' AS TEXT)), x'ff00fe'", []string{"FF00FE|\xff\x00\xfe"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, query(t, e, tt.text)); d != "" {
				t.Errorf("%s (-want +got):\n%s", tt.text, d)
			}
		})
	}
	for _, r := range []*recorded{users, processes, file} {
		if n := r.open.Load(); n != 0 {
			t.Errorf("%d cursors of %s are still open", n, r.def.Name)
		}
	}
}

func TestColumnTypes(t *testing.T) {
	users, processes, _ := testTables()
	e := openEngine(t, Options{}, users, processes)
	var a answer
	if err := e.Query(context.Background(), "SELECT uid, username AS u, load, uid + 1 FROM users JOIN processes USING (uid)", &a); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"uid", "u", "load", "uid + 1"}, a.names); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"BIGINT", "TEXT", "DOUBLE", ""}, a.types); d != "" {
		t.Errorf("types (-want +got):\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	users, processes, file := testTables()
	e := openEngine(t, Options{}, users, processes, file)
	const missing = "Table file was queried without a required column in the WHERE clause"
	const add = "add a condition with =, IN, LIKE or GLOB, or a join, on path or directory"
	tests := []struct{ text, want, hint string }{
		// Fleet's pattern for this one is ^no such table: \S+$.
		{"SELECT * FROM user", "no such table: user", "did you mean users?"},
		{"SELECT * FROM main.proceses", "no such table: main.proceses", "did you mean processes?"},
		{"SELECT * FROM zzz", "no such table: zzz", ""},
		{"SELECT usrname FROM users", "no such column: usrname", "did you mean username?"},
		{"SELECT 1; SELECT uid FROM processes p WHERE p.nam = 1", "no such column: p.nam", "did you mean name?"},
		{"SELECT * FROM file", missing, add},
		{"SELECT * FROM file WHERE path > '/'", missing, add},
		{"SELECT * FROM file WHERE path = '/a' UNION SELECT * FROM file", missing, add},
		{"SELECT * FROM users JOIN file ON size = uid", missing, add},
		{"SELEC 1", `near "SELEC": syntax error`, ""},
		{"SELECT '\n", `unrecognized token: "' "`, ""},
		{"INSERT INTO users VALUES (1)", "not authorized", "INSERT, UPDATE or DELETE is refused: a query may only read"},
		{"CREATE TABLE t(a)", "not authorized", "CREATE, DROP or ALTER is refused: a query may only read"},
		{"CREATE TEMP TABLE t(a)", "not authorized", "CREATE, DROP or ALTER is refused: a query may only read"},
		{"ATTACH '/etc/passwd' AS a", "not authorized", "ATTACH is refused: a query may only read"},
		{"VACUUM INTO '/tmp/stolen'", "not authorized", "ATTACH is refused: a query may only read"},
		{"INSERT INTO sqlite_temp_master VALUES (1, 2, 3, 4, 5)", "table sqlite_temp_master may not be modified", ""},
		{"CREATE TEMP TRIGGER t AFTER INSERT ON users BEGIN SELECT 1; END", "cannot create triggers on virtual tables", ""},
		{"BEGIN", "not authorized", "a transaction is refused: a query may only read"},
		{"PRAGMA journal_mode = WAL", "not authorized", "PRAGMA journal_mode is refused: a query may only read"},
		{"SELECT * FROM pragma_journal_mode", "not authorized", "PRAGMA journal_mode is refused: a query may only read"},
		{"SELECT 1\x00", "the query contains a NUL byte", ""},
		{"SELECT carve('/etc/passwd')", "carving is disabled", ""},
		{strings.Repeat(" ", 512<<10+1), "the query is 524289 bytes long, more than 524288", ""},
	}
	for _, tt := range tests {
		got := queryError(t, e, tt.text)
		if got.Text != tt.want || got.Hint != tt.hint {
			t.Errorf("%.60q:\n got %q, hint %q\nwant %q, hint %q", tt.text, got.Text, got.Hint, tt.want, tt.hint)
		}
	}
	if got := query(t, e, "SELECT count(*) FROM sqlite_schema"); got[0] != "0" {
		t.Errorf("the schema has %s rows after all that, want 0", got[0])
	}
}

func TestTwoTablesWithOneName(t *testing.T) {
	users, processes, _ := testTables()
	processes.def.Aliases = []string{"USERS"}
	_, err := Open([]schema.Relation{users, processes}, Options{})
	if err == nil || err.Error() != `open query engine: two tables are called "USERS"` {
		t.Errorf("got error %v", err)
	}
}

func TestRelationError(t *testing.T) {
	users, _, _ := testTables()
	users.before = func(context.Context, *schema.Query) error {
		return fmt.Errorf("read /etc/passwd: %w", os.ErrPermission)
	}
	e := openEngine(t, Options{}, users)
	err := e.Query(context.Background(), "SELECT * FROM users", &answer{})
	if !errors.Is(err, os.ErrPermission) || err.Error() != "scan users: read /etc/passwd: permission denied" {
		t.Errorf("at open: got %v", err)
	}
	users.before = nil
	users.next = func(_ context.Context, i int) error {
		if i == 3 {
			return os.ErrClosed
		}
		return nil
	}
	var a answer
	err = e.Query(context.Background(), "SELECT uid FROM users", &a)
	if !errors.Is(err, os.ErrClosed) || len(a.rows) != 3 {
		t.Errorf("at row 3: got %v after %d rows", err, len(a.rows))
	}
	if n := users.open.Load(); n != 0 {
		t.Errorf("%d cursors are still open", n)
	}
}

type refusing struct{ answer }

func (*refusing) Row([]schema.Value) error { return os.ErrClosed }

func TestReceiverError(t *testing.T) {
	users, _, _ := testTables()
	e := openEngine(t, Options{}, users)
	if err := e.Query(context.Background(), "SELECT * FROM users", &refusing{}); err != os.ErrClosed {
		t.Errorf("got %v, want the receiver's error unchanged", err)
	}
	if n := users.open.Load(); n != 0 {
		t.Errorf("%d cursors are still open", n)
	}
}

func TestWarnings(t *testing.T) {
	users, _, file := testTables()
	file.before = func(_ context.Context, q *schema.Query) error { q.Warning("watch out"); return nil }
	e := openEngine(t, Options{}, users, file)
	var a answer
	// Three scans of file, and a function that warns for each of three rows.
	if err := e.Query(context.Background(),
		"SELECT username FROM users LEFT JOIN file USING (directory) WHERE community_id_v1('', '', 1, 2, 3) IS NULL", &a); err != nil {
		t.Fatal(err)
	}
	want := []string{"Community ID saddr cannot be parsed as IP", "watch out"} // constants come first
	if d := cmp.Diff(want, a.warnings); d != "" {
		t.Errorf("warnings (-want +got):\n%s", d)
	}
}
