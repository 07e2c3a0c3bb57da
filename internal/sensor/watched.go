package sensor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/fanotify"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// What a value of file_roots says (bpf/file.bpf.h).
const (
	rootAll    = 0xff
	rootPivot  = 0x100
	rootWhole  = 0x200
	rootOpened = 0x400
)

// stacked are file systems of which stat(2) tells other numbers of inodes than they have
// themselves. All that is done there comes up to us.
var stacked = []string{"overlay", "aufs", "unionfs"}

// watched is what the programs of bpf/file.bpf.h look for, and the way back from a file system's
// paths to those of this host. The kernel tells of what is below certain directories, known by
// their inodes; whether a pattern selects it is found out here.
type watched struct {
	fs     procfs.FS
	roots  *ebpf.Map
	mounts int // /proc/1/mountinfo

	opened  *ebpf.Collection // the iterator over open files, nil where it is refused
	refused error

	mu   sync.Mutex
	mine map[bpf.GoshawkFileRoot]uint32 // what we have put in roots
	now  atomic.Pointer[scope]

	// What follows belongs to the reading goroutine.
	open  map[uint64]*writing // by the address of the open file
	temps map[fileID]string   // names of files made without one
	last  bool                // nothing more comes: settle tells all

	more, unwatched, unchanged, cut atomic.Uint64
}

// scope is a selection with the file systems that it touches, by device. It does not change.
type scope struct {
	set     *selection.Set
	systems map[uint32]selection.Views
}

func newWatched(fs procfs.FS, roots *ebpf.Map) (*watched, error) {
	fd, err := fs.OpenMountPoints()
	if err != nil {
		return nil, err
	}
	return &watched{fs: fs, roots: roots, mounts: fd, mine: map[bpf.GoshawkFileRoot]uint32{},
		open: map[uint64]*writing{}, temps: map[fileID]string{}}, nil
}

func (w *watched) close() error {
	if w.opened != nil {
		w.opened.Close()
	}
	return unix.Close(w.mounts)
}

// watch makes set the files that are told of, nil the same as before on mounts that have changed.
// What both the old and the new set select is told without a gap.
func (w *watched) watch(set *selection.Set) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.now.Load(); set == nil && old != nil {
		set = old.set
	}
	// A directory may be made after we have looked for it and before it is waited for: look
	// again until nothing is new. Where they come and go faster than that, the kernel tells.
	var next *scope
	var want map[bpf.GoshawkFileRoot]uint32
	more := false
	for added, turns := true, 0; added && turns < 8; turns++ {
		points, err := w.fs.MountPoints()
		if err != nil {
			return err
		}
		next, want = plan(set, points)
		added = false
		for key, value := range want {
			old, ok := w.mine[key]
			value = max(old&rootAll, value&rootAll) | (old|value)&^rootAll
			if ok && value == old {
				continue
			}
			if err := w.put(key, value); err != nil {
				return err
			}
			added, more = true, true
		}
	}
	w.now.Store(next)
	// Who opened a file since then was seen to; others did before their directory was named.
	if more && w.opened != nil {
		if _, err := iterate(w.opened.Programs[fileSeedProgram]); err != nil {
			return fmt.Errorf("look for files that are open: %w", err)
		}
	}
	// From here on the old set is not asked for.
	for key, have := range w.mine {
		value, ok := want[key]
		switch {
		case ok && value != have:
			if err := w.put(key, value); err != nil {
				return err
			}
		case !ok:
			if err := w.drop(key); err != nil {
				return err
			}
			delete(w.mine, key)
		}
	}
	return nil
}

func (w *watched) put(key bpf.GoshawkFileRoot, value uint32) error {
	if err := w.roots.Put(key, value); err != nil {
		return fmt.Errorf("tell the kernel which directories are watched: %w", err)
	}
	w.mine[key] = value
	return nil
}

func (w *watched) drop(key bpf.GoshawkFileRoot) error {
	if err := w.roots.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("tell the kernel which directories are watched no more: %w", err)
	}
	return nil
}

// directory is one on the way to what is watched.
type directory struct {
	key bpf.GoshawkFileRoot
	ok  bool // it is a directory
}

// plan finds which directories the kernel has to know for set, as things are.
func plan(set *selection.Set, points []procfs.MountPoint) (*scope, map[bpf.GoshawkFileRoot]uint32) {
	next := &scope{set: set, systems: map[uint32]selection.Views{}}
	want := map[bpf.GoshawkFileRoot]uint32{}
	top := map[string]*procfs.MountPoint{} // of those at one place the last is seen
	for i := range points {
		top[points[i].Path] = &points[i]
	}
	for i := range points {
		p := &points[i]
		if dev, ok := deviceNumber(p.Device); ok && top[p.Path] == p {
			next.systems[dev] = append(next.systems[dev], selection.View{Root: p.Root, Path: p.Path})
		}
	}
	for _, v := range next.systems {
		v.Sort()
	}
	add := func(key bpf.GoshawkFileRoot, depth, flags uint32) {
		old := want[key]
		want[key] = max(old&rootAll, depth) | old&^rootAll | flags
	}
	prefixes := set.Prefixes()
	for _, p := range top {
		dev, ok := deviceNumber(p.Device)
		if !ok || slices.Contains(fanotify.Pseudo, p.Type) || !set.Touches(p.Path) {
			continue
		}
		var flags uint32
		if slices.Contains(stacked, p.Type) {
			flags |= rootWhole
		}
		if set.Accesses() {
			flags |= rootOpened
		}
		add(bpf.GoshawkFileRoot{Dev: dev}, 0, flags)
	}
	known := map[string]directory{}
	at := func(dir string) directory {
		if p, ok := known[dir]; ok {
			return p
		}
		var p directory
		var st unix.Stat_t
		mount := top[mountOver(top, dir)]
		if mount != nil && !slices.Contains(fanotify.Pseudo, mount.Type) &&
			unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if dev, ok := deviceNumber(mount.Device); ok {
				p = directory{bpf.GoshawkFileRoot{Inode: st.Ino, Dev: dev}, true}
			}
		}
		known[dir] = p
		return p
	}
	for _, p := range prefixes {
		if p.Exclude {
			continue
		}
		// Each directory on the way may be replaced, or is still to be made.
		here := at("/")
		dir := "/"
		for rest := strings.Trim(p.Path, "/"); rest != "" && here.ok; {
			var name string
			name, rest, _ = strings.Cut(rest, "/")
			add(here.key, 0, rootPivot)
			if rest == "" {
				if _, ok := set.Match(p.Path); ok {
					add(here.key, 1, 0)
				}
			}
			dir = path.Join(dir, name)
			here = at(dir)
		}
		if here.ok {
			depth := uint32(rootAll)
			if p.Depth != 0 && p.Depth < rootAll {
				depth = uint32(p.Depth)
			}
			add(here.key, depth, 0)
		}
	}
	// What is mounted below a watched directory begins at a root of its own.
	for name := range top {
		if slices.ContainsFunc(prefixes, func(p selection.Prefix) bool {
			return !p.Exclude && name != p.Path && selection.Within(name, p.Path)
		}) && set.Touches(name) {
			if here := at(name); here.ok {
				add(here.key, rootAll, 0)
			}
		}
	}
	return next, want
}

// mountOver is where that is mounted on which dir is.
func mountOver(top map[string]*procfs.MountPoint, dir string) string {
	for top[dir] == nil && dir != "/" {
		dir = path.Dir(dir)
	}
	return dir
}

// deviceNumber is major:minor as the kernel keeps it in a super block.
func deviceNumber(text string) (uint32, bool) {
	major, minor, ok := strings.Cut(text, ":")
	a, err := strconv.ParseUint(major, 10, 12)
	b, err2 := strconv.ParseUint(minor, 10, 20)
	return uint32(a)<<20 | uint32(b), ok && err == nil && err2 == nil
}

func deviceText(n uint32) string {
	return strconv.FormatUint(uint64(n>>20), 10) + ":" + strconv.FormatUint(uint64(n&(1<<20-1)), 10)
}

// appeared keeps a directory that the kernel tells of since it has come where one was waited
// for, or takes it back when it is none of those.
func (w *watched) appeared(in *bpf.GoshawkRecInode, paths ...string) error {
	now := w.now.Load()
	key := bpf.GoshawkFileRoot{Inode: in.Inode, Dev: in.Dev}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.mine[key]; ok {
		return nil
	}
	for _, name := range paths {
		for _, v := range now.systems[in.Dev] {
			if p, ok := v.Show(name); ok && now.set.Touches(p) {
				w.mine[key] = rootAll
				return nil
			}
		}
	}
	return w.drop(key)
}
