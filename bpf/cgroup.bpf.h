/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Cgroups made, removed and renamed (kernel/cgroup/cgroup.c, TRACE_CGROUP_PATH): what ties
 * the number in every record to a path, and a path to a container, before the first process
 * runs there.
 */

static __always_inline int emit_cgroup(CTX_PARAM u64 id, int hierarchy, const char *path, u16 op)
{
	u32 slot = this_cpu();
	struct rec_cgroup *r;
	struct build *b;

	if (!wanted(KIND_CONTAINER) || (hierarchy && hierarchy != SETTING(v1_hierarchy)))
		return 0;
	COUNT(KIND_CONTAINER, generated);
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b) {
		COUNT(KIND_CONTAINER, lost_map);
		return 0;
	}
	r = (void *)b->data;
	fill_head(&r->head, (void *)bpf_get_current_task(), KIND_CONTAINER, 0);
	r->id = id;
	r->hierarchy = hierarchy;
	r->op = op;
	r->pad = 0;
	b->off = sizeof(*r);
	r->path.off = b->off;
	r->path.len = 0;
	if (path)
		put_str(b, path, false, &r->path);
	r->head.size = b->off;
	if (OUTPUT(critical, b->data, b->off))
		COUNT(KIND_CONTAINER, lost_ring);
	return 0;
}

#ifndef LEGACY

static __always_inline int on_cgroup(struct cgroup *cgroup, const char *path, u16 op)
{
	return emit_cgroup(cgroup_id(cgroup), BPF_CORE_READ(cgroup, root, hierarchy_id),
			   SETTING(cgroup_path_told) ? path : NULL, op);
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_MKDIR));
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_RMDIR));
}

SEC("tp_btf/cgroup_rename")
int BPF_PROG(on_cgroup_rename_tp_btf, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_RENAME));
}

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_MKDIR));
}

SEC("raw_tp/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_RMDIR));
}

SEC("raw_tp/cgroup_rename")
int BPF_PROG(on_cgroup_rename_raw_tp, struct cgroup *cgroup, const char *path)
{
	hold_cpu();
	return release_cpu(on_cgroup(cgroup, path, CGROUP_RENAME));
}

#endif

/* The classic tracepoints tell the number that others know a cgroup by since 5.5. */
struct trace_event_raw_cgroup {
	int root;
	u64 id;
	u32 __data_loc_path; /* its length, and where it begins */
} __attribute__((preserve_access_index));

#define ON_CGROUP(name, op)                                                                    \
	SEC("tracepoint/cgroup/cgroup_" #name)                                                 \
	int on_cgroup_##name##_tracepoint(struct trace_event_raw_cgroup *ctx)                  \
	{                                                                                      \
		if (bpf_core_field_size(ctx->id) != sizeof(u64))                               \
			return 0;                                                              \
		hold_cpu();                                                                    \
		return release_cpu(emit_cgroup(CTX ctx->id, ctx->root,                         \
			(void *)ctx + (ctx->__data_loc_path & 0xffff), op));                   \
	}

ON_CGROUP(mkdir, CGROUP_MKDIR)
ON_CGROUP(rmdir, CGROUP_RMDIR)
ON_CGROUP(rename, CGROUP_RENAME)
