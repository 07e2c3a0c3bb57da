// Package state is the daemon's memory on disk: small values, the last results of scheduled
// queries, and finished log lines until a logger has taken them. What belongs together is
// changed in one transaction, so that a kill at any moment leaves all of it or nothing.
//
// It is one SQLite database and one connection, which calls take in turn. It must never
// know what a query, a log line or a server is.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/goshawk-project/goshawk/internal/event"
)

const (
	fileName = "state.db"
	// applicationID marks the file as ours: "GHWS".
	applicationID = 0x47485753
	formatVersion = 1
	cacheKB       = 2048
	maxBlob       = 64 << 20
)

const schemaSQL = `
CREATE TABLE value (
	domain TEXT NOT NULL,
	key TEXT NOT NULL,
	value TEXT NOT NULL,
	PRIMARY KEY (domain, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE line (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	stream TEXT NOT NULL,
	count INTEGER NOT NULL,
	data BLOB NOT NULL
) STRICT;
CREATE INDEX line_stream ON line (stream, id);
CREATE TABLE result (
	query TEXT NOT NULL,
	hash BLOB NOT NULL,
	count INTEGER NOT NULL,
	row BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX result_hash ON result (query, hash);
`

// Options say where the database is and what it may keep.
type Options struct {
	Dir string // "": in memory
	// MaxLines and MaxBytes bound what is kept for each stream of lines; 0 is no bound.
	MaxLines, MaxBytes int64
	// Warn takes a sentence for the operator; it must not block or call the database.
	Warn func(string)
}

// NewerError says that the database has a format that this program does not know.
type NewerError struct {
	Path string
	Have int64
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("open %q: written by a newer goshawk (format %d, this one knows %d): install that version, or move the file away", e.Path, e.Have, formatVersion)
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	o Options

	mu      sync.Mutex
	db      *sqlite3.Conn // nil once closed
	stmts   map[string]*sqlite3.Stmt
	full    bool // synchronous=full is set
	streams map[string]*stream
}

// Open opens the database in o.Dir, which the caller has locked, or makes one. A damaged one
// is moved aside, with a warning: the host then enrols anew, and queries begin anew.
func Open(o Options) (*DB, error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	d := &DB{o: o, stmts: map[string]*sqlite3.Stmt{}, streams: map[string]*stream{}}
	err := d.open()
	if o.Dir != "" && (errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB)) {
		aside := fmt.Sprintf("%s.corrupt-%s", d.path(), time.Now().UTC().Format("20060102T150405.000Z"))
		o.Warn(fmt.Sprintf("state: %q is damaged (%v): moved to %q; queries and enrolment begin anew", d.path(), err, aside))
		if err := os.Rename(d.path(), aside); err != nil {
			return nil, fmt.Errorf("open state: %w", err)
		}
		for _, suffix := range [...]string{"-wal", "-shm"} {
			_ = os.Rename(d.path()+suffix, aside+suffix)
		}
		err = d.open()
	}
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return d, nil
}

func (d *DB) path() string { return filepath.Join(d.o.Dir, fileName) }

func (d *DB) open() (err error) {
	defer func() {
		if err != nil {
			d.shut()
		}
	}()
	name, flags := ":memory:", sqlite3.OPEN_READWRITE
	if d.o.Dir != "" {
		if err := makeFiles(d.path()); err != nil {
			return err
		}
		uri := url.URL{Scheme: "file", OmitHost: true, Path: d.path()}
		name, flags = uri.String(), flags|sqlite3.OPEN_URI
	}
	if d.db, err = sqlite3.OpenFlags(name, flags); err != nil {
		return err
	}
	d.db.Limit(sqlite3.LIMIT_LENGTH, maxBlob)
	if err = d.db.BusyTimeout(5 * time.Second); err != nil {
		return err
	}
	err = d.db.Exec(fmt.Sprintf(`PRAGMA cache_size=-%d; PRAGMA temp_store=memory; PRAGMA cell_size_check=on; PRAGMA trusted_schema=off;`, cacheKB))
	if err != nil {
		return err
	}
	if err = d.prepare(); err != nil {
		return err
	}
	return d.count()
}

// prepare brings the database to the present format.
func (d *DB) prepare() error {
	var app, format, tables int64
	for _, q := range [...]struct {
		sql string
		to  *int64
	}{{`PRAGMA application_id`, &app}, {`PRAGMA user_version`, &format}, {`SELECT count(*) FROM sqlite_schema`, &tables}} {
		s, _, err := d.db.Prepare(q.sql)
		if err != nil {
			return err
		}
		if s.Step() {
			*q.to = s.ColumnInt64(0)
		}
		err = s.Err()
		s.Close()
		if err != nil {
			return err
		}
	}
	switch {
	case app == 0 && tables == 0:
		if err := d.db.Exec(`PRAGMA page_size=4096; PRAGMA auto_vacuum=incremental;`); err != nil {
			return err
		}
	case app != applicationID:
		return fmt.Errorf("application id %#x: %w", app, sqlite3.NOTADB)
	case format > formatVersion:
		return &NewerError{d.path(), format}
	}
	// What was deleted may have been a key.
	err := d.db.Exec(`PRAGMA journal_mode=wal; PRAGMA synchronous=normal; PRAGMA journal_size_limit=4194304; PRAGMA wal_autocheckpoint=1000; PRAGMA secure_delete=fast;`)
	if err != nil || tables > 0 {
		return err
	}
	return d.db.Exec(fmt.Sprintf(`BEGIN IMMEDIATE; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;`, schemaSQL, applicationID, formatVersion))
}

// makeFiles makes the files of the database, empty, for this user only: SQLite would give
// its own the mode that the umask leaves.
func makeFiles(path string) error {
	for _, suffix := range [...]string{"", "-wal", "-shm"} {
		f, err := os.OpenFile(path+suffix, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.Mode().Perm() != 0o600 {
			err = f.Chmod(0o600)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// shut closes the connection with its statements.
func (d *DB) shut() error {
	if d.db == nil {
		return nil
	}
	for _, s := range d.stmts {
		s.Close()
	}
	clear(d.stmts)
	err := d.db.Close()
	d.db = nil
	return err
}

// Close closes the database; calls that follow fail with fs.ErrClosed.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shut()
}

// stmt returns a prepared statement, with nothing bound.
func (d *DB) stmt(sql string) (*sqlite3.Stmt, error) {
	if s := d.stmts[sql]; s != nil {
		return s, nil
	}
	s, _, err := d.db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	if err != nil {
		return nil, err
	}
	d.stmts[sql] = s
	return s, nil
}

// run executes sql with args (string, []byte or int64) and hands each row to row, which may
// be nil.
func (d *DB) run(sql string, row func(*sqlite3.Stmt) error, args ...any) error {
	s, err := d.stmt(sql)
	if err != nil {
		return err
	}
	defer s.ClearBindings()
	defer s.Reset() // repeats the error of Step
	for i, a := range args {
		switch a := a.(type) {
		case string:
			err = s.BindText(i+1, a)
		case []byte:
			err = s.BindBlob(i+1, a)
		case int64:
			err = s.BindInt64(i+1, a)
		default:
			panic(fmt.Sprintf("BUG: %T as an argument", a))
		}
		if err != nil {
			return err
		}
	}
	for s.Step() {
		if row == nil {
			continue
		}
		if err := row(s); err != nil {
			return err
		}
	}
	return s.Err()
}

// Tx is a change under way; it ends with the function that it was given to.
type Tx struct {
	d     *DB
	moved map[string]*stream // of the streams that lines were added to or taken from
}

// Update runs f in a transaction, which is undone when f fails. It is there after a kill of
// the process, and, when durable is set, after the power fails.
func (d *DB) Update(durable bool, f func(*Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return fmt.Errorf("change state: %w", fs.ErrClosed)
	}
	if durable != d.full {
		mode := "normal"
		if durable {
			mode = "full"
		}
		if err := d.db.Exec("PRAGMA synchronous=" + mode); err != nil {
			return fmt.Errorf("change state: %w", err)
		}
		d.full = durable
	}
	if err := d.run("BEGIN IMMEDIATE", nil); err != nil {
		return fmt.Errorf("change state: %w", err)
	}
	tx := &Tx{d: d, moved: map[string]*stream{}}
	err := f(tx)
	if err == nil {
		if err = tx.trim(); err == nil {
			if err = d.run("COMMIT", nil); err != nil {
				err = fmt.Errorf("change state: %w", err)
			}
		}
	}
	if err != nil {
		if !d.db.GetAutocommit() {
			_ = d.run("ROLLBACK", nil) // what failed first is the error
		}
		return err
	}
	tx.moveStreams()
	return nil
}

// Get returns a value; false when there is none.
func (t *Tx) Get(domain, key string) (value string, ok bool, err error) {
	err = t.d.run(`SELECT value FROM value WHERE domain=? AND key=?`, func(s *sqlite3.Stmt) error {
		value, ok = s.ColumnText(0), true
		return nil
	}, domain, key)
	return value, ok, err
}

// Put sets a value.
func (t *Tx) Put(domain, key, value string) error {
	return t.d.run(`INSERT INTO value (domain, key, value) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value=excluded.value`, nil, domain, key, value)
}

// Delete removes a value, if it is there.
func (t *Tx) Delete(domain, key string) error {
	return t.d.run(`DELETE FROM value WHERE domain=? AND key=?`, nil, domain, key)
}

// Pair is a value with its key.
type Pair struct{ Key, Value string }

// List returns the values of a domain, by key.
func (t *Tx) List(domain string) ([]Pair, error) {
	var out []Pair
	err := t.d.run(`SELECT key, value FROM value WHERE domain=? ORDER BY key`, func(s *sqlite3.Stmt) error {
		out = append(out, Pair{s.ColumnText(0), s.ColumnText(1)})
		return nil
	}, domain)
	return out, err
}

// Get returns a value; false when there is none.
func (d *DB) Get(domain, key string) (value string, ok bool, err error) {
	err = d.view(func(t *Tx) error {
		value, ok, err = t.Get(domain, key)
		return err
	})
	return value, ok, err
}

// List returns the values of a domain, by key.
func (d *DB) List(domain string) (list []Pair, err error) {
	err = d.view(func(t *Tx) error {
		list, err = t.List(domain)
		return err
	})
	return list, err
}

// Put sets a value.
func (d *DB) Put(domain, key, value string) error {
	return d.Update(false, func(t *Tx) error { return t.Put(domain, key, value) })
}

// Delete removes a value, if it is there.
func (d *DB) Delete(domain, key string) error {
	return d.Update(false, func(t *Tx) error { return t.Delete(domain, key) })
}

// view runs f, which only reads.
func (d *DB) view(f func(*Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.db == nil {
		return fmt.Errorf("read state: %w", fs.ErrClosed)
	}
	return f(&Tx{d: d})
}

// Counts returns what became of the lines of each stream.
func (d *DB) Counts() []event.Count {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []event.Count
	for _, name := range d.names() {
		out = append(out, d.streams[name].counts(name)...)
	}
	return out
}
