/* What a device other than the host's processor reads at best, and what a step costs on any device. Reading: a program that only looks for the largest numbers of some
 * large states, so that nearly all of its time is reading them. Made of knit's own op, so it is a lower bound of what the
 * device can do. */
#include "clock.h"
#include "rows.h"

#include "../graph/base.h"

#include <inttypes.h>
#include <stdlib.h>

enum { COLUMNS = 1024, STATES = 8, RUNS = 12 };

static knit_status compile(knit_context *ctx, const char *device, int64_t rows, int states, knit_program **out,
                           knit_diag *diag) {
	knit_graph *g;
	knit_status status = knit_graph_create(ctx, &g);

	if (status != KNIT_OK)
		return status;
	for (int i = 0; i < states; ++i) {
		char name[16];
		const knit_state s = knit_state_define(g, KNIT_F32, 3, (knit_dim[]){{1}, {rows}, {COLUMNS}}, "s%d", i);
		const knit_tensor x = knit_reshape(g, knit_state_read(g, s), 2, (knit_dim[]){{rows}, {COLUMNS}});
		snprintf(name, sizeof name, "y%d", i);
		knit_output(g, name, knit_argmax(g, x));
	}
	const knit_compile_desc desc = {.device = device};
	status = knit_compile(g, &desc, out, diag);
	knit_graph_destroy(g);
	return status;
}

/* Bytes per second, the best of some runs; 0: it does not run. */
static double measure(knit_context *ctx, const char *device, int64_t rows, int states) {
	knit_program *program = NULL;
	knit_session *session = NULL;
	knit_diag diag;
	double best = 0;

	if (compile(ctx, device, rows, states, &program, &diag) != KNIT_OK)
		return 0;
	if (knit_session_create(program, &session, &diag) == KNIT_OK)
		for (int i = 0; i < RUNS; ++i) {
			const double begin = bench_now();
			if (knit_session_run(session) != KNIT_OK)
				break;
			const double rate = (double)rows * COLUMNS * 4 * states / (bench_now() - begin);
			best = rate > best ? rate : best;
		}
	knit_session_destroy(session);
	knit_program_release(program);
	return best;
}

double bench_device_read_gbps(const char *device) {
	/* The first that the device has room for: 2 GiB, 512 MiB, 128 MiB. */
	static const struct { int64_t rows; int states; } sizes[] = {{65536, STATES}, {16384, STATES}, {16384, 2}};
	knit_context *ctx;
	double best = 0;

	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && best == 0; ++i)
		best = measure(ctx, device, sizes[i].rows, sizes[i].states);
	knit_context_destroy(ctx);
	return best * 1e-9;
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
