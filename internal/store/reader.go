package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	readCacheKB = 256 // blocks are read once, in order
	idleConns   = 2   // connections kept for the next scan; each is about 1 MB
)

// Reader reads a store that this process does not write: the agent may be writing it
// meanwhile, or none may be running. It implements event.Log.
type Reader struct{ pool *pool }

// OpenReader opens the store in dir for reading. It takes no lock.
func OpenReader(dir string) (*Reader, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	path := dbPath(dir)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open store %q: %w: start the agent first, or name its directory", dir, ErrMissing)
		}
		return nil, fmt.Errorf("open store: %w", classify(err))
	}
	locks := ""
	if f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil { // what fails, fails again below
		locks = lockVFS(f)
		f.Close()
	}
	p := newPool(path, locks, event.Kinds)
	p.readOnly = true
	c, err := p.get(context.Background())
	if err != nil {
		p.close()
		return nil, err
	}
	p.put(c)
	return &Reader{p}, nil
}

// Scan implements event.Log: it reads what is committed when it is called.
func (r *Reader) Scan(ctx context.Context, s event.Selection) (event.Cursor, error) {
	return scan(ctx, r.pool, s, present, math.MinInt64)
}

// Close frees what the reader holds. Cursors must be closed before.
func (r *Reader) Close() error { return r.pool.close() }

// pool holds connections for reading one database. It is safe for concurrent use.
type pool struct {
	path, vfs string
	readOnly  bool // a process apart: the database must exist and is not ours
	streams   []*stream
	byKind    []*stream
	// onCorrupt, if set, is told when SQLite finds the file damaged.
	onCorrupt func()
	// onDamaged, if set, is told of a block that cannot be read.
	onDamaged func(d directory, err error)

	mu     sync.Mutex
	idle   []*conn
	closed bool
	era    int // raised when the file was replaced: older connections are not used again
}

func newPool(path, vfs string, kinds []*event.Kind) *pool {
	p := &pool{path: path, vfs: vfs}
	p.streams, p.byKind = streamsOf(kinds)
	return p
}

// conn is one connection for reading, with what one scan needs to decode blocks.
type conn struct {
	db      *sqlite3.Conn
	next    *sqlite3.Stmt
	pinned  *sqlite3.Stmt // nil where nothing can be pinned: a reader hides nothing
	layouts map[layoutKey]*layout
	columns map[*stream][]columnBuffer
	block   block
	era     int
}

type layoutKey struct {
	id     int64
	stream *stream
}

// directory is a row of the directory of blocks.
type directory struct {
	stream string
	rows   int
	span   span
}

// nextSQL has a place for what else lets a block be of interest.
const nextSQL = `
SELECT b.last_eid, b.first_eid, b.rows, b.kinds, b.layout, d.columns, b.min_time, b.max_time
FROM block b JOIN data d ON d.last_eid = b.last_eid
WHERE b.stream = ?1 AND b.last_eid > ?2 AND b.first_eid <= ?3
	AND (b.max_time >= ?4 %s) AND b.min_time <= ?5 AND b.max_pid >= ?6 AND b.min_pid <= ?7
ORDER BY b.last_eid LIMIT 1`

// get returns a connection, which must be put back.
func (p *pool) get(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, fmt.Errorf("read store: %w", fs.ErrClosed)
	}
	era := p.era
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		c.db.SetInterrupt(ctx)
		return c, nil
	}
	p.mu.Unlock()
	c, err := p.open()
	if err != nil {
		return nil, p.failed(err)
	}
	c.era = era
	c.db.SetInterrupt(ctx)
	return c, nil
}

func (p *pool) open() (*conn, error) {
	how := readWrite // the wal-index must be writable, and the agent may write its own files
	if p.readOnly {
		how = readOnly
		// Without the agent's files beside it, SQLite would make them; where it may
		// not, nobody else can be writing either, and the file alone is complete.
		if err := makeFiles(p.path, p.vfs); err != nil {
			if _, err := os.Stat(p.path + "-wal"); errors.Is(err, fs.ErrNotExist) {
				how = immutable
			}
		}
	}
	db, err := openDB(p.path, p.vfs, how, readCacheKB)
	if err != nil {
		return nil, err
	}
	c := &conn{db: db, layouts: make(map[layoutKey]*layout), columns: make(map[*stream][]columnBuffer)}
	if err := c.setUp(p.path); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp(path string) error {
	app, format, _, err := identify(c.db)
	if err != nil {
		return err
	}
	if app != applicationID {
		return fmt.Errorf("%w: application id %#x", ErrCorrupt, app)
	}
	if format > formatVersion {
		return &NewerError{Path: path, Have: int(format), Known: formatVersion}
	}
	if err := c.db.Exec(`PRAGMA query_only=on`); err != nil {
		return err
	}
	orElse := ""
	if there, err := queryInt(c.db, `SELECT count(*) FROM sqlite_schema WHERE name = 'pin'`); err != nil {
		return err
	} else if there > 0 {
		// Old as the block is, rows in it may be pinned (?8: it matters).
		orElse = `OR ?8 AND EXISTS (SELECT 1 FROM pin WHERE eid BETWEEN b.first_eid AND b.last_eid)`
		if c.pinned, _, err = c.db.PrepareFlags(pinnedSQL, sqlite3.PREPARE_PERSISTENT); err != nil {
			return notOurs(err)
		}
	}
	if c.next, _, err = c.db.PrepareFlags(fmt.Sprintf(nextSQL, orElse), sqlite3.PREPARE_PERSISTENT); err != nil {
		return notOurs(err)
	}
	c.block.zstd, err = newDecoder()
	return err
}

// put takes a connection back.
func (p *pool) put(c *conn) {
	c.db.SetInterrupt(context.Background())
	c.next.Reset()
	for _, columns := range c.columns {
		for i := range columns {
			clear(columns[i].strings) // they keep the text of whole blocks
		}
	}
	p.mu.Lock()
	if !p.closed && c.era == p.era && len(p.idle) < idleConns {
		p.idle = append(p.idle, c)
		c = nil
	}
	p.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// renew makes sure that no connection to the file as it was is used for a new scan.
func (p *pool) renew() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.era++
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.renew()
	return nil
}

// failed makes of what SQLite says what a caller is told.
func (p *pool) failed(err error) error {
	if isCorrupt(err) && p.onCorrupt != nil {
		p.onCorrupt()
	}
	return fmt.Errorf("read %q: %w", p.path, classify(err))
}

func (c *conn) close() {
	if c.block.zstd != nil {
		c.block.zstd.Close()
	}
	closeDB(c.db)
}

// buffers returns what the columns of st are decoded into.
func (c *conn) buffers(st *stream) []columnBuffer {
	if c.columns[st] == nil {
		c.columns[st] = make([]columnBuffer, len(st.columns))
	}
	return c.columns[st]
}

// layout returns the layout numbered id, of a block of st.
func (c *conn) layout(id int64, st *stream) (*layout, error) {
	key := layoutKey{id, st}
	if l := c.layouts[key]; l != nil {
		return l, nil
	}
	s, _, err := c.db.Prepare(`SELECT columns FROM layout WHERE id = ?1 AND stream = ?2`)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := errors.Join(s.BindInt64(1, id), s.BindText(2, st.name)); err != nil {
		return nil, err
	}
	if !s.Step() {
		if err := s.Err(); err != nil {
			return nil, err
		}
		return nil, damaged("layout %d is not there", id)
	}
	l, err := parseLayout(st, s.ColumnText(0))
	if err == nil {
		c.layouts[key] = l
	}
	return l, err
}
