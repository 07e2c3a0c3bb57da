/* Ways to do something so that whoever looks at it sees another thing, or nothing. */
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

/* A path on two pages, of which the second is missing until the first has been written over: the
 * kernel, which copies it meanwhile, has the file that was named at first.
 */
struct held_path {
	int faults; /* userfaultfd */
	char *path, *second;
	const char *next;
};

static char tail[4096] __attribute__((aligned(4096))) = "f";

static void *rename_meanwhile(void *arg)
{
	struct held_path *h = arg;
	struct uffd_msg m;
	struct uffdio_copy c = {.dst = (uintptr_t)h->second, .src = (uintptr_t)tail, .len = sizeof(tail)};

	if (read(h->faults, &m, sizeof(m)) != sizeof(m) || m.event != UFFD_EVENT_PAGEFAULT)
		die("read of userfaultfd");
	memcpy(h->path, h->next, strlen(h->next));
	if (ioctl(h->faults, UFFDIO_COPY, &c))
		die("UFFDIO_COPY");
	return NULL;
}

/* open_held writes to the file f in dir, while its argument comes to name that in other, a
 * directory whose name is as long.
 */
static int open_held(const char *dir, const char *other)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	size_t n = (strlen(dir) + 31) & ~7UL; /* what is read with the second page is not the name */
	struct held_path h = {.next = other};
	char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t;
	int fd;

	h.faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (h.faults < 0)
		return errno == ENOSYS ? NOT_THERE : 125;
	h.second = pages + 4096;
	h.path = h.second - n;
	reg.range.start = (uintptr_t)h.second;
	reg.range.len = 4096;
	if (pages == MAP_FAILED || ioctl(h.faults, UFFDIO_API, &api) || ioctl(h.faults, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	memset(h.path, '/', n);
	memcpy(h.path, dir, strlen(dir));
	pthread_create(&t, NULL, rename_meanwhile, &h);
	fd = open(h.path, O_WRONLY);
	if (fd < 0 || write(fd, "hello", 5) != 5)
		die("open");
	if (strncmp(h.path, other, strlen(other)))
		die("the path afterwards");
	return close(fd);
}

/* exit_group(42) */
#if defined(__x86_64__)
static const unsigned char code[16] = "\xbf\x2a\0\0\0\xb8\xe7\0\0\0\x0f\x05\x90\x90\x90\x90";
#define PROGRAM_COUNTER(r) ((r).rip)
#else
static const unsigned char code[16] = "\x40\x05\x80\xd2\xc8\x0b\x80\xd2\x01\x00\x00\xd4\x1f\x20\x03\xd5";
#define PROGRAM_COUNTER(r) ((r).pc)
#endif

static void ignore(int signal)
{
}

/* A victim waits, and goes on waiting when it is woken by SIGUSR1. */
static void victim(void)
{
	struct sigaction a = {.sa_handler = ignore};

	sigaction(SIGUSR1, &a, NULL);
	printf("%d\n", getpid());
	fflush(stdout);
	for (;;)
		pause();
}

static void poke(pid_t pid)
{
	struct user_regs_struct regs;
	struct iovec v = {&regs, sizeof(regs)};
	unsigned long words[2];
	char *at;

	memcpy(words, code, sizeof(words));
	if (ptrace(PTRACE_ATTACH, pid, 0, 0) || waitpid(pid, NULL, __WALL) != pid ||
	    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &v))
		die("attach");
	at = (char *)(PROGRAM_COUNTER(regs) & ~15UL);
	if (ptrace(PTRACE_POKETEXT, pid, at, words[0]) || ptrace(PTRACE_POKEDATA, pid, at + 8, words[1]))
		die("poke");
	PROGRAM_COUNTER(regs) = (unsigned long)at;
#if defined(__x86_64__)
	regs.orig_rax = -1; /* no call to begin anew */
#endif
	if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &v) || ptrace(PTRACE_DETACH, pid, 0, 0))
		die("go on");
}

/* What follows the system call that it waits in is written over through /proc/PID/mem. */
static void write_memory(pid_t pid)
{
	char name[64], text[256] = "", *last;
	unsigned long at;
	int fd;

	snprintf(name, sizeof(name), "/proc/%d/syscall", pid);
	for (int i = 0; i < 1000; i++) { /* until it waits */
		fd = open(name, O_RDONLY);
		if (fd < 0)
			die(name);
		if (read(fd, text, sizeof(text) - 1) > 0 && strncmp(text, "running", 7))
			break;
		close(fd);
		nap(5);
	}
	close(fd);
	last = strrchr(text, ' ');
	at = last ? strtoul(last, NULL, 16) : 0;
	snprintf(name, sizeof(name), "/proc/%d/mem", pid);
	fd = open(name, O_RDWR);
	if (fd < 0)
		die(name);
	if (pwrite(fd, code, sizeof(code), at) != sizeof(code)) {
		int why = errno;

		perror(name);
		_exit(why == EIO ? NOT_THERE : 125); /* proc_mem.force_override= */
	}
	close(fd);
	kill(pid, SIGUSR1);
}

/* Has a process end with status 42, of its own accord as it seems. */
static int inject(const char *how, pid_t pid)
{
	if (!strcmp(how, "poke"))
		poke(pid);
	else
		write_memory(pid);
	return 0;
}

#ifdef __x86_64__
/* What is watched, asked for by 32-bit calls (arch/x86/entry/syscalls/syscall_32.tbl). */
static int acts32(pid_t target)
{
	char *text;
	long at;

	need_low();
	text = (char *)low;
	strcpy(text, "/goshawk-no");
	strcpy(text + 64, "goshawk-32");
	strcpy(text + 128, "none");
	strcpy(text + 192, "tmpfs");
	way = "int80";
	expect("unshare", int80(310, CLONE_NEWUTS, 0, 0, 0), 0);
	expect("setns", int80(346, open("/proc/self/ns/uts", O_RDONLY), CLONE_NEWUTS, 0, 0), 0);
	expect("mount", int80(21, (long)text + 128, (long)text, (long)text + 192, 2 /* MS_NOSUID */), -ENOENT);
	expect("memfd_create", int80(356, (long)text + 64, 1, 0, 0) >= 0, 1);
	at = (uint32_t)int80(192, 0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS);
	expect("mprotect", int80(125, at, 4096, 5, 0), 0);
	expect("ptrace", int80(26, 0x4206 /* PTRACE_SEIZE */, target, 0, 0), 0);
	int80(359, 17 /* AF_PACKET */, SOCK_RAW, 0, 0);
	return 0;
}
#else
static int acts32(pid_t target)
{
	return NOT_THERE;
}
#endif
