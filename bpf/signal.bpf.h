/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Signals from process to process: signal_generate fires in __send_signal_locked()
 * (kernel/signal.c), in the sender. What the kernel itself sends, and what a process sends to
 * itself, is no event.
 */

/* si_code of kill, tgkill and sigqueue (include/uapi/asm-generic/siginfo.h). */
static __always_inline bool sent_by_process(int code)
{
	return code == 0 /* SI_USER */ || code == -6 /* SI_TKILL */ || code == -1 /* SI_QUEUE */;
}

static __always_inline struct rec_signal *begin_signal(struct task_struct *t)
{
	struct rec_signal *r;

	COUNT(KIND_SIGNAL, generated);
	r = RESERVE(bulk, struct rec_signal);
	if (!r) {
		COUNT(KIND_SIGNAL, lost_ring);
		return NULL;
	}
	fill_head(&r->head, t, KIND_SIGNAL, sizeof(*r));
	return r;
}

#ifndef LEGACY

static __always_inline int emit_signal(int sig, struct kernel_siginfo *info, struct task_struct *target, int outcome)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task(), *leader;
	const struct cred *cred;
	struct rec_signal *r;
	int code = 0; /* SEND_SIG_NOINFO, NULL, stands for kill(2) as of late; SEND_SIG_PRIV, 1, for the kernel */

	if (!wanted(KIND_SIGNAL) || (unsigned long)info == 1)
		return 0;
	if (info)
		code = BPF_CORE_READ(info, si_code);
	if (!sent_by_process(code) || BPF_CORE_READ(target, tgid) == BPF_CORE_READ(t, tgid))
		return 0;
	r = begin_signal(t);
	if (!r)
		return 0;
	leader = BPF_CORE_READ(target, group_leader);
	cred = BPF_CORE_READ(target, real_cred);
	r->signal = sig;
	r->code = code;
	r->outcome = outcome;
	r->target_pid = BPF_CORE_READ(target, tgid);
	r->target_start = start_of(leader);
	r->target_uid = READ_ID(cred, cred, uid);
	r->target_auid = READ_ID(target, task_struct, loginuid);
	BPF_CORE_READ_STR_INTO(&r->target_comm, target, comm);
	SUBMIT(bulk, r);
	return 0;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal_tp_btf, int sig, struct kernel_siginfo *info, struct task_struct *target, int group, int outcome)
{
	hold_cpu();
	return release_cpu(emit_signal(sig, info, target, outcome));
}

SEC("raw_tp/signal_generate")
int BPF_PROG(on_signal_raw_tp, int sig, struct kernel_siginfo *info, struct task_struct *target, int group, int outcome)
{
	hold_cpu();
	return release_cpu(emit_signal(sig, info, target, outcome));
}

#endif

/* The classic tracepoint names a thread of the target by its number. */
struct trace_event_raw_signal_generate {
	int sig;
	int code;
	char comm[16];
	int pid;
	int result;
} __attribute__((preserve_access_index));

SEC("tracepoint/signal/signal_generate")
int on_signal_tracepoint(struct trace_event_raw_signal_generate *ctx)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct rec_signal *r;
	int code = ctx->code, pid = ctx->pid;

	if (!wanted(KIND_SIGNAL) || !sent_by_process(code) || pid == BPF_CORE_READ(t, tgid) || pid == BPF_CORE_READ(t, pid))
		return 0;
	r = begin_signal(t);
	if (!r)
		return 0;
	r->signal = ctx->sig;
	r->code = code;
	r->outcome = 0;
	if (bpf_core_field_exists(ctx->result)) /* from 3.2 on, but for some of Red Hat's */
		r->outcome = ctx->result;
	r->target_pid = pid;
	r->target_start = 0;
	r->target_uid = r->target_auid = -1;
	bpf_probe_read_kernel(&r->target_comm, sizeof(r->target_comm),
			      (void *)ctx + bpf_core_field_offset(struct trace_event_raw_signal_generate, comm));
	SUBMIT(bulk, r);
	return 0;
}
