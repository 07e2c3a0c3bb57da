package extension

import (
	"context"
	"fmt"

	"github.com/osquery/osquery-go/plugin/table"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Plugin makes a relation of ours a table of an osqueryd. sync is called before each scan.
// An answer has at most maxRows rows, for it is one message: more is an error that says what
// to do, since rows left out would be missed by whoever asked.
func Plugin(r schema.Relation, sync func(context.Context) error, maxRows int) *table.Plugin {
	def := r.Def()
	var columns []table.ColumnDefinition
	for i := range def.Columns {
		c := &def.Columns[i]
		columns = append(columns, table.ColumnDefinition{
			Name: c.Name, Type: table.ColumnType(typeName(c.Type)), Description: c.Doc,
			// osqueryd passes on only conditions on columns that say they want them.
			Index: c.Has(schema.Index) || c.Name == "time", Required: c.Has(schema.Required),
			Additional: c.Has(schema.Additional), Optimized: c.Has(schema.Optimized), Hidden: c.Has(schema.Hidden),
		})
	}
	return table.NewPlugin(def.Name, columns, func(ctx context.Context, q table.QueryContext) ([]map[string]string, error) {
		if err := sync(ctx); err != nil {
			return nil, err
		}
		return generate(ctx, r, queryOf(def, q), maxRows)
	}, table.WithDescription(def.Doc))
}

// codeOps are conditions by osquery's numbers.
var codeOps = map[table.Operator]schema.Op{
	table.OperatorEquals: schema.Eq, table.OperatorGreaterThan: schema.Gt, table.OperatorLessThanOrEquals: schema.Le,
	table.OperatorLessThan: schema.Lt, table.OperatorGreaterThanOrEquals: schema.Ge, table.OperatorLike: schema.Like, table.OperatorGlob: schema.Glob,
}

// queryOf is what osqueryd asks, as relations are told it. Several values that a column is to
// equal are alternatives; conditions of other kinds all hold.
func queryOf(def *schema.Def, q table.QueryContext) *schema.Query {
	out := &schema.Query{}
	for name, list := range q.Constraints {
		i := def.Column(name)
		if i < 0 {
			continue
		}
		var equal []schema.Value
		for _, c := range list.Constraints {
			op, ok := codeOps[c.Operator]
			switch v := valueOf(&def.Columns[i], c.Expression); {
			case !ok:
			case op == schema.Eq:
				equal = append(equal, v)
			default:
				out.Constraints = append(out.Constraints, schema.Constraint{Column: i, Op: op, Value: v})
			}
		}
		switch len(equal) {
		case 0:
		case 1:
			out.Constraints = append(out.Constraints, schema.Constraint{Column: i, Op: schema.Eq, Value: equal[0]})
		default:
			out.Constraints = append(out.Constraints, schema.Constraint{Column: i, Op: schema.In, Values: equal})
		}
	}
	return out
}

// valueOf is an expression as the column has it.
func valueOf(c *schema.ColumnDef, text string) schema.Value {
	v := (&cursor{&schema.Def{Columns: []schema.ColumnDef{*c}}, []map[string]string{{c.Name: text}}, 0}).Value(0)
	if v.IsNull() {
		return schema.TextValue(text)
	}
	return v
}

func generate(ctx context.Context, r schema.Relation, q *schema.Query, maxRows int) ([]map[string]string, error) {
	c, err := r.Open(ctx, q)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	def := r.Def()
	out := []map[string]string{}
	size := 0
	for {
		more, err := c.Next()
		if err != nil {
			return nil, err
		}
		if !more {
			return out, ctx.Err()
		}
		row := make(map[string]string, len(def.Columns))
		for i := range def.Columns {
			if v := c.Value(i); !v.IsNull() {
				text := v.Text()
				row[def.Columns[i].Name] = text
				size += len(def.Columns[i].Name) + len(text) + 8
			}
		}
		if len(out) >= maxRows || size > maxMessage {
			return nil, fmt.Errorf("table %s has more than %d rows or %d bytes to tell in one answer: narrow it, as with WHERE time > …", def.Name, maxRows, maxMessage)
		}
		out = append(out, row)
	}
}
