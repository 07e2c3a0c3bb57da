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

static __always_inline bool is_rare(const struct act *a)
{
	u64 n = a->args[0];

	switch (a->call) {
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

static __always_inline void put_rare(struct build *b, struct rec_act *r, struct task_struct *t, const struct act *a)
{
	struct file *file;

	switch (a->call) {
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
	case ACT_KEXEC_FILE_LOAD:
		if (a->args[2])
			put_str(b, (void *)a->args[3], true, &r->source);
		file = file_of(t, a->args[0]);
		if (file && !put_path(b, this_cpu(), BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), &r->target, PATH_STEPS))
			r->head.flags |= FLAG_PATH_CUT;
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

ACT(socket, KIND_SYSCALL, ACT_SOCKET, 3)
ACT(io_uring_setup, KIND_SYSCALL, ACT_IO_URING_SETUP, 2)
ACT(kexec_load, KIND_SYSCALL, ACT_KEXEC_LOAD, 4)
ACT(kexec_file_load, KIND_SYSCALL, ACT_KEXEC_FILE_LOAD, 5)
ACT(settimeofday, KIND_SYSCALL, ACT_SETTIMEOFDAY, 2)
ACT(clock_settime, KIND_SYSCALL, ACT_CLOCK_SETTIME, 2)
ACT(clock_adjtime, KIND_SYSCALL, ACT_CLOCK_ADJTIME, 2)
ACT(adjtimex, KIND_SYSCALL, ACT_ADJTIMEX, 1)
ACT(keyctl, KIND_SYSCALL, ACT_KEYCTL, 5)
ACT(add_key, KIND_SYSCALL, ACT_ADD_KEY, 5)
ACT(request_key, KIND_SYSCALL, ACT_REQUEST_KEY, 4)

#endif
