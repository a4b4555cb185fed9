/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CNI plugin "loopback": container runtimes call one for every pod, beside the pod's network, and where none is
 * installed no pod starts. This binary is it when it is called by that name. It needs no agent: it sets lo up in the
 * pod's namespace, and the kernel gives it 127.0.0.1 and ::1.
 */
#ifndef DELTAPLANE_SHIM_LOOPBACK_H
#define DELTAPLANE_SHIM_LOOPBACK_H

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Enters a pod's namespace for good; NULL, or what went wrong. */
static inline const char *loopback_enter(const char *path)
{
	int netns = open(path, O_RDONLY | O_CLOEXEC);

	if (netns < 0)
		return "cannot open the network namespace";
	if (setns(netns, CLONE_NEWNET))
		return "cannot enter the network namespace";
	close(netns);
	return NULL;
}

/* Sets lo up where the process is, or only asks whether it is up (errno ENETDOWN: it is not). */
static inline bool loopback_is_up(bool raise)
{
	struct ifreq lo = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool done = fd >= 0 && !ioctl(fd, SIOCGIFFLAGS, &lo);

	if (done && !(lo.ifr_flags & IFF_UP)) {
		lo.ifr_flags |= IFF_UP;
		errno = ENETDOWN;
		done = raise && !ioctl(fd, SIOCSIFFLAGS, &lo);
	}
	if (fd >= 0)
		close(fd);
	return done;
}

#endif
