/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Paths as the kernel holds them: dentries and mounts, walked from the leaf to the root of
 * the mount namespace (fs/d_path.c, prepend_path). bpf_d_path() is not for tracepoints.
 */
#ifndef GOSHAWK_PATH_H
#define GOSHAWK_PATH_H

/* A path has at most PATH_MAX bytes when it is looked up at once, so that many steps see
 * any such. One that was made by changing directory again and again may be longer: it is cut.
 * Two loops of few turns in place of one of many: the verifier walks each on its own, and
 * there is one look-up and one call for WALK_STEPS names.
 */
#define WALK_STEPS 16
#define WALKS 132
#define PATH_BYTES 4096
#define NAME_BYTES 256

/* Where a record with variable data is built. A CPU builds one at a time: those who write
 * here hold it (hold_cpu), and the iterator has a slot of its own.
 */
#define BUILD_BYTES (128 * 1024)
#define BUILD_MASK (BUILD_BYTES / 2 - 1)

struct build {
	struct dentry *dentry;
	struct dentry *root; /* of the present mount */
	struct mount *mount;
	u32 off;   /* end of what is written */
	u32 limit; /* of the present path */
	u8 data[BUILD_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* user space sets it: CPUs, and one for the iterator */
	__type(key, u32);
	__type(value, struct build);
} builds SEC(".maps");

#ifndef LEGACY

volatile const u32 iterator_slot;

/* walk writes up to WALK_STEPS names, going up a mount where one ends. It returns 0 to go
 * on, 1 at the root, 2 when the path is cut. A global function: the verifier looks at it once.
 */
__noinline int walk(u32 slot)
{
	struct build *b = bpf_map_lookup_elem(&builds, &slot);
	struct dentry *dentry, *root, *parent;
	struct mount *mount, *up;
	int done = 0;
	u32 off;
	long n;

	if (!b)
		return 2;
	dentry = b->dentry;
	root = b->root;
	mount = b->mount;
	off = b->off;
	for (int i = 0; i < WALK_STEPS; i++) {
		if (dentry == root) {
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount || !up) {
				done = 1;
				break;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = up;
			root = BPF_CORE_READ(up, mnt.mnt_root);
			continue;
		}
		if (off >= b->limit) {
			done = 2;
			break;
		}
		n = bpf_probe_read_kernel_str(&b->data[off & BUILD_MASK], NAME_BYTES,
					      BPF_CORE_READ(dentry, d_name.name));
		if (n <= 0) {
			done = 2;
			break;
		}
		off += n;
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry || !parent) { /* memfd, pipe, or detached */
			done = 1;
			break;
		}
		dentry = parent;
	}
	b->dentry = dentry;
	b->root = root;
	b->mount = mount;
	b->off = off;
	return done;
}

#define PATH_STEPS 0 /* as many as it takes */
#define CWD_STEPS 0

/* put_path appends the names of a path, leaf first; reports whether it is whole. */
static __always_inline bool put_path(struct build *b, u32 slot, struct vfsmount *mnt,
				     struct dentry *dentry, struct span *s, const int steps)
{
	int r = 2;

	s->off = b->off;
	b->limit = b->off + PATH_BYTES;
	b->dentry = dentry;
	b->mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
	b->root = BPF_CORE_READ(mnt, mnt_root);
	for (int i = 0; i < WALKS; i++) {
		r = walk(slot);
		if (r)
			break;
	}
	s->len = b->off - s->off;
	return r == 1;
}

/* put_names appends a name and the names of a directory, or with none those of a dentry, up to the
 * root of its file system, whatever is mounted where; reports whether that was reached.
 */
static __always_inline bool put_names(struct build *b, u32 slot, const char *name, struct dentry *dentry,
				      struct span *s)
{
	u32 off = b->off;
	int r = 2;
	long n;

	s->off = off;
	s->len = 0;
	if (name) {
		if (off > BUILD_MASK)
			return false;
		n = bpf_probe_read_kernel_str(&b->data[off & BUILD_MASK], NAME_BYTES, name);
		if (n <= 0)
			return false;
		b->off = off + n;
	}
	b->limit = s->off + PATH_BYTES;
	b->dentry = dentry;
	b->mount = NULL;
	b->root = NULL;
	for (int i = 0; i < WALKS; i++) {
		r = walk(slot);
		if (r)
			break;
	}
	s->len = b->off - s->off;
	return r == 1;
}

#else /* LEGACY */

#define PATH_STEPS 37
#define CWD_STEPS 21

/* Unrolled, as far as 4096 instructions reach: each fourth step looks whether a mount ends
 * here, which few names need; the others take a name. A longer path is cut, and user space
 * looks for its beginning in /proc.
 */
static __always_inline bool put_path_steps(struct build *b, struct vfsmount *mnt, struct dentry *dentry,
					   struct span *s, const int steps)
{
	struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt), *up;
	struct dentry *root = BPF_CORE_READ(mnt, mnt_root), *parent;
	/* In memory, what was found out on the way is one to the verifier with what was not. */
	volatile u32 *off = &b->off, *limit = &b->limit;
	u32 at;
	long n;

	s->off = *off;
	b->limit = *off + PATH_BYTES;
	b->dentry = dentry;
#pragma clang loop unroll(full)
	for (int i = 0; i < steps; i++) {
		if (i % 4 == 0) {
			if (dentry != root)
				continue;
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount)
				goto whole;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = up;
			root = BPF_CORE_READ(up, mnt.mnt_root);
			continue;
		}
		if (dentry == root)
			continue;
		at = *off;
		if (at >= *limit)
			goto out;
		n = bpf_probe_read_kernel_str(&b->data[at & BUILD_MASK], NAME_BYTES,
					      BPF_CORE_READ(dentry, d_name.name));
		if (n <= 0)
			goto out;
		*off += n;
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry)
			goto whole;
		dentry = parent;
	}
	if (dentry == root && BPF_CORE_READ(mount, mnt_parent) == mount)
		goto whole;
	goto out;
whole:
	b->dentry = NULL; /* in memory: in a register it would cost one more at each step */
out:
	asm volatile("" ::: "memory"); /* as ONE_WAY */
	s->len = b->off - s->off;
	return !b->dentry;
}

#define put_path(b, slot, mnt, dentry, s, steps) put_path_steps(b, mnt, dentry, s, steps)

#endif

/* put_str appends a string of the kernel's memory, or of the process's, without its NUL. */
static __always_inline bool put_str(struct build *b, const char *p, bool user, struct span *s)
{
	u32 off = b->off;
	long n;

	s->off = off;
	s->len = 0;
	if (off > BUILD_MASK)
		return false;
	n = user ? bpf_probe_read_user_str(&b->data[off & BUILD_MASK], PATH_BYTES, p)
		 : bpf_probe_read_kernel_str(&b->data[off & BUILD_MASK], PATH_BYTES, p);
	if (n <= 0)
		return false;
	s->len = n - 1;
	b->off = off + n;
	return true;
}

#endif
