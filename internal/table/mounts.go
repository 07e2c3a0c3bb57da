package table

import (
	"context"
	"errors"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// mount is a mounted file system with its sizes, which are unknown when it did not answer.
type mount struct {
	procfs.Mount
	alias string
	known bool
	size  unix.Statfs_t
}

// statfsPatience is how long a file system may take to tell its sizes. A network file
// system whose server is gone never answers, and the thread that asked cannot be stopped.
const statfsPatience = time.Second

var errNoAnswer = errors.New("no answer within " + statfsPatience.String())

// sizes asks file systems for their sizes. A path that did not answer is not asked again
// while its thread still waits, so a dead server costs one thread, not one a query.
type sizes struct {
	mu      sync.Mutex
	waiting map[string]bool
}

// of returns what ask says of path, or errNoAnswer.
func (s *sizes) of(path string, ask func() (unix.Statfs_t, error)) (unix.Statfs_t, error) {
	s.mu.Lock()
	if s.waiting[path] {
		s.mu.Unlock()
		return unix.Statfs_t{}, errNoAnswer
	}
	if s.waiting == nil {
		s.waiting = map[string]bool{}
	}
	s.waiting[path] = true
	s.mu.Unlock()

	type answer struct {
		st  unix.Statfs_t
		err error
	}
	done := make(chan answer, 1)
	go func() {
		st, err := ask()
		s.mu.Lock()
		delete(s.waiting, path)
		s.mu.Unlock()
		done <- answer{st, err}
	}()
	timer := time.NewTimer(statfsPatience)
	defer timer.Stop()
	select {
	case a := <-done:
		return a.st, a.err
	case <-timer.C:
		return unix.Statfs_t{}, errNoAnswer
	}
}

// statfs opens the root anew, for it may outlive the query that asked.
func (env *Env) statfs(path string) (unix.Statfs_t, error) {
	r, err := openRoot(env.HostRoot)
	if err != nil {
		return unix.Statfs_t{}, err
	}
	defer r.close()
	fd, err := r.open(path, true)
	if err != nil {
		return unix.Statfs_t{}, err
	}
	defer unix.Close(fd)
	return procfs.Statfs(fd)
}

// target follows the symbolic links that a device's name is (not those on its way), such
// as /dev/mapper/vg-root.
func (r root) target(name string) string {
	for range maxLinks {
		fd, err := r.open(name, false)
		if err != nil {
			return name
		}
		to, err := readlink(fd)
		unix.Close(fd)
		if err != nil {
			return name // no link
		}
		if !strings.HasPrefix(to, "/") {
			to = path.Join(path.Dir(name), to)
		}
		name = path.Clean(to)
	}
	return name
}

func mountsTable(env *Env) schema.Relation {
	var ask sizes
	str := func(name string, at func(*mount) *string, doc string) schema.Column[*mount] {
		return schema.Str(name, at, doc)
	}
	size := func(name string, of func(*unix.Statfs_t) int64, doc string) schema.Column[*mount] {
		return schema.Calc(name, schema.BigInt, func(m *mount) schema.Value {
			if !m.known {
				return schema.Null
			}
			return schema.IntValue(of(&m.size))
		}, doc)
	}
	t := &schema.Table[*mount]{
		Name: "mounts",
		Doc:  "Mounted file systems with their sizes, which are NULL for one that does not answer within a second.",
		Columns: []schema.Column[*mount]{
			str("device", func(m *mount) *string { return &m.Device }, "Device or other source"),
			str("device_alias", func(m *mount) *string { return &m.alias }, "Device with symbolic links followed"),
			str("path", func(m *mount) *string { return &m.Path }, "Where it is mounted"),
			str("type", func(m *mount) *string { return &m.Type }, "File system type"),
			size("blocks_size", func(s *unix.Statfs_t) int64 { return int64(s.Bsize) }, "Bytes in a block"),
			size("blocks", func(s *unix.Statfs_t) int64 { return int64(s.Blocks) }, "Blocks in all"),
			size("blocks_free", func(s *unix.Statfs_t) int64 { return int64(s.Bfree) }, "Blocks not used"),
			size("blocks_available", func(s *unix.Statfs_t) int64 { return int64(s.Bavail) }, "Blocks not used that ordinary users may use"),
			size("inodes", func(s *unix.Statfs_t) int64 { return int64(s.Files) }, "Inodes in all"),
			size("inodes_free", func(s *unix.Statfs_t) int64 { return int64(s.Ffree) }, "Inodes not used"),
			str("flags", func(m *mount) *string { return &m.Options }, "Mount options, separated by a comma"),
		},
	}
	t.Rows = func(ctx context.Context, q *schema.Query) ([]*mount, error) {
		def := t.Def()
		mounts, err := env.FS.Mounts()
		if err != nil {
			return nil, err
		}
		r, err := openRoot(env.HostRoot)
		if err != nil {
			return nil, err
		}
		defer r.close()
		sized := uses(def, q, "blocks_size", "blocks", "blocks_free", "blocks_available", "inodes", "inodes_free")
		keep := wantedText(q, def.Column("path"))
		var rows []*mount
		for _, m := range mounts {
			if !keep(m.Path) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			row := &mount{Mount: m, alias: m.Device}
			if strings.HasPrefix(m.Device, "/dev/") {
				row.alias = r.target(m.Device)
			}
			// statfs(2) on an autofs would mount what is behind it.
			if sized && m.Type != "autofs" {
				row.size, err = ask.of(m.Path, func() (unix.Statfs_t, error) { return env.statfs(m.Path) })
				row.known = err == nil
				if errors.Is(err, errNoAnswer) {
					q.Warning("measure " + m.Type + " at " + m.Path + ": " + err.Error())
				}
			}
			rows = append(rows, row)
		}
		return rows, nil
	}
	return t.Bind()
}

// wantedText is wanted for text.
func wantedText(q *schema.Query, i int) func(s string) bool {
	values, asked := q.Equals(i)
	if !asked {
		return func(string) bool { return true }
	}
	set := make(map[string]bool, len(values))
	for _, v := range values {
		set[v.Text()] = true
	}
	return func(s string) bool { return set[s] }
}
