// SPDX-License-Identifier: Apache-2.0
/*
 * The CNI plugin in one process with libFuzzer: main() runs again and again, and each system call is answered by what the
 * input says. Eight bytes decide as in tests/fuzz/shim.py; the rest is standard input.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*feed)(const uint8_t *data, size_t size));
void __asan_poison_memory_region(const volatile void *start, size_t size);
void __asan_unpoison_memory_region(const volatile void *start, size_t size);

/* What the world answers. failing: the system call, counted from 1, that fails; 0: none. */
static struct {
	const uint8_t *input, *agent;
	size_t input_left, agent_left;
	const char *environment[6];
	unsigned int failing, calls;
	bool hangs_up;
	char output[1 << 16];
	size_t printed;
	jmp_buf end;
} world;

static char long_text[70001];

enum { STDIN = 0, STDOUT = 1, AGENT = 5, SPOOL = 6, NETNS = 7 };

static bool fails(void)
{
	if (++world.calls != world.failing)
		return false;
	errno = EIO;
	return true;
}

static const char *fake_getenv(const char *name)
{
	static const char *const names[] = {
		"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
	};

	for (size_t i = 0; i < 6; i++)
		if (!strcmp(name, names[i]))
			return world.environment[i];
	abort();
}

static ssize_t fake_read(int fd, char *data, size_t length)
{
	const uint8_t **from = fd == STDIN ? &world.input : &world.agent;
	size_t *left = fd == STDIN ? &world.input_left : &world.agent_left;
	/* In pieces, as a pipe or a socket may give them. */
	size_t count = length < 4096 ? length : 4096;

	if (fd != STDIN && fd != AGENT)
		abort();
	if (fails())
		return -1;
	if (count > *left)
		count = *left;
	memcpy(data, *from, count);
	/* Behind the end is nothing: who looks there is told. */
	if (!count && length > sizeof(uint32_t[2]))
		__asan_poison_memory_region(data, length);
	*from += count;
	*left -= count;
	return (ssize_t)count;
}

static ssize_t fake_write(int fd, const char *data, size_t length)
{
	size_t room = sizeof(world.output) - world.printed;

	if (fails())
		return -1;
	if (fd == SPOOL || length > room) {
		/* Every byte is looked at, so that the sanitizer does. */
		volatile char sum = 0;

		for (size_t i = 0; i < length; i++)
			sum ^= data[i];
		return (ssize_t)length;
	}
	if (fd != STDOUT)
		abort();
	memcpy(world.output + world.printed, data, length);
	world.printed += length;
	return (ssize_t)length;
}

static ssize_t fake_send(const char *data, size_t length)
{
	volatile char sum = 0;

	if (fails() || world.hangs_up)
		return -1;
	length = length > 30000 ? 30000 : length;
	for (size_t i = 0; i < length; i++)
		sum ^= data[i];
	return (ssize_t)length;
}

static ssize_t fake_sendmsg(const struct msghdr *message)
{
	return fake_send(message->msg_iov->iov_base, message->msg_iov->iov_len);
}

static int fake_connect(const struct sockaddr_un *address)
{
	if (strnlen(address->sun_path, sizeof(address->sun_path)) == sizeof(address->sun_path))
		abort();
	return fails() ? -1 : 0;
}

static int fake_path(const char *path, int made)
{
	return !strlen(path) || fails() ? -1 : made;
}

static int fake_stat(struct stat *about)
{
	memset(about, 0, sizeof(*about));
	about->st_uid = geteuid();
	about->st_mode = world.failing % 2 ? 0700 : 0777;
	return fails() ? -1 : 0;
}

#define main			   shim_main
#define exit(code)		   longjmp(world.end, (code) + 1)
#define getenv(name)		   ((char *)fake_getenv(name))
#define read(fd, data, length)	   fake_read(fd, data, length)
#define write(fd, data, length)	   fake_write(fd, data, length)
#define send(fd, data, length, f)  fake_send(data, length)
#define sendmsg(fd, message, f)	   fake_sendmsg(message)
#define socket(a, b, c)		   (fails() ? -1 : AGENT)
#define setsockopt(a, b, c, d, e)  ((void)(d), 0)
#define connect(fd, address, size) fake_connect((const struct sockaddr_un *)(address))
#define open(path, ...)		   fake_path(path, NETNS)
#define openat(fd, path, ...)	   fake_path(path, SPOOL)
#define mkdir(path, mode)	   fake_path(path, 0)
#define renameat(a, from, b, to)   fake_path(to, 0)
#define unlinkat(a, path, b)	   fake_path(path, 0)
#define fstat(fd, about)	   fake_stat(about)
#define fsync(fd)		   (fails() ? -1 : 0)
#define close(fd)		   (fails() ? -1 : 0)
#define fdopendir(fd)		   (fails() ? NULL : (DIR *)&world)
#define readdir(listing)	   (fails() || world.calls % 5 == 0 ? NULL : (void *)listing)
#define closedir(listing)	   ((void)(listing), 0)

#include "deltaplane-cni.c"

#undef main
#undef exit

/* The agent's answer to be, as in tests/fuzz/shim.py. */
static void choose_answer(unsigned int kind)
{
	static const uint8_t answers[][16] = {
		"\0\0\0\0\0\0\0\2{}",	     "",
		"\0\0\0\1\0\0\0\7{\"a\":1}", "\0\0\0\0\377\377\377\377{}",
		"\0\0\0\0\0\0\0\3{}",	     "{}",
	};
	static const size_t sizes[] = {10, 0, 15, 10, 10, 2};

	world.agent = answers[kind % 6];
	world.agent_left = sizes[kind % 6];
}

static void choose_environment(const uint8_t *choices)
{
	static const char *const commands[] = {
		"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "", "add",
	};
	const char *const ids[] = {"c1", "", long_text + 65001, "../../etc", "\"\\"};
	const char *const namespaces[] = {"/proc/self/ns/net", "", "/nowhere", "/"};
	const char *const links[] = {"eth0", "", long_text + 69701};
	const char *const arguments[] = {"K8S_POD_NAME=web", "", long_text};
	const char *const paths[] = {"/opt/cni/bin", ""};

	world.environment[0] = commands[choices[0] % 8];
	world.environment[1] = ids[choices[2] % 5];
	world.environment[2] = namespaces[choices[3] % 4];
	world.environment[3] = links[choices[4] % 3];
	world.environment[4] = arguments[choices[5] % 3];
	world.environment[5] = paths[choices[6] % 2];
}

/* As a new process finds them. */
static void forget(size_t length)
{
	__asan_unpoison_memory_region(config, sizeof(config));
	__asan_unpoison_memory_region(answer, sizeof(answer));
	memset(config, 0, length < sizeof(config) ? length : sizeof(config));
	memset(spool, 0, sizeof(spool));
	strcpy(version, "1.1.0");
}

/* It ends with 0 or 1; what it prints of its own is one line of JSON. */
static void judge(int code)
{
	static const char begin[] = "{\"cniVersion\":\"";
	const char *said = world.output;

	if (code != 0 && code != 1)
		abort();
	if (world.printed >= sizeof(begin) && !memcmp(said, begin, sizeof(begin) - 1) &&
	    (world.printed > 511 || memcmp(said + world.printed - 2, "}\n", 2)))
		abort();
	for (size_t i = 0; i + 1 < world.printed; i++)
		if ((unsigned char)said[i] < ' ')
			abort();
}

static int feed(const uint8_t *data, size_t size)
{
	int ended;

	if (size < 8)
		return 0;
	world.input = data + 8;
	world.input_left = size - 8;
	world.failing = data[7] & 63;
	world.hangs_up = data[7] >> 7;
	world.calls = 0;
	world.printed = 0;
	choose_answer(data[1]);
	choose_environment(data);
	ended = setjmp(world.end);
	if (!ended)
		ended = shim_main() + 1;
	judge(ended - 1);
	forget(size);
	return 0;
}

int main(int argc, char **argv)
{
	memset(long_text, 'x', sizeof(long_text) - 1);
	return LLVMFuzzerRunDriver(&argc, &argv, feed);
}
