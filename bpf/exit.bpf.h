/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Processes ended. sched_process_exit fires in do_exit() (kernel/exit.c) for every thread,
 * after signal->live was counted down. From 6.16 it tells which thread counted it to zero;
 * before, two last threads may both see it at zero, and user space drops the second record.
 */

#define SIGNAL_GROUP_EXIT 0x00000004

struct trace_event_raw_sched_process_exit {
	bool group_dead;
} __attribute__((preserve_access_index));

static __always_inline bool is_last(struct task_struct *t, bool group_dead)
{
	struct trace_event_raw_sched_process_exit *e = NULL;

	if (bpf_core_field_exists(e->group_dead))
		return group_dead;
	return !BPF_CORE_READ(t, signal, live.counter);
}

static __always_inline int emit_exit(CTX_PARAM struct task_struct *t, bool last)
{
	struct task_struct *leader;
	struct signal_struct *sig;
	struct rec_exit *r;
	u32 code;

	if (!last || !wanted(KIND_EXIT))
		return 0;
	sig = BPF_CORE_READ(t, signal);
	COUNT(KIND_EXIT, generated);
	r = RESERVE(critical, struct rec_exit);
	if (!r) {
		COUNT(KIND_EXIT, lost_ring);
		return 0;
	}
	fill_head(&r->head, t, KIND_EXIT, sizeof(*r));
	leader = BPF_CORE_READ(t, group_leader);
	/* As wait_task_zombie() tells the parent. */
	if (BPF_CORE_READ(sig, flags) & SIGNAL_GROUP_EXIT)
		code = BPF_CORE_READ(sig, group_exit_code);
	else
		code = BPF_CORE_READ(leader, exit_code);
	r->code = code;
	r->pad = 0;
	if (code & 0x80)
		r->head.flags |= FLAG_CORE;
	/* Threads released before are summed in signal; the leader stays until now. */
	r->utime = BPF_CORE_READ(sig, utime) + BPF_CORE_READ(t, utime);
	r->stime = BPF_CORE_READ(sig, stime) + BPF_CORE_READ(t, stime);
	r->runtime = BPF_CORE_READ(sig, sum_sched_runtime) + BPF_CORE_READ(t, se.sum_exec_runtime);
	if (leader != t) {
		r->utime += BPF_CORE_READ(leader, utime);
		r->stime += BPF_CORE_READ(leader, stime);
		r->runtime += BPF_CORE_READ(leader, se.sum_exec_runtime);
	}
	r->max_rss = BPF_CORE_READ(sig, maxrss);
	SUBMIT(critical, r);
	return 0;
}

#ifndef LEGACY

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit_tp_btf, struct task_struct *t)
{
	hold_cpu();
	return release_cpu(emit_exit(CTX t, is_last(t, ctx[1] & 0xff)));
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(on_exit_raw_tp, struct task_struct *t)
{
	hold_cpu();
	return release_cpu(emit_exit(CTX t, is_last(t, ctx[1] & 0xff)));
}

#endif

SEC("tracepoint/sched/sched_process_exit")
int on_exit_tracepoint(struct trace_event_raw_sched_process_exit *ctx)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	bool last = !BPF_CORE_READ(t, signal, live.counter);

	if (bpf_core_field_exists(ctx->group_dead))
		last = ctx->group_dead;
	hold_cpu();
	return release_cpu(emit_exit(CTX t, last));
}

#ifdef LEGACY

/* do_exit() calls it soon after that tracepoint, where CONFIG_TASKSTATS is set, and knows who
 * is the last.
 */
SEC("kprobe/taskstats_exit")
int on_exit_kprobe(struct pt_regs *ctx)
{
	return emit_exit(CTX (struct task_struct *)bpf_get_current_task(), FUNC_ARG2(ctx) & 0xffffffff);
}

#endif
