/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The programs of file.bpf.h, and where the functions that they are on have their arguments.
 */

#define MAY_WRITE 2
#define ATTR_SIZE 8
#define ATTR_FILE (1 << 13)
#define MAP_KIND 0x0f /* MAP_SHARED 1, MAP_SHARED_VALIDATE 3; MAP_PRIVATE 2 */
#define VM_SHARED 8

/* An argument of the function that a program is on, or after the last its result, as a number: the
 * verifier knows the types of arguments, and they differ from kernel to kernel.
 */
static __always_inline u64 traced(void *ctx, u32 n)
{
	u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), ctx + 8 * n);
	return v;
}

/* The same of a kprobe, which may read all registers: they are read before one is chosen, for an
 * address that depends on the choice is none to the verifier.
 */
static __always_inline u64 probed(struct pt_regs *ctx, const u32 n)
{
	u64 a[6] = {FUNC_ARG1(ctx), FUNC_ARG2(ctx), FUNC_ARG3(ctx), FUNC_ARG4(ctx), FUNC_ARG5(ctx), FUNC_ARG6(ctx)};

	asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3]), "+r"(a[4]), "+r"(a[5]));
	return n == 0 ? a[0] : n == 1 ? a[1] : n == 2 ? a[2] : n == 3 ? a[3] : n == 4 ? a[4] : a[5];
}

/* How each function is asked: HOW is traced or probed. */
#define ASK(fn, which) struct file_ask a = {.function = fn, .op = which}
#define DENTRY(HOW, fn) (a.dentry = HOW(ctx, file_dentry[fn]))

#define ASK_NAME(HOW, fn, op)   \
	ASK(fn, op);            \
	DENTRY(HOW, fn)
#define ASK_TEXT(HOW, fn, op)   \
	ASK_NAME(HOW, fn, op);  \
	a.text = HOW(ctx, file_dentry[fn] + 1)
#define ASK_LINK(HOW, fn, op)   \
	ASK_NAME(HOW, fn, op);  \
	a.other = HOW(ctx, file_other[fn])
#define ASK_RENAME(HOW, fn, op)                                            \
	ASK(fn, op);                                                       \
	if (file_renamedata) {                                             \
		struct renamedata *rd = (void *)HOW(ctx, 0);               \
                                                                           \
		a.dentry = (u64)BPF_CORE_READ(rd, old_dentry);             \
		a.other = (u64)BPF_CORE_READ(rd, new_dentry);              \
		a.valid = BPF_CORE_READ(rd, flags) & 2;                    \
	} else {                                                           \
		a.dentry = HOW(ctx, 1);                                    \
		a.other = HOW(ctx, 3);                                     \
		a.valid = HOW(ctx, 5) & 2;                                 \
	}
#define ASK_ATTRIBUTES(HOW, fn, op)                                        \
	ASK_NAME(HOW, fn, op);                                             \
	struct iattr *attr = (void *)HOW(ctx, file_dentry[fn] + 1);        \
	a.valid = BPF_CORE_READ(attr, ia_valid);                           \
	if ((a.valid & (ATTR_SIZE | ATTR_FILE)) == (ATTR_SIZE | ATTR_FILE)) \
		a.file = (u64)BPF_CORE_READ(attr, ia_file)

#define FILE_FUNCTION(name, fn, op, HOW)                                           \
	SEC("fentry/bpf_fentry_test1")                                             \
	int on_file_##name##_fentry(void *ctx)                                     \
	{                                                                          \
		HOW(traced, fn, op);                                               \
		hold_cpu();                                                        \
		return release_cpu(file_begins(&a));                               \
	}                                                                          \
	SEC("fexit/bpf_fentry_test1")                                              \
	int on_file_##name##_fexit(void *ctx)                                      \
	{                                                                          \
		u64 ret = traced(ctx, file_result[fn]);                            \
                                                                                   \
		hold_cpu();                                                        \
		return release_cpu(file_ends(fn, ret));                            \
	}                                                                          \
	SEC("kprobe/" #name)                                                       \
	int on_file_##name##_kprobe(struct pt_regs *ctx)                           \
	{                                                                          \
		HOW(probed, fn, op);                                               \
		return file_begins(&a);                                            \
	}                                                                          \
	SEC("kretprobe/" #name)                                                    \
	int on_file_##name##_kretprobe(struct pt_regs *ctx)                        \
	{                                                                          \
		return file_ends(fn, FUNC_RESULT(ctx));                            \
	}

FILE_FUNCTION(create, FN_CREATE, FILE_CREATE, ASK_NAME)
FILE_FUNCTION(mkdir, FN_MKDIR, FILE_MKDIR, ASK_NAME)
FILE_FUNCTION(mknod, FN_MKNOD, FILE_CREATE, ASK_NAME)
FILE_FUNCTION(symlink, FN_SYMLINK, FILE_SYMLINK, ASK_TEXT)
FILE_FUNCTION(link, FN_LINK, FILE_LINK, ASK_LINK)
FILE_FUNCTION(unlink, FN_UNLINK, FILE_DELETE, ASK_NAME)
FILE_FUNCTION(rmdir, FN_RMDIR, FILE_DELETE, ASK_NAME)
FILE_FUNCTION(rename, FN_RENAME, FILE_RENAME, ASK_RENAME)
FILE_FUNCTION(attributes, FN_ATTRIBUTES, FILE_ATTRIBUTES, ASK_ATTRIBUTES)
FILE_FUNCTION(setxattr, FN_SETXATTR, FILE_SETXATTR, ASK_TEXT)
FILE_FUNCTION(removexattr, FN_REMOVEXATTR, FILE_REMOVEXATTR, ASK_TEXT)
FILE_FUNCTION(setacl, FN_SETACL, FILE_SETXATTR, ASK_TEXT)
FILE_FUNCTION(removeacl, FN_REMOVEACL, FILE_REMOVEXATTR, ASK_TEXT)

#define INNER_RMDIR(HOW)                                                                       \
	struct file_ask a = {.function = FN_RMDIR, .op = FILE_DELETE, .inner = 1};             \
	a.dentry = HOW(ctx, 1)
#define INNER_RENAME(HOW)                                                                      \
	struct file_ask a = {.function = FN_RENAME, .op = FILE_RENAME, .inner = 1};            \
	a.dentry = HOW(ctx, 1);                                                                \
	a.other = HOW(ctx, 3);                                                                 \
	a.valid = HOW(ctx, 4) & 2

#define FILE_INNER(name, fn, function, ASK_INNER)                                              \
	SEC("fentry/" #function)                                                               \
	int on_file_##name##_inner_fentry(void *ctx)                                           \
	{                                                                                      \
		ASK_INNER(traced);                                                             \
		hold_cpu();                                                                    \
		return release_cpu(file_begins(&a));                                           \
	}                                                                                      \
	SEC("kprobe/" #function)                                                               \
	int on_file_##name##_inner_kprobe(struct pt_regs *ctx)                                 \
	{                                                                                      \
		ASK_INNER(probed);                                                             \
		return file_begins(&a);                                                        \
	}                                                                                      \
	SEC("fexit/bpf_fentry_test1")                                                          \
	int on_file_##name##_done_fexit(void *ctx)                                             \
	{                                                                                      \
		hold_cpu();                                                                    \
		return release_cpu(inner_ends(fn, traced(ctx, 0), true));                      \
	}                                                                                      \
	SEC("kprobe/" #name)                                                                   \
	int on_file_##name##_done_kprobe(struct pt_regs *ctx)                                  \
	{                                                                                      \
		return inner_ends(fn, FUNC_ARG1(ctx), false);                                  \
	}                                                                                      \
	SEC("kretprobe/" #name)                                                                \
	int on_file_##name##_done_kretprobe(struct pt_regs *ctx)                               \
	{                                                                                      \
		return inner_ends(fn, 0, true);                                                \
	}

FILE_INNER(rmdir, FN_RMDIR, security_inode_rmdir, INNER_RMDIR)
FILE_INNER(rename, FN_RENAME, security_inode_rename, INNER_RENAME)

SEC("fexit/security_file_open")
int on_file_open_fexit(void *ctx)
{
	hold_cpu();
	return release_cpu(file_opened((void *)traced(ctx, 0), traced(ctx, 1)));
}

SEC("kprobe/security_file_open")
int on_file_open_kprobe(struct pt_regs *ctx)
{
	return file_opened((void *)FUNC_ARG1(ctx), 0);
}

/* security_file_permission(): asked before each write, however it is asked for, and before each read. */
SEC("fentry/security_file_permission")
int BPF_PROG(on_file_write_fentry, void *file, int mask)
{
	if (!(mask & MAY_WRITE))
		return 0;
	hold_cpu();
	return release_cpu(file_touched((void *)traced(ctx, 0)));
}

SEC("kprobe/security_file_permission")
int on_file_write_kprobe(struct pt_regs *ctx)
{
	return FUNC_ARG2(ctx) & MAY_WRITE ? file_touched((void *)FUNC_ARG1(ctx)) : 0;
}

static __always_inline bool shared_for_writing(u64 prot, u64 flags)
{
	return prot & PROT_WRITE && ((flags & MAP_KIND) == 1 || (flags & MAP_KIND) == 3);
}

SEC("fentry/security_mmap_file")
int BPF_PROG(on_file_mmap_fentry, void *file, unsigned long prot, unsigned long flags)
{
	if (!shared_for_writing(prot, flags))
		return 0;
	hold_cpu();
	return release_cpu(file_mapped((void *)traced(ctx, 0)));
}

SEC("kprobe/security_mmap_file")
int on_file_mmap_kprobe(struct pt_regs *ctx)
{
	return shared_for_writing(FUNC_ARG2(ctx), FUNC_ARG3(ctx)) ? file_mapped((void *)FUNC_ARG1(ctx)) : 0;
}

static __always_inline struct file *protected_file(struct vm_area_struct *vma, u64 prot)
{
	if (!(prot & PROT_WRITE) || !bpf_core_field_exists(vma->vm_flags) || !(BPF_CORE_READ(vma, vm_flags) & VM_SHARED))
		return NULL;
	return BPF_CORE_READ(vma, vm_file);
}

SEC("fentry/security_file_mprotect")
int BPF_PROG(on_file_mprotect_fentry, void *vma, unsigned long asked, unsigned long prot)
{
	struct file *file = protected_file((void *)traced(ctx, 0), prot);

	if (!file)
		return 0;
	hold_cpu();
	return release_cpu(file_mapped(file));
}

SEC("kprobe/security_file_mprotect")
int on_file_mprotect_kprobe(struct pt_regs *ctx)
{
	struct file *file = protected_file((void *)FUNC_ARG1(ctx), FUNC_ARG3(ctx));

	return file ? file_mapped(file) : 0;
}

SEC("fentry/locks_remove_file")
int on_file_close_fentry(void *ctx)
{
	struct file *file = (void *)traced(ctx, 0);

	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	hold_cpu();
	return release_cpu(file_closes(file));
}

SEC("kprobe/locks_remove_file")
int on_file_close_kprobe(struct pt_regs *ctx)
{
	struct file *file = (void *)FUNC_ARG1(ctx);

	return BPF_CORE_READ(file, f_mode) & FMODE_WRITE ? file_closes(file) : 0;
}

/* What was open for writing before anybody watched it. */
SEC("iter/task_file")
int on_file_seed(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;

	if (!task || !file || !(BPF_CORE_READ(file, f_mode) & FMODE_WRITE) || written(file))
		return 0;
	if (file_selected((u64)BPF_CORE_READ(file, f_path.dentry)) & SELECTED)
		keep_open(file, task, iterator_slot);
	return 0;
}
