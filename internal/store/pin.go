package store

import (
	"errors"
	"math"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Pinned events are those that prove something, and those that tell who did it. They outlive
// the block that they are in: when that goes, they are written to a block of a stream beside
// its own. Their numbers are a table until then.
const (
	pinSQL    = `CREATE TABLE IF NOT EXISTS pin (eid INTEGER PRIMARY KEY) STRICT;`
	pinnedSQL = `SELECT eid FROM pin WHERE eid BETWEEN ?1 AND ?2 ORDER BY eid`

	// maxPins bounds the numbers, on disk and waiting for it; beyond, the lowest are let go.
	maxPins = 100_000
)

// Pin has events outlive ordinary ones, as far as they are still here: Options.LastingAge says
// how long. Those for which there is no room, while the disk takes none, are counted as evicted. It
// is for the goroutine that calls Append.
func (s *Store) Pin(eids ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := max(0, maxPins-len(s.pins)-s.pinning)
	if len(eids) > room {
		s.evictPins(uint64(len(eids) - room))
		eids = eids[:room]
	}
	s.pins = append(s.pins, eids...)
}

// evictPins counts pins that are not remembered. The caller holds s.mu.
func (s *Store) evictPins(n uint64) {
	if n > 0 {
		s.counts.add(event.KindAlert, event.Evicted, ReasonPins, n)
	}
}

// writePins puts the numbers that wait into the transaction under way.
func (w *writer) writePins() error {
	w.unpinned = 0
	for _, eid := range w.pins {
		if err := errors.Join(w.sql.pin.BindInt64(1, eid), w.sql.pin.Exec()); err != nil {
			return err
		}
	}
	w.pinned += int64(len(w.pins)) // or less: some were there
	if w.pinned <= maxPins {
		return nil
	}
	n, err := queryInt(w.db, `SELECT count(*) FROM pin`)
	if w.pinned = n; err != nil || n <= maxPins {
		return err
	}
	q, _, err := w.db.Prepare(`DELETE FROM pin WHERE eid IN (SELECT eid FROM pin ORDER BY eid LIMIT ?1)`)
	if err != nil {
		return err
	}
	defer q.Close()
	w.pinned = maxPins * 9 / 10
	if err := errors.Join(q.BindInt64(1, n-w.pinned), q.Exec()); err != nil {
		return err
	}
	w.unpinned = uint64(n - w.pinned)
	return nil
}

// rescue makes a block of the pinned rows of one that is to go; nil when there are none.
func (w *writer) rescue(t *tally, b *oldBlock) (*packed, error) {
	if t.stream == nil || t.stream.kept == nil || w.pinned == 0 {
		return nil, nil
	}
	eids, err := appendPinned(nil, w.sql.findPins, b.first, b.eid)
	if err != nil || len(eids) == 0 {
		return nil, err
	}
	h, err := newHead(t.stream, w.s.pool, &event.Selection{MaxEID: math.MaxInt64, From: math.MinInt64, To: math.MaxInt64})
	if err != nil {
		return nil, err
	}
	h.columns = make([]columnBuffer, len(t.stream.columns))
	rows := newBuilder(t.stream.kept, w.s.seed)
	err = w.readInto(rows, h, b.eid, eids)
	if errors.Is(err, errBlock) || err == nil && rows.rows == 0 {
		return nil, nil // a reader will report it; or they are numbers of other streams
	}
	if err != nil {
		return nil, err
	}
	for _, eid := range eids {
		if _, here := slices.BinarySearch(h.eids, eid); here {
			if err := errors.Join(w.sql.unpin.BindInt64(1, eid), w.sql.unpin.Exec()); err != nil {
				return nil, err
			}
			w.pinned--
		}
	}
	p := w.packer.pack(rows)
	return &p, nil
}

// appendPinned appends the numbers between two that are pinned; stmt may be nil.
func appendPinned(to []int64, stmt *sqlite3.Stmt, first, last int64) ([]int64, error) {
	if stmt == nil {
		return to, nil
	}
	defer stmt.Reset()
	if err := errors.Join(stmt.BindInt64(1, first), stmt.BindInt64(2, last)); err != nil {
		return to, err
	}
	for stmt.Step() {
		to = append(to, stmt.ColumnInt64(0))
	}
	return to, stmt.Err()
}

// without is c less the rows of a block that was made of them.
func (c kindCounts) without(p *packed) kindCounts {
	if p == nil {
		return c
	}
	left := append(kindCounts(nil), c...)
	for _, k := range p.span.kinds {
		for i := range left {
			if left[i].kind == k.kind {
				left[i].n -= min(k.n, left[i].n)
			}
		}
	}
	return left
}

// layoutText is how the layout numbered id is kept.
func (w *writer) layoutText(id int64) (string, error) {
	q, _, err := w.db.Prepare(`SELECT columns FROM layout WHERE id = ?1`)
	if err != nil {
		return "", err
	}
	defer q.Close()
	if err := q.BindInt64(1, id); err != nil {
		return "", err
	}
	if !q.Step() {
		return "", errors.Join(q.Err(), damaged("layout %d is not there", id))
	}
	return q.ColumnText(0), nil
}
