/* SPDX-License-Identifier: Apache-2.0 */
/* What a thing costs where QEMU counts instructions as time (-icount shift=0): the time stamp
 * counter then goes up by one with each instruction of the guest, its kernel's included.
 *
 *   cost getpid                a system call that nobody watches
 *   cost process PROGRAM       fork, execve, the end, and the wait for it
 *   cost connection            socket, connect, accept, and both closes, over loopback
 *
 * Prints the least and the median of many tries, in instructions. The least is what no timer
 * and no reader of events has come between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define TRIES 400
#define CALLS 100 /* getpid calls in one try */

static int server;
static struct sockaddr_in address = { .sin_family = AF_INET };
static char *program;

static void getpids(void)
{
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getpid);
}

static void process(void)
{
	char *args[] = { program, NULL }, *env[] = { NULL };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execve(program, args, env);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		errx(1, "start %s: status %d", program, status);
}

static void connection(void)
{
	int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), a;

	if (c < 0 || connect(c, (void *)&address, sizeof(address)))
		err(1, "connect");
	a = accept(server, NULL, NULL);
	if (a < 0)
		err(1, "accept");
	close(c);
	close(a);
}

static int ascending(const void *a, const void *b)
{
	unsigned long x = *(unsigned long *)a, y = *(unsigned long *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static unsigned long took[TRIES];
	void (*act)(void) = NULL;
	socklen_t size = sizeof(address);
	int each = 1;

	if (argc == 2 && !strcmp(argv[1], "getpid")) {
		act = getpids;
		each = CALLS;
	} else if (argc == 3 && !strcmp(argv[1], "process")) {
		act = process;
		program = argv[2];
	} else if (argc == 2 && !strcmp(argv[1], "connection")) {
		act = connection;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (server < 0 || bind(server, (void *)&address, size) || listen(server, 16) ||
		    getsockname(server, (void *)&address, &size))
			err(1, "listen");
	} else {
		errx(2, "usage: cost getpid | process PROGRAM | connection");
	}
	for (int i = 0; i < TRIES; i++) {
		unsigned long began = __rdtsc();

		act();
		took[i] = __rdtsc() - began;
	}
	qsort(took, TRIES, sizeof(*took), ascending);
	printf("%.2f %.2f\n", (double)took[0] / each, (double)took[TRIES / 2] / each);
	return 0;
}
