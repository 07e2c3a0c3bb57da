/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Files of which somebody wants to know. The programs stand on the functions of fs/namei.c and its
 * kin behind which all ways meet (system calls, io_uring, handles, the NFS server): what they
 * return tells whether it was done. A file is looked for by the directories above it, in the file
 * system and not in a mount: whichever mount was used, it is the same file.
 */

#define S_IFMT 0170000
#define S_IFDIR 0040000
#define FMODE_WRITE 2
#define FMODE_CREATED (1 << 20)
#define MAY_WRITE 2
#define ATTR_SIZE 8
#define ATTR_FILE (1 << 13)
#define MAP_KIND 0x0f /* MAP_SHARED 1, MAP_SHARED_VALIDATE 3; MAP_PRIVATE 2 */
#define VM_SHARED 8
#define PF_KTHREAD 0x200000

/* A value of file_roots: how far below that directory files are watched, and more. */
#define ROOT_DEPTH 0xff	  /* so many names; the most is all */
#define ROOT_PIVOT 0x100  /* what is watched lies below a directory right in it, to be made or moved there */
#define ROOT_WHOLE 0x200  /* of a file system: all of it is watched */
#define ROOT_OPENED 0x400 /* of a file system: files merely opened are asked for */

/* What user space asks for. A file that is in question there may turn out not to be watched: the
 * pattern is user space's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, NO_PREALLOC);
	__type(key, struct file_root);
	__type(value, u32);
} file_roots SEC(".maps");

#define SELECTED 1
#define PIVOT 2
#define OPENED 4
#define SELECT_STEPS 64 /* deeper files of such file systems are left to user space */

/* file_selected looks for a dentry in file_roots; a global function, as walk() is. */
__noinline int file_selected(u64 at)
{
	struct dentry *d = (void *)at, *parent;
	struct file_root key = {};
	int found = 0;
	u32 *root;

	if (!d)
		return 0;
	key.dev = BPF_CORE_READ(d, d_sb, s_dev);
	root = bpf_map_lookup_elem(&file_roots, &key);
	if (!root)
		return 0;
	if (*root & ROOT_OPENED)
		found = OPENED;
	if (*root & ROOT_WHOLE)
		return found | SELECTED;
	for (int i = 1; i <= SELECT_STEPS; i++) {
		parent = BPF_CORE_READ(d, d_parent);
		if (parent == d || !parent) {
			if (i > 1)
				return found;
			parent = d; /* the root itself */
		}
		key.inode = BPF_CORE_READ(parent, d_inode, i_ino);
		root = bpf_map_lookup_elem(&file_roots, &key);
		if (root) {
			if (i == 1 && *root & ROOT_PIVOT)
				found |= PIVOT;
			if ((*root & ROOT_DEPTH) >= i)
				return found | SELECTED;
		}
		if (parent == d)
			return found;
		d = parent;
	}
	return found | SELECTED;
}

/* Functions that are watched, as internal/sensor numbers them, and where they have their
 * arguments: that has changed again and again. Set by user space, by the kernel's BTF.
 */
enum file_function {
	FN_CREATE,
	FN_MKDIR,
	FN_MKNOD,
	FN_SYMLINK,
	FN_LINK,
	FN_UNLINK,
	FN_RMDIR,
	FN_RENAME,
	FN_ATTRIBUTES,
	FN_SETXATTR,
	FN_REMOVEXATTR,
	FN_SETACL,
	FN_REMOVEACL,
};

volatile const u8 file_dentry[16]; /* the first struct dentry *, counted from 0 */
volatile const u8 file_other[16];  /* the second */
volatile const u8 file_result[16]; /* what follows the last argument */
volatile const bool file_renamedata; /* vfs_rename() has one argument, from 5.12 on */

/* What a function was called with. */
struct file_ask {
	u64 dentry;
	u64 other; /* rename: the new name; link: the same */
	u64 text;
	u64 file;
	u32 valid;
	u16 function;
	u16 op;
	u64 inner; /* asked within the function, which may be part of its callers */
};

/* Functions under way, by thread and function. */
struct file_call {
	struct file_ask ask;
	struct rec_inode before;
	u64 parent; /* rename: the directory */
	u64 time;
	u32 nested; /* the same function, called by itself for the file system below */
	u32 selected;
	char name[NAME_BYTES]; /* rename: what it was called */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u64);
	__type(value, struct file_call);
} file_calls SEC(".maps");

/* Watched files that are open for writing. */
struct file_open {
	u64 inode; /* its address: a file closed unseen may leave its own to another */
	u64 touched;
	struct rec_head head; /* of who wrote last */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, NO_PREALLOC);
	__type(key, u64);
	__type(value, struct file_open);
} file_opens SEC(".maps");

/* A function that was begun so long ago, ns, has ended unseen. */
#define CALL_MAX 10000000000ULL
#define TOUCH_AGAIN 1000000000ULL

/* Who acts: before 5.12 io_uring has threads of the kernel's work for a process. */
static __always_inline struct task_struct *file_actor(void)
{
	struct task_struct *t = (struct task_struct *)bpf_get_current_task(), *owner = NULL;
	struct mm_struct *mm;

	if (!(BPF_CORE_READ(t, flags) & PF_KTHREAD))
		return t;
	mm = BPF_CORE_READ(t, mm);
	if (mm && bpf_core_field_exists(mm->owner))
		owner = BPF_CORE_READ(mm, owner);
	return owner ? owner : t;
}

#define SPEC_NS(p, field) (BPF_CORE_READ(p, field.tv_sec) * 1000000000ULL + BPF_CORE_READ(p, field.tv_nsec))

static __noinline void fill_inode(struct rec_inode *r, struct inode *inode)
{
	struct inode___before_6_11 *old = (void *)inode;
	struct inode___before_6_7 *older = (void *)inode;

	r->inode = r->size = r->atime = r->mtime = r->ctime = 0;
	r->dev = r->mode = r->nlink = r->pad = 0;
	r->uid = r->gid = -1;
	if (!inode)
		return;
	r->inode = BPF_CORE_READ(inode, i_ino);
	r->size = BPF_CORE_READ(inode, i_size);
	r->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	r->mode = BPF_CORE_READ(inode, i_mode);
	r->nlink = BPF_CORE_READ(inode, i_nlink);
	r->uid = READ_ID(inode, inode, i_uid);
	r->gid = READ_ID(inode, inode, i_gid);
	if (bpf_core_field_exists(inode->i_mtime_sec)) {
		r->atime = BPF_CORE_READ(inode, i_atime_sec) * 1000000000ULL + BPF_CORE_READ(inode, i_atime_nsec);
		r->mtime = BPF_CORE_READ(inode, i_mtime_sec) * 1000000000ULL + BPF_CORE_READ(inode, i_mtime_nsec);
		/* The highest bit says that somebody has asked (I_CTIME_QUERIED, from 6.13 on). */
		r->ctime = BPF_CORE_READ(inode, i_ctime_sec) * 1000000000ULL +
			   (BPF_CORE_READ(inode, i_ctime_nsec) & 0x7fffffff);
	}
	if (bpf_core_field_exists(old->__i_mtime))
		r->mtime = SPEC_NS(old, __i_mtime);
	if (bpf_core_field_exists(old->__i_atime))
		r->atime = SPEC_NS(old, __i_atime);
	if (bpf_core_field_exists(old->__i_ctime))
		r->ctime = SPEC_NS(old, __i_ctime);
	if (bpf_core_field_exists(older->i_mtime))
		r->mtime = SPEC_NS(older, i_mtime);
	if (bpf_core_field_exists(older->i_atime))
		r->atime = SPEC_NS(older, i_atime);
	if (bpf_core_field_exists(older->i_ctime))
		r->ctime = SPEC_NS(older, i_ctime);
}

/* file_room is where a record is built; NULL when there is none. */
static __noinline struct build *file_room(u32 slot)
{
	struct build *b = bpf_map_lookup_elem(&builds, &slot);

	COUNT(KIND_FILE, generated);
	if (!b)
		COUNT(KIND_FILE, lost_map);
	return b;
}

static __always_inline void begin_file(struct build *b, struct rec_file *r, u16 op)
{
	r->file = 0;
	r->valid = r->old_mode = 0;
	r->op = op;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
	b->off = sizeof(*r);
	r->path.off = r->other.off = r->text.off = b->off;
	r->path.len = r->other.len = r->text.len = 0;
}

/* send_file hands over a record that was begun at a time. Where programs may be preempted and
 * cannot hold the CPU (hold_cpu), another may have built its own in the same place.
 */
static __always_inline int send_file(struct build *b, struct rec_file *r, u64 at, u32 tid)
{
	if (r->head.time != at || r->head.tid != tid || r->head.kind != KIND_FILE) {
		COUNT(KIND_FILE, lost_busy);
		return 0;
	}
	r->head.size = b->off;
	if (OUTPUT(bulk, b->data, b->off))
		COUNT(KIND_FILE, lost_ring);
	return 0;
}

/* tell_open tells of an open file. With head it is of who wrote to it. */
static __noinline int tell_open(struct file *file, u16 op, struct rec_head *head)
{
	u32 slot = this_cpu();
	struct build *b = file_room(slot);
	struct rec_file *r;
	u32 tid;
	u64 at;

	if (!b)
		return 0;
	r = (void *)b->data;
	if (head) {
		r->head = *head;
		r->head.time = now();
		r->head.flags = 0;
	} else {
		fill_head(&r->head, file_actor(), KIND_FILE, 0);
	}
	at = r->head.time;
	tid = r->head.tid;
	begin_file(b, r, op);
	r->file = (u64)file;
	fill_inode(&r->inode, BPF_CORE_READ(file, f_inode));
	if (!put_names(b, slot, NULL, BPF_CORE_READ(file, f_path.dentry), &r->path))
		r->head.flags |= FLAG_PATH_CUT;
	return send_file(b, r, at, tid);
}

static __always_inline bool brings_directory(u16 op, u32 mode)
{
	return op == FILE_MKDIR || (op == FILE_RENAME && (mode & S_IFMT) == S_IFDIR);
}

/* file_begins keeps what is asked for until it is done, when it concerns a watched file. */
static __noinline int file_begins(const struct file_ask *a)
{
	u64 key = (u64)a->function << 32 | (u32)bpf_get_current_pid_tgid();
	struct file_call *under = bpf_map_lookup_elem(&file_calls, &key), *c;
	struct dentry *dentry = (void *)a->dentry, *other = (void *)a->other;
	int selected = file_selected(a->dentry);
	u32 slot = this_cpu();
	struct inode *inode;
	struct build *b;
	u64 at;

	if (a->other)
		selected |= file_selected(a->other);
	inode = BPF_CORE_READ(dentry, d_inode);
	if (!(selected & SELECTED) && !(selected & PIVOT && brings_directory(a->op, BPF_CORE_READ(inode, i_mode))))
		selected = 0;
	if (under && under->ask.inner) { /* it failed: none of ours told of its end */
		bpf_map_delete_elem(&file_calls, &key);
		under = NULL;
	}
	if (under && a->inner)
		return 0;
	if (under && now() - under->time < CALL_MAX) {
		under->nested++;
		if (selected) {
			COUNT(KIND_FILE, generated);
			COUNT(KIND_FILE, lost_map);
		}
		return 0;
	}
	if (under) {
		COUNT(KIND_FILE, generated);
		COUNT(KIND_FILE, lost_busy);
		bpf_map_delete_elem(&file_calls, &key);
	}
	if (!selected)
		return 0;
	/* Two names of one file: nothing will be done (vfs_rename). */
	if (a->op == FILE_RENAME && other && inode == BPF_CORE_READ(other, d_inode))
		return 0;
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b)
		goto lost;
	c = (void *)b->data;
	c->ask = *a;
	c->parent = 0;
	c->time = at = now();
	c->nested = 0;
	c->selected = selected;
	c->name[0] = 0;
	fill_inode(&c->before, inode);
	if (a->op == FILE_RENAME) {
		c->parent = (u64)BPF_CORE_READ(dentry, d_parent);
		bpf_probe_read_kernel_str(c->name, NAME_BYTES, BPF_CORE_READ(dentry, d_name.name));
	}
	if (c->time == at && c->ask.dentry == a->dentry && !bpf_map_update_elem(&file_calls, &key, c, BPF_ANY))
		return 0;
lost:
	COUNT(KIND_FILE, generated);
	COUNT(KIND_FILE, lost_map);
	return 0;
}

/* watch_below has all below a directory told, from now on, that has just come where one was
 * waited for. User space takes that back where it was another.
 */
static __always_inline bool watch_below(struct inode *inode)
{
	struct file_root key = {};
	u32 all = ROOT_DEPTH;

	if (!inode)
		return false;
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.dev = BPF_CORE_READ(inode, i_sb, s_dev);
	return !bpf_map_update_elem(&file_roots, &key, &all, BPF_NOEXIST);
}

static __always_inline void touch(struct file *file)
{
	struct file_open *o = bpf_map_lookup_elem(&file_opens, &file);
	struct task_struct *t;
	bool first;
	u64 at;

	if (!o || o->inode != (u64)BPF_CORE_READ(file, f_inode))
		return;
	at = now();
	first = !o->touched;
	t = file_actor();
	if (o->head.pid != BPF_CORE_READ(t, tgid)) {
		fill_head(&o->head, t, KIND_FILE, 0);
		first = true;
	}
	if (!first && at - o->touched < TOUCH_AGAIN)
		return;
	o->touched = at;
	tell_open(file, FILE_TOUCH, &o->head);
}

/* file_done tells of what has been done. */
static __noinline int file_done(struct file_call *c)
{
	struct dentry *dentry = (void *)c->ask.dentry, *other = (void *)c->ask.other;
	struct inode *inode = BPF_CORE_READ(dentry, d_inode);
	u32 slot = this_cpu(), op = c->ask.op, new = 0, tid;
	struct rec_file *r;
	struct build *b;
	u64 at;

	/* Before anybody can make something in it. */
	if (c->selected & PIVOT && brings_directory(op, c->before.mode))
		new = watch_below(inode) ? FLAG_PIVOT : 0;
	if (new && op == FILE_RENAME && c->ask.valid) /* exchanged: the other one has come, too */
		watch_below(BPF_CORE_READ(other, d_inode));
	b = file_room(slot);
	if (!b)
		return 0;
	r = (void *)b->data;
	fill_head(&r->head, file_actor(), KIND_FILE, 0);
	r->head.flags |= new;
	at = r->head.time;
	tid = r->head.tid;
	begin_file(b, r, op);
	r->valid = c->ask.valid;
	r->old_mode = c->before.mode;
	if (op == FILE_DELETE) {
		r->inode = c->before;
		if (r->inode.nlink)
			r->inode.nlink--;
	} else {
		fill_inode(&r->inode, inode);
		r->inode.dev = BPF_CORE_READ(dentry, d_sb, s_dev); /* mkdir may leave it without an inode */
	}
	if (op == FILE_RENAME) {
		if (c->ask.valid) /* RENAME_EXCHANGE */
			r->head.flags |= FLAG_EXCHANGE;
		if (!put_names(b, slot, c->name, (void *)c->parent, &r->path))
			r->head.flags |= FLAG_PATH_CUT;
		if (!put_names(b, slot, NULL, dentry, &r->other))
			r->head.flags |= FLAG_OTHER_CUT;
	} else {
		if (!put_names(b, slot, NULL, dentry, &r->path))
			r->head.flags |= FLAG_PATH_CUT;
		if (op == FILE_LINK && !put_names(b, slot, NULL, other, &r->other))
			r->head.flags |= FLAG_OTHER_CUT;
	}
	if (c->ask.text)
		put_str(b, (void *)c->ask.text, false, &r->text);
	return send_file(b, r, at, tid);
}

/* file_ends takes what a function returned: a number, or an address. */
static __noinline int file_ends(u32 function, u64 ret)
{
	u64 key = (u64)function << 32 | (u32)bpf_get_current_pid_tgid();
	struct file_call *c = bpf_map_lookup_elem(&file_calls, &key);
	u32 high = ret >> 32;

	if (!c || c->ask.inner)
		return 0;
	if (c->nested) {
		c->nested--;
		return 0;
	}
	if ((high != 0 && high != ~0U) || (u32)ret <= (u32)-4096) {
		file_done(c);
		if (c->ask.file)
			touch((void *)c->ask.file);
	}
	bpf_map_delete_elem(&file_calls, &key);
	return 0;
}

/* Compilers make vfs_rmdir() and vfs_rename() part of their callers at times (Debian's 5.10), and
 * nothing on them is run then. What they call lies elsewhere: before anything is done a function of
 * the security modules, and in the end, when it was done, one that changes the dentry. File
 * systems that do the latter by themselves (FS_RENAME_DOES_D_MOVE) are not seen so.
 */
static __noinline int inner_ends(u32 function, u64 dentry, bool done)
{
	u64 key = (u64)function << 32 | (u32)bpf_get_current_pid_tgid();
	struct file_call *c = bpf_map_lookup_elem(&file_calls, &key);

	if (!c || !c->ask.inner)
		return 0;
	if (dentry && c->ask.dentry != dentry) { /* another one: what was begun has failed */
		bpf_map_delete_elem(&file_calls, &key);
		return 0;
	}
	if (!done)
		return 0;
	file_done(c);
	bpf_map_delete_elem(&file_calls, &key);
	return 0;
}

/* security_file_open(): the file is about to be open, and is there. */
static __noinline int file_opened(struct file *file, int ret)
{
	u32 mode = BPF_CORE_READ(file, f_mode), slot = this_cpu();
	struct file_open *o;
	struct build *b;
	int selected;
	u64 key = (u64)file;

	if (!wanted(KIND_FILE))
		return 0;
	selected = file_selected((u64)BPF_CORE_READ(file, f_path.dentry));
	if (!(selected & SELECTED))
		return 0;
	if (mode & FMODE_CREATED)
		tell_open(file, FILE_CREATE, NULL);
	if (ret)
		return 0;
	if (selected & OPENED && !(mode & FMODE_CREATED) && (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFDIR)
		tell_open(file, FILE_OPEN, NULL);
	if (!(mode & FMODE_WRITE))
		return 0;
	b = bpf_map_lookup_elem(&builds, &slot);
	if (!b)
		goto lost;
	o = (void *)b->data;
	o->inode = (u64)BPF_CORE_READ(file, f_inode);
	o->touched = 0;
	fill_head(&o->head, file_actor(), KIND_FILE, 0);
	if (!bpf_map_update_elem(&file_opens, &key, o, BPF_ANY))
		return 0;
lost:
	COUNT(KIND_FILE, generated);
	COUNT(KIND_FILE, lost_map);
	return 0;
}

/* locks_remove_file(): the last of its descriptors and mappings is gone. */
static __noinline int file_closes(struct file *file)
{
	u64 key = (u64)file;
	struct file_open *o = bpf_map_lookup_elem(&file_opens, &key);

	if (!o)
		return 0;
	if (o->touched && o->inode == (u64)BPF_CORE_READ(file, f_inode))
		tell_open(file, FILE_WRITE, &o->head);
	bpf_map_delete_elem(&file_opens, &key);
	return 0;
}

static __noinline int file_touched(struct file *file)
{
	touch(file);
	return 0;
}

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

/* Memory that is shared with a file is written to unseen: being able to is taken for it. */
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
	return release_cpu(file_touched((void *)traced(ctx, 0)));
}

SEC("kprobe/security_mmap_file")
int on_file_mmap_kprobe(struct pt_regs *ctx)
{
	return shared_for_writing(FUNC_ARG2(ctx), FUNC_ARG3(ctx)) ? file_touched((void *)FUNC_ARG1(ctx)) : 0;
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
	return release_cpu(file_touched(file));
}

SEC("kprobe/security_file_mprotect")
int on_file_mprotect_kprobe(struct pt_regs *ctx)
{
	struct file *file = protected_file((void *)FUNC_ARG1(ctx), FUNC_ARG3(ctx));

	return file ? file_touched(file) : 0;
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
