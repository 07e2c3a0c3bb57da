/* Ways to change a file: each is done once, in a directory that holds the file f, 8 bytes, and
 * the directory d; out is one that nobody watches, with a file f as well.
 */
#include <dirent.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <sys/mount.h>
#include <linux/fs.h>

#define NEED(x)                                                                                      \
	({                                                                                           \
		long r_ = (x);                                                                       \
		if (r_ < 0 && (errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL || errno == EPERM)) \
			_exit(NOT_THERE);                                                            \
		if (r_ < 0)                                                                          \
			die(#x);                                                                     \
		r_;                                                                                  \
	})
#define MUST(x)                              \
	({                                   \
		long r_ = (x);               \
		if (r_ < 0)                  \
			die(#x);             \
		r_;                          \
	})

static long ring_op(int opcode, int fd, unsigned long addr, unsigned len, unsigned long off, unsigned flags)
{
	unsigned mask, *tail, *head;
	struct io_uring_sqe *e;
	struct io_uring_cqe *c;
	long ret;

	if (!ring.sq)
		make_ring();
	mask = *(unsigned *)(ring.sq + ring.p.sq_off.ring_mask);
	tail = (void *)(ring.sq + ring.p.sq_off.tail);
	head = (void *)(ring.cq + ring.p.cq_off.head);
	e = &ring.sqes[*tail & mask];
	memset(e, 0, sizeof(*e));
	e->opcode = opcode;
	e->fd = fd;
	e->addr = addr;
	e->len = len;
	e->off = off;
	e->open_flags = flags;
	((unsigned *)(ring.sq + ring.p.sq_off.array))[*tail & mask] = *tail & mask;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		die("io_uring_enter");
	while (__atomic_load_n((unsigned *)(ring.cq + ring.p.cq_off.tail), __ATOMIC_ACQUIRE) == *head)
		;
	c = (void *)(ring.cq + ring.p.cq_off.cqes + (*head & *(unsigned *)(ring.cq + ring.p.cq_off.ring_mask)) * sizeof(*c));
	ret = c->res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if (ret == -EINVAL)
		_exit(NOT_THERE);
	errno = ret < 0 ? -ret : 0;
	return ret < 0 ? -1 : ret;
}

static int do_file(const char *way, const char *dir, const char *out)
{
	char from[4096], buf[8192];
	struct stat st;
	int fd, fd2, p[2];
	void *m;

	snprintf(from, sizeof(from), "%s/f", out);
	MUST(chdir(dir));
#define WAY(name) if (!strcmp(way, name))
	WAY("create")
		return close(MUST(open("new", O_WRONLY | O_CREAT | O_EXCL, 0640)));
	WAY("creat") {
		fd = MUST(creat("new", 0600));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("openat2") {
		struct { unsigned long long flags, mode, resolve; } how = { O_WRONLY | O_CREAT, 0600, 0 };

		fd = NEED(syscall(437, AT_FDCWD, "new", &how, sizeof(how)));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("mkdir") return MUST(mkdir("new", 0755));
	WAY("rmdir") return MUST(rmdir("d"));
	WAY("mkfifo") return MUST(mkfifo("new", 0600));
	WAY("symlink") return MUST(symlink("f", "new"));
	WAY("link") return MUST(link("f", "new"));
	WAY("link_in") return MUST(link(from, "new"));
	WAY("tmpfile") {
		fd = NEED(open(".", O_WRONLY | O_TMPFILE, 0600));
		MUST(write(fd, "hello", 5));
		snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
		MUST(linkat(AT_FDCWD, buf, AT_FDCWD, "new", AT_SYMLINK_FOLLOW));
		return close(fd);
	}
	WAY("rename") return MUST(rename("f", "d/g"));
	WAY("rename_dir") return MUST(rename("d", "e"));
	WAY("rename_out") {
		snprintf(from, sizeof(from), "%s/g", out);
		return MUST(rename("f", from));
	}
	WAY("rename_in") return MUST(rename(from, "new"));
	WAY("rename_over") return MUST(rename(from, "f"));
	WAY("exchange") return NEED(syscall(SYS_renameat2, AT_FDCWD, "f", AT_FDCWD, "d", 2 /* RENAME_EXCHANGE */));
	WAY("unlink") return MUST(unlink("f"));
	WAY("truncate") return MUST(truncate("f", 3));
	WAY("ftruncate") {
		fd = MUST(open("f", O_WRONLY));
		MUST(ftruncate(fd, 3));
		return close(fd);
	}
	WAY("open_trunc") return close(MUST(open("f", O_WRONLY | O_TRUNC)));
	WAY("chmod") return MUST(chmod("f", 0600));
	WAY("fchmod") return MUST(fchmod(MUST(open("f", O_RDONLY)), 0600));
	WAY("chmod_dir") return MUST(chmod("d", 0700));
	WAY("chown") return MUST(chown("f", 1, 2));
	WAY("lchown") return MUST(lchown("f", 1, 2));
	WAY("setxattr") return NEED(setxattr("f", "trusted.goshawk", "1", 1, 0));
	WAY("removexattr") {
		NEED(setxattr("f", "trusted.goshawk", "1", 1, 0));
		return MUST(removexattr("f", "trusted.goshawk"));
	}
	WAY("utimes") {
		struct timespec t[2] = { { 1, 0 }, { 1, 0 } };
		return MUST(utimensat(AT_FDCWD, "f", t, 0));
	}
	WAY("write") {
		fd = MUST(open("f", O_WRONLY));
		MUST(write(fd, "hello", 5));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("append") {
		fd = MUST(open("f", O_WRONLY | O_APPEND));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("pwritev") {
		struct iovec v = { "hello", 5 };

		fd = MUST(open("f", O_RDWR));
		MUST(pwritev(fd, &v, 1, 2));
		return close(fd);
	}
	WAY("direct") {
		fd = NEED(open("f", O_WRONLY | O_DIRECT));
		m = aligned_alloc(4096, 4096);
		memset(m, 'x', 4096);
		NEED(write(fd, m, 4096));
		return close(fd);
	}
	WAY("mmap") {
		fd = MUST(open("f", O_RDWR));
		m = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (m == MAP_FAILED)
			die("mmap");
		close(fd);
		*(volatile char *)m = 'x';
		return munmap(m, 8);
	}
	WAY("sendfile") {
		fd = MUST(open("f", O_WRONLY));
		fd2 = MUST(open(from, O_RDONLY));
		MUST(sendfile(fd, fd2, NULL, 4));
		return close(fd);
	}
	WAY("splice") {
		MUST(pipe(p));
		MUST(write(p[1], "hello", 5));
		fd = MUST(open("f", O_WRONLY));
		MUST(splice(p[0], NULL, fd, NULL, 5, 0));
		return close(fd);
	}
	WAY("copy_file_range") {
		fd = MUST(open("f", O_WRONLY));
		fd2 = MUST(open(from, O_RDONLY));
		NEED(copy_file_range(fd2, NULL, fd, NULL, 4, 0));
		return close(fd);
	}
	WAY("fallocate") {
		fd = MUST(open("f", O_WRONLY));
		NEED(fallocate(fd, 0, 0, 4096));
		return close(fd);
	}
	WAY("ring_write") {
		fd = MUST(open("f", O_WRONLY));
		MUST(ring_op(23, fd, (long)"hello", 5, 0, 0));
		return close(fd);
	}
	WAY("ring_openat") {
		fd = MUST(ring_op(18, AT_FDCWD, (long)"new", 0600, 0, O_WRONLY | O_CREAT));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("ring_unlink") return MUST(ring_op(36, AT_FDCWD, (long)"f", 0, 0, 0));
	WAY("ring_rename") return MUST(ring_op(35, AT_FDCWD, (long)"f", AT_FDCWD, (long)"new", 0));
	WAY("handle") {
		struct file_handle *h = (void *)buf;
		int id, at = MUST(open(".", O_RDONLY));

		h->handle_bytes = 128;
		NEED(name_to_handle_at(AT_FDCWD, "f", h, &id, 0));
		fd = NEED(open_by_handle_at(at, h, O_WRONLY));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("bind_mount") {
		snprintf(buf, sizeof(buf), "%s/mnt", out);
		MUST(mkdir(buf, 0755));
		MUST(unshare(CLONE_NEWNS));
		MUST(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
		MUST(mount(".", buf, NULL, MS_BIND, NULL));
		MUST(chdir(buf));
		fd = MUST(open("f", O_WRONLY));
		MUST(write(fd, "hello", 5));
		close(fd);
		MUST(chdir("/"));
		return umount2(buf, MNT_DETACH);
	}
	WAY("detached_mount") {
		int at = NEED(syscall(428 /* open_tree */, AT_FDCWD, ".", 1 /* OPEN_TREE_CLONE */));

		fd = MUST(openat(at, "f", O_WRONLY));
		MUST(write(fd, "hello", 5));
		return close(fd);
	}
	WAY("read") {
		fd = MUST(open("f", O_RDONLY));
		MUST(read(fd, buf, 4));
		return close(fd);
	}
	WAY("open_only") return close(MUST(open("f", O_WRONLY)));
	WAY("fail") {
		if (!unlink("no") || !rename("no", "new") || !rmdir("f") || !mkdir("f", 0755) || !link("no", "new") ||
		    !chmod("no", 0) || open("f", O_WRONLY | O_CREAT | O_EXCL, 0600) >= 0 || stat("no", &st) == 0)
			die("something that must fail");
		return 0;
	}
	fprintf(stderr, "no such way: %s\n", way);
	return 2;
}
