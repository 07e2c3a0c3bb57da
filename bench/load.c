//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/* The load that bench puts on a host. In C, static, so that its own cost is small and the
 * same in every run.
 *
 *   load process COUNT WORKERS PROGRAM   fork, execve PROGRAM, wait
 *   load connection COUNT WORKERS NET    connect, accept, close twice, on 127.NET.0.WORKER
 *   load steady COUNT WORKERS PROGRAM    the first, and a connect that is refused, 333 of each a second
 *   load getpid COUNT WORKERS            a system call that nobody watches
 *
 * Prints the CPU time (user and system, exact) of all workers and their children, and the
 * wall time, both in ns. The process that prints does none of the work.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* With rate, so many a second, each followed by a connect to a port where nobody listens. */
static void processes(long count, int worker, char *program, double rate)
{
	struct sockaddr_in nobody = { .sin_family = AF_INET, .sin_port = htons(1),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	long long begun = now();
	char unique[64];
	char *args[] = { program, unique, NULL };
	char *env[] = { NULL };

	for (long i = 0; i < count; i++) {
		int status;
		pid_t pid;

		snprintf(unique, sizeof(unique), "w%d-%ld", worker, i);
		pid = fork();
		if (pid == 0) {
			execve(program, args, env);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
			errx(1, "start %s: status %d", program, status);
		if (rate > 0) {
			long long early = begun + (long long)((i + 1) * 1e9 / rate) - now();
			int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

			if (s < 0 || connect(s, (void *)&nobody, sizeof(nobody)) == 0)
				errx(1, "connect to port 1");
			close(s);
			if (early > 0)
				usleep(early / 1000);
		}
	}
}

static void connections(long count, int worker, int net)
{
	/* A server address of its own for each worker and run: no port is ever waited for. */
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(127u << 24 | (net & 255) << 16 | (worker + 1)),
	};
	socklen_t len = sizeof(a);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (server < 0 || bind(server, (void *)&a, sizeof(a)) || listen(server, 16) ||
	    getsockname(server, (void *)&a, &len))
		err(1, "listen");
	for (long i = 0; i < count; i++) {
		int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s;

		if (c < 0 || connect(c, (void *)&a, sizeof(a)))
			err(1, "connect");
		s = accept4(server, NULL, NULL, SOCK_CLOEXEC);
		if (s < 0)
			err(1, "accept");
		close(c);
		close(s);
	}
	close(server);
}

static void getpids(long count)
{
	for (long i = 0; i < count; i++)
		syscall(SYS_getpid);
}

int main(int argc, char **argv)
{
	struct rusage u;
	long count = argc > 3 ? atol(argv[2]) : 0;
	int workers = argc > 3 ? atoi(argv[3]) : 0;
	long long begun = now();
	int failed = 0;

	if (count <= 0 || workers <= 0)
		errx(2, "usage: load process|connection|steady|getpid COUNT WORKERS [PROGRAM|NET]");
	for (int w = 0; w < workers; w++) {
		long share = count / workers + (w < count % workers);
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork");
		if (pid)
			continue;
		if (!strcmp(argv[1], "process") && argc > 4)
			processes(share, w, argv[4], 0);
		else if (!strcmp(argv[1], "steady") && argc > 4)
			processes(share, w, argv[4], 333.0 / workers);
		else if (!strcmp(argv[1], "connection") && argc > 4)
			connections(share, w, atoi(argv[4]));
		else if (!strcmp(argv[1], "getpid"))
			getpids(share);
		else
			errx(2, "no such load");
		_exit(0);
	}
	for (int w = 0; w < workers; w++) {
		int status;

		if (wait(&status) < 0 || status)
			failed = 1;
	}
	getrusage(RUSAGE_CHILDREN, &u);
	printf("%lld %lld\n",
	       (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ll +
		       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ll,
	       now() - begun);
	return failed;
}
