package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
)

const (
	dbName = "events.db"

	// applicationID marks the file as ours: "GHWK".
	applicationID = 0x4748574b
	// formatVersion is raised when a reader of the format before would go wrong. New
	// columns, kinds and tables need no such change.
	formatVersion = 1

	// maxBlob bounds one value that SQLite may read: the largest block, with room.
	maxBlob = 64 << 20
)

// A block is a row of `block`, the directory, with a row of `data`. Blocks of a stream
// do not overlap in eid, so last_eid orders them.
const schemaSQL = `
CREATE TABLE layout (
	id INTEGER PRIMARY KEY,
	stream TEXT NOT NULL,
	columns TEXT NOT NULL
) STRICT;
CREATE TABLE block (
	stream TEXT NOT NULL,
	last_eid INTEGER NOT NULL,
	first_eid INTEGER NOT NULL,
	min_time INTEGER NOT NULL,
	max_time INTEGER NOT NULL,
	min_pid INTEGER NOT NULL,
	max_pid INTEGER NOT NULL,
	rows INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	kinds BLOB NOT NULL,
	layout INTEGER NOT NULL,
	PRIMARY KEY (stream, last_eid)
) STRICT, WITHOUT ROWID;
CREATE TABLE data (
	last_eid INTEGER PRIMARY KEY,
	columns BLOB NOT NULL
) STRICT;
`

// access is how a database is opened.
type access int

const (
	readWrite access = iota
	readOnly
	immutable // nobody writes, and no file can be made beside it
)

// openDB opens the database at path and sets the connection up. vfs is for tests.
func openDB(path, vfs string, how access, cacheKB int) (*sqlite3.Conn, error) {
	query := url.Values{}
	flags := sqlite3.OPEN_URI
	switch how {
	case readWrite:
		flags |= sqlite3.OPEN_READWRITE
	case immutable:
		query.Set("immutable", "1")
		fallthrough
	case readOnly:
		flags |= sqlite3.OPEN_READONLY
	}
	if vfs == flockName {
		registerFlock()
	}
	if vfs != "" {
		query.Set("vfs", vfs)
	}
	uri := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	c, err := sqlite3.OpenFlags(uri.String(), flags)
	if err != nil {
		return nil, err
	}
	c.Limit(sqlite3.LIMIT_LENGTH, maxBlob)
	err = c.BusyTimeout(5 * time.Second)
	if err == nil {
		err = c.Exec(fmt.Sprintf(`PRAGMA cache_size=-%d; PRAGMA temp_store=memory; PRAGMA cell_size_check=on;`, cacheKB))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// makeFiles makes the files of the database, empty, for this user only: SQLite would give
// its own the mode that the umask leaves.
func makeFiles(path, vfs string) error {
	suffixes := []string{"", "-shm", "-wal"}
	if vfs == flockName {
		suffixes[2] = "-journal"
	}
	for _, suffix := range suffixes {
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

// prepareDB brings a database that the writer has opened to the present format.
func prepareDB(c *sqlite3.Conn, path, vfs string) error {
	app, format, tables, err := identify(c)
	if err != nil {
		return err
	}
	switch {
	case app == 0 && tables == 0:
		// auto_vacuum must come before the first table, and before WAL.
		if err := c.Exec(`PRAGMA page_size=4096; PRAGMA auto_vacuum=incremental;`); err != nil {
			return err
		}
	case app != applicationID:
		return fmt.Errorf("%w: application id %#x", ErrCorrupt, app)
	case format > formatVersion:
		return &NewerError{Path: path, Have: int(format), Known: formatVersion}
	}
	if err := c.Exec(`PRAGMA journal_mode=` + journalMode(vfs) + `; PRAGMA synchronous=full; PRAGMA journal_size_limit=2097152; PRAGMA wal_autocheckpoint=512; PRAGMA secure_delete=off;`); err != nil {
		return err
	}
	if tables > 0 {
		return c.Exec(pinSQL)
	}
	return c.Exec(fmt.Sprintf(`BEGIN IMMEDIATE; %s %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;`, schemaSQL, pinSQL, applicationID, formatVersion))
}

func identify(c *sqlite3.Conn) (app, format, tables int64, err error) {
	for _, q := range [...]struct {
		sql string
		to  *int64
	}{
		{`PRAGMA application_id`, &app},
		{`PRAGMA user_version`, &format},
		{`SELECT count(*) FROM sqlite_schema`, &tables},
	} {
		if *q.to, err = queryInt(c, q.sql); err != nil {
			return 0, 0, 0, err
		}
	}
	return app, format, tables, nil
}

// queryInt returns the first column of the first row; 0 when there is none.
func queryInt(c *sqlite3.Conn, sql string) (int64, error) {
	s, _, err := c.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var n int64
	if s.Step() {
		n = s.ColumnInt64(0)
	}
	return n, s.Err()
}

// closeDB closes c with its statements. A database that cannot be closed is left behind.
func closeDB(c *sqlite3.Conn) error {
	if c == nil {
		return nil
	}
	for _, s := range slices.Collect(c.Stmts()) {
		s.Close()
	}
	return c.Close()
}

// quarantine moves the files of the database aside and returns the new name.
func quarantine(path string, now time.Time) (string, error) {
	base := path + ".corrupt-" + now.UTC().Format("20060102T150405Z")
	to := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d", base, n)
	}
	if err := os.Rename(path, to); err != nil {
		return "", err
	}
	for _, suffix := range [...]string{"-wal", "-shm", "-journal"} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return to, err
		}
	}
	return to, nil
}

// makeDir makes the directory of the store.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make store: %w", classify(err))
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make store: %w", classify(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("make store: %q is no directory", dir)
	}
	return nil
}

func dbPath(dir string) string { return filepath.Join(dir, dbName) }
