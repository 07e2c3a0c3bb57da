/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Programs started. sched_process_exec fires in begin_new_exec()'s caller (fs/exec.c,
 * exec_binprm) once the new image is in place: nothing but the caller runs in it yet, and
 * the strings at mm->arg_start are those that the kernel itself copied there.
 */

#define ARGS_BYTES 32768
#define ENV_BYTES 16384
#define CHUNK 4096

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* The environment has no room for pieces in 4096 instructions: all of it or nothing. */
#ifdef LEGACY
#define ENV_PIECES 0
#else
#define ENV_PIECES (ENV_BYTES / CHUNK + 1)
#endif

/* put_user appends up to max bytes at from, whole or by pages as far as they are there. */
static __always_inline u32 put_user(struct build *b, unsigned long from, u64 len, const u32 max, const int pieces)
{
	u64 off = b->off, done = 0, n;

	if (len > max)
		len = max;
	if (off > BUILD_MASK || !len)
		return 0;
	if (!bpf_probe_read_user(&b->data[off & BUILD_MASK], BOUND(len, max), (void *)from)) {
		b->off = off + len;
		return len;
	}
	/* A page is not there (swapped, or not yet shared by the filler): take those before it. */
	UNROLL(9)
	for (int i = 0; i < pieces; i++) {
		if (done >= len)
			break;
		n = CHUNK - ((from + done) & (CHUNK - 1));
		if (n > len - done)
			n = len - done;
		if (bpf_probe_read_user(&b->data[(off + done) & BUILD_MASK], BOUND(n, CHUNK), (void *)(from + done)))
			break;
		done += n;
	}
	b->off = off + done;
	return done;
}

#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define OVL_UPPERDATA 3 /* enum ovl_inode_flag, a bit of ovl_inode.flags since 4.19 */

/* in_upper reports whether an overlay's file was written since the overlay was made. overlayfs
 * may be a module, whose types CO-RE does not know: in struct ovl_inode (fs/overlayfs/ovl_entry.h)
 * flags stand right before vfs_inode and __upperdentry right behind it, since 4.13.
 */
static __always_inline bool in_upper(struct inode *inode)
{
	unsigned long flags = 0;
	void *upper = NULL;

	if (!SETTING(ovl_inode) || BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_SUPER_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	if (!upper)
		return false;
	if (!SETTING(ovl_metacopy))
		return true;
	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)inode - sizeof(flags));
	return flags & (1UL << OVL_UPPERDATA);
}

static __always_inline void fill_file(struct rec_exec *r, struct task_struct *t, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct fs_struct *fs = BPF_CORE_READ(t, fs);
	bool upper = in_upper(BPF_CORE_READ(dentry, d_inode));

	ONE_WAY(upper);
	if (upper)
		r->head.flags |= FLAG_UPPER;
	if (fs && BPF_CORE_READ(fs, root.mnt) != BPF_CORE_READ(file, f_path.mnt))
		r->head.flags |= FLAG_OTHER_MOUNT;

	r->inode = BPF_CORE_READ(inode, i_ino);
	r->mode = BPF_CORE_READ(inode, i_mode);
	r->owner_uid = READ_ID(inode, inode, i_uid);
	r->owner_gid = READ_ID(inode, inode, i_gid);
	r->nlink = BPF_CORE_READ(inode, i_nlink);
	r->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	/* memfd_create() makes a root dentry called "memfd:NAME" (mm/memfd.c); no file that
	 * has a directory can be its own parent.
	 */
	if (!r->nlink && BPF_CORE_READ(dentry, d_parent) == dentry) {
		char name[8] = {};

		bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(dentry, d_name.name));
		if (name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && name[3] == 'f' &&
		    name[4] == 'd' && name[5] == ':')
			r->head.flags |= FLAG_MEMFD;
	}
}

/* fill_image writes what the seed and an exec share: credentials, file, path, cwd. */
static __always_inline void fill_image(struct build *b, u32 slot, struct rec_exec *r,
				       struct task_struct *t, struct file *file)
{
	const struct cred *cred = BPF_CORE_READ(t, real_cred);
	struct fs_struct *fs = BPF_CORE_READ(t, fs);

	r->suid = READ_ID(cred, cred, suid);
	r->sgid = READ_ID(cred, cred, sgid);
	r->fsuid = READ_ID(cred, cred, fsuid);
	r->fsgid = READ_ID(cred, cred, fsgid);
	fill_file(r, t, file);
	b->off = sizeof(*r);
	if (!put_path(b, slot, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), &r->path, PATH_STEPS))
		r->head.flags |= FLAG_PATH_CUT;
	if (fs) {
		if (!put_path(b, slot, BPF_CORE_READ(fs, pwd.mnt), BPF_CORE_READ(fs, pwd.dentry), &r->cwd, CWD_STEPS))
			r->head.flags |= FLAG_CWD_CUT;
	} else {
		r->cwd.off = r->cwd.len = 0;
	}
	r->filename.off = r->args.off = r->env.off = b->off;
	r->filename.len = r->args.len = r->env.len = 0;
	r->args_length = 0;
	r->argc = 0;
}

/* has_entered reports whether t's parent lives in an outer pid namespace. */
static __always_inline bool has_entered(struct task_struct *t)
{
	struct task_struct *leader = BPF_CORE_READ(t, group_leader);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	struct pid *own = pid_of(leader), *above = pid_of(parent);

	return BPF_CORE_READ(above, level) < BPF_CORE_READ(own, level);
}

/* bprm is NULL when it is not known: then the file is the task's own, and whether that is the
 * interpreter of a script is for user space to find out.
 */
static __always_inline int emit_exec(CTX_PARAM struct task_struct *t, struct linux_binprm *bprm)
{
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	u32 slot = this_cpu();
	struct build *b;
	struct rec_exec *r;
	unsigned long from, to;
	const char *filename, *interp;

	if (!wanted(KIND_EXEC))
		return 0;
	COUNT(KIND_EXEC, generated);
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b) {
		COUNT(KIND_EXEC, lost_map);
		return 0;
	}
	r = (void *)b->data;
	fill_head(&r->head, t, KIND_EXEC, 0);
	fill_image(b, slot, r, t, bprm ? BPF_CORE_READ(bprm, file) : BPF_CORE_READ(mm, exe_file));

	if (r->head.pid_ns && has_entered(t))
		r->head.flags |= FLAG_ENTERED;

	if (bprm) {
		filename = BPF_CORE_READ(bprm, filename);
		interp = BPF_CORE_READ(bprm, interp);
		if (filename != interp)
			r->head.flags |= FLAG_SCRIPT;
		r->argc = BPF_CORE_READ(bprm, argc);
	} else { /* the strings on the new stack begin with a copy (AT_EXECFN), above the environment */
		filename = (void *)BPF_CORE_READ(mm, env_end);
		r->head.flags |= FLAG_SCRIPT_UNKNOWN;
	}
	if (!put_str(b, filename, !bprm, &r->filename))
		r->head.flags |= FLAG_FILENAME_CUT;

	from = BPF_CORE_READ(mm, arg_start);
	to = BPF_CORE_READ(mm, arg_end);
	r->args.off = b->off;
	r->args_length = to > from ? to - from : 0;
	r->args.len = put_user(b, from, r->args_length, ARGS_BYTES, ARGS_BYTES / CHUNK + 1);
	if (r->args.len < r->args_length)
		r->head.flags |= FLAG_ARGS_CUT;
	r->env.off = b->off;
	if (SETTING(with_env)) {
		from = BPF_CORE_READ(mm, env_start);
		to = BPF_CORE_READ(mm, env_end);
		if (to > from)
			r->env.len = put_user(b, from, to - from, ENV_BYTES, ENV_PIECES);
		if (to > from && to - from > r->env.len)
			r->head.flags |= FLAG_ENV_CUT;
	}
	r->head.size = b->off;
	if (OUTPUT(critical, b->data, b->off))
		COUNT(KIND_EXEC, lost_ring);
	return 0;
}

#ifndef LEGACY

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec_tp_btf, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	hold_cpu();
	return release_cpu(emit_exec(CTX t, bprm));
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(on_exec_raw_tp, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	hold_cpu();
	return release_cpu(emit_exec(CTX t, bprm));
}

/* Processes that run already, as records of kind exec without arguments: their memory is
 * not ours to read here; user space reads /proc/PID/cmdline.
 */
SEC("iter/task")
int on_seed(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	u32 slot = iterator_slot;
	struct file *file;
	struct rec_exec *r;
	struct build *b;

	if (!t || t->pid != t->tgid)
		return 0;
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b)
		return 0;
	r = (void *)b->data;
	fill_head(&r->head, t, KIND_EXEC, 0);
	file = BPF_CORE_READ(t, mm, exe_file);
	if (file) {
		fill_image(b, slot, r, t, file);
	} else { /* a kernel thread */
		__builtin_memset((void *)r + sizeof(r->head), 0, sizeof(*r) - sizeof(r->head));
		b->off = sizeof(*r);
	}
	r->head.size = b->off;
	bpf_seq_write(ctx->meta->seq, b->data, b->off & BUILD_MASK);
	return 0;
}

/* What the classic tracepoint lacks, user space finds out (legacy has more to say below). */
SEC("tracepoint/sched/sched_process_exec")
int on_exec_tracepoint(void *ctx)
{
	hold_cpu();
	return release_cpu(emit_exec(CTX (struct task_struct *)bpf_get_current_task(), NULL));
}

#else /* LEGACY */

/* An exec, by its thread, from the point of no return to its end. */
struct exec_begun {
	struct linux_binprm *bprm;
	u64 told;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct exec_begun);
} execs SEC(".maps");

/* The classic tracepoint has no bprm. Each format of executables calls setup_new_exec() on
 * its way, after which an exec that fails kills the process.
 */
SEC("kprobe/setup_new_exec")
int on_exec_begins(struct pt_regs *ctx)
{
	struct exec_begun e = {.bprm = (void *)FUNC_ARG1(ctx)};
	u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&execs, &tid, &e, BPF_ANY);
	return 0;
}

SEC("tracepoint/sched/sched_process_exec")
int on_exec_tracepoint(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct exec_begun *e = bpf_map_lookup_elem(&execs, &tid);
	struct linux_binprm *bprm = NULL;

	if (e) {
		bprm = e->bprm;
		e->told = 1;
	}
	return emit_exec(CTX (struct task_struct *)bpf_get_current_task(), bprm);
}

/* The kernel drops an event of that tracepoint, with its programs, when the file's name makes
 * it longer than 2 KB (PERF_MAX_TRACE_SIZE, 8 KB since 5.13). Soon after comes
 * proc_exec_connector(), which tells what was not told. Not it alone: a tracer has had the
 * process between the two, and can have written into its arguments.
 */
SEC("kprobe/proc_exec_connector")
int on_exec_ends(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct exec_begun *e = bpf_map_lookup_elem(&execs, &tid);
	struct linux_binprm *bprm;
	u64 told;

	if (!e)
		return 0;
	bprm = e->bprm;
	told = e->told;
	bpf_map_delete_elem(&execs, &tid);
	return told ? 0 : emit_exec(CTX (struct task_struct *)bpf_get_current_task(), bprm);
}

#endif
