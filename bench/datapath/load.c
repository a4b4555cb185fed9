// SPDX-License-Identifier: Apache-2.0
/*
 * Load between two pods, and what it takes. Python is too slow for it: a packet costs about a microsecond.
 *
 *	load udp|rr|crr NETNS NETNS ADDRESS ADDRESS MILLISECONDS CPU CPU [ADDRESS PORT]
 *
 * First the client's, then the server's. One line of JSON: how many samples, how many failures, and nanoseconds.
 * With an address and a port at the end, clients of rr and crr connect there, and the server answers on any address.
 *
 * udp  Bursts of datagrams in turn, sent and then received by one thread. A veth's receiving side runs in the
 *	context of who sends, so the thread's CPU time is all that a packet costs between the two sockets, and
 *	nobody is woken up. A sample is CPU time for each packet of a burst; a failure is a packet that does not arrive.
 * rr   One TCP connection, one byte there and one back. A sample is the time for both.
 * crr  The same with a connection for each byte, which is reset at its end: nothing waits in TIME_WAIT.
 *
 * Both ends of rr and crr have a processor each and never sleep: what it takes to wake an idle virtual processor is
 * many times what a packet takes, and is another thing on each machine.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT	    7000
#define BURST	    64
#define BYTES	    64
#define WARM_UP	    20
#define MAX_SAMPLES (1 << 21)
#define NANO	    1000000000ULL
/* Without an answer for so long a transaction has failed. */
#define PATIENCE (2 * NANO)

struct end {
	const char *netns;
	struct sockaddr_storage address;
	int cpu;
};

static struct end client, server;
/* Where clients connect to. */
static struct sockaddr_storage target;
static uint32_t samples[MAX_SAMPLES];
static size_t count;
static uint64_t failures, total, milliseconds;
static volatile bool is_over;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * NANO + t.tv_nsec;
}

static void record(uint64_t nanoseconds, uint64_t transaction)
{
	if (transaction < WARM_UP || count == MAX_SAMPLES)
		return;
	samples[count++] = nanoseconds > UINT32_MAX ? UINT32_MAX : nanoseconds;
	total += nanoseconds;
}

static void enter(const struct end *end)
{
	int descriptor = open(end->netns, O_RDONLY | O_CLOEXEC);

	if (descriptor < 0 || setns(descriptor, CLONE_NEWNET))
		fail(end->netns);
	close(descriptor);
}

static void settle(const struct end *end)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(end->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("sched_setaffinity");
}

/* Bound to the end's address, of the namespace in which the thread is; port 0: any. */
static int open_socket(const struct end *end, int type, in_port_t port)
{
	struct sockaddr_storage address = end->address;
	int descriptor = socket(address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	if (descriptor < 0)
		fail("socket");
	/* The port is at the same place for both families. */
	((struct sockaddr_in *)&address)->sin_port = htons(port);
	if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(descriptor, (struct sockaddr *)&address, sizeof(address)))
		fail("bind");
	if (type == SOCK_STREAM &&
	    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		fail("TCP_NODELAY");
	return descriptor;
}

/* --- udp ----------------------------------------------------------------------------------------- */

/* Takes in what has come of a burst; returns how many. */
static int drain(int descriptor, int wanted)
{
	char packet[BYTES];
	int received = 0;

	while (received < wanted && recv(descriptor, packet, sizeof(packet), 0) == sizeof(packet))
		received++;
	return received;
}

/* The rest of a burst, of which a thread of the kernel took care; returns how many are missing. */
static int await_rest(int descriptor, int wanted)
{
	uint64_t give_up = now(CLOCK_MONOTONIC) + PATIENCE;

	while (wanted && now(CLOCK_MONOTONIC) < give_up) {
		sched_yield();
		wanted -= drain(descriptor, wanted);
	}
	return wanted;
}

static void flood(void)
{
	char packet[BYTES] = {0};
	int from, to;
	uint64_t end;

	enter(&server);
	to = open_socket(&server, SOCK_DGRAM, PORT);
	enter(&client);
	from = open_socket(&client, SOCK_DGRAM, PORT);
	if (connect(from, (struct sockaddr *)&server.address, sizeof(server.address)) ||
	    connect(to, (struct sockaddr *)&client.address, sizeof(client.address)))
		fail("connect");
	settle(&client);
	end = now(CLOCK_MONOTONIC) + milliseconds * NANO / 1000;
	for (uint64_t burst = 0; now(CLOCK_MONOTONIC) < end; burst++) {
		uint64_t started = now(CLOCK_THREAD_CPUTIME_ID), spent;
		int back = from, received;

		for (int i = 0; i < BURST; i++)
			if (send(from, packet, sizeof(packet), 0) != sizeof(packet) &&
			    errno != ECONNREFUSED)
				fail("send");
		received = drain(to, BURST);
		spent = now(CLOCK_THREAD_CPUTIME_ID) - started;
		if (received == BURST)
			record(spent / BURST, burst);
		else
			failures += await_rest(to, BURST - received);
		from = to;
		to = back;
	}
}

/* --- rr and crr ---------------------------------------------------------------------------------- */

/* Tries until it works. False: it took too long, all is over, or the other end has gone. */
static bool exchange(int descriptor, bool is_sending)
{
	uint64_t give_up = 0;
	char byte = 0;

	for (unsigned int tries = 1;; tries++) {
		ssize_t done = is_sending ? send(descriptor, &byte, 1, MSG_NOSIGNAL)
					  : recv(descriptor, &byte, 1, 0);

		if (done == 1)
			return true;
		if (done == 0 || errno != EAGAIN)
			return false;
		/* The clock costs as much as a try. */
		if (tries % 256)
			continue;
		if (is_over || (give_up && now(CLOCK_MONOTONIC) > give_up))
			return false;
		if (!give_up)
			give_up = now(CLOCK_MONOTONIC) + PATIENCE;
	}
}

static void *serve(void *argument)
{
	int listener = *(int *)argument, descriptor, on = 1;

	enter(&server);
	settle(&server);
	while (!is_over) {
		descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (descriptor < 0)
			continue;
		if (setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
			fail("TCP_NODELAY");
		while (exchange(descriptor, false) && exchange(descriptor, true))
			;
		close(descriptor);
	}
	return NULL;
}

static int connected(void)
{
	int descriptor = open_socket(&client, SOCK_STREAM, 0);
	struct linger reset = {.l_onoff = 1};

	if (setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		fail("SO_LINGER");
	if (connect(descriptor, (struct sockaddr *)&target, sizeof(target)) && errno != EINPROGRESS)
		fail("connect");
	return descriptor;
}

static void ask(bool anew)
{
	uint64_t started, end = now(CLOCK_MONOTONIC) + milliseconds * NANO / 1000;
	int descriptor;

	descriptor = anew ? -1 : connected();
	for (uint64_t transaction = 0; (started = now(CLOCK_MONOTONIC)) < end; transaction++) {
		if (descriptor < 0)
			descriptor = connected();
		if (exchange(descriptor, true) && exchange(descriptor, false)) {
			record(now(CLOCK_MONOTONIC) - started, transaction);
			if (!anew)
				continue;
		} else {
			failures++;
		}
		close(descriptor);
		descriptor = -1;
	}
	if (descriptor >= 0)
		close(descriptor);
}

static void converse(bool anew)
{
	pthread_t thread;
	int listener;

	enter(&server);
	listener = open_socket(&server, SOCK_STREAM, PORT);
	if (listen(listener, 128))
		fail("listen");
	if (pthread_create(&thread, NULL, serve, &listener))
		fail("pthread_create");
	enter(&client);
	settle(&client);
	ask(anew);
	is_over = true;
	pthread_join(thread, NULL);
}

/* --- what is asked for, and what came out -------------------------------------------------------- */

static void parse(struct sockaddr_storage *address, const char *text, in_port_t port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
	} else {
		fprintf(stderr, "%s is no address\n", text);
		exit(2);
	}
	v4->sin_port = htons(port);
}

static void parse_end(struct end *end, const char *netns, const char *address, const char *cpu)
{
	end->netns = netns;
	end->cpu = atoi(cpu);
	parse(&end->address, address, PORT);
}

/* The server answers on any address, of the same family. */
static void parse_target(const char *address, const char *port)
{
	parse(&target, address, atoi(port));
	parse(&server.address, target.ss_family == AF_INET ? "0.0.0.0" : "::", PORT);
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Of the samples in order; 0: there are none. */
static uint32_t quantile(unsigned int percent)
{
	return count ? samples[count * percent / 100] : 0;
}

int main(int argc, char **argv)
{
	if (argc != 9 && argc != 11) {
		fprintf(stderr, "load udp|rr|crr NETNS NETNS ADDRESS ADDRESS MILLISECONDS CPU CPU "
				"[ADDRESS PORT]\n");
		return 2;
	}
	parse_end(&client, argv[2], argv[4], argv[7]);
	parse_end(&server, argv[3], argv[5], argv[8]);
	target = server.address;
	if (argc == 11)
		parse_target(argv[9], argv[10]);
	milliseconds = strtoull(argv[6], NULL, 10);
	if (!strcmp(argv[1], "udp"))
		flood();
	else
		converse(!strcmp(argv[1], "crr"));
	qsort(samples, count, sizeof(samples[0]), ascending);
	printf("{\"count\": %zu, \"failures\": %llu, \"p50_ns\": %u, \"p99_ns\": %u, \"mean_ns\": "
	       "%.1f}\n",
	       count, (unsigned long long)failures, quantile(50), quantile(99),
	       count ? (double)total / count : 0);
	return 0;
}
