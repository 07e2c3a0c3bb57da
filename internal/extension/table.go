package extension

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/osquery/osquery-go/gen/osquery"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Table is a table of an extension, which is asked for its rows whenever it is scanned.
type Table struct {
	def     *schema.Def
	path    string
	timeout func() time.Duration
}

// The bits of a column's options on the wire (osquery's core/sql/column.h).
const (
	optIndex = 1 << iota
	optRequired
	optAdditional
	optOptimized
	optHidden
)

var (
	tableName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	typesByTag = map[string]schema.Type{
		"TEXT": schema.Text, "INTEGER": schema.Integer, "BIGINT": schema.BigInt, "UNSIGNED BIGINT": schema.UnsignedBigInt,
		"UNSIGNED_BIGINT": schema.UnsignedBigInt, "DOUBLE": schema.Double, "BLOB": schema.Text, "UNKNOWN": schema.Text,
	}
)

// newTable makes a table of what an extension says of it: a row for each column, with its
// name, type and options.
func newTable(name string, routes osquery.ExtensionPluginResponse) (*Table, error) {
	if !tableName.MatchString(name) {
		return nil, fmt.Errorf("a table cannot be called %.64q", name)
	}
	t := &Table{def: &schema.Def{Name: name, Doc: "Table of an extension."}}
	if len(routes) > maxColumns {
		return nil, fmt.Errorf("table %s: %d columns are more than %d", name, len(routes), maxColumns)
	}
	for _, r := range routes {
		switch r["id"] {
		case "column":
			c, err := newColumn(r)
			if err != nil {
				return nil, fmt.Errorf("table %s: %w", name, err)
			}
			if t.def.Column(c.Name) >= 0 {
				return nil, fmt.Errorf("table %s: two columns are called %s", name, c.Name)
			}
			t.def.Columns = append(t.def.Columns, c)
		case "columnAlias":
			if i := t.def.Column(r["target"]); i >= 0 && tableName.MatchString(r["name"]) && t.def.Column(r["name"]) < 0 {
				t.def.Columns[i].Aliases = append(t.def.Columns[i].Aliases, r["name"])
			}
		}
	}
	if len(t.def.Columns) == 0 {
		return nil, fmt.Errorf("table %s has no columns", name)
	}
	return t, nil
}

func newColumn(r map[string]string) (schema.ColumnDef, error) {
	kind, ok := typesByTag[strings.ToUpper(r["type"])]
	if !ok {
		return schema.ColumnDef{}, fmt.Errorf("column %.64q has the type %.64q, which is not known", r["name"], r["type"])
	}
	if r["name"] == "" || len(r["name"]) > 128 || strings.ContainsAny(r["name"], "\"\x00") {
		return schema.ColumnDef{}, fmt.Errorf("a column cannot be called %.64q", r["name"])
	}
	options, _ := strconv.ParseUint(r["op"], 10, 16)
	c := schema.ColumnDef{Name: r["name"], Type: kind, Doc: "Column of an extension's table"}
	// An extension sees every condition, as with osquery's extensions_default_index.
	c.Flags |= schema.Index
	for bit, flag := range map[uint64]schema.Flag{optRequired: schema.Required, optAdditional: schema.Additional, optOptimized: schema.Optimized, optHidden: schema.Hidden} {
		if options&bit != 0 {
			c.Flags |= flag
		}
	}
	return c, nil
}

// Def implements schema.Relation.
func (t *Table) Def() *schema.Def { return t.def }

// opCodes are osquery's numbers of conditions (core/tables.h, ConstraintOperator).
var opCodes = map[schema.Op]int{
	schema.Eq: 2, schema.In: 2, schema.Gt: 4, schema.Le: 8, schema.Lt: 16, schema.Ge: 32, schema.Like: 65, schema.Glob: 66,
}

type constraintText struct {
	Op   int    `json:"op"`
	Expr string `json:"expr"`
}

type columnText struct {
	Name     string           `json:"name"`
	Affinity string           `json:"affinity"`
	List     []constraintText `json:"list"`
}

// context is a query as an extension is told it.
func (t *Table) context(q *schema.Query) (string, error) {
	text := struct {
		Constraints []columnText `json:"constraints"`
		ColsUsed    []string     `json:"colsUsed,omitempty"`
		Bits        uint64       `json:"colsUsedBitset"`
	}{Constraints: []columnText{}}
	for i := range t.def.Columns {
		c := &t.def.Columns[i]
		if q.Uses(i) {
			text.ColsUsed = append(text.ColsUsed, c.Name)
			if i < 64 {
				text.Bits |= 1 << i
			}
		}
		column := columnText{Name: c.Name, Affinity: typeName(c.Type)}
		for _, k := range q.Constraints {
			if k.Column != i {
				continue
			}
			values := k.Values
			if k.Op != schema.In {
				values = []schema.Value{k.Value}
			}
			for _, v := range values {
				column.List = append(column.List, constraintText{opCodes[k.Op], v.Text()})
			}
		}
		if column.List != nil {
			text.Constraints = append(text.Constraints, column)
		}
	}
	b, err := json.Marshal(text)
	return string(b), err
}

// Open implements schema.Relation.
func (t *Table) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	query, err := t.context(q)
	if err != nil {
		return nil, err
	}
	var response *osquery.ExtensionResponse
	err = call(ctx, t.path, t.timeout(), func(ctx context.Context, c *osquery.ExtensionClient) (err error) {
		response, err = c.Call(ctx, "table", t.def.Name, osquery.ExtensionPluginRequest{"action": "generate", "context": query})
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("table %s: ask its extension: %w", t.def.Name, err)
	case response.Status == nil:
		return nil, fmt.Errorf("table %s: its extension answered without a status", t.def.Name)
	case response.Status.Code != 0:
		return nil, errors.New(response.Status.Message)
	}
	return &cursor{t.def, response.Response, -1}, nil
}

// cursor walks rows of text.
type cursor struct {
	def  *schema.Def
	rows []map[string]string
	at   int
}

func (c *cursor) Next() (bool, error) { c.at++; return c.at < len(c.rows), nil }
func (c *cursor) Close() error        { c.rows = nil; return nil }

// Value implements schema.Cursor: text is what the column's type makes of it, NULL when it
// makes nothing of it, as in osquery.
func (c *cursor) Value(i int) schema.Value {
	col := &c.def.Columns[i]
	text, ok := c.rows[c.at][col.Name]
	if !ok {
		return schema.Null
	}
	switch col.Type {
	case schema.Text:
		return schema.TextValue(text)
	case schema.Double:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return schema.FloatValue(f)
		}
		return schema.Null
	case schema.UnsignedBigInt:
		if n, err := strconv.ParseUint(text, 0, 64); err == nil {
			return schema.IntValue(int64(n))
		}
	}
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return schema.IntValue(n)
	}
	return schema.Null
}

// typeName is a type in the API's words.
func typeName(t schema.Type) string {
	if t == schema.UnsignedBigInt {
		return "UNSIGNED BIGINT"
	}
	return t.String()
}
