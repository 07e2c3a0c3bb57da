package sensor

import (
	"fmt"

	"github.com/cilium/ebpf/btf"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

// v1 returns the number of the cgroup v1 controller whose hierarchy tells containers apart,
// as css_set.subsys counts, and that hierarchy's; -1 where v2 is all there is. Controllers
// are numbered by enum cgroup_subsys_id, of the given types or the kernel's own; a kernel without
// any is so old that /proc/cgroups still lists all of them, in that order
// (kernel/cgroup/cgroup-v1.c, proc_cgroupstats_show).
func (o *Options) v1(cache *btf.Cache, types *btf.Spec) (controller, hierarchy int) {
	h, name := o.FS.ContainerHierarchy()
	if name == "" {
		return -1, -1
	}
	if types == nil {
		types, _ = cache.Kernel()
	}
	if types != nil {
		var enum *btf.Enum
		if types.TypeByName(controllersEnum, &enum) == nil {
			if n := controllerIn(enum, name); n >= 0 {
				return n, h.ID
			}
		}
	}
	names, err := o.FS.CgroupControllers()
	if err != nil {
		return -1, -1
	}
	for i, n := range names {
		if n == name {
			return i, h.ID
		}
	}
	return -1, -1
}

// controllerIn finds a controller's number, -1 without it. Before 3.15 the names were not quite
// those of /proc/cgroups (include/linux/cgroup_subsys.h).
func controllerIn(enum *btf.Enum, name string) int {
	before := map[string]string{"cpu": "cpu_cgroup", "memory": "mem_cgroup", "perf_event": "perf"}[name]
	if before == "" {
		before = name
	}
	for _, v := range enum.Values {
		if v.Name == name+"_cgrp_id" || v.Name == before+"_subsys_id" {
			return int(v.Value)
		}
	}
	return -1
}

// cgroup decodes rec_cgroup. Whether the cgroup is a container's is for others to say.
func (d *decoder) cgroup(raw []byte, b *event.Batch) error {
	r, err := fixed[bpf.GoshawkRecCgroup](raw)
	if err != nil {
		return err
	}
	path, err := span(raw, r.Path)
	if err != nil {
		return err
	}
	var op string
	switch bpf.GoshawkCgroupOp(r.Op) {
	case bpf.GoshawkCgroupOpCGROUP_MKDIR:
		op = event.CgroupMkdir
	case bpf.GoshawkCgroupOpCGROUP_RMDIR:
		op = event.CgroupRmdir
	case bpf.GoshawkCgroupOpCGROUP_RENAME:
		op = event.CgroupRename
	default:
		return fmt.Errorf("%w, cgroup operation %d", errValue, r.Op)
	}
	e := b.Add(event.KindContainer).(*event.Container)
	d.header(&e.Header, &r.Head)
	e.Operation, e.CgroupPath, e.Cgroup, e.Hierarchy = op, string(path), r.Id, r.Hierarchy
	return nil
}
