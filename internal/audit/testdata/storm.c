//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 */
/* A storm of what audit rules tell of: each worker starts a program, connects, and writes to
 * a file, again and again.
 *
 *   storm SECONDS WORKERS DIR [PER_SECOND]
 *
 * Prints how often each was done, all workers together, and the CPU time that took in ns.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void once(char *self, const struct sockaddr_in *to, const char *file)
{
	char *args[] = { self, NULL }, *env[] = { NULL };
	int status, fd;
	pid_t pid = vfork();

	if (pid == 0) {
		execve(self, args, env);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		errx(1, "start %s: status %d", self, status);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const void *)to, sizeof(*to)))
		err(1, "connect");
	close(fd);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "open %s", file);
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct rusage u;
	double begun = now(), end, rate;
	int workers;
	long *done, sum = 0;

	if (argc < 4)	/* started by a worker */
		return 0;
	end = begun + atof(argv[1]);
	workers = atoi(argv[2]);
	rate = argc > 4 ? atof(argv[4]) / workers : 0;
	done = mmap(NULL, workers * sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (done == MAP_FAILED)
		err(1, "mmap");
	for (int w = 0; w < workers; w++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%d", argv[3], w);
		close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		if (fork() == 0) {
			for (; now() < end; done[w]++) {
				once(argv[0], &to, file);
				if (rate > 0) {
					double early = begun + (done[w] + 1) / rate - now();

					if (early > 0)
						usleep(early * 1e6);
				}
			}
			_exit(0);
		}
	}
	for (int w = 0; w < workers; w++) {
		int status;

		if (wait(&status) < 0 || status)
			errx(1, "a worker failed: %d", status);
	}
	/* Only now: wait() is for any of them. */
	for (int w = 0; w < workers; w++) {
		if (done[w] == 0)
			errx(1, "a worker did nothing");
		sum += done[w];
	}
	getrusage(RUSAGE_CHILDREN, &u);
	printf("%ld %lld\n", sum, (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ll +
				  (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ll);
	return 0;
}
