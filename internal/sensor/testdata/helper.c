/* What the live tests have done by a process of its own: ways to start, fork and end that
 * Go's runtime does not offer. Built statically, so that it runs in an empty root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void die(const char *what)
{
	perror(what);
	_exit(125);
}

#include "calls.h"
#include "files.h"

static void run(char **argv)
{
	execv(argv[0], argv);
	die(argv[0]);
}

static void nap(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

#include "evasions.h"

static void *run_thread(void *argv)
{
	run(argv);
	return NULL;
}

static void *exit_later(void *code)
{
	nap(50);
	exit((long)code);
}

static pthread_barrier_t barrier;

static void *leave(void *none)
{
	pthread_barrier_wait(&barrier);
	syscall(SYS_exit, 0); /* not by way of the C library, which ends the process with the last */
	return NULL;
}

static void *nothing(void *none)
{
	return NULL;
}

static void copy(const char *from, int out)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (in < 0 || fstat(in, &st))
		die(from);
	if (sendfile(out, in, NULL, st.st_size) != st.st_size || fchmod(out, 0755))
		die("copy");
	close(in);
}

static void copy_to(const char *path)
{
	int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	if (out < 0)
		die(path);
	copy("/proc/self/exe", out);
	close(out);
}

/* The child is told on standard output, and gone when the parent goes on. */
static int tell(pid_t pid)
{
	if (pid < 0)
		die("fork");
	printf("%d\n", pid);
	fflush(stdout);
	waitpid(pid, NULL, 0);
	return 0;
}

static int leave_now(void *none)
{
	_exit(0);
}

static char stack[65536] __attribute__((aligned(16)));

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const char *one = argc > 2 ? argv[2] : "0";
	char **rest = argv + 3;

	if (!strcmp(what, "file") && argc == 5)
		return do_file(argv[2], argv[3], argv[4]);
	if (!strcmp(what, "exit"))
		return atoi(one);
	if (!strcmp(what, "sleep"))
		pause();
	if (!strcmp(what, "signal")) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		kill(getpid(), atoi(one));
		pause();
	}
	if (!strcmp(what, "argv0")) { /* NAME PROGRAM ARGS... */
		char *program = rest[0];

		rest[0] = argv[2];
		execv(program, rest);
		die(program);
	}
	if (!strcmp(what, "no-args")) {
		syscall(SYS_execve, one, NULL, environ);
		die(one);
	}
	if (!strcmp(what, "thread-exec")) {
		pthread_t t;

		pthread_create(&t, NULL, run_thread, argv + 2);
		pause();
	}
	if (!strcmp(what, "leader-exits")) { /* CODE */
		pthread_t t;

		pthread_create(&t, NULL, exit_later, (void *)(long)atoi(one));
		syscall(SYS_exit, 0);
	}
	if (!strcmp(what, "threads-leave")) { /* N: all at once, the leader too */
		int n = atoi(one);
		pthread_t t;

		pthread_barrier_init(&barrier, NULL, n + 1);
		for (int i = 0; i < n; i++)
			pthread_create(&t, NULL, leave, NULL);
		pthread_barrier_wait(&barrier);
		syscall(SYS_exit, 3);
	}
	if (!strcmp(what, "thread")) { /* make one, and nothing else */
		pthread_t t;

		pthread_create(&t, NULL, nothing, NULL);
		pthread_join(t, NULL);
		return 0;
	}
	if (!strcmp(what, "fork")) {
		pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

#ifdef SYS_fork
		if (pid > 0) {
			waitpid(pid, NULL, 0);
			pid = syscall(SYS_fork);
		}
#endif
		if (!pid)
			_exit(0);
		return tell(pid);
	}
	if (!strcmp(what, "vfork")) {
		pid_t pid = vfork();

		if (!pid)
			_exit(0);
		return tell(pid);
	}
	if (!strcmp(what, "clone"))
		return tell(clone(leave_now, stack + sizeof(stack), SIGCHLD, NULL));
	if (!strcmp(what, "clone-vm"))
		return tell(clone(leave_now, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL));
	if (!strcmp(what, "clone-pidns"))
		return tell(clone(leave_now, stack + sizeof(stack), CLONE_NEWPID | SIGCHLD, NULL));
	if (!strcmp(what, "clone-parent")) /* our own parent reaps it */
		return tell(clone(leave_now, stack + sizeof(stack), CLONE_PARENT | SIGCHLD, NULL));
	if (!strcmp(what, "clone3")) {
		struct clone_args a = {.exit_signal = SIGCHLD};
		pid_t pid = syscall(SYS_clone3, &a, sizeof(a));

		if (!pid)
			_exit(0);
		return tell(pid);
	}
	if (!strcmp(what, "memfd")) { /* NAME ARGS... */
		int fd = memfd_create(one, MFD_CLOEXEC);
		char self[64];

		copy("/proc/self/exe", fd);
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		fd = open(self, O_RDONLY | O_CLOEXEC); /* nobody may have it open for writing */
		close(fd - 1);
		fexecve(fd, argv + 2, environ);
		die("fexecve");
	}
	if (!strcmp(what, "execveat")) { /* PROGRAM ARGS... */
		int fd = open(one, O_PATH | O_CLOEXEC);

		syscall(SYS_execveat, fd, "", argv + 2, environ, AT_EMPTY_PATH);
		die("execveat");
	}
	if (!strcmp(what, "execveat-dir")) { /* DIR NAME ARGS... */
		int fd = open(one, O_PATH | O_DIRECTORY);

		syscall(SYS_execveat, fd, rest[0], rest, environ, 0);
		die("execveat");
	}
	if (!strcmp(what, "deleted")) { /* PROGRAM ARGS... */
		int fd = open(one, O_RDONLY | O_CLOEXEC);
		char self[64];

		unlink(one);
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		execv(self, argv + 2);
		die(self);
	}
	if (!strcmp(what, "chroot")) { /* DIR PROGRAM ARGS... */
		if (chroot(one) || chdir("/"))
			die("chroot");
		run(rest);
	}
	if (!strcmp(what, "tmpfs")) { /* DIR PROGRAM ARGS...: in a mount namespace of its own */
		char path[4096];

		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("tmpfs", one, "tmpfs", 0, NULL))
			die("mount");
		snprintf(path, sizeof(path), "%s/prog", one);
		copy_to(path);
		run(rest);
	}
	if (!strcmp(what, "bind")) { /* SOURCE TARGET PROGRAM ARGS... */
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount(one, rest[0], NULL, MS_BIND, NULL))
			die("mount");
		run(rest + 1);
	}
	if (!strcmp(what, "pivot")) { /* DIR PROGRAM ARGS...: DIR becomes the root of a mount namespace */
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount(one, one, NULL, MS_BIND | MS_REC, NULL) || chdir(one) ||
		    syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
			die("pivot");
		run(rest);
	}
	if (!strcmp(what, "setids")) { /* "R E S FSUID R E S FSGID" PROGRAM ARGS... */
		int r, e, s, fs, gr, ge, gs, gfs;

		if (sscanf(one, "%d %d %d %d %d %d %d %d", &r, &e, &s, &fs, &gr, &ge, &gs, &gfs) != 8)
			die("ids");
		if (setresgid(gr, ge, gs) || setfsgid(gfs) < 0 || setresuid(r, e, s) || setfsuid(fs) < 0)
			die("setresuid");
		run(rest);
	}
	if (!strcmp(what, "tty")) { /* PTS PROGRAM ARGS... */
		setsid();
		if (open(one, O_RDWR) < 0) /* the first terminal that a session leader opens is its own */
			die(one);
		run(rest);
	}
	if (!strcmp(what, "name")) { /* NAME: end with this name, as a process may call itself anything */
		prctl(PR_SET_NAME, one);
		return 0;
	}
	if (!strcmp(what, "deep")) { /* N NAME PROGRAM ARGS...: copied and run N directories down */
		for (int i = 0; i < atoi(one); i++)
			if ((mkdir(rest[0], 0755) && errno != EEXIST) || chdir(rest[0]))
				die(rest[0]);
		copy_to(rest[1]);
		run(rest + 1);
	}
	if (!strcmp(what, "burn")) { /* MILLISECONDS of CPU time, MEGABYTES of memory */
		long ms = atol(one), mb = atol(rest[0]);
		struct timespec t;

		memset(malloc(mb << 20), 1, mb << 20);
		do
			clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
		while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < ms);
		return 0;
	}
	if (!strcmp(what, "storm")) { /* N TAG: N processes, one after the other */
		for (int i = 0; i < atoi(one); i++) {
			char tag[64], *args[] = {argv[0], "exit", "0", tag, NULL};
			pid_t pid;

			snprintf(tag, sizeof(tag), "%s-%d", rest[0], i);
			pid = vfork();
			if (!pid) {
				execv("/proc/self/exe", args);
				_exit(125);
			}
			waitpid(pid, NULL, 0);
		}
		return 0;
	}
	if (!strcmp(what, "forks")) { /* N TAG: N processes that start nothing */
		for (int i = 0; i < atoi(one); i++) {
			pid_t pid = fork();

			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
		}
		return 0;
	}
	if (!strcmp(what, "calls")) /* WAY */
		return calls(one);
	if (!strcmp(what, "race")) /* N */
		return race(atoi(one));
	if (!strcmp(what, "held"))
		return held();
	if (!strcmp(what, "open-held") && argc == 4) /* DIR OTHER */
		return open_held(one, rest[0]);
	if (!strcmp(what, "acts32")) /* PID */
		return acts32(atoi(one));
	if (!strcmp(what, "victim"))
		victim();
	if (!strcmp(what, "inject") && argc == 4) /* poke|mem PID */
		return inject(one, atoi(rest[0]));
	fprintf(stderr, "helper: no %s\n", what);
	return 125;
}
