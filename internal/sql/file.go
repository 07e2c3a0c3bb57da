package sql

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// FileTable is a table over a query of SQLite files, osquery's auto_table_construction. All
// columns are text; the last, path, names the file.
type FileTable struct {
	// Query is run in each file; it can only read.
	Query string
	// Paths returns the files there are now.
	Paths func() ([]string, error)
	def   *schema.Def
}

// fileMemory is what SQLite may hold to read one file.
const fileMemory = 32 << 20

// NewFileTable returns a table with columns that Query's are matched with by name.
func NewFileTable(name, query string, columns []string, paths func() ([]string, error)) *FileTable {
	def := &schema.Def{Name: name, Doc: "Rows of SQLite files, as the configuration asks for."}
	for _, c := range append(columns[:len(columns):len(columns)], "path") {
		def.Columns = append(def.Columns, schema.ColumnDef{Name: c, Type: schema.Text, Doc: "Column of the files"})
	}
	return &FileTable{query, paths, def}
}

// Def implements schema.Relation.
func (t *FileTable) Def() *schema.Def { return t.def }

// Open implements schema.Relation. A file that cannot be read is passed over, with a warning.
func (t *FileTable) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	paths, err := t.Paths()
	if err != nil {
		return nil, err
	}
	return &fileCursor{table: t, ctx: ctx, q: q, paths: paths}, nil
}

// fileCursor walks the rows of one file after the other.
type fileCursor struct {
	table *FileTable
	ctx   context.Context
	q     *schema.Query
	paths []string // not read yet
	path  string
	db    *sqlite3.Conn
	stmt  *sqlite3.Stmt
	index []int // of the statement's column, by the table's; -1: none
}

// Next implements schema.Cursor.
func (c *fileCursor) Next() (more bool, err error) {
	for c.ctx.Err() == nil {
		if c.stmt == nil {
			if len(c.paths) == 0 {
				return false, nil
			}
			c.path, c.paths = c.paths[0], c.paths[1:]
			if err := c.open(); err != nil {
				c.pass(err)
				continue
			}
		}
		more, err := c.step()
		if err != nil {
			c.pass(err)
			continue
		}
		if more {
			return true, nil
		}
		c.done()
	}
	return false, c.ctx.Err()
}

// step moves to the next row of the file. SQLite's panics at its limit of memory are errors.
func (c *fileCursor) step() (more bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.db, c.stmt = nil, nil
			err = trapped(v, fileMemory)
		}
	}()
	return c.stmt.Step(), c.stmt.Err()
}

func (c *fileCursor) pass(err error) {
	c.q.Warning(fmt.Sprintf("table %s: %q is passed over: %s", c.table.def.Name, c.path, message(err)))
	c.done()
}

// open prepares the query in the file at c.path. Nothing is written beside it, and no lock
// is taken: as in osquery, what its owner writes meanwhile may be missed.
func (c *fileCursor) open() (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.db, c.stmt = nil, nil
			err = trapped(v, fileMemory)
		}
	}()
	uri := url.URL{Scheme: "file", OmitHost: true, Path: c.path, RawQuery: "immutable=1&mode=ro"}
	ctx := sqlite3.WithMaxMemory(context.Background(), fileMemory+headroom)
	c.db, err = sqlite3.OpenContext(ctx, uri.String())
	if err != nil {
		return err
	}
	c.db.HardHeapLimit(fileMemory)
	c.db.Limit(sqlite3.LIMIT_LENGTH, maxValue)
	c.db.Limit(sqlite3.LIMIT_ATTACHED, 0)
	c.db.SetInterrupt(c.ctx)
	err = c.db.SetAuthorizer(func(action sqlite3.AuthorizerActionCode, _, _, _, _ string) sqlite3.AuthorizerReturnCode {
		switch action {
		case sqlite3.AUTH_SELECT, sqlite3.AUTH_READ, sqlite3.AUTH_RECURSIVE, sqlite3.AUTH_FUNCTION:
			return sqlite3.AUTH_OK
		}
		return sqlite3.AUTH_DENY
	})
	if err != nil {
		return err
	}
	if c.stmt, _, err = c.db.Prepare(c.table.Query); err != nil {
		return err
	}
	if c.stmt == nil {
		return fmt.Errorf("the query is empty")
	}
	c.index = c.index[:0]
	for _, col := range c.table.def.Columns {
		at := -1
		for i := range c.stmt.ColumnCount() {
			if strings.EqualFold(c.stmt.ColumnName(i), col.Name) {
				at = i
			}
		}
		c.index = append(c.index, at)
	}
	return nil
}

// done closes the file.
func (c *fileCursor) done() {
	defer func() { _ = recover() }() // a connection that a trap left so is given up
	if c.stmt != nil {
		_ = c.stmt.Close() // repeats the error of the last step
		c.stmt = nil
	}
	if c.db != nil {
		c.db.SetInterrupt(context.Background())
		_ = c.db.Close()
		c.db = nil
	}
}

// Value implements schema.Cursor.
func (c *fileCursor) Value(i int) schema.Value {
	if i == len(c.table.def.Columns)-1 {
		return schema.TextValue(c.path)
	}
	at := c.index[i]
	if at < 0 {
		return schema.TextValue("")
	}
	switch c.stmt.ColumnType(at) {
	case sqlite3.NULL:
		return schema.TextValue("")
	case sqlite3.BLOB:
		return schema.TextValue(hex.EncodeToString(c.stmt.ColumnRawBlob(at)))
	}
	return schema.TextValue(c.stmt.ColumnText(at))
}

// Close implements schema.Cursor.
func (c *fileCursor) Close() error {
	c.done()
	return nil
}
