package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
)

const (
	domainPending = "distributed"         // by id: SQL
	domainRunning = "distributed_running" // by SHA-256 of the SQL: since when
	domainDone    = "distributed_done"    // by id: a result as JSON, not taken by the server yet

	accelerated = 5 * time.Second // between requests, while the server asks for it

	maxQueryTime = 10 * time.Minute
	maxResult    = 16 << 20 // bytes of one query's rows
	maxWrite     = 8 << 20  // bytes of results in a request, or one result
	maxKept      = 64 << 20 // bytes of results that wait for the server
)

var (
	errTimeout  = fmt.Errorf("it took longer than %v", maxQueryTime)
	errTooLarge = errors.New("the results take more than 16 MiB")
	errEnough   = errors.New("enough rows")
)

// Usage is what this process has cost so far.
type Usage struct {
	User, System time.Duration
	Resident     int64
}

// Distributed runs the queries that a server asks for. Its functions give what the flags say
// at the moment.
type Distributed struct {
	Node   *Node
	Engine interface {
		Query(context.Context, string, sql.Receiver) error
	}
	Read, Write func() string // endpoints
	Attempts    func() int
	Interval    func() time.Duration
	Denylist    func() time.Duration // for which a query is not run that did harm
	LogQueries  func() bool
	Text        func(schema.Value) string // a cell as results have it
	Usage       func() Usage
	Running     func(id string) // told which query runs, "" for none; it may be nil

	dropped atomic.Uint64
}

// Counts returns how many results were dropped since the server took none for too long.
func (d *Distributed) Counts() []event.Count {
	if n := d.dropped.Load(); n > 0 {
		return []event.Count{{Source: "distributed_results", What: event.Lost, Reason: state.ReasonBufferFull, N: n}}
	}
	return nil
}

// Run asks for queries, runs them, and sends their results, until ctx ends.
func (d *Distributed) Run(ctx context.Context) {
	for ctx.Err() == nil {
		d.Once(ctx)
		if d.Node.Sleep(ctx, d.pause()) != nil {
			return
		}
	}
}

// pause is how long to wait for the next request.
func (d *Distributed) pause() time.Duration {
	text, ok, err := d.Node.State.Get(domainNode, "accelerate")
	if err == nil && ok {
		if until, err := strconv.ParseInt(text, 10, 64); err == nil && d.Node.Now().Unix() <= until {
			return accelerated
		}
	}
	return max(d.Interval(), time.Second)
}

// Once asks, runs and sends once.
func (d *Distributed) Once(ctx context.Context) {
	if err := d.pull(ctx); err != nil && ctx.Err() == nil {
		d.Node.Logger.Warn(fmt.Sprintf("Distributed queries: %v", err))
	}
	if err := d.run(ctx); err != nil && ctx.Err() == nil {
		d.Node.Logger.Error(fmt.Sprintf("Distributed queries: %v", err))
	}
	if err := d.flush(ctx); err != nil && ctx.Err() == nil {
		d.Node.Logger.Warn(fmt.Sprintf("Distributed results, which are kept: %v", err))
	}
}

// pull asks for queries and keeps them.
func (d *Distributed) pull(ctx context.Context) error {
	var a answer
	err := d.Node.again(ctx, d.Attempts(), func() error {
		var err error
		a, _, err = d.Node.call(ctx, d.Read(), keyed(nil), false, maxAnswer)
		return err
	})
	if err != nil {
		return err
	}
	return d.accept(ctx, a)
}

// strings reads an object of texts that are not empty; what is no object is an empty one.
func texts(raw json.RawMessage, what string) (map[string]string, error) {
	var all map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		return nil, nil
	}
	out := make(map[string]string, len(all))
	for name, value := range all {
		var text string
		if json.Unmarshal(value, &text) != nil || text == "" || name == "" {
			return nil, fmt.Errorf("%s is not a string", what)
		}
		out[name] = text
	}
	return out, nil
}

// accept keeps the queries of an answer whose discovery queries give rows. One discovery query
// that fails refuses all (Distributed::acceptWork).
func (d *Distributed) accept(ctx context.Context, a answer) error {
	discovery, err := texts(a["discovery"], "Distributed discovery query")
	if err != nil {
		return err
	}
	found := make(map[string]bool, len(discovery))
	for id, query := range discovery {
		r := &resultRows{text: d.Text, most: 1}
		if err := d.query(ctx, query, r); err != nil && !errors.Is(err, errEnough) {
			return fmt.Errorf("Distributed discovery query has an SQL error: %w", err)
		}
		found[id] = r.rows > 0
	}
	queries, err := texts(a["queries"], "Distributed query")
	if err != nil {
		return err
	}
	var seconds int64
	accelerate := json.Unmarshal(a["accelerate"], &seconds) == nil
	return d.Node.State.Update(false, func(tx *state.Tx) error {
		for id, query := range queries {
			if has, ok := found[id]; ok && !has {
				continue
			}
			if err := tx.Put(domainPending, id, query); err != nil {
				return err
			}
		}
		if accelerate {
			d.Node.Logger.Info(fmt.Sprintf("Accelerating distributed query checkins for %d seconds", seconds))
			return tx.Put(domainNode, "accelerate", strconv.FormatInt(d.Node.Now().Unix()+min(max(seconds, 0), 1<<32), 10))
		}
		return nil
	})
}

func (d *Distributed) query(ctx context.Context, text string, r sql.Receiver) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxQueryTime, errTimeout)
	defer cancel()
	return d.Engine.Query(ctx, text, r)
}

// run runs what is kept. A query leaves when its result is kept in its place.
func (d *Distributed) run(ctx context.Context) error {
	list, err := d.Node.State.List(domainPending)
	if err != nil {
		return err
	}
	for _, p := range list {
		if err := d.runOne(ctx, p.Key, p.Value); err != nil {
			return err
		}
	}
	return nil
}

func (d *Distributed) runOne(ctx context.Context, id, query string) error {
	now := d.Node.Now()
	sum := sha256.Sum256([]byte(query))
	hash := hex.EncodeToString(sum[:])
	denied := false
	err := d.Node.State.Update(false, func(tx *state.Tx) error {
		text, ok, err := tx.Get(domainRunning, hash)
		if err != nil {
			return err
		}
		since, err := strconv.ParseInt(text, 10, 64)
		denied = ok && err == nil && now.Unix()-since < int64(d.Denylist()/time.Second)
		if denied {
			return nil
		}
		return tx.Put(domainRunning, hash, strconv.FormatInt(now.Unix(), 10))
	})
	if err != nil {
		return err
	}
	if denied {
		return d.done(id, result([]byte("[]"), 1, "distributed query is denylisted", nil), "")
	}
	if d.LogQueries() {
		d.Node.Logger.Info("Executing distributed query: " + id + ": " + query)
	}
	if d.Running != nil {
		d.Running(id)
		defer d.Running("")
	}
	before, start := d.Usage(), time.Now()
	r := &resultRows{text: d.Text, most: -1}
	err = d.query(ctx, query, r)
	if ctx.Err() != nil { // the daemon stops: the query stays, and is not to blame
		_ = d.Node.State.Delete(domainRunning, hash)
		return ctx.Err()
	}
	after := d.Usage()
	stats := &object{}
	stats.number("wall_time_ms", time.Since(start).Milliseconds())
	stats.number("user_time", (after.User - before.User).Milliseconds())
	stats.number("system_time", (after.System - before.System).Milliseconds())
	stats.number("memory", max(after.Resident-before.Resident, 0))
	status, message := 0, ""
	if err != nil {
		d.Node.Logger.Error("Error executing distributed query: " + id + ": " + err.Error())
		status, message = 1, err.Error()
		r.json, r.rows = nil, 0
	}
	if errors.Is(err, sql.ErrMemory) || errors.Is(err, errTimeout) || errors.Is(err, errTooLarge) {
		hash = "" // it did harm, and stays on the list
	}
	return d.done(id, result(r.bytes(), status, message, stats), hash)
}

// result is what is kept of a query that has run.
func result(rows []byte, status int, message string, stats *object) []byte {
	o := &object{}
	o.raw("queries", rows)
	o.number("statuses", int64(status))
	o.text("messages", message)
	if stats == nil {
		stats = &object{}
	}
	o.raw("stats", stats.bytes())
	return o.bytes()
}

// done keeps a result in its query's place, and takes the query off the list of those that
// did harm.
func (d *Distributed) done(id string, result []byte, hash string) error {
	return d.Node.State.Update(true, func(tx *state.Tx) error {
		if err := tx.Delete(domainPending, id); err != nil {
			return err
		}
		if hash != "" {
			if err := tx.Delete(domainRunning, hash); err != nil {
				return err
			}
		}
		kept, err := tx.List(domainDone)
		if err != nil {
			return err
		}
		size := len(result)
		for _, p := range kept {
			if size += len(p.Value); size > maxKept {
				d.dropped.Add(1)
				d.Node.Logger.Warn("Distributed results take more than 64 MiB: that of " + p.Key + " is dropped")
				if err := tx.Delete(domainDone, p.Key); err != nil {
					return err
				}
			}
		}
		return tx.Put(domainDone, id, string(result))
	})
}

// flush sends the results that are kept. Those that the server does not take stay, and are
// sent again: osquery loses them.
func (d *Distributed) flush(ctx context.Context) error {
	for {
		list, err := d.Node.State.List(domainDone)
		if err != nil || len(list) == 0 {
			return err
		}
		n, size := 0, 0
		for n < len(list) && (n == 0 || size+len(list[n].Value) <= maxWrite) {
			size += len(list[n].Value)
			n++
		}
		list = list[:n]
		body, err := writeBody(list)
		if err != nil {
			return err
		}
		err = d.Node.again(ctx, d.Attempts(), func() error {
			_, _, err := d.Node.call(ctx, d.Write(), body, false, maxAnswer)
			return err
		})
		if err != nil {
			return err
		}
		err = d.Node.State.Update(false, func(tx *state.Tx) error {
			for _, p := range list {
				if err := tx.Delete(domainDone, p.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// writeBody makes the request with results: an object by id of each of their parts.
func writeBody(list []state.Pair) (func(key string) []byte, error) {
	names := [...]string{"queries", "statuses", "messages", "stats"}
	var parts [len(names)]object
	for _, p := range list {
		var r map[string]json.RawMessage
		if err := json.Unmarshal([]byte(p.Value), &r); err != nil {
			return nil, fmt.Errorf("read the result of %s: %w", p.Key, err)
		}
		for i, name := range names {
			parts[i].raw(p.Key, r[name])
		}
	}
	return keyed(func(o *object) {
		for i, name := range names {
			o.raw(name, parts[i].bytes())
		}
	}), nil
}

// resultRows makes JSON of rows, in the order of their columns. It implements sql.Receiver.
type resultRows struct {
	text func(schema.Value) string
	most int // rows to take; -1 is all

	keys  [][]byte // `"name":` by column; nil: left out
	order []int
	json  []byte
	rows  int
}

// Columns implements sql.Receiver. Of columns with one name there is one cell, the last's, in
// the place that osquery's way of replacing a member gives it (JSON::addRef).
func (r *resultRows) Columns(names, _ []string) error {
	last := make(map[string]int, len(names))
	for i, name := range names {
		last[name] = i
	}
	r.order = r.order[:0]
	r.keys = make([][]byte, len(names))
	for _, name := range names {
		i := last[name]
		for k, have := range r.order {
			if have == i {
				r.order[k] = r.order[len(r.order)-1]
				r.order = r.order[:len(r.order)-1]
				break
			}
		}
		r.order = append(r.order, i)
		r.keys[i] = append(quote(name), ':')
	}
	return nil
}

// Row implements sql.Receiver.
func (r *resultRows) Row(row []schema.Value) error {
	if r.rows++; r.most >= 0 {
		if r.rows >= r.most {
			return errEnough
		}
		return nil
	}
	sep := byte(',')
	if r.rows == 1 {
		sep = '['
	}
	r.json = append(r.json, sep, '{')
	for n, i := range r.order {
		if n > 0 {
			r.json = append(r.json, ',')
		}
		r.json = append(r.json, r.keys[i]...)
		r.json = schema.AppendString(r.json, r.text(row[i]))
	}
	r.json = append(r.json, '}')
	if len(r.json) > maxResult {
		return errTooLarge
	}
	return nil
}

// Warning implements sql.Receiver: the server has no place for it.
func (r *resultRows) Warning(string) {}

func (r *resultRows) bytes() []byte {
	if r.rows == 0 {
		return []byte("[]")
	}
	return append(r.json, ']')
}

// Forget removes what the list of queries that did harm has kept for too long.
func (d *Distributed) Forget() error {
	list, err := d.Node.State.List(domainRunning)
	if err != nil {
		return err
	}
	for _, p := range list {
		since, err := strconv.ParseInt(strings.TrimSpace(p.Value), 10, 64)
		if err == nil && d.Node.Now().Unix()-since < int64(d.Denylist()/time.Second) {
			continue
		}
		if err := d.Node.State.Delete(domainRunning, p.Key); err != nil {
			return err
		}
	}
	return nil
}
