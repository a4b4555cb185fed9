/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What DEL leaves on disk for an agent that is not there: the request as it would have been sent, one file each. A file
 * appears whole (draft, fsync, rename) and only in a directory that nobody else can write.
 */
#ifndef DELTAPLANE_SHIM_SPOOL_H
#define DELTAPLANE_SHIM_SPOOL_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "io.h"

/* A node has some hundred pods; an agent that is away for longer than that makes room by coming back. */
#define SPOOL_MAX_ENTRIES 1024
#define SPOOL_MAX_BYTES	  (1u << 16)

static inline int spool_entries(int directory)
{
	int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = copy < 0 ? NULL : fdopendir(copy);
	int entries = 0;

	if (!listing)
		return -1;
	while (readdir(listing))
		entries++;
	closedir(listing);
	return entries - 2; /* . and .. */
}

/* NULL, or why nothing may be put there. */
static inline const char *spool_refuses(int directory)
{
	struct stat about;
	int entries;

	if (fstat(directory, &about) || about.st_uid != geteuid() || about.st_mode & 022)
		return "others could write the spool directory";
	entries = spool_entries(directory);
	if (entries < 0)
		return "the spool directory cannot be listed";
	return entries >= SPOOL_MAX_ENTRIES ? "the spool directory is full" : NULL;
}

static inline bool spool_write(int directory, const char *data, size_t length)
{
	struct timespec now;
	char draft[64];
	bool whole;
	int fd;

	clock_gettime(CLOCK_REALTIME, &now);
	/* In the order of the calls; the process number parts two of the same nanosecond. */
	snprintf(draft, sizeof(draft), ".%012lld%09ld-%d.del", (long long)now.tv_sec, now.tv_nsec,
		 (int)getpid());
	fd = openat(directory, draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	whole = write_all(fd, data, length) && !fsync(fd);
	whole = !close(fd) && whole && !renameat(directory, draft, directory, draft + 1) &&
		!fsync(directory);
	if (!whole)
		unlinkat(directory, draft, 0);
	return whole;
}

/* Remembers a request. NULL, or why not. */
static inline const char *spool_store(const char *path, const char *data, size_t length)
{
	const char *reason;
	int directory;

	if (length > SPOOL_MAX_BYTES)
		return "longer than 64 KiB";
	if (mkdir(path, 0700) && errno != EEXIST)
		return "the spool directory cannot be made";
	directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0)
		return "the spool directory cannot be opened";
	reason = spool_refuses(directory);
	if (!reason && !spool_write(directory, data, length))
		reason = "the spool directory cannot be written";
	close(directory);
	return reason;
}

#endif
