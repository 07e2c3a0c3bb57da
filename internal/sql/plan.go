package sql

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// plan is what BestIndex settled and Filter carries out. SQLite keeps it as text with
// the statement: the hexadecimal mask of used columns, then a column and an operator for
// each argument, as in "1f 3= 0[".
type plan struct {
	used  []bool // by index into Def.Columns; nil means all
	terms []term // never nil once parsed
}

type term struct {
	column int // index into Def.Columns
	op     schema.Op
}

// opLetters are the operators in a plan's text, by schema.Op.
const opLetters = "=>}<{~*["

var pushed = map[sqlite3.IndexConstraintOp]schema.Op{
	sqlite3.INDEX_CONSTRAINT_EQ:   schema.Eq,
	sqlite3.INDEX_CONSTRAINT_GT:   schema.Gt,
	sqlite3.INDEX_CONSTRAINT_GE:   schema.Ge,
	sqlite3.INDEX_CONSTRAINT_LT:   schema.Lt,
	sqlite3.INDEX_CONSTRAINT_LE:   schema.Le,
	sqlite3.INDEX_CONSTRAINT_LIKE: schema.Like,
	sqlite3.INDEX_CONSTRAINT_GLOB: schema.Glob,
}

// keyed are the flags of columns whose relation looks for constraints on them.
const keyed = schema.Index | schema.Additional | schema.Required | schema.Optimized

func isKeyed(c *schema.ColumnDef) bool { return c.Flags&keyed != 0 }

func isTime(c *schema.ColumnDef) bool { return c.Form == schema.Timestamp || c.Name == "time" }

// The planner's numbers. Only their ratios matter: a lookup is far cheaper than a
// snapshot, a snapshot than the event store, and the store within a time than all of it.
const (
	scanCost, scanRows     = 1e6, 1e3
	storeCost, storeRows   = 1e8, 1e6
	lookupCost, lookupRows = 1e2, 10
	inFactor               = 10 // values in an IN whose number is not known yet
)

// BestIndex says which of the conditions this table wants to see, and what a scan with
// them would cost. SQLite asks several times, for each order of a join.
func (t *table) BestIndex(info *sqlite3.IndexInfo) error {
	t.conn.planned = append(t.conn.planned, t.def)
	cost, rows := scanCost, scanRows
	if t.def.Events {
		cost, rows = storeCost, storeRows
	}
	var text strings.Builder
	text.WriteString(strconv.FormatUint(info.ColumnsUsed, 16))
	var required, satisfied, offered bool
	for i := range t.def.Columns {
		required = required || t.def.Columns[i].Has(schema.Required)
	}
	args := 0
	for i, k := range info.Constraint {
		op, ok := pushed[k.Op]
		if !ok || k.Column < 0 || k.Column >= len(t.declared) {
			continue
		}
		column := t.declared[k.Column]
		c := &t.def.Columns[column]
		exact := op == schema.Eq || op == schema.Like || op == schema.Glob
		if c.Has(schema.Required) && exact {
			offered = true
		}
		if !k.Usable {
			// Another order of the join could use it. Without an additional column
			// a table answers something else, so that order must win.
			if c.Has(schema.Additional) && exact {
				cost *= 100
			}
			continue
		}
		if !t.sensible(info, i, c, op) {
			continue
		}
		if op == schema.Eq && info.In(i, -1) {
			info.In(i, 1)
			op = schema.In
		}
		args++
		info.ConstraintUsage[i].ArgvIndex = args
		fmt.Fprintf(&text, " %d%c", column, opLetters[op])
		cost, rows = t.estimate(c, op, cost, rows)
		if c.Has(schema.Required) && exact {
			satisfied = true
		}
	}
	if required && !satisfied {
		if !offered || t.conn.missing == nil {
			t.conn.missing = t.def
		}
		return sqlite3.CONSTRAINT
	}
	info.IdxStr = text.String()
	info.EstimatedCost = cost
	info.EstimatedRows = int64(max(rows, 1))
	return nil
}

// sensible reports whether a relation that compares as schema.Value does can use the
// condition, by its collation. Numbers have none, LIKE and GLOB ignore it.
func (t *table) sensible(info *sqlite3.IndexInfo, i int, c *schema.ColumnDef, op schema.Op) bool {
	if c.Type != schema.Text || op == schema.Like || op == schema.Glob {
		return true
	}
	collation := info.Collation(i)
	if strings.EqualFold(collation, "BINARY") {
		return true
	}
	return op == schema.Eq && isKeyed(c) && strings.EqualFold(collation, c.Collate)
}

// estimate refines a scan's cost and rows by one more condition.
func (t *table) estimate(c *schema.ColumnDef, op schema.Op, cost, rows float64) (float64, float64) {
	if t.def.Events {
		switch {
		case isTime(c) && (op == schema.Eq || op == schema.In):
			return cost / 1000, rows / 1000
		case isTime(c) && op != schema.Like && op != schema.Glob:
			return cost / 20, rows / 20
		case (op == schema.Eq || op == schema.In) && isKeyed(c):
			return cost / 10, rows / 1000
		}
	} else if isKeyed(c) {
		switch op {
		case schema.Eq:
			return min(cost, lookupCost), min(rows, lookupRows)
		case schema.In:
			return min(cost, lookupCost*inFactor), min(rows, lookupRows*inFactor)
		case schema.Like, schema.Glob:
			return min(cost, scanCost/10), min(rows, scanRows)
		}
	}
	// The relation may use the others as it likes; they only thin its rows out.
	switch op {
	case schema.Eq:
		return cost * 0.9, rows / 10
	case schema.In, schema.Like, schema.Glob:
		return cost * 0.95, rows / 4
	}
	return cost * 0.95, rows / 3
}

// parsePlan reads what BestIndex wrote.
func parsePlan(text string, t *table) (plan, error) {
	bad := fmt.Errorf("BUG: unreadable plan %q", text)
	first, rest, _ := strings.Cut(text, " ")
	mask, err := strconv.ParseUint(first, 16, 64)
	if err != nil {
		return plan{}, bad
	}
	p := plan{terms: []term{}}
	if mask != math.MaxUint64 {
		p.used = make([]bool, len(t.def.Columns))
		for k, i := range t.declared {
			// The last bit stands for all columns from the 64th on.
			if mask>>min(k, 63)&1 != 0 {
				p.used[i] = true
			}
		}
	}
	for word := range strings.FieldsSeq(rest) {
		column, err := strconv.Atoi(word[:len(word)-1])
		op := strings.IndexByte(opLetters, word[len(word)-1])
		if err != nil || op < 0 || column >= len(t.def.Columns) {
			return plan{}, bad
		}
		p.terms = append(p.terms, term{column, schema.Op(op)})
	}
	return p, nil
}

// query makes the question to a relation from the plan and SQLite's values; never says
// that no row can meet the conditions.
func (p *plan) query(def *schema.Def, args []sqlite3.Value) (q *schema.Query, never bool, err error) {
	if len(args) != len(p.terms) {
		return nil, false, fmt.Errorf("BUG: %d values for %d terms of a plan", len(args), len(p.terms))
	}
	q = &schema.Query{Used: p.used}
	if len(args) > 0 {
		q.Constraints = make([]schema.Constraint, 0, len(args))
	}
	for i, t := range p.terms {
		c := &def.Columns[t.column]
		if t.op == schema.In {
			values, keep, err := members(c, args[i])
			if err != nil {
				return nil, false, err
			}
			if keep && len(values) == 0 {
				return nil, true, nil
			}
			if keep {
				q.Constraints = append(q.Constraints, schema.Constraint{Column: t.column, Op: schema.In, Values: values})
			}
			continue
		}
		op, v, verdict := convert(c, t.op, args[i])
		switch verdict {
		case noRow:
			return nil, true, nil
		case keep:
			q.Constraints = append(q.Constraints, schema.Constraint{Column: t.column, Op: op, Value: v})
		}
	}
	return q, false, nil
}

// members reads the values of an IN; keep is false when one of them cannot be passed on.
func members(c *schema.ColumnDef, list sqlite3.Value) (values []schema.Value, ok bool, err error) {
	v, err := list.InFirst()
	for ; err == nil; v, err = list.InNext() {
		_, value, verdict := convert(c, schema.Eq, v)
		switch verdict {
		case drop:
			return nil, false, nil
		case keep:
			values = append(values, value)
		}
	}
	// The end is SQLITE_DONE, for which the library has no name and which it may dress
	// with an older message.
	const done sqlite3.ExtendedErrorCode = 101
	if errors.Is(err, done) {
		return values, true, nil
	}
	return nil, false, err
}

type verdict uint8

const (
	keep  verdict = iota
	drop          // a relation could lose rows by it
	noRow         // it is true for no row
)

// convert turns the right side of `c op v` into what schema.Value compares as SQLite
// compares v with c's affinity (https://sqlite.org/datatype3.html, section 4.2).
func convert(c *schema.ColumnDef, op schema.Op, v sqlite3.Value) (schema.Op, schema.Value, verdict) {
	kind := v.Type()
	if kind == sqlite3.NULL {
		return op, schema.Null, noRow
	}
	if op == schema.Like || op == schema.Glob {
		return op, schema.TextValue(v.Text()), keep
	}
	if kind == sqlite3.BLOB {
		if op == schema.Eq && isKeyed(c) { // equals no text and no number
			return op, schema.TextValue(v.Text()), keep
		}
		return op, schema.Null, drop
	}
	if c.Type == schema.Text {
		if kind == sqlite3.TEXT {
			return op, schema.TextValue(v.Text()), keep
		}
		// A number is compared as text when it is a literal, but as a number when it
		// is another table's column; here the two look alike. '042' is then lost.
		if op == schema.Eq && isKeyed(c) {
			return op, schema.TextValue(v.Text()), keep
		}
		return op, schema.Null, drop
	}
	switch v.NumericType() {
	case sqlite3.INTEGER:
		return op, schema.IntValue(v.Int64()), keep
	case sqlite3.FLOAT:
		if c.Type == schema.Double {
			return op, schema.FloatValue(v.Float()), keep
		}
		return convertFloat(op, v.Float())
	}
	if op == schema.Eq && isKeyed(c) { // text that is no number equals no number
		return op, schema.TextValue(v.Text()), keep
	}
	return op, schema.Null, drop
}

// convertFloat is convert for a fraction beside a column of integers.
func convertFloat(op schema.Op, f float64) (schema.Op, schema.Value, verdict) {
	floor := math.Floor(f)
	if !(floor >= -1<<62 && floor <= 1<<62) {
		if op == schema.Eq {
			return op, schema.FloatValue(f), keep
		}
		return op, schema.Null, drop
	}
	n := schema.IntValue(int64(floor))
	if floor == f {
		return op, n, keep
	}
	switch op {
	case schema.Gt, schema.Ge:
		return schema.Gt, n, keep
	case schema.Lt, schema.Le:
		return schema.Le, n, keep
	}
	return op, schema.FloatValue(f), keep
}
