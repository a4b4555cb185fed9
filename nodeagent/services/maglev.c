/*
 * Fills a table as nodeagent/services/maglev.py does, which is its reference: see there.
 *
 * walks: n, used up; places: n; table: size entries; taken: size bytes, all 0.
 */

#include <stdint.h>

struct walk {
	uint32_t at;
	uint32_t step;
	uint32_t bend;
};

void dp_maglev_fill(uint32_t size, uint32_t n, struct walk *walks, const uint16_t *places,
		    uint16_t *table, uint8_t *taken);

void dp_maglev_fill(uint32_t size, uint32_t n, struct walk *walks, const uint16_t *places,
		    uint16_t *table, uint8_t *taken)
{
	uint32_t left = size;

	while (left) {
		for (uint32_t turn = 0; turn < n && left; turn++, left--) {
			struct walk walk = walks[turn];
			uint32_t entry;

			do {
				entry = (uint32_t)((uint64_t)walk.at * size >> 32);
				walk.at += walk.step;
				walk.step += walk.bend;
			} while (taken[entry]);
			taken[entry] = 1;
			table[entry] = places[turn];
			walks[turn] = walk;
		}
	}
}
