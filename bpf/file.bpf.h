/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Files of which somebody wants to know. The programs stand on the functions of fs/namei.c and its
 * kin behind which all ways meet (system calls, io_uring, handles, the NFS server): what they
 * return tells whether it was done.
 */

#define S_IFMT 0170000
#define S_IFDIR 0040000
#define FMODE_WRITE 2
#define FMODE_CREATED (1 << 20)
#define PF_KTHREAD 0x200000

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
	u64 mapped; /* shared, for writing */
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

static __always_inline struct file_open *written(struct file *file)
{
	struct file_open *o = bpf_map_lookup_elem(&file_opens, &file);

	return o && o->inode == (u64)BPF_CORE_READ(file, f_inode) ? o : NULL;
}

static __always_inline void touch(struct file *file)
{
	struct file_open *o = written(file);
	struct task_struct *t;
	bool first;
	u64 at;

	if (!o)
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

/* keep_open remembers a watched file that a process can write to. */
static __noinline int keep_open(struct file *file, struct task_struct *t, u32 slot)
{
	struct build *b = bpf_map_lookup_elem(&builds, &slot);
	u64 key = (u64)file;
	struct file_open *o;

	if (b) {
		o = (void *)b->data;
		o->inode = (u64)BPF_CORE_READ(file, f_inode);
		o->touched = o->mapped = 0;
		fill_head(&o->head, t, KIND_FILE, 0);
		if (!bpf_map_update_elem(&file_opens, &key, o, BPF_ANY))
			return 0;
	}
	COUNT(KIND_FILE, generated);
	COUNT(KIND_FILE, lost_map);
	return 0;
}

/* security_file_open(): the file is about to be open, and is there. */
static __noinline int file_opened(struct file *file, int ret)
{
	u32 mode = BPF_CORE_READ(file, f_mode), *system;
	struct file_root root;
	struct dentry *dentry;
	int selected;

	if (!wanted(KIND_FILE))
		return 0;
	/* Most files are opened to be read. */
	dentry = BPF_CORE_READ(file, f_path.dentry);
	system = file_system(dentry, &root);
	if (!system || (!(mode & (FMODE_WRITE | FMODE_CREATED)) && !(*system & ROOT_OPENED)))
		return 0;
	selected = file_selected((u64)dentry);
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
	return keep_open(file, file_actor(), this_cpu());
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

/* Memory that is shared with a file is written to unseen: being able to is taken for it. */
static __noinline int file_mapped(struct file *file)
{
	struct file_open *o = written(file);

	if (o && !o->mapped) {
		o->mapped = 1;
		tell_open(file, FILE_MMAP, NULL);
	}
	touch(file);
	return 0;
}
