package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
)

// condition is what --where asks of each event.
type condition struct {
	where *sql.Where
	// cells has the native column behind each column of the condition, by kind; nil where
	// a kind has no such column.
	cells map[event.ID][]*event.Column
	warn  func(string)
	quiet bool
}

// newCondition compiles a SQL expression over the native columns of all kinds. A column
// that a kind lacks is NULL there.
func newCondition(expr string, warn func(string)) (*condition, error) {
	def := &schema.Def{Name: "events"}
	for _, k := range event.Kinds {
		for i := range k.Columns {
			c := &k.Columns[i]
			if !c.Has(schema.Internal) && def.Column(c.Name) < 0 {
				column := c.ColumnDef
				column.Flags = 0
				def.Columns = append(def.Columns, column)
			}
		}
	}
	engine, err := sql.Open(nil, sql.Options{})
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	where, err := engine.Where(def, expr)
	if err != nil {
		return nil, whereError(err)
	}
	c := &condition{where: where, cells: make(map[event.ID][]*event.Column), warn: warn}
	for _, k := range event.Kinds {
		cells := make([]*event.Column, len(def.Columns))
		for i := range def.Columns {
			cells[i] = k.Column(def.Columns[i].Name)
		}
		c.cells[k.ID] = cells
	}
	return c, nil
}

// whereError says what is wrong with an expression, and what can be done about it.
func whereError(err error) error {
	var unknown *sql.UnknownColumn
	var fault *sql.Error
	switch {
	case errors.As(err, &unknown):
		return failf(exitUsage, "--where: %w; columns are %s", err, strings.Join(unknown.Known, ", "))
	case errors.As(err, &fault) && fault.Hint != "":
		return failf(exitUsage, "--where: %w; %s", err, fault.Hint)
	}
	return failf(exitUsage, "--where: %w", err)
}

// match reports whether e is wanted. When that cannot be told it is, with a warning: a
// filter that fails must hide nothing.
func (c *condition) match(e event.Event) bool {
	cells := c.cells[e.Head().Kind]
	ok, err := c.where.Match(func(i int) schema.Value {
		if cells[i] == nil {
			return schema.Null
		}
		return cells[i].Value(e)
	})
	if err != nil {
		if !c.quiet {
			c.quiet = true
			c.warn(fmt.Sprintf("--where: %v; events that it fails on are printed", err))
		}
		return true
	}
	return ok
}

func (c *condition) close() error { return c.where.Close() }
