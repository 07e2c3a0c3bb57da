package sql

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// FuzzQuery runs any text as SQL: it must not panic, and must leave nothing behind, in
// SQLite or in the directory.
func FuzzQuery(f *testing.F) {
	seeds := []string{
		"SELECT * FROM users JOIN file USING (directory)",
		"SELECT * FROM file WHERE path IN (SELECT directory || '/a' FROM users) OR directory GLOB '*'",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) SELECT * FROM n, users",
		"CREATE TEMP VIEW v AS SELECT * FROM processes; SELECT * FROM v; DROP VIEW v;",
		"ATTACH 'fuzz.db' AS f; CREATE TABLE f.t(a)", "VACUUM INTO 'fuzz.db'",
		"PRAGMA writable_schema = 1; INSERT INTO sqlite_master VALUES ('table', 't', 't', 2, 'CREATE TABLE t(a)')",
		"CREATE TABLE t AS SELECT * FROM users", "CREATE VIRTUAL TABLE t USING users", "ALTER TABLE users RENAME TO x",
		"CREATE TEMP TRIGGER t INSTEAD OF INSERT ON v BEGIN SELECT 1; END", "EXPLAIN SELECT * FROM users", "BEGIN; COMMIT",
		"SELECT split(username, directory, uid), regex_match(username, '(.)(.)', 2) FROM users",
		"SELECT version FROM processes ORDER BY version COLLATE version_rhel", "SELECT group_concat(name) OVER () FROM processes",
		"SELECT rowid, * FROM users WHERE rowid > 1 OR uid = 2", "SELECT uid FROM users WHERE uid < 1.5 AND username > x'00' AND uid LIKE 1",
		"SELECT * FROM pragma_table_xinfo('users'), pragma_function_list", "SELECT ?1, :a, @b, $c", "SELECT \"users\".* FROM users AS \"users\"",
		"SELECT writefile('fuzz.db', 'x'), load_extension('x'), fts3_tokenizer('x'), readfile('x')",
		"DELETE FROM sqlite_temp_master; UPDATE users SET uid = 1; REINDEX; ANALYZE; DROP TABLE users",
		"SELECT '\xff\xfe\x80', x'ff', 1e999, -9223372036854775808, 0x7fffffffffffffff", "/* */ ;; --\n; SELECT 1 \v",
		"SELECT printf('%99999999d', 1), zeroblob(1e9), randomblob(99999999), replace(hex(zeroblob(9999)), '0', hex(zeroblob(9999)))",
	}
	for _, s := range seeds {
		f.Add(s)
	}
	users, processes, file := testTables()
	for _, r := range []*recorded{users, processes, file} {
		r.exact = false
	}
	e := openEngine(f, Options{Memory: 8 << 20}, plain{users}, plain{processes}, plain{file})
	f.Chdir(f.TempDir())
	f.Fuzz(func(t *testing.T, text string) {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		err := e.Query(ctx, text, &discard{})
		if err != nil && (err.Error() == "" || strings.ContainsAny(err.Error(), "\n\r\x1b") || strings.Contains(err.Error(), "BUG")) {
			t.Errorf("error %q", err)
		}
		if got := query(t, e, "SELECT (SELECT count(*) FROM sqlite_schema) + (SELECT count(*) FROM sqlite_temp_schema)"); got[0] != "0" {
			t.Errorf("the schema has %s rows", got[0])
		}
		if files, err := os.ReadDir("."); err != nil || len(files) > 0 {
			t.Errorf("the directory has %v, %v", files, err)
		}
	})
}

// FuzzWhere compiles any text as a condition and asks it about two rows.
func FuzzWhere(f *testing.F) {
	for _, s := range []string{
		"pid = 42 AND path LIKE '/usr/%'", "1) OR (1", "1) FROM exec_events, (SELECT 1", "max(pid)", "pid IN (SELECT 1)",
		"count(*) OVER (PARTITION BY pid)", "(pid, uid) = (1, 2)", "pid -- x", "pid /*", "CASE WHEN pid THEN path END", "pid COLLATE x",
		"raise(abort, 'x')", "rowid", "exec_events", "exec_events.*", "pid = ?", "group_concat(path)", "json_each.value", "pid ISNULL",
	} {
		f.Add(s)
	}
	e := openEngine(f, Options{})
	f.Fuzz(func(t *testing.T, expr string) {
		w, err := e.Where(&whereDef, expr)
		if err != nil {
			return
		}
		defer w.Close()
		for range 2 {
			if _, err := w.Match(cells(row(42, "/usr/bin/bash", "abc", 0, "x", "Wheel"))); err != nil && strings.Contains(err.Error(), "BUG") {
				t.Errorf("%q: %v", expr, err)
			}
		}
	})
}
