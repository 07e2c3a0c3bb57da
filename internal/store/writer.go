package store

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	writeCacheKB = 1024
	walBytes     = 4 << 20 // of Options.MaxBytes are for the write-ahead log, begun anew after 2 MB
)

// writer is the goroutine that puts events on disk. All but s.mu's is its own.
type writer struct {
	s      *Store
	lock   *lockFile
	packer *packer
	block  block // for merging

	db       *sqlite3.Conn // nil when there is none that works
	file     os.FileInfo   // of the database that db has open
	sql      statements
	layouts  map[*stream]int64
	tallies  []*tally // by name
	lastEID  int64    // of the blocks found when opened
	blocks   []packed // not on disk yet, oldest first
	pins     []int64  // not on disk yet
	pinned   int64    // those on disk
	unpinned uint64   // let go by the transaction under way
	retry    time.Duration
	leftover error // what Close tells

	unreserved bool // the last attempt to set numbers aside failed
}

// statements are those of the writer, prepared.
type statements struct {
	insertBlock, insertData, deleteBlock, deleteData, oldest, readBlock, pages, free, pin, unpin, findPins *sqlite3.Stmt
}

func newWriter(s *Store, lock *lockFile) (*writer, error) {
	w := &writer{s: s, lock: lock}
	var err error
	if w.packer, err = newPacker(); err != nil {
		return w, err
	}
	w.block.zstd, err = newDecoder()
	return w, err
}

// run writes until the store is closed. It sleeps, without a timer, while there is
// nothing to write.
func (w *writer) run() {
	defer close(w.s.done)
	timer := time.NewTimer(commitDelay)
	timer.Stop()
	for again := false; ; {
		if !again {
			select {
			case <-w.s.wake:
			case <-w.s.quit:
				w.flush()
				return
			}
		}
		timer.Reset(max(commitDelay, w.retry))
		select {
		case <-timer.C:
		case <-w.s.urgent:
		case <-w.s.quit:
			w.flush()
			return
		}
		timer.Stop()
		again = w.flush()
	}
}

// flush makes everything appended durable, then tidies up. It reports whether there is
// more to do although nobody may call.
func (w *writer) flush() (again bool) {
	s := w.s
	s.mu.Lock()
	s.awake = false
	for i := range s.tails {
		if b := s.tails[i]; b != nil && b.rows > 0 {
			s.seal(b)
		}
	}
	queue, waiters, eid, suspect := s.queue, s.waiters, s.eid, s.suspect
	w.pins = append(w.pins, s.pins...)
	s.pinning = len(w.pins)
	s.queue, s.waiters, s.suspect, s.pins = nil, nil, false, nil
	s.mu.Unlock()

	if eid > w.lock.eid-eidReserve/2 {
		err := w.reserve(eid)
		if err != nil && !w.unreserved {
			s.o.Warn(fmt.Sprintf("store: set event numbers aside: %v", err))
		}
		w.unreserved = err != nil
	}
	w.pack(queue)
	if suspect {
		w.check()
	}
	more, err := w.write()
	if err != nil {
		w.failed(err)
	} else {
		w.succeeded(eid)
		w.publish()
	}
	for _, c := range waiters {
		c.done <- err
	}
	if err != nil {
		w.leftover = err
		return true
	}
	w.leftover = nil
	w.tidy()
	w.publish()
	return more
}

// pack encodes full builders, which shrinks what is pending.
func (w *writer) pack(queue []*builder) {
	s := w.s
	for _, b := range queue {
		p := w.packer.pack(b)
		w.blocks = append(w.blocks, p)
		shrunk := b.bytes - p.size()
		b.reset()
		s.mu.Lock()
		s.pending -= shrunk
		if len(s.spare) < 2*len(s.pool.streams) {
			s.spare = append(s.spare, b)
		}
		s.mu.Unlock()
	}
}

// size is what a block that waits takes.
func (p *packed) size() int { return len(p.data) + 256 }

// succeeded records that everything up to eid is on disk or counted.
func (w *writer) succeeded(eid int64) {
	s := w.s
	s.mu.Lock()
	for i := range w.blocks {
		s.pending -= w.blocks[i].size()
		s.counts.addAll(w.blocks[i].span.kinds, event.Delivered, "")
	}
	s.pinning = 0
	s.committed = eid
	s.stats.Commits++
	recovered := s.failed != nil
	s.failed = nil
	s.mu.Unlock()
	if recovered {
		s.o.Warn("store: the disk takes events again")
	}
	w.blocks, w.pins, w.retry = nil, nil, 0
}

// failed records why nothing could be written.
func (w *writer) failed(err error) {
	s := w.s
	s.mu.Lock()
	first := s.failed == nil
	s.failed = err
	pending := s.pending
	s.mu.Unlock()
	if first {
		s.o.Warn(fmt.Sprintf("store: cannot write events, keeping up to %d MB in memory (%d kB now): %v", pendingCritical>>20, pending>>10, err))
	}
	w.retry = min(max(2*w.retry, commitDelay), retryDelay)
}

// reserve sets event numbers above eid aside.
func (w *writer) reserve(eid int64) error { return w.lock.write(eid + eidReserve) }

// open opens the database, or makes one; a damaged one it moves aside first. It fills in
// the tallies.
func (w *writer) open() error {
	err := w.tryOpen()
	if !isCorrupt(err) {
		return err
	}
	if err := w.moveAside(err); err != nil {
		return err
	}
	return w.tryOpen()
}

func (w *writer) moveAside(cause error) error {
	w.abandon()
	w.s.pool.renew()
	to, err := quarantine(w.s.path, w.s.o.Now())
	if err != nil {
		return fmt.Errorf("move damaged store aside: %w", err)
	}
	w.s.o.Warn(fmt.Sprintf("store: %q is damaged and was moved to %q; a new one is begun: %v", w.s.path, to, cause))
	return nil
}

func (w *writer) tryOpen() (err error) {
	defer func() {
		if err != nil {
			w.abandon()
		}
	}()
	path := w.s.path
	if err := makeFiles(path, w.s.o.vfs); err != nil {
		return err
	}
	if w.db, err = openDB(path, w.s.o.vfs, readWrite, writeCacheKB); err != nil {
		return err
	}
	if err := prepareDB(w.db, path, w.s.o.vfs); err != nil {
		return err
	}
	if err := makeFiles(path, w.s.o.vfs); err != nil { // SQLite may have made its own
		return err
	}
	if w.file, err = os.Stat(path); err != nil {
		return err
	}
	for _, q := range [...]struct {
		to  **sqlite3.Stmt
		sql string
	}{
		{&w.sql.insertBlock, `INSERT INTO block (stream, last_eid, first_eid, min_time, max_time, min_pid, max_pid, rows, bytes, kinds, layout)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`},
		{&w.sql.insertData, `INSERT INTO data (last_eid, columns) VALUES (?1, ?2)`},
		{&w.sql.deleteBlock, `DELETE FROM block WHERE stream = ?1 AND last_eid = ?2`},
		{&w.sql.deleteData, `DELETE FROM data WHERE last_eid = ?1`},
		{&w.sql.oldest, `SELECT last_eid, max_time, rows, bytes, kinds, first_eid FROM block WHERE stream = ?1 ORDER BY last_eid LIMIT 1`},
		{&w.sql.readBlock, `SELECT b.layout, d.columns FROM block b JOIN data d ON d.last_eid = b.last_eid WHERE b.stream = ?1 AND b.last_eid = ?2`},
		{&w.sql.pin, `INSERT OR IGNORE INTO pin (eid) VALUES (?1)`},
		{&w.sql.unpin, `DELETE FROM pin WHERE eid = ?1`},
		{&w.sql.findPins, pinnedSQL},
		{&w.sql.pages, `PRAGMA page_count`},
		{&w.sql.free, `PRAGMA freelist_count`},
	} {
		if *q.to, _, err = w.db.PrepareFlags(q.sql, sqlite3.PREPARE_PERSISTENT); err != nil {
			return notOurs(err)
		}
	}
	if w.lastEID, err = queryInt(w.db, `SELECT max(last_eid) FROM data`); err != nil {
		return err
	}
	if w.pinned, err = queryInt(w.db, `SELECT count(*) FROM pin`); err != nil {
		return err
	}
	if err := w.loadLayouts(); err != nil {
		return err
	}
	return w.loadTallies()
}

// notOurs calls a database damaged whose tables are not those expected: SQLite reports
// them missing with its most general code.
func notOurs(err error) error {
	if errors.Is(err, sqlite3.ERROR) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// abandon gives up the connection; the next write opens another.
func (w *writer) abandon() {
	closeDB(w.db)
	w.db, w.sql = nil, statements{}
}

// write puts w.blocks and what the bounds demand into one transaction. It reports whether
// the bounds demand more.
func (w *writer) write() (more bool, err error) {
	if w.db != nil {
		if now, err := os.Stat(w.s.path); err != nil || !os.SameFile(now, w.file) {
			w.s.o.Warn(fmt.Sprintf("store: %q was removed; a new one is begun", w.s.path))
			w.abandon()
			w.s.pool.renew()
		}
	}
	for attempt := 1; ; attempt++ {
		more, err = w.tryWrite()
		if err == nil {
			return more, nil
		}
		w.abandon() // the tallies may be ahead of the disk
		if !isCorrupt(err) || attempt > 1 {
			return false, classify(err)
		}
		if err := w.moveAside(err); err != nil {
			return false, classify(err)
		}
	}
}

func (w *writer) tryWrite() (more bool, err error) {
	if w.db == nil {
		if err := w.open(); err != nil {
			return false, err
		}
	}
	if err := w.db.Exec(`BEGIN IMMEDIATE`); err != nil {
		return false, err
	}
	for i := range w.blocks {
		p := &w.blocks[i]
		added, err := w.insert(p)
		if err != nil {
			return false, err
		}
		if added {
			w.tally(p.stream.name).append(p)
		}
	}
	if err := w.writePins(); err != nil {
		return false, err
	}
	removed, more, err := w.expire()
	if err != nil {
		return false, err
	}
	if err := w.db.Exec(`COMMIT`); err != nil {
		return false, err
	}
	w.s.mu.Lock()
	w.s.evictPins(w.unpinned)
	for _, r := range removed {
		w.s.counts.addAll(r.kinds, event.Expired, r.reason)
	}
	w.s.mu.Unlock()
	return more, nil
}

// insert adds a block to the database. It reports false when the block was there: a commit
// that failed at its very end, as when syncing did, may have happened nevertheless. Then
// it is written again, for it may not be on disk.
func (w *writer) insert(p *packed) (added bool, err error) {
	layout, err := w.layout(p.stream)
	if err != nil {
		return false, err
	}
	there, err := w.has(p)
	if err != nil {
		return false, err
	}
	if there {
		if err := w.remove(p.stream.name, p.span.lastEID); err != nil {
			return false, err
		}
	}
	q := w.sql.insertBlock
	n := p.span
	err = q.BindText(1, p.stream.name)
	for i, v := range [...]int64{n.lastEID, n.firstEID, n.minTime, n.maxTime, n.minPID, n.maxPID, int64(p.rows), int64(len(p.data))} {
		err = errors.Join(err, q.BindInt64(i+2, v))
	}
	err = errors.Join(err, q.BindBlob(10, n.kinds.text()), q.BindInt64(11, layout))
	if err == nil {
		err = q.Exec()
	}
	if err != nil {
		return false, err
	}
	q = w.sql.insertData
	if err := errors.Join(q.BindInt64(1, n.lastEID), q.BindBlob(2, p.data)); err != nil {
		return false, err
	}
	return !there, q.Exec()
}

// has reports whether a block is in the database. None is that is newer than those found
// when it was opened.
func (w *writer) has(p *packed) (bool, error) {
	if p.span.lastEID > w.lastEID {
		return false, nil
	}
	q := w.sql.readBlock
	defer q.Reset()
	if err := errors.Join(q.BindText(1, p.stream.name), q.BindInt64(2, p.span.lastEID)); err != nil {
		return false, err
	}
	return q.Step(), q.Err()
}

// remove deletes a block from the database.
func (w *writer) remove(stream string, lastEID int64) error {
	if err := errors.Join(w.sql.deleteBlock.BindText(1, stream), w.sql.deleteBlock.BindInt64(2, lastEID), w.sql.deleteData.BindInt64(1, lastEID)); err != nil {
		return err
	}
	if err := w.sql.deleteBlock.Exec(); err != nil {
		return err
	}
	return w.sql.deleteData.Exec()
}

// layout returns the number of the present layout of st.
func (w *writer) layout(st *stream) (int64, error) {
	if id := w.layouts[st]; id != 0 {
		return id, nil
	}
	q, _, err := w.db.Prepare(`INSERT INTO layout (stream, columns) VALUES (?1, ?2)`)
	if err != nil {
		return 0, err
	}
	defer q.Close()
	if err := errors.Join(q.BindText(1, st.name), q.BindText(2, st.layout)); err != nil {
		return 0, err
	}
	if err := q.Exec(); err != nil {
		return 0, err
	}
	w.layouts[st] = w.db.LastInsertRowID()
	return w.layouts[st], nil
}

func (w *writer) loadLayouts() error {
	w.layouts = make(map[*stream]int64)
	q, _, err := w.db.Prepare(`SELECT id, stream, columns FROM layout`)
	if err != nil {
		return err
	}
	defer q.Close()
	for q.Step() {
		stream, columns := q.ColumnText(1), q.ColumnText(2)
		for _, st := range w.s.pool.streams {
			if st.name == stream && st.layout == columns {
				w.layouts[st] = q.ColumnInt64(0)
			}
		}
	}
	return q.Err()
}

// check moves the database aside if SQLite finds it damaged.
func (w *writer) check() {
	if w.db == nil {
		return
	}
	q, _, err := w.db.Prepare(`PRAGMA quick_check(1)`)
	if err == nil {
		verdict := "ok"
		if q.Step() {
			verdict = q.ColumnText(0)
		}
		err = q.Err()
		q.Close()
		if err == nil && verdict == "ok" {
			return
		}
		if err == nil {
			err = fmt.Errorf("%w: %s", ErrCorrupt, verdict)
		}
	}
	if !isCorrupt(err) {
		return
	}
	if err := w.moveAside(err); err != nil {
		w.s.o.Warn("store: " + err.Error())
	}
}

// close frees what the writer holds, without writing.
func (w *writer) close() {
	w.abandon()
	if w.packer != nil {
		w.packer.close()
	}
	if w.block.zstd != nil {
		w.block.zstd.Close()
	}
}

// leave ends the writer after its goroutine has left.
func (w *writer) leave() error {
	s := w.s
	err := w.leftover
	s.mu.Lock()
	for i := range w.blocks {
		s.counts.addAll(w.blocks[i].span.kinds, event.Lost, ReasonDiskError)
	}
	s.evictPins(uint64(len(w.pins)))
	eid := s.eid
	s.mu.Unlock()
	if w.db != nil {
		_, _, ckpt := w.db.WALCheckpoint("", sqlite3.CHECKPOINT_TRUNCATE)
		err = errors.Join(err, ckpt)
	}
	w.close()
	err = errors.Join(err, w.lock.write(eid), w.lock.close())
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
