package procfs

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below are those of package unix without its copies: names are strings that
// end in NUL, so that reading a process allocates nothing. They restart on EINTR.

func mustEndInNUL(nameZ string) {
	if nameZ == "" || nameZ[len(nameZ)-1] != 0 {
		panic("BUG: name does not end in NUL")
	}
}

// openat opens nameZ below the directory descriptor dir.
func openat(dir int, nameZ string, flags int) (int, error) {
	mustEndInNUL(nameZ)
	for {
		fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir),
			uintptr(unsafe.Pointer(unsafe.StringData(nameZ))), uintptr(flags|unix.O_CLOEXEC), 0, 0, 0)
		if e == 0 {
			return int(fd), nil
		}
		if e != unix.EINTR {
			return -1, e
		}
	}
}

// readlinkat fills buf with the target of the link nameZ below dir.
func readlinkat(dir int, nameZ string, buf []byte) (int, error) {
	mustEndInNUL(nameZ)
	for {
		n, _, e := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir),
			uintptr(unsafe.Pointer(unsafe.StringData(nameZ))),
			uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// gone reports whether err is how the kernel says that a process is not there any more:
// ENOENT from a lookup, ESRCH from an open file or directory, EINVAL from a zombie's net.
func gone(err error) bool {
	return err == unix.ENOENT || err == unix.ESRCH || err == unix.EINVAL
}

// direntHeader is the size of struct linux_dirent64 before its name.
const direntHeader = 19

// eachNumber calls fn for every entry of a buffer of getdents64(2) whose name is a
// decimal number. Anything malformed ends the walk.
func eachNumber(buf []byte, fn func(n int)) {
	for len(buf) >= direntHeader {
		size := int(binary.NativeEndian.Uint16(buf[16:]))
		if size < direntHeader || size > len(buf) {
			return
		}
		if n, ok := direntNumber(buf[direntHeader:size]); ok {
			fn(n)
		}
		buf = buf[size:]
	}
}

func direntNumber(name []byte) (int, bool) {
	n := 0
	for i, c := range name {
		if c == 0 {
			return n, i > 0
		}
		if c < '0' || c > '9' || n > 1<<31/10 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return 0, false
}
