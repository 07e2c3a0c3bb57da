/* Calls on sockets that do not come by the native system call, or whose arguments change
 * while they run. Plain arm64 has io_uring only.
 */
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NOT_THERE 77 /* the kernel, or its administrator, has no such way */

enum call { CALL_BIND, CALL_CONNECT, CALL_LISTEN, CALL_ACCEPT };

/* What a 32-bit call can point to: below 4 GiB. */
static struct low {
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_un un;
	} to;
	uint32_t words[6];
} *low;

static long native(enum call what, int fd, socklen_t len)
{
	switch (what) {
	case CALL_BIND:
		return bind(fd, &low->to.any, len) ? -errno : 0;
	case CALL_CONNECT:
		return connect(fd, &low->to.any, len) ? -errno : 0;
	case CALL_LISTEN:
		return listen(fd, 4) ? -errno : 0;
	default:
		fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
}

#ifdef __x86_64__
/* Without 32-bit calls in the kernel, or in the hypervisor below it, the instruction faults. */
static void no_int80(int signal)
{
	_exit(NOT_THERE);
}

static long int80(long nr, long a, long b, long c, long d)
{
	long ret;

	signal(SIGSEGV, no_int80);
	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(0L)
		     : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}

/* arch/x86/entry/syscalls/syscall_32.tbl */
static long ia32(enum call what, int fd, socklen_t len)
{
	switch (what) {
	case CALL_BIND:
		return int80(361, fd, (long)&low->to, len, 0);
	case CALL_CONNECT:
		return int80(362, fd, (long)&low->to, len, 0);
	case CALL_LISTEN:
		return int80(363, fd, 4, 0, 0);
	default:
		return int80(364, fd, 0, 0, SOCK_CLOEXEC);
	}
}

/* linux/net.h: SYS_BIND 2, SYS_CONNECT 3, SYS_LISTEN 4, SYS_ACCEPT 5 */
static long socketcall(enum call what, int fd, socklen_t len)
{
	static const int number[] = {[CALL_BIND] = 2, [CALL_CONNECT] = 3, [CALL_LISTEN] = 4, [CALL_ACCEPT] = 5};

	low->words[0] = fd;
	low->words[1] = what == CALL_LISTEN ? 4 : what == CALL_ACCEPT ? 0 : (uint32_t)(long)&low->to;
	low->words[2] = what == CALL_ACCEPT ? 0 : len;
	return int80(102, number[what], (long)low->words, 0, 0);
}

static long x32(enum call what, int fd, socklen_t len)
{
	static const int number[] = {
		[CALL_BIND] = SYS_bind, [CALL_CONNECT] = SYS_connect, [CALL_LISTEN] = SYS_listen, [CALL_ACCEPT] = SYS_accept};
	long to = what == CALL_LISTEN ? 4 : what == CALL_ACCEPT ? 0 : (long)&low->to, ret;

	asm volatile("syscall" : "=a"(ret) : "a"(number[what] | 0x40000000L), "D"((long)fd), "S"(to),
		     "d"(what == CALL_ACCEPT ? 0L : (long)len) : "memory", "rcx", "r11");
	return ret;
}
#endif

static struct ring {
	int fd;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
} ring;

static void make_ring(void)
{
	ring.fd = syscall(SYS_io_uring_setup, 4, &ring.p);
	if (ring.fd < 0)
		_exit(NOT_THERE);
	ring.sq = mmap(NULL, ring.p.sq_off.array + 4 * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		       ring.fd, IORING_OFF_SQ_RING);
	ring.cq = mmap(NULL, ring.p.cq_off.cqes + ring.p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, ring.fd, IORING_OFF_CQ_RING);
	ring.sqes = mmap(NULL, 4 * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
			 IORING_OFF_SQES);
	if (ring.sq == MAP_FAILED || ring.cq == MAP_FAILED || ring.sqes == MAP_FAILED)
		die("mmap");
}

static int fell_back;

/* linux/io_uring.h, of which our headers may know less: bind and listen are there since 6.11. */
static long by_ring(enum call what, int fd, socklen_t len, int flags)
{
	static const int number[] = {[CALL_BIND] = 56, [CALL_CONNECT] = 16, [CALL_LISTEN] = 57, [CALL_ACCEPT] = 13};
	unsigned mask = *(unsigned *)(ring.sq + ring.p.sq_off.ring_mask), *tail = (void *)(ring.sq + ring.p.sq_off.tail);
	unsigned *head = (void *)(ring.cq + ring.p.cq_off.head);
	struct io_uring_sqe *e = &ring.sqes[*tail & mask];
	struct io_uring_cqe *c;
	int ret;

	memset(e, 0, sizeof(*e));
	e->opcode = number[what];
	e->flags = flags;
	e->fd = fd;
	if (what == CALL_BIND || what == CALL_CONNECT) {
		e->addr = (long)&low->to;
		e->off = len;
	}
	if (what == CALL_LISTEN)
		e->len = 4;
	((unsigned *)(ring.sq + ring.p.sq_off.array))[*tail & mask] = *tail & mask;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		die("io_uring_enter");
	c = (void *)(ring.cq + ring.p.cq_off.cqes + (*head & *(unsigned *)(ring.cq + ring.p.cq_off.ring_mask)) * sizeof(*c));
	while (__atomic_load_n((unsigned *)(ring.cq + ring.p.cq_off.tail), __ATOMIC_ACQUIRE) == *head)
		;
	ret = c->res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	if ((what == CALL_BIND || what == CALL_LISTEN) && ret == -EINVAL) {
		fell_back = 1;
		return native(what, fd, len);
	}
	return ret;
}

static const char *way;

static long call(enum call what, int fd, socklen_t len)
{
	long ret = -ENOSYS;

	if (!strcmp(way, "native"))
		return native(what, fd, len);
	if (!strcmp(way, "io_uring"))
		return by_ring(what, fd, len, 0);
	if (!strcmp(way, "io_uring worker"))
		return by_ring(what, fd, len, IOSQE_ASYNC);
#ifdef __x86_64__
	if (!strcmp(way, "ia32"))
		ret = ia32(what, fd, len);
	if (!strcmp(way, "socketcall"))
		ret = socketcall(what, fd, len);
	if (!strcmp(way, "x32"))
		ret = x32(what, fd, len);
#endif
	if (ret == -ENOSYS)
		_exit(NOT_THERE);
	return ret;
}

static void expect(const char *what, long got, long want)
{
	if (got != want) {
		fprintf(stderr, "%s by %s: %ld, want %ld\n", what, way, got, want);
		_exit(125);
	}
}

static socklen_t inet(const char *address, int port)
{
	low->to.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, address, &low->to.in.sin_addr);
	return sizeof(low->to.in);
}

static socklen_t abstract(void)
{
	memset(&low->to, 0, sizeof(low->to));
	low->to.un.sun_family = AF_UNIX;
	strcpy(low->to.un.sun_path + 1, "goshawk-calls");
	return offsetof(struct sockaddr_un, sun_path) + 14;
}

static void need_low(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

#ifdef MAP_32BIT
	flags |= MAP_32BIT;
#endif
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (low == MAP_FAILED)
		die("mmap");
}

/* One of each, in this network namespace, on descriptors 20 and up. Prints the ports of the
 * clients, TCP's and UDP's, and whether bind and listen were native after all.
 */
static int calls(const char *by)
{
	socklen_t len = sizeof(struct sockaddr_in);
	struct sockaddr_in self;
	int fd[8];

	way = by;
	need_low();
	if (!strncmp(way, "io_uring", 8))
		make_ring();
	for (int i = 0; i < 8; i++) {
		int s = socket(i < 6 ? AF_INET : AF_UNIX, i == 5 ? SOCK_DGRAM : SOCK_STREAM, 0);

		fd[i] = dup2(s, 20 + i);
		if (fd[i] < 0)
			die("socket");
		close(s);
	}
	expect("bind", call(CALL_BIND, fd[0], inet("127.0.0.1", 7001)), 0);
	expect("listen", call(CALL_LISTEN, fd[0], 0), 0);
	expect("connect", call(CALL_CONNECT, fd[1], inet("127.0.0.1", 7001)), 0);
	expect("accept", call(CALL_ACCEPT, fd[0], 0) > 0, 1);
	expect("bind elsewhere", call(CALL_BIND, fd[2], inet("192.0.2.1", 7002)), -EADDRNOTAVAIL);
	expect("connect elsewhere", call(CALL_CONNECT, fd[3], inet("192.0.2.1", 443)), -ENETUNREACH);
	expect("connect of UDP", call(CALL_CONNECT, fd[5], inet("127.0.0.1", 514)), 0);
	expect("bind of a name", call(CALL_BIND, fd[6], abstract()), 0);
	expect("listen at a name", call(CALL_LISTEN, fd[6], 0), 0);
	expect("connect to a name", call(CALL_CONNECT, fd[7], abstract()), 0);
	expect("accept at a name", call(CALL_ACCEPT, fd[6], 0) > 0, 1);
	getsockname(fd[1], (struct sockaddr *)&self, &len);
	printf("%d ", ntohs(self.sin_port));
	len = sizeof(self);
	getsockname(fd[5], (struct sockaddr *)&self, &len);
	printf("%d %d\n", ntohs(self.sin_port), fell_back);
	return 0;
}

/* Two threads race only on two processors. */
static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *waver(void *none)
{
	uint32_t there = low->to.in.sin_addr.s_addr, elsewhere = inet_addr("192.0.2.1");

	stay_on(1);
	for (;;) {
		__atomic_store_n(&low->to.in.sin_addr.s_addr, elsewhere, __ATOMIC_RELAXED);
		__atomic_store_n(&low->to.in.sin_addr.s_addr, there, __ATOMIC_RELAXED);
	}
	return none;
}

/* N calls while another thread moves the address between 127.0.0.1 and 192.0.2.1, which is
 * not to be reached from here; prints how many there were of each outcome.
 */
static int race(int n)
{
	int ok[2] = {}, refused[2] = {};
	pthread_t t;

	way = "native";
	need_low();
	inet("127.0.0.1", 514);
	stay_on(0);
	pthread_create(&t, NULL, waver, NULL);
	for (int i = 0; i < 2 * n; i++) {
		int bound = i % 2, s = socket(AF_INET, SOCK_DGRAM, 0);
		long r = native(bound ? CALL_BIND : CALL_CONNECT, s, sizeof(low->to.in));

		if (!r)
			ok[bound]++;
		else if (r == (bound ? -EADDRNOTAVAIL : -ENETUNREACH))
			refused[bound]++;
		else
			expect("call", r, 0);
		close(s);
	}
	printf("%d %d %d %d\n", ok[0], refused[0], ok[1], refused[1]);
	fflush(stdout);
	_exit(0);
}

/* An address on two pages, of which the second is missing until the first has been changed: the
 * kernel's copy, which waits in between, keeps what was there (userfaultfd(2)).
 */
struct held {
	int faults; /* userfaultfd */
	struct sockaddr_in *address;
	char *second;
	uint32_t next; /* the IPv4 address to put there meanwhile */
};

static void *move_meanwhile(void *arg)
{
	struct held *h = arg;
	struct uffd_msg m;
	struct uffdio_zeropage z = {.range = {(uintptr_t)h->second, 4096}};

	for (;;) {
		if (read(h->faults, &m, sizeof(m)) != sizeof(m) || m.event != UFFD_EVENT_PAGEFAULT)
			die("read of userfaultfd");
		h->address->sin_addr.s_addr = h->next;
		if (ioctl(h->faults, UFFDIO_ZEROPAGE, &z))
			die("UFFDIO_ZEROPAGE");
	}
	return NULL;
}

static void held_call(struct held *h, int bound, const char *from, const char *to, int port, long want)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	long r;

	if (madvise(h->second, 4096, MADV_DONTNEED))
		die("madvise");
	h->address->sin_family = AF_INET;
	h->address->sin_port = htons(port);
	h->address->sin_addr.s_addr = inet_addr(from);
	h->next = inet_addr(to);
	r = syscall(bound ? SYS_bind : SYS_connect, s, h->address, sizeof(*h->address));
	expect(bound ? "held bind" : "held connect", r ? -errno : 0, want);
	expect("address afterwards", h->address->sin_addr.s_addr == h->next, 1);
	close(s);
}

/* Each call that is watched for its address, with one that is here when the kernel takes it, and
 * moved elsewhere meanwhile, and the other way round.
 */
static int held(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	struct held h;
	char *pages;
	pthread_t t;

	h.faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (h.faults < 0)
		return errno == ENOSYS ? 77 : 125;
	pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	h.second = pages + 4096;
	h.address = (void *)(h.second - 8); /* family, port and address before the border */
	reg.range.start = (uintptr_t)h.second;
	reg.range.len = 4096;
	if (pages == MAP_FAILED || ioctl(h.faults, UFFDIO_API, &api) || ioctl(h.faults, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	pthread_create(&t, NULL, move_meanwhile, &h);
	held_call(&h, 0, "127.0.0.1", "192.0.2.1", 7001, 0);
	held_call(&h, 0, "192.0.2.1", "127.0.0.1", 7002, -ENETUNREACH);
	held_call(&h, 1, "127.0.0.1", "192.0.2.1", 7003, 0);
	held_call(&h, 1, "192.0.2.1", "127.0.0.1", 7004, -EADDRNOTAVAIL);
	_exit(0);
}
