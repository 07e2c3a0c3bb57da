package canary

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/goshawk-project/goshawk/internal/event"
	"github.com/goshawk-project/goshawk/internal/procfs"
)

// group makes a cgroup without processes and removes it again.
func group(r *round) []*trial {
	r.cgroup = "goshawk-canary-" + r.nonce
	trials := []*trial{}
	var id uint64
	do := func(operation, what string, act func() error) {
		t := &trial{Result: Result{Kind: event.KindContainer, What: what}, hooks: []string{"cgroup"}, done: time.Now()}
		if err := act(); err != nil {
			t.Skipped = fmt.Sprintf("%s: %v", what, err)
		}
		t.match = func(e event.Event) bool {
			x, ok := e.(*event.Container)
			return ok && x.Operation == operation
		}
		t.check = func(e event.Event) string {
			x := e.(*event.Container)
			return wrong("container_cgroup_id", x.Cgroup == id) +
				wrong("cgroup_path", x.CgroupPath == "" || strings.HasSuffix(x.CgroupPath, "/"+r.cgroup))
		}
		trials = append(trials, t)
	}
	root, err := procfs.At("").Cgroup2()
	dir := filepath.Join(root, r.cgroup)
	do(event.CgroupMkdir, "make a cgroup", func() error {
		if err != nil {
			return err
		}
		if err = unix.Mkdir(dir, 0o755); err != nil {
			return err
		}
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		id = st.Ino
		r.cgroupID = id
		return err
	})
	do(event.CgroupRmdir, "remove a cgroup", func() error {
		if err != nil {
			return err
		}
		return unix.Rmdir(dir)
	})
	return trials
}
