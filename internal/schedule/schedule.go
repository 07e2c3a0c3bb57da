// Package schedule runs the queries of the configuration when they are due and makes log
// lines of their rows, as osquery does: with splay, packs, discovery and decorations;
// differences to the run before, kept across restarts; and, for tables over events, only
// what a query has not seen.
//
// The lines of a run, the rows it is compared with and the events it has seen are committed
// in one transaction: killed at any moment, a run has happened, or will happen again.
//
// The package must never know where lines go, what is behind a table, or who configured it.
// The goroutine of Run owns all but what mu guards.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goshawk-project/goshawk/internal/config"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
)

const (
	// maxQueryTime is how long a scheduled query may take.
	maxQueryTime = 10 * time.Minute
	// maxHelpTime is how long a query may take that others wait for: a decorator, the discovery
	// of a pack. One that took longer is not asked again under the same configuration.
	maxHelpTime = 10 * time.Second
	// denylistTime is for how long a query is not run that the agent died of, or that came
	// to its limits.
	denylistTime = 24 * time.Hour
	// forgetAfter is how long what is kept of a query outlives its last run.
	forgetAfter = 592200 * time.Second
)

// errTimeout is the cause of a query's end after maxQueryTime.
var errTimeout = fmt.Errorf("it took longer than %v", maxQueryTime)

var (
	errSlow     = errors.New("it took too long for others to wait for it")
	errReplaced = errors.New("the configuration has it no more")
)

// Engine answers queries; *sql.Engine is one.
type Engine interface {
	Query(ctx context.Context, text string, r sql.Receiver) error
}

// Options of a Scheduler.
type Options struct {
	State  *state.DB
	Engine Engine
	Log    EventLog // nil: there are no events
	Dir    string   // for files of large results
	Logger *slog.Logger
	Usage  func() Usage
	// Found is told of the new rows of queries that are marked as detection, once these are
	// committed. Nil: nobody is.
	Found func(Finding)

	Patience time.Duration // with decorators and discovery queries; 0: 10 s

	Now   func() time.Time                                 // nil: time.Now
	Sleep func(ctx context.Context, d time.Duration) error // nil: as long as it says
}

// Finding is new rows of a query that is marked as detection.
type Finding struct {
	Query   config.Query
	Tables  []string // that it reads
	Columns []string
	Rows    [][]schema.Value
	More    uint64 // rows beyond maxFound
}

// maxFound bounds the rows of one run, or a part of it, that are told of.
const maxFound = 1000

// Setting is what a configuration comes down to.
type Setting struct {
	Config *config.Config
	Flags  *config.Flags
	Host   string // the identifier in log lines
	// Results and Snapshots are the streams that lines go to.
	Results, Snapshots []string
}

// query is an entry of the schedule.
type query struct {
	config.Query        // Name is the one in log lines
	pack         string // "" is the schedule itself
	interval     uint64
	splayed      uint64
	denylisted   bool
	until        int64 // when it no longer is, unix seconds
	stats        Stats
	known        bool // events is
	events       bool // it reads no other tables than those over events
}

// pack is a pack with what discovery says of it.
type pack struct {
	config.Pack
	queries    []*query
	active     bool
	checked    int64 // when, unix seconds
	hits, runs uint64
}

// setting is a Setting, prepared.
type setting struct {
	Setting
	format     Format
	host       string
	epoch      uint64
	optimize   bool
	logNames   bool
	enforce    bool
	watched    bool
	discovery  int64 // seconds for which its answer holds
	drift      time.Duration
	decorate   bool
	results    []string
	snapshots  []string
	packs      []*pack
	loaded     bool // decorators of the kind load have run
	configHash string
	slow       map[string]bool // decorators and discovery queries that took too long; of Run's goroutine
}

// Scheduler runs queries.
type Scheduler struct {
	o Options

	mu         sync.Mutex
	next       *setting // not taken over yet
	current    *setting
	decorated  map[string]string
	failedOnce map[string]bool // sentences told
	running    config.Query    // the query that is being run, with no name when none is
	stop       context.CancelCauseFunc
	troubled   time.Time // when trouble was told of last; of Run's goroutine
}

// New returns a scheduler that has nothing to do until Set is called.
func New(o Options) *Scheduler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Patience == 0 {
		o.Patience = maxHelpTime
	}
	if o.Usage == nil {
		o.Usage = func() Usage { return Usage{} }
	}
	return &Scheduler{o: o, decorated: map[string]string{}}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Set gives the scheduler a new setting, which holds from its next second on.
func (s *Scheduler) Set(set Setting) {
	f := set.Flags
	n := &setting{
		Setting: set, host: set.Host,
		format: Format{
			Events: f.Bool("logger_event_type"), SnapshotEvents: f.Bool("logger_snapshot_event_type"),
			Numerics: f.Bool("logger_numerics"), TopLevel: f.Bool("decorations_top_level"), Null: f.String("nullvalue"),
		},
		epoch: uint64(f.Int("schedule_epoch")), optimize: f.Bool("events_optimize"), logNames: f.Bool("schedule_lognames"),
		enforce: f.Bool("events_enforce_denylist"), watched: !f.Bool("disable_watchdog"),
		discovery: f.Int("pack_refresh_interval"), drift: f.Seconds("schedule_max_drift"), decorate: !f.Bool("disable_decorators"),
		results: set.Results, snapshots: set.Snapshots, configHash: set.Config.Hash, slow: map[string]bool{},
	}
	add := func(p config.Pack, named bool) {
		to := &pack{Pack: p}
		for _, entry := range p.Queries {
			q := &query{Query: entry, interval: entry.Interval}
			if named {
				d := f.String("pack_delimiter")
				q.pack, q.Name = p.Name, "pack"+d+p.Name+d+entry.Name
			}
			if q.interval == 0 {
				q.interval = uint64(f.Int("schedule_default_interval"))
			}
			if q.interval > 0 {
				to.queries = append(to.queries, q)
			}
		}
		n.packs = append(n.packs, to)
	}
	add(config.Pack{Name: "main", Here: true, Queries: set.Config.Schedule}, false)
	for _, p := range set.Config.Packs {
		add(p, true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = n
	if s.stop != nil && !n.has(&s.running) {
		s.stop(errReplaced)
	}
}

// has reports whether a query is in the schedule, or in a pack, as it is.
func (c *setting) has(q *config.Query) bool {
	return slices.ContainsFunc(c.packs, func(p *pack) bool {
		return slices.ContainsFunc(p.queries, func(own *query) bool { return own.Name == q.Name && own.SQL == q.SQL })
	})
}

// begin makes the context of a query that is run: it ends after maxQueryTime, and when a new
// configuration has the query no more. What is returned must be called.
func (s *Scheduler) begin(ctx context.Context, q *query) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueryTime, errTimeout)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.stop = q.Query, stop
	if s.next != nil && !s.next.has(&s.running) {
		stop(errReplaced)
	}
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running, s.stop = config.Query{}, nil
		cancel()
		stop(nil)
	}
}

// splay returns an interval moved by up to percent, so that hosts do not all ask at once
// (splayValue in osquery/config/packs.cpp). Zero percent leaves it.
func splay(interval, percent uint64) uint64 {
	if percent == 0 || percent > 100 {
		return interval
	}
	d := uint64(float32(interval) * (float32(percent) / 100))
	low, high := max(1, interval-d), interval+d
	return low + rand.Uint64N(high-low+1)
}

// adopt takes over a new setting: it finds what is kept of its queries.
func (s *Scheduler) adopt(n *setting) error {
	percent := uint64(n.Flags.Int("schedule_splay_percent"))
	denied := map[string]int64{}
	list, err := s.o.State.List(domainDenylist)
	if err != nil {
		return err
	}
	for _, p := range list {
		denied[p.Key], _ = strconv.ParseInt(p.Value, 10, 64)
	}
	names := map[string]bool{}
	err = s.o.State.Update(false, func(tx *state.Tx) error {
		for _, p := range n.packs {
			for _, q := range p.queries {
				names[q.Name] = true
				q.until = denied[q.Name]
				text, _, err := tx.Get(domainStats, q.Name)
				if err != nil {
					return err
				}
				q.stats = parseStats(text)
				kept, _, err := tx.Get(domainInterval, q.Name)
				if err != nil {
					return err
				}
				interval, splayed, _ := strings.Cut(kept, ":")
				q.splayed, err = strconv.ParseUint(splayed, 10, 64)
				if err == nil && q.splayed > 0 && interval == strconv.FormatUint(q.interval, 10) && percent > 0 {
					continue
				}
				q.splayed = splay(q.interval, percent)
				if err := tx.Put(domainInterval, q.Name, fmt.Sprintf("%d:%d", q.interval, q.splayed)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := s.current
	s.current = n
	if old == nil || old.configHash != n.configHash || n.configHash == "" {
		s.decorated = map[string]string{}
	} else {
		n.loaded = old.loaded
	}
	s.mu.Unlock()
	return s.forget(names)
}

// forget removes what is kept of queries that are no longer there and have not run for a
// week.
func (s *Scheduler) forget(names map[string]bool) error {
	list, err := s.o.State.List(domainTimestamp)
	if err != nil {
		return err
	}
	before := s.o.Now().Add(-forgetAfter).Unix()
	for _, p := range list {
		at, err := strconv.ParseInt(p.Value, 10, 64)
		if names[p.Key] || err == nil && at >= before {
			continue
		}
		err = s.o.State.Update(false, func(tx *state.Tx) error {
			for _, domain := range [...]string{domainQuery, domainInterval, domainStats, domainTimestamp, domainDenylist} {
				if err := tx.Delete(domain, p.Key); err != nil {
					return err
				}
			}
			cursors, err := tx.List(domainCursor)
			if err != nil {
				return err
			}
			for _, c := range cursors {
				if name, _, _ := strings.Cut(c.Key, "\x00"); name == p.Key {
					if err := tx.Delete(domainCursor, c.Key); err != nil {
						return err
					}
				}
			}
			return tx.ForgetRows(p.Key)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Run runs queries until ctx ends or schedule_timeout passes. While what the scheduler keeps
// cannot be written, no line could be delivered: it says so and tries again.
func (s *Scheduler) Run(ctx context.Context) {
	if err := s.recover(); err != nil {
		s.trouble(err)
	}
	i := s.o.Now().Unix()
	begun := i
	var late time.Duration
	for first := true; ctx.Err() == nil; i++ {
		start := s.o.Now()
		drift := time.Minute
		if c := s.setting(); c != nil {
			drift = c.drift
			if end := c.Flags.Int("schedule_timeout"); end > 0 && i > begun+end {
				s.o.Logger.Info(fmt.Sprintf("The scheduler ended after %d seconds", end))
				return
			}
			s.second(ctx, c, i, first)
			first = false
		}
		// Seconds are not left out, but made up for, to a limit.
		took := s.o.Now().Sub(start)
		if took+late >= time.Second {
			if late += took - time.Second; late > drift {
				late = 0
			}
			continue
		}
		if s.o.Sleep(ctx, time.Second-took-late) != nil {
			return
		}
		late = 0
	}
}

// trouble tells of what cannot be kept, once a minute.
func (s *Scheduler) trouble(err error) {
	if now := s.o.Now(); now.Sub(s.troubled) >= time.Minute {
		s.troubled = now
		s.o.Logger.Error(fmt.Sprintf("the schedule cannot go on: %v", err))
	}
}

// setting returns the setting in force, nil when there is none yet.
func (s *Scheduler) setting() *setting {
	s.mu.Lock()
	n := s.next
	s.mu.Unlock()
	if n == nil {
		return s.current
	}
	if err := s.adopt(n); err != nil {
		s.trouble(err)
		return s.current
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == n {
		s.next = nil
	}
	return s.current
}

// second does what is due in one second of unix time.
func (s *Scheduler) second(ctx context.Context, c *setting, i int64, first bool) {
	if !c.loaded {
		c.loaded = true
		s.runDecorators(ctx, c, c.Config.Decorators.Load)
	}
	s.discover(ctx, c)
	var due []*query
	for _, p := range c.packs {
		if !p.active {
			continue
		}
		for _, q := range p.queries {
			if uint64(i)%q.splayed == 0 || first && q.Priority > 0 {
				due = append(due, q)
			}
		}
	}
	if first {
		slices.SortStableFunc(due, func(a, b *query) int {
			rank := func(q *query) uint64 { return q.Priority - 1 } // 0, none, comes last
			if rank(a) < rank(b) {
				return -1
			}
			return int(min(rank(a)-rank(b), 1))
		})
	}
	for _, q := range due {
		if s.denied(ctx, c, q) {
			continue
		}
		if err := s.launch(ctx, c, q); err != nil {
			s.trouble(err)
		}
		if ctx.Err() != nil {
			return
		}
	}
	if i%60 == 0 {
		for _, d := range c.Config.Decorators.Interval {
			if uint64(i)%d.Seconds == 0 {
				s.runDecorators(ctx, c, d.SQL)
			}
		}
	}
}

// launch runs a query that is due. The error says that its outcome cannot be kept.
func (s *Scheduler) launch(ctx context.Context, c *setting, q *query) error {
	if c.logNames {
		s.o.Logger.Info("Executing scheduled query " + q.Name)
	}
	s.o.Logger.Debug("Executing scheduled query " + q.Name + ": " + q.SQL)
	s.runDecorators(ctx, c, c.Config.Decorators.Always)
	start := s.o.Now()
	err := s.o.State.Update(false, func(tx *state.Tx) error {
		if err := tx.Put(domainRun, "executing", q.Name); err != nil {
			return err
		}
		return tx.Put(domainTimestamp, q.Name, strconv.FormatInt(start.Unix(), 10))
	})
	if err != nil {
		return err
	}
	before := s.o.Usage()
	stats := q.stats
	finish := func(tx *state.Tx, size int64) error {
		stats.add(s.o.Now(), s.o.Now().Sub(start), size, before, s.o.Usage())
		if err := tx.Put(domainStats, q.Name, stats.String()); err != nil {
			return err
		}
		return tx.Delete(domainRun, "executing")
	}
	limited, end := s.begin(ctx, q)
	defer end()
	err = s.execute(limited, q, c, func(tx *state.Tx, r *run) error {
		s.mu.Lock()
		q.known, q.events = true, r.only
		s.mu.Unlock()
		return finish(tx, r.size)
	})
	var failed *sql.Error
	switch {
	case err == nil:
	case ctx.Err() != nil: // the daemon stops: the query is not to blame
		return s.o.State.Delete(domainRun, "executing")
	case errors.As(err, &failed), errors.Is(err, errTooLarge), errors.Is(err, errLine), errors.Is(err, sql.ErrClosed):
		s.o.Logger.Error("Error executing scheduled query " + q.Name + ": " + err.Error())
		exceeded := errors.Is(err, sql.ErrMemory) || errors.Is(err, errTimeout) || errors.Is(err, errTooLarge)
		if err := s.o.State.Update(false, func(tx *state.Tx) error { return finish(tx, 0) }); err != nil {
			return err
		}
		if exceeded {
			if err := s.deny(q); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("query %s: %w", q.Name, err)
	}
	s.mu.Lock()
	q.stats = stats
	s.mu.Unlock()
	return nil
}

// warner passes a query's warnings on, each sentence once.
func (s *Scheduler) warner(name string) func(string) {
	return func(sentence string) {
		text := "scheduled query " + name + ": " + sentence
		s.mu.Lock()
		told := s.failedOnce[text]
		if s.failedOnce == nil || len(s.failedOnce) > 1000 {
			s.failedOnce = map[string]bool{}
		}
		s.failedOnce[text] = true
		s.mu.Unlock()
		if !told {
			s.o.Logger.Warn(text)
		}
	}
}
