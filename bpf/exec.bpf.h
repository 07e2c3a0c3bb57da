/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Programs started. sched_process_exec fires in begin_new_exec()'s caller (fs/exec.c,
 * exec_binprm) once the new image is in place: nothing but the caller runs in it yet, and
 * the strings at mm->arg_start are those that the kernel itself copied there.
 */

#define ARGS_BYTES 32768
#define ENV_BYTES 16384
#define CHUNK 4096

volatile const bool with_env;

#define S_IFMT 0170000
#define S_IFSOCK 0140000

/* put_user appends up to max bytes at from, whole or by pages as far as they are there. */
static __always_inline u32 put_user(struct build *b, unsigned long from, u32 len, const u32 max)
{
	u32 off = b->off, done = 0;

	if (len > max)
		len = max;
	if (off > BUILD_MASK || !len)
		return 0;
	if (!bpf_probe_read_user(&b->data[off & BUILD_MASK], len, (void *)from)) {
		b->off = off + len;
		return len;
	}
	/* A page is not there (swapped, or not yet shared by the filler): take those before it. */
	for (int i = 0; i < ARGS_BYTES / CHUNK + 1; i++) {
		u32 n = CHUNK - ((from + done) & (CHUNK - 1));

		if (done >= len)
			break;
		if (n > len - done)
			n = len - done;
		/* before 6.8 the verifier forgets what a comparison of differences proved */
		asm volatile("" : "+r"(n));
		if (n > CHUNK)
			break;
		if (bpf_probe_read_user(&b->data[(off + done) & BUILD_MASK], n, (void *)(from + done)))
			break;
		done += n;
	}
	b->off = off + done;
	return done;
}

#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define OVL_UPPERDATA 3 /* enum ovl_inode_flag, a bit of ovl_inode.flags since 4.19 */

/* User space sets it from 4.19 on: before, every upper file has its content there. */
volatile const bool ovl_metacopy;

/* in_upper reports whether an overlay's file was written since the overlay was made. overlayfs
 * may be a module, whose types CO-RE does not know: in struct ovl_inode (fs/overlayfs/ovl_entry.h)
 * flags stand right before vfs_inode and __upperdentry right behind it, since 4.13.
 */
static __always_inline bool in_upper(struct inode *inode)
{
	unsigned long flags = 0;
	void *upper = NULL;

	if (BPF_CORE_READ(inode, i_sb, s_magic) != OVERLAYFS_SUPER_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	if (!upper)
		return false;
	if (!ovl_metacopy)
		return true;
	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)inode - sizeof(flags));
	return flags & (1UL << OVL_UPPERDATA);
}

static __always_inline void fill_file(struct rec_exec *r, struct task_struct *t, struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct fs_struct *fs = BPF_CORE_READ(t, fs);

	if (in_upper(BPF_CORE_READ(dentry, d_inode)))
		r->head.flags |= FLAG_UPPER;
	if (fs && BPF_CORE_READ(fs, root.mnt) != BPF_CORE_READ(file, f_path.mnt))
		r->head.flags |= FLAG_OTHER_MOUNT;

	r->inode = BPF_CORE_READ(inode, i_ino);
	r->mode = BPF_CORE_READ(inode, i_mode);
	r->owner_uid = BPF_CORE_READ(inode, i_uid.val);
	r->owner_gid = BPF_CORE_READ(inode, i_gid.val);
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

	r->suid = BPF_CORE_READ(cred, suid.val);
	r->sgid = BPF_CORE_READ(cred, sgid.val);
	r->fsuid = BPF_CORE_READ(cred, fsuid.val);
	r->fsgid = BPF_CORE_READ(cred, fsgid.val);
	fill_file(r, t, file);
	b->off = sizeof(*r);
	if (!put_path(b, slot, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), &r->path))
		r->head.flags |= FLAG_PATH_CUT;
	if (fs) {
		if (!put_path(b, slot, BPF_CORE_READ(fs, pwd.mnt), BPF_CORE_READ(fs, pwd.dentry), &r->cwd))
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

static __always_inline int emit_exec(struct task_struct *t, struct linux_binprm *bprm)
{
	u32 slot = bpf_get_smp_processor_id();
	struct build *b;
	struct rec_exec *r;
	struct mm_struct *mm;
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
	fill_image(b, slot, r, t, BPF_CORE_READ(bprm, file));

	if (r->head.pid_ns && has_entered(t))
		r->head.flags |= FLAG_ENTERED;

	filename = BPF_CORE_READ(bprm, filename);
	interp = BPF_CORE_READ(bprm, interp);
	if (!put_kernel_str(b, filename, &r->filename))
		r->head.flags |= FLAG_FILENAME_CUT;
	if (filename != interp)
		r->head.flags |= FLAG_SCRIPT;

	r->argc = BPF_CORE_READ(bprm, argc);
	mm = BPF_CORE_READ(t, mm);
	from = BPF_CORE_READ(mm, arg_start);
	to = BPF_CORE_READ(mm, arg_end);
	r->args.off = b->off;
	r->args_length = to > from ? to - from : 0;
	r->args.len = put_user(b, from, r->args_length > ARGS_BYTES ? ARGS_BYTES : r->args_length, ARGS_BYTES);
	if (r->args.len < r->args_length)
		r->head.flags |= FLAG_ARGS_CUT;
	r->env.off = b->off;
	if (with_env) {
		from = BPF_CORE_READ(mm, env_start);
		to = BPF_CORE_READ(mm, env_end);
		if (to > from && to - from > ENV_BYTES)
			r->head.flags |= FLAG_ENV_CUT;
		if (to > from)
			r->env.len = put_user(b, from, to - from > ENV_BYTES ? ENV_BYTES : to - from, ENV_BYTES);
	}
	r->head.size = b->off;
	if (bpf_ringbuf_output(&critical, b->data, b->off & BUILD_MASK, 0))
		COUNT(KIND_EXEC, lost_ring);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec_tp_btf, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	hold_cpu();
	return release_cpu(emit_exec(t, bprm));
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(on_exec_raw_tp, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	hold_cpu();
	return release_cpu(emit_exec(t, bprm));
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
