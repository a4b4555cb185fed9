/* A wall clock that can be put forward or back for one process, without touching the machine's.
 *
 * Preloaded, it adds an offset to what the C library says of CLOCK_REALTIME. The offset is the 64-bit number of
 * nanoseconds at the beginning of the file CHAOS_CLOCKS/PID, which the process makes when it starts and maps: whoever
 * writes there moves its clock at once. CLOCK_MONOTONIC stays as it is, as when somebody sets a real clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
	const char *folder = getenv("CHAOS_CLOCKS");
	char path[256];
	int fd;

	real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	if (!folder || snprintf(path, sizeof(path), "%s/%d", folder, getpid()) >= (int)sizeof(path))
		return;
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (ftruncate(fd, sizeof(int64_t)) == 0) {
		void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

		if (found != MAP_FAILED)
			offset = found;
	}
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	int result = real_gettime(clock, at);

	if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t now = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + *offset;

		at->tv_sec = now / 1000000000;
		at->tv_nsec = now % 1000000000;
	}
	return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;
	int result = clock_gettime(CLOCK_REALTIME, &now);

	(void)zone;
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return result;
}

time_t time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
