// Package schema says what a table is: names, types and meanings of columns, how a
// cell is read from a row, and what a query may ask of a scan.
//
// It is the leaf of the house. It imports the standard library only, knows neither
// events nor SQL, and owns no state.
package schema

import (
	"context"
	"strings"
)

// Type is a column's declared SQL type, in osquery's words.
type Type uint8

const (
	Text Type = iota
	Integer
	BigInt
	UnsignedBigInt
	Double
)

var typeNames = [...]string{"TEXT", "INTEGER", "BIGINT", "UNSIGNED_BIGINT", "DOUBLE"}

func (t Type) String() string { return typeNames[t] }

// Flag is one of osquery's column options.
type Flag uint16

const (
	// Hidden columns are not part of SELECT *.
	Hidden Flag = 1 << iota
	// Additional columns change what a scan produces when constrained.
	Additional
	// Index columns identify rows; a constraint on one is pushed into the scan.
	Index
	// Required columns must be constrained, or the query is an error.
	Required
	// Optimized columns are indexes whose constraint the scan applies exactly.
	Optimized
	// OmitZero says that zero means unknown: NULL in SQL, absent in JSON.
	OmitZero
	// OmitUnset says the same of all bits set: the kernel's (uid_t)-1.
	OmitUnset
	// Internal columns are kept with the event but are no part of any table.
	Internal
)

// Form is how a cell looks outside SQL.
type Form uint8

const (
	// Plain is a JSON number or string.
	Plain Form = iota
	// Boolean is 0 or 1 in SQL, true or false in JSON.
	Boolean
	// List is kept as strings that each end in a NUL byte; SQL and JSON see a JSON array.
	List
	// JSON is text that is JSON already.
	JSON
	// Timestamp is kept in unix nanoseconds; SQL sees unix seconds, JSON sees RFC 3339.
	Timestamp
)

// ColumnDef is what is known of a column without a row.
type ColumnDef struct {
	Name    string
	Type    Type
	Form    Form
	Flags   Flag
	Doc     string   // one phrase, no full stop
	Aliases []string // further hidden names of the same cell
	Collate string   // "", "nocase", "version", "version_dpkg" …

	key     string // `"name":`, as JSON wants it before the cell
	unknown int64  // an integer that stands for an unknown cell, when omits is set
	omits   bool
}

// Has reports whether all flags f are set.
func (c *ColumnDef) Has(f Flag) bool { return c.Flags&f == f }

// Unknown returns the integer that stands for an unknown cell, if any does.
func (c *ColumnDef) Unknown() (n int64, ok bool) { return c.unknown, c.omits }

// Def is what is known of a table without its rows.
type Def struct {
	Name    string
	Doc     string
	Columns []ColumnDef
	// Events is set for tables over the event store: scans are bounded by time.
	Events bool
	// Aliases are further names of the same table.
	Aliases []string
}

// Column returns the index of the column called name (or so aliased), or -1.
// Names compare without case, as in SQL.
func (d *Def) Column(name string) int {
	for i := range d.Columns {
		if strings.EqualFold(d.Columns[i].Name, name) {
			return i
		}
	}
	for i := range d.Columns {
		for _, a := range d.Columns[i].Aliases {
			if strings.EqualFold(a, name) {
				return i
			}
		}
	}
	return -1
}

// Op compares a column with a value.
type Op uint8

const (
	Eq Op = iota
	Gt
	Ge
	Lt
	Le
	Like
	Glob
	In // any of Constraint.Values
)

// Constraint is a condition that every row of the answer will meet.
type Constraint struct {
	Column int // index into Def.Columns
	Op     Op
	Value  Value
	Values []Value // for In only
}

// Query is what a scan is asked for. A scan may return rows that do not meet the
// constraints (SQL checks again) but never leaves out one that does.
type Query struct {
	Constraints []Constraint
	// Used has a true for every column that will be read; nil means all.
	Used []bool
	// Warn, when set, takes a sentence for the user that is no error.
	Warn func(string)
}

// Uses reports whether column i will be read.
func (q *Query) Uses(i int) bool { return q.Used == nil || i < len(q.Used) && q.Used[i] }

// Equals returns every value that column i is constrained to by = or IN, and whether
// it is so constrained. With several such constraints any one of them will do.
func (q *Query) Equals(i int) ([]Value, bool) {
	for k := range q.Constraints {
		c := &q.Constraints[k]
		if c.Column != i {
			continue
		}
		switch c.Op {
		case Eq:
			return []Value{c.Value}, true
		case In:
			return c.Values, true
		}
	}
	return nil, false
}

// Warning passes a sentence to the user of the query, if somebody listens.
func (q *Query) Warning(s string) {
	if q.Warn != nil {
		q.Warn(s)
	}
}

// Cursor walks the rows of one scan. A cursor belongs to one goroutine.
type Cursor interface {
	// Next moves to the next row; false at the end.
	Next() (bool, error)
	// Value returns a cell of the present row, valid until the next call of Next.
	Value(column int) Value
	// Close ends the scan and frees what it holds.
	Close() error
}

// Relation is anything that SQL can scan as a table.
type Relation interface {
	Def() *Def
	Open(ctx context.Context, q *Query) (Cursor, error)
}
