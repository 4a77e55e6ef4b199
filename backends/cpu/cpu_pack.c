/* Owns the layouts of weights on the CPU: which weights lie otherwise than in their file, how large they are then, and
 * the packing over the pool. Knows one layout, panels (kernels/panels.h); the kernels say who reads it. */
#include "cpu.h"
#include "kernels/panels.h"

/* Padding that a layout may cost, as a part of the weight's bytes: more would eat up what panels bring where the weight
 * comes from memory. */
#define MAX_PADDING (1.0 / 8)

/* Ops that spend their time on the weight, for which panels pay at every size and number of tokens: the plain layout takes
 * 1.1 to 1.3 times as long for one token where the weight comes from memory, 1.1 to 2.8 from a cache, 1.5 to 3.4 for 64
 * tokens and more (bench/results/packing.md). An embedding that is only looked up stays as it is. */
static bool gains(const knit_weight_use *use) {
	switch (use->op) {
	case KNIT_OP_LINEAR:
	case KNIT_OP_LINEAR_LORA:
	case KNIT_OP_LINEAR_GROUP:
	case KNIT_OP_GLU:
		return true;
	default:
		return false;
	}
}

uint8_t knit__cpu_weight_layout(const knit_device *dev, const knit_shape *weight, const knit_weight_use *uses,
                                uint32_t count) {
	bool any = false;

	if (dev->isa < KNIT_CPU_AVX2 || weight->rank != 2 || !knit__is_block(weight->dtype) || weight->dims[0] == 0 ||
	    weight->dims[1] == 0)
		return 0;
	for (uint32_t i = 0; i < count; ++i)
		any |= gains(&uses[i]);
	const uint64_t packed = knit__panels_bytes(weight->dtype, weight->dims[0], weight->dims[1]);
	const double plain = (double)knit__bytes_of(weight->dtype, weight->dims[1]) * (double)weight->dims[0];

	return any && packed != UINT64_MAX && (double)packed - plain <= plain * MAX_PADDING ? KNIT_CPU_PANELS : 0;
}

uint64_t knit__cpu_packed_bytes(const knit_device *dev, uint8_t layout, const knit_shape *weight) {
	(void)dev;
	if (layout != KNIT_CPU_PANELS || weight->rank != 2 || !knit__is_block(weight->dtype))
		return UINT64_MAX;
	return knit__panels_bytes(weight->dtype, weight->dims[0], weight->dims[1]);
}

typedef struct packing {
	const knit_shape *weight;
	const char *from;
	char *to;
} packing;

static void pack_panels(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const packing *const p = arg;

	(void)phase, (void)thread;
	knit__panels_pack(p->weight->dtype, p->weight->dims[0], p->weight->dims[1], p->from, p->to, begin, end);
}

knit_status knit__cpu_pack(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
                           knit_buffer *out) {
	packing p = {weight, host, out->data};
	const knit_pool_job job = {
		.run = pack_panels, .arg = &p, .phases = 1, .units = {knit__ceil_div(weight->dims[0], KNIT_PANEL_ROWS)}};

	if (out->imported || knit__cpu_packed_bytes(dev, layout, weight) > out->bytes)
		return KNIT_ERR_ARGUMENT;
	knit__pool_run(dev->pool, &job);
	return KNIT_OK;
}
