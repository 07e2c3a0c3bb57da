/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Processes made. sched_process_fork fires in kernel_clone() (kernel/fork.c) for every
 * fork, vfork, clone and clone3, before the child may run.
 */

static __always_inline int emit_fork(CTX_PARAM struct task_struct *parent, struct task_struct *child)
{
	struct rec_fork *r;
	u32 pid = BPF_CORE_READ(child, pid);

	if (pid != BPF_CORE_READ(child, tgid) || !wanted(KIND_FORK)) /* a thread */
		return 0;
	COUNT(KIND_FORK, generated);
	r = RESERVE(critical, struct rec_fork);
	if (!r) {
		COUNT(KIND_FORK, lost_ring);
		return 0;
	}
	fill_head(&r->head, parent, KIND_FORK, sizeof(*r));
	r->child_pid = pid;
	r->child_start = start_of(child);
	r->child_ppid = BPF_CORE_READ(child, real_parent, tgid);
	SUBMIT(critical, r);
	return 0;
}

#ifndef LEGACY

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork_tp_btf, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_fork(CTX parent, child));
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(on_fork_raw_tp, struct task_struct *parent, struct task_struct *child)
{
	hold_cpu();
	return release_cpu(emit_fork(CTX parent, child));
}

#else /* LEGACY */

/* do_fork() calls it right after its tracepoint, which names the child by number only. */
SEC("kprobe/wake_up_new_task")
int on_fork_kprobe(struct pt_regs *ctx)
{
	return emit_fork(CTX (struct task_struct *)bpf_get_current_task(), (void *)FUNC_ARG1(ctx));
}

#endif

/* The classic tracepoint names the child by number only. It is the youngest of its parent's
 * children, who is the caller or, after CLONE_PARENT, the caller's own parent. A thread is no
 * one's child.
 */
struct trace_event_raw_sched_process_fork {
	int child_pid;
} __attribute__((preserve_access_index));
struct ftrace_raw_sched_process_fork { /* before 4.2 */
	int child_pid;
} __attribute__((preserve_access_index));

static __always_inline struct task_struct *youngest(struct task_struct *parent)
{
	void *last = BPF_CORE_READ(parent, children.prev);

	return last - bpf_core_field_offset(struct task_struct, sibling);
}

SEC("tracepoint/sched/sched_process_fork")
int on_fork_tracepoint(struct trace_event_raw_sched_process_fork *ctx)
{
	struct ftrace_raw_sched_process_fork *older = (void *)ctx;
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct task_struct *child = youngest(t);
	int pid = 0;

	if (bpf_core_field_exists(ctx->child_pid))
		pid = ctx->child_pid;
	if (bpf_core_field_exists(older->child_pid))
		pid = older->child_pid;
	if (BPF_CORE_READ(child, pid) != pid)
		child = youngest(BPF_CORE_READ(t, real_parent));
	if (BPF_CORE_READ(child, pid) != pid)
		return 0;
	hold_cpu();
	return release_cpu(emit_fork(CTX t, child));
}
