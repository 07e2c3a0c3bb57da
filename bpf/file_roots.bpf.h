/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Which files are watched, as the kernel's side knows it: by directories above them, found by their
 * inodes in the file system and not in a mount. Whichever mount was used, it is the same file.
 */

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

/* file_system is what is asked for in the file system of a dentry: NULL for nothing. */
static __always_inline u32 *file_system(struct dentry *d, struct file_root *key)
{
	key->inode = key->pad = 0;
	key->dev = BPF_CORE_READ(d, d_sb, s_dev);
	return bpf_map_lookup_elem(&file_roots, key);
}

#define SELECTED 1
#define PIVOT 2
#define OPENED 4
#define SELECT_STEPS 64 /* deeper files of such file systems are left to user space */

/* file_selected looks for a dentry in file_roots; a global function, as walk() is. */
__noinline int file_selected(u64 at)
{
	struct dentry *d = (void *)at, *parent;
	struct file_root key;
	int found = 0;
	u32 *root;

	if (!d)
		return 0;
	root = file_system(d, &key);
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
