package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Why a line was not delivered.
const (
	ReasonBufferFull  = "buffer_full"   // more came than the logger took: Options.MaxLines, MaxBytes
	ReasonLineTooLong = "line_too_long" // the logger does not take lines of that size
)

// maxChunk is how many bytes of lines one row holds, unless one line alone is larger.
const maxChunk = 256 << 10

// stream is what is known of the lines waiting for one logger, in memory.
type stream struct {
	lines, bytes int64

	// What is in the logger's hands: rows up to an id, of which so much. It is not
	// dropped, and does not count against the bounds, or new lines would go instead.
	taken, takenLines, takenBytes int64

	added, delivered, full, long uint64
	ready                        chan struct{}
}

func (s *stream) counts(name string) []event.Count {
	out := []event.Count{
		{Source: name, What: event.Generated, N: s.added},
		{Source: name, What: event.Delivered, N: s.delivered},
	}
	if s.full > 0 {
		out = append(out, event.Count{Source: name, What: event.Lost, Reason: ReasonBufferFull, N: s.full})
	}
	if s.long > 0 {
		out = append(out, event.Count{Source: name, What: event.Lost, Reason: ReasonLineTooLong, N: s.long})
	}
	return out
}

func (d *DB) names() []string { return slices.Sorted(maps.Keys(d.streams)) }

// stream returns the stream of that name; d.mu is held.
func (d *DB) stream(name string) *stream {
	s := d.streams[name]
	if s == nil {
		s = &stream{ready: make(chan struct{}, 1)}
		d.streams[name] = s
	}
	return s
}

// count finds what was left by the process before.
func (d *DB) count() error {
	return d.run(`SELECT stream, sum(count), sum(length(data)) FROM line GROUP BY stream`, func(s *sqlite3.Stmt) error {
		st := d.stream(s.ColumnText(0))
		st.lines, st.bytes = s.ColumnInt64(1), s.ColumnInt64(2)
		st.added = uint64(st.lines)
		st.ready <- struct{}{}
		return nil
	})
}

// SetLimits changes the bounds of all streams, from the next change on.
func (d *DB) SetLimits(maxLines, maxBytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.o.MaxLines, d.o.MaxBytes = maxLines, maxBytes
}

// Ready returns a channel that holds a token when lines may wait in a stream.
func (d *DB) Ready(name string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stream(name).ready
}

// Waiting returns how many lines wait in a stream, and their bytes.
func (d *DB) Waiting(name string) (lines, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stream(name)
	return s.lines, s.bytes
}

// change returns the change of a stream in this transaction.
func (t *Tx) change(name string) *stream {
	s := t.moved[name]
	if s == nil {
		s = &stream{}
		t.moved[name] = s
	}
	return s
}

// Add puts lines, each of which ends in a newline, at the end of a stream.
func (t *Tx) Add(name string, lines []byte) error {
	for len(lines) > 0 {
		chunk := lines
		if len(chunk) > maxChunk {
			end := bytes.LastIndexByte(chunk[:maxChunk], '\n')
			if end < 0 {
				end = bytes.IndexByte(chunk, '\n')
			}
			chunk = chunk[:end+1]
		}
		lines = lines[len(chunk):]
		n := int64(bytes.Count(chunk, []byte{'\n'}))
		if n == 0 || chunk[len(chunk)-1] != '\n' {
			return fmt.Errorf("BUG: a line without an end")
		}
		if err := t.d.run(`INSERT INTO line (stream, count, data) VALUES (?, ?, ?)`, nil, name, n, chunk); err != nil {
			return fmt.Errorf("queue lines: %w", err)
		}
		c := t.change(name)
		c.lines += n
		c.bytes += int64(len(chunk))
		c.added += uint64(n)
	}
	return nil
}

// moveStreams takes over what the transaction has changed.
func (t *Tx) moveStreams() {
	for name, c := range t.moved {
		s := t.d.stream(name)
		s.lines += c.lines
		s.bytes += c.bytes
		s.added += c.added
		s.delivered += c.delivered
		s.full += c.full
		s.long += c.long
		if c.added > 0 {
			select {
			case s.ready <- struct{}{}:
			default:
			}
		}
		if c.full > 0 {
			t.d.o.Warn(fmt.Sprintf("Purging buffered logs limit (%d) exceeded: %d lines of %s dropped", t.d.o.MaxLines, c.full, name))
		}
	}
}

// trim drops the oldest lines of streams that have grown over their bounds.
func (t *Tx) trim() error {
	o := &t.d.o
	for name, c := range t.moved {
		if c.added == 0 {
			continue
		}
		s := t.d.stream(name)
		for {
			lines, size := s.lines+c.lines-s.takenLines, s.bytes+c.bytes-s.takenBytes
			over := int64(0)
			if o.MaxLines > 0 {
				over = lines - o.MaxLines
			}
			overBytes := int64(0)
			if o.MaxBytes > 0 {
				overBytes = size - o.MaxBytes
			}
			if over <= 0 && overBytes <= 0 {
				break
			}
			dropped, err := t.drop(name, s.taken, over, overBytes)
			if err != nil {
				return fmt.Errorf("drop lines: %w", err)
			}
			if dropped.lines == 0 {
				break
			}
			c.lines -= dropped.lines
			c.bytes -= dropped.bytes
			c.full += uint64(dropped.lines)
		}
	}
	return nil
}

// drop removes the first lines of the oldest row beyond taken, as many as are too many.
func (t *Tx) drop(name string, taken, lines, size int64) (gone stream, err error) {
	var id, count int64
	var data []byte
	err = t.d.run(`SELECT id, count, data FROM line WHERE stream=? AND id>? ORDER BY id LIMIT 1`, func(s *sqlite3.Stmt) error {
		id, count, data = s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnBlob(2, nil)
		return nil
	}, name, taken)
	if err != nil || id == 0 {
		return gone, err
	}
	rest := data
	for len(rest) > 0 && (gone.lines < lines || gone.bytes < size) {
		end := bytes.IndexByte(rest, '\n') + 1
		rest = rest[end:]
		gone.lines++
		gone.bytes += int64(end)
	}
	return gone, t.keep(id, count-gone.lines, rest)
}

// keep makes data all that is left of a row.
func (t *Tx) keep(id, count int64, data []byte) error {
	if len(data) == 0 {
		return t.d.run(`DELETE FROM line WHERE id=?`, nil, id)
	}
	return t.d.run(`UPDATE line SET count=?, data=? WHERE id=?`, nil, count, data, id)
}

// Batch is the oldest lines of a stream, as Take gave them.
type Batch struct {
	Stream string
	Lines  []byte
	Count  int

	last int64 // id of the last row that lines come from
	left []byte
	rest int64 // lines left in it
}

var errEnough = errors.New("enough")

// Take returns the oldest lines of a stream, at most maxLines and, unless the first alone is
// larger, maxBytes. They stay until Done. One logger takes from a stream.
func (d *DB) Take(name string, maxLines, maxBytes int) (b Batch, err error) {
	b.Stream = name
	err = d.view(func(t *Tx) error {
		err := d.run(`SELECT id, count, data FROM line WHERE stream=? ORDER BY id`, func(s *sqlite3.Stmt) error {
			data := s.ColumnRawBlob(2)
			count := int(s.ColumnInt64(1))
			if b.Count+count <= maxLines && len(b.Lines)+len(data) <= maxBytes {
				b.last, b.left, b.rest = s.ColumnInt64(0), nil, 0
				b.Lines = append(b.Lines, data...)
				b.Count += count
				return nil
			}
			taken := 0
			for len(data) > 0 && b.Count < maxLines {
				end := bytes.IndexByte(data, '\n') + 1
				if len(b.Lines)+end > maxBytes && b.Count > 0 {
					break
				}
				b.Lines = append(b.Lines, data[:end]...)
				data = data[end:]
				b.Count++
				taken++
			}
			if taken > 0 {
				b.last, b.left, b.rest = s.ColumnInt64(0), bytes.Clone(data), int64(count-taken)
			}
			return errEnough
		}, name)
		if err == errEnough {
			err = nil
		}
		s := d.stream(name)
		s.taken, s.takenLines, s.takenBytes = b.last, int64(b.Count), int64(len(b.Lines))
		return err
	})
	if err != nil {
		return b, fmt.Errorf("take lines: %w", err)
	}
	return b, nil
}

// Done removes the lines of a batch. They are delivered, but for tooLong of them, which the
// logger did not take. also is done in the same transaction; it may be nil.
func (d *DB) Done(b Batch, tooLong int, also func(*Tx) error) error {
	err := d.Update(false, func(t *Tx) error {
		if err := d.run(`DELETE FROM line WHERE stream=? AND id<?`, nil, b.Stream, b.last); err != nil {
			return err
		}
		if err := t.keep(b.last, b.rest, b.left); err != nil {
			return err
		}
		c := t.change(b.Stream)
		c.lines -= int64(b.Count)
		c.bytes -= int64(len(b.Lines))
		c.delivered += uint64(b.Count - tooLong)
		c.long += uint64(tooLong)
		if also == nil {
			return nil
		}
		return also(t)
	})
	if err != nil {
		return fmt.Errorf("remove delivered lines: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stream(b.Stream)
	s.takenLines, s.takenBytes = 0, 0
	if s.lines == 0 && d.db != nil {
		// A flood leaves many free pages, which nothing else would give back.
		_ = d.run(`PRAGMA incremental_vacuum(4096)`, nil)
	}
	return nil
}

// Again returns a channel that takes a token for Ready: lines wait that were not taken.
func (d *DB) Again(name string) chan<- struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stream(name).ready
}
