package sql

import (
	"context"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// whereMemory is for one short expression; SQLite itself takes about half a megabyte.
const whereMemory = 8 << 20

// Where is a SQL expression over the columns of one table, to be asked row by row. It
// belongs to one goroutine at a time.
//
// It is a SELECT over a table that never ends: each Match makes it move on by one row, so
// that nothing is prepared, opened or reset in between.
type Where struct {
	conn *conn
	stmt *sqlite3.Stmt

	cell    func(column int) schema.Value
	granted bool // the scan may move to a row
	asked   bool // the scan moved without grant: the expression is about several rows
}

var errSeveralRows = &Error{Text: "a condition is about one row: it can have no subquery, window or aggregate"}

// Where compiles expr over the columns of def, hidden ones included. Subqueries and
// aggregates are refused. A column that def does not have is an *UnknownColumn, other
// faults are an *Error. The caller closes the Where; it needs nothing of the Engine's.
func (e *Engine) Where(def *schema.Def, expr string) (*Where, error) {
	if strings.IndexByte(expr, 0) >= 0 || len(expr) > maxText {
		return nil, &Error{Text: "the condition contains a NUL byte or is too long"}
	}
	if skipBlank(expr) == "" {
		return nil, &Error{Text: "the condition is empty"}
	}
	c, err := e.connect(whereMemory)
	if err != nil {
		return nil, err
	}
	c.ctx = context.Background()
	w := &Where{conn: c}
	if err := w.prepare(def, expr); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Where) prepare(def *schema.Def, expr string) (err error) {
	c := w.conn
	defer func() {
		if v := recover(); v != nil {
			err = trapped(v, c.memory)
		}
	}()
	//lint:ignore SA1019 the generic method needs Go 1.27
	err = sqlite3.CreateModule(c.db, def.Name, nil,
		func(db *sqlite3.Conn, _, _, _ string, _ ...string) (*whereTable, error) {
			text, declared := declaration(def)
			return &whereTable{where: w, declared: declared}, db.DeclareVTab(text)
		})
	if err != nil {
		return c.explain(c.ctx, err)
	}
	selects := 0
	if err := c.db.SetAuthorizer(func(action sqlite3.AuthorizerActionCode, _, _, _, _ string) sqlite3.AuthorizerReturnCode {
		switch action {
		case sqlite3.AUTH_READ, sqlite3.AUTH_FUNCTION:
			return sqlite3.AUTH_OK
		case sqlite3.AUTH_SELECT:
			if selects++; selects == 1 {
				return sqlite3.AUTH_OK
			}
		}
		return sqlite3.AUTH_DENY
	}); err != nil {
		return err
	}
	// CASE, other than AND by itself, does not evaluate what cannot matter. The newline
	// ends a comment in the expression.
	stmt, tail, err := c.db.Prepare("SELECT CASE WHEN (" + expr + "\n) THEN 1 END FROM " + sqlite3.QuoteIdentifier(def.Name))
	if err != nil {
		text := message(err)
		if name, ok := strings.CutPrefix(text, "no such column: "); ok {
			return &UnknownColumn{Name: name[strings.LastIndexByte(name, '.')+1:], Known: columnNames(def)}
		}
		if selects > 1 {
			return errSeveralRows
		}
		return &Error{Text: text}
	}
	if stmt == nil || skipBlank(tail) != "" || stmt.ColumnCount() != 1 || stmt.BindCount() != 0 {
		return &Error{Text: "the condition is not one expression"}
	}
	w.stmt = stmt
	// Try it on a row of NULLs: one that asks for a second row is an aggregate.
	if _, err := w.Match(func(int) schema.Value { return schema.Null }); err != nil {
		return err
	}
	if w.asked {
		return errSeveralRows
	}
	return nil
}

func columnNames(def *schema.Def) []string {
	var names []string
	for i := range def.Columns {
		if !def.Columns[i].Has(schema.Internal) {
			names = append(names, def.Columns[i].Name)
		}
	}
	return names
}

// Match reports whether the expression is true for the row whose cells cell returns, by
// index into the table's columns. It is asked only for columns that matter. An error is
// one of this row; the next Match stands by itself.
func (w *Where) Match(cell func(column int) schema.Value) (match bool, err error) {
	if w.conn.broken {
		return false, outOfMemory(w.conn.memory)
	}
	defer func() {
		if v := recover(); v != nil {
			if w.conn.foreign {
				panic(v)
			}
			w.conn.broken = true
			match, err = false, trapped(v, w.conn.memory)
		}
	}()
	w.cell, w.granted = cell, true
	if w.stmt.Step() {
		match = w.stmt.ColumnInt64(0) != 0
	} else {
		err = w.stmt.Err()
		_ = w.stmt.Reset() // repeats the error
		if err != nil {
			return false, &Error{Text: message(err)}
		}
		return false, &Error{Text: "BUG: the row of a condition has ended"}
	}
	w.cell = nil
	return match, nil
}

// Close frees the expression.
func (w *Where) Close() error {
	w.conn.close()
	return nil
}

// whereTable is the table without end.
type whereTable struct {
	where    *Where
	declared []int
}

func (t *whereTable) BestIndex(*sqlite3.IndexInfo) error { return nil }

func (t *whereTable) Open() (sqlite3.VTabCursor, error) { return (*whereCursor)(t), nil }

type whereCursor whereTable

func (k *whereCursor) Filter(int, string, ...sqlite3.Value) error {
	k.where.asked = false
	return k.Next()
}

func (k *whereCursor) Next() error {
	if !k.where.granted {
		k.where.asked = true
	}
	k.where.granted = false
	return nil
}

func (k *whereCursor) EOF() bool { return k.where.asked }

func (k *whereCursor) Column(ctx sqlite3.Context, n int) error {
	c := k.where.conn
	c.foreign = true
	v := k.where.cell(k.declared[n])
	c.foreign = false
	result(ctx, v)
	return nil
}

func (k *whereCursor) RowID() (int64, error) { return 1, nil }
