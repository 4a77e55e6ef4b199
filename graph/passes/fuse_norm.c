/* Fuses an add into the rms_norm of its sum, where the sum goes on to other readers (a residual stream). A sum that
 * only the norm reads stays: the fused step would write it for nobody. */
#include "fuse.h"

static bool rule(knit_fuser *f, uint32_t node) {
	const knit_graph *g = f->g;
	const knit_node *n = &g->nodes[node];

	if (n->op != KNIT_OP_RMS_NORM)
		return false;
	const uint32_t add = knit__fuse_writer(f, n->in[0], KNIT_OP_ADD);
	if (!add || knit__fuse_used_once(f, n->in[0]))
		return false;

	const knit_fusion u = {.op = KNIT_OP_ADD_RMS_NORM,
						   .main = node,
						   .in = {g->nodes[add].in[0], g->nodes[add].in[1], n->in[1]},
						   .in_count = 3,
						   .out = {n->in[0], n->out[0]},
						   .out_count = 2,
						   .part = {add, node},
						   .part_count = 2,
						   .attr = {n->attr[0]}};

	return knit__fuse(f, &u);
}

knit_status knit__pass_fuse_norm(knit_graph *g, const knit_target *t, uint32_t *changes, knit_diag *d) {
	knit_fuser f;

	if (knit__fuser_open(&f, g, t))
		knit__fuse_everywhere(&f, KNIT_FUSE_FORWARDS, rule);
	return knit__fuser_close(&f, changes, d);
}
