package fanotify

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/selection"
)

// scan looks at what is selected already, a little at a time: how files are, so that a change of
// their attributes can be named, and the handles of directories, which may be gone when an
// event is read.
type scan struct {
	dirs []string // to be looked at, as shown
}

// begin begins to look at the files of set.
func (r *Reader) begin(set *selection.Set) {
	r.scan.dirs = r.scan.dirs[:0]
	named := map[string]bool{}
	for _, p := range set.Prefixes() {
		if p.Exclude {
			continue
		}
		for _, dir := range [...]string{p.Path, parent(p.Path)} {
			if !named[dir] {
				named[dir] = true
				r.scan.dirs = append(r.scan.dirs, dir)
			}
		}
	}
	r.scanning.Store(len(r.scan.dirs) > 0)
	r.doubt = false
}

func parent(name string) string {
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return "/"
}

// Scanning reports whether there is something left to be looked at.
func (r *Reader) Scanning() bool { return r.scanning.Load() }

// Scan looks at files for about so many ns.
func (r *Reader) Scan(ns int64) {
	if !r.scanning.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.set.Load()
	for until := time.Now().Add(time.Duration(ns)); len(r.scan.dirs) > 0 && time.Now().Before(until); {
		last := len(r.scan.dirs) - 1
		dir := r.scan.dirs[last]
		r.scan.dirs = r.scan.dirs[:last]
		r.scanDir(dir, set)
	}
	if len(r.scan.dirs) == 0 {
		r.scan.dirs = nil
		r.scanning.Store(false)
	}
}

// scanDir looks at what is right in a directory. Whatever cannot be read is not known.
func (r *Reader) scanDir(dir string, set *selection.Set) {
	if !set.Inside(dir) {
		return
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return
	}
	s := r.systems[fsidOf(&fs)]
	if s == nil {
		return
	}
	r.apply(s, set)
	if h, err := handleOf(fd, ""); err == nil {
		r.directory(s, &object{handle: h})
	}
	for len(r.known) < maxKnown {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			name := join(dir, e.Name())
			if e.IsDir() && set.Inside(name) {
				r.scan.dirs = append(r.scan.dirs, name)
			}
			if _, ok := set.Match(name); !ok {
				continue
			}
			var st unix.Stat_t
			if unix.Fstatat(fd, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			h, err := handleOf(fd, e.Name())
			if err != nil {
				continue
			}
			id := fsidOf(&fs)
			if key := string(id[:]) + string(h); r.open[key] == nil {
				if _, ok := r.known[key]; !ok {
					r.remember(key, metaOf(&st))
				}
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return
			}
			break
		}
	}
}

// handleOf is a file's handle as events have it: its type, and its bytes.
func handleOf(dir int, name string) ([]byte, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(dir, name, flags)
	if err != nil {
		return nil, err
	}
	t := uint32(h.Type())
	return append([]byte{byte(t), byte(t >> 8), byte(t >> 16), byte(t >> 24)}, h.Bytes()...), nil
}
