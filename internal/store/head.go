package store

import (
	"fmt"
	"math"
	"slices"

	"github.com/goshawk-project/goshawk/internal/event"
)

// head is one stream within a scan: what is wanted of it, and the block in hand.
type head struct {
	stream *stream
	event  event.Event
	bounds bounds
	plan   plan
	after  int64 // the last eid of the block in hand
	cutoff int64 // rows from before are hidden, unless they are pinned
	pinned []int64

	columns []columnBuffer // by column of the stream
	rows    []int32        // rows of the block that are wanted
	at      int            // next of rows
	eids    []int64
	ints    []intCells  // columns that differ from row to row
	strs    []textCells // likewise
}

// columnBuffer holds a column of the block in hand. Buffers are used again for every
// block of the stream that a connection reads.
type columnBuffer struct {
	values  []int64 // for text, numbers of strings
	strings []string
	same    bool // all values are the same
	ready   bool // values are those of the block in hand
}

type intCells struct {
	cell   cell
	values []int64
}

type textCells struct {
	cell    cell
	values  []int64
	strings []string
}

// plan is what a scan does with the columns of a stream, by their index.
type plan struct {
	filters []filter
	fill    []int
}

type filter struct {
	column int
	values []int64 // sorted
}

func (f *filter) passes(v int64) bool {
	if len(f.values) <= 8 {
		return slices.Contains(f.values, v)
	}
	_, ok := slices.BinarySearch(f.values, v)
	return ok
}

// bounds is what the directory of blocks can tell apart.
type bounds struct {
	minEID, maxEID   int64 // minEID is exclusive
	minTime, maxTime int64
	minPID, maxPID   int64
}

// hold reports whether a block lies within the bounds.
func (n *bounds) hold(firstEID, lastEID, minTime, maxTime int64) bool {
	return firstEID > n.minEID && lastEID <= n.maxEID && minTime >= n.minTime && maxTime <= n.maxTime
}

// newHead plans the scan of one stream; nil when nothing in it can be wanted.
func newHead(st *stream, p *pool, s *event.Selection) (*head, error) {
	h := &head{stream: st, after: s.AfterEID, cutoff: math.MinInt64}
	own := st
	if st.base != nil {
		own = st.base
	}
	h.bounds = bounds{s.AfterEID, s.MaxEID, s.From, s.To, math.MinInt64, math.MaxInt64}
	if s.Kinds != nil {
		var kinds []int64
		all := true
		for id, of := range p.byKind {
			if of != own {
				continue
			}
			if slices.Contains(s.Kinds, event.ID(id)) {
				kinds = append(kinds, int64(id))
			} else {
				all = false
			}
		}
		if kinds == nil {
			return nil, nil
		}
		if !all {
			h.plan.filters = append(h.plan.filters, filter{st.kind, kinds})
		}
	}
	for _, eq := range s.Equal {
		i := st.column(eq.Column)
		if i < 0 {
			if !p.known(eq.Column) {
				return nil, fmt.Errorf("no column %q", eq.Column)
			}
			return nil, nil // no event of this stream has it
		}
		if st.columns[i].Int == nil {
			return nil, fmt.Errorf("column %q holds no integers", eq.Column)
		}
		if len(eq.Values) == 0 {
			return nil, nil
		}
		values := slices.Sorted(slices.Values(eq.Values))
		h.plan.filters = append(h.plan.filters, filter{i, values})
		low, high := values[0], values[len(values)-1]
		b := &h.bounds
		switch i {
		case st.pid:
			b.minPID, b.maxPID = max(b.minPID, low), min(b.maxPID, high)
		case st.time:
			b.minTime, b.maxTime = max(b.minTime, low), min(b.maxTime, high)
		case st.eid:
			b.maxEID = min(b.maxEID, high)
			if low > b.minEID {
				b.minEID = low - 1
				h.after = b.minEID
			}
		}
	}
	for i := range st.columns {
		if s.Columns == nil || i == st.kind || i == st.eid || i == st.time || slices.Contains(s.Columns, st.columns[i].Name) {
			h.plan.fill = append(h.plan.fill, i)
		}
	}
	h.event = st.make()
	return h, nil
}

// decode picks the rows of a block that are wanted and, when there are any, reads the
// columns that are to be filled in. When all of the block is within the bounds, eid and
// time are not looked at before that.
func (h *head) decode(b *block, within bool) error {
	h.rows, h.at = h.rows[:0], 0
	h.ints, h.strs = h.ints[:0], h.strs[:0]
	for i := range h.columns {
		h.columns[i].ready = false
	}
	if within {
		for row := range b.rows {
			h.rows = append(h.rows, int32(row))
		}
	} else if err := h.cut(b); err != nil {
		return err
	}
	for _, f := range h.plan.filters {
		if len(h.rows) == 0 {
			return nil
		}
		c, err := h.read(b, f.column)
		if err != nil {
			return err
		}
		if c.same {
			if !f.passes(c.values[0]) {
				h.rows = h.rows[:0]
			}
			continue
		}
		kept := h.rows[:0]
		for _, row := range h.rows {
			if f.passes(c.values[row]) {
				kept = append(kept, row)
			}
		}
		h.rows = kept
	}
	if len(h.rows) == 0 {
		return nil
	}
	eids, err := h.read(b, h.stream.eid)
	if err != nil {
		return err
	}
	h.eids = eids.values
	for row := 1; row < len(h.eids); row++ {
		if h.eids[row] <= h.eids[row-1] {
			return damaged("eid %d after %d", h.eids[row], h.eids[row-1])
		}
	}
	return h.prepare(b)
}

// cut picks the rows within the bounds.
func (h *head) cut(b *block) error {
	eids, err := h.read(b, h.stream.eid)
	if err != nil {
		return err
	}
	times, err := h.read(b, h.stream.time)
	if err != nil {
		return err
	}
	n := &h.bounds
	for row, id := range eids.values {
		time := times.values[row]
		if id <= n.minEID || id > n.maxEID || time < n.minTime || time > n.maxTime {
			continue
		}
		if _, pinned := slices.BinarySearch(h.pinned, id); pinned || time >= h.cutoff {
			h.rows = append(h.rows, int32(row))
		}
	}
	return nil
}

// read decodes the numbers of a column, once for each block.
func (h *head) read(b *block, column int) (*columnBuffer, error) {
	c := &h.columns[column]
	if c.ready {
		return c, nil
	}
	var err error
	if c.values, c.same, err = b.ints(b.layout.at[column], c.values); err != nil {
		return nil, err
	}
	c.ready = true
	return c, nil
}

// prepare decodes the columns to be filled in. What is the same in all rows is set in the
// event at once, and no more.
func (h *head) prepare(b *block) error {
	if r, ok := h.event.(interface{ Reset() }); ok {
		r.Reset()
	} else {
		h.event = h.stream.make()
	}
	head := h.event.Head()
	for _, i := range h.plan.fill {
		cell := h.stream.cells[i]
		c, err := h.read(b, i)
		if err != nil {
			return err
		}
		if cell.form != formText {
			if c.same {
				cell.setInt(head, c.values[0])
			} else {
				h.ints = append(h.ints, intCells{cell, c.values})
			}
			continue
		}
		if c.strings, err = b.texts(b.layout.at[i], c.strings); err != nil {
			return err
		}
		if c.same {
			if uint64(c.values[0]) >= uint64(len(c.strings)) {
				return damaged("string %d of %d", c.values[0], len(c.strings))
			}
			cell.setText(head, c.strings[c.values[0]])
			continue
		}
		for _, n := range c.values {
			if uint64(n) >= uint64(len(c.strings)) {
				return damaged("string %d of %d", n, len(c.strings))
			}
		}
		h.strs = append(h.strs, textCells{cell, c.values, c.strings})
	}
	return nil
}

// next sets the event to the next of the rows that are wanted.
func (h *head) next() event.Event {
	row := h.rows[h.at]
	h.at++
	head := h.event.Head()
	for i := range h.ints {
		h.ints[i].cell.setInt(head, h.ints[i].values[row])
	}
	for i := range h.strs {
		t := &h.strs[i]
		t.cell.setText(head, t.strings[t.values[row]])
	}
	return h.event
}
