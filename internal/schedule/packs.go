package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
)

// maxRows is how many rows are looked at of a query of which only some matter.
const maxRows = 2

// errEnough ends a query whose further rows do not matter.
var errEnough = errors.New("enough rows")

// few collects the first rows of a query.
type few struct {
	names []string
	rows  [][]schema.Value
}

func (f *few) Columns(names, _ []string) error {
	if f.rows == nil {
		f.names = names
	}
	return nil
}

func (f *few) Row(row []schema.Value) error {
	f.rows = append(f.rows, slices.Clone(row))
	if len(f.rows) >= maxRows {
		return errEnough
	}
	return nil
}

func (f *few) Warning(string) {}

// few returns the first rows of a query that others wait for.
func (s *Scheduler) few(ctx context.Context, c *setting, text string) (*few, error) {
	if c.slow[text] {
		return nil, errSlow
	}
	f := &few{}
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Patience, errSlow)
	defer cancel()
	if err := s.o.Engine.Query(ctx, text, f); err != nil && !errors.Is(err, errEnough) {
		c.slow[text] = errors.Is(err, errSlow)
		return nil, err
	}
	return f, nil
}

// runDecorators adds the first row of each query to the decorations.
func (s *Scheduler) runDecorators(ctx context.Context, c *setting, queries []string) {
	if !c.decorate {
		return
	}
	for _, text := range queries {
		f, err := s.few(ctx, c, text)
		if err != nil {
			s.warner("(decorator)")(text + ": " + err.Error())
			continue
		}
		if len(f.rows) > 1 {
			s.warner("(decorator)")("Multiple rows returned for decorator query: " + text)
		}
		if len(f.rows) == 0 {
			continue
		}
		s.mu.Lock()
		for i, name := range f.names {
			s.decorated[name] = CellText(f.rows[0][i], c.format.Null)
		}
		s.mu.Unlock()
	}
}

// decorations are those in force, by key.
func (s *Scheduler) decorations() []state.Pair {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []state.Pair
	for k, v := range s.decorated {
		out = append(out, state.Pair{Key: k, Value: v})
	}
	slices.SortFunc(out, func(a, b state.Pair) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// Decorations are those in force, by key, for other lines than those of queries.
func (s *Scheduler) Decorations() []state.Pair { return s.decorations() }

// discover finds out which packs are active: those for this host all of whose discovery
// queries give a row. What it finds holds for a while.
func (s *Scheduler) discover(ctx context.Context, c *setting) {
	now := s.o.Now().Unix()
	for _, p := range c.packs {
		if !p.Here {
			continue
		}
		if p.checked > 0 && now-p.checked < c.discovery {
			s.mu.Lock()
			p.hits++
			s.mu.Unlock()
			continue
		}
		active := true
		for _, text := range p.Discovery {
			f, err := s.few(ctx, c, text)
			if err != nil {
				s.o.Logger.Warn(fmt.Sprintf("Discovery query failed (%s): %v", text, err))
			}
			if err != nil || len(f.rows) == 0 {
				active = false
				break
			}
		}
		s.mu.Lock()
		p.active, p.checked = active, now
		p.runs++
		s.mu.Unlock()
	}
}

// recover denies the query that ran when the agent died last.
func (s *Scheduler) recover() error {
	name, ok, err := s.o.State.Get(domainRun, "executing")
	if err != nil || !ok {
		return err
	}
	s.o.Logger.Warn("Scheduled query may have failed: " + name)
	return s.o.State.Update(false, func(tx *state.Tx) error {
		if err := tx.Put(domainDenylist, name, strconv.FormatInt(s.o.Now().Add(denylistTime).Unix(), 10)); err != nil {
			return err
		}
		return tx.Delete(domainRun, "executing")
	})
}

// deny denies a query that came to its limits.
func (s *Scheduler) deny(q *query) error {
	until := s.o.Now().Add(denylistTime).Unix()
	s.mu.Lock()
	q.until = until
	s.mu.Unlock()
	return s.o.State.Put(domainDenylist, q.Name, strconv.FormatInt(until, 10))
}

// denied reports whether a query is not to run. The watchdog being off, or the query's own
// word, lift the denial; so do tables over events alone, since what the agent died of is then
// less likely the query (osquery's enforceEventsDenylist).
func (s *Scheduler) denied(ctx context.Context, c *setting, q *query) bool {
	if q.until == 0 {
		return false
	}
	denied := c.watched && q.Denylist && s.o.Now().Unix() <= q.until && (c.enforce || !s.eventsOnly(ctx, q))
	if !denied {
		_ = s.o.State.Delete(domainDenylist, q.Name) // or it is tried again after a restart
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.denylisted = denied; !denied {
		q.until = 0
	}
	return denied
}

// eventsOnly reports whether a query reads no other tables than those over events.
func (s *Scheduler) eventsOnly(ctx context.Context, q *query) bool {
	if !q.known {
		p := &probe{}
		if err := s.o.Engine.Query(ctx, q.SQL, p); err != nil && !errors.Is(err, errEnough) {
			return false
		}
		s.mu.Lock()
		q.known, q.events = true, p.only
		s.mu.Unlock()
	}
	return q.events
}

// probe looks at the tables of a query without running it.
type probe struct{ only bool }

func (p *probe) Tables(defs []*schema.Def) {
	p.only = len(defs) > 0
	for _, d := range defs {
		p.only = p.only && d.Events
	}
}
func (p *probe) Columns(_, _ []string) error { return errEnough }
func (p *probe) Row([]schema.Value) error    { return errEnough }
func (p *probe) Warning(string)              {}

var _ sql.TableReceiver = (*probe)(nil)

// QueryStatus is a row of osquery_schedule.
type QueryStatus struct {
	Name, SQL  string
	Interval   uint64
	Denylisted bool
	Stats
}

// Queries returns the queries of active packs, in the order in which they run.
func (s *Scheduler) Queries() []QueryStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil
	}
	var out []QueryStatus
	now := s.o.Now().Unix()
	for _, p := range s.current.packs {
		if !p.active {
			continue
		}
		for _, q := range p.queries {
			out = append(out, QueryStatus{q.Name, q.SQL, q.interval, q.denylisted && now <= q.until, q.stats})
		}
	}
	return out
}

// PackStatus is a row of osquery_packs.
type PackStatus struct {
	config.Pack
	Active           bool
	Hits, Executions uint64 // of discovery
}

// Packs returns the packs, the schedule itself being the one called main.
func (s *Scheduler) Packs() []PackStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil
	}
	var out []PackStatus
	for _, p := range s.current.packs {
		out = append(out, PackStatus{p.Pack, p.active, p.hits, p.runs})
	}
	return out
}
