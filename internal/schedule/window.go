package schedule

import (
	"context"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// EventLog is where events are numbered.
type EventLog interface {
	// Head makes all that happened before the call visible to scans, and returns the
	// number of the last event that they see.
	Head(ctx context.Context) (int64, error)
}

// Windowed returns a table over events which, within a scheduled query, shows only those
// that the query has not seen. A condition on time lifts that, as in osquery: the table
// then shows all it has.
//
// The window ends at one number for all tables of a run, so that a table that is joined with itself,
// or with another, shows the same moments everywhere.
func Windowed(r schema.Relation) schema.Relation {
	def := r.Def()
	eid, time := def.Column("eid"), def.Column("time")
	if !def.Events || eid < 0 {
		return r
	}
	return &windowed{r, eid, time}
}

type windowed struct {
	schema.Relation
	eid, time int
}

// window is what one run of a query sees of events. It belongs to the run's goroutine.
type window struct {
	head  func(context.Context) (int64, error)
	after func(table string) (int64, error)

	upto   int64 // the last event of this run; 0 not known yet
	tables map[string]bool
	scans  int   // begun
	ended  bool  // one of them came to its end
	left   bool  // one of them was left before it
	last   int64 // at this event
}

type windowKey struct{}

// Open implements schema.Relation.
func (t *windowed) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	w, _ := ctx.Value(windowKey{}).(*window)
	if w == nil {
		return t.Relation.Open(ctx, q)
	}
	for i := range q.Constraints {
		if q.Constraints[i].Column == t.time {
			return t.Relation.Open(ctx, q)
		}
	}
	after, err := w.begin(ctx, t.Def().Name)
	if err != nil {
		return nil, err
	}
	if w.upto <= after {
		w.ended = true
		return nothing{}, nil
	}
	narrowed := *q
	// Numbers, which have an order even where eid is text.
	narrowed.Constraints = append(q.Constraints[:len(q.Constraints):len(q.Constraints)],
		schema.Constraint{Column: t.eid, Op: schema.Gt, Value: schema.IntValue(after)},
		schema.Constraint{Column: t.eid, Op: schema.Le, Value: schema.IntValue(w.upto)})
	rows, err := t.Relation.Open(ctx, &narrowed)
	if err != nil {
		return nil, err
	}
	return &windowCursor{Cursor: rows, window: w, eid: t.eid}, nil
}

// begin returns the event after which a scan of a table begins.
func (w *window) begin(ctx context.Context, table string) (after int64, err error) {
	if w.upto == 0 {
		if w.upto, err = w.head(ctx); err != nil {
			return 0, err
		}
	}
	if after, err = w.after(table); err != nil {
		return 0, err
	}
	w.scans++
	w.tables[table] = true
	return after, nil
}

// seen returns up to which event the tables were seen. A single scan that was left early, for
// a LIMIT, goes on there; what a query leaves out of several is what it asked for.
func (w *window) seen() int64 {
	if w.left && w.scans == 1 {
		return w.last
	}
	return w.upto
}

// streaming reports whether the rows so far come from a single scan that goes on.
func (w *window) streaming() bool { return w.scans == 1 && !w.ended }

// windowCursor notes where its scan was left.
type windowCursor struct {
	schema.Cursor
	window *window
	eid    int
	row    bool // there is a present row
}

func (c *windowCursor) Next() (bool, error) {
	more, err := c.Cursor.Next()
	c.row = more
	if !more && err == nil {
		c.window.ended = true
	}
	return more, err
}

func (c *windowCursor) Close() error {
	if c.row {
		c.window.left, c.window.last = true, c.Value(c.eid).Int()
		c.row = false
	}
	return c.Cursor.Close()
}

// nothing is a scan without rows.
type nothing struct{}

func (nothing) Next() (bool, error)    { return false, nil }
func (nothing) Value(int) schema.Value { return schema.Null }
func (nothing) Close() error           { return nil }
