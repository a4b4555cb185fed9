/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes. */
#ifndef DELTAPLANE_SHIM_IO_H
#define DELTAPLANE_SHIM_IO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

static inline bool write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t written = write(fd, data, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		data += written;
		length -= (size_t)written;
	}
	return true;
}

/* Reads until length bytes or the end of file; returns how many came, or -1. */
static inline ssize_t read_up_to(int fd, char *data, size_t length)
{
	size_t got = 0;

	while (got < length) {
		ssize_t part = read(fd, data + got, length - got);

		if (part < 0 && errno == EINTR)
			continue;
		if (part < 0)
			return -1;
		if (!part)
			break;
		got += (size_t)part;
	}
	return (ssize_t)got;
}

#endif
