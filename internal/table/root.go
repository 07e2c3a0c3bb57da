package table

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
	"github.com/goshawk-project/goshawk/internal/schema"
)

// root is a directory in which paths are looked up as if it were /: symbolic links that
// are absolute or that climb with .. stay inside it. The host's root under a mount point
// and the root of a process in a container need that; a container decides where its own
// links point.
type root struct {
	fd int // ownRoot, or a descriptor of the directory
}

const ownRoot = -1

// maxLinks is how many symbolic links one lookup may follow, the kernel's own number
// (path_resolution(7)).
const maxLinks = 40

// maxDepth bounds the descriptors that a lookup in user space holds.
const maxDepth = 256

func openRoot(dir string) (root, error) {
	if dir == "" || dir == "/" {
		return root{ownRoot}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return root{}, fmt.Errorf("open root directory %q: %w", dir, err)
	}
	return root{fd}, nil
}

func (r root) close() {
	if r.fd != ownRoot {
		unix.Close(r.fd)
	}
}

// open looks up path and returns an O_PATH descriptor for the caller to close. follow
// says whether a symbolic link at the end is followed. It never blocks on FIFOs and has
// no effect on devices, for nothing is opened for reading.
func (r root) open(path string, follow bool) (int, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	if r.fd == ownRoot {
		for {
			fd, err := unix.Open(path, flags, 0)
			if err != unix.EINTR {
				return fd, err
			}
		}
	}
	// openat2(2) came with 5.6; EAGAIN is a rename in the way, EPERM a seccomp filter
	// that does not know the call.
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 8 {
		fd, err := unix.Openat2(r.fd, path, &how)
		switch err {
		case unix.EINTR, unix.EAGAIN:
			continue
		case unix.ENOSYS, unix.EPERM:
			return r.walk(path, follow)
		}
		return fd, err
	}
	return r.walk(path, follow)
}

// walk is open for kernels without openat2. It keeps a descriptor of every directory on
// the way down and goes up by dropping one, never through .., so a directory moved
// meanwhile cannot lead out of the root.
func (r root) walk(path string, follow bool) (int, error) {
	follow = follow || strings.HasSuffix(path, "/")
	if path == "" {
		return -1, unix.ENOENT
	}
	down := []int{r.fd}
	drop := func(keep int) {
		for len(down) > keep {
			unix.Close(down[len(down)-1])
			down = down[:len(down)-1]
		}
	}
	defer func() { drop(1) }()
	ahead := components(nil, path)
	links := 0
	for len(ahead) > 0 {
		name := ahead[len(ahead)-1]
		ahead = ahead[:len(ahead)-1]
		if name == ".." {
			drop(max(1, len(down)-1))
			continue
		}
		if len(down) > maxDepth {
			return -1, unix.ENAMETOOLONG
		}
		fd, err := unix.Openat(down[len(down)-1], name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return -1, err
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFLNK && (len(ahead) > 0 || follow) {
			target, err := readlink(fd)
			unix.Close(fd)
			if err != nil {
				return -1, err
			}
			if links++; links > maxLinks {
				return -1, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				drop(1)
			}
			ahead = components(ahead, target)
			continue
		}
		down = append(down, fd)
		if kind != unix.S_IFDIR && (len(ahead) > 0 || strings.HasSuffix(path, "/")) {
			return -1, unix.ENOTDIR
		}
	}
	return unix.FcntlInt(uintptr(down[len(down)-1]), unix.F_DUPFD_CLOEXEC, 0)
}

// components pushes the parts of path onto a stack, the first part on top.
func components(stack []string, path string) []string {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if parts[i] != "" && parts[i] != "." {
			stack = append(stack, parts[i])
		}
	}
	return stack
}

// readlink returns the target of the symbolic link that an O_PATH descriptor refers to.
func readlink(fd int) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// openRegular reopens an O_PATH descriptor of a regular file for reading, and refuses
// every other kind: opening a FIFO may wait for ever, and opening a device may start it.
// The file's access time is left alone where the kernel allows it.
func openRegular(fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errNotRegular
	}
	n, err := procfs.Reopen(fd, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME)
	if err == unix.EPERM { // only the owner and CAP_FOWNER may leave it alone (open(2))
		n, err = procfs.Reopen(fd, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	return n, err
}

var errNotRegular = errors.New("not a regular file")

// readFile returns the whole content of a regular file of at most limit bytes.
func (r root) readFile(path string, limit int) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("read %q: %w", path, err) }
	at, err := r.open(path, true)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(at)
	fd, err := openRegular(at)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var out []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fail(err)
		case n == 0:
			return out, nil
		case len(out)+n > limit:
			return fail(fmt.Errorf("more than %d bytes", limit))
		}
		out = append(out, buf[:n]...)
	}
}

// names calls yield with the name of each entry of the directory that an O_PATH
// descriptor refers to, in no order, until yield returns false. It holds one block of
// names at a time, so a directory of any size will do.
func names(fd int, yield func(name string) bool) error {
	n, err := procfs.Reopen(fd, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(n), "")
	defer f.Close()
	for {
		block, err := f.Readdirnames(512)
		for _, name := range block {
			if !yield(name) {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// scope is one mount namespace that a query asks about.
type scope struct {
	root
	pid   int64  // pid_with_namespace as asked for, 0 for the host
	mount string // mount namespace's inode number, "" for the host
}

// scopes opens the root directories that a query's pid_with_namespace names, or the
// host's. A process that is gone or may not be looked into is a warning, not an error,
// as in osquery. The caller closes them.
func (env *Env) scopes(def *schema.Def, q *schema.Query) ([]*scope, error) {
	pids, asked := q.Equals(def.Column("pid_with_namespace"))
	if !asked {
		pids = []schema.Value{schema.IntValue(0)}
	}
	var out []*scope
	seen := map[int64]bool{}
	for _, v := range pids {
		pid := v.Int()
		if seen[pid] || pid < 0 || pid > maxPID {
			continue
		}
		seen[pid] = true
		if pid == 0 {
			r, err := openRoot(env.HostRoot)
			if err != nil {
				closeScopes(out)
				return nil, err
			}
			out = append(out, &scope{root: r})
			continue
		}
		fd, err := env.FS.ProcessRoot(int(pid))
		if err != nil {
			q.Warning(err.Error())
			continue
		}
		s := &scope{root: root{fd}, pid: pid}
		if ns, err := env.FS.MountNamespace(int(pid)); err == nil {
			s.mount = strconv.FormatUint(ns, 10)
		}
		out = append(out, s)
	}
	return out, nil
}

// maxPID is the greatest process number there can be: PID_MAX_LIMIT of
// include/linux/threads.h, 2^22.
const maxPID = 1 << 22

func closeScopes(scopes []*scope) {
	for _, s := range scopes {
		s.close()
	}
}

// eachScope calls f for every mount namespace that a query asks about.
func (env *Env) eachScope(def *schema.Def, q *schema.Query, f func(*scope) error) error {
	scopes, err := env.scopes(def, q)
	if err != nil {
		return err
	}
	defer closeScopes(scopes)
	for _, s := range scopes {
		if err := f(s); err != nil {
			return err
		}
	}
	return nil
}
