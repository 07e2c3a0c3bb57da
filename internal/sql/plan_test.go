package sql

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// typed is a table with a column of each kind that conditions are converted for. Its
// scans return everything, so the rows also show that SQLite filters what it pushed.
func typed() *recorded {
	return &recorded{def: schema.Def{Name: "t", Columns: []schema.ColumnDef{
		column("i", schema.Integer, 0),
		column("u", schema.UnsignedBigInt, schema.Index),
		column("d", schema.Double, 0),
		column("s", schema.Text, 0),
		column("k", schema.Text, schema.Index),
		{Name: "n", Type: schema.Text, Collate: "nocase"},
		{Name: "kn", Type: schema.Text, Collate: "nocase", Flags: schema.Index},
	}}, rows: [][]schema.Value{
		row(42, 42, 42.5, "042", "042", "Ab", "Ab"),
		row(-1, 7, -0.5, "42", "42", "AB", "AB"),
		row(nil, nil, nil, nil, nil, nil, nil),
	}}
}

func TestPushdown(t *testing.T) {
	tests := []struct {
		where string
		seen  string // what the relation is asked, "never" when it is not
		rows  []string
	}{
		{"i = 42", "i = 42", []string{"42"}},
		{"i = '42'", "i = 42", []string{"42"}},
		{"i = ' 42.0 '", "i = 42", []string{"42"}},
		{"i = 'x'", "", nil},
		{"u = 'x'", "u = 'x'", nil},
		{"i = 42.5", "i = 42.5f", nil},
		{"i > 41.5", "i > 41", []string{"42"}},
		{"i >= 41.5", "i > 41", []string{"42"}},
		{"i < 41.5", "i <= 41", []string{"-1"}},
		{"i <= -0.5", "i <= -1", []string{"-1"}},
		{"i < 1e300", "", []string{"42", "-1"}},
		{"i < 'x'", "", []string{"42", "-1"}}, // all numbers come before all text
		{"i > 'x'", "", nil},
		{"i BETWEEN -1 AND 1", "i >= -1 AND i <= 1", []string{"-1"}},
		{"42 < i + 1 AND 42 <= i", "i >= 42", []string{"42"}},
		{"i = NULL", "never", nil},
		{"i < (SELECT NULL)", "never", nil},
		{"i IS NULL", "", []string{"NULL"}},
		{"i IS 42", "", []string{"42"}},
		{"i <> 42", "", []string{"-1"}},
		{"i LIKE '4%'", "i LIKE '4%'", []string{"42"}},
		{"i IN (42, '7', NULL)", "i IN (7,42)", []string{"42"}},
		{"i IN (NULL)", "never", nil},
		{"i IN ()", "never", nil},
		{"i IN (SELECT 41 UNION SELECT 42)", "i IN (41,42)", []string{"42"}},
		{"i IN ('x', 42)", "", []string{"42"}},
		{"i = 1 OR i = 42", "i IN (1,42)", []string{"42"}},
		{"i NOT IN (42)", "", []string{"-1"}},
		{"u = 42 AND i > 0", "u = 42 AND i > 0", []string{"42"}},
		{"d > 42", "d > 42", []string{"42"}},
		{"d < 0.5", "d < 0.5f", []string{"-1"}},
		{"d = '42.5'", "d = 42.5f", []string{"42"}},
		{"s = '42'", "s = '42'", []string{"-1"}},
		{"s > '0'", "s > '0'", []string{"42", "-1"}},
		{"s GLOB '0*'", "s GLOB '0*'", []string{"42"}},
		{"s LIKE '%2' AND s >= '1'", "s >= '1' AND s LIKE '%2'", []string{"-1"}},
		{"s LIKE '0%' ESCAPE '!'", "", []string{"42"}},
		{"s NOT LIKE '0%'", "", []string{"-1"}},
		// A number and text may be compared as either.
		{"s = 42", "", []string{"-1"}},
		{"s = (SELECT i FROM t WHERE i = 42)", "i = 42;", []string{"42", "-1"}},
		{"k = 42", "k = '42'", []string{"-1"}},
		{"k > 42", "", nil},
		{"s = x'3432'", "", nil},
		{"k = x'3432'", "k = '42'", nil},
		{"s > x'00'", "", nil},
		{"s < x'00'", "", []string{"42", "-1"}},
		// A relation compares byte by byte, unless the column says otherwise.
		{"n = 'ab'", "", []string{"42", "-1"}},
		{"n = 'AB' COLLATE BINARY", "n = 'AB'", []string{"-1"}},
		{"s = '42' COLLATE nocase", "", []string{"-1"}},
		{"kn = 'ab'", "kn = 'ab'", []string{"42", "-1"}},
		{"kn IN ('ab', 'x')", "kn IN ('ab','x')", []string{"42", "-1"}},
		{"kn > 'a'", "", []string{"42", "-1"}},
		{"kn = '1' COLLATE version", "", nil},
		{"n LIKE 'aB'", "n LIKE 'aB'", []string{"42", "-1"}},
	}
	for _, tt := range tests {
		t.Run(tt.where, func(t *testing.T) {
			relation := typed()
			e := openEngine(t, Options{}, relation)
			got := query(t, e, "SELECT i FROM t WHERE "+tt.where)
			if d := cmp.Diff(tt.rows, got); d != "" {
				t.Errorf("rows (-want +got):\n%s", d)
			}
			seen := strings.Join(relation.seen, ";")
			if relation.seen == nil {
				seen = "never"
			}
			if seen != tt.seen {
				t.Errorf("the relation was asked %q, want %q", seen, tt.seen)
			}
		})
	}
}

// TestPushdownInJoins shows the order of a join and what each scan of it is asked.
func TestPushdownInJoins(t *testing.T) {
	tests := []struct {
		name, text             string
		users, processes, file []string
	}{
		{"indexed lookup inside", "SELECT * FROM processes p, users u WHERE p.uid = u.uid AND p.pid = 42",
			[]string{"uid = 1000"}, []string{"pid = 42"}, nil},
		{"the required column comes from outside", "SELECT * FROM file f JOIN users u ON f.directory = u.directory",
			[]string{""}, nil, []string{"directory = '/root'", "directory = '/home/ann'", "directory = '/home/bob'"}},
		{"in list inside", "SELECT * FROM users u JOIN file f ON f.path IN (u.directory || '/a', 'x')",
			[]string{""}, nil, []string{"path IN ('/root/a','x')", "path IN ('/home/ann/a','x')", "path IN ('/home/bob/a','x')"}},
		{"an or is several scans", "SELECT * FROM file WHERE path = '/a' OR directory = '/b'",
			nil, nil, []string{"path = '/a'", "directory = '/b'"}},
		{"additional column inside", "SELECT * FROM users u JOIN processes p ON p.name = u.username WHERE p.pid < 5",
			[]string{"username = 'systemd'"}, []string{"pid < 5"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			users, processes, file := testTables()
			e := openEngine(t, Options{}, users, processes, file)
			query(t, e, tt.text)
			for _, r := range []struct {
				relation *recorded
				want     []string
			}{{users, tt.users}, {processes, tt.processes}, {file, tt.file}} {
				if r.relation == processes && len(r.relation.seen) > 0 {
					// All rows come back; only the first question is compared.
					r.relation.seen = r.relation.seen[:len(r.want)]
				}
				if r.relation == users && tt.name == "additional column inside" && len(r.relation.seen) > 0 {
					r.relation.seen = r.relation.seen[:1]
				}
				if d := cmp.Diff(r.want, r.relation.seen); d != "" {
					t.Errorf("%s was asked (-want +got):\n%s", r.relation.def.Name, d)
				}
			}
		})
	}
}

// TestUsedColumns checks what a scan is told to prepare, beyond the 64th column too.
func TestUsedColumns(t *testing.T) {
	wide := &recorded{def: schema.Def{Name: "wide"}}
	for i := range 70 {
		flags := schema.Flag(0)
		if i == 2 {
			flags = schema.Internal
		}
		c := column("c"+string(rune('a'+i/10))+string(rune('0'+i%10)), schema.Integer, flags)
		if i == 5 {
			c.Aliases = []string{"five"}
		}
		wide.def.Columns = append(wide.def.Columns, c)
	}
	wide.rows = [][]schema.Value{make([]schema.Value, 70)}
	var used []int
	wide.before = func(_ context.Context, q *schema.Query) error {
		used = nil
		for i := range wide.def.Columns {
			if q.Uses(i) {
				used = append(used, i)
			}
		}
		return nil
	}
	e := openEngine(t, Options{}, wide)
	tests := []struct {
		text string
		want []int
	}{
		{"SELECT count(*) FROM wide", nil},
		{"SELECT ca0, ca3 FROM wide WHERE ca7 = 1 ORDER BY ca9", []int{0, 3, 7, 9}},
		{"SELECT cg2 FROM wide", []int{62}}, // c2 is internal: the declared number is 61
		{"SELECT cg9 FROM wide", []int{5, 64, 65, 66, 67, 68, 69}},
		{"SELECT five FROM wide", []int{5, 64, 65, 66, 67, 68, 69}},
	}
	for _, tt := range tests {
		query(t, e, tt.text)
		if !slices.Equal(used, tt.want) {
			t.Errorf("%s: used %v, want %v", tt.text, used, tt.want)
		}
	}
}

// TestEventCosts shows that a join begins where a time bounds the event store, and that
// a snapshot with a lookup goes inside.
func TestEventCosts(t *testing.T) {
	events := &recorded{def: schema.Def{Name: "exec_events", Events: true, Columns: []schema.ColumnDef{
		{Name: "time", Type: schema.BigInt, Form: schema.Timestamp},
		column("pid", schema.BigInt, schema.Index),
	}}, rows: [][]schema.Value{row(100, 1), row(200, 42)}}
	_, processes, _ := testTables()
	e := openEngine(t, Options{}, events, processes)
	plan := func(text string) string {
		var order []string
		for _, r := range query(t, e, "EXPLAIN QUERY PLAN "+text) {
			detail := r[strings.LastIndexByte(r, '|')+1:]
			order = append(order, strings.Fields(strings.TrimPrefix(detail, "SCAN "))[0])
		}
		return strings.Join(order, " ")
	}
	tests := []struct{ text, want string }{
		{"SELECT * FROM exec_events e JOIN processes p USING (pid) WHERE e.time > 150", "e p"},
		{"SELECT * FROM processes p JOIN exec_events e USING (pid) WHERE e.time = 150", "e p"},
		// Without a time one pass over the store beats one for each process.
		{"SELECT * FROM processes p JOIN exec_events e USING (pid)", "e p"},
	}
	for _, tt := range tests {
		if got := plan(tt.text); got != tt.want {
			t.Errorf("%s: order %q, want %q", tt.text, got, tt.want)
		}
	}
}
