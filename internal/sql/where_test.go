package sql

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// whereDef is a small table as events have them.
var whereDef = schema.Def{Name: "exec_events", Columns: []schema.ColumnDef{
	column("pid", schema.BigInt, 0),
	column("path", schema.Text, 0),
	column("container_id", schema.Text, schema.Hidden),
	{Name: "uid", Type: schema.BigInt, Aliases: []string{"user"}},
	column("raw", schema.Text, schema.Internal),
	{Name: "group", Type: schema.Text, Collate: "nocase"},
}}

func cells(row []schema.Value) func(int) schema.Value {
	return func(i int) schema.Value { return row[i] }
}

func TestWhere(t *testing.T) {
	e := openEngine(t, Options{})
	bash := row(42, "/usr/bin/bash", "abc", 0, "x", "Wheel")
	tests := []struct {
		expr string
		want bool
	}{
		{"pid = 42", true},
		{"pid = '42'", true},
		{"pid > 42", false},
		{"path LIKE '/usr/%'", true},
		{`path LIKE "/usr/%"`, true},
		{"container_id = 'abc'", true},
		{"user = 0", true},
		{`"group" = 'wheel'`, true},
		{"exec_events.pid IN (1, 42)", true},
		{"42 IN (pid, uid)", true},
		{"uid", false},
		{"pid AND uid IS NOT NULL", true},
		{"pid + 0.5 > 42", true},
		{"'text'", false},
		{"'1text'", true},
		{"NULL", false},
		{"regex_match(path, '[^/]+$', 0) = 'bash'", true},
		{"max(pid, uid) = 42", true}, // of one row, no aggregate
		{"CASE WHEN uid = 0 THEN path LIKE '%bash' ELSE 0 END", true},
		{"uid = 0 -- and that is all", true},
	}
	for _, tt := range tests {
		w, err := e.Where(&whereDef, tt.expr)
		if err != nil {
			t.Errorf("%s: %v", tt.expr, err)
			continue
		}
		for round := range 3 {
			if got, err := w.Match(cells(bash)); got != tt.want || err != nil {
				t.Errorf("%s, round %d: got %v, %v, want %v", tt.expr, round, got, err, tt.want)
			}
			// Another row between, so that nothing of the last one may stay.
			if got, err := w.Match(cells(make([]schema.Value, 6))); err != nil || got && tt.expr != "'1text'" {
				t.Errorf("%s over NULLs: got %v, %v", tt.expr, got, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhereErrors(t *testing.T) {
	users, _, _ := testTables()
	e := openEngine(t, Options{}, users)
	const several = "a condition is about one row: it can have no subquery, window or aggregate"
	tests := []struct{ expr, want string }{
		{"", "the condition is empty"},
		{" -- nothing", "the condition is empty"},
		{"pid =", `near ")": syntax error`},
		{"1) , (2", `near ",": syntax error`},
		{"1); SELECT (2", `near ";": syntax error`},
		{"1) THEN 2 END, CASE WHEN (2", "the condition is not one expression"},
		{"1) THEN 2 END FROM exec_events; SELECT CASE WHEN (2", "the condition is not one expression"},
		{"1) FROM exec_events ORDER BY (1", `near "FROM": syntax error`},
		{"pid = ?", "the condition is not one expression"},
		{"count(*) > 0", several},
		{"max(pid) > 0", several},
		{"sum(pid) OVER () > 0", several},
		{"pid = (SELECT max(pid) FROM exec_events)", several},
		{"EXISTS (SELECT 1)", several},
		{"pid IN (SELECT uid FROM users)", "no such table: users"},
		{"nosuch(pid)", "no such function: nosuch"},
		{"pid = \x00", "the condition contains a NUL byte or is too long"},
		{"raw = 1", `unknown column "raw"`},
		{"pidd = 1", `unknown column "pidd"`},
		{"x.pid = 1", `unknown column "pid"`},
	}
	for _, tt := range tests {
		w, err := e.Where(&whereDef, tt.expr)
		if err == nil {
			w.Close()
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.expr, err, tt.want)
		}
	}
	_, err := e.Where(&whereDef, "pid = 1 AND pth = 2")
	var unknown *UnknownColumn
	if !errors.As(err, &unknown) {
		t.Fatalf("got %v, want an *UnknownColumn", err)
	}
	want := &UnknownColumn{Name: "pth", Known: []string{"pid", "path", "container_id", "uid", "group"}}
	if d := cmp.Diff(want, unknown); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestWhereRowError shows that one bad row does not spoil the next.
func TestWhereRowError(t *testing.T) {
	e := openEngine(t, Options{})
	w, err := e.Where(&whereDef, "in_cidr_block(path, '10.0.0.1')")
	if err == nil {
		defer w.Close()
		t.Fatal("a CIDR of NULL was accepted")
	}
	if w, err = e.Where(&whereDef, "in_cidr_block('10.0.0.0/8', path)"); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 3 {
		if _, err := w.Match(cells(row(1, "no address", "", 0, "", ""))); err == nil || err.Error() != "IP address cannot be parsed" {
			t.Errorf("got %v", err)
		}
		if got, err := w.Match(cells(row(1, "10.1.2.3", "", 0, "", ""))); !got || err != nil {
			t.Errorf("after an error: got %v, %v", got, err)
		}
	}
	big := strings.Repeat("x", 9<<20)
	if _, err := w.Match(cells(row(1, big, "", 0, "", ""))); err == nil || err.Error() != "out of memory: the query needs more than 8 MiB" {
		t.Errorf("a cell of 9 MiB: got %v", err)
	}
}

func TestWhereReadsOnlyWhatMatters(t *testing.T) {
	e := openEngine(t, Options{})
	w, err := e.Where(&whereDef, "pid = 42 AND path = 'x'")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var read []int
	if _, err := w.Match(func(i int) schema.Value { read = append(read, i); return schema.IntValue(1) }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{0}, read); d != "" {
		t.Errorf("columns read (-want +got):\n%s", d)
	}
}

func TestWhereAllocations(t *testing.T) {
	e := openEngine(t, Options{})
	w, err := e.Where(&whereDef, "pid > 10 AND path LIKE '/usr/%' AND uid = 0")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cell := cells(row(42, "/usr/bin/bash", "abc", 0, "x", "Wheel"))
	if n := testing.AllocsPerRun(100, func() {
		if got, err := w.Match(cell); !got || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a match, want 0", n)
	}
}

func BenchmarkWhere(b *testing.B) {
	e := openEngine(b, Options{})
	w, err := e.Where(&whereDef, "pid > 10 AND path LIKE '/usr/%' AND uid = 0")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	cell := cells(row(42, "/usr/bin/bash", "abc", 0, "x", "Wheel"))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := w.Match(cell); !got || err != nil {
			b.Fatal(got, err)
		}
	}
}
