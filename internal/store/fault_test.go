package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/goshawk-project/goshawk/internal/event"
)

// disk is SQLite's view of the file system, with a switch for each way to fail.
type disk struct {
	vfs.VFSFilename
	refuse atomic.Pointer[error] // what writing and syncing return
	lazy   atomic.Bool           // syncing alone does
	slow   sync.RWMutex          // held while writing must wait
}

func newDisk(t *testing.T) *disk {
	d := &disk{VFSFilename: vfs.Find("").(vfs.VFSFilename)}
	vfs.Register(t.Name(), d)
	t.Cleanup(func() { vfs.Unregister(t.Name()) })
	return d
}

func (d *disk) fail(err error) {
	if err == nil {
		d.refuse.Store(nil)
	} else {
		d.refuse.Store(&err)
	}
}

func (d *disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &file{f, d}, flags, nil
}

type file struct {
	vfs.File
	disk *disk
}

func (f *file) state() error {
	f.disk.slow.RLock()
	defer f.disk.slow.RUnlock()
	if err := f.disk.refuse.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.state(); err != nil && !f.disk.lazy.Load() {
		return 0, err
	}
	return f.File.(io.WriterAt).WriteAt(b, off)
}

func (f *file) Sync(flags vfs.SyncFlag) error {
	if err := f.state(); err != nil {
		return err
	}
	return f.File.Sync(flags)
}

func (f *file) SharedMemory() vfs.SharedMemory {
	return f.File.(vfs.FileSharedMemory).SharedMemory()
}

func (f *file) HasMoved() (bool, error) { return f.File.(vfs.FileHasMoved).HasMoved() }

// warnings collects what a store has to say.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) add(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, s)
}

// expect fails the test unless there was one warning for each of parts, which holds it.
func (w *warnings) expect(t *testing.T, parts ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	ok := len(w.text) == len(parts)
	for i := range min(len(w.text), len(parts)) {
		ok = ok && strings.Contains(w.text[i], parts[i])
	}
	if !ok {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(w.text, "\n"), strings.Join(parts, "\n"))
	}
}

// lost is what was lost, by reason and kind.
func lost(s *Store) map[string]uint64 {
	out := map[string]uint64{}
	for _, c := range s.Counts() {
		if c.What == event.Lost {
			out[c.Reason+" "+c.Kind.String()] += c.N
		}
	}
	return out
}

func TestTheDiskRefusesAndComesBack(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		is   error
		lazy bool
	}{
		{"full", sqlite3.FULL, ErrFull, false},
		{"broken", sqlite3.IOERR_WRITE, sqlite3.IOERR, false},
		// What was written is on disk after all, and must not be there twice.
		{"does not sync", sqlite3.IOERR_FSYNC, sqlite3.IOERR, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w warnings
				d := newDisk(t)
				s := open(t, Options{Dir: t.TempDir(), Warn: w.add, vfs: t.Name()})
				f := newFeed()
				var want []event.Event
				add := func(n int) {
					for _, e := range f.batch(n) {
						s.Append(e)
						want = append(want, e)
					}
				}
				add(100)
				commit(t, s)
				w.expect(t)

				d.lazy.Store(c.lazy)
				d.fail(c.err)
				add(100)
				if err := s.Commit(t.Context()); !errors.Is(err, c.is) {
					t.Errorf("commit: %v", err)
				}
				if got := len(eids(t, s, event.Selection{})); got != 100 {
					t.Errorf("%d events are seen, not the 100 that are acknowledged", got)
				}
				time.Sleep(5 * time.Minute)
				add(3000)
				time.Sleep(5 * time.Minute)
				if st := s.Stats(); !errors.Is(st.Err, c.is) || st.Pending == 0 || st.CommittedEID != 100 {
					t.Errorf("got %+v", st)
				}
				w.expect(t, "cannot write events")

				d.fail(nil)
				time.Sleep(retryDelay + time.Second)
				synctest.Wait()
				if st := s.Stats(); st.Err != nil || st.Pending != 0 || st.CommittedEID != 3200 {
					t.Errorf("got %+v", st)
				}
				w.expect(t, "cannot write events", "takes events again")
				add(10)
				commit(t, s)
				same(t, "after all", want, all(t, s, event.Selection{}))
				if diff := cmp.Diff(map[string]uint64{}, lost(s)); diff != "" {
					t.Error(diff)
				}
				shut(t, s)
			})
		})
	}
}

func TestWhatCannotBeKeptIsCounted(t *testing.T) {
	for _, c := range []struct {
		name, reason string
	}{
		{"refuses", ReasonDiskError},
		{"is slow", ReasonStoreFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w warnings
			d := newDisk(t)
			s := open(t, Options{Dir: t.TempDir(), Warn: w.add, vfs: t.Name()})
			f := newFeed()
			s.Append(f.nextExec())
			commit(t, s)
			if c.reason == ReasonDiskError {
				d.fail(sqlite3.FULL)
				s.Append(f.nextExec())
				if err := s.Commit(t.Context()); !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
			} else {
				d.slow.Lock()
			}
			const n = 200_000
			for range n {
				e := f.nextSocket()
				e.Kind = event.KindConnect
				s.Append(e)
			}
			connects := lost(s)[c.reason+" connect"]
			if connects < n/10 {
				t.Errorf("only %d of %d connects are lost", connects, n)
			}
			for range 1000 {
				s.Append(f.nextExec())
			}
			if got := lost(s)[c.reason+" exec"]; got != 0 {
				t.Errorf("%d execs are lost after a flood of connects", got)
			}
			if got := s.Stats().Pending; got > pendingCritical {
				t.Errorf("%d bytes are pending", got)
			}
			for range n {
				s.Append(f.nextExec())
			}
			execs := lost(s)[c.reason+" exec"]
			if execs < n/10 {
				t.Errorf("only %d of %d execs are lost", execs, n)
			}
			if got := s.Stats().Pending; got > pendingCritical+blockBytes {
				t.Errorf("%d bytes are pending", got)
			}
			if c.reason == ReasonDiskError {
				d.fail(nil)
			} else {
				d.slow.Unlock()
			}
			commit(t, s)
			var appended, delivered, gone uint64
			for _, c := range s.Counts() {
				switch c.What {
				case event.Generated:
					appended += c.N
				case event.Delivered:
					delivered += c.N
				case event.Lost:
					gone += c.N
				}
			}
			if appended != delivered+gone || gone != execs+connects {
				t.Errorf("%d appended, %d delivered, %d lost", appended, delivered, gone)
			}
			if got := uint64(len(eids(t, s, event.Selection{}))); got != delivered {
				t.Errorf("a scan finds %d events of %d delivered", got, delivered)
			}
		})
	}
}

func TestClosingOnADiskThatRefuses(t *testing.T) {
	d := newDisk(t)
	var w warnings
	s, err := Open(Options{Dir: t.TempDir(), Warn: w.add, vfs: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	d.fail(sqlite3.FULL)
	for _, e := range newFeed().only(event.KindExec, 5) {
		s.Append(e)
	}
	if err := s.Close(); !errors.Is(err, ErrFull) {
		t.Errorf("close: %v", err)
	}
	if diff := cmp.Diff(map[string]uint64{"disk_error exec": 5}, lost(s)); diff != "" {
		t.Error(diff)
	}
}

func TestOpeningWhereItCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newDisk(t).fail(sqlite3.FULL)
	for _, c := range []struct {
		name string
		o    Options
		want error
	}{
		{"sysfs", Options{Dir: "/sys/goshawk"}, ErrDenied},
		{"a file", Options{Dir: file}, syscall.ENOTDIR},
		{"a full disk", Options{Dir: t.TempDir(), vfs: t.Name()}, ErrFull},
	} {
		s, err := Open(c.o)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if s != nil {
			s.Close()
		}
	}
}

func TestTheFilesAreRemovedUnderItsFeet(t *testing.T) {
	dir := t.TempDir()
	var w warnings
	s := open(t, Options{Dir: dir, Warn: w.add})
	f := newFeed()
	for _, e := range f.batch(2000) {
		s.Append(e)
	}
	commit(t, s)
	if err := os.Remove(filepath.Join(dir, dbName)); err != nil {
		t.Fatal(err)
	}
	want := f.batch(50)
	for _, e := range want {
		s.Append(e)
	}
	commit(t, s)
	same(t, "in the new file", want, all(t, s, event.Selection{}))
	w.expect(t, "was removed")
}
