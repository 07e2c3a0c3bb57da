package schedule

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/goshawk-project/goshawk/internal/schema"
	"github.com/goshawk-project/goshawk/internal/sql"
	"github.com/goshawk-project/goshawk/internal/state"
)

const (
	// partBytes of lines of an event query are committed at a time, so that neither memory
	// nor a transaction grows with the backlog.
	partBytes = spoolMemory * 3 / 4
	// maxLine bounds a line that holds all rows of a run, which cannot be split.
	maxLine = 32 << 20
)

var (
	// errPart ends a part of an event query. It is no failure.
	errPart = errors.New("the next part follows")
	errLine = errors.New("the rows take more than 32 MiB in one line: log a line for each row (logger_event_type, logger_snapshot_event_type)")
)

// Domains of the state.
const (
	domainQuery     = "query"     // by name: epoch, counter, SQL
	domainCursor    = "cursor"    // by name, NUL, table: the last event seen
	domainRun       = "run"       // "executing": the query that runs now
	domainDenylist  = "denylist"  // by name: until when, unix seconds
	domainInterval  = "interval"  // by name: interval, and what splay made of it
	domainStats     = "stats"     // by name: see stats
	domainTimestamp = "timestamp" // by name: when it last ran
)

// past is what is kept of a query between its runs.
type past struct {
	known          bool
	epoch, counter uint64
	sql            string
}

func parsePast(text string) past {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) != 3 {
		return past{}
	}
	epoch, err1 := strconv.ParseUint(parts[0], 10, 64)
	counter, err2 := strconv.ParseUint(parts[1], 10, 64)
	return past{err1 == nil && err2 == nil, epoch, counter, parts[2]}
}

func (p *past) String() string { return fmt.Sprintf("%d %d %s", p.epoch, p.counter, p.sql) }

// run is one execution of a query: it takes the rows, and makes lines of them. It implements
// sql.TableReceiver.
type run struct {
	query  *query
	format *Format
	head   Head
	past   past
	window *window // nil: event tables show all they have, and rows are compared
	rowsOf func() (map[state.Hash]int64, error)
	warn   func(string)

	further bool // this is not the run's first part
	started bool
	events  bool // all rows are new; else they are compared with those of the last run
	only    bool // no other table than those over events is read
	single  bool // one line for all
	layout  layout
	line    func(dst, columns []byte) []byte
	columns []byte
	kept    []byte

	out  spool // lines, or the rows of the single line
	rows int
	size int64 // of the rows' columns

	found *Finding // nil: the query is no detection

	old, now map[state.Hash]int64 // rows of the last run and of this one; nil: not compared
	added    spool                // rows that were not kept: hash, length, row
}

// Tables implements sql.TableReceiver.
func (r *run) Tables(defs []*schema.Def) {
	if r.started { // the first statement decides
		return
	}
	r.only = len(defs) > 0
	for _, d := range defs {
		if r.found != nil {
			r.found.Tables = append(r.found.Tables, d.Name)
		}
		r.events = r.events || d.Events
		r.only = r.only && d.Events
	}
}

// Columns implements sql.Receiver.
func (r *run) Columns(names, _ []string) error {
	r.layout = newLayout(names)
	if r.started {
		return nil
	}
	if r.found != nil {
		r.found.Columns = slices.Clone(names)
	}
	r.started = true
	return r.start()
}

// start decides what becomes of the rows.
func (r *run) start() error {
	action := "added"
	fresh := !r.past.known || r.past.epoch != r.head.Epoch
	switch {
	case r.query.Snapshot:
		action = "snapshot"
		r.events = false
		r.single = !r.format.SnapshotEvents
	case r.events && r.window != nil:
		r.head.Counter = 1
		if !fresh {
			r.head.Counter = r.past.counter + 1
		}
		r.single = !r.format.Events
	default:
		r.events = false
		r.single = !r.format.Events
		r.old, r.now = map[state.Hash]int64{}, map[state.Hash]int64{}
		if !fresh {
			r.head.Counter = r.past.counter + 1
			var err error
			if r.old, err = r.rowsOf(); err != nil {
				return err
			}
		}
	}
	r.line = eventLine(&r.head, r.format, action)
	return nil
}

// Row implements sql.Receiver.
func (r *run) Row(row []schema.Value) error {
	if !r.query.Snapshot {
		for i := range row {
			if row[i].Kind() == schema.KindText {
				row[i] = schema.TextValue(escape(row[i].Text()))
			}
		}
	}
	r.columns = r.layout.columns(r.columns[:0], row, r.format)
	r.size += int64(len(r.columns))
	if r.now != nil {
		isNew, err := r.compare(row)
		if err != nil || !isNew {
			return err
		}
	}
	if r.found != nil {
		r.find(row)
	}
	r.rows++
	err := r.out.write(func(dst []byte) []byte {
		switch {
		case !r.single:
			return r.line(dst, r.columns)
		case r.rows > 1:
			dst = append(dst, ',')
		}
		return append(dst, r.columns...)
	})
	switch {
	case err != nil:
		return err
	case r.single && r.out.len() > maxLine:
		return errLine
	case r.events && r.out.len() >= partBytes && r.window.streaming():
		return errPart
	}
	return nil
}

// find keeps a row to tell of.
func (r *run) find(row []schema.Value) {
	if len(row) != len(r.found.Columns) { // of a further statement
		return
	}
	if len(r.found.Rows) == maxFound {
		r.found.More++
		return
	}
	kept := make([]schema.Value, len(row))
	for i, v := range row {
		if kept[i] = v; v.Kind() == schema.KindText {
			kept[i] = schema.TextValue(strings.Clone(v.Text()))
		}
	}
	r.found.Rows = append(r.found.Rows, kept)
}

// Warning implements sql.Receiver.
func (r *run) Warning(sentence string) { r.warn(sentence) }

// compare counts a row, and reports whether it is new since the last run.
func (r *run) compare(row []schema.Value) (bool, error) {
	r.kept = r.layout.keep(r.kept[:0], row, r.format)
	h := hashOf(r.kept)
	r.now[h]++
	if r.now[h] <= r.old[h] {
		return false, nil
	}
	if r.now[h] > 1 && r.old[h] == 0 || r.old[h] > 0 {
		return true, nil // it is kept already, or will be
	}
	err := r.added.write(func(dst []byte) []byte {
		dst = append(dst, h[:]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.kept)))
		return append(dst, r.kept...)
	})
	return true, err
}

// gone returns the rows of the last run that are not in this one, in osquery's order.
func (r *run) gone(rowOf func(state.Hash) ([]byte, error)) ([]goneRow, error) {
	var out []goneRow
	for h, n := range r.old {
		n -= r.now[h]
		if n <= 0 {
			continue
		}
		kept, err := rowOf(h)
		if err != nil {
			return nil, err
		}
		names, cells, err := unkeep(kept)
		if err != nil {
			return nil, err
		}
		for range n {
			out = append(out, goneRow{names, cells})
		}
	}
	sortGone(out)
	return out, nil
}

// fresh reports whether rows are not compared, since there are none to compare with.
func (r *run) fresh() bool { return !r.past.known || r.past.epoch != r.head.Epoch }

// commit makes all that the run has changed durable, in tx. streams take the lines.
func (r *run) commit(tx *state.Tx, streams []string) error {
	if r.query.Snapshot {
		if r.single {
			before, after := snapshotLine(&r.head, r.format)
			return r.addSingle(tx, streams, before, nil, "", after)
		}
		return r.addLines(tx, streams)
	}
	next := past{known: true, epoch: r.head.Epoch, counter: r.head.Counter, sql: r.query.SQL}
	if r.events {
		if r.rows == 0 {
			if r.further {
				return nil
			}
			next.counter = 0 // so that the first event has 1
			if !r.fresh() {
				next.counter = r.past.counter
			}
		} else if err := r.log(tx, streams, nil); err != nil {
			return err
		}
		return r.remember(tx, next)
	}
	gone, err := r.gone(func(h state.Hash) ([]byte, error) { return tx.Row(r.query.Name, h) })
	if err != nil {
		return err
	}
	switch {
	case r.fresh():
		if err := tx.ForgetRows(r.query.Name); err != nil {
			return err
		}
		r.old = nil
	case r.rows == 0 && len(gone) == 0:
		next.counter = r.past.counter
		return r.remember(tx, next)
	}
	if err := r.keepRows(tx); err != nil {
		return err
	}
	if !r.query.Removed {
		gone = nil
	}
	// A run that has all rows there are says so even when there are none.
	if r.rows > 0 || len(gone) > 0 || r.head.Counter == 0 {
		if err := r.log(tx, streams, gone); err != nil {
			return err
		}
	}
	return r.remember(tx, next)
}

// changed reports whether there are lines to log, as far as can be told before the commit.
func (r *run) changed() bool {
	if r.rows > 0 {
		return true
	}
	for h, n := range r.old {
		if n > r.now[h] {
			return true
		}
	}
	return false
}

// remember keeps what the next run has to know, when it changed.
func (r *run) remember(tx *state.Tx, next past) error {
	if next == r.past {
		return nil
	}
	r.past = next
	return tx.Put(domainQuery, r.query.Name, next.String())
}

// keepRows makes the rows of this run those of the last.
func (r *run) keepRows(tx *state.Tx) error {
	for h, n := range r.old {
		if r.now[h] != n {
			if err := tx.SetRow(r.query.Name, h, r.now[h], nil); err != nil {
				return err
			}
		}
	}
	in := r.added.reader()
	var head [20]byte
	var row []byte
	for {
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read kept results: %w", err)
		}
		h := state.Hash(head[:16])
		row = append(row[:0], make([]byte, binary.BigEndian.Uint32(head[16:]))...)
		if _, err := io.ReadFull(in, row); err != nil {
			return fmt.Errorf("read kept results: %w", err)
		}
		if err := tx.SetRow(r.query.Name, h, r.now[h], row); err != nil {
			return err
		}
	}
}

// log queues the lines of a run: removed rows come before those added.
func (r *run) log(tx *state.Tx, streams []string, gone []goneRow) error {
	var removed []byte
	if !r.single {
		line := eventLine(&r.head, r.format, "removed")
		for _, g := range gone {
			l := newLayout(g.names)
			removed = line(removed, l.columns(nil, g.cells, r.format))
			if len(removed) >= spoolMemory {
				if err := addTo(tx, streams, removed); err != nil {
					return err
				}
				removed = removed[:0]
			}
		}
		if err := addTo(tx, streams, removed); err != nil {
			return err
		}
		return r.addLines(tx, streams)
	}
	for i, g := range gone {
		if i > 0 {
			removed = append(removed, ',')
		}
		l := newLayout(g.names)
		removed = l.columns(removed, g.cells, r.format)
		if len(removed) > maxLine {
			return errLine
		}
	}
	before, between, after := diffLine(&r.head, r.format)
	return r.addSingle(tx, streams, before, removed, between, after)
}

func (r *run) addLines(tx *state.Tx, streams []string) error {
	return r.out.lines(func(lines []byte) error { return addTo(tx, streams, lines) })
}

// addSingle queues the one line of a run, whose added rows are in r.out.
func (r *run) addSingle(tx *state.Tx, streams []string, before string, removed []byte, between, after string) error {
	var line bytes.Buffer
	line.WriteString(before)
	line.Write(removed)
	line.WriteString(between)
	if _, err := io.Copy(&line, r.out.reader()); err != nil {
		return fmt.Errorf("read kept results: %w", err)
	}
	line.WriteString(after)
	return addTo(tx, streams, line.Bytes())
}

func addTo(tx *state.Tx, streams []string, lines []byte) error {
	for _, s := range streams {
		if err := tx.Add(s, lines); err != nil {
			return err
		}
	}
	return nil
}

// reset frees what the run holds.
func (r *run) reset() {
	r.out.reset()
	r.added.reset()
}

// execute runs a query once, in as many parts as it takes, and commits each. also is done
// with the last commit.
func (s *Scheduler) execute(ctx context.Context, q *query, c *setting, also func(tx *state.Tx, r *run) error) error {
	r := &run{}
	defer func() { r.reset() }()
	upto := int64(0)
	for {
		text, _, err := s.o.State.Get(domainQuery, q.Name)
		if err != nil {
			return err
		}
		now := s.o.Now()
		next := &run{
			query: q, format: &c.format, past: parsePast(text), warn: s.warner(q.Name),
			head: Head{Name: q.Name, Host: c.host, Time: now, Epoch: c.epoch, Decorations: s.decorations()},
			out:  spool{dir: s.o.Dir}, added: spool{dir: s.o.Dir},
			rowsOf: func() (map[state.Hash]int64, error) { return s.o.State.Hashes(q.Name) },
		}
		if s.o.Found != nil && q.Detection != nil {
			next.found = &Finding{Query: q.Query}
		}
		if c.optimize && s.o.Log != nil {
			next.window = s.window(q.Name, upto)
		}
		if next.further = upto > 0; next.further { // the parts of one run have one counter
			next.past.counter = r.head.Counter - 1
		}
		next.size = r.size
		r.reset()
		next.out.buf = r.out.buf
		r = next
		err = s.o.Engine.Query(context.WithValue(ctx, windowKey{}, r.window), q.SQL, r)
		part := errors.Is(err, errPart)
		if err != nil && !part {
			return err
		}
		if !r.started && !part {
			r.layout = newLayout(nil)
			if err := r.start(); err != nil { // no statement with rows, such as a comment
				return err
			}
		}
		streams := c.results
		if q.Snapshot {
			streams = c.snapshots
		}
		err = s.o.State.Update(r.changed(), func(tx *state.Tx) error {
			if err := r.commit(tx, streams); err != nil {
				return err
			}
			if r.window != nil {
				for name := range r.window.tables {
					if err := tx.Put(domainCursor, q.Name+"\x00"+name, strconv.FormatInt(r.window.seen(), 10)); err != nil {
						return err
					}
				}
			}
			if part {
				return nil
			}
			return also(tx, r)
		})
		if err == nil && r.found != nil && len(r.found.Rows) > 0 {
			s.o.Found(*r.found)
		}
		if err != nil || !part {
			return err
		}
		upto = r.window.upto
	}
}

// window makes the window of a run. upto is its end, 0 when this is its first part.
func (s *Scheduler) window(name string, upto int64) *window {
	w := &window{head: s.o.Log.Head, upto: upto, tables: map[string]bool{}}
	w.after = func(table string) (int64, error) {
		text, ok, err := s.o.State.Get(domainCursor, name+"\x00"+table)
		if err != nil || !ok {
			return 0, err
		}
		after, err := strconv.ParseInt(text, 10, 64)
		if err != nil || after > w.upto {
			// The store was begun anew, and counts from one.
			s.o.Logger.Warn(fmt.Sprintf("scheduled query %s: event %s of %s is beyond the last, %d: it begins anew", name, text, table, w.upto))
			return 0, nil
		}
		return after, nil
	}
	return w
}

var _ sql.TableReceiver = (*run)(nil)
