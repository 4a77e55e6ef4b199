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
#define DONE_MIN_BYTES (UINT64_C(1) << 18)

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
	int64_t unit; /* panels */
} packing;

static void pack_panels(void *arg, uint32_t phase, int64_t begin, int64_t end, uint32_t thread) {
	const packing *const p = arg;
	const int64_t rows = p->weight->dims[0], columns = p->weight->dims[1];
	const uint64_t row_bytes = (uint64_t)knit__bytes_of(p->weight->dtype, columns);

	(void)phase, (void)thread;
	for (int64_t unit = begin; unit < end; ++unit) {
		const int64_t first = unit * p->unit * KNIT_PANEL_ROWS;
		const int64_t last = rows - first < p->unit * KNIT_PANEL_ROWS ? rows : first + p->unit * KNIT_PANEL_ROWS;

		p->pack(p->weight->dtype, rows, columns, p->from, p->to, unit * p->unit, knit__ceil_div(last, KNIT_PANEL_ROWS));
		if (p->done)
			p->done(p->from + (uint64_t)first * row_bytes, (uint64_t)(last - first) * row_bytes);
	}
}

/* Units of at most DONE_BYTES, four for each thread where there is enough. What is smaller than DONE_MIN_BYTES waits for the whole
 * weight: giving back stops the other threads. */
static void divide(packing *p, uint32_t threads) {
	const uint64_t panel = (uint64_t)knit__bytes_of(p->weight->dtype, p->weight->dims[1]) * KNIT_PANEL_ROWS;
	const int64_t panels = knit__ceil_div(p->weight->dims[0], KNIT_PANEL_ROWS), share = panels / ((int64_t)threads * 4);
	const int64_t most = 1 + (int64_t)(DONE_BYTES / panel);

	p->unit = share < 1 ? 1 : share < most ? share : most;
	if ((uint64_t)p->unit * panel < DONE_MIN_BYTES)
		p->done = NULL;
}

knit_status knit__cpu_pack(knit_device *dev, uint8_t layout, const knit_shape *weight, const void *host,
                           void (*done)(const void *data, uint64_t bytes), knit_buffer *out) {
	packing p = {weight, host, out->data, done, knit__panels_pack, 0};

	if (out->imported || knit__cpu_packed_bytes(dev, layout, weight) > out->bytes)
		return KNIT_ERR_ARGUMENT;
#if defined(__x86_64__)
	if (dev->isa >= KNIT_CPU_AVX2)
		p.pack = knit__panels_pack_avx2;
#endif
	divide(&p, dev->threads);
	const knit_pool_job job = {.run = pack_panels, .arg = &p, .phases = 1,
	                           .units = {knit__ceil_div(knit__ceil_div(weight->dims[0], KNIT_PANEL_ROWS), p.unit)}};
	knit__pool_run(dev->pool, &job);
	return KNIT_OK;
}
