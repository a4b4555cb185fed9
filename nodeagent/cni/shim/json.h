/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A strict JSON scanner (RFC 8259) that remembers three top-level strings. It never allocates, never reads past
 * the end, and nests at most JSON_MAX_DEPTH deep.
 */
#ifndef DELTAPLANE_SHIM_JSON_H
#define DELTAPLANE_SHIM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define JSON_MAX_DEPTH 64

/* Text inside the scanned buffer, quotes left out. data is NULL while the key has not been seen. */
struct json_text {
	const char *data;
	size_t length;
	bool escaped; /* holds a backslash: such a text is no socket path and no version */
};

struct json_scan {
	const char *at;
	const char *end;
	struct json_text version; /* "cniVersion" */
	struct json_text socket;  /* "agentSocket" */
	struct json_text spool;	  /* "spoolDir" */
};

static inline void json_space(struct json_scan *scan)
{
	while (scan->at < scan->end && *scan->at && strchr(" \t\r\n", *scan->at))
		scan->at++;
}

static inline bool json_take(struct json_scan *scan, char wanted)
{
	json_space(scan);
	if (scan->at == scan->end || *scan->at != wanted)
		return false;
	scan->at++;
	return true;
}

static inline bool json_string(struct json_scan *scan, struct json_text *text)
{
	if (!json_take(scan, '"'))
		return false;
	text->data = scan->at;
	text->escaped = false;
	for (; scan->at < scan->end; scan->at++) {
		if ((unsigned char)*scan->at < 0x20)
			return false;
		if (*scan->at == '"') {
			text->length = (size_t)(scan->at++ - text->data);
			return true;
		}
		if (*scan->at == '\\') {
			text->escaped = true;
			if (++scan->at == scan->end || !*scan->at ||
			    !strchr("\"\\/bfnrtu", *scan->at))
				return false;
		}
	}
	return false;
}

/* Numbers and the three names: their exact form is left to the agent, which parses again. */
static inline bool json_word(struct json_scan *scan)
{
	const char *start = scan->at;

	while (scan->at < scan->end && *scan->at && strchr("+-.0123456789Eaeflnrstu", *scan->at))
		scan->at++;
	return scan->at > start;
}

static inline bool json_is(const struct json_text *text, const char *name)
{
	return text->length == strlen(name) && !memcmp(text->data, name, text->length);
}

static inline bool json_value(struct json_scan *scan, int depth);

static inline bool json_member(struct json_scan *scan, int depth)
{
	struct json_text name, value, *keep = NULL;

	if (!json_string(scan, &name) || !json_take(scan, ':'))
		return false;
	if (depth == 1 && json_is(&name, "cniVersion"))
		keep = &scan->version;
	else if (depth == 1 && json_is(&name, "agentSocket"))
		keep = &scan->socket;
	else if (depth == 1 && json_is(&name, "spoolDir"))
		keep = &scan->spool;
	if (!keep)
		return json_value(scan, depth);
	/* Twice the same key: whom to believe? */
	if (keep->data || !json_string(scan, &value))
		return false;
	*keep = value;
	return true;
}

static inline bool json_container(struct json_scan *scan, int depth, char close)
{
	if (depth > JSON_MAX_DEPTH)
		return false;
	if (json_take(scan, close))
		return true;
	do {
		if (!(close == '}' ? json_member(scan, depth) : json_value(scan, depth)))
			return false;
	} while (json_take(scan, ','));
	return json_take(scan, close);
}

static inline bool json_value(struct json_scan *scan, int depth)
{
	struct json_text ignored;

	json_space(scan);
	if (scan->at == scan->end)
		return false;
	if (*scan->at == '"')
		return json_string(scan, &ignored);
	if (json_take(scan, '{'))
		return json_container(scan, depth + 1, '}');
	if (json_take(scan, '['))
		return json_container(scan, depth + 1, ']');
	return json_word(scan);
}

/* True if the buffer is one JSON object and nothing else. */
static inline bool json_object(struct json_scan *scan)
{
	if (!json_take(scan, '{') || !json_container(scan, 1, '}'))
		return false;
	json_space(scan);
	return scan->at == scan->end;
}

#endif
