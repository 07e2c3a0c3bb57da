package table

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// streamed is a table whose rows are made while they are read: a LIMIT costs what it
// returns, and no list of all files of all packages is held in memory.
type streamed[T any] struct {
	def     *schema.Def
	columns []schema.Column[T]
	// scan calls yield with each row until that returns an error, which it returns.
	scan func(ctx context.Context, q *schema.Query, yield func(T) error) error
}

// errEnough ends a scan whose further rows nobody reads.
var errEnough = errors.New("enough rows")

func newStreamed[T any](name, doc string, columns []schema.Column[T]) *streamed[T] {
	return &streamed[T]{def: &schema.Def{Name: name, Doc: doc, Columns: schema.Defs(columns)}, columns: columns}
}

// Def implements schema.Relation.
func (t *streamed[T]) Def() *schema.Def { return t.def }

// Open implements schema.Relation.
func (t *streamed[T]) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	c := &streamCursor[T]{columns: t.columns, ctx: ctx}
	c.next, c.stop = iter.Pull(func(yield func(T) bool) {
		c.err = t.scan(ctx, q, func(row T) error {
			if ctx.Err() != nil || !yield(row) {
				return errEnough
			}
			return nil
		})
	})
	return c, nil
}

// streamCursor walks the rows of one scan of a streamed table.
type streamCursor[T any] struct {
	columns []schema.Column[T]
	ctx     context.Context
	next    func() (T, bool)
	stop    func()
	err     error
	at      T
}

// Next implements schema.Cursor.
func (c *streamCursor[T]) Next() (more bool, err error) {
	if c.at, more = c.next(); more {
		return true, nil
	}
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	return false, c.err
}

// Value implements schema.Cursor.
func (c *streamCursor[T]) Value(i int) schema.Value { return c.columns[i].Value(c.at) }

// Close implements schema.Cursor.
func (c *streamCursor[T]) Close() error { c.stop(); return nil }

// place is whose view of files a row comes from.
type place struct {
	pid   int64  // pid_with_namespace as asked for, 0 for the host
	mount string // mount namespace's inode number, "" for the host
}

func (s *scope) place() place { return place{s.pid, s.mount} }

// pidColumn and mountColumn are the hidden columns of a table that can look into containers.
func pidColumn[T any](of func(T) *place) schema.Column[T] {
	return schema.Int("pid_with_namespace", func(r T) *int64 { return &of(r).pid }, namespaceDoc, schema.Hidden, schema.Additional).As(schema.Integer)
}

func mountColumn[T any](of func(T) *place) schema.Column[T] {
	return schema.Str("mount_namespace_id", func(r T) *string { return &of(r).mount }, mountDoc, schema.Hidden)
}

// maxEntries bounds the names of one directory that are held in memory.
const maxEntries = 1 << 20

// entries returns the names in a directory, sorted; none when there is no such directory
// or it may not be read.
func (r root) entries(dir string) []string {
	fd, err := r.open(dir, true)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var out []string
	_ = names(fd, func(name string) bool { // what cannot be read is not there
		out = append(out, name)
		return len(out) < maxEntries
	})
	slices.Sort(out)
	return out
}

// stat is stat(2), or lstat(2) when follow is false.
func (r root) stat(path string, follow bool) (st unix.Stat_t, err error) {
	fd, err := r.open(path, follow)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, unix.Fstat(fd, &st)
}

func (r root) isDir(path string) bool {
	st, err := r.stat(path, true)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// isFile reports whether path is a regular file.
func (r root) isFile(path string) bool {
	st, err := r.stat(path, true)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// readHead returns the first n bytes of a regular file, or all of a shorter one.
func (r root) readHead(path string, n int) ([]byte, error) {
	at, err := r.open(path, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	fd, err := openRegular(at)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, n)
	have := 0
	for have < n {
		k, err := unix.Read(fd, buf[have:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			break
		}
		have += k
	}
	return buf[:have], nil
}

// match returns the paths that match a pattern in osquery's language, in order.
func (s *scope) match(ctx context.Context, q *schema.Query, table, pattern string) []string {
	var out []string
	f := finder{ctx: ctx, q: q, table: table, scope: s}
	f.glob(pattern, func(path string) bool {
		out = append(out, path)
		return len(out) < maxEntries
	})
	slices.Sort(out)
	return out
}

// sortedKeys are the keys of a set, in order.
func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }
