/* spawn.c - how long a program takes from its start to the first byte that it
 * writes to its standard output: spawn times program [argument...]
 * The environment is handed on, so a CGI request can be in it. */
#include <sys/wait.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int
cmp(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Microseconds to the first byte, or to the end where there is none; -1. */
static double
spawn_once(char **argv)
{
	posix_spawn_file_actions_t fa;
	char c[65536];
	double start, us;
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null",
	    O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, p[1], STDOUT_FILENO);
	start = now_us();
	if (posix_spawn(&pid, argv[0], &fa, NULL, argv, environ) != 0)
		return -1;
	close(p[1]);
	us = read(p[0], c, 1) >= 0 ? now_us() - start : -1;
	while (read(p[0], c, sizeof c) > 0)
		continue;
	close(p[0]);
	waitpid(pid, NULL, 0);
	posix_spawn_file_actions_destroy(&fa);
	return us;
}

int
main(int argc, char **argv)
{
	int i, n = argc > 2 ? atoi(argv[1]) : 0;
	double *us = n > 0 ? calloc((size_t)n, sizeof *us) : NULL;

	if (us == NULL) {
		fputs("usage: spawn times program [argument...]\n", stderr);
		return EXIT_FAILURE;
	}
	for (i = 0; i < n; i++)
		if ((us[i] = spawn_once(argv + 2)) < 0) {
			perror(argv[2]);
			return EXIT_FAILURE;
		}
	qsort(us, (size_t)n, sizeof *us, cmp);
	printf("times=%d p50=%.1f p99=%.1f\n", n, us[n / 2],
	    us[n * 99 / 100]);
	free(us);
	return EXIT_SUCCESS;
}
