package sql

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
)

func TestViews(t *testing.T) {
	users, processes, _ := testTables()
	e := openEngine(t, Options{Views: []View{
		{"names", "SELECT username FROM users"},
		{"both", "SELECT * FROM names UNION ALL SELECT * FROM names"},
		{"loop", "SELECT * FROM loop"},
		{"users", "SELECT 1 AS one"},
		{"bad", "SELEC 1"},
		{"two", "SELECT 1 AS one; SELECT 2"},
	}}, users, processes)
	plain := query(t, e, "SELECT username FROM users")
	for range 2 { // the second query finds the connection with its views
		if diff := cmp.Diff(plain, query(t, e, "SELECT * FROM names")); diff != "" {
			t.Error(diff)
		}
		if got := query(t, e, "SELECT * FROM Both"); len(got) != 2*len(plain) {
			t.Errorf("%d lines, want twice %d", len(got), len(plain))
		}
	}
	if err := queryError(t, e, "SELECT * FROM bad"); err.Text != "no such table: bad" {
		t.Errorf("bad view: %v", err)
	}
	if got := query(t, e, "SELECT 'bad'"); len(got) == 0 {
		t.Error("a bad view breaks a query that does not use it")
	}
	queryError(t, e, "SELECT * FROM loop")
	// A query may hide a view with its own, for itself.
	query(t, e, "DROP VIEW names; CREATE TEMP VIEW names AS SELECT 1 AS username; SELECT * FROM names")
	if diff := cmp.Diff(plain, query(t, e, "SELECT * FROM names")); diff != "" {
		t.Error(diff)
	}
}

// reads notes which relations statements read.
type reads struct {
	answer
	names []string
}

func (r *reads) Tables(defs []*schema.Def) {
	for _, d := range defs {
		if !slices.Contains(r.names, d.Name) {
			r.names = append(r.names, d.Name)
		}
	}
	slices.Sort(r.names)
}

func TestTableReceiver(t *testing.T) {
	users, processes, _ := testTables()
	e := openEngine(t, Options{Views: []View{{"names", "SELECT username FROM users"}}}, users, processes)
	for text, want := range map[string][]string{
		"SELECT 1":                                   nil,
		"SELECT 'users'":                             nil,
		"SELECT * FROM users WHERE 0":                {"users"},
		"SELECT * FROM names JOIN processes":         {"processes", "users"},
		"SELECT (SELECT pid FROM processes LIMIT 1)": {"processes"},
		"SELECT 1; SELECT 1 FROM users":              {"users"},
	} {
		for range 2 {
			r := &reads{}
			if err := e.Query(context.Background(), text, r); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, r.names); diff != "" {
				t.Errorf("%s: %s", text, diff)
			}
		}
	}
}

func TestErrMemory(t *testing.T) {
	e := openEngine(t, Options{Memory: 1 << 20})
	err := queryError(t, e, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100000) SELECT group_concat(hex(zeroblob(100))) FROM n")
	if !errors.Is(err, ErrMemory) {
		t.Errorf("error %v", err)
	}
}
