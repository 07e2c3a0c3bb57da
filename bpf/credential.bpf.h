/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Processes that become somebody else. commit_creds() (kernel/cred.c) is where the kernel puts
 * new credentials in force, whoever asked for them: a system call, an exec, or code that runs in
 * the kernel and should not. Where no program can be put there, the system calls are watched.
 */

static __always_inline u64 capabilities(const struct cred *c, u32 offset)
{
	u64 set = 0;

	bpf_probe_read_kernel(&set, sizeof(set), (void *)c + offset);
	return set;
}

static __always_inline void fill_cred(struct rec_cred *r, const struct cred *cred)
{
	r->uid = READ_ID(cred, cred, uid);
	r->suid = READ_ID(cred, cred, suid);
	r->euid = READ_ID(cred, cred, euid);
	r->fsuid = READ_ID(cred, cred, fsuid);
	r->gid = READ_ID(cred, cred, gid);
	r->sgid = READ_ID(cred, cred, sgid);
	r->egid = READ_ID(cred, cred, egid);
	r->fsgid = READ_ID(cred, cred, fsgid);
	r->permitted = r->effective = r->inheritable = r->ambient = 0;
	if (bpf_core_field_exists(cred->cap_permitted)) {
		r->permitted = capabilities(cred, bpf_core_field_offset(struct cred, cap_permitted));
		r->effective = capabilities(cred, bpf_core_field_offset(struct cred, cap_effective));
		r->inheritable = capabilities(cred, bpf_core_field_offset(struct cred, cap_inheritable));
	}
	if (bpf_core_field_exists(cred->cap_ambient)) /* from 4.3 on */
		r->ambient = capabilities(cred, bpf_core_field_offset(struct cred, cap_ambient));
}

/* What a call was given, and who asked, until it returns. */
struct credential_call {
	struct rec_cred before;
	u64 args[3];
	u32 call;
	u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u32);
	__type(value, struct credential_call);
} credential_calls SEC(".maps");

SHARED int credential_begins(const struct trace_event_raw_sys_enter *ctx, u32 call, const int n)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct credential_call c = {.call = call};
	u32 tid = bpf_get_current_pid_tgid();

	if (!wanted(KIND_CREDENTIAL))
		return 0;
	c.args[0] = ctx->args[0];
	if (n > 1)
		c.args[1] = ctx->args[1];
	if (n > 2)
		c.args[2] = ctx->args[2];
	fill_cred(&c.before, BPF_CORE_READ(t, real_cred));
	if (bpf_map_update_elem(&credential_calls, &tid, &c, BPF_ANY)) {
		COUNT(KIND_CREDENTIAL, generated);
		COUNT(KIND_CREDENTIAL, lost_map);
	}
	return 0;
}

SHARED int credential_ends(CTX_PARAM long ret)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	u32 tid = bpf_get_current_pid_tgid();
	struct credential_call *c = bpf_map_lookup_elem(&credential_calls, &tid);
	struct rec_credential *r;

	if (!c)
		return 0;
	COUNT(KIND_CREDENTIAL, generated);
	r = RESERVE(critical, struct rec_credential);
	if (!r) {
		COUNT(KIND_CREDENTIAL, lost_ring);
		bpf_map_delete_elem(&credential_calls, &tid);
		return 0;
	}
	fill_head(&r->head, t, KIND_CREDENTIAL, sizeof(*r));
	r->before = c->before;
	r->args[0] = c->args[0];
	r->args[1] = c->args[1];
	r->args[2] = c->args[2];
	r->call = c->call;
	r->number = -1;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
	r->result = ret < 0 && ret >= -4095 ? ret : 0;
	fill_cred(&r->after, BPF_CORE_READ(t, real_cred));
	SUBMIT(critical, r);
	bpf_map_delete_elem(&credential_calls, &tid);
	return 0;
}

#define CREDENTIAL(name, which, n)                                        \
	SEC("tracepoint/syscalls/sys_enter_" #name)                       \
	int on_##name##_pair_enter(struct trace_event_raw_sys_enter *ctx) \
	{                                                                 \
		return credential_begins(ctx, which, n);                  \
	}

/* At the exits of all. */
SEC("tracepoint/syscalls/sys_exit_setuid")
int on_credential_pair_exit(struct trace_event_raw_sys_exit *ctx)
{
	return credential_ends(CTX ctx->ret);
}

CREDENTIAL(setuid, ACT_SETUID, 1)
CREDENTIAL(setgid, ACT_SETGID, 1)
CREDENTIAL(setreuid, ACT_SETREUID, 2)
CREDENTIAL(setregid, ACT_SETREGID, 2)
CREDENTIAL(setresuid, ACT_SETRESUID, 3)
CREDENTIAL(setresgid, ACT_SETRESGID, 3)
CREDENTIAL(setfsuid, ACT_SETFSUID, 1)
CREDENTIAL(setfsgid, ACT_SETFSGID, 1)
CREDENTIAL(setgroups, ACT_SETGROUPS, 1)
CREDENTIAL(capset, ACT_CAPSET, 1)

static __always_inline bool same_cred(const struct rec_cred *x, const struct rec_cred *y)
{
	return x->uid == y->uid && x->suid == y->suid && x->euid == y->euid && x->fsuid == y->fsuid && x->gid == y->gid &&
	       x->sgid == y->sgid && x->egid == y->egid && x->fsgid == y->fsgid && x->permitted == y->permitted &&
	       x->effective == y->effective && x->inheritable == y->inheritable && x->ambient == y->ambient;
}

SHARED int committed(CTX_PARAM const struct cred *new)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	struct rec_cred before, after;
	struct rec_credential *r;

	if (!wanted(KIND_CREDENTIAL))
		return 0;
	fill_cred(&before, BPF_CORE_READ(t, real_cred));
	fill_cred(&after, new);
	if (same_cred(&before, &after)) /* every exec comes by */
		return 0;
	COUNT(KIND_CREDENTIAL, generated);
	r = RESERVE(critical, struct rec_credential);
	if (!r) {
		COUNT(KIND_CREDENTIAL, lost_ring);
		return 0;
	}
	fill_head(&r->head, t, KIND_CREDENTIAL, sizeof(*r));
	r->head.flags |= FLAG_COMMITTED;
	r->before = before;
	r->after = after;
	r->result = 0;
	r->call = 0;
	r->number = -1;
	r->args[0] = r->args[1] = r->args[2] = 0;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
#ifndef LEGACY
	if (task_regs) {
		struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());

		r->number = CALL_NUMBER(regs);
		r->args[0] = CALL_ARG1(regs);
		r->args[1] = CALL_ARG2(regs);
		r->args[2] = CALL_ARG3(regs);
	}
#endif
	SUBMIT(critical, r);
	return 0;
}

#ifndef LEGACY

SEC("fentry/commit_creds")
int BPF_PROG(on_commit_fentry, const struct cred *new)
{
	hold_cpu();
	return release_cpu(committed(CTX new));
}

#endif

SEC("kprobe/commit_creds")
int on_commit_kprobe(struct pt_regs *ctx)
{
	return committed(CTX (void *)FUNC_ARG1(ctx));
}
