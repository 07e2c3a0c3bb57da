package audit

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/procfs"
)

// ask is /proc, where what records leave open is looked up while it lasts. It belongs to
// the goroutine of Run.
type ask struct{ dir *procfs.Dir }

// fdPath returns the path behind a descriptor of a process, if that is still the file with
// this device (major:minor) and inode.
func (a ask) fdPath(pid uint32, fd int32, device string, inode uint64) string {
	p, err := a.dir.Process(int(pid))
	if err != nil || fd < 0 {
		return ""
	}
	path, dev, ino, err := p.FD(int(fd))
	if err != nil || ino != inode || len(path) == 0 || path[0] != '/' ||
		fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) != device {
		return ""
	}
	return path
}

// thread tells whether a number is a process's or a thread's.
func (a ask) thread(tid uint32) threadAnswer {
	var st procfs.Status
	p, err := a.dir.Process(int(tid))
	if err != nil || p.Status(&st) != nil || st.TGID <= 0 {
		return threadGone
	}
	if st.TGID == int(tid) {
		return threadLeads
	}
	return threadIs
}
