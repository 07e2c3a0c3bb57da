/* SPDX-License-Identifier: Apache-2.0 */
/* What a thing costs where QEMU counts instructions as time (-icount shift=0): the time stamp
 * counter then goes up by one with each instruction of the guest, its kernel's included.
 *
 *   cost getpid                a system call that nobody watches
 *   cost process PROGRAM       fork, execve, the end, and the wait for it
 *   cost connection            socket, connect, accept, and both closes, over loopback
 *   cost change DIR            a file made, written to, closed, renamed and deleted
 *   cost read DIR              a file opened, read and closed
 *   cost build PROGRAM ARG...  a program with its arguments, from its start to its end
 *
 * Prints the least and the median of many tries, in instructions. The least is what no timer
 * and no reader of events has come between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
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
#define BUILDS 3  /* tries of what takes long */
#define CALLS 100 /* getpid calls in one try */

static int server;
static struct sockaddr_in address = { .sin_family = AF_INET };
static char *program;
static char **arguments; /* and its own name first */
static int files;	 /* a directory */

static void getpids(void)
{
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getpid);
}

static void process(void)
{
	char *env[] = { "PATH=/usr/bin:/bin", "TMPDIR=/work", NULL };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execve(program, arguments, env);
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

static void change(void)
{
	static char text[512];
	int f = openat(files, "a", O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0644);

	if (f < 0 || write(f, text, sizeof(text)) != sizeof(text) || close(f) || renameat(files, "a", files, "b") ||
	    unlinkat(files, "b", 0))
		err(1, "change a file");
}

static void readback(void)
{
	static char text[512];
	int f = openat(files, "c", O_RDONLY | O_CLOEXEC);

	if (f < 0 || read(f, text, sizeof(text)) != sizeof(text) || close(f))
		err(1, "read a file");
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
	int each = 1, tries = TRIES;
	const char *what = argc > 1 ? argv[1] : "";

	if (argc == 2 && !strcmp(what, "getpid")) {
		act = getpids;
		each = CALLS;
	} else if ((argc == 3 && !strcmp(what, "process")) || (argc >= 3 && !strcmp(what, "build"))) {
		act = process;
		arguments = argv + 2;
		program = argv[2];
		if (!strcmp(what, "build"))
			tries = BUILDS;
	} else if (argc == 3 && (!strcmp(what, "change") || !strcmp(what, "read"))) {
		act = !strcmp(what, "read") ? readback : change;
		files = open(argv[2], O_DIRECTORY | O_CLOEXEC);
		if (files < 0)
			err(1, "open %s", argv[2]);
	} else if (argc == 2 && !strcmp(what, "connection")) {
		act = connection;
		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (server < 0 || bind(server, (void *)&address, size) || listen(server, 16) ||
		    getsockname(server, (void *)&address, &size))
			err(1, "listen");
	} else {
		errx(2, "usage: cost getpid | process PROGRAM | connection | change DIR | read DIR | build PROGRAM ARG...");
	}
	for (int i = 0; i < tries; i++) {
		unsigned long began = __rdtsc();

		act();
		took[i] = __rdtsc() - began;
	}
	qsort(took, tries, sizeof(*took), ascending);
	printf("%.2f %.2f\n", (double)took[0] / each, (double)took[tries / 2] / each);
	return 0;
}
