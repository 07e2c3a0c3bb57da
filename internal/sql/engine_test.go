package sql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// endless is a relation whose scans only end when their context does.
func endless() *recorded {
	return &recorded{
		def: schema.Def{Name: "endless", Columns: []schema.ColumnDef{
			column("n", schema.BigInt, 0), column("big", schema.Text, 0),
		}},
		next: func(context.Context, int) error { return nil },
	}
}

const endlessSQL = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

func TestCancel(t *testing.T) {
	tests := []struct{ name, text string }{
		{"in SQLite", endlessSQL},
		{"in a scan", "SELECT sum(n) FROM endless"},
		{"while rows flow", "SELECT n FROM endless"},
		{"in a join", "SELECT count(*) FROM endless a, endless b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			relation := endless()
			e := openEngine(t, Options{}, relation)
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			err := e.Query(ctx, tt.text, &discard{})
			if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "query stopped: context deadline exceeded" {
				t.Errorf("got %v", err)
			}
			if n := relation.open.Load(); n != 0 {
				t.Errorf("%d cursors are still open", n)
			}
			if got := query(t, e, "SELECT 1"); got[0] != "1" {
				t.Errorf("the next query got %q", got)
			}
		})
	}
}

type discard struct{}

func (*discard) Columns([]string, []string) error { return nil }
func (*discard) Row([]schema.Value) error         { return nil }
func (*discard) Warning(string)                   {}

func TestCancelledBefore(t *testing.T) {
	e := openEngine(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Query(ctx, "SELECT 1", &discard{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestCloseEndsQueries closes an engine under a running query and a waiting one.
func TestCloseEndsQueries(t *testing.T) {
	relation := endless()
	started := make(chan struct{})
	var once sync.Once
	relation.before = func(context.Context, *schema.Query) error { once.Do(func() { close(started) }); return nil }
	e, err := Open([]schema.Relation{relation}, Options{Queries: 1})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- e.Query(context.Background(), "SELECT sum(n) FROM endless", &discard{}) }()
	}
	<-started
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := e.Query(context.Background(), "SELECT 1", &discard{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}

// TestConcurrent runs good, cancelled and greedy queries side by side.
func TestConcurrent(t *testing.T) {
	users, processes, file := testTables()
	for _, r := range []*recorded{users, processes, file} {
		r.exact = false // the recorded questions are not for several goroutines
	}
	relations := []schema.Relation{endless(), plain{users}, plain{processes}, plain{file}}
	e := openEngine(t, Options{Memory: 8 << 20, Queries: 3}, relations...)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			switch i % 4 {
			case 0:
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
				defer cancel()
				if err := e.Query(ctx, endlessSQL, &discard{}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("endless: got %v", err)
				}
			case 1:
				if err := e.Query(context.Background(), greedySQL, &discard{}); err == nil || !strings.HasPrefix(err.Error(), "out of memory") {
					t.Errorf("greedy: got %v", err)
				}
			default:
				for range 20 {
					var a answer
					err := e.Query(context.Background(), "SELECT username FROM users JOIN file USING (directory) ORDER BY size", &a)
					if got := strings.Join(a.rows, " "); err != nil || got != "root ann ann" {
						t.Errorf("got %q, %v", got, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// plain hides what a recorded relation remembers, for use by several goroutines.
type plain struct{ r *recorded }

func (p plain) Def() *schema.Def { return &p.r.def }

func (p plain) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	return (&recorded{def: p.r.def, rows: p.r.rows}).Open(ctx, q)
}

// greedySQL sorts more than any test allows.
const greedySQL = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000)
	SELECT i, hex(randomblob(1000)) AS r FROM n ORDER BY r`

func TestOutOfMemory(t *testing.T) {
	users, _, _ := testTables()
	huge := &recorded{def: schema.Def{Name: "huge", Columns: []schema.ColumnDef{column("s", schema.Text, 0)}},
		rows: [][]schema.Value{row(strings.Repeat("x", 10<<20))}}
	e := openEngine(t, Options{Memory: 8 << 20}, users, huge)
	tests := []struct{ name, text string }{
		{"in SQLite", greedySQL},
		{"in a cell of a relation", "SELECT s FROM huge"},
		{"in a function's value", "SELECT concat(hex(zeroblob(2000000)), hex(zeroblob(2000000)))"},
		{"in the text of the query", "SELECT '" + strings.Repeat("x", 512<<10-20) + "'" + ", 1"},
		{"in an aggregate", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) SELECT group_concat(hex(zeroblob(500))) FROM n"},
		{"in a recursion", "WITH RECURSIVE n(i, x) AS (SELECT 1, '' UNION SELECT i + 1, hex(zeroblob(500)) FROM n) SELECT i FROM n"},
		{"in many rows", "SELECT json_group_array(hex(zeroblob(100000))) OVER () FROM users a, users b, users c, users d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a answer
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := e.Query(ctx, tt.text, &discard{})
			if tt.name == "in the text of the query" {
				if err != nil {
					t.Errorf("a long text: %v", err)
				}
			} else if err == nil || err.Error() != "out of memory: the query needs more than 8 MiB" &&
				err.Error() != "string or blob too big" {
				t.Errorf("got %v", err)
			}
			if err := e.Query(context.Background(), "SELECT count(*) FROM users", &a); err != nil || a.rows[0] != "3" {
				t.Errorf("the next query: got %q, %v", a.rows, err)
			}
		})
	}
}

// TestMemoryIsFreed drives connections out of memory, and off their stack, until it
// would show: each reserves 12 MiB of addresses.
func TestMemoryIsFreed(t *testing.T) {
	users, _, _ := testTables()
	e := openEngine(t, Options{Memory: 8 << 20}, users)
	deep := func(begin, inside, end string) string {
		return "SELECT " + strings.Repeat(begin, 400) + inside + strings.Repeat(end, 400)
	}
	tests := []struct{ name, text, want string }{
		{"memory", greedySQL, "out of memory"},
		{"expression", deep("- ", "1", ""), "the query is nested too deeply"},
		{"function", deep("abs(", "1", ")"), "the query is nested too deeply"},
		{"select", deep("* FROM (SELECT ", "* FROM users", ")"), "the query is nested too deeply"},
		{"scan", "SELECT uid FROM users WHERE " + deep("- ", "1", "")[7:], "the query is nested too deeply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			once := func() {
				err := e.Query(context.Background(), tt.text, &discard{})
				if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
					t.Fatalf("got %v", err)
				}
			}
			once()
			before := addressSpace(t)
			for range 10 {
				once()
			}
			if grown := addressSpace(t) - before; grown > 50<<20 {
				t.Errorf("10 failed queries left %d MiB mapped", grown>>20)
			}
		})
	}
}

func addressSpace(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	var pages int64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestDeepNesting goes up to, and over, each limit on depth: SQLite's stack must hold.
func TestDeepNesting(t *testing.T) {
	users, _, _ := testTables()
	e := openEngine(t, Options{}, users)
	nest := func(n int, open, inside, end string) string {
		return strings.Repeat(open, n) + inside + strings.Repeat(end, n)
	}
	texts := map[string]func(n int) string{
		"parentheses":  func(n int) string { return "SELECT " + nest(n, "(", "1", ")") },
		"minus":        func(n int) string { return "SELECT " + nest(n, "- ", "1", "") },
		"not":          func(n int) string { return "SELECT " + nest(n, "NOT ", "1", "") },
		"plus":         func(n int) string { return "SELECT " + nest(n, "1+", "1", "") },
		"and":          func(n int) string { return "SELECT * FROM users WHERE " + nest(n, "uid>1 AND ", "1", "") },
		"or":           func(n int) string { return "SELECT * FROM users WHERE " + nest(n, "uid>1 OR ", "1", "") },
		"or and":       func(n int) string { return "SELECT * FROM users WHERE " + nest(n, "(uid=1 OR uid=2 AND ", "1", ")") },
		"case":         func(n int) string { return "SELECT " + nest(n, "CASE WHEN 1 THEN ", "1", " END") },
		"functions":    func(n int) string { return "SELECT " + nest(n, "abs(", "1", ")") },
		"our function": func(n int) string { return "SELECT " + nest(n, "concat(", "1", ")") },
		"collate":      func(n int) string { return "SELECT 'a'" + nest(n, " COLLATE nocase", "", "") },
		"subqueries":   func(n int) string { return "SELECT " + nest(n, "(SELECT ", "1", ")") },
		"from":         func(n int) string { return "SELECT * FROM " + nest(n, "(SELECT * FROM ", "users", ")") },
		"from limit":   func(n int) string { return "SELECT * FROM " + nest(n, "(SELECT * FROM ", "users", " LIMIT 1)") },
		"exists":       func(n int) string { return "SELECT " + nest(n, "EXISTS(SELECT 1 FROM users WHERE ", "1", ")") },
		"in":           func(n int) string { return "SELECT " + nest(n, "1 IN (SELECT ", "1", ")") },
		"union":        func(n int) string { return nest(n, "SELECT 1 UNION ", "SELECT 1", "") },
		"union all":    func(n int) string { return nest(n, "SELECT uid FROM users UNION ALL ", "SELECT 1", " ") },
		"joins":        func(n int) string { return "SELECT 1 FROM users" + nest(n, " JOIN users", "", "") },
		"nested joins": func(n int) string { return "SELECT 1 FROM " + nest(n, "(SELECT 1 FROM users JOIN ", "users", ")") },
		"with": func(n int) string {
			var b strings.Builder
			b.WriteString("WITH t0 AS (SELECT * FROM users)")
			for i := range n {
				fmt.Fprintf(&b, ", t%d AS (SELECT * FROM t%d LIMIT 9)", i+1, i)
			}
			return b.String() + fmt.Sprintf(" SELECT * FROM t%d", n)
		},
		"json": func(n int) string { return "SELECT json_extract('" + nest(n, "[", "", "]") + "', '$')" },
		"like": func(n int) string { return "SELECT 'aaaaaaaaaaaaaaaaaaaaaaaa' LIKE '" + nest(n, "%a", "", "") + "b'" },
		"glob": func(n int) string { return "SELECT 'aaaaaaaaaaaaaaaaaaaaaaaa' GLOB '" + nest(n, "*a", "", "") + "b'" },
		"views": func(n int) string {
			var b strings.Builder
			b.WriteString("CREATE TEMP VIEW v0 AS SELECT * FROM users;")
			for i := range n {
				fmt.Fprintf(&b, "CREATE TEMP VIEW v%d AS SELECT * FROM v%d LIMIT 9;", i+1, i)
			}
			return b.String() + fmt.Sprintf(" SELECT * FROM v%d", n)
		},
	}
	for name, text := range texts {
		for _, n := range []int{5, 100, 190, 400, 990, 20000} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := e.Query(ctx, text(n), &discard{})
			cancel()
			if err != nil && n == 5 {
				t.Errorf("%s, %d deep: %v", name, n, err)
			}
			if got := query(t, e, "SELECT count(*) FROM users"); got[0] != "3" {
				t.Fatalf("after %s, %d deep, a query got %q", name, n, got)
			}
		}
	}
}
