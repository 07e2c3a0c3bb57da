package sensor

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"github.com/goshawk-project/goshawk/bpf"
	"github.com/goshawk-project/goshawk/internal/event"
)

func cgroupRecord(op bpf.GoshawkCgroupOp, path string) []byte {
	r := bpf.GoshawkRecCgroup{Head: head(event.KindContainer), Id: 4711, Hierarchy: 5, Op: uint16(op)}
	r.Head.Cgroup1, r.Head.NsPid, r.Head.PidNs = 88, 7, 4026532000
	b := raw(r)
	r.Path = with(&b, path)
	r.Head.Size = uint32(len(b))
	copy(b, raw(r))
	return b
}

func TestDecodeCgroup(t *testing.T) {
	for op, want := range map[bpf.GoshawkCgroupOp]string{
		bpf.GoshawkCgroupOpCGROUP_MKDIR:  event.CgroupMkdir,
		bpf.GoshawkCgroupOpCGROUP_RMDIR:  event.CgroupRmdir,
		bpf.GoshawkCgroupOpCGROUP_RENAME: event.CgroupRename,
	} {
		for _, path := range []string{"/docker/x", "", "/a\nb\xff"} {
			e := &event.Container{Header: wantHeader(event.KindContainer), Operation: want, CgroupPath: path, Cgroup: 4711, Hierarchy: 5}
			e.CgroupV1, e.ContainerPID, e.PIDNamespace = 88, 7, 4026532000
			if diff := cmp.Diff([]event.Event{e}, feed(t, newDrain(t), cgroupRecord(op, path))); diff != "" {
				t.Error(diff)
			}
		}
	}
	d := newDrain(t)
	d.batch = event.NewBatch()
	if err := d.s.decode.record(cgroupRecord(4, "/x"), d); !errors.Is(err, errValue) {
		t.Errorf("an unknown operation: %v", err)
	}
}

func TestController(t *testing.T) {
	now := &btf.Enum{Name: controllersEnum, Values: []btf.EnumValue{{Name: "cpuset_cgrp_id"}, {Name: "cpu_cgrp_id", Value: 1}, {Name: "memory_cgrp_id", Value: 3}}}
	before := &btf.Enum{Name: controllersEnum, Values: []btf.EnumValue{{Name: "cpuset_subsys_id"}, {Name: "cpu_cgroup_subsys_id", Value: 1},
		{Name: "mem_cgroup_subsys_id", Value: 3}, {Name: "perf_subsys_id", Value: 8}, {Name: "pids_subsys_id", Value: 10}}}
	for _, c := range []struct {
		enum *btf.Enum
		name string
		want int
	}{
		{now, "cpuset", 0}, {now, "memory", 3}, {now, "pids", -1},
		{before, "cpuset", 0}, {before, "cpu", 1}, {before, "memory", 3}, {before, "perf_event", 8}, {before, "pids", 10}, {before, "blkio", -1},
	} {
		if got := controllerIn(c.enum, c.name); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
