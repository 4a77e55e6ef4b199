/* Owns the layouts of weights on the CPU: which weights lie otherwise than in their file, how large they are then, and
 * the packing over the pool. Knows one layout, panels (kernels/panels.h); the kernels say who reads it. */
#include "cpu.h"
#include "kernels/panels.h"

/* Padding that a layout may cost, as a part of the weight's bytes: more would eat up what panels bring where the weight
 * comes from memory. */
#define MAX_PADDING (1.0 / 8)

/* Of the file, read and not given back yet by a thread that packs: few enough not to be noticed beside the weights, enough to make
 * the call worth its while. */
#define DONE_BYTES (UINT64_C(1) << 20)

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

	if (dev->isa == KNIT_CPU_PLAIN || weight->rank != 2 || !knit__is_block(weight->dtype) || weight->dims[0] == 0 ||
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
	void (*done)(const void *data, uint64_t bytes); /* may be NULL */
	void (*pack)(knit_dtype t, int64_t rows, int64_t columns, const char *src, char *out, int64_t begin, int64_t end);
} packing;

static void pack_panels(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const packing *const p = arg;

	const int64_t rows = p->weight->dims[0], columns = p->weight->dims[1];
	const uint64_t row_bytes = knit__bytes_of(p->weight->dtype, columns);
	const int64_t some = 1 + (int64_t)(DONE_BYTES / (row_bytes * KNIT_PANEL_ROWS));

	(void)phase, (void)thread;
	for (int64_t at = begin; at < end; at += some) {
		const int64_t stop = end - at < some ? end : at + some, first = at * KNIT_PANEL_ROWS;
		const int64_t last = stop * KNIT_PANEL_ROWS < rows ? stop * KNIT_PANEL_ROWS : rows;

		p->pack(p->weight->dtype, rows, columns, p->from, p->to, at, stop);
		if (p->done && stop - at == some) /* what is left over waits for the whole weight: each call stops the other threads */
			p->done(p->from + (uint64_t)first * row_bytes, (uint64_t)(last - first) * row_bytes);
	}
}

knit_status knit__cpu_pack(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
                           void (*done)(const void *data, uint64_t bytes), knit_buffer *out) {
	packing p = {weight, host, out->data, done, knit__panels_pack};
	const knit_pool_job job = {
		.run = pack_panels, .arg = &p, .phases = 1, .units = {knit__ceil_div(weight->dims[0], KNIT_PANEL_ROWS)}};

	if (out->imported || knit__cpu_packed_bytes(dev, layout, weight) > out->bytes)
		return KNIT_ERR_ARGUMENT;
#if defined(__x86_64__)
	if (dev->isa >= KNIT_CPU_AVX2)
		p.pack = knit__panels_pack_avx2;
#endif
	knit__pool_run(dev->pool, &job);
	return KNIT_OK;
}
