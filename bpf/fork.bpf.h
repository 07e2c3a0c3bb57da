/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Processes made. sched_process_fork fires in kernel_clone() (kernel/fork.c) for every
 * fork, vfork, clone and clone3, before the child may run.
 */

static __always_inline int emit_fork(struct task_struct *parent, struct task_struct *child)
{
	struct rec_fork *r;
	u32 pid = BPF_CORE_READ(child, pid);

	if (pid != BPF_CORE_READ(child, tgid) || !wanted(KIND_FORK)) /* a thread */
		return 0;
	COUNT(KIND_FORK, generated);
	r = bpf_ringbuf_reserve(&critical, sizeof(*r), 0);
	if (!r) {
		COUNT(KIND_FORK, lost_ring);
		return 0;
	}
	fill_head(&r->head, parent, KIND_FORK, sizeof(*r));
	r->child_pid = pid;
	r->child_start = start_of(child);
	r->child_ppid = BPF_CORE_READ(child, real_parent, tgid);
	bpf_ringbuf_submit(r, 0);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork_tp_btf, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_fork(parent, child));
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_fork_raw_tp, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_fork(parent, child));
}
