/*
 * Fills a table as nodeagent/services/maglev.py does, which is its reference: see there.
 *
 * places: n offsets, used up; skips: n, 1..size-1; values: n; table: size entries; taken: size bytes, all 0.
 */

#include <stdint.h>

void dp_maglev_fill(uint32_t size, uint32_t n, uint32_t *places, const uint32_t *skips,
		    const uint32_t *values, uint32_t *table, uint8_t *taken);

void dp_maglev_fill(uint32_t size, uint32_t n, uint32_t *places, const uint32_t *skips,
		    const uint32_t *values, uint32_t *table, uint8_t *taken)
{
	uint32_t left = size;

	while (left) {
		for (uint32_t turn = 0; turn < n && left; turn++, left--) {
			uint64_t place = places[turn];

			while (taken[place])
				place = place + skips[turn] < size ? place + skips[turn]
								   : place + skips[turn] - size;
			taken[place] = 1;
			table[place] = values[turn];
			place += skips[turn];
			places[turn] = (uint32_t)(place < size ? place : place - size);
		}
	}
}
