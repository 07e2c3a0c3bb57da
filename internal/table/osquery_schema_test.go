package table

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// pending are osquery's tables that are not built yet, with what brings them. A table
// leaves the list in the commit that builds it.
var pending = []struct{ name, brings string }{
	{"hardware_events", "osquery-named event tables"},
	{"syslog_events", "osquery-named event tables"},
	{"yara_events", "osquery-named event tables"},

	{"yara_file", "YARA, in the artefact that has it"},
	{"yara_process", "YARA, in the artefact that has it"},
}

// pinned is osquery 5.23.1's schema on Linux as testdata holds it.
type pinned struct {
	Osquery  string
	Platform string
	Tables   []struct {
		Name    string
		Aliases []string
		Columns []pinnedColumn
	}
}

type pinnedColumn struct {
	Name, Type, Collate                            string
	Aliases                                        []string
	Hidden, Additional, Index, Required, Optimized bool
}

func readPinned(t *testing.T) pinned {
	t.Helper()
	f, err := os.Open("../../testdata/osquery-5.23.1-schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	var p pinned
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Osquery != OsqueryVersion || len(p.Tables) < 70 {
		t.Fatalf("pinned schema is of %q with %d tables", p.Osquery, len(p.Tables))
	}
	return p
}

// ours describes a column of ours in the pinned schema's terms.
func ours(c *schema.ColumnDef) pinnedColumn {
	return pinnedColumn{
		Name: c.Name, Type: c.Type.String(), Collate: c.Collate, Aliases: c.Aliases,
		Hidden: c.Has(schema.Hidden), Additional: c.Has(schema.Additional), Index: c.Has(schema.Index),
		Required: c.Has(schema.Required), Optimized: c.Has(schema.Optimized),
	}
}

func definitions() []*schema.Def {
	var defs []*schema.Def
	all := append(All(&Env{FS: procfs.At("")}), SelfTables(Self{})...)
	for _, r := range append(all, EventTables(nil, EventOptions{})...) {
		defs = append(defs, r.Def())
	}
	return defs
}

// What is written for osquery must run here: every table of osquery's that we have has
// osquery's columns, in its order, with its types and flags, and columns of our own are
// hidden, so that SELECT * answers the same.
func TestContainsOsquerySchema(t *testing.T) {
	have := map[string]*schema.Def{}
	for _, d := range definitions() {
		have[d.Name] = d
	}
	waiting := map[string]string{}
	for _, p := range pending {
		if waiting[p.name] != "" {
			t.Errorf("%s is pending twice", p.name)
		}
		waiting[p.name] = p.brings
	}
	for _, table := range readPinned(t).Tables {
		brings, isPending := waiting[table.Name]
		delete(waiting, table.Name)
		d := have[table.Name]
		switch {
		case d == nil && !isPending:
			t.Errorf("%s is neither built nor pending", table.Name)
			continue
		case d != nil && isPending:
			t.Errorf("%s is built: take it off the pending list (%s)", table.Name, brings)
		}
		if d == nil {
			continue
		}
		t.Run(table.Name, func(t *testing.T) {
			if diff := cmp.Diff(table.Aliases, d.Aliases); diff != "" {
				t.Errorf("aliases (-osquery +ours): %s", diff)
			}
			var shared []pinnedColumn
			for i := range d.Columns {
				c := &d.Columns[i]
				if slices.ContainsFunc(table.Columns, func(p pinnedColumn) bool { return p.Name == c.Name }) {
					shared = append(shared, ours(c))
				} else if !c.Has(schema.Hidden) {
					t.Errorf("column %s is ours but not hidden", c.Name)
				}
			}
			if diff := cmp.Diff(table.Columns, shared); diff != "" {
				t.Errorf("columns (-osquery +ours): %s", diff)
			}
		})
	}
	for name := range waiting {
		t.Errorf("%s is pending but no table of osquery's that is pinned", name)
	}
}

// Every table and column is documented in one phrase, and no name is used twice.
func TestDefinitionsAreComplete(t *testing.T) {
	tables := map[string]bool{}
	for _, d := range definitions() {
		if tables[d.Name] {
			t.Errorf("table %s is defined twice", d.Name)
		}
		tables[d.Name] = true
		if d.Doc == "" {
			t.Errorf("table %s has no description", d.Name)
		}
		columns := map[string]bool{}
		for _, c := range d.Columns {
			for _, name := range append([]string{c.Name}, c.Aliases...) {
				if columns[name] {
					t.Errorf("column %s.%s is defined twice", d.Name, name)
				}
				columns[name] = true
			}
			if c.Doc == "" || strings.HasSuffix(c.Doc, ".") {
				t.Errorf("column %s.%s: description %q is empty or ends in a full stop", d.Name, c.Name, c.Doc)
			}
		}
	}
}

// Tables without required columns answer SELECT * on any host without an error, and every
// cell has the type that its column declares.
func TestEveryTableAnswers(t *testing.T) {
	for _, r := range All(&Env{FS: procfs.At("")}) {
		d := r.Def()
		if slices.ContainsFunc(d.Columns, func(c schema.ColumnDef) bool { return c.Has(schema.Required) }) {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			for _, row := range scan(t, r, &schema.Query{}) {
				for i, v := range row {
					c := &d.Columns[i]
					want := schema.KindInt
					switch c.Type {
					case schema.Text:
						want = schema.KindText
					case schema.Double:
						want = schema.KindFloat
					}
					if v.Kind() != want && !v.IsNull() {
						t.Fatalf("%s is %s but holds %q", c.Name, c.Type, v.Text())
					}
					if c.Type == schema.Text && v.IsNull() {
						t.Fatalf("%s is NULL; unset text is empty", c.Name)
					}
				}
			}
		})
	}
}
