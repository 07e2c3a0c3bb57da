// Package store is the log of what happened: bounded, in the order of arrival, on disk.
//
// Events are kept as blocks of about a thousand rows of one native table, their columns
// encoded and compressed; the blocks are rows of one SQLite database, whose transactions,
// concurrent readers and page reuse are all that is used of it. What is stored of an
// event is what its columns say, so the package knows no kind by name; it must never know
// SQL as users write it, where events come from, or what is done with them.
//
// A Store owns its directory (one agent at a time), its connections and one goroutine,
// the writer. Memory is bounded: about 8 MB of events that the disk has not taken yet,
// and about 2 MB for each scan that is open.
package store

import (
	"context"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Why a row was not stored, or is no longer.
const (
	ReasonStoreFull = "store_full" // more came than the disk took
	ReasonDiskError = "disk_error" // the disk refused
	ReasonExpired   = "expired"    // older than Options.MaxAge
	ReasonRowsCap   = "rows_cap"   // more than Options.MaxRows came after it
	ReasonBytesCap  = "bytes_cap"  // room was needed: Options.MaxBytes
	ReasonDamaged   = "damaged"    // its block cannot be read back
	ReasonUnknown   = "unknown"    // no such kind, or the store is closed

	// ReasonPins is why events that were to outlive others do not: evicted, not lost.
	ReasonPins = "pins" // more were pinned than are remembered
)

const (
	commitDelay = time.Second
	retryDelay  = 10 * time.Second // at most, between attempts on a disk that refuses

	// Pending events are refused above these many bytes: the first bound is for kinds
	// that are not critical, so that a flood of them leaves room for those that are.
	pendingOther    = 4 << 20
	pendingCritical = 8 << 20
	// urgentBytes of pending events are written without waiting for commitDelay.
	urgentBytes = 1 << 20
)

// Options say where a store is and what it may keep. Zero bounds are no bounds.
type Options struct {
	Dir string
	// MaxAge hides events at once and removes their blocks with the next write.
	MaxAge time.Duration
	// MaxRows bounds the rows of each native table, give or take a block, so that a
	// flood of one does not push out another.
	MaxRows int64
	// MaxBytes bounds the database. While it is exceeded the oldest blocks go, first
	// those of tables with no critical kind as long as these take more than half.
	MaxBytes int64
	// LastingAge is MaxAge for events of lasting kinds and for pinned ones. While MaxBytes is
	// exceeded these go too, once they take more than an eighth of it.
	LastingAge time.Duration
	// Warn takes a sentence for the operator; it must not block or call the store.
	Warn func(string)
	// Now is time.Now unless set.
	Now func() time.Time

	vfs   string // of SQLite, for tests
	kinds []*event.Kind
}

// Store is an open store. Append is for one goroutine; all else is safe for concurrent
// use.
type Store struct {
	o      Options
	path   string
	pool   *pool
	writer *writer
	wake   chan struct{} // something waits to be written
	urgent chan struct{} // and not for a second
	quit   chan struct{}
	done   chan struct{} // the writer has left
	maxAge atomic.Int64  // ns

	mu        sync.Mutex
	tails     []*builder // by kind; kinds of one stream share one
	queue     []*builder // full blocks, oldest first
	spare     []*builder
	seed      maphash.Seed
	eid       int64 // given last
	committed int64 // all up to here are on disk, or counted as lost
	pending   int   // bytes in tails, queue and the writer's hands
	awake     bool  // the writer has been told since it looked
	failed    error // the last attempt to write; nil when it went well
	waiters   []waiter
	suspect   bool // a reader found the file damaged
	pins      []int64
	pinning   int // pins in the writer's hands
	closed    bool
	counts    counts
	stats     Stats
}

// waiter is a call of Commit.
type waiter struct {
	eid  int64
	done chan error // holds one
}

// Stats is the state of a store.
type Stats struct {
	LastEID      int64 // number given last
	CommittedEID int64 // all events up to here are on disk, or counted as lost
	Pending      int   // bytes of events that are not on disk yet
	Commits      uint64
	Merges       uint64
	Bytes        int64 // pages of the database in use
	Err          error // why the last write failed; nil when it went well
	Tables       []TableStats
}

// TableStats is what is kept of one native table.
type TableStats struct {
	Name         string
	Rows, Blocks int64
	Bytes        int64
}

// Open opens the store in o.Dir, making it when there is none, and starts its writer. A
// damaged database is moved aside, with a warning, and a new one begun. Errors: ErrLocked,
// ErrNewer, ErrDenied, ErrFull.
func Open(o Options) (*Store, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	o.Dir = dir
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.kinds == nil {
		o.kinds = event.Kinds
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	if o.vfs == "" {
		o.vfs = lockVFS(lock.file)
	}
	s := &Store{
		o: o, path: dbPath(dir), seed: maphash.MakeSeed(),
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	s.maxAge.Store(int64(o.MaxAge))
	s.pool = newPool(s.path, o.vfs, o.kinds)
	s.pool.onCorrupt = s.distrust
	s.pool.onDamaged = s.damaged
	s.writer, err = newWriter(s, lock)
	if err == nil {
		err = s.writer.open()
	}
	if err == nil {
		s.eid = max(lock.eid, s.writer.lastEID)
		s.committed = s.eid
		err = s.writer.reserve(s.eid)
	}
	if err != nil {
		s.writer.close()
		lock.close()
		return nil, fmt.Errorf("open store: %w", classify(err))
	}
	builders := make(map[*stream]*builder)
	s.tails = make([]*builder, len(s.pool.byKind))
	for id, st := range s.pool.byKind {
		if st == nil {
			continue
		}
		if builders[st] == nil {
			builders[st] = newBuilder(st, s.seed)
		}
		s.tails[id] = builders[st]
	}
	go s.writer.run()
	return s, nil
}

// Append numbers e and takes a copy of it into the log. It never waits for the disk: when
// that does not keep up, e is counted as lost, and has a number all the same. The strings
// of e must not change afterwards.
func (s *Store) Append(e event.Event) {
	h := e.Head()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eid++
	h.EID = s.eid
	s.counts.generated(h.Kind)
	if int(h.Kind) >= len(s.tails) || s.tails[h.Kind] == nil || s.closed {
		s.counts.add(h.Kind, event.Lost, ReasonUnknown, 1)
		return
	}
	b := s.tails[h.Kind]
	if reflect.TypeOf(e) != b.stream.of {
		panic(fmt.Sprintf("BUG: %T as an event of kind %s", e, h.Kind))
	}
	bound := pendingOther
	if b.stream.critical {
		bound = pendingCritical
	}
	if s.pending >= bound {
		reason := ReasonStoreFull
		if s.failed != nil {
			reason = ReasonDiskError
		}
		s.counts.add(h.Kind, event.Lost, reason, 1)
		return
	}
	before := b.bytes
	b.add(h)
	s.pending += b.bytes - before
	if b.full() {
		s.seal(b)
	}
	if !s.awake {
		s.awake = true
		notify(s.wake)
	}
	if s.pending >= urgentBytes && s.failed == nil {
		notify(s.urgent)
	}
}

// seal puts a tail into the queue and an empty builder in its place.
func (s *Store) seal(b *builder) {
	next := (*builder)(nil)
	for i, have := range s.spare {
		if have.stream == b.stream {
			next = have
			s.spare = append(s.spare[:i], s.spare[i+1:]...)
			break
		}
	}
	if next == nil {
		next = newBuilder(b.stream, s.seed)
	}
	for i := range s.tails {
		if s.tails[i] == b {
			s.tails[i] = next
		}
	}
	s.queue = append(s.queue, b)
}

// Commit makes all events appended so far durable and visible to scans. It returns early,
// with the reason, when the disk refuses or ctx ends; the events are kept and tried again.
func (s *Store) Commit(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("commit events: %w", fs.ErrClosed)
	}
	if s.committed == s.eid {
		s.mu.Unlock()
		return nil
	}
	w := waiter{eid: s.eid, done: make(chan error, 1)}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	notify(s.wake)
	notify(s.urgent)
	select {
	case err := <-w.done:
		if err != nil {
			return fmt.Errorf("commit events: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("commit events: %w", ctx.Err())
	}
}

// Scan implements event.Log: it reads what is committed when it is called, in the order
// of eid. The cursor must be closed before the store.
func (s *Store) Scan(ctx context.Context, sel event.Selection) (event.Cursor, error) {
	cutoff := int64(math.MinInt64)
	if s.maxAge.Load() > 0 {
		cutoff = s.cutoff()
	}
	s.mu.Lock()
	committed := s.committed
	s.mu.Unlock()
	return scan(ctx, s.pool, sel, committed, cutoff)
}

// cutoff is the time before which events have expired, in unix ns.
func (s *Store) cutoff() int64 { return s.o.Now().UnixNano() - s.maxAge.Load() }

// SetMaxAge changes Options.MaxAge from now on.
func (s *Store) SetMaxAge(d time.Duration) { s.maxAge.Store(int64(d)) }

// Counts returns what the store did with events, by kind. For each kind generated =
// delivered + lost, but for what is pending; expired and removed rows are among those
// delivered.
func (s *Store) Counts() []event.Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts.list()
}

// Stats returns the present state.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.LastEID, st.CommittedEID, st.Pending, st.Err = s.eid, s.committed, s.pending, s.failed
	st.Tables = append([]TableStats(nil), st.Tables...)
	return st
}

// Close commits what is pending, ends the writer and gives the directory free. The error
// says that events were lost, which are counted.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.quit)
	<-s.done
	s.pool.close()
	return s.writer.leave()
}

// distrust makes the writer check the file.
func (s *Store) distrust() {
	s.mu.Lock()
	s.suspect = true
	s.mu.Unlock()
	notify(s.wake)
}

// damaged counts and reports a block that cannot be read, once.
func (s *Store) damaged(d directory, err error) {
	s.mu.Lock()
	first := s.counts.damaged(d)
	s.mu.Unlock()
	if first {
		s.o.Warn(fmt.Sprintf("store: %d rows of %s (eid %d to %d) cannot be read: %v", d.rows, d.stream, d.span.firstEID, d.span.lastEID, err))
	}
}

// notify wakes whoever receives from c, now or when it next looks.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
