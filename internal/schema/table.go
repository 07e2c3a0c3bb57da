package schema

import "context"

// Table is a snapshot table over rows of type T: the whole answer is made when asked.
type Table[T any] struct {
	Name    string
	Doc     string
	Aliases []string
	Columns []Column[T]
	// Rows makes the rows. It looks at q for constraints on indexed, additional and
	// required columns, and stops early when ctx ends.
	Rows func(ctx context.Context, q *Query) ([]T, error)

	def *Def
}

// Bind fixes the definition; call it once, before the table is shared.
func (t *Table[T]) Bind() *Table[T] {
	t.def = &Def{Name: t.Name, Doc: t.Doc, Aliases: t.Aliases, Columns: Defs(t.Columns)}
	return t
}

// Defs returns the definitions of columns.
func Defs[T any](columns []Column[T]) []ColumnDef {
	out := make([]ColumnDef, len(columns))
	for i := range columns {
		out[i] = columns[i].ColumnDef
	}
	return out
}

// Def implements Relation.
func (t *Table[T]) Def() *Def { return t.def }

// Open implements Relation.
func (t *Table[T]) Open(ctx context.Context, q *Query) (Cursor, error) {
	rows, err := t.Rows(ctx, q)
	if err != nil {
		return nil, err
	}
	return &sliceCursor[T]{columns: t.Columns, rows: rows, at: -1}, nil
}

type sliceCursor[T any] struct {
	columns []Column[T]
	rows    []T
	at      int
}

func (c *sliceCursor[T]) Next() (bool, error) { c.at++; return c.at < len(c.rows), nil }

func (c *sliceCursor[T]) Value(i int) Value { return c.columns[i].Value(c.rows[c.at]) }

func (c *sliceCursor[T]) Close() error { c.rows = nil; return nil }
