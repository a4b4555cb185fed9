// SPDX-License-Identifier: Apache-2.0
/* Tables of any size and number of backends, in buffers of exactly their size: every entry is taken, by turns. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "maglev.c"

int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*feed)(const uint8_t *data, size_t size));

#define LARGEST 6000

static void judge(uint32_t size, uint32_t n, const uint16_t *table, const uint8_t *taken)
{
	uint32_t *shares = calloc(n, sizeof(*shares));

	for (uint32_t i = 0; i < size; i++) {
		if (taken[i] != 1 || table[i] >= n)
			abort();
		shares[table[i]]++;
	}
	for (uint32_t i = 0; i < n; i++)
		if (shares[i] != size / n + (i < size % n))
			abort();
	free(shares);
}

/* Walks are hashes of backends: one that is not could look for the last free entry for minutes. */
static uint32_t mixed(uint64_t value)
{
	value *= 0x9e3779b97f4a7c15;
	value = (value ^ value >> 32) * 0xbf58476d1ce4e5b9;
	return (uint32_t)(value >> 32);
}

static int feed(const uint8_t *data, size_t length)
{
	uint32_t size, backend, n = (uint32_t)(length - 2) / sizeof(backend);
	struct walk *walks;
	uint16_t *places, *table;
	uint8_t *taken;

	if (length < 2 + sizeof(backend))
		return 0;
	size = (uint32_t)(data[0] << 8 | data[1]) % LARGEST + 1;
	walks = malloc(n * sizeof(*walks));
	places = malloc(n * sizeof(*places));
	table = malloc(size * sizeof(*table));
	taken = calloc(size, 1);
	for (uint32_t i = 0; i < n; i++) {
		memcpy(&backend, data + 2 + i * sizeof(backend), sizeof(backend));
		/* As nodeagent/services/maglev.py makes them: so a walk comes everywhere. */
		walks[i].at = mixed(backend);
		walks[i].step = mixed(backend + 1ull) | 1;
		walks[i].bend = mixed(backend + 2ull) & ~3u;
		places[i] = (uint16_t)i;
	}
	dp_maglev_fill(size, n, walks, places, table, taken);
	judge(size, n, table, taken);
	free(taken);
	free(table);
	free(places);
	free(walks);
	return 0;
}

int main(int argc, char **argv)
{
	return LLVMFuzzerRunDriver(&argc, &argv, feed);
}
