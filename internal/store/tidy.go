package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	// removeAtOnce bounds the blocks that one transaction removes.
	removeAtOnce = 64

	// Blocks with fewer rows and bytes than this are small: they were committed after a
	// second, not because they were full, and are merged with their neighbours.
	smallRows  = blockRows / 2
	smallBytes = 32 << 10
	// smallBlocks of a stream are merged even when they do not fill a block.
	smallBlocks = 64

	// mergeAtOnce bounds the merges of a stream after one write.
	mergeAtOnce = 4

	// The file shrinks by vacuumPages at a time when more than a quarter of it is free.
	vacuumPages = 256
	vacuumFloor = 1024
)

// tally is what the writer knows of the blocks of one stream.
type tally struct {
	name         string
	stream       *stream // nil for one that this agent does not know
	critical     bool
	lasting      bool
	rows, blocks int64
	bytes        int64
	oldest       *oldBlock // nil when not looked up
	// small is the newest blocks as far as they are small, oldest first. closed is such
	// runs that a larger block has ended. Only neighbours are merged: blocks of a stream
	// do not overlap.
	small  []smallBlock
	closed [][]smallBlock
}

type oldBlock struct {
	eid, first, maxTime, rows, bytes int64
	kinds                            kindCounts
}

type smallBlock struct{ eid, rows, bytes int64 }

// removal is a block that has left.
type removal struct {
	kinds  kindCounts
	reason string
}

// tally returns the tally of the stream called name.
func (w *writer) tally(name string) *tally {
	i, ok := slices.BinarySearchFunc(w.tallies, name, func(t *tally, name string) int { return strings.Compare(t.name, name) })
	if !ok {
		t := &tally{name: name}
		for _, st := range w.s.pool.streams {
			if st.name == name {
				t.stream, t.critical, t.lasting = st, st.critical, st.lasting
			}
		}
		w.tallies = slices.Insert(w.tallies, i, t)
	}
	return w.tallies[i]
}

// loadTallies counts the blocks in the database.
func (w *writer) loadTallies() error {
	w.tallies = nil
	q, _, err := w.db.Prepare(`SELECT stream, count(*), sum(rows), sum(bytes) FROM block GROUP BY stream`)
	if err != nil {
		return err
	}
	defer q.Close()
	for q.Step() {
		t := w.tally(q.ColumnText(0))
		t.blocks, t.rows, t.bytes = q.ColumnInt64(1), q.ColumnInt64(2), q.ColumnInt64(3)
	}
	if err := q.Err(); err != nil {
		return err
	}
	newest, _, err := w.db.Prepare(`SELECT last_eid, rows, bytes, layout FROM block WHERE stream = ?1 ORDER BY last_eid DESC LIMIT ?2`)
	if err != nil {
		return err
	}
	defer newest.Close()
	for _, t := range w.tallies {
		if err := errors.Join(newest.BindText(1, t.name), newest.BindInt64(2, 2*smallBlocks)); err != nil {
			return err
		}
		for newest.Step() {
			b := smallBlock{newest.ColumnInt64(0), newest.ColumnInt64(1), newest.ColumnInt64(2)}
			// Only blocks of the present layout are written anew: columns that this
			// agent does not know stay where they are.
			if t.stream == nil || newest.ColumnInt64(3) != w.layouts[t.stream] || !b.is() {
				break
			}
			t.small = append(t.small, b)
		}
		slices.Reverse(t.small)
		if err := newest.Reset(); err != nil {
			return err
		}
	}
	return nil
}

func (b smallBlock) is() bool { return b.rows < smallRows && b.bytes < smallBytes }

// append counts a block that is newer than all others.
func (t *tally) append(p *packed) {
	b := t.count(p)
	if b.is() {
		t.small = append(t.small, b)
		return
	}
	if len(t.small) > 1 {
		t.closed = append(t.closed, t.small)
	}
	t.small = nil
}

func (t *tally) count(p *packed) smallBlock {
	b := smallBlock{p.span.lastEID, int64(p.rows), int64(len(p.data))}
	t.rows += b.rows
	t.bytes += b.bytes
	t.blocks++
	return b
}

// due returns neighbours that should be merged, if any, and takes them off the tally. It
// reports whether they are the newest blocks.
func (t *tally) due() (run []smallBlock, newest bool) {
	if n := len(t.closed); n > 0 {
		run, rest := split(t.closed[n-1])
		t.closed = t.closed[:n-1]
		if len(rest) > 1 {
			t.closed = append(t.closed, rest)
		}
		return run, false
	}
	rows := int64(0)
	for _, b := range t.small {
		rows += b.rows
	}
	if rows < blockRows && len(t.small) < smallBlocks {
		return nil, false
	}
	run, t.small = split(t.small)
	return run, len(t.small) == 0
}

// split returns as many of run as make one block, and the others.
func split(run []smallBlock) (one, rest []smallBlock) {
	var rows, bytes int64
	for i, b := range run {
		rows += b.rows
		bytes += b.bytes
		if rows > blockRows+smallRows || bytes > 4*smallBytes {
			return run[:i:i], run[i:]
		}
	}
	return run, nil
}

// expire removes the blocks that the bounds do not allow any more, oldest first. It
// reports what it removed, and whether it stopped before all was.
func (w *writer) expire() (removed []removal, more bool, err error) {
	o := &w.s.o
	maxAge := w.s.maxAge.Load()
	if maxAge == 0 && o.LastingAge == 0 && o.MaxRows == 0 && o.MaxBytes == 0 {
		return nil, false, nil
	}
	ordinary, lasting := int64(math.MinInt64), int64(math.MinInt64)
	if maxAge > 0 {
		ordinary = w.s.cutoff()
	}
	if o.LastingAge > 0 {
		lasting = o.Now().Add(-o.LastingAge).UnixNano()
	}
	for _, t := range slices.Clone(w.tallies) { // which rows that are kept may add to
		cutoff := ordinary
		if t.lasting {
			cutoff = lasting
		}
		for t.blocks > 0 {
			b, err := w.oldest(t)
			if err != nil {
				return nil, false, err
			}
			reason := ""
			switch {
			case b == nil:
			case b.maxTime < cutoff:
				reason = ReasonExpired
			case o.MaxRows > 0 && t.rows-b.rows >= o.MaxRows:
				reason = ReasonRowsCap
			}
			if reason == "" {
				break
			}
			if len(removed) == removeAtOnce {
				return removed, true, nil
			}
			gone, err := w.drop(t, b)
			if err != nil {
				return nil, false, err
			}
			removed = append(removed, removal{gone, reason})
		}
	}
	for o.MaxBytes > 0 {
		used, err := w.used()
		if err != nil {
			return nil, false, err
		}
		if used <= max(o.MaxBytes-walBytes, o.MaxBytes/2) {
			break
		}
		t, err := w.victim()
		if err != nil || t == nil {
			return removed, false, err
		}
		if len(removed) == removeAtOnce {
			return removed, true, nil
		}
		b, err := w.oldest(t)
		if err != nil {
			return nil, false, err
		}
		gone, err := w.drop(t, b)
		if err != nil {
			return nil, false, err
		}
		removed = append(removed, removal{gone, ReasonBytesCap})
	}
	return removed, false, nil
}

// victim picks the stream whose oldest block goes when bytes are short: of those with no
// critical kind while these hold at least half of everything, else of those with one; of the
// lasting when these hold more than their share, or nothing else is left.
func (w *writer) victim() (*tally, error) {
	var bytes [3]int64
	for _, t := range w.tallies {
		bytes[class(t)] += t.bytes
	}
	from := 1
	switch {
	case bytes[2] > w.s.o.MaxBytes/8 || bytes[0]+bytes[1] == 0:
		from = 2
	case bytes[0] >= bytes[1]:
		from = 0
	}
	var pick *tally
	for _, t := range w.tallies {
		if t.blocks == 0 || class(t) != from {
			continue
		}
		b, err := w.oldest(t)
		if err != nil {
			return nil, err
		}
		if b != nil && (pick == nil || b.eid < pick.oldest.eid) {
			pick = t
		}
	}
	return pick, nil
}

func class(t *tally) int {
	switch {
	case t.lasting:
		return 2
	case t.critical:
		return 1
	}
	return 0
}

// oldest looks up the oldest block of t, which should have one; nil when it has not.
func (w *writer) oldest(t *tally) (*oldBlock, error) {
	if t.oldest != nil {
		return t.oldest, nil
	}
	q := w.sql.oldest
	defer q.Reset()
	if err := q.BindText(1, t.name); err != nil {
		return nil, err
	}
	if !q.Step() {
		if err := q.Err(); err != nil {
			return nil, err
		}
		t.rows, t.blocks, t.bytes = 0, 0, 0
		return nil, nil
	}
	t.oldest = &oldBlock{
		eid: q.ColumnInt64(0), maxTime: q.ColumnInt64(1), rows: q.ColumnInt64(2), bytes: q.ColumnInt64(3),
		kinds: parseKinds(q.ColumnRawBlob(4)), first: q.ColumnInt64(5),
	}
	return t.oldest, nil
}

// drop removes the oldest block of t, but for the rows that are to outlive it, and returns what
// is gone.
func (w *writer) drop(t *tally, b *oldBlock) (gone kindCounts, err error) {
	saved, err := w.rescue(t, b)
	if err != nil {
		return nil, err
	}
	if err := w.remove(t.name, b.eid); err != nil {
		return nil, err
	}
	if saved != nil {
		if _, err := w.insert(saved); err != nil {
			return nil, err
		}
		w.tally(saved.stream.name).append(saved)
	}
	t.rows -= b.rows
	t.bytes -= b.bytes
	t.blocks--
	t.oldest = nil
	if len(t.small) > 0 && t.small[0].eid == b.eid {
		t.small = t.small[1:]
	}
	for i, run := range t.closed {
		if run[0].eid == b.eid {
			t.closed[i] = run[1:]
			if len(run) == 2 {
				t.closed = slices.Delete(t.closed, i, i+1)
			}
			break
		}
	}
	return b.kinds.without(saved), nil
}

// used is how many bytes of the database are in use.
func (w *writer) used() (int64, error) {
	var n [2]int64
	for i, q := range [...]interface {
		Step() bool
		ColumnInt64(int) int64
		Err() error
		Reset() error
	}{w.sql.pages, w.sql.free} {
		if q.Step() {
			n[i] = q.ColumnInt64(0)
		}
		if err := errors.Join(q.Err(), q.Reset()); err != nil {
			return 0, err
		}
	}
	return (n[0] - n[1]) * 4096, nil
}

// tidy merges small blocks and gives free pages back. What goes wrong here loses nothing:
// the next write finds out.
func (w *writer) tidy() {
	err := w.vacuum()
	for _, t := range w.tallies {
		for n := 0; n < mergeAtOnce && err == nil; n++ {
			run, newest := t.due()
			if run == nil {
				break
			}
			err = w.merge(t, run, newest)
		}
	}
	if err != nil {
		w.abandon()
		if isCorrupt(err) {
			w.s.distrust()
		}
	}
}

// merge replaces neighbouring small blocks of t by one.
func (w *writer) merge(t *tally, run []smallBlock, newest bool) error {
	h, err := newHead(t.stream, w.s.pool, &event.Selection{MaxEID: math.MaxInt64, From: math.MinInt64, To: math.MaxInt64})
	if err != nil {
		return err
	}
	h.columns = make([]columnBuffer, len(t.stream.columns))
	b := newBuilder(t.stream, w.s.seed)
	for _, m := range run {
		err := w.readInto(b, h, m.eid, nil)
		if errors.Is(err, errBlock) {
			return nil // a reader will report it
		}
		if err != nil {
			return err
		}
	}
	p := w.packer.pack(b)
	if err := w.db.Exec(`BEGIN IMMEDIATE`); err != nil {
		return err
	}
	for _, m := range run {
		if err := w.remove(t.name, m.eid); err != nil {
			return err
		}
		t.rows -= m.rows
		t.bytes -= m.bytes
		t.blocks--
	}
	t.oldest = nil
	if _, err := w.insert(&p); err != nil {
		return err
	}
	if err := w.db.Exec(`COMMIT`); err != nil {
		return err
	}
	if b := t.count(&p); newest && b.is() {
		t.small = []smallBlock{b}
	}
	w.s.mu.Lock()
	w.s.stats.Merges++
	w.s.mu.Unlock()
	return nil
}

// readInto appends the rows of a block to b: all, of a block of the present layout; or those
// that only names, in ascending order.
func (w *writer) readInto(b *builder, h *head, eid int64, only []int64) error {
	q := w.sql.readBlock
	defer q.Reset()
	if err := errors.Join(q.BindText(1, h.stream.name), q.BindInt64(2, eid)); err != nil {
		return err
	}
	if !q.Step() {
		if err := q.Err(); err != nil {
			return err
		}
		return fmt.Errorf("%w: block %d of %s is missing", ErrCorrupt, eid, h.stream.name)
	}
	text := h.stream.layout
	if id := q.ColumnInt64(0); id != w.layouts[h.stream] {
		if only == nil {
			return damaged("another layout")
		}
		var err error
		if text, err = w.layoutText(id); err != nil {
			return err
		}
	}
	l, err := parseLayout(h.stream, text)
	if err != nil {
		return err
	}
	if err := w.block.open(q.ColumnRawBlob(1), l); err != nil {
		return err
	}
	if err := h.decode(&w.block, true); err != nil {
		return err
	}
	for h.at < len(h.rows) {
		e := h.next().Head()
		if _, wanted := slices.BinarySearch(only, e.EID); wanted || only == nil {
			b.add(e)
		}
	}
	return nil
}

// vacuum shrinks the file a little when much of it is free.
func (w *writer) vacuum() error {
	pages, err := queryInt(w.db, `PRAGMA page_count`)
	if err != nil {
		return err
	}
	free, err := queryInt(w.db, `PRAGMA freelist_count`)
	if err != nil || free < vacuumFloor || free < pages/4 {
		return err
	}
	return w.db.Exec(fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, vacuumPages))
}

// publish copies the tallies for Stats.
func (w *writer) publish() {
	var used int64
	if w.db != nil {
		used, _ = w.used()
	}
	tables := make([]TableStats, 0, len(w.tallies))
	for _, t := range w.tallies {
		tables = append(tables, TableStats{Name: t.name, Rows: t.rows, Blocks: t.blocks, Bytes: t.bytes})
	}
	w.s.mu.Lock()
	w.s.stats.Tables, w.s.stats.Bytes = tables, used
	w.s.mu.Unlock()
}
