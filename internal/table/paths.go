package table

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/schema"
)

// pathTable is a table over the files that a query names: it scans nothing unless path or
// directory is constrained by =, IN or LIKE. Its cursor finds files as it goes, so LIMIT
// costs what it returns and no directory tree is held in memory.
//
// LIKE follows osquery's rules for patterns: % stands for any text within one directory
// level; %% at the end for everything below, at any depth. Three things differ from
// osquery, which leaves such files out though SQL would match them: names that begin with
// a dot are found, _ stands for any one character, and letters compare without case in a
// part that has a wildcard. A directory found by a pattern that ends in a wildcard is
// spelled with a slash at its end, as in osquery. Symbolic links to directories are
// followed except below %%, where they could lead in circles.
type pathTable[T any] struct {
	def     *schema.Def
	columns []schema.Column[T]
	env     *Env
	// row makes a row of a target, or reports that there is none; rows, where it is set, any number.
	row  func(q *schema.Query, t target) (T, bool)
	rows func(q *schema.Query, t target) []T
	// drop frees what a row holds; nil when that is nothing.
	drop func(T)
}

func newPathTable[T any](env *Env, name, doc string, columns []schema.Column[T]) *pathTable[T] {
	return &pathTable[T]{
		def:     &schema.Def{Name: name, Doc: doc, Columns: schema.Defs(columns)},
		columns: columns, env: env,
	}
}

// Def implements schema.Relation.
func (t *pathTable[T]) Def() *schema.Def { return t.def }

var errUnconstrained = errors.New("path or directory must be constrained by =, IN or LIKE")

// Open implements schema.Relation.
func (t *pathTable[T]) Open(ctx context.Context, q *schema.Query) (schema.Cursor, error) {
	search := t.search(q)
	if search == nil {
		return nil, errUnconstrained
	}
	scopes, err := t.env.scopes(t.def, q)
	if err != nil {
		return nil, err
	}
	next, stop := iter.Pull(func(yield func(target) bool) {
		for _, s := range scopes {
			f := finder{ctx: ctx, q: q, table: t.def.Name, scope: s, yield: yield}
			search(&f)
			if f.stopped {
				return
			}
		}
	})
	return &pathCursor[T]{table: t, ctx: ctx, q: q, scopes: scopes, next: next, stop: stop}, nil
}

// search returns what to look for in a scope: named files, named directories, or a
// pattern of either, in this order, for the narrowest constraint is the cheapest. SQL
// checks the others. nil when there is none.
func (t *pathTable[T]) search(q *schema.Query) func(*finder) {
	path, directory := t.def.Column("path"), t.def.Column("directory")
	dirs, byDir := q.Equals(directory)
	if paths, ok := q.Equals(path); ok {
		return func(f *finder) { f.files(texts(paths), texts(dirs)) }
	}
	if byDir {
		return func(f *finder) { f.directories(texts(dirs)) }
	}
	if pattern, ok := like(q, path); ok {
		return func(f *finder) {
			f.glob(pattern, func(path string) bool { return f.emit(path, parent(path)) })
		}
	}
	if pattern, ok := like(q, directory); ok {
		return func(f *finder) { f.glob(pattern, f.directory) }
	}
	return nil
}

func texts(values []schema.Value) []string {
	var out []string
	seen := map[string]bool{}
	for _, v := range values {
		if s := v.Text(); s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func like(q *schema.Query, column int) (string, bool) {
	for _, c := range q.Constraints {
		if c.Column == column && c.Op == schema.Like {
			return c.Value.Text(), true
		}
	}
	return "", false
}

// pathCursor walks the rows of one scan of a pathTable.
type pathCursor[T any] struct {
	table  *pathTable[T]
	ctx    context.Context
	q      *schema.Query
	scopes []*scope
	next   func() (target, bool)
	stop   func()
	at     T
	held   bool // at holds something to drop
	more   []T  // of the same target
}

func (c *pathCursor[T]) release() {
	if c.held && c.table.drop != nil {
		c.table.drop(c.at)
	}
	c.held = false
}

// Next implements schema.Cursor.
func (c *pathCursor[T]) Next() (bool, error) {
	c.release()
	for {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		if len(c.more) > 0 {
			c.at, c.more = c.more[0], c.more[1:]
			return true, nil
		}
		t, ok := c.next()
		if !ok {
			return false, c.ctx.Err()
		}
		if c.table.rows != nil {
			c.more = c.table.rows(c.q, t)
			continue
		}
		if c.at, c.held = c.table.row(c.q, t); c.held {
			return true, nil
		}
	}
}

// Value implements schema.Cursor.
func (c *pathCursor[T]) Value(i int) schema.Value { return c.table.columns[i].Value(c.at) }

// Close implements schema.Cursor.
func (c *pathCursor[T]) Close() error {
	c.release()
	c.stop()
	closeScopes(c.scopes)
	c.scopes = nil
	return nil
}

// target is a file to make a row of: how it is spelled, and as what directory's.
type target struct {
	*scope
	path, directory string
}

// finder looks for files in one scope.
type finder struct {
	ctx     context.Context
	q       *schema.Query
	table   string
	scope   *scope
	yield   func(target) bool
	stopped bool
	refused bool // the user was told that a directory may not be read
}

// emit passes a file on; false says to stop.
func (f *finder) emit(path, directory string) bool {
	f.stopped = f.stopped || f.ctx.Err() != nil || !f.yield(target{f.scope, path, directory})
	return !f.stopped
}

// files emits the files named. The directory is spelled as the path does, and once more
// for every other spelling that the query names.
func (f *finder) files(paths, dirs []string) {
	for _, p := range paths {
		up := parent(p)
		if !f.emit(p, up) {
			return
		}
		for _, d := range dirs {
			if d != up && join(d, base(p)) == p && !f.emit(p, d) {
				return
			}
		}
	}
}

func (f *finder) directories(dirs []string) {
	for _, d := range dirs {
		if !f.directory(d) {
			return
		}
	}
}

// directory emits the entries of one directory.
func (f *finder) directory(dir string) bool {
	f.list(dir, func(name string) bool { return f.emit(join(dir, name), dir) })
	return !f.stopped
}

// list calls each with the names in a directory. The first directory that may not be read
// is a warning; one that is not there is nothing.
func (f *finder) list(dir string, each func(name string) bool) {
	fd, err := f.scope.open(dir, true)
	if err == nil {
		err = names(fd, each)
		unix.Close(fd)
	}
	if (err == unix.EACCES || err == unix.EPERM) && !f.refused {
		f.refused = true
		f.q.Warning(fmt.Sprintf("Table %s is incomplete: list %q: %v", f.table, dir, err))
	}
}

// isDir reports whether path is a directory, through a symbolic link if follow is set.
func (f *finder) isDir(path string, follow bool) bool {
	mode, err := f.mode(path, follow)
	return err == nil && mode == unix.S_IFDIR
}

func (f *finder) mode(path string, follow bool) (uint32, error) {
	fd, err := f.scope.open(path, follow)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT, err
}

// maxRecursion is how many levels %% goes down, osquery's own number.
const maxRecursion = 64

// glob calls found with the files that match a pattern.
func (f *finder) glob(pattern string, found func(path string) bool) {
	if !strings.HasPrefix(pattern, "/") {
		pattern = "/" + pattern // a daemon works in /
	}
	onlyDirs := strings.HasSuffix(pattern, "/")
	if onlyDirs {
		pattern = strings.TrimRight(pattern, "/")
	}
	g := globber{
		finder: f, found: found, onlyDirs: onlyDirs,
		slash:  onlyDirs || strings.HasSuffix(pattern, "%"),
		levels: 0,
	}
	if strings.HasSuffix(pattern, "%%") {
		g.levels = maxRecursion
	}
	g.match("", strings.Split(pattern, "/")[1:])
}

// globber is one search for a pattern.
type globber struct {
	*finder
	found    func(path string) bool
	onlyDirs bool // the pattern ends in a slash
	slash    bool // directories are spelled with a slash at their end
	levels   int  // how far below the last part to go
}

// match finds what the remaining parts of the pattern match below prefix, a path without
// a slash at its end.
func (g *globber) match(prefix string, parts []string) bool {
	if len(parts) == 0 { // the pattern was /
		return !g.stopped && g.found("/")
	}
	part, last := parts[0], len(parts) == 1
	each := func(name string) bool {
		path := prefix + "/" + name
		if last {
			return g.end(path)
		}
		// A name that cannot be a directory ends here; do not look it up once a part.
		return !g.isDir(path, true) || g.match(path, parts[1:])
	}
	if part == "" || !strings.ContainsAny(part, "%_") {
		if part == "" && !last {
			return g.match(prefix, parts[1:]) // a doubled slash
		}
		return each(part)
	}
	literal := !strings.Contains(part, "%")
	seen := false
	g.list(prefix+"/", func(name string) bool {
		if !matches(part, name) {
			return true
		}
		seen = seen || name == part
		return each(name)
	})
	// A directory that may not be listed can still be looked into by name.
	if literal && !seen && !g.stopped {
		return each(part)
	}
	return !g.stopped
}

// end passes on a path that matches the whole pattern, and what is below it.
func (g *globber) end(path string) bool {
	if g.stopped || g.ctx.Err() != nil {
		g.stopped = true
		return false
	}
	mode, err := g.mode(path, false)
	if err != nil {
		return true
	}
	dir := mode == unix.S_IFDIR || mode == unix.S_IFLNK && g.isDir(path, true)
	spelled := path
	if dir && g.slash {
		spelled += "/"
	}
	if (dir || !g.onlyDirs) && !g.found(spelled) {
		g.stopped = true
		return false
	}
	if g.levels > 0 && mode == unix.S_IFDIR {
		g.levels--
		g.list(path, func(name string) bool { return g.end(path + "/" + name) })
		g.levels++
	}
	return !g.stopped
}

// matches reports whether a name matches one part of a pattern, without case in ASCII,
// as SQLite's LIKE does: % is any text, _ any one character (a stray byte that is no UTF-8
// counts as one; func.c, SQLITE_SKIP_UTF8).
func matches(part, name string) bool {
	// Where the last % was, and where in name its text may next begin.
	star, retry := -1, 0
	i, j := 0, 0
	for j < len(name) {
		switch {
		case i < len(part) && part[i] == '%':
			star, retry = i, j
			i++
		case i < len(part) && part[i] == '_':
			i++
			lead := name[j]
			j++
			for lead >= 0xc0 && j < len(name) && name[j]&0xc0 == 0x80 {
				j++ // the rest of the character
			}
		case i < len(part) && lower(part[i]) == lower(name[j]):
			i++
			j++
		case star >= 0:
			retry++
			i, j = star+1, retry
		default:
			return false
		}
	}
	for i < len(part) && part[i] == '%' {
		i++
	}
	return i == len(part)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// parent and base split a path as osquery does (Boost's path): of /etc/apt/ they are
// /etc/apt and ".", for the path names what is in the directory.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	if up := strings.TrimRight(path[:i], "/"); up != "" {
		return up
	}
	return "/"
}

func base(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if name != "" {
		return name
	}
	if strings.Trim(path, "/") == "" {
		return "/"
	}
	return "."
}

func join(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}
