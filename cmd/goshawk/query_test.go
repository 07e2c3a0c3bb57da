package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// person is a row of a table for tests of queries.
type person struct {
	uid  int64
	name string
	load float64
	big  uint64
}

// people are two ordinary rows, then what an attacker may have called itself: a terminal's
// title, a colour, a line of its own, bytes that are no UTF-8, text that runs backwards.
var people = []*person{
	{0, "root", 0, 1<<64 - 1},
	{1000, "ann, \"the\" admin", 1.5, 7},
	{1001, "\x1b]0;owned\x07\x1b[31mred\r\ngone\xff\xc2\x9b\u202eé世", 1e300, 0},
}

// testRelations are a table of people, one that takes two seconds, and one that warns.
func testRelations() []schema.Relation {
	columns := []schema.Column[*person]{
		schema.Int("uid", func(p *person) *int64 { return &p.uid }, "user", schema.Index),
		schema.Str("name", func(p *person) *string { return &p.name }, "what they are called"),
		schema.Calc("load", schema.Double, func(p *person) schema.Value { return schema.FloatValue(p.load) }, "a fraction"),
		schema.Int("big", func(p *person) *uint64 { return &p.big }, "a large number", schema.Hidden).As(schema.UnsignedBigInt),
		schema.Absent[*person]("absent", schema.BigInt, "never known", schema.Hidden).Alias("naught"),
	}
	all := func(context.Context, *schema.Query) ([]*person, error) { return people, nil }
	users := schema.Table[*person]{Name: "users", Doc: "people who may log in", Columns: columns, Rows: all}
	userGroups := schema.Table[*person]{Name: "user_groups", Doc: "who is in what", Columns: columns[:1], Rows: all}
	slow := schema.Table[*person]{Name: "slow", Doc: "takes its time", Columns: columns,
		Rows: func(ctx context.Context, q *schema.Query) ([]*person, error) {
			q.Warning("this takes\x1b[2J a while")
			select {
			case <-time.After(2 * time.Second):
				return people, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
	return []schema.Relation{users.Bind(), userGroups.Bind(), slow.Bind()}
}

func openTest(*cobra.Command) (querier, func() error, error) {
	e, err := sql.Open(testRelations(), sql.Options{})
	if err != nil {
		return nil, nil, err
	}
	return e, e.Close, nil
}

// runQuery runs the command with standard input in, and returns what it printed.
func runQuery(in string, args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	cmd := newQueryCommand(openTest, "")
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(context.Background())
	return o.String(), e.String(), err
}

func TestFormats(t *testing.T) {
	const ordinary = "SELECT uid, name, load, big, absent FROM users WHERE uid < 1001"
	const hostile = "SELECT name FROM users WHERE uid = 1001"
	tests := []struct{ name, format, text, want string }{
		{"table", "table", ordinary, "" +
			"+------+------------------+------+----------------------+--------+\n" +
			"| uid  | name             | load | big                  | absent |\n" +
			"+------+------------------+------+----------------------+--------+\n" +
			"| 0    | root             | 0.0  | 18446744073709551615 |        |\n" +
			"| 1000 | ann, \"the\" admin | 1.5  | 7                    |        |\n" +
			"+------+------------------+------+----------------------+--------+\n"},
		{"json", "json", ordinary, `[
  {"uid":"0","name":"root","load":"0.0","big":"18446744073709551615","absent":""},
  {"uid":"1000","name":"ann, \"the\" admin","load":"1.5","big":"7","absent":""}
]
`},
		{"csv", "csv", ordinary, "uid,name,load,big,absent\n0,root,0.0,18446744073709551615,\n1000,\"ann, \"\"the\"\" admin\",1.5,7,\n"},
		{"line", "line", ordinary, "   uid = 0\n  name = root\n  load = 0.0\n   big = 18446744073709551615\nabsent = \n\n" +
			"   uid = 1000\n  name = ann, \"the\" admin\n  load = 1.5\n   big = 7\nabsent = \n"},

		{"hostile table", "table", hostile, "" +
			"+---------------------------------------------------------------------------------------+\n" +
			"| name                                                                                  |\n" +
			"+---------------------------------------------------------------------------------------+\n" +
			`| \x1b]0;owned\x07\x1b[31mred\x0d\x0agone\xff\xc2\x9b\xe2\x80\xaeé世                    |` + "\n" +
			"+---------------------------------------------------------------------------------------+\n"},
		// In JSON the characters are escaped as JSON has it, bytes that are none as osquery.
		{"hostile json", "json", hostile, "[\n  {\"name\":\"\\u001b]0;owned\\u0007\\u001b[31mred\\r\\ngone\\\\xff\u009b\u202eé世\"}\n]\n"},
		{"hostile csv", "csv", hostile, "name\n" + `\x1b]0;owned\x07\x1b[31mred\x0d\x0agone\xff\xc2\x9b\xe2\x80\xaeé世` + "\n"},
		{"hostile line", "line", hostile, `name = \x1b]0;owned\x07\x1b[31mred\x0d\x0agone\xff\xc2\x9b\xe2\x80\xaeé世` + "\n"},
		{"hostile column", "line", "SELECT 1 AS \"\x1b[31m\"", `\x1b[31m = 1` + "\n"},

		{"no rows, table", "table", "SELECT uid FROM users WHERE 0", ""},
		{"no rows, json", "json", "SELECT uid FROM users WHERE 0", "[\n]\n"},
		{"no rows, csv", "csv", "SELECT uid FROM users WHERE 0", "uid\n"},
		{"no rows, line", "line", "SELECT uid FROM users WHERE 0", ""},
		{"two statements, table", "table", "SELECT 1 AS a; SELECT 2 AS b", "+---+\n| a |\n+---+\n| 1 |\n+---+\n+---+\n| b |\n+---+\n| 2 |\n+---+\n"},
		{"two statements, json", "json", "SELECT 1 AS a; SELECT 2 AS b", "[\n  {\"a\":\"1\"}\n]\n[\n  {\"b\":\"2\"}\n]\n"},
		{"nothing asked", "json", "/* nothing */", ""},
		{"one name twice", "json", "SELECT 1 AS a, 2 AS b, 3 AS a", "[\n  {\"b\":\"2\",\"a\":\"3\"}\n]\n"},
		{"numbers", "csv", "SELECT 1e300, 1e20, -0.5, 1/3.0, 9e999, -9223372036854775808 AS n", "1e300,1e20,-0.5,1/3.0,9e999,n\n1e+300,1e+20,-0.5,0.3333333333333333,+Inf,-9223372036854775808\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, said, err := runQuery("", "--format", tt.format, tt.text)
			if err != nil || said != "" {
				t.Fatalf("%v, standard error %q", err, said)
			}
			if tt.name == "hostile table" {
				// Widths count escapes as what they print as.
				got, tt.want = strings.ReplaceAll(got, " ", ""), strings.ReplaceAll(tt.want, " ", "")
				got, tt.want = strings.ReplaceAll(got, "-", ""), strings.ReplaceAll(tt.want, "-", "")
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestQueryFromInput(t *testing.T) {
	got, _, err := runQuery("SELECT 1 AS a;\n-- more\nSELECT 2 AS b", "--format", "csv")
	if got != "a\n1\nb\n2\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, _, err = runQuery(strings.Repeat(" ", 1<<20+1))
	if err == nil || err.Error() != "standard input has more than 1048576 bytes of SQL" {
		t.Errorf("got %v", err)
	}
}

func TestQueryErrors(t *testing.T) {
	tests := []struct {
		text, want, out string
		code            int
	}{
		{"SELECT * FROM user", "no such table: user; did you mean users, or user_groups?", "", exitFailed},
		{"SELECT nam FROM users", "no such column: nam; did you mean name?", "", exitFailed},
		{"DROP TABLE users", "not authorized; CREATE, DROP or ALTER is refused: a query may only read", "", exitFailed},
		{"SELECT * FROM \"\x1b[31m\"", `no such table:  [31m`, "", exitFailed},
		// The array stays open: what was printed is not the whole answer.
		{"SELECT 1 AS a; SELECT carve('x') AS b", "carving is disabled", "[\n  {\"a\":\"1\"}\n]\n[", exitFailed},
	}
	for _, tt := range tests {
		out, said, err := runQuery("", "--format", "json", tt.text)
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != tt.code || exit.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
		if said != "" || !strings.HasPrefix(tt.out, out) {
			t.Errorf("%q: printed %q and %q, want %q", tt.text, out, said, tt.out)
		}
	}
	_, _, err := runQuery("", "--format", "xml", "SELECT 1")
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitUsage || exit.Error() != `no format is called "xml"; formats are table, json, csv, line` {
		t.Errorf("got %v", err)
	}
}

func TestQueryWarning(t *testing.T) {
	_, said, err := runQuery("", "--format", "csv", "SELECT community_id_v1('', '', 1, 1, 1)")
	if want := "warning: Community ID saddr cannot be parsed as IP\n"; said != want || err != nil {
		t.Errorf("got %q, %v, want %q", said, err, want)
	}
}

// TestLargeTable shows that a table's rows are drawn in boxes of bounded size.
func TestLargeTable(t *testing.T) {
	got, _, err := runQuery("", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) SELECT i FROM n")
	if err != nil {
		t.Fatal(err)
	}
	if boxes, rows := strings.Count(got, "| i "), strings.Count(got, "\n|"); boxes != 3 || rows != 25003 {
		t.Errorf("got %d boxes and %d lines", boxes, rows)
	}
}

func TestSafe(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain text", "plain text"},
		{"é世 \u00a0", "é世 \u00a0"},
		{"\x00\x1b\x7f", `\x00\x1b\x7f`},
		{"a\tb\nc", `a\x09b\x0ac`},
		{"\xff\xc3(", `\xff\xc3(`},
		{"\u0085\u009b", `\xc2\x85\xc2\x9b`},                           // the other control characters
		{"\u202e\u2066\ufeff", `\xe2\x80\xae\xe2\x81\xa6\xef\xbb\xbf`}, // text that runs backwards
		{"\ufffd", "\ufffd"},                                           // a real one
		{"\U000e0041", `\xf3\xa0\x81\x81`},                             // an invisible tag
	}
	for _, tt := range tests {
		if got := safe(tt.in); got != tt.want {
			t.Errorf("safe(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestProgress(t *testing.T) {
	var screen bytes.Buffer
	p := startProgress(&screen)
	out := p.over(&screen, false)
	p.row()
	p.show()
	fmt.Fprint(out, "a row\n")
	p.row()
	p.show()
	p.stop()
	want := "\r1 row, 0 s (Ctrl-C stops the query)\x1b[K" + "\r\x1b[K" + "a row\n" +
		"\r2 rows, 0 s (Ctrl-C stops the query)\x1b[K" + "\r\x1b[K"
	if got := screen.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	screen.Reset()
	p = startProgress(&screen)
	out = p.over(&screen, true)
	p.show()
	fmt.Fprint(out, "a row\n")
	p.show() // the rows are on the same screen
	p.stop()
	if got, want := screen.String(), "\r0 rows, 0 s (Ctrl-C stops the query)\x1b[K\r\x1b[Ka row\n"; got != want {
		t.Errorf("on one screen: got %q, want %q", got, want)
	}
}

func TestComplete(t *testing.T) {
	tests := []struct {
		text string
		want bool
	}{
		{"", true}, {"  ", true}, {".tables", true}, {"SELECT 1;", true}, {"SELECT 1; ", true}, {"SELECT 1; -- x", true},
		{"SELECT 1; /* x */\n", true}, {"SELECT ';';", true}, {"SELECT 'it''s;';", true}, {"SELECT [;];", true},
		{"SELECT 1", false}, {"SELECT ';", false}, {"SELECT \";\"", false}, {"SELECT 1; SELECT 2", false},
		{"-- x;", false}, {"SELECT 1 -- ;", false}, {"SELECT /* ;", false}, {"SELECT 1 /* ; */", false}, {"SELECT 'a' -- it's\n;", true},
		{"SELECT '", false}, {"SELECT ''", false}, {"SELECT '';", true}, {"/**/;", true}, {"SELECT 1;'", false}, {";", true},
	}
	for _, tt := range tests {
		if got := complete(tt.text); got != tt.want {
			t.Errorf("complete(%q) = %v, want %v", tt.text, got, tt.want)
		}
	}
}

func TestPropose(t *testing.T) {
	var defs []*schema.Def
	for _, r := range testRelations() {
		defs = append(defs, r.Def())
	}
	c := newCompleter(defs)
	tests := []struct {
		text string // | is the cursor
		want string
	}{
		{"SELECT * FROM us|", "users user_groups"},
		{"select * from US|", "users user_groups"},
		{"SELECT * FROM |", "users user_groups slow"},
		{"SELECT * FROM users, sl|", "slow"},
		{"SELECT * FROM users JOIN u|", "users user_groups"},
		{"SELECT n| FROM users", "name naught not null"},
		{"SELECT u.n| FROM users AS u", "name naught"},
		{"SELECT u.| FROM slow u", "uid name load big absent naught"},
		{"SELECT x.n| FROM users u", ""},
		{"SELECT count(na| FROM users", "name naught"},
		{"SELECT uid FROM users WHERE na|", "name naught"},
		{"SELECT uid FROM users WHERE na|; SELECT * FROM slow", "name naught"},
		{"SELECT 1 FROM users; SEL|", "SELECT"},
		{"sel|", "select"},
		{"SEL|", "SELECT"},
		{"SELECT 'FROM u|", ""},
		{"SELECT uid FROM users GR|", "GROUP group_concat"},
		{"SELECT uid FROM users LE|", "LEFT length"},
		{".s|", ".schema"},
		{".schema us|", "users user_groups"},
		{".mode |", "table json csv line"},
		{".mode j|", "json"},
		{".exit x|", ""},
	}
	for _, tt := range tests {
		before, after, _ := strings.Cut(tt.text, "|")
		_, found := c.propose(before, after)
		var got []string
		for _, p := range found {
			got = append(got, p.word)
		}
		if d := cmp.Diff(strings.Fields(tt.want), got); d != "" && (tt.want != "" || len(got) > 0) {
			t.Errorf("%q (-want +got):\n%s", tt.text, d)
		}
	}
}

func TestDotCommands(t *testing.T) {
	e, err := sql.Open(testRelations(), sql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	tests := []struct{ line, want string }{
		{".tables", "users\nuser_groups\nslow\n"},
		{".tables user", "users\nuser_groups\n"},
		{".tables users", "users\n"},
		{".tables *_g*", "user_groups\n"},
		{".tables zzz", "error: no table is called like \"zzz\"; .tables lists all"},
		{".schema user_groups", "CREATE TABLE user_groups(`uid` BIGINT);\n"},
		{".schema users", "CREATE TABLE users(`uid` BIGINT, `name` TEXT, `load` DOUBLE, `big` UNSIGNED_BIGINT HIDDEN, `absent` BIGINT HIDDEN);\n"},
		{".mode", "table\n"},
		{".mode json", ""},
		{".mode", "json\n"},
		{".mode xml", "error: no format is called \"xml\"; formats are table, json, csv, line"},
		{".help", shellHelp},
		{".nosuch", "error: no command is called \".nosuch\"; .help lists them"},
		{".mode a b", "error: .mode takes one argument at most"},
		{".exit", "left"},
		{".quit;", "left"},
	}
	var out bytes.Buffer
	sh := &shell{session: &session{querier: e, format: "table", out: &out}}
	for _, tt := range tests {
		out.Reset()
		leave, err := sh.command(tt.line)
		if err != nil {
			fmt.Fprintf(&out, "error: %v", err)
		}
		if leave {
			out.WriteString("left")
		}
		if got := out.String(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestHistoryFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "history")
	sh := &shell{}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	sh.input = newInput()
	if err := sh.remember(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}
