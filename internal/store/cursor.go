package store

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/goshawk-project/goshawk/internal/event"
)

// cursor merges the streams of a selection in the order of eid. It holds one block of
// each, and reads the next one in a transaction of its own, so a reader that takes its
// time never keeps the write-ahead log from being reused.
type cursor struct {
	pool   *pool
	conn   *conn // nil when closed
	heads  []*head
	now    *head // where the event returned last came from
	loaded bool
	err    error
}

// present, as the bound of a scan, is the last event on disk.
const present = -1

// scan opens a cursor over the committed blocks up to maxEID. What is older than cutoff, in unix
// ns, has expired, unless it is to last.
func scan(ctx context.Context, p *pool, s event.Selection, maxEID, cutoff int64) (event.Cursor, error) {
	if s.To == 0 {
		s.To = math.MaxInt64
	}
	if s.From == 0 {
		s.From = math.MinInt64
	}
	conn, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	c := &cursor{pool: p, conn: conn}
	if maxEID == present {
		if maxEID, err = queryInt(conn.db, `SELECT max(last_eid) FROM data`); err != nil {
			c.Close()
			return nil, p.failed(err)
		}
	}
	if s.MaxEID == 0 || s.MaxEID > maxEID {
		s.MaxEID = maxEID
	}
	for _, st := range p.streams {
		h, err := newHead(st, p, &s)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("read store: %w", err)
		}
		if h != nil {
			h.columns = conn.buffers(st)
			if !st.lasting {
				h.cutoff = cutoff
			}
			c.heads = append(c.heads, h)
		}
	}
	return c, nil
}

// Next implements event.Cursor. The event belongs to the cursor: the caller must not
// change it. Its strings may be kept.
func (c *cursor) Next() (event.Event, error) {
	if c.err != nil || c.conn == nil {
		return nil, c.err
	}
	if !c.loaded {
		c.loaded = true
		for _, h := range c.heads {
			if c.err = c.load(h); c.err != nil {
				return nil, c.err
			}
		}
	} else if h := c.now; h != nil && h.at == len(h.rows) {
		if c.err = c.load(h); c.err != nil {
			return nil, c.err
		}
	}
	c.now = nil
	first := int64(math.MaxInt64)
	for _, h := range c.heads {
		if h.at < len(h.rows) {
			if eid := h.eids[h.rows[h.at]]; c.now == nil || eid < first {
				c.now, first = h, eid
			}
		}
	}
	if c.now == nil {
		return nil, nil
	}
	return c.now.next(), nil
}

// Close implements event.Cursor.
func (c *cursor) Close() error {
	if c.conn != nil {
		c.pool.put(c.conn)
		c.conn, c.heads, c.now = nil, nil, nil
	}
	return nil
}

// load reads blocks of h until one has a row that is wanted, or there is none left.
func (c *cursor) load(h *head) error {
	for {
		h.rows, h.at = h.rows[:0], 0
		more, err := c.step(h)
		if err != nil || !more || len(h.rows) > 0 {
			return err
		}
	}
}

// step reads one block of h; false when there is none left. A block that cannot be
// decoded is reported and passed over: the events around it are worth having.
func (c *cursor) step(h *head) (bool, error) {
	s := c.conn.next
	defer s.Reset()
	b := &h.bounds
	err := s.BindText(1, h.stream.name)
	for i, v := range [...]int64{h.after, b.maxEID, max(b.minTime, h.cutoff), b.maxTime, b.minPID, b.maxPID} {
		err = errors.Join(err, s.BindInt64(i+2, v))
	}
	if c.conn.pinned != nil {
		err = errors.Join(err, s.BindBool(8, h.cutoff > b.minTime))
	}
	if err != nil {
		return false, c.pool.failed(err)
	}
	if !s.Step() {
		if err := s.Err(); err != nil {
			if ctx := c.conn.db.GetInterrupt(); ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, c.pool.failed(err)
		}
		return false, nil
	}
	// The block may hold rows that were read before, when it is made of several.
	h.bounds.minEID, h.after = h.after, s.ColumnInt64(0)
	l, err := c.conn.layout(s.ColumnInt64(4), h.stream)
	if err == nil {
		err = c.conn.block.open(s.ColumnRawBlob(5), l)
	}
	first, minTime := s.ColumnInt64(1), s.ColumnInt64(6)
	h.pinned = h.pinned[:0]
	if err == nil && minTime < h.cutoff {
		h.pinned, err = appendPinned(h.pinned, c.conn.pinned, first, h.after)
	}
	if err == nil {
		err = h.decode(&c.conn.block, minTime >= h.cutoff && b.hold(first, h.after, minTime, s.ColumnInt64(7)))
	}
	if errors.Is(err, errBlock) {
		h.rows = h.rows[:0]
		if c.pool.onDamaged != nil {
			d := directory{stream: h.stream.name, rows: s.ColumnInt(2)}
			d.span.firstEID, d.span.lastEID = s.ColumnInt64(1), h.after
			d.span.kinds = parseKinds(s.ColumnRawBlob(3))
			c.pool.onDamaged(d, err)
		}
		return true, nil
	}
	if err != nil {
		return false, c.pool.failed(err)
	}
	return true, nil
}
