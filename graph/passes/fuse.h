/* Owns the replacing of several nodes by one: what is legal for every fusion is decided here, once. Knows no pattern.
 */
#ifndef KNIT_FUSE_H
#define KNIT_FUSE_H

#include "../pass.h"

#define KNIT_FUSE_PARTS 12

/* One node for several. Its outputs are values that the parts write now, so every use of them stays as it is; the
 * parts' other outputs go, and must have no use outside the parts. */
typedef struct knit_fusion {
	uint16_t op;
	uint8_t in_count, out_count, part_count;
	uint32_t in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	uint32_t part[KNIT_FUSE_PARTS]; /* in the order in which they are named */
	uint32_t main;                  /* the part whose origin the node takes over */
	knit_attr attr[KNIT_MAX_ATTRS];
} knit_fusion;

typedef struct knit_fuser {
	knit_graph *g;
	const knit_target *target; /* NULL: everything is accepted */
	uint32_t *uses;            /* per value, as counted by knit__count_uses */
	uint32_t *place;           /* per node: its place in the order + 1, 0 for a removed one */
	uint32_t uses_cap, place_cap;
	uint32_t changes;
	knit_status status; /* of the first failure */
} knit_fuser;

bool knit__fuser_open(knit_fuser *f, knit_graph *g, const knit_target *target);
/* Adds to *changes; the status of the whole. */
knit_status knit__fuser_close(knit_fuser *f, uint32_t *changes, knit_diag *d);

/* The node that writes `value` itself (no view of it) by that op; 0 if there is none. */
uint32_t knit__fuse_writer(const knit_fuser *f, uint32_t value, uint16_t op);
/* Exactly one operand or output port names it, and no view on it. */
static inline bool knit__fuse_used_once(const knit_fuser *f, uint32_t value) {
	return f->uses[value] == 1;
}

/* Makes the fused node and removes the parts, if that keeps the meaning and the target has a kernel for it; false, with
 * nothing changed, otherwise. It takes the last place among its parts' at which everything that it reads is there and
 * everything that reads it is still to come. Refused: an intermediate result that is used elsewhere, an output or a
 * version of a state; operands that do not fit; a read of a state that would move behind the next write to it. */
bool knit__fuse(knit_fuser *f, const knit_fusion *fusion);

/* Tries `rule` at each node, in order or from the end, until no node gives anything more, so that a pass run again finds
 * nothing to do. */
typedef enum knit_fuse_direction { KNIT_FUSE_FORWARDS, KNIT_FUSE_BACKWARDS } knit_fuse_direction;
void knit__fuse_everywhere(knit_fuser *f, knit_fuse_direction direction, bool (*rule)(knit_fuser *f, uint32_t node));

#endif
