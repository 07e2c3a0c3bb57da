package sensor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/goshawk-project/goshawk/internal/procfs"
	"golang.org/x/sys/unix"
)

// mountForUs mounts a filesystem of the kernel where no other process sees it, and where it
// ends with its descriptor. fsopen(2) is there since 5.2.
func mountForUs(kind string) (*os.File, error) {
	context, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", kind, err)
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// pathOf names what an open file is for those who want a path.
func pathOf(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// tracefs is a directory with the numbers of the kernel's tracepoints: a mounted one, or
// one mounted for us alone, which no other process sees and which needs no unmounting.
type tracefs struct{ dir *os.Root }

func openTracefs(fs procfs.FS) (*tracefs, error) {
	for _, at := range []string{"kernel/tracing", "kernel/debug/tracing"} {
		dir, err := os.OpenRoot(filepath.Join(fs.Sys, at))
		if err != nil {
			continue
		}
		if _, err := dir.Stat("events"); err == nil {
			return &tracefs{dir}, nil
		}
		dir.Close()
	}
	mount, err := mountForUs("tracefs")
	if err != nil {
		return nil, fmt.Errorf("open tracefs, which is not mounted on /sys/kernel/tracing: %w", err)
	}
	defer mount.Close()
	dir, err := os.OpenRoot(pathOf(mount))
	if err != nil {
		return nil, fmt.Errorf("open tracefs: %w", err)
	}
	return &tracefs{dir}, nil
}

func (t *tracefs) close() error { return t.dir.Close() }

// attach attaches p to a tracepoint, named group/name. link.Tracepoint does the same for a
// tracefs that is mounted where everyone sees it.
func (t *tracefs) attach(name string, p *ebpf.Program) (io.Closer, error) {
	text, err := t.dir.ReadFile("events/" + name + "/id")
	if err != nil {
		return nil, fmt.Errorf("find tracepoint %q: %w", name, err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("find tracepoint %q: %w", name, err)
	}
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1,
	}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open perf event: %w", err)
	}
	e := &perfEvent{fd: fd}
	// Links of perf events are there since 5.15. One that is forgotten ends with its program.
	e.link, err = link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		err = errors.Join(
			unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD()),
			unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return e, nil
}

// perfEvent is a program attached to a tracepoint.
type perfEvent struct {
	fd   int
	link *link.RawLink // nil where the event holds the program itself
}

func (e *perfEvent) Close() error {
	var err error
	if e.link != nil {
		err = e.link.Close()
	}
	return errors.Join(err, unix.Close(e.fd))
}
