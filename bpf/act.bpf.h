/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* System calls that reach into other processes, load code into the kernel, or change what a
 * process sees: ptrace, bpf, mount and its kin, namespaces, executable memory. All are rare but
 * mmap and mprotect, of which programs look at two numbers only.
 *
 * The best tiers stand on the functions behind the system calls (__x64_sys_mount and so on), so
 * that no other call pays. What the caller named is read from its memory when the call returns,
 * and another thread may have changed it by then: FLAG_USER_TEXT says so.
 */

struct act {
	u64 args[5];
	u32 kind;
	u32 call; /* enum act_call */
};

/* Requests of ptrace(2): traceme, poke*, setregs, setfpregs, attach; setregset and seize are above. */
#define PTRACE_ACTS (1ULL << 0 | 7ULL << 4 | 1ULL << 13 | 1ULL << 15 | 1ULL << 16)
/* Commands of bpf(2): prog_load, prog_attach, prog_detach, raw_tracepoint_open, link_create, _update, _detach. */
#define BPF_ACTS (1ULL << 5 | 1ULL << 8 | 1ULL << 9 | 1ULL << 17 | 1ULL << 28 | 1ULL << 29 | 1ULL << 34)

#define PROT_EXEC 4
#define PROT_WRITE 2
#define MAP_ANONYMOUS 0x20

static __always_inline struct file *file_of(struct task_struct *t, int fd)
{
	struct file **table, *file = NULL;
	struct fdtable *fdt;

	fdt = BPF_CORE_READ(t, files, fdt);
	if (fd < 0 || (u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	table = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), table + fd);
	return file;
}

/* The processes of which executable memory was told, by what they did: a compiler that makes
 * code as it runs does so without end. And those of which writing to another's memory was, by the
 * other: a debugger writes page by page.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u64);
} executable SEC(".maps");

static __always_inline bool told_before(struct task_struct *t, const struct act *a, u32 call)
{
	u64 key = (u64)BPF_CORE_READ(t, tgid) << 8 | call, *seen;
	u64 start = start_of(BPF_CORE_READ(t, group_leader));

	if (call == ACT_MEM_WRITE)
		key |= a->args[0] << 40;
	seen = bpf_map_lookup_elem(&executable, &key);
	if (seen && *seen == start)
		return true;
	bpf_map_update_elem(&executable, &key, &start, BPF_ANY);
	return false;
}

#ifndef LEGACY /* rare.bpf.h */
static bool is_rare(const struct act *a, u32 call);
static void put_rare(struct build *b, struct rec_act *r, struct task_struct *t, const struct act *a, u32 call, const bool paths);
#endif

/* Whether the numbers alone make a call worth telling. */
static __always_inline bool is_act(const struct act *a, u32 call)
{
	u64 n = a->args[0];

	switch (call) {
	case ACT_PTRACE: /* those that take hold of a process or change it */
		if (n >= 0x4205)
			return n <= 0x4206;
		return n <= 16 && PTRACE_ACTS >> n & 1;
	case ACT_BPF: /* programs loaded and attached, not the maps that agents read all day */
		return n <= 34 && BPF_ACTS >> n & 1;
	case ACT_MPROTECT:
		return a->args[2] & PROT_EXEC;
	case ACT_MMAP:
		return (a->args[2] & PROT_EXEC) && (a->args[2] & PROT_WRITE || a->args[3] & MAP_ANONYMOUS);
	}
#ifndef LEGACY
	if (call >= ACT_SOCKET)
		return is_rare(a, call);
#endif
	return true;
}

/* bpf(2): the program, as the kernel has it by now. */
static __always_inline void put_program(struct build *b, struct rec_act *r, struct task_struct *t, const struct act *a, long ret)
{
	u32 attr[18] = {};
	int fd = -1;
	struct file *file;
	struct bpf_prog *prog;
	u32 size = a->args[2];

	if (size > sizeof(attr))
		size = sizeof(attr);
	/* Constant sizes please the verifier. */
	if (size == sizeof(attr))
		bpf_probe_read_user(attr, sizeof(attr), (void *)a->args[1]);
	else if (size >= 16)
		bpf_probe_read_user(attr, 16, (void *)a->args[1]);
	else if (size >= 12)
		bpf_probe_read_user(attr, 12, (void *)a->args[1]);
	switch (a->args[0]) {
	case 5: /* BPF_PROG_LOAD */
		r->value = attr[0];
		r->args[1] = attr[1]; /* instructions */
		r->args[2] = attr[17]; /* expected_attach_type */
		fd = ret >= 0 ? ret : -1;
		break;
	case 8: /* BPF_PROG_ATTACH, BPF_PROG_DETACH */
	case 9:
		r->args[2] = attr[2];
		fd = attr[1];
		break;
	case 17: /* BPF_RAW_TRACEPOINT_OPEN */
		fd = attr[2];
		if (attr[0] || attr[1])
			put_str(b, (void *)((u64)attr[1] << 32 | attr[0]), true, &r->type);
		break;
	case 28: /* BPF_LINK_CREATE */
		r->args[2] = attr[2];
		fd = attr[0];
		break;
	}
	if (a->args[0] != 5 && fd == 0)
		return;
	file = file_of(t, fd);
	if (!file)
		return;
	prog = BPF_CORE_READ(file, private_data);
	r->object = BPF_CORE_READ(prog, aux, id);
	r->value = BPF_CORE_READ(prog, type);
	put_str(b, (const char *)BPF_CORE_READ(prog, aux) + bpf_core_field_offset(struct bpf_prog_aux, name), false, &r->source);
	if (a->args[0] == 5)
		r->head.flags &= ~FLAG_USER_TEXT;
}

/* Calls that are told of by different functions: what tells of a path takes the verifier long. */
enum act_group { GROUP_ACT, GROUP_RARE, GROUP_RARE_PATH };

static __always_inline int put_act(CTX_PARAM const struct act *a, u32 call, long ret, const enum act_group group)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();
	u32 slot = this_cpu(), kind = a->kind;
	struct rec_act *r;
	struct build *b;

	if (!wanted(kind))
		return 0;
	COUNT(kind, generated);
	if ((call == ACT_MPROTECT || call == ACT_MMAP || call == ACT_MEM_WRITE) && told_before(t, a, call)) {
		COUNT(kind, filtered);
		return 0;
	}
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b) {
		COUNT(kind, lost_map);
		return 0;
	}
	r = (void *)b->data;
	fill_head(&r->head, t, kind, 0);
	r->args[0] = a->args[0];
	r->args[1] = a->args[1];
	r->args[2] = a->args[2];
	r->args[3] = a->args[3];
	r->args[4] = a->args[4];
	r->object = 0;
	r->result = ret < 0 && ret >= -4095 ? ret : 0;
	r->value = 0;
	r->call = call;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
	b->off = sizeof(*r);
	r->source.off = r->target.off = r->type.off = r->data.off = b->off;
	r->source.len = r->target.len = r->type.len = r->data.len = 0;
	if (call != ACT_SETNS && call != ACT_UNSHARE && call != ACT_CLONE && call != ACT_SOCKET && call != ACT_MPROTECT &&
	    call != ACT_MMAP && call != ACT_MEM_WRITE)
		r->head.flags |= FLAG_USER_TEXT;
	if (group != GROUP_ACT) {
#ifndef LEGACY
		put_rare(b, r, t, a, call, group == GROUP_RARE_PATH);
#endif
	} else {
		switch (call) {
		case ACT_MOUNT:
			put_str(b, (void *)a->args[0], true, &r->source);
			put_str(b, (void *)a->args[1], true, &r->target);
			if (a->args[2])
				put_str(b, (void *)a->args[2], true, &r->type);
			if (a->args[4])
				put_str(b, (void *)a->args[4], true, &r->data);
			break;
		case ACT_MOVE_MOUNT:
			put_str(b, (void *)a->args[1], true, &r->source);
			put_str(b, (void *)a->args[3], true, &r->target);
			break;
		case ACT_PIVOT_ROOT:
		case ACT_UMOUNT:
		case ACT_CHROOT:
			put_str(b, (void *)a->args[0], true, &r->target);
			break;
		case ACT_MOUNT_SETATTR:
			put_str(b, (void *)a->args[1], true, &r->target);
			break;
		case ACT_MEMFD_CREATE:
			put_str(b, (void *)a->args[0], true, &r->source);
			break;
		case ACT_SETNS: {
			struct file *file = file_of(t, a->args[0]);

			if (file)
				r->object = BPF_CORE_READ(file, f_inode, i_ino);
			break;
		}
		case ACT_BPF:
			put_program(b, r, t, a, ret);
			break;
		}
	}
	r->head.size = b->off;
	if (OUTPUT(critical, b->data, b->off))
		COUNT(kind, lost_ring);
	return 0;
}

/* call is what a->call is. In a register the verifier knows it, and walks through what that call needs alone:
 * all of them take it eight times as long.
 */
SHARED int emit_act(CTX_PARAM const struct act *a, u32 call, long ret)
{
	return put_act(CTX a, call, ret, GROUP_ACT);
}

/* What a call did, once it has returned. */
static __always_inline int act_done(CTX_PARAM const struct act *a, u32 call, long ret)
{
	if (!is_act(a, call))
		return 0;
	hold_cpu();
	return release_cpu(emit_act(CTX a, call, ret));
}

#define ACT_OF(number, which) {.kind = (number), .call = (which)}

/* Calls under way, by thread, for tiers that see a call twice. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u32);
	__type(value, struct act);
} acts SEC(".maps");

static __always_inline int act_begins(struct act *a)
{
	u32 tid = bpf_get_current_pid_tgid();

	if (wanted(a->kind) && is_act(a, a->call) && bpf_map_update_elem(&acts, &tid, a, BPF_ANY)) {
		COUNT(a->kind, generated);
		COUNT(a->kind, lost_map);
	}
	return 0;
}

static __always_inline bool act_ends(struct act *to, u32 call)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct act *a = bpf_map_lookup_elem(&acts, &tid);

	if (!a || a->call != call)
		return false;
	*to = *a;
	bpf_map_delete_elem(&acts, &tid);
	return true;
}

static __always_inline void act_of_regs(struct act *a, const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86) && !defined(LEGACY)
	struct task_struct *t = (struct task_struct *)bpf_get_current_task();

	if (IN_COMPAT_CALL(t)) {
		a->args[0] = (u32)CALL32_ARG1(regs);
		a->args[1] = (u32)CALL32_ARG2(regs);
		a->args[2] = (u32)CALL32_ARG3(regs);
		a->args[3] = (u32)CALL32_ARG4(regs);
		a->args[4] = (u32)CALL32_ARG5(regs);
		return;
	}
#endif
	a->args[0] = CALL_ARG1(regs);
	a->args[1] = CALL_ARG2(regs);
	a->args[2] = CALL_ARG3(regs);
	a->args[3] = CALL_ARG4(regs);
	a->args[4] = CALL_ARG5(regs);
}

/* A program that looks past the arguments of its call is not attached. */
static __always_inline void act_of_entry(struct act *a, struct trace_event_raw_sys_enter *ctx, const int n)
{
	a->args[0] = ctx->args[0];
	if (n > 1)
		a->args[1] = ctx->args[1];
	if (n > 2)
		a->args[2] = ctx->args[2];
	if (n > 3)
		a->args[3] = ctx->args[3];
	if (n > 4)
		a->args[4] = ctx->args[4];
}

#define ACT_ENTER(name, kind, which, n)                                   \
	SEC("tracepoint/syscalls/sys_enter_" #name)                       \
	int on_##name##_pair_enter(struct trace_event_raw_sys_enter *ctx) \
	{                                                                 \
		struct act a = ACT_OF(kind, which);                       \
                                                                          \
		act_of_entry(&a, ctx, n);                                 \
		return act_begins(&a);                                    \
	}

#define ACT_PAIR(name, kind, which, n)                                    \
	ACT_ENTER(name, kind, which, n)                                   \
	SEC("tracepoint/syscalls/sys_exit_" #name)                        \
	int on_##name##_pair_exit(struct trace_event_raw_sys_exit *ctx)   \
	{                                                                 \
		struct act a;                                             \
                                                                          \
		return act_ends(&a, which) ? act_done(CTX &a, which, ctx->ret) : 0; \
	}

/* A function behind a system call, at its entry and return. */
#define ACT_CALLED(name, kind, which)                                                \
	SEC("kprobe/" #name)                                                         \
	int on_##name##_kprobe(struct pt_regs *ctx)                                  \
	{                                                                            \
		struct act a = ACT_OF(kind, which);                                  \
                                                                                     \
		act_of_regs(&a, (void *)FUNC_ARG1(ctx));                             \
		return act_begins(&a);                                               \
	}

#define ACT_PROBES(name, kind, which)                                                \
	ACT_CALLED(name, kind, which)                                                \
	SEC("kretprobe/" #name)                                                      \
	int on_##name##_kretprobe(struct pt_regs *ctx)                               \
	{                                                                            \
		struct act a;                                                        \
		long ret = FUNC_RESULT(ctx);                                         \
                                                                                     \
		return act_ends(&a, which) ? act_done(CTX &a, which, ret) : 0;              \
	}

#ifndef LEGACY

/* The context of an fexit program is the argument, registers, and the result. Where the BTF of 5.10
 * leaves out what registers are, only a helper may read it.
 */
#define ACT_FEXIT(name, kind, which, done)                                           \
	SEC("fexit/bpf_fentry_test1")                                                \
	int on_##name##_fexit(u64 *ctx)                                              \
	{                                                                            \
		struct act a = ACT_OF(kind, which);                                  \
		u64 call[2] = {};                                                    \
                                                                                     \
		bpf_probe_read_kernel(call, sizeof(call), ctx);                      \
		act_of_regs(&a, (void *)call[0]);                                    \
		return done(CTX &a, which, call[1]);                                         \
	}

#define ACT(name, kind, which, n)                                                    \
	ACT_FEXIT(name, kind, which, act_done)                                       \
	SEC("tracepoint/syscalls/sys_exit_" #name)                                   \
	int on_##name##_exit(struct trace_event_raw_sys_exit *ctx)                   \
	{                                                                            \
		struct act a = ACT_OF(kind, which);                                  \
                                                                                     \
		act_of_regs(&a, (void *)bpf_task_pt_regs(bpf_get_current_task_btf())); \
		return act_done(CTX &a, which, ctx->ret);                                   \
	}                                                                            \
	ACT_PROBES(name, kind, which)                                                \
	ACT_PAIR(name, kind, which, n)

#else

/* Before 4.17 the function is given the arguments, and not registers. */
#define ACT(name, kind, which, n)                                                    \
	SEC("kprobe/" #name)                                                         \
	int on_##name##_plain_kprobe(struct pt_regs *ctx)                            \
	{                                                                            \
		struct act a = ACT_OF(kind, which);                                  \
                                                                                     \
		a.args[0] = FUNC_ARG1(ctx);                                          \
		a.args[1] = FUNC_ARG2(ctx);                                          \
		a.args[2] = FUNC_ARG3(ctx);                                          \
		a.args[3] = FUNC_ARG4(ctx);                                          \
		a.args[4] = FUNC_ARG5(ctx);                                          \
		return act_begins(&a);                                               \
	}                                                                            \
	ACT_PROBES(name, kind, which)                                                \
	ACT_PAIR(name, kind, which, n)

#endif

/* access_remote_vm(): a write by it is one to /proc/PID/mem, by a call that tells nothing, or later
 * (6.12 does so) ptrace's, which tells of itself.
 */
#define FOLL_WRITE 1

static __always_inline bool in_ptrace(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct act *under_way = bpf_map_lookup_elem(&acts, &tid);

	if (under_way)
		return under_way->call == ACT_PTRACE;
#ifndef LEGACY
	if (task_regs) {
		struct task_struct *t = (struct task_struct *)bpf_get_current_task();
		long number = CALL_NUMBER((struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf()));

		return number == (IN_COMPAT_CALL(t) ? 26 : PTRACE_NUMBER);
	}
#endif
	return false;
}

static __always_inline bool memory_write(struct act *a, struct mm_struct *mm, u64 at, u64 length, u32 flags)
{
	if (!(flags & FOLL_WRITE) || in_ptrace())
		return false;
	if (bpf_core_field_exists(mm->owner)) /* CONFIG_MEMCG */
		a->args[0] = BPF_CORE_READ(mm, owner, tgid);
	a->args[1] = at;
	a->args[2] = length;
	return true;
}

/* It returns how many bytes were written. */
#define MEMORY_WRITTEN(n) ((n) ? 0 : -EIO)

#ifndef LEGACY

SEC("fexit/access_remote_vm")
int on_mem_write_fexit(u64 *ctx)
{
	struct act a = ACT_OF(KIND_PTRACE, ACT_MEM_WRITE);
	u64 call[6] = {};

	bpf_probe_read_kernel(call, sizeof(call), ctx);
	return memory_write(&a, (void *)call[0], call[1], call[3], call[4]) ? act_done(CTX &a, ACT_MEM_WRITE, MEMORY_WRITTEN((u32)call[5])) : 0;
}

#endif

SEC("kprobe/access_remote_vm")
int on_mem_write_kprobe(struct pt_regs *ctx)
{
	struct act a = ACT_OF(KIND_PTRACE, ACT_MEM_WRITE);

	return memory_write(&a, (void *)FUNC_ARG1(ctx), FUNC_ARG2(ctx), FUNC_ARG4(ctx), FUNC_ARG5(ctx)) ? act_begins(&a) : 0;
}

SEC("kretprobe/access_remote_vm")
int on_mem_write_kretprobe(struct pt_regs *ctx)
{
	struct act a;
	u32 n = FUNC_RESULT(ctx);

	return act_ends(&a, ACT_MEM_WRITE) ? act_done(CTX &a, ACT_MEM_WRITE, MEMORY_WRITTEN(n)) : 0;
}

ACT(ptrace, KIND_PTRACE, ACT_PTRACE, 4)
ACT(process_vm_readv, KIND_PTRACE, ACT_PROCESS_VM_READV, 5)
ACT(process_vm_writev, KIND_PTRACE, ACT_PROCESS_VM_WRITEV, 5)
ACT(bpf, KIND_BPF, ACT_BPF, 3)
ACT(mount, KIND_MOUNT, ACT_MOUNT, 5)
ACT(umount, KIND_MOUNT, ACT_UMOUNT, 2)
ACT(pivot_root, KIND_MOUNT, ACT_PIVOT_ROOT, 2)
ACT(setns, KIND_NAMESPACE, ACT_SETNS, 2)
ACT(unshare, KIND_NAMESPACE, ACT_UNSHARE, 1)
ACT(chroot, KIND_NAMESPACE, ACT_CHROOT, 1)
ACT(memfd_create, KIND_MEMORY, ACT_MEMFD_CREATE, 2)
ACT(mprotect, KIND_MEMORY, ACT_MPROTECT, 3)
ACT(mmap, KIND_MEMORY, ACT_MMAP, 5)
#ifndef LEGACY /* later than what that is for */
ACT(move_mount, KIND_MOUNT, ACT_MOVE_MOUNT, 5)
ACT(mount_setattr, KIND_MOUNT, ACT_MOUNT_SETATTR, 5)
#endif
