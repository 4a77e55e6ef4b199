/* A graph that is no language model: a two-layer perceptron on data made in code. Its weights are set by hand so that it
 * answers exclusive or, and the program checks its own output against the truth table and against plain C. */
#include "knit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { IN = 2, HIDDEN = 8, OUT = 2, MAX_ROWS = 64 };

static knit_diag diag;

static void check(knit_status status) {
	if (status == KNIT_OK)
		return;
	fprintf(stderr, "mlp: %s: %s\n", knit_status_name(status), diag.text);
	exit(1);
}

/* hidden = gelu(x W1^T + b1). Units 0..3 look at x0 + x1 and x0 - x1 from both sides; the rest are small noise that a
 * trained network would have too. */
static float w1[HIDDEN][IN] = {{8, 8}, {-8, -8}, {8, -8}, {-8, 8}, {0.1f, 0.2f}, {-0.2f, 0.1f}, {0.05f, -0.1f}, {0.1f, 0}};
static float b1[HIDDEN] = {0, 0, 0, 0, 0.01f, -0.01f, 0.02f, 0};
/* Class 0: equal signs (|x0 + x1| is large); class 1: different signs (|x0 - x1| is large). */
static float w2[OUT][HIDDEN] = {{1, 1, -1, -1, 0.01f, 0, 0, 0.02f}, {-1, -1, 1, 1, 0, 0.01f, 0.02f, 0}};
static float b2[OUT] = {0, 0};

static void reference(const float x[IN], float p[OUT]) {
	double hidden[HIDDEN], y[OUT], sum = 0;
	for (int h = 0; h < HIDDEN; ++h) {
		const double a = (double)w1[h][0] * x[0] + (double)w1[h][1] * x[1] + b1[h];
		hidden[h] = 0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)));
	}
	for (int o = 0; o < OUT; ++o) {
		y[o] = b2[o];
		for (int h = 0; h < HIDDEN; ++h)
			y[o] += w2[o][h] * hidden[h];
		sum += exp(y[o]);
	}
	for (int o = 0; o < OUT; ++o)
		p[o] = (float)(exp(y[o]) / sum);
}

static knit_graph *build(knit_context *ctx, knit_weights *store) {
	knit_graph *g;
	check(knit_graph_create(ctx, &g));
	const knit_dim dims[] = {knit_sym(g, "rows", 1, MAX_ROWS), knit_n(IN)};
	knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	x = knit_gelu(g, knit_add(g, knit_linear(g, x, knit_weight(g, store, "w1")), knit_weight(g, store, "b1")));
	x = knit_add(g, knit_linear(g, x, knit_weight(g, store, "w2")), knit_weight(g, store, "b2"));
	knit_output(g, "class", knit_argmax(g, x));
	knit_output(g, "p", knit_softmax(g, x));
	check(knit_graph_status(g, &diag));
	return g;
}

int main(void) {
	static float x[MAX_ROWS][IN], p[MAX_ROWS][OUT];
	static int32_t class[MAX_ROWS];
	const int rows = 50;
	knit_context *ctx;
	knit_weights *store;
	knit_program *program;
	knit_session *run;
	double worst = 0;
	int wrong = 0;

	check(knit_context_create(NULL, &ctx));
	check(knit_weights_create(ctx, &store));
	check(knit_weights_add(store, "w1", KNIT_F32, 2, (int64_t[]){HIDDEN, IN}, w1, sizeof w1, &diag));
	check(knit_weights_add(store, "b1", KNIT_F32, 1, (int64_t[]){HIDDEN}, b1, sizeof b1, &diag));
	check(knit_weights_add(store, "w2", KNIT_F32, 2, (int64_t[]){OUT, HIDDEN}, w2, sizeof w2, &diag));
	check(knit_weights_add(store, "b2", KNIT_F32, 1, (int64_t[]){OUT}, b2, sizeof b2, &diag));
	knit_graph *g = build(ctx, store);
	check(knit_compile(g, &(knit_compile_desc){.device = "cpu"}, &program, &diag));
	knit_graph_destroy(g); /* the program keeps what it needs */
	check(knit_session_create(program, &run, &diag));

	for (int r = 0; r < rows; ++r) { /* points around the four corners (+-1, +-1) */
		x[r][0] = (r & 1 ? 1.0f : -1.0f) + 0.3f * sinf((float)r);
		x[r][1] = (r & 2 ? 1.0f : -1.0f) + 0.3f * cosf((float)(3 * r));
	}
	check(knit_session_set(run, "rows", rows));
	check(knit_session_write(run, "x", x, (size_t)rows * sizeof *x));
	check(knit_session_run(run));
	check(knit_session_read(run, "class", class, (size_t)rows * sizeof *class));
	check(knit_session_read(run, "p", p, (size_t)rows * sizeof *p));

	for (int r = 0; r < rows; ++r) {
		float want[OUT];
		reference(x[r], want);
		wrong += class[r] != (x[r][0] * x[r][1] < 0);
		for (int o = 0; o < OUT; ++o)
			worst = fmax(worst, fabs((double)p[r][o] - (double)want[o]));
	}
	printf("%d points, %d in the wrong class, probabilities off by at most %.1e\n", rows, wrong, worst);
	knit_session_destroy(run);
	knit_program_release(program);
	knit_weights_release(store);
	knit_context_destroy(ctx);
	return wrong != 0 || !(worst < 1e-5);
}
