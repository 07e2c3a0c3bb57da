package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/schedule"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/table"
)

// engines answers queries by the newest of its engines. One that was replaced ends with the
// last query that it answers.
type engines struct {
	memory *memory

	mu  sync.Mutex
	now *engineUse
}

type engineUse struct {
	engine *sql.Engine
	users  int
	old    bool
}

// set makes an engine the one that answers.
func (e *engines) set(engine *sql.Engine) {
	e.mu.Lock()
	old := e.now
	e.now = &engineUse{engine: engine}
	idle := old != nil && old.users == 0
	if old != nil {
		old.old = true
	}
	e.mu.Unlock()
	if idle {
		_ = old.engine.Close() // which never fails
	}
}

// Query implements schedule.Engine.
func (e *engines) Query(ctx context.Context, text string, r sql.Receiver) error {
	e.mu.Lock()
	use := e.now
	if use == nil {
		e.mu.Unlock()
		return sql.ErrClosed
	}
	use.users++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		use.users--
		last := use.old && use.users == 0
		e.mu.Unlock()
		if last {
			_ = use.engine.Close()
		}
	}()
	if e.memory != nil {
		e.memory.add(1)
		defer e.memory.add(-1)
	}
	return use.engine.Query(ctx, text, r)
}

// close ends the engine, and the queries that it answers.
func (e *engines) close() {
	e.mu.Lock()
	use := e.now
	e.now = nil
	e.mu.Unlock()
	if use != nil {
		_ = use.engine.Close()
	}
}

// off is a table over events that the configuration has turned off.
type off struct{ schema.Relation }

// Open implements schema.Relation.
func (o off) Open(_ context.Context, q *schema.Query) (schema.Cursor, error) {
	q.Warning(fmt.Sprintf("Table %s is event-based but events are disabled", o.Def().Name))
	return noRows{}, nil
}

type noRows struct{}

func (noRows) Next() (bool, error)    { return false, nil }
func (noRows) Value(int) schema.Value { return schema.Null }
func (noRows) Close() error           { return nil }

// buildEngine makes the engine that a configuration asks for.
func (d *daemon) buildEngine(c *config.Config, f *config.Flags) (*sql.Engine, error) {
	env := *d.env // which tables keep, and nobody changes any more
	all := relationsWith(&env, d.self, d.events, table.EventOptions{
		AllowFork: f.Bool("audit_allow_fork_process_events"), AllowFailed: f.Bool("audit_allow_failed_socket_events"),
		AllowNullAccept: f.Bool("audit_allow_null_accept_socket_events"), AllowUnix: f.Bool("audit_allow_unix"),
		OmitAccept: !f.Bool("audit_allow_accept_socket_events"), ShowAccesses: f.Bool("audit_fim_show_accesses"),
	})
	only, without := words(f.String("enable_tables")), words(f.String("disable_tables"))
	var kept []schema.Relation
	names := map[string]bool{}
	for _, r := range all {
		def := r.Def()
		if slices.Contains(without, def.Name) || len(only) > 0 && !slices.Contains(only, def.Name) {
			continue
		}
		if def.Events {
			if slices.Contains(c.DisableSubscribers, def.Name) {
				r = off{r}
			}
			r = schedule.Windowed(r)
		}
		kept = append(kept, r)
		for _, name := range append([]string{def.Name}, def.Aliases...) {
			names[strings.ToLower(name)] = true
		}
	}
	if d.manager != nil {
		for _, r := range d.manager.Relations() {
			// Registered under no name of ours; a configuration may have taken it since.
			if name := r.Def().Name; !names[strings.ToLower(name)] {
				names[strings.ToLower(name)] = true
				kept = append(kept, r)
			}
		}
	}
	for _, t := range c.Tables {
		if names[strings.ToLower(t.Name)] {
			d.logger.Warn(fmt.Sprintf("%s: ATC Table: %s overrides core table; Refusing registration", t.Where, t.Name))
			continue
		}
		if len(t.Columns) == 0 {
			continue
		}
		names[strings.ToLower(t.Name)] = true
		kept = append(kept, sql.NewFileTable(t.Name, t.SQL, t.Columns, func() ([]string, error) { return config.Glob(t.Path) }))
	}
	var views []sql.View
	for _, v := range c.Views {
		if names[strings.ToLower(v.Name)] {
			d.logger.Warn(fmt.Sprintf("%s: view %s has the name of a table: it is left out", v.Where, v.Name))
			continue
		}
		views = append(views, sql.View{Name: v.Name, SQL: v.SQL})
	}
	defs := make([]*schema.Def, len(kept))
	for i, r := range kept {
		defs[i] = r.Def()
	}
	env.Tables = func() []*schema.Def { return defs }
	return sql.Open(kept, sql.Options{Views: views})
}

// words splits a list with commas.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
