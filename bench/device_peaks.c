/* What a device other than the host's processor can do at best, by its backend's own loops, and what a step costs on any device. */
#include "clock.h"
#include "rows.h"

#include "../graph/base.h"

#include <stdio.h>

void bench_device_peaks(const char *device, knit_device_peaks *out, char why[200]) {
	knit_context *ctx;
	knit_diag diag = {0};

	*out = (knit_device_peaks){0};
	snprintf(why, 200, "out of memory");
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return;
	const knit_status status = knit__device_peaks(ctx, device, out, &diag);
	knit_context_destroy(ctx);
	snprintf(why, 200, "%.199s", status == KNIT_OK ? "" : diag.text);
}

/* ---- what a step costs that does nothing ------------------------------------------------------------------------- */

enum { FEW_STEPS = 1, MANY_STEPS = 65, LATENCY_RUNS = 60 };

/* Best seconds of a run of so many tiny steps, each waiting for the one before; 0: it does not run. */
static double chain_seconds(knit_context *ctx, const char *device, int steps) {
	knit_program *program = NULL;
	knit_session *session = NULL;
	knit_graph *g;
	knit_diag diag;
	const float input[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	double best = 0;

	if (knit_graph_create(ctx, &g) != KNIT_OK)
		return 0;
	knit_tensor x = knit_input(g, "x", KNIT_F32, 2, (knit_dim[]){{1}, {8}});
	for (int i = 0; i < steps; ++i)
		x = knit_softmax(g, x); /* nothing fuses it */
	knit_output(g, "y", x);
	const knit_compile_desc desc = {.device = device};
	const knit_status status = knit_compile(g, &desc, &program, &diag);
	knit_graph_destroy(g);
	if (status != KNIT_OK)
		return 0;
	if (knit_session_create(program, &session, &diag) == KNIT_OK && knit_session_write(session, "x", input, sizeof input) == KNIT_OK)
		for (int i = 0; i < LATENCY_RUNS; ++i) {
			const double begin = bench_now();
			if (knit_session_run(session) != KNIT_OK)
				break;
			const double seconds = bench_now() - begin;
			best = i == 0 || seconds < best ? seconds : best;
		}
	knit_session_destroy(session);
	knit_program_release(program);
	return best;
}

void bench_device_latency(const char *device, uint32_t threads, double *submit, double *step) {
	const knit_context_desc host = {.cpu_threads = threads};
	knit_context *ctx;

	*submit = *step = 0;
	if (knit_context_create(&host, &ctx) != KNIT_OK)
		return;
	const double few = chain_seconds(ctx, device, FEW_STEPS), many = chain_seconds(ctx, device, MANY_STEPS);
	if (few > 0 && many > few) {
		*step = (many - few) / (MANY_STEPS - FEW_STEPS);
		*submit = few > *step ? few - *step : 0;
	}
	knit_context_destroy(ctx);
}
