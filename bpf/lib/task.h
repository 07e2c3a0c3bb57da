/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Rings, counters, and what every record says of the process that acted. */
#ifndef GOSHAWK_TASK_H
#define GOSHAWK_TASK_H

/* Two rings: a flood of socket records cannot push out an exec. User space sets the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} critical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} bulk SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KIND_MAX);
	__type(key, u32);
	__type(value, struct counts);
} counters SEC(".maps");

/* Tracepoints and fexit programs may be preempted: the first from 7.0 on, the second always.
 * The kernel runs no program within itself on one CPU, not even for another task: what
 * happens meanwhile is passed over (and counted: recursion_misses in the program's info).
 * Holding the CPU leaves a moment for that, and keeps a CPU's build for one record at a time.
 */
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;

/* Set by user space from 6.15 on, where these functions may surround a call of walk(). */
volatile const bool preemptible;

static __always_inline void hold_cpu(void)
{
	if (preemptible)
		bpf_preempt_disable();
}

static __always_inline int release_cpu(int result)
{
	if (preemptible)
		bpf_preempt_enable();
	return result;
}

/* What several programs of one object share is compiled once, as BPF-to-BPF calls. */
#define SHARED static __noinline

/* Bit n: the kind numbered n is wanted. */
volatile const u64 kinds = ~0ULL;

static __always_inline bool wanted(u32 kind)
{
	return kinds & (1ULL << kind);
}

/* A softirq may interrupt the same program on this CPU, hence the atomic adds. */
#define COUNT(kind, what)                                                  \
	({                                                                 \
		u32 key_ = (kind);                                         \
		struct counts *c_ = bpf_map_lookup_elem(&counters, &key_); \
		if (c_)                                                    \
			__sync_fetch_and_add(&c_->what, 1);                \
	})

static __always_inline u64 start_of(struct task_struct *leader)
{
	if (bpf_core_field_exists(leader->start_boottime))
		return BPF_CORE_READ(leader, start_boottime);
	return BPF_CORE_READ((struct task_struct___before_5_5 *)leader, real_start_time);
}

static __always_inline u64 cgroup_id(struct cgroup *cgroup)
{
	struct kernfs_node *kn = BPF_CORE_READ(cgroup, kn);

	if (bpf_core_type_exists(union kernfs_node_id___old))
		return BPF_CORE_READ((struct kernfs_node___old *)kn, id.id);
	return BPF_CORE_READ(kn, id);
}

/* The v1 controller (its number in css_set.subsys) and hierarchy by which containers are
 * told where cgroup v2 does not tell; user space sets them. -1: v2 is all there is.
 */
volatile const __s32 v1_controller = -1;
volatile const __s32 v1_hierarchy = -1;

static __always_inline u64 cgroup1_of(struct task_struct *t)
{
	struct cgroup_subsys_state *css = NULL;
	void *set;

	if (v1_controller < 0)
		return 0;
	set = BPF_CORE_READ(t, cgroups);
	bpf_probe_read_kernel(&css, sizeof(css), set + bpf_core_field_offset(struct css_set, subsys) +
						     v1_controller * sizeof(css));
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
	u32 level = BPF_CORE_READ(pid, level);
	struct upid *last;

	h->ns_pid = 0;
	h->pid_ns = 0;
	if (!level)
		return;
	last = (void *)pid + bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid);
	h->ns_pid = BPF_CORE_READ(last, nr);
	h->pid_ns = BPF_CORE_READ(last, ns, ns.inum);
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

	h->time = bpf_ktime_get_boot_ns();
	h->size = size;
	h->kind = kind;
	h->flags = 0;
	h->pad = 0;
	h->pid = BPF_CORE_READ(t, tgid);
	h->tid = BPF_CORE_READ(t, pid);
	h->start = start_of(leader);
	h->ppid = BPF_CORE_READ(parent, tgid);
	h->pstart = start_of(BPF_CORE_READ(parent, group_leader));
	h->uid = BPF_CORE_READ(cred, uid.val);
	h->gid = BPF_CORE_READ(cred, gid.val);
	h->euid = BPF_CORE_READ(cred, euid.val);
	h->egid = BPF_CORE_READ(cred, egid.val);
	h->auid = -1;
	h->session = -1;
	if (bpf_core_field_exists(t->loginuid)) {
		h->auid = BPF_CORE_READ(t, loginuid.val);
		h->session = BPF_CORE_READ(t, sessionid);
	}
	h->tty_major = 0;
	h->tty_minor = 0;
	if (tty) {
		h->tty_major = BPF_CORE_READ(tty, driver, major);
		h->tty_minor = BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index);
	}
	h->cgroup = cgroup_id(BPF_CORE_READ(t, cgroups, dfl_cgrp));
	h->cgroup1 = cgroup1_of(t);
	fill_namespace(h, leader);
	BPF_CORE_READ_STR_INTO(&h->comm, t, comm);
}

#endif
