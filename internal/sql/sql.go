// Package sql answers SQL, in osquery's dialect, over relations: each one is a virtual
// table of an in-memory SQLite that can do nothing but read.
//
// It knows schema and SQLite, and is the only package that knows SQLite's virtual tables.
// It must never know where rows come from, who asked, or how an answer is shown.
//
// An Engine owns its SQLite connections. A connection runs one query at a time, has a
// memory limit of its own, and is thrown away when it was driven into that limit.
//
// What a relation is told. A condition `column op value` becomes a schema.Constraint and
// is checked again afterwards, so that a relation may ignore it. It is passed on only when
// a relation that compares cells as schema.Value does can never lose a row by it:
// conditions under a collation other than BINARY, and text columns compared with numbers,
// reach indexed, additional and required columns only, whose relation knows its own
// column's collation. A condition on NULL, which no row can meet, ends the scan instead.
package sql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// Options are the limits of an Engine. The zero value means the defaults.
type Options struct {
	// Memory is how many bytes one query may hold in SQLite; 64 MiB when zero.
	Memory int64
	// Queries is how many queries may run at a time, further ones wait; 8 when zero.
	Queries int
	// Views may use relations and each other. One that has a relation's name is left out.
	Views []View
}

const (
	defaultMemory  = 64 << 20
	defaultQueries = 8
	// maxText bounds what one query may be: the library gives up on names of more than
	// 1e6 bytes, and a column without one is named after its text. osquery's packs stay
	// below 10 KiB.
	maxText = 512 << 10
	// maxIdle connections are kept for the next query, about 1 MB each.
	maxIdle = 2
	// maxKept is how much memory a connection may have grown to and be kept: it never
	// shrinks.
	maxKept = 4 << 20
)

// Receiver takes the answer of a query. All calls come from the goroutine that called
// Query.
type Receiver interface {
	// Columns starts the rows of a statement. A type is the column's declared one, or
	// empty for an expression. The slices belong to the receiver.
	Columns(names, types []string) error
	// Row takes a row; the slice is valid until Row returns, the values for ever.
	Row(values []schema.Value) error
	// Warning takes a sentence for the user that is no error.
	Warning(sentence string)
}

// TableReceiver is a Receiver that wants to know which relations a statement reads: Tables
// is called before Columns, with each of them at least once.
type TableReceiver interface {
	Tables(defs []*schema.Def)
}

// ErrClosed is the cause of a query's end when its Engine was closed.
var ErrClosed = errors.New("the query engine is closed")

// ErrMemory is the cause of a query's end when it needed more memory than it may have.
var ErrMemory = errors.New("out of memory")

// View is a name for a query, which other queries may use as a table.
type View struct{ Name, SQL string }

// Engine answers queries over a fixed set of relations. It is safe for concurrent use.
type Engine struct {
	options   Options
	relations map[string]schema.Relation // by lower-case name and alias
	views     map[string]View            // by lower-case name
	names     []string                   // without aliases, in the order given
	defs      []*schema.Def

	slots  chan struct{} // holds a token for each running query
	closed sync.Once
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu   sync.Mutex
	idle []*conn
}

// Open returns an Engine over relations. Two relations with one name are an error.
func Open(relations []schema.Relation, o Options) (*Engine, error) {
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Queries == 0 {
		o.Queries = defaultQueries
	}
	e := &Engine{
		options:   o,
		relations: make(map[string]schema.Relation, len(relations)),
		views:     make(map[string]View, len(o.Views)),
		slots:     make(chan struct{}, o.Queries),
	}
	for _, r := range relations {
		def := r.Def()
		for _, name := range append([]string{def.Name}, def.Aliases...) {
			key := strings.ToLower(name)
			if _, ok := e.relations[key]; ok {
				return nil, fmt.Errorf("open query engine: two tables are called %q", name)
			}
			e.relations[key] = r
		}
		e.names = append(e.names, def.Name)
		e.defs = append(e.defs, def)
	}
	for _, v := range o.Views {
		key := strings.ToLower(v.Name)
		if _, ok := e.relations[key]; !ok {
			e.views[key] = v
		}
	}
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	return e, nil
}

// Tables returns the definitions of the relations, in the order given to Open.
func (e *Engine) Tables() []*schema.Def { return e.defs }

// Close ends running queries with ErrClosed, waits for them, and frees everything.
func (e *Engine) Close() error {
	e.cancel(ErrClosed)
	e.closed.Do(func() {
		for range cap(e.slots) {
			e.slots <- struct{}{}
		}
		for _, c := range e.idle { // every other owner has left
			c.close()
		}
		e.idle = nil
		for range cap(e.slots) {
			<-e.slots
		}
	})
	return nil
}

// Query runs the statements in text, which are separated by semicolons, and hands their
// rows to r one by one. It stops when ctx ends, at the first error of r, which it returns
// unchanged, and at the first statement that fails, with an *Error. Temporary views last
// until Query returns.
func (e *Engine) Query(ctx context.Context, text string, r Receiver) error {
	if len(text) > maxText {
		return &Error{Text: fmt.Sprintf("the query is %d bytes long, more than %d", len(text), maxText)}
	}
	if strings.IndexByte(text, 0) >= 0 {
		return &Error{Text: "the query contains a NUL byte"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(ErrClosed) })()

	c, err := e.acquire(ctx)
	if err != nil {
		return err
	}
	err = c.query(ctx, text, r)
	e.release(c)
	return err
}

// acquire waits for a slot and returns a connection, which release takes back.
func (e *Engine) acquire(ctx context.Context) (*conn, error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, stopped(ctx)
	}
	// The end of e.ctx reaches ctx in a goroutine of its own, which may be late.
	if e.ctx.Err() != nil {
		<-e.slots
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		<-e.slots
		return nil, stopped(ctx)
	}
	e.mu.Lock()
	if n := len(e.idle); n > 0 {
		c := e.idle[n-1]
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		return c, nil
	}
	e.mu.Unlock()
	c, err := e.connect(e.options.Memory)
	if err != nil {
		<-e.slots
		return nil, err
	}
	return c, nil
}

func (e *Engine) release(c *conn) {
	e.mu.Lock()
	if !c.broken && !c.views && len(c.wasm.Buf) <= maxKept && len(e.idle) < maxIdle && e.ctx.Err() == nil {
		e.idle = append(e.idle, c)
		c = nil
	}
	e.mu.Unlock()
	if c != nil {
		c.close()
	}
	<-e.slots
}

// stopped is the error of a query whose context has ended.
func stopped(ctx context.Context) error {
	return &Error{Text: "query stopped: " + context.Cause(ctx).Error(), cause: context.Cause(ctx)}
}
