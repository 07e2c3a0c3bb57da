/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* System calls that few programs have reason for: raw and packet sockets, io_uring, another kernel
 * started, the clock set, keys kept in the kernel. What they are about is read from the caller's
 * memory when they return.
 */
#ifndef LEGACY

#define AF_PACKET 17
#define SOCK_RAW 3
#define SOCK_TYPE_MASK 0xf
#define ADJ_SETOFFSET 0x100

/* keyctl(2) that asks how something is called or what there is: get_keyring_ID, describe,
 * get_security, capabilities.
 */
#define KEYCTL_ASKS (1ULL << 0 | 1ULL << 6 | 1ULL << 17 | 1ULL << 31)

static __always_inline u32 user_u32(u64 at)
{
	u32 n = 0;

	bpf_probe_read_user(&n, sizeof(n), (void *)at);
	return n;
}

static __always_inline bool is_rare(const struct act *a, u32 call)
{
	u64 n = a->args[0];

	switch (call) {
	case ACT_SOCKET:
		return (u32)n == AF_PACKET || (a->args[1] & SOCK_TYPE_MASK) == SOCK_RAW;
	case ACT_SETTIMEOFDAY: /* else the time zone alone */
		return n;
	case ACT_CLOCK_ADJTIME: /* other modes have the clock run a little faster, all day */
		return user_u32(a->args[1]) & ADJ_SETOFFSET;
	case ACT_ADJTIMEX:
		return user_u32(n) & ADJ_SETOFFSET;
	case ACT_KEYCTL:
		return n > 63 || !(KEYCTL_ASKS >> n & 1);
	}
	return true;
}

static __always_inline void put_rare(struct build *b, struct rec_act *r, struct task_struct *t, const struct act *a, u32 call, const bool paths)
{
	struct file *file;

	if (paths) {
		if (a->args[2])
			put_str(b, (void *)a->args[3], true, &r->source);
		file = file_of(t, a->args[0]);
		if (file && !put_path(b, this_cpu(), BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), &r->target, PATH_STEPS))
			r->head.flags |= FLAG_PATH_CUT;
		return;
	}
	switch (call) {
	case ACT_IO_URING_SETUP: /* io_uring_params.flags */
		r->value = user_u32(a->args[1] + 8);
		break;
	case ACT_SETTIMEOFDAY: /* tv_sec */
		bpf_probe_read_user(&r->object, sizeof(r->object), (void *)a->args[0]);
		break;
	case ACT_CLOCK_SETTIME:
		bpf_probe_read_user(&r->object, sizeof(r->object), (void *)a->args[1]);
		break;
	case ACT_CLOCK_ADJTIME: /* __kernel_timex.time.tv_sec */
		bpf_probe_read_user(&r->object, sizeof(r->object), (void *)a->args[1] + 72);
		break;
	case ACT_ADJTIMEX:
		bpf_probe_read_user(&r->object, sizeof(r->object), (void *)a->args[0] + 72);
		break;
	case ACT_KEYCTL:
		if (a->args[0] == 1 && a->args[1]) /* KEYCTL_JOIN_SESSION_KEYRING */
			put_str(b, (void *)a->args[1], true, &r->source);
		break;
	case ACT_ADD_KEY:
	case ACT_REQUEST_KEY:
		put_str(b, (void *)a->args[1], true, &r->source);
		put_str(b, (void *)a->args[0], true, &r->type);
		break;
	}
}

SHARED int emit_rare(const struct act *a, u32 call, long ret) { return put_act(a, call, ret, GROUP_RARE); }

SHARED int emit_rare_path(const struct act *a, u32 call, long ret) { return put_act(a, call, ret, GROUP_RARE_PATH); }

static __always_inline int rare_done(const struct act *a, u32 call, long ret)
{
	if (!is_rare(a, call))
		return 0;
	hold_cpu();
	return release_cpu(call == ACT_KEXEC_FILE_LOAD ? emit_rare_path(a, call, ret) : emit_rare(a, call, ret));
}

/* Which of these calls a number is, an enum act_call; 0: none. */
const volatile u8 rare_calls[512];

/* Where the kernel allows it one program stands at all of them: each would cost as much to load. */
SEC("tracepoint/syscalls/sys_exit_socket")
int on_rare_exit(struct trace_event_raw_sys_exit *ctx)
{
	u32 call = rare_calls[ctx->id & 511];
	struct act a = ACT_OF(KIND_SYSCALL, call);

	if (call < ACT_SOCKET)
		return 0;
	act_of_regs(&a, (void *)bpf_task_pt_regs(bpf_get_current_task_btf()));
	return rare_done(&a, call, ctx->ret);
}

static __always_inline int rare_ends(long ret)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct act a, *begun = bpf_map_lookup_elem(&acts, &tid);
	u32 call;

	if (!begun)
		return 0;
	a = *begun;
	call = a.call;
	if (call < ACT_SOCKET)
		return 0;
	bpf_map_delete_elem(&acts, &tid);
	return rare_done(&a, call, ret);
}

SEC("tracepoint/syscalls/sys_exit_socket")
int on_rare_pair_exit(struct trace_event_raw_sys_exit *ctx)
{
	return rare_ends(ctx->ret);
}

SEC("kretprobe/socket")
int on_rare_kretprobe(struct pt_regs *ctx)
{
	return rare_ends(FUNC_RESULT(ctx));
}

#define RARE(name, which, n)                  \
	ACT_FEXIT(name, KIND_SYSCALL, which, rare_done) \
	ACT_CALLED(name, KIND_SYSCALL, which) \
	ACT_ENTER(name, KIND_SYSCALL, which, n)

RARE(socket, ACT_SOCKET, 3)
RARE(io_uring_setup, ACT_IO_URING_SETUP, 2)
RARE(kexec_load, ACT_KEXEC_LOAD, 4)
RARE(kexec_file_load, ACT_KEXEC_FILE_LOAD, 5)
RARE(settimeofday, ACT_SETTIMEOFDAY, 2)
RARE(clock_settime, ACT_CLOCK_SETTIME, 2)
RARE(clock_adjtime, ACT_CLOCK_ADJTIME, 2)
RARE(adjtimex, ACT_ADJTIMEX, 1)
RARE(keyctl, ACT_KEYCTL, 5)
RARE(add_key, ACT_ADD_KEY, 5)
RARE(request_key, ACT_REQUEST_KEY, 4)

#endif
