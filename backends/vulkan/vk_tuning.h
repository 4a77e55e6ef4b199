/* Owns the choices of kernels that are a matter of speed alone: a value for each class of device, which others may be
 * tried. Any of them gives right results. Knows no kernel and nothing of measuring. */
#ifndef KNIT_VK_TUNING_H
#define KNIT_VK_TUNING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct knit_vk_caps;

#define KNIT_VK_NEVER UINT32_MAX /* of a number of rows from which on something is done */

/* Kernels read it in knit_vk_caps. It stays the same as long as there are programs on the device. */
typedef struct knit_vk_tuning {
	uint32_t matvec_width;      /* invocations of a group; one number for any rows of x, so that sums have one order */
	uint32_t matvec_columns[3]; /* rows of w of a group, where it takes 1, up to 4, up to 8 rows of x: 1, 2 or 4 */
	uint32_t matvec_rows;       /* rows of x in a bucket up to which matrix-vector forms are used; beyond it tiles */
	uint32_t middle_tile_rows;  /* rows of x in a bucket from which tiles take 64 at once, below it 32 */
	uint32_t large_tile_rows;   /* and from which they take 128 */
	uint32_t dot_rows;          /* rows from which tiles meet weights in blocks as 8-bit integers, if there are such */
	uint32_t attention_chunk;   /* positions that a group of a split attention takes, at least; a multiple of 32 */
	uint32_t attention_quads;   /* vectors of queries, and as many of sums, that an invocation holds; at most 16 */
} knit_vk_tuning;

/* The table: what a device of this class (knit_vk_class) begins with; an unknown class counts as integrated. */
const knit_vk_tuning *knit__vk_tuning_of(int device_class);

#define KNIT_VK_MAX_CANDIDATES 4
/* One number of a knit_vk_tuning, in the order in which they are measured. */
typedef struct knit_vk_choice {
	const char *name; /* "matvec_columns_4": also its name in the file */
	size_t offset;    /* of its uint32_t */
	bool fixed;       /* follows from the class alone: never measured */
	uint32_t count, candidates[KNIT_VK_MAX_CANDIDATES]; /* with the table's values among them */
} knit_vk_choice;

extern const knit_vk_choice knit__vk_choices[];
extern const uint32_t knit__vk_choice_count;

uint32_t knit__vk_tuning_get(const knit_vk_tuning *t, const knit_vk_choice *c);
void knit__vk_tuning_set(knit_vk_tuning *t, const knit_vk_choice *c, uint32_t value);
/* Whether it is the table's value, or one of the candidates that the device's limits allow. */
bool knit__vk_candidate_fits(const struct knit_vk_caps *caps, const knit_vk_choice *c, uint32_t value);
/* Whether all of them are so. */
bool knit__vk_tuning_fits(const struct knit_vk_caps *caps, const knit_vk_tuning *t);

#endif
