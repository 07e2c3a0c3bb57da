package sql

import (
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// table is a relation on one connection, in SQLite's terms.
type table struct {
	conn     *conn
	relation schema.Relation
	def      *schema.Def
	declared []int // index into def.Columns of each declared column
}

// module registers a relation under a name; SQLite connects on first use.
func (c *conn) module(name string, relation schema.Relation) error {
	//lint:ignore SA1019 the generic method needs Go 1.27
	return sqlite3.CreateModule(c.db, name, nil,
		func(db *sqlite3.Conn, _, _, _ string, _ ...string) (*table, error) {
			t := &table{conn: c, relation: relation, def: relation.Def()}
			text, declared := declaration(t.def)
			t.declared = declared
			if err := db.VTabConfig(sqlite3.VTAB_INNOCUOUS); err != nil {
				return nil, err
			}
			return t, db.DeclareVTab(text)
		})
}

// declaration returns a CREATE TABLE for def and, for each column in it, which of def's
// it is: aliases are hidden columns of their own, internal columns are left out.
func declaration(def *schema.Def) (string, []int) {
	var b strings.Builder
	var declared []int
	add := func(i int, name string, hidden bool) {
		if len(declared) > 0 {
			b.WriteString(", ")
		}
		c := &def.Columns[i]
		b.WriteString(sqlite3.QuoteIdentifier(name) + " " + c.Type.String())
		if hidden {
			b.WriteString(" HIDDEN")
		}
		if c.Collate != "" {
			b.WriteString(" COLLATE " + sqlite3.QuoteIdentifier(c.Collate))
		}
		declared = append(declared, i)
	}
	b.WriteString("CREATE TABLE x(")
	for i := range def.Columns {
		if c := &def.Columns[i]; !c.Has(schema.Internal) {
			add(i, c.Name, c.Has(schema.Hidden))
		}
	}
	for i := range def.Columns {
		if c := &def.Columns[i]; !c.Has(schema.Internal) {
			for _, alias := range c.Aliases {
				add(i, alias, true)
			}
		}
	}
	b.WriteString(")")
	return b.String(), declared
}

// Open makes a cursor; the scan itself begins with Filter.
func (t *table) Open() (sqlite3.VTabCursor, error) { return &cursor{table: t}, nil }

// cursor is one scan after the other of a table, as a join asks for them.
type cursor struct {
	table *table
	rows  schema.Cursor // nil when no scan is open
	end   bool

	text string // of plan
	plan plan
}

// Filter begins a scan. SQLite passes what BestIndex wrote, and the values.
func (k *cursor) Filter(_ int, text string, args ...sqlite3.Value) error {
	if err := k.Close(); err != nil {
		return k.fail(err)
	}
	c := k.table.conn
	if text != k.text || k.plan.terms == nil {
		var err error
		if k.plan, err = parsePlan(text, k.table); err != nil {
			return k.fail(err)
		}
		k.text = text
	}
	q, never, err := k.plan.query(k.table.def, args)
	if err != nil {
		return k.fail(err) // never SQLite's own code: it would end the query without an error
	}
	if never {
		k.end = true
		return nil
	}
	q.Warn = c.warn
	c.foreign = true
	rows, err := k.table.relation.Open(c.ctx, q)
	c.foreign = false
	if err != nil {
		return k.fail(err)
	}
	k.rows = rows
	return k.Next()
}

// Next moves to the next row.
func (k *cursor) Next() error {
	c := k.table.conn
	// SQLite looks at the context after 1000 of its own steps, too late for rows that
	// are costly to make.
	if err := c.ctx.Err(); err != nil {
		return sqlite3.INTERRUPT
	}
	c.foreign = true
	more, err := k.rows.Next()
	c.foreign = false
	k.end = !more
	if err != nil {
		k.end = true
		return k.fail(err)
	}
	return nil
}

// EOF reports whether the rows have ended.
func (k *cursor) EOF() bool { return k.end }

// Column gives SQLite the n-th declared column of the present row.
func (k *cursor) Column(ctx sqlite3.Context, n int) error {
	result(ctx, k.value(k.table.declared[n]))
	return nil
}

func (k *cursor) value(i int) schema.Value {
	c := k.table.conn
	c.foreign = true
	v := k.rows.Value(i)
	c.foreign = false
	return v
}

func result(ctx sqlite3.Context, v schema.Value) {
	switch v.Kind() {
	case schema.KindInt:
		ctx.ResultInt64(v.Int())
	case schema.KindText:
		if s := v.Text(); len(s) <= maxValue {
			ctx.ResultText(s)
		} else {
			ctx.ResultError(sqlite3.TOOBIG)
		}
	case schema.KindFloat:
		ctx.ResultFloat(v.Float())
	}
}

// rowSeed makes row identities differ between processes, so that nobody relies on them.
var rowSeed = maphash.MakeSeed()

// RowID identifies a row by the cells in use. SQLite asks for it to answer an OR by
// several scans of one table without giving a row twice: a row that two scans return
// must have one identity, and rows that differ must differ. A count would do neither.
func (k *cursor) RowID() (int64, error) {
	var h maphash.Hash
	h.SetSeed(rowSeed)
	for i := range k.table.def.Columns {
		if k.plan.used != nil && !k.plan.used[i] || k.table.def.Columns[i].Has(schema.Internal) {
			continue
		}
		v := k.value(i)
		h.WriteByte(byte(v.Kind()))
		switch v.Kind() {
		case schema.KindText:
			h.WriteString(v.Text())
		case schema.KindFloat:
			maphash.WriteComparable(&h, v.Float())
		default:
			maphash.WriteComparable(&h, v.Int())
		}
		h.WriteByte(0xff)
	}
	return int64(h.Sum64()), nil
}

// Close ends the scan, if one is open.
func (k *cursor) Close() error {
	if k.rows == nil {
		return nil
	}
	rows := k.rows
	k.rows = nil
	c := k.table.conn
	was := c.foreign
	c.foreign = true
	err := rows.Close()
	c.foreign = was
	return err
}

// fail keeps a relation's error, which SQLite would flatten to text.
func (k *cursor) fail(err error) error {
	err = fmt.Errorf("scan %s: %w", k.table.def.Name, err)
	if k.table.conn.scanErr == nil {
		k.table.conn.scanErr = err
	}
	return sqlite3.ERROR
}
