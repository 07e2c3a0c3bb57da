package procfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupTree is a mounted hierarchy of cgroups, in which a cgroup is found by the number
// that the kernel gives it (bpf_get_current_cgroup_id()) and the other way round. It
// belongs to one goroutine.
type CgroupTree struct {
	Hierarchy
	fd     int
	handle int32 // type of the hierarchy's file handles; 0 where it has none
	buf    []byte
}

// maxCgroups bounds a walk. Kernels allow as many cgroups as memory does.
const maxCgroups = 1 << 16

// OpenCgroups opens a hierarchy where it is mounted.
func OpenCgroups(h Hierarchy) (*CgroupTree, error) {
	if h.Mount == "" {
		return nil, fmt.Errorf("open cgroup hierarchy %d: not mounted", h.ID)
	}
	fd, err := unix.Open(h.Mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", h.Mount, err)
	}
	t := &CgroupTree{Hierarchy: h, fd: fd, buf: make([]byte, 16<<10)}
	// Whether handles may be opened, too, the root tells.
	if handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); err == nil && handle.Size() == 8 {
		if at, err := unix.OpenByHandleAt(fd, handle, unix.O_PATH|unix.O_CLOEXEC); err == nil {
			unix.Close(at)
			t.handle = handle.Type()
		}
	}
	return t, nil
}

// Close closes the tree.
func (t *CgroupTree) Close() error { return unix.Close(t.fd) }

// Path returns the path of the cgroup numbered id, from the root of the mount. ErrGone when
// there is none (any more). It costs about 5 us; where the kernel gives no handles
// (before 4.15, or without CAP_DAC_READ_SEARCH) it walks the tree.
func (t *CgroupTree) Path(id uint64) (string, error) {
	if t.handle != 0 {
		return t.byHandle(id)
	}
	found, here := "", errors.New("here")
	err := t.Walk(func(n uint64, at string) error {
		if n == id {
			found = at
			return here
		}
		return nil
	})
	switch {
	case errors.Is(err, here):
		return found, nil
	case err != nil:
		return "", err
	}
	return "", ErrGone
}

func (t *CgroupTree) byHandle(id uint64) (string, error) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], id)
	fd, err := unix.OpenByHandleAt(t.fd, unix.NewFileHandle(t.handle, b[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		if err == unix.ESTALE || err == unix.ENOENT {
			return "", ErrGone
		}
		return "", fmt.Errorf("open cgroup %d: %w", id, err)
	}
	defer unix.Close(fd)
	// Our own descriptors are below our own /proc, whatever the host's root is.
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), t.buf[:maxLink])
	if err != nil {
		return "", err
	}
	at, ok := strings.CutPrefix(string(t.buf[:n]), t.Mount)
	if !ok {
		return "", fmt.Errorf("find cgroup %d: %q is not below %q", id, t.buf[:n], t.Mount)
	}
	at = strings.TrimSuffix(at, deletedMark)
	if at == "" {
		at = "/"
	}
	return at, nil
}

// ID returns the number of the cgroup at path. ErrGone when there is none.
func (t *CgroupTree) ID(at string) (uint64, error) {
	name := "." + path.Clean("/"+at) // nothing above the root, whatever the path says
	if t.handle != 0 {
		h, _, err := unix.NameToHandleAt(t.fd, name, 0)
		switch {
		case err == nil && h.Size() == 8:
			return binary.NativeEndian.Uint64(h.Bytes()), nil
		case gone(err):
			return 0, ErrGone
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(t.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if gone(err) {
			return 0, ErrGone
		}
		return 0, err
	}
	return st.Ino, nil
}

// Walk calls fn with each cgroup that there is, parents first, until fn returns an error,
// which is then Walk's. It stops with one at 65,536 cgroups.
func (t *CgroupTree) Walk(fn func(id uint64, path string) error) error {
	todo := []string{"/"}
	for n := 0; len(todo) > 0; n++ {
		if n == maxCgroups {
			return fmt.Errorf("walk %q: more than %d cgroups", t.Mount, maxCgroups)
		}
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		id, err := t.ID(at)
		if err == nil {
			err = fn(id, at)
		}
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		below, err := t.list(at)
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		for _, name := range below {
			todo = append(todo, path.Join(at, name))
		}
	}
	return nil
}

// list returns the names of the cgroups right below one.
func (t *CgroupTree) list(at string) ([]string, error) {
	fd, err := unix.Openat(t.fd, "."+at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		if gone(err) {
			return nil, ErrGone
		}
		return nil, fmt.Errorf("open %q: %w", t.Mount+at, err)
	}
	d := os.NewFile(uintptr(fd), at)
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", t.Mount+at, err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// AnyProcess returns a process that is in the cgroup at path or below it, as the reader's
// pid namespace numbers it; 0 when there is none.
func (t *CgroupTree) AnyProcess(at string) int {
	todo := []string{path.Clean("/" + at)}
	for n := 0; len(todo) > 0 && n < 64; n++ {
		at, todo = todo[0], todo[1:]
		fd, err := unix.Openat(t.fd, "."+at+"/cgroup.procs", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		size, err := read(fd, t.buf[:64])
		unix.Close(fd)
		if err == nil && size > 0 {
			line, _ := nextLine(t.buf[:size])
			if pid := parseInt(line); pid > 0 {
				return pid
			}
		}
		below, err := t.list(at)
		if err != nil {
			continue
		}
		for _, name := range below {
			todo = append(todo, path.Join(at, name))
		}
	}
	return 0
}
