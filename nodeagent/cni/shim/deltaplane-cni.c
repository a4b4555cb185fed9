// SPDX-License-Identifier: Apache-2.0
/*
 * The CNI plugin binary: forwards one call to the node agent and prints its answer. Called by the name "loopback", it is
 * that plugin instead (loopback.h).
 *
 * It holds no state and no logic but VERSION and the spool of DELs for an agent that is away (spool.h), so that an upgrade of the agent needs no new binary on the node. Static
 * and without an interpreter, because the container runtime waits for it on every pod start.
 *
 * Request:  u32 length of the rest, then seven fields, each u32 length + bytes: CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS,
 *           CNI_IFNAME, CNI_ARGS, CNI_PATH, standard input. The descriptor of CNI_NETNS rides on the first byte.
 * Answer:   u32 exit code, u32 length, bytes for standard output. All numbers are big endian.
 */
#define _GNU_SOURCE /* setns */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "io.h"
#include "json.h"
#include "loopback.h"
#include "spool.h"

#define DEFAULT_SOCKET "/run/deltaplane/agent.sock"
#define DEFAULT_SPOOL  "/var/lib/deltaplane/cni-spool"
#define MAX_CONFIG     (1u << 20)
#define MAX_VARIABLE   (1u << 16)
#define MAX_ANSWER     (1u << 20)
/* Seconds; longer than the agent's own bounds together, shorter than the runtime's patience. */
#define TIMEOUT_SECONDS 30

enum {
	CNI_BAD_VERSION = 1,
	CNI_UNKNOWN_CONTAINER = 3,
	CNI_BAD_ENVIRONMENT = 4,
	CNI_IO_FAILURE = 5,
	CNI_BAD_CONFIG = 6,
	CNI_TRY_AGAIN = 11,
	CNI_NOT_AVAILABLE = 50,
};

static const char *const variables[] = {
	"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
};
#define VARIABLES (sizeof(variables) / sizeof(variables[0]))

static char config[MAX_CONFIG + 1];
static char request[4 + (VARIABLES + 1) * 4 + VARIABLES * MAX_VARIABLE + MAX_CONFIG];
static char answer[MAX_ANSWER];
static char version[16] = "1.1.0";
static char spool[256];

/* Prints a CNI error object and ends. The texts are ours: nothing in them needs escaping. */
__attribute__((noreturn)) static void fail(int code, const char *message, const char *reason)
{
	char text[512];
	int length =
		snprintf(text, sizeof(text),
			 "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"%s\",\"details\":\"%s\"}\n",
			 version, code, message, reason);

	write_all(STDOUT_FILENO, text, (size_t)length);
	exit(1);
}

/* Repeats the caller's version in our errors if it looks like one. */
static void adopt_version(const struct json_text *text)
{
	if (!text->data || !text->length || text->length >= sizeof(version))
		return;
	for (size_t i = 0; i < text->length; i++)
		if (!strchr("0123456789.", text->data[i]))
			return;
	memcpy(version, text->data, text->length);
	version[text->length] = 0;
}

/* An agent of its own has a spool of its own: without "spoolDir" only the default socket has one. */
static void adopt_spool(const struct json_scan *scan)
{
	if (!scan->spool.data) {
		if (!scan->socket.data)
			strcpy(spool, DEFAULT_SPOOL);
		return;
	}
	if (scan->spool.escaped || !scan->spool.length || *scan->spool.data != '/' ||
	    scan->spool.length >= sizeof(spool))
		fail(CNI_BAD_CONFIG, "spoolDir is no absolute path of at most 255 plain characters",
		     "");
	memcpy(spool, scan->spool.data, scan->spool.length);
}

static size_t read_config(struct sockaddr_un *address)
{
	struct json_scan scan = {.at = config};
	ssize_t length = read_up_to(STDIN_FILENO, config, sizeof(config));

	if (length < 0)
		fail(CNI_IO_FAILURE, "cannot read the configuration", strerror(errno));
	if (length > (ssize_t)MAX_CONFIG)
		fail(CNI_BAD_CONFIG, "the configuration is longer than 1 MiB", "");
	scan.end = config + length;
	if (!json_object(&scan))
		fail(CNI_BAD_CONFIG, "the configuration on standard input is not a JSON object",
		     "");
	adopt_version(&scan.version);
	adopt_spool(&scan);
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, DEFAULT_SOCKET);
	if (scan.socket.data) {
		if (scan.socket.escaped || !scan.socket.length ||
		    scan.socket.length >= sizeof(address->sun_path))
			fail(CNI_BAD_CONFIG,
			     "agentSocket is no usable path of 1 to 107 plain characters", "");
		memcpy(address->sun_path, scan.socket.data, scan.socket.length);
		address->sun_path[scan.socket.length] = 0;
	}
	return (size_t)length;
}

static char *put_number(char *at, size_t number)
{
	uint32_t wire = htonl((uint32_t)number);

	memcpy(at, &wire, sizeof(wire));
	return at + sizeof(wire);
}

static char *put_field(char *at, const char *data, size_t length)
{
	at = put_number(at, length);
	memcpy(at, data, length);
	return at + length;
}

static size_t build_request(size_t config_length)
{
	char *at = request + 4;

	for (size_t i = 0; i < VARIABLES; i++) {
		const char *value = getenv(variables[i]);
		size_t length = value ? strlen(value) : 0;

		if (length > MAX_VARIABLE)
			fail(CNI_BAD_ENVIRONMENT, "longer than 64 KiB", variables[i]);
		at = put_field(at, value ? value : "", length);
	}
	at = put_field(at, config, config_length);
	put_number(request, (size_t)(at - request - 4));
	return (size_t)(at - request);
}

/* Sends the request; the namespace, if there is one, goes with the first byte. */
static bool send_request(int fd, int netns, size_t length)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec data = {.iov_base = request, .iov_len = length};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	ssize_t sent;

	if (netns >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof(netns));
	}
	do
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	for (size_t done = sent < 0 ? 0 : (size_t)sent; sent > 0 && done < length;
	     done += (size_t)sent)
		sent = send(fd, request + done, length - done, MSG_NOSIGNAL);
	return sent > 0;
}

static bool is_called(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');

	return !strcmp(slash ? slash + 1 : path, name);
}

static bool is_set(const char *variable)
{
	const char *value = getenv(variable);

	return value && *value;
}

/*
 * Ends a call that the agent did not answer. A DEL that names an interface is remembered and done as far as the runtime
 * is concerned: the agent makes up for it before it adds anything.
 */
__attribute__((noreturn)) static void unreachable(size_t length, const char *message,
						  const char *reason)
{
	const char *command = getenv("CNI_COMMAND");

	if (!strcmp(command, "STATUS"))
		fail(CNI_NOT_AVAILABLE, message, reason);
	if (!strcmp(command, "DEL") && *spool && is_set("CNI_CONTAINERID") &&
	    is_set("CNI_IFNAME") && is_set("CNI_PATH")) {
		reason = spool_store(spool, request, length);
		if (!reason)
			exit(0);
	}
	fail(CNI_TRY_AGAIN, message, reason);
}

static int forward(const struct sockaddr_un *address, size_t sent)
{
	const char *path = getenv("CNI_NETNS");
	const struct timeval timeout = {.tv_sec = TIMEOUT_SECONDS};
	int netns = path && *path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint32_t head[2], length;

	if (fd < 0)
		fail(CNI_IO_FAILURE, "cannot make a socket", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)))
		unreachable(sent, "the node agent is not reachable on its socket", strerror(errno));
	if (!send_request(fd, netns, sent))
		unreachable(sent, "the node agent did not take the request", strerror(errno));
	if (read_up_to(fd, (char *)head, sizeof(head)) != sizeof(head))
		unreachable(sent, "the node agent gave no answer", "");
	length = ntohl(head[1]);
	if (length > MAX_ANSWER || read_up_to(fd, answer, length) != (ssize_t)length)
		unreachable(sent, "the node agent's answer is cut short", "");
	if (!write_all(STDOUT_FILENO, answer, length))
		return 1;
	return ntohl(head[0]) ? 1 : 0;
}

/* Called by the name "loopback": ADD and CHECK are about lo of the pod, the rest is nothing to do. */
static int loopback(const char *command)
{
	/* Before 1.0 an address says of which IP version it is. */
	static const char *const forms[] = {
		"{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:"
		"00\",\"sandbox\":\"%s\"}],"
		"\"ips\":[{\"address\":\"127.0.0.1/8\",\"interface\":0},{\"address\":\"::1/"
		"128\",\"interface\":0}],\"dns\":{}}\n",
		"{\"cniVersion\":\"%s\",\"interfaces\":[{\"name\":\"lo\",\"mac\":\"00:00:00:00:00:"
		"00\",\"sandbox\":\"%s\"}],"
		"\"ips\":[{\"version\":\"4\",\"address\":\"127.0.0.1/8\",\"interface\":0},"
		"{\"version\":\"6\",\"address\":\"::1/128\",\"interface\":0}],\"dns\":{}}\n",
	};
	const char *netns = getenv("CNI_NETNS"), *problem;
	bool is_add = !strcmp(command, "ADD");
	struct sockaddr_un ignored = {0};
	int length;

	read_config(&ignored);
	if (!is_add && strcmp(command, "CHECK"))
		return 0;
	if (strcmp(version, "0.3.1") && strcmp(version, "0.4.0") && strncmp(version, "1.", 2))
		fail(CNI_BAD_VERSION, "incompatible CNI version", version);
	/* Into the answer it goes as it is. */
	if (!netns || !*netns || strpbrk(netns, "\"\\"))
		fail(CNI_BAD_ENVIRONMENT, "a path of a network namespace is needed", "CNI_NETNS");
	problem = loopback_enter(netns);
	if (problem)
		fail(CNI_UNKNOWN_CONTAINER, problem, strerror(errno));
	if (!loopback_is_up(is_add))
		fail(CNI_IO_FAILURE, is_add ? "cannot set lo up" : "lo is not up", strerror(errno));
	if (!is_add)
		return 0;
	length = snprintf(answer, sizeof(answer), forms[*version == '0'], version, netns);
	return !write_all(STDOUT_FILENO, answer, (size_t)length);
}

int main(int count, char **arguments)
{
	static const char versions[] = "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.1\","
				       "\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
	struct sockaddr_un address = {0};
	const char *command = getenv("CNI_COMMAND");

	if (!command || !*command)
		fail(CNI_BAD_ENVIRONMENT, "required environment variable is missing",
		     "CNI_COMMAND");
	/* Before standard input is read: the runtime may keep it open. */
	if (!strcmp(command, "VERSION"))
		return !write_all(STDOUT_FILENO, versions, sizeof(versions) - 1);
	if (count && is_called(arguments[0], "loopback"))
		return loopback(command);
	return forward(&address, build_request(read_config(&address)));
}
