package sql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/ncruces/go-sqlite3"
)

// Error is why a query failed.
type Error struct {
	// Text is one line in SQLite's words where SQLite found the fault. Fleet takes a
	// missing table for no fault only if the text is exactly "no such table: NAME".
	Text string
	// Hint says what to do about it; it may be empty.
	Hint  string
	cause error
}

// Error returns the text without the hint.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the error of a relation or a context, or nil.
func (e *Error) Unwrap() error { return e.cause }

// UnknownColumn is the error of a condition that names a column its table does not have.
type UnknownColumn struct {
	Name  string
	Known []string // in the table's order
}

func (e *UnknownColumn) Error() string { return fmt.Sprintf("unknown column %q", e.Name) }

// errMemory is what ncruces/go-sqlite3 v0.36.0 panics with when SQLite is out of memory.
const errMemory = "sqlite3: out of memory"

// trapped turns what SQLite panicked with into an error. Besides being out of memory
// that is a stack of 64 KiB inside its memory, from address 0 up: beyond it the address
// is negative, which Go refuses, so that nothing is overwritten (see build.sh's
// --stack-first and ___stack_pointer in go-sqlite3-wasm v6.4.35401).
func trapped(v any, limit int64) *Error {
	if err, ok := v.(error); ok && err.Error() == errMemory {
		return outOfMemory(limit)
	}
	return &Error{
		Text: oneLine(fmt.Sprintf("the query is nested too deeply: %v", v)),
		Hint: "write it in smaller parts",
	}
}

func outOfMemory(limit int64) *Error {
	return &Error{
		Text:  fmt.Sprintf("out of memory: the query needs more than %d MiB", limit>>20),
		Hint:  "select fewer columns, add a WHERE clause or a LIMIT, or sort less",
		cause: ErrMemory,
	}
}

// explain turns an error of the connection into the one to show.
func (c *conn) explain(ctx context.Context, err error) error {
	if c.scanErr != nil {
		err, c.scanErr = c.scanErr, nil
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		return &Error{Text: oneLine(err.Error()), cause: err}
	}
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	if errors.Is(err, sqlite3.NOMEM) {
		return outOfMemory(c.memory)
	}
	text := message(err)
	switch name, column := strings.CutPrefix(text, "no such column: "); {
	case column:
		return &Error{Text: text, Hint: didYouMean(name[strings.LastIndexByte(name, '.')+1:], c.columnsInSight())}
	case c.missing != nil && text == "no query solution":
		return missing(c.missing)
	case errors.Is(err, sqlite3.AUTH):
		return &Error{Text: "not authorized", Hint: c.refused + " is refused: a query may only read"}
	}
	if name, ok := strings.CutPrefix(text, "no such table: "); ok {
		return &Error{Text: text, Hint: didYouMean(name[strings.LastIndexByte(name, '.')+1:], c.engine.names)}
	}
	return &Error{Text: text}
}

// missing is the error of a query that leaves out all required columns of a table.
func missing(def *schema.Def) *Error {
	var names []string
	for i := range def.Columns {
		if def.Columns[i].Has(schema.Required) {
			names = append(names, def.Columns[i].Name)
		}
	}
	return &Error{
		Text: "Table " + def.Name + " was queried without a required column in the WHERE clause",
		Hint: "add a condition with =, IN, LIKE or GLOB, or a join, on " + strings.Join(names, " or "),
	}
}

// message returns SQLite's own words, on one line, without the library's prefixes.
func message(err error) string {
	text := err.Error()
	var e *sqlite3.Error
	if errors.As(err, &e) {
		if rest, ok := strings.CutPrefix(text, e.ExtendedCode().Error()+": "); ok {
			return oneLine(rest)
		}
	}
	return oneLine(strings.TrimPrefix(text, "sqlite3: "))
}

// oneLine replaces control characters, which parts of the query may have brought in.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// didYouMean names up to three of known that resemble name.
func didYouMean(name string, known []string) string {
	type near struct {
		name     string
		distance int
	}
	name = strings.ToLower(name)
	var found []near
	for _, k := range known {
		low := strings.ToLower(k)
		switch d := distance(name, low); {
		case d <= 1+len(name)/5:
			found = append(found, near{k, d})
		case len(name) >= 4 && (strings.HasPrefix(low, name) || strings.HasSuffix(low, "_"+name)):
			found = append(found, near{k, 100 + len(k)})
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(a.distance, b.distance) })
	names := make([]string, 0, 3)
	for _, n := range found {
		if len(names) < 3 && !slices.Contains(names, n.name) {
			names = append(names, n.name)
		}
	}
	return "did you mean " + strings.Join(names, ", or ") + "?"
}

// distance is the number of inserted, deleted, replaced or swapped bytes between a and b,
// cut short at 64 bytes each.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		this, last, before := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		this[0] = i
		for j := 1; j <= len(b); j++ {
			d := last[j-1]
			if a[i-1] != b[j-1] {
				d++
			}
			d = min(d, last[j]+1, this[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			this[j] = d
		}
	}
	return rows[len(a)%3][len(b)]
}
