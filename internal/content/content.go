// Package content finds out what is in files after they were changed: their digests, beside
// the way of events, within bounds. A digest is of one state of one file: the file is named
// by its inode, and looked at before and after it is read, so that neither a rename nor a
// link nor a change meanwhile gives a digest to what it is not of. The package owns its two
// goroutines, and those that the kernel does not let go of: a file system that never answers (FUSE, NFS)
// keeps who asks it. It knows events, and neither who sends them nor who wants them back.
package content

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
)

// Options of New. Zero fields take the defaults.
type Options struct {
	MD5, SHA1 bool  // besides SHA-256
	MaxBytes  int64 // larger files are left out; 0: 50 MiB, as osquery's read_max
	Rate      int64 // bytes read in a second; 0: 64 MiB
	Queue     int   // files that may wait; 0: 4,096

	Patience time.Duration // a file of which nothing was read for so long is given up; 0: 5 s
}

// Why there is no digest, in event.File.HashError.
const (
	TooLarge   = "too_large"
	NotRegular = "not_regular"
	Gone       = "gone"
	Changed    = "changed"    // while it was read, or since the event
	OtherFile  = "other_file" // the name leads to another file by now
	Unreadable = "unreadable"
	Busy       = "busy" // too many wait
	Stopped    = "stopped"
	Stuck      = "stuck" // its file system does not answer
)

var reasons = [...]string{TooLarge, NotRegular, Gone, Changed, OtherFile, Unreadable, Busy, Stopped, Stuck}

const (
	cached   = 4_096
	maxStuck = 8 // looks that the kernel does not let go of; with so many, nothing is looked at
)

// Hasher computes digests.
type Hasher struct {
	opt  Options
	in   chan *event.File
	out  chan *event.File
	stop context.CancelFunc
	ends sync.WaitGroup

	closed sync.Once

	asked, hashed, hits atomic.Uint64
	failed              [len(reasons)]atomic.Uint64

	stuck []*reader // of the goroutine run
}

// reader looks at one file after the other, in a goroutine of its own.
type reader struct {
	h      *Hasher
	in     chan *event.File // closed when it is given up
	out    chan string      // why not
	moved  atomic.Uint64    // goes up with each read
	device string           // of the file that it is stuck in

	cache map[state]sums
	buf   []byte
	spent int64
	since time.Time
}

// state is one state of one file.
type state struct {
	dev, inode, size uint64
	mtime, ctime     int64
}

type sums struct{ md5, sha1, sha256 string }

// New starts a Hasher.
func New(o Options) *Hasher {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 50 << 20
	}
	if o.Rate <= 0 {
		o.Rate = 64 << 20
	}
	if o.Queue <= 0 {
		o.Queue = 4096
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Second
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &Hasher{opt: o, in: make(chan *event.File, o.Queue), out: make(chan *event.File, o.Queue+1), stop: stop}
	h.ends.Go(func() { h.run(ctx) })
	return h
}

// wants are the operations after which content is looked at.
func wants(e *event.File) bool {
	if e.Result != "" && e.Result != "ok" || e.SHA256 != "" {
		return false
	}
	switch e.Operation {
	case "write", "truncate", "rename", "link":
		return e.Mode == 0 || e.Mode&unix.S_IFMT == unix.S_IFREG
	}
	return false
}

// Ask takes a copy of e, which comes back by Done, and reports whether it did. An event that
// it does not take is complete. It never blocks.
func (h *Hasher) Ask(e *event.File) bool {
	if !wants(e) {
		return false
	}
	h.asked.Add(1)
	c := new(event.File)
	*c = *e
	select {
	case h.in <- c:
		return true
	default:
		h.fail(e, Busy)
		return false
	}
}

// Done gives back what Ask took, in that order, as many as it took.
func (h *Hasher) Done() <-chan *event.File { return h.out }

// Close gives back what still waits, without a digest, and closes Done.
func (h *Hasher) Close() {
	h.closed.Do(func() {
		h.stop()
		close(h.in)
	})
	h.ends.Wait()
}

func (h *Hasher) run(ctx context.Context) {
	defer close(h.out)
	var r *reader
	for e := range h.in {
		why := Stopped
		if ctx.Err() == nil {
			if r == nil {
				r = h.newReader(ctx)
			}
			e, why = h.await(ctx, e, &r)
		}
		if why != "" {
			h.fail(e, why)
		} else {
			h.hashed.Add(1)
		}
		h.out <- e
	}
	if r != nil {
		close(r.in)
	}
}

func (h *Hasher) newReader(ctx context.Context) *reader {
	r := &reader{h: h, in: make(chan *event.File), out: make(chan string, 1), cache: map[state]sums{}, buf: make([]byte, 128<<10)}
	go func() { // ends when in is closed, once the kernel lets it
		for e := range r.in {
			r.out <- r.look(ctx, e)
		}
		close(r.out)
	}()
	return r
}

// await has *r look at a file, and gives it up when it does not get on with that.
func (h *Hasher) await(ctx context.Context, e *event.File, r **reader) (*event.File, string) {
	h.stuck = slices.DeleteFunc(h.stuck, func(r *reader) bool {
		select {
		case <-r.out: // it has ended, or will at once
			return true
		default:
			return false
		}
	})
	if len(h.stuck) >= maxStuck || slices.ContainsFunc(h.stuck, func(r *reader) bool { return r.device != "" && r.device == e.Device }) {
		return e, Stuck
	}
	looked := new(event.File) // the reader's, for as long as it takes
	*looked = *e
	now := *r
	before := now.moved.Load()
	now.in <- looked
	t := time.NewTicker(h.opt.Patience)
	defer t.Stop()
	for {
		select {
		case why := <-now.out:
			return looked, why
		case <-ctx.Done():
			select { // reading ends with ctx, unless it is stuck
			case why := <-now.out:
				return looked, why
			case <-time.After(h.opt.Patience):
			}
		case <-t.C:
			if moved := now.moved.Load(); moved != before {
				before = moved
				continue
			}
		}
		now.device = e.Device
		close(now.in)
		h.stuck = append(h.stuck, now)
		*r = nil
		return e, Stuck
	}
}

func (h *Hasher) fail(e *event.File, why string) {
	e.HashError = why
	for i := range reasons {
		if reasons[i] == why {
			h.failed[i].Add(1)
		}
	}
}

// look fills in the digests of e's file, and returns why not.
func (r *reader) look(ctx context.Context, e *event.File) string {
	name := e.TargetPath
	if e.DestinationPath != "" {
		name = e.DestinationPath
	}
	if !strings.HasPrefix(name, "/") {
		return Gone
	}
	// First without opening it: a FIFO would wait, and a device may do anything.
	at, err := open(name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return Gone
		}
		if errors.Is(err, unix.ELOOP) {
			return OtherFile
		}
		return Unreadable
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if unix.Fstat(at, &st) != nil {
		return Unreadable
	}
	switch before := stateOf(&st); {
	case e.Inode != 0 && (st.Ino != e.Inode || !sameDevice(at, e.Device, st.Dev)):
		return OtherFile
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return NotRegular
	case e.MTime != 0 && (st.Mtim.Nano() != e.MTime || uint64(st.Size) != e.Size):
		return Changed
	case st.Size > r.h.opt.MaxBytes:
		return TooLarge
	default:
		known, ok := r.cache[before]
		if ok {
			r.h.hits.Add(1)
		} else if known, err = r.read(ctx, at, before); err != nil {
			if errors.Is(err, errChanged) {
				return Changed
			}
			if ctx.Err() != nil {
				return Stopped
			}
			return Unreadable
		}
		e.MD5, e.SHA1, e.SHA256 = known.md5, known.sha1, known.sha256
		if e.MTime == 0 {
			e.Inode, e.Mode, e.OwnerUID, e.OwnerGID = st.Ino, st.Mode, st.Uid, st.Gid
		}
		e.Size, e.MTime, e.CTime, e.ATime = before.size, before.mtime, before.ctime, st.Atim.Nano()
		return ""
	}
}

var errChanged = errors.New("the file changed while it was read")

// read reads the file that at is, if it stays in this state.
func (r *reader) read(ctx context.Context, at int, before state) (sums, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return sums{}, err
	}
	defer unix.Close(fd)
	var makers [3]hash.Hash
	makers[0] = sha256.New()
	if r.h.opt.MD5 {
		makers[1] = md5.New()
	}
	if r.h.opt.SHA1 {
		makers[2] = sha1.New()
	}
	var total uint64
	for {
		n, err := unix.Read(fd, r.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return sums{}, err
		}
		if n == 0 {
			break
		}
		for _, m := range makers {
			if m != nil {
				m.Write(r.buf[:n])
			}
		}
		if total += uint64(n); total > before.size {
			return sums{}, errChanged
		}
		r.moved.Add(1)
		if err := r.pace(ctx, int64(n)); err != nil {
			return sums{}, err
		}
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || stateOf(&st) != before || total != before.size {
		return sums{}, errChanged
	}
	var s sums
	for i, to := range [...]*string{&s.sha256, &s.md5, &s.sha1} {
		if makers[i] != nil {
			*to = hex.EncodeToString(makers[i].Sum(nil))
		}
	}
	// A change within the same tick of the file system's clock would look the same.
	if time.Since(time.Unix(0, max(before.ctime, before.mtime))) > 50*time.Millisecond {
		if len(r.cache) >= cached {
			clear(r.cache)
		}
		r.cache[before] = s
	}
	return s, nil
}

// pace keeps to the rate.
func (r *reader) pace(ctx context.Context, n int64) error {
	if r.spent == 0 {
		r.since = time.Now()
	}
	if r.spent += n; r.spent < r.h.opt.Rate/8 {
		return ctx.Err()
	}
	wait := time.Duration(r.spent)*time.Second/time.Duration(r.h.opt.Rate) - time.Since(r.since)
	r.spent = 0
	if wait <= 0 {
		return ctx.Err()
	}
	for ; wait > 0; wait -= time.Second { // in steps, by which we are seen to wait
		select {
		case <-time.After(min(wait, time.Second)):
			r.moved.Add(1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// open opens the file of that name, which the kernel wrote: no link is followed to it.
func open(name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err == unix.ENOSYS || err == unix.EPERM { // before 5.6
		return unix.Open(name, flags, 0)
	}
	return fd, err
}

func stateOf(st *unix.Stat_t) state {
	return state{dev: uint64(st.Dev), inode: st.Ino, size: uint64(st.Size), mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
}

// sameDevice reports whether a file is on the device that the event names. On btrfs each
// subvolume shows another than the file system has.
func sameDevice(fd int, want string, dev uint64) bool {
	if want == "" || want == strconv.Itoa(int(unix.Major(dev)))+":"+strconv.Itoa(int(unix.Minor(dev))) {
		return true
	}
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC
}

// Counts are what became of the files asked for. No event is lost by it.
func (h *Hasher) Counts() []event.Count {
	var all []event.Count
	for i := range reasons {
		if n := h.failed[i].Load(); n > 0 {
			all = append(all, event.Count{Source: "content", Kind: event.KindFile, What: event.Failed, Reason: reasons[i], N: n})
		}
	}
	return all
}
