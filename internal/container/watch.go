package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watcher sees runtimes write down what they are about to start, before the first process
// runs: inotify(7) on the directories where they do. It belongs to its goroutine.
type watcher struct {
	r     *Resolver
	file  *os.File
	fd    int
	dirs  map[int32]string // by watch descriptor
	paths map[string]int32
	told  map[string]string // what was told of a container last, by the path of its file
}

const (
	// maxWatches bounds the directories watched; a node rarely runs more than 500
	// containers.
	maxWatches = 4096
	maxTold    = 8192

	dirMask  = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
	fileMask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
)

func newWatcher(r *Resolver) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch runtimes' directories: %w", err)
	}
	return &watcher{r: r, fd: fd, file: os.NewFile(uintptr(fd), "inotify"), dirs: make(map[int32]string),
		paths: make(map[string]int32), told: make(map[string]string)}, nil
}

func (w *watcher) close() { w.file.Close() }

// run looks at everything now and then, and at what inotify names at once.
func (w *watcher) run() {
	stop := make(chan struct{})
	defer close(stop)
	w.r.wait.Go(func() { // wakes the read below
		select {
		case <-w.r.ctx.Done():
		case <-stop:
		}
		w.file.SetReadDeadline(time.Unix(1, 0))
	})
	buf := make([]byte, 16<<10)
	for {
		w.scan()
		next := time.Now().Add(lookAround)
		for {
			if w.r.ctx.Err() != nil {
				return
			}
			w.file.SetReadDeadline(next)
			if w.r.ctx.Err() != nil { // its deadline must not be overwritten
				return
			}
			n, err := w.file.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				if !errors.Is(err, fs.ErrClosed) {
					w.r.opt.Warn(fmt.Sprintf("containers: read inotify: %v", err))
				}
				return
			}
			if !w.events(buf[:n]) {
				break // events were lost: look at everything
			}
		}
	}
}

// scan watches what is there and reads what is new.
func (w *watcher) scan() {
	if len(w.told) > maxTold {
		clear(w.told)
	}
	w.add("/run", unix.IN_CREATE|unix.IN_ONLYDIR)
	for i := range states {
		w.stateDir(i)
	}
	for _, t := range tasks {
		w.taskDir(t)
	}
	for _, s := range stores {
		if w.add(s, fileMask) {
			w.store(s)
		}
	}
}

func (w *watcher) stateDir(i int) {
	if !w.add(states[i].dir, dirMask) {
		return
	}
	for _, id := range w.r.files.list(states[i].dir) {
		w.state(i, id)
	}
}

func (w *watcher) taskDir(t string) {
	if !w.add(t, dirMask) {
		return
	}
	for _, ns := range w.r.files.list(t) {
		w.namespaceDir(filepath.Join(t, ns))
	}
}

func (w *watcher) namespaceDir(dir string) {
	if !w.add(dir, dirMask) {
		return
	}
	for _, id := range w.r.files.list(dir) {
		w.bundle(filepath.Join(dir, id))
	}
}

// add watches a directory; false when that cannot be.
func (w *watcher) add(dir string, mask uint32) bool {
	if _, ok := w.paths[dir]; ok {
		return true
	}
	if len(w.paths) >= maxWatches {
		return true // seen at the next look around
	}
	wd, err := unix.InotifyAddWatch(w.fd, w.r.files.at(dir), mask)
	if err != nil {
		return false
	}
	w.paths[dir] = int32(wd)
	w.dirs[int32(wd)] = dir
	return true
}

// events takes what inotify tells; false when it told less than happened.
func (w *watcher) events(b []byte) bool {
	whole := true
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		length := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if length > len(b) {
			return false
		}
		name, _, _ := bytes.Cut(b[:length], []byte{0})
		b = b[length:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			whole = false
		case mask&unix.IN_IGNORED != 0: // the directory is gone
			delete(w.told, w.dirs[wd])
			delete(w.paths, w.dirs[wd])
			delete(w.dirs, wd)
		default:
			if dir, ok := w.dirs[wd]; ok && len(name) > 0 {
				w.named(dir, string(name))
			}
		}
	}
	return whole
}

// named looks at a file or directory that has appeared, or was written.
func (w *watcher) named(dir, name string) {
	path := filepath.Join(dir, name)
	for i, s := range states {
		switch {
		case path == s.dir:
			w.stateDir(i)
			return
		case dir == s.dir:
			w.state(i, name)
			return
		case filepath.Dir(dir) == s.dir:
			if name == s.file {
				w.state(i, filepath.Base(dir))
			}
			return
		}
	}
	for _, t := range tasks {
		switch {
		case dir == "/run":
			if strings.HasPrefix(t, path+"/") {
				w.taskDir(t)
			}
		case dir == t:
			w.namespaceDir(path)
			return
		case filepath.Dir(dir) == t:
			w.bundle(path)
			return
		case filepath.Dir(filepath.Dir(dir)) == t:
			if name == "config.json" {
				w.bundle(dir)
			}
			return
		}
	}
	for _, s := range stores {
		if dir == s && (name == lists[0] || name == lists[1]) {
			w.store(s)
		}
	}
}

// changed notes what is told of a container by a file, and reports whether that is new.
func (w *watcher) changed(path, what string) bool {
	if w.told[path] == what {
		return false
	}
	w.told[path] = what
	return true
}

// state reads what runc or crun keeps of a container. It is there before the first process
// is executed, and names the cgroup.
func (w *watcher) state(i int, id string) {
	dir := filepath.Join(states[i].dir, id)
	if !w.add(dir, fileMask) {
		return
	}
	s := w.r.readState(i, id)
	if s == nil || !w.changed(dir, fmt.Sprint(s.PID, s.Start)) {
		return
	}
	f := w.r.stateFacts(states[i].runtime, id, s)
	if lasting(id) {
		w.r.tell(about{id: id}, f)
		return
	}
	for _, v1 := range [...]bool{false, true} {
		path := w.r.cgroupOf(s, v1)
		if path == "" {
			continue
		}
		if n, err := w.r.number(path, v1); err == nil {
			w.r.tell(about{id: id, ref: Ref{Root: path}, cgroup: n, v1: v1}, f)
		}
	}
}

// bundle reads the configuration of a container of containerd's. It is written before the
// cgroup is made.
func (w *watcher) bundle(dir string) {
	if !w.add(dir, fileMask) {
		return
	}
	if _, ok := w.told[dir]; ok {
		return // a bundle is written once, and gone before another may be called the same
	}
	b, _, err := w.r.files.read(filepath.Join(dir, "config.json"), maxSpec)
	if err != nil {
		return // not written yet
	}
	f, spec, err := specFacts(b, dir)
	if err != nil {
		return // half of it, perhaps
	}
	w.told[dir] = ""
	id, ns := filepath.Base(dir), filepath.Base(filepath.Dir(dir))
	if ns == "moby" {
		return // Docker tells more, when it is asked or by its own files
	}
	if f.Runtime == "" {
		f.Runtime = Containerd
	}
	if lasting(id) {
		w.r.tell(about{id: id}, f)
		return
	}
	if f.Name == "" {
		f.Name = id
	}
	path := spec.Linux.CgroupsPath
	if !filepath.IsAbs(path) {
		return
	}
	path = filepath.Clean(path)
	for _, v1 := range [...]bool{false, true} {
		a := about{id: id, ref: Ref{Root: path}, v1: v1}
		if n, err := w.r.number(path, v1); err == nil {
			a.cgroup = n
		}
		w.r.tell(a, f)
	}
}

// store reads the list of podman's containers, and tells those that are new.
func (w *watcher) store(dir string) {
	for _, list := range lists {
		b, _, err := w.r.files.read(filepath.Join(dir, list), maxFile)
		if err != nil {
			continue
		}
		err = eachStored(b, func(c *stored) {
			if lasting(c.ID) && w.changed(filepath.Join(dir, c.ID), c.Image+" "+strings.Join(c.Names, " ")) {
				w.r.tell(about{id: c.ID}, c.facts())
			}
		})
		if err != nil {
			w.r.failed(err)
		}
	}
}
