/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What every record says of the process that acted. */
#ifndef GOSHAWK_TASK_H
#define GOSHAWK_TASK_H

#include "ring.h"

static __always_inline u64 start_of(struct task_struct *leader)
{
	struct task_struct___before_5_5 *older = (void *)leader;
	struct task_struct___before_3_17 *oldest = (void *)leader;
	u64 start = 0;

	if (bpf_core_field_exists(leader->start_boottime))
		start = BPF_CORE_READ(leader, start_boottime);
	if (bpf_core_field_exists(older->real_start_time))
		start = BPF_CORE_READ(older, real_start_time);
	if (bpf_core_field_exists(oldest->real_start_time))
		start = BPF_CORE_READ(oldest, real_start_time.tv_sec) * 1000000000ULL +
			BPF_CORE_READ(oldest, real_start_time.tv_nsec);
	return start;
}

/* A uid or gid. Before 3.14 a kernel may be built with plain numbers for them. */
#define READ_ID(p, type, field)                                                     \
	({                                                                          \
		u32 id_ = -1;                                                       \
		if (bpf_core_field_exists((p)->field.val))                          \
			id_ = BPF_CORE_READ(p, field.val);                          \
		if (bpf_core_field_exists(((struct type##___plain *)(p))->field))   \
			id_ = BPF_CORE_READ((struct type##___plain *)(p), field);   \
		id_;                                                                \
	})

/* The number of a cgroup: what stat(2) calls the inode of its directory, in the lower half. */
static __always_inline u64 cgroup_id(struct cgroup *cgroup)
{
	struct cgroup___before_3_15 *oldest = (void *)cgroup;
	struct kernfs_node___before_5_5 *older;
	struct kernfs_node___before_4_14 *old;
	struct kernfs_node *kn;
	u64 id = 0;

	if (bpf_core_field_exists(oldest->dentry))
		id = BPF_CORE_READ(oldest, dentry, d_inode, i_ino);
	if (!bpf_core_field_exists(cgroup->kn))
		return id;
	kn = BPF_CORE_READ(cgroup, kn);
	old = (void *)kn;
	older = (void *)kn;
	if (bpf_core_field_exists(kn->id))
		id = BPF_CORE_READ(kn, id);
	if (bpf_core_field_exists(older->id.id))
		id = BPF_CORE_READ(older, id.id);
	if (bpf_core_field_exists(old->ino))
		id = BPF_CORE_READ(old, ino);
	return id;
}

static __always_inline u64 cgroup2_of(struct task_struct *t)
{
	struct css_set *set = NULL;

	if (!bpf_core_field_exists(set->dfl_cgrp)) /* before 3.16 */
		return 0;
	return cgroup_id(BPF_CORE_READ(t, cgroups, dfl_cgrp));
}

static __always_inline u64 cgroup1_of(struct task_struct *t)
{
	struct cgroup_subsys_state *css = NULL;
	u64 controller = SETTING(v1_controller);
	void *set;

	if (controller > 64) /* none */
		return 0;
	set = BPF_CORE_READ(t, cgroups);
	bpf_probe_read_kernel(&css, sizeof(css), set + bpf_core_field_offset(struct css_set, subsys) +
						     controller * sizeof(css));
	return cgroup_id(BPF_CORE_READ(css, cgroup));
}

static __always_inline struct pid *pid_of(struct task_struct *t)
{
	if (bpf_core_field_exists(t->thread_pid))
		return BPF_CORE_READ(t, thread_pid);
	return BPF_CORE_READ((struct task_struct___before_4_19 *)t, pids[0].pid);
}

/* fill_namespace says what a process is called inside its own pid namespace (kernel/pid.c,
 * pid_nr_ns): the last of its numbers, unless that is the initial one.
 */
static __always_inline void fill_namespace(struct rec_head *h, struct task_struct *leader)
{
	struct pid *pid = pid_of(leader);
	u64 level = BPF_CORE_READ(pid, level);
	struct pid_namespace___before_3_19 *older;
	struct pid_namespace *ns;
	struct upid *last;

	h->ns_pid = 0;
	h->pid_ns = 0;
	if (!level)
		return;
	last = (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);
	h->ns_pid = BPF_CORE_READ(last, nr);
	ns = BPF_CORE_READ(last, ns);
	older = (void *)ns;
	if (bpf_core_field_exists(ns->ns.inum))
		h->pid_ns = BPF_CORE_READ(ns, ns.inum);
	if (bpf_core_field_exists(older->proc_inum))
		h->pid_ns = BPF_CORE_READ(older, proc_inum);
}

/* What is known of task t, which acts. Uses base helpers only, so that cgroup programs
 * may call it too.
 */
SHARED void fill_head(struct rec_head *h, struct task_struct *t, u16 kind, u32 size)
{
	struct task_struct *leader = BPF_CORE_READ(t, group_leader);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	const struct cred *cred = BPF_CORE_READ(t, real_cred);
	struct tty_struct *tty = BPF_CORE_READ(t, signal, tty);

	h->time = now();
	h->size = size;
	h->kind = kind;
	h->flags = 0;
	h->number = 0;
	h->pid = BPF_CORE_READ(t, tgid);
	h->tid = BPF_CORE_READ(t, pid);
	h->start = start_of(leader);
	h->ppid = BPF_CORE_READ(parent, tgid);
	h->pstart = start_of(BPF_CORE_READ(parent, group_leader));
	h->uid = READ_ID(cred, cred, uid);
	h->gid = READ_ID(cred, cred, gid);
	h->euid = READ_ID(cred, cred, euid);
	h->egid = READ_ID(cred, cred, egid);
	h->auid = READ_ID(t, task_struct, loginuid);
	h->session = -1;
	if (bpf_core_field_exists(t->sessionid))
		h->session = BPF_CORE_READ(t, sessionid);
	h->tty_major = 0;
	h->tty_minor = 0;
	if (tty) {
		h->tty_major = BPF_CORE_READ(tty, driver, major);
		h->tty_minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
	}
	h->cgroup = cgroup2_of(t);
	h->cgroup1 = cgroup1_of(t);
	fill_namespace(h, leader);
	BPF_CORE_READ_STR_INTO(&h->comm, t, comm);
}

#endif
