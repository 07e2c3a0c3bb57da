package sql

import (
	"context"
	"fmt"
	"testing"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// counted is a table of n rows of 12 columns, 6 integers and 6 texts, as in the
// measurements that chose the SQLite library; its pid is looked up in constant time.
type counted struct {
	def  schema.Def
	n    int
	text []schema.Value
}

func newCounted(n int) *counted {
	c := &counted{n: n, def: schema.Def{Name: "t"}}
	for i := range 6 {
		flags := schema.Flag(0)
		if i == 0 {
			flags = schema.Index
		}
		c.def.Columns = append(c.def.Columns, column(fmt.Sprintf("i%d", i), schema.BigInt, flags))
	}
	for i := range 6 {
		c.def.Columns = append(c.def.Columns, column(fmt.Sprintf("s%d", i), schema.Text, 0))
	}
	for i := range 1000 {
		c.text = append(c.text, schema.TextValue(fmt.Sprintf("/usr/lib/some/program-%d", i)))
	}
	return c
}

func (c *counted) Def() *schema.Def { return &c.def }

func (c *counted) Open(_ context.Context, q *schema.Query) (schema.Cursor, error) {
	if v, ok := q.Equals(0); ok && len(v) == 1 {
		return &countedCursor{c, int(v[0].Int()) - 1, int(v[0].Int()) + 1}, nil
	}
	return &countedCursor{c, -1, c.n}, nil
}

type countedCursor struct {
	c       *counted
	at, end int
}

func (k *countedCursor) Next() (bool, error) { k.at++; return k.at < k.end, nil }
func (k *countedCursor) Close() error        { return nil }
func (k *countedCursor) Value(i int) schema.Value {
	if i < 6 {
		return schema.IntValue(int64(k.at + i))
	}
	return k.c.text[(k.at*i)%len(k.c.text)]
}

func BenchmarkQuery(b *testing.B) {
	const rows = 100_000
	for _, bb := range []struct{ name, text string }{
		{"count", "SELECT count(*) FROM t"},
		{"all", "SELECT * FROM t"},
		{"filtered", "SELECT i0, s1 FROM t WHERE i1 > 90000 AND s2 LIKE '%-7%'"},
		{"group", "SELECT s1, count(*) AS n FROM t GROUP BY s1 ORDER BY n DESC LIMIT 10"},
		{"join", "SELECT count(*) FROM t a JOIN t b ON b.i0 = a.i0"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			e := openEngine(b, Options{}, newCounted(rows))
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Query(context.Background(), bb.text, &discard{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
		})
	}
}

// BenchmarkSmall is what a query costs before its first row, on a kept connection.
func BenchmarkSmall(b *testing.B) {
	e := openEngine(b, Options{}, newCounted(10))
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Query(context.Background(), "SELECT i0 FROM t WHERE i0 = 3", &discard{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is what a query pays when no connection is kept.
func BenchmarkConnect(b *testing.B) {
	e := openEngine(b, Options{})
	for b.Loop() {
		c, err := e.connect(defaultMemory)
		if err != nil {
			b.Fatal(err)
		}
		c.close()
	}
}
