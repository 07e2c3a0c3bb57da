/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Cgroups made, removed and renamed (kernel/cgroup/cgroup.c, TRACE_CGROUP_PATH): what ties
 * the number in every record to a path, and a path to a container, before the first process
 * runs there.
 */

/* User space sets it from 4.19 on, where the tracepoints hand the path over. */
volatile const bool cgroup_path_told;

static __always_inline int emit_cgroup(struct cgroup *cgroup, const char *path, u16 op)
{
	int hierarchy = BPF_CORE_READ(cgroup, root, hierarchy_id);
	u32 slot = bpf_get_smp_processor_id();
	struct rec_cgroup *r;
	struct build *b;

	if (!wanted(KIND_CONTAINER) || (hierarchy && hierarchy != v1_hierarchy))
		return 0;
	COUNT(KIND_CONTAINER, generated);
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b) {
		COUNT(KIND_CONTAINER, lost_map);
		return 0;
	}
	r = (void *)b->data;
	fill_head(&r->head, (void *)bpf_get_current_task(), KIND_CONTAINER, 0);
	r->id = cgroup_id(cgroup);
	r->hierarchy = hierarchy;
	r->op = op;
	r->pad = 0;
	b->off = sizeof(*r);
	r->path.off = b->off;
	r->path.len = 0;
	if (cgroup_path_told)
		put_kernel_str(b, path, &r->path);
	r->head.size = b->off;
	if (bpf_ringbuf_output(&critical, b->data, b->off & BUILD_MASK, 0))
		COUNT(KIND_CONTAINER, lost_ring);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_MKDIR));
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_RMDIR));
}

SEC("tp_btf/cgroup_rename")
int BPF_PROG(on_cgroup_rename_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_RENAME));
}

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_MKDIR));
}

SEC("raw_tp/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_RMDIR));
}

SEC("raw_tp/cgroup_rename")
int BPF_PROG(on_cgroup_rename_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(emit_cgroup(cgroup, path, CGROUP_RENAME));
}
