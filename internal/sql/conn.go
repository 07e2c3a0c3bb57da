package sql

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// conn is one SQLite connection. It belongs to whoever acquired it.
type conn struct {
	engine  *Engine
	db      *sqlite3.Conn
	wasm    *sqlite3.ExtEnv // the memory SQLite lives in
	stack   int32           // where SQLite's stack begins in it
	memory  int64           // SQLite's own limit, in bytes
	tables  map[string]bool // relations registered here, by lower-case name
	made    map[string]bool // views of the engine made here
	regexps regexps

	broken bool // out of memory or trapped: not to be used again
	views  bool // the query made a temporary view

	// foreign is set while code of a relation or a receiver runs. Its panics are ours
	// to die of; any other panic under SQLite is SQLite's.
	foreign bool

	// Of the present query.
	ctx      context.Context
	receiver Receiver
	warn     func(string)
	warned   map[string]bool
	scanErr  error       // what a relation failed with
	missing  *schema.Def // a table that found no required column
	refused  string      // what the authorizer refused
	view     string      // the temporary view made or dropped last
	sight    []*schema.Def
	planned  []*schema.Def // of the statement prepared last

	row  []schema.Value
	ends []int
	text []byte
}

const (
	maxValue = 16 << 20 // bytes of one cell
	// headroom is for what SQLite's own limit does not count: its stack and heap slack.
	headroom = 4 << 20
)

func (e *Engine) connect(memory int64) (c *conn, err error) {
	c = &conn{engine: e, memory: memory, tables: map[string]bool{}, made: map[string]bool{}}
	c.warn = c.warning
	defer func() {
		if v := recover(); v != nil {
			err = trapped(v, memory)
		}
		if err != nil {
			c.close()
			c, err = nil, fmt.Errorf("open query engine: %w", err)
		}
	}()
	ctx := sqlite3.WithMaxMemory(context.Background(), memory+headroom)
	if c.db, err = sqlite3.OpenContext(ctx, ":memory:"); err != nil {
		return c, err
	}
	if err = c.look(); err != nil {
		return c, err
	}
	// Nothing may spill to files, and osquery's dialect takes "x" for a string when
	// there is no such column.
	if err = c.db.Exec("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -256"); err != nil {
		return c, err
	}
	for option, on := range map[sqlite3.DBConfig]bool{
		sqlite3.DBCONFIG_DQS_DML:        true,
		sqlite3.DBCONFIG_DQS_DDL:        true,
		sqlite3.DBCONFIG_DEFENSIVE:      true,
		sqlite3.DBCONFIG_ENABLE_TRIGGER: false,
	} {
		if _, err = c.db.Config(option, on); err != nil {
			return c, err
		}
	}
	c.db.Limit(sqlite3.LIMIT_LENGTH, maxValue)
	c.db.Limit(sqlite3.LIMIT_ATTACHED, 0)
	if err = c.functions(); err != nil {
		return c, err
	}
	if err = c.collations(); err != nil {
		return c, err
	}
	if err = c.db.SetAuthorizer(c.authorize); err != nil {
		return c, err
	}
	c.db.HardHeapLimit(memory)
	return c, nil
}

// bare is an extension of SQLite that does nothing: loading one is the library's way
// to its memory.
type bare struct{}

func (bare) Xsqlite3_extension_init(_, _, _ int32) int32 { return 0 }

// look gives c its view of SQLite's memory.
func (c *conn) look() error {
	//lint:ignore SA1019 the generic method needs Go 1.27
	return sqlite3.ExtensionInit(c.db, func(memory *sqlite3.ExtEnv) bare {
		c.wasm, c.stack = memory, *memory.X__stack_pointer()
		return bare{}
	}, func() (int64, int64, int64, int64) { return 0, 0, 0, 0 })
}

// close frees the connection: in SQLite's way, or, when a trap left SQLite unable to
// close, by unmapping its memory and closing what it had open.
func (c *conn) close() {
	if c.db == nil {
		return
	}
	if c.wasm != nil {
		*c.wasm.X__stack_pointer() = c.stack // a trap leaves it where it happened
	}
	if err := c.finish(); err != nil && c.wasm != nil {
		_ = c.wasm.Close()
	}
	c.db, c.wasm = nil, nil
}

func (c *conn) finish() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = trapped(v, c.memory)
		}
	}()
	c.db.SetInterrupt(context.Background())
	for stmt := range c.db.Stmts() {
		_ = stmt.Close() // repeats the statement's error
	}
	return c.db.Close()
}

// query runs all statements of text.
func (c *conn) query(ctx context.Context, text string, r Receiver) (err error) {
	c.ctx, c.receiver = ctx, r
	defer func() {
		if v := recover(); v != nil {
			if c.foreign {
				panic(v)
			}
			c.broken = true
			err = trapped(v, c.memory)
			if ctx.Err() != nil {
				err = stopped(ctx)
			}
		}
		c.ctx, c.receiver, c.warned, c.sight = nil, nil, nil, nil
	}()
	c.db.SetInterrupt(ctx)
	if err := c.register(text); err != nil {
		return c.explain(ctx, err)
	}
	for {
		if text = skipBlank(text); text == "" {
			return nil
		}
		c.missing, c.refused, c.scanErr, c.planned = nil, "", nil, nil
		stmt, tail, err := c.db.Prepare(text)
		if err != nil {
			return c.explain(ctx, err)
		}
		if stmt == nil {
			return nil
		}
		text = tail
		if err := c.run(ctx, stmt, r); err != nil {
			return err
		}
	}
}

// run steps through one statement and closes it. A panic leaves the statement to close.
func (c *conn) run(ctx context.Context, stmt *sqlite3.Stmt, r Receiver) error {
	err := c.rows(ctx, stmt, r)
	// Close repeats the error of the last step.
	_ = stmt.Close()
	return err
}

func (c *conn) rows(ctx context.Context, stmt *sqlite3.Stmt, r Receiver) error {
	if t, ok := r.(TableReceiver); ok {
		t.Tables(c.planned)
	}
	n := stmt.ColumnCount()
	if n > 0 {
		names, types := make([]string, n), make([]string, n)
		for i := range n {
			names[i], types[i] = stmt.ColumnName(i), stmt.ColumnDeclType(i)
		}
		if err := c.columns(r, names, types); err != nil {
			return err
		}
	}
	for stmt.Step() {
		c.read(stmt, n)
		c.foreign = true
		err := r.Row(c.row)
		c.foreign = false
		if err != nil {
			return err
		}
	}
	if err := stmt.Err(); err != nil {
		return c.explain(ctx, err)
	}
	return nil
}

func (c *conn) columns(r Receiver, names, types []string) error {
	c.foreign = true
	defer func() { c.foreign = false }()
	return r.Columns(names, types)
}

// read copies the present row out of SQLite's memory: one allocation for all its text.
func (c *conn) read(stmt *sqlite3.Stmt, n int) {
	c.row, c.ends, c.text = c.row[:0], c.ends[:0], c.text[:0]
	for i := range n {
		v, end := schema.Null, -1
		switch stmt.ColumnType(i) {
		case sqlite3.INTEGER:
			v = schema.IntValue(stmt.ColumnInt64(i))
		case sqlite3.FLOAT:
			v = schema.FloatValue(stmt.ColumnFloat(i))
		case sqlite3.TEXT:
			c.text = append(c.text, stmt.ColumnRawText(i)...)
			end = len(c.text)
		case sqlite3.BLOB:
			c.text = append(c.text, stmt.ColumnRawBlob(i)...)
			end = len(c.text)
		}
		c.row, c.ends = append(c.row, v), append(c.ends, end)
	}
	all, start := string(c.text), 0
	for i, end := range c.ends {
		if end >= 0 {
			c.row[i] = schema.TextValue(all[start:end])
			start = end
		}
	}
}

// warning passes a sentence to the receiver, once a query, and not too many.
func (c *conn) warning(sentence string) {
	if c.receiver == nil || c.warned[sentence] || len(c.warned) >= 100 {
		return
	}
	if c.warned == nil {
		c.warned = map[string]bool{}
	}
	c.warned[sentence] = true
	was := c.foreign
	c.foreign = true
	c.receiver.Warning(sentence)
	c.foreign = was
}

// authorize lets a statement read, and make temporary views.
func (c *conn) authorize(action sqlite3.AuthorizerActionCode, third, fourth, database, _ string) sqlite3.AuthorizerReturnCode {
	what := ""
	switch action {
	case sqlite3.AUTH_SELECT, sqlite3.AUTH_READ, sqlite3.AUTH_RECURSIVE, sqlite3.AUTH_FUNCTION:
		return sqlite3.AUTH_OK
	case sqlite3.AUTH_CREATE_TEMP_VIEW, sqlite3.AUTH_DROP_TEMP_VIEW:
		c.views, c.view = true, third
		return sqlite3.AUTH_OK
	case sqlite3.AUTH_INSERT, sqlite3.AUTH_UPDATE, sqlite3.AUTH_DELETE:
		// A temporary view is a row of the temporary schema. SQLite itself refuses
		// statements that change the schema's rows, or a view's, so this lets through
		// CREATE and DROP only, about which it asks as well.
		if database == "temp" && (third == "sqlite_temp_master" || c.views && third == c.view) {
			return sqlite3.AUTH_OK
		}
		if what = "INSERT, UPDATE or DELETE"; third == "sqlite_master" {
			what = "CREATE, DROP or ALTER"
		}
	case sqlite3.AUTH_PRAGMA:
		switch strings.ToLower(third) {
		case "table_info", "table_xinfo", "table_list", "function_list", "collation_list":
			return sqlite3.AUTH_OK
		}
		what = "PRAGMA " + oneLine(third)
	case sqlite3.AUTH_ATTACH, sqlite3.AUTH_DETACH:
		what = "ATTACH"
	case sqlite3.AUTH_TRANSACTION, sqlite3.AUTH_SAVEPOINT:
		what = "a transaction"
	default:
		what = "CREATE, DROP or ALTER"
	}
	c.refused = what
	return sqlite3.AUTH_DENY
}

// register makes the relations that text may mean known to SQLite: registering all 150
// takes 3 ms and half a megabyte a connection, the ones named take microseconds. Any
// run of identifier characters counts, in strings and comments too, since
// pragma_table_info takes a table's name in a string.
func (c *conn) register(text string) error {
	c.sight = nil
	return c.registerWords(text, 0)
}

func (c *conn) registerWords(text string, depth int) error {
	for word := range words(text) {
		key := strings.ToLower(word)
		relation, ok := c.engine.relations[key]
		if view, is := c.engine.views[key]; is && !c.made[key] && depth < maxViews {
			if err := c.makeView(key, view, depth); err != nil {
				return err
			}
		}
		if !ok {
			continue
		}
		c.sight = append(c.sight, relation.Def())
		if c.tables[key] {
			continue
		}
		if err := c.module(key, relation); err != nil {
			return err
		}
		c.tables[key] = true
	}
	return nil
}

// maxViews bounds how deeply views may use each other.
const maxViews = 16

// makeView makes a view of the engine known to SQLite, which looks into it on first use.
func (c *conn) makeView(key string, v View, depth int) error {
	c.made[key] = true
	if err := c.registerWords(v.SQL, depth+1); err != nil {
		return err
	}
	views, view := c.views, c.view
	err := c.db.Exec("CREATE TEMP VIEW IF NOT EXISTS " + sqlite3.QuoteIdentifier(v.Name) + " AS " + v.SQL)
	c.views, c.view = views, view // which are about the query's own
	if err != nil {               // a query that really uses it fails
		c.warning(fmt.Sprintf("view %s is left out: %s", v.Name, message(err)))
	}
	return nil
}

// columnsInSight returns the names of the columns of the tables in the query's text.
func (c *conn) columnsInSight() []string {
	var names []string
	for _, def := range c.sight {
		for i := range def.Columns {
			if !def.Columns[i].Has(schema.Internal) {
				names = append(names, def.Columns[i].Name)
			}
		}
	}
	return names
}

// words yields the runs of letters, digits, underscores, dollars and non-ASCII in text.
func words(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		start := -1
		for i := 0; i <= len(text); i++ {
			if i < len(text) {
				b := text[i]
				if b == '_' || b == '$' || b >= utf8.RuneSelf || b-'0' < 10 || b|0x20-'a' < 26 {
					if start < 0 {
						start = i
					}
					continue
				}
			}
			if start >= 0 && !yield(text[start:i]) {
				return
			}
			start = -1
		}
	}
}

// skipBlank drops the white space, semicolons and comments that text begins with: for
// a statement with nothing in it the library forgets what follows.
func skipBlank(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f;")
		switch {
		case strings.HasPrefix(text, "--"):
			_, rest, ok := strings.Cut(text, "\n")
			if !ok {
				return ""
			}
			text = rest
		case strings.HasPrefix(text, "/*"):
			_, rest, ok := strings.Cut(text[2:], "*/")
			if !ok {
				return ""
			}
			text = rest
		default:
			return text
		}
	}
}
