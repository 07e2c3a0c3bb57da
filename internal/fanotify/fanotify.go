// Package fanotify tells what is done to the files of a selection, by marks on whole file
// systems (fanotify(7), from Linux 5.9 on). It needs no watch for each directory: what is
// made, moved in or mounted later is seen at once, and the kernel names a file by its
// directory's handle, which no renaming makes wrong. It knows nothing of events or of who reads
// them. A Reader belongs to the goroutine that calls Read; Watch may be called from any.
package fanotify

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/selection"
)

// Counts are what became of what the kernel told: Told = Events + Filtered + Lost.
type Counts struct {
	Told, Events    uint64
	Filtered, Lost  map[string]uint64 // by reason
	Blind           []string          // file systems that cannot be watched, and why
	Marked, Queue   int               // file systems watched; events that the kernel keeps at most
	Known, KnownMax int               // files of which it is remembered how they were
}

// Reader reads a notification group.
type Reader struct {
	fd     int
	mounts int // /proc/self/mountinfo
	fs     procfs.FS
	self   int32
	joint  bool // a rename comes as one event (5.17)
	set    atomic.Pointer[selection.Set]

	mu      sync.Mutex
	systems map[[8]byte]*system
	blind   []string
	mask    uint64

	// What follows belongs to the reading goroutine.
	buf   []byte
	link  []byte
	known map[string]meta
	open  map[string]*change // changed, and not closed so far
	temps map[string]*temporary
	moved *Change // half of a rename
	noise noise
	scan  scan
	doubt bool // not all selected directories are known, though all were looked at
	now   uint64

	scanning     atomic.Bool
	told, events atomic.Uint64
	filtered     [len(filteredBy)]atomic.Uint64
	lost         [len(lostBy)]atomic.Uint64
	remembered   atomic.Int64
}

// Unseen is what cannot be told, whatever the file system; docs/file-integrity.md says more.
var Unseen = []string{
	"the moment (but within 10 to 25 ms), the thread, and calls that failed",
	"which attribute was changed, of files whose state before is not known (attrib)",
	"removexattr apart from setxattr, ftruncate and O_TRUNC apart from write",
	"the other name of a hard link",
}

// Why something is not told.
const (
	byNotWatched = iota
	byOwn
	byLinks
	byUnchanged
	byMerged
)

var filteredBy = [...]string{byNotWatched: "not_watched", byOwn: "own", byLinks: "link_count", byUnchanged: "unchanged", byMerged: "merged"}

const (
	lostOverflow = iota
	lostMalformed
	lostPath
)

var lostBy = [...]string{lostOverflow: "queue_full", lostMalformed: "malformed", lostPath: "path_unknown"}

// system is one file system that is marked.
type system struct {
	device string
	kind   string
	fd     int // a directory of it
	at     procfs.MountPoint
	views  selection.Views
	dirs   map[string]*directory
	set    *selection.Set // that directory.inside is about
}

// directory is what is known of one, by its handle.
type directory struct {
	path   string // from the root of its file system
	inside bool   // something right in it may be selected
}

// Open opens a notification group, which nothing is marked for yet.
func Open(fs procfs.FS) (*Reader, error) { return open(fs, reportTarget) }

// open is Open for a kernel that knows these flags too, or one before 5.17.
func open(fs procfs.FS, newer uint) (*Reader, error) {
	const flags = unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_REPORT_FID | unix.FAN_REPORT_DIR_FID | unix.FAN_REPORT_NAME
	r := &Reader{fs: fs, self: int32(os.Getpid()), systems: map[[8]byte]*system{}, mounts: -1,
		buf: make([]byte, 256<<10), link: make([]byte, 4096+32), known: map[string]meta{}, open: map[string]*change{}, temps: map[string]*temporary{},
		noise: noise{seen: map[string]int{}, quiet: map[string]bool{}}}
	var err error
	if r.fd, err = unix.FanotifyInit(flags|newer, unix.O_RDONLY|unix.O_CLOEXEC); err == nil {
		r.joint = newer&reportTarget != 0
	} else if r.fd, err = unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_CLOEXEC); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("fanotify_init: names of files are told from Linux 5.9 on: %w", err)
		}
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	if r.mounts, err = fs.OpenMountPoints(); err != nil {
		return nil, errors.Join(err, unix.Close(r.fd))
	}
	return r, nil
}

// FD is to be polled for POLLIN, and Mounts for POLLPRI.
func (r *Reader) FD() int { return r.fd }

// Mounts is the list of mounts; when it changes Remount is to be called.
func (r *Reader) Mounts() int { return r.mounts }

// Close ends the group.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := []error{unix.Close(r.fd), unix.Close(r.mounts)}
	for _, s := range r.systems {
		errs = append(errs, unix.Close(s.fd))
	}
	clear(r.systems)
	return errors.Join(errs...)
}

// Watch makes set the files that are told of. What both the old and the new set select is told
// without a gap.
func (r *Reader) Watch(set *selection.Set) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	mask := uint64(unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_ATTRIB | unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD)
	if r.joint {
		mask |= markRename
	} else {
		mask |= unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO
	}
	if set.Accesses() {
		mask |= unix.FAN_OPEN
	}
	if gone := r.mask &^ mask; gone != 0 {
		for _, s := range r.systems {
			// Fails when the file system is gone, and its mark with it.
			_ = unix.FanotifyMark(r.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, gone, s.fd, ".")
		}
	}
	changed := r.mask != mask
	r.mask = mask
	// Marks for the new one first: what is told of without being selected is dropped.
	if err := r.mark(set, changed); err != nil {
		return err
	}
	r.set.Store(set)
	r.listen()
	r.begin(set)
	return nil
}

// Stop takes all marks away: what is queued then is the last.
func (r *Reader) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = unix.FanotifyMark(r.fd, unix.FAN_MARK_FLUSH|unix.FAN_MARK_FILESYSTEM, 0, unix.AT_FDCWD, "/")
	for _, p := range r.open {
		p.deadline = 0
	}
}

// Remount looks at the mounts anew.
func (r *Reader) Remount() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.systems)
	set := r.set.Load()
	if err := r.mark(set, false); err != nil {
		return err
	}
	if len(r.systems) > before {
		r.begin(set)
	}
	return nil
}

// Pseudo are file systems whose files are the kernel's own doings.
var Pseudo = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "securityfs", "debugfs", "tracefs", "bpf", "pstore",
	"mqueue", "configfs", "fusectl", "binfmt_misc", "autofs", "rpc_pipefs", "nsfs", "efivarfs", "selinuxfs", "hugetlbfs"}

// mark marks the file systems on which something may be selected, and lets go of the others.
func (r *Reader) mark(set *selection.Set, again bool) error {
	points, err := r.fs.MountPoints()
	if err != nil {
		return err
	}
	needed := map[[8]byte]bool{}
	views := map[string]selection.Views{} // by device
	top := map[string]int{}               // of those at one place the last one is seen
	for i, p := range points {
		top[p.Path] = i
	}
	for i, p := range points {
		if top[p.Path] == i {
			views[p.Device] = append(views[p.Device], selection.View{Root: p.Root, Path: p.Path})
		}
	}
	// What is written to an overlay, as containers have, is written to its upper directory, and
	// that is told there: as what it is called in the overlay, which has no handles to be marked by.
	through := map[int]bool{}
	for i, p := range points {
		if top[p.Path] != i || p.Upper == "" || !set.Touches(p.Path) {
			continue
		}
		under := -1
		for j, u := range points {
			if top[u.Path] == j && selection.Within(p.Upper, u.Path) && (under < 0 || len(u.Path) > len(points[under].Path)) {
				under = j
			}
		}
		if under >= 0 && !slices.Contains(Pseudo, points[under].Type) {
			u := points[under]
			through[under], through[i] = true, true
			views[u.Device] = append(views[u.Device], selection.View{Root: path.Join(u.Root, strings.TrimPrefix(p.Upper, strings.TrimSuffix(u.Path, "/"))), Path: p.Path})
		}
	}
	var blind []string
	for i, p := range points {
		if top[p.Path] != i || slices.Contains(Pseudo, p.Type) || !set.Touches(p.Path) && !through[i] || p.Upper != "" && through[i] {
			continue
		}
		fsid, err := r.add(p, views[p.Device], needed, again)
		if err != nil {
			blind = append(blind, fmt.Sprintf("%s (%s): %v", p.Path, p.Type, err))
			continue
		}
		needed[fsid] = true
	}
	for fsid, s := range r.systems {
		if !needed[fsid] {
			_ = unix.FanotifyMark(r.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, r.mask, s.fd, ".")
			unix.Close(s.fd)
			delete(r.systems, fsid)
		}
	}
	slices.Sort(blind)
	r.blind = slices.Compact(blind)
	return nil
}

// add marks the file system that is mounted at p.
func (r *Reader) add(p procfs.MountPoint, views selection.Views, done map[[8]byte]bool, again bool) (fsid [8]byte, err error) {
	fd, err := unix.Open(p.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fsid, err // a file that is mounted, or a place that nobody can reach
	}
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fsid, err
	}
	fsid = fsidOf(&st)
	s := r.systems[fsid]
	if s == nil || again && !done[fsid] {
		if err := unix.FanotifyMark(r.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, r.mask, fd, "."); err != nil {
			return fsid, whyNot(err)
		}
	}
	if s == nil {
		s = &system{device: p.Device, kind: p.Type, fd: -1, dirs: map[string]*directory{}}
		r.systems[fsid] = s
	}
	// A mount of the whole is best to find paths with.
	if s.fd < 0 || p.Root == "/" && s.at.Root != "/" || s.at.Path == p.Path {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
		s.fd, fd = fd, -1
		s.at = p
	}
	views.Sort()
	if !slices.Equal(s.views, views) {
		s.views, s.set = views, nil
	}
	return fsid, nil
}

func fsidOf(st *unix.Statfs_t) (id [8]byte) {
	a, b := uint32(st.Fsid.Val[0]), uint32(st.Fsid.Val[1])
	for i := range 4 {
		if bigEndian {
			i = 3 - i
		}
		id[i], id[4+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	return id
}

const bigEndian = runtime.GOARCH == "s390x"

// whyNot says in words why a file system cannot be marked (fanotify_mark(2)).
func whyNot(err error) error {
	switch err {
	case unix.EOPNOTSUPP:
		return fmt.Errorf("its files have no handles: %w", err)
	case unix.ENODEV:
		return fmt.Errorf("it has no identity: %w", err)
	case unix.EXDEV:
		return fmt.Errorf("a subvolume: %w", err)
	}
	return err
}

// Counts may be called from any goroutine.
func (r *Reader) Counts() Counts {
	c := Counts{Told: r.told.Load(), Events: r.events.Load(), Filtered: map[string]uint64{}, Lost: map[string]uint64{}}
	for i := range r.filtered {
		c.Filtered[filteredBy[i]] = r.filtered[i].Load()
	}
	for i := range r.lost {
		c.Lost[lostBy[i]] = r.lost[i].Load()
	}
	c.Known, c.KnownMax = int(r.remembered.Load()), maxKnown
	r.mu.Lock()
	c.Blind, c.Marked = slices.Clone(r.blind), len(r.systems)
	r.mu.Unlock()
	return c
}

const maxDirs = 65_536 // of one file system whose paths are remembered

// directory finds what a handle's directory is called; nil when nobody can tell any more.
// The caller holds mu.
func (r *Reader) directory(s *system, o *object) *directory {
	if d := s.dirs[string(o.handle)]; d != nil {
		return d
	}
	path, ok := r.look(s, o.handle)
	if !ok {
		return nil
	}
	return r.learn(s, string(o.handle), path)
}

// forgetDirs forgets the directories of a file system. Of those that are gone when their
// events are read nobody can say any more whether they were selected.
func (r *Reader) forgetDirs(s *system) {
	clear(s.dirs)
	r.doubt = true
}

// learn remembers a directory.
func (r *Reader) learn(s *system, handle, path string) *directory {
	if len(s.dirs) >= maxDirs {
		r.forgetDirs(s)
	}
	d := &directory{path: path}
	d.inside = s.views.Inside(s.set, path)
	s.dirs[handle] = d
	return d
}

// apply makes set the one that what is known of directories is about.
func (r *Reader) apply(s *system, set *selection.Set) {
	if s.set == set {
		return
	}
	s.set = set
	for _, d := range s.dirs {
		d.inside = s.views.Inside(s.set, d.path)
	}
}

// look asks the kernel what a directory is called from the root of its file system.
func (r *Reader) look(s *system, handle []byte) (string, bool) {
	fd, err := openHandle(s.fd, handle)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	name, err := procfs.LinkOf(fd, r.link)
	if err != nil || !strings.HasPrefix(name, "/") {
		return "", false
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 0 {
		name = strings.TrimSuffix(name, " (deleted)")
	}
	if s.at.Path != "/" && selection.Within(name, s.at.Path) {
		name = strings.TrimPrefix(name, s.at.Path)
		if name == "" {
			name = "/"
		}
		return path.Join(s.at.Root, name), true
	}
	if s.at.Path == "/" {
		return path.Join(s.at.Root, name), true
	}
	return name, true // outside of what is mounted there: from the root already
}

// openHandle opens a file by its handle (open_by_handle_at(2)), without any of its contents.
func openHandle(at int, handle []byte) (int, error) {
	if len(handle) < 4 {
		return -1, unix.EINVAL
	}
	kind := int32(uint32(handle[0]) | uint32(handle[1])<<8 | uint32(handle[2])<<16 | uint32(handle[3])<<24)
	return unix.OpenByHandleAt(at, unix.NewFileHandle(kind, handle[4:]), unix.O_PATH|unix.O_CLOEXEC)
}
