// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP requests, each on a connection of its own, and a server for them.
 *
 *	calls ask NETNS CPU MICROSECONDS ADDRESS PORT [ADDRESS PORT]...
 *	calls serve CPU PORT NETNS...
 *
 * ask    Calls one address after the other from a network namespace, and begins a call each so many microseconds, or
 *	  when the one before has ended. Writes a struct call to standard output for each, and ends with SIGTERM.
 * serve  Answers on a port of all these network namespaces, both families. Writes a line once it listens.
 *
 * A call fails if the connection does, if no answer with status 200 comes to its end, or if 5 s pass. The client ends
 * it with a reset: nothing waits in TIME_WAIT. CPU -1: any. On one of its own a process comes before all others that have
 * no precedence themselves (SCHED_FIFO): what is measured is the way, not who else wants the processor.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NANO	     1000000000ULL
#define PATIENCE     5
#define MAX_TARGETS  64
#define MAX_NETNS    1024
#define ANSWER_BYTES 512

static const char request[] = "GET / HTTP/1.0\r\n\r\n";
static const char response[] =
	"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

/* How far a call came. */
enum step { DONE, CONNECT, SEND, RECEIVE, STATUS };

/* What is said of each call, in the machine's byte order. bench/services/calling.py reads it. */
struct call {
	uint16_t target; /* its place among the arguments, from 0 on */
	uint8_t step;	 /* enum step: DONE, or what failed */
	uint8_t error; /* errno; 0: the other end has closed too early, or the status is another one */
	uint32_t ended_ms; /* since the first call began */
	uint64_t took_ns;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NANO + t.tv_nsec;
}

static void enter(const char *netns)
{
	int descriptor = open(netns, O_RDONLY | O_CLOEXEC);

	if (descriptor < 0 || setns(descriptor, CLONE_NEWNET))
		fail(netns);
	close(descriptor);
}

static void settle(int cpu)
{
	struct sched_param lowest = {.sched_priority = 1};
	cpu_set_t cpus;

	/* Whoever has started it may have ended meanwhile, without a word. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		fail("prctl");
	if (cpu < 0)
		return;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) || sched_setscheduler(0, SCHED_FIFO, &lowest))
		fail("sched_setscheduler");
}

static void be_patient(int descriptor)
{
	struct timeval patience = {.tv_sec = PATIENCE};

	if (setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		fail("setsockopt");
}

/* --- ask ----------------------------------------------------------------------------------------- */

static struct sockaddr_in6 targets[MAX_TARGETS];
static volatile sig_atomic_t is_over;

static void end(int number)
{
	(void)number;
	is_over = 1;
}

static void parse(struct sockaddr_in6 *target, const char *text, const char *port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)target;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, text, &target->sin6_addr) == 1) {
		target->sin6_family = AF_INET6;
	} else {
		fprintf(stderr, "%s is no address\n", text);
		exit(2);
	}
	/* At the same place for both families. */
	target->sin6_port = htons(atoi(port));
}

static enum step receive(int descriptor)
{
	char answer[ANSWER_BYTES];
	size_t length = 0;
	ssize_t got;

	while ((got = recv(descriptor, answer + length, sizeof(answer) - length, 0)) > 0)
		length += got;
	if (got < 0)
		return RECEIVE;
	errno = 0;
	if (length < 12)
		return RECEIVE;
	return memcmp(answer + 9, "200", 3) ? STATUS : DONE;
}

static enum step ask_one(const struct sockaddr_in6 *target)
{
	int descriptor = socket(target->sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, error;
	struct linger reset = {.l_onoff = 1};
	enum step step = DONE;

	if (descriptor < 0)
		fail("socket");
	be_patient(descriptor);
	if (setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) ||
	    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		fail("setsockopt");
	if (connect(descriptor, (const struct sockaddr *)target, sizeof(*target)))
		step = CONNECT;
	else if (send(descriptor, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
		step = SEND;
	else
		step = receive(descriptor);
	error = errno;
	close(descriptor);
	errno = error;
	return step;
}

static void wait_until(uint64_t when)
{
	struct timespec t = {.tv_sec = when / NANO, .tv_nsec = when % NANO};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void ask(int count, uint64_t interval)
{
	uint64_t begun = now(), due = begun;

	for (unsigned int number = 0; !is_over; number++) {
		struct call call = {.target = number % count};
		uint64_t started, ended;

		started = now();
		if (started < due) {
			wait_until(due);
			started = now();
		}
		/* Who is late does not hurry afterwards. */
		due = (due + interval > started ? due : started) + interval;
		call.step = ask_one(&targets[call.target]);
		call.error = call.step == DONE ? 0 : errno;
		ended = now();
		if (is_over && call.step != DONE)
			break; /* interrupted by the signal, perhaps */
		call.took_ns = ended - started;
		call.ended_ms = (ended - begun) / 1000000;
		if (write(STDOUT_FILENO, &call, sizeof(call)) != sizeof(call))
			fail("write");
	}
}

/* --- serve --------------------------------------------------------------------------------------- */

static int open_listener(const char *netns, int port)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int descriptor, off = 0, on = 1;

	enter(netns);
	descriptor = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (descriptor < 0 ||
	    setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) ||
	    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(descriptor, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(descriptor, 1024))
		fail(netns);
	return descriptor;
}

static void answer(int descriptor)
{
	char text[ANSWER_BYTES];
	size_t length = 0;
	ssize_t got;
	int on = 1;

	be_patient(descriptor);
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while ((got = recv(descriptor, text + length, sizeof(text) - length, 0)) > 0) {
		length += got;
		if (memmem(text, length, "\r\n\r\n", 4)) {
			/* Who has gone meanwhile says so itself. */
			got = send(descriptor, response, sizeof(response) - 1, MSG_NOSIGNAL);
			break;
		}
	}
	close(descriptor);
}

static void serve(int port, char **names, int count)
{
	int poll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};

	for (int i = 0; i < count; i++) {
		event.data.fd = open_listener(names[i], port);
		if (epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event))
			fail("epoll_ctl");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int descriptor;

		if (epoll_wait(poll, &event, 1, -1) != 1)
			continue;
		descriptor = accept4(event.data.fd, NULL, NULL, SOCK_CLOEXEC);
		if (descriptor >= 0)
			answer(descriptor);
	}
}

int main(int argc, char **argv)
{
	if (argc >= 7 && argc % 2 && argc <= 5 + 2 * MAX_TARGETS && !strcmp(argv[1], "ask")) {
		/* Not restarted: a call that waits is cut short. */
		struct sigaction action = {.sa_handler = end};
		int count = (argc - 5) / 2;

		for (int i = 0; i < count; i++)
			parse(&targets[i], argv[5 + 2 * i], argv[6 + 2 * i]);
		sigaction(SIGTERM, &action, NULL);
		settle(atoi(argv[3]));
		enter(argv[2]);
		ask(count, strtoull(argv[4], NULL, 10) * 1000);
		return 0;
	}
	if (argc >= 5 && argc <= 4 + MAX_NETNS && !strcmp(argv[1], "serve")) {
		settle(atoi(argv[2]));
		serve(atoi(argv[3]), argv + 4, argc - 4);
	}
	fprintf(stderr, "calls ask NETNS CPU MICROSECONDS ADDRESS PORT [ADDRESS PORT]...\n"
			"calls serve CPU PORT NETNS...\n");
	return 2;
}
