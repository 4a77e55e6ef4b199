/* What it brings that quantised weights lie in panels: chains of linears, compiled once as they are and once with the pass
 * `layout` switched off, run in turn. Prints Markdown rows.
 *
 *   bench-packing [SECONDS [TOKENS]]      KNIT_CPU_ISA=avx2 bench-packing
 *
 * Each row has the medians over pairs of runs, the quartiles of their ratios, and the ratio of the two fastest runs, which a
 * busy machine disturbs least: above 1 panels are faster. */
#include "side.h"

#include <string.h>

enum { MAX_PAIRS = SIDE_MOST_RUNS, MAX_TOKENS = 512 };

static void *must(void *p) {
	if (p)
		return p;
	fputs("packing: no memory\n", stderr);
	exit(1);
}

/* `layers` times [width, width], [ff, width] and [width, ff], and [vocab, width] at last; without ff and vocab, where they are 0. */
typedef struct shape { const char *name; int64_t width, ff, vocab; int layers; } shape;

/* Blocks with random contents and one scale, a power of two that keeps the size of what goes through n columns. */
static void add_matrix(knit_weights *store, knit_dtype type, int64_t rows, int64_t n, uint64_t *state, const char *kind,
                       int layer) {
	const size_t block = type == KNIT_Q8_0 ? 34 : 18, bytes = (size_t)(rows * n / 32) * block;
	const double spread = type == KNIT_Q8_0 ? 73.9 : 4.6;
	unsigned char *const data = must(malloc(bytes));
	char name[32];
	int exponent = 0;

	while (spread * spread * (double)n / (double)(UINT64_C(1) << 2 * exponent) > 1.5)
		++exponent;
	for (size_t at = 0; at < bytes; at += block) {
		const uint16_t scale = (uint16_t)((15 - exponent) << 10);

		memcpy(data + at, &scale, 2);
		for (size_t i = 2; i < block; ++i)
			data[at + i] = (unsigned char)(next(state) >> 32);
	}
	snprintf(name, sizeof name, "%s.%d", kind, layer);
	check(knit_weights_add(store, name, type, 2, (int64_t[]){rows, n}, data, bytes, &diag));
	free(data);
}

static knit_graph *build(knit_context *ctx, knit_weights *store, const shape *s, int64_t tokens) {
	knit_graph *g;

	check(knit_graph_create(ctx, &g));
	const knit_dim dims[] = {knit_n(tokens), knit_n(s->width)};
	knit_tensor x = knit_input(g, "x", KNIT_F32, 2, dims);
	for (int l = 0; l < s->layers; ++l) {
		x = knit_linear(g, x, knit_weight(g, store, "w.%d", l));
		if (s->ff)
			x = knit_linear(g, knit_linear(g, x, knit_weight(g, store, "up.%d", l)), knit_weight(g, store, "down.%d", l));
	}
	if (s->vocab)
		x = knit_linear(g, x, knit_weight(g, store, "head.0"));
	knit_output(g, "y", x);
	check(knit_graph_status(g, &diag));
	return g;
}

static void measure(knit_context *ctx, knit_weights *store, knit_dtype type, const shape *s, int64_t tokens,
                    double seconds) {
	const int64_t n = s->width;
	static double ratio[MAX_PAIRS];
	static float x[MAX_TOKENS * 4096];
	static side plain, panels;
	int count = 0;

	fill_input(x, tokens * n);
	knit_graph *const g = build(ctx, store, s, tokens);
	side_open(&plain, g, "layout", x, (size_t)(tokens * n) * 4);
	side_open(&panels, g, NULL, x, (size_t)(tokens * n) * 4);
	side_run(&plain), side_run(&panels);
	for (const double end = bench_now() + seconds; count < MAX_PAIRS && (count < 5 || bench_now() < end); ++count) {
		/* who goes first changes */
		if (count % 2)
			panels.seconds[count] = side_run(&panels);
		plain.seconds[count] = side_run(&plain);
		if (count % 2 == 0)
			panels.seconds[count] = side_run(&panels);
		ratio[count] = plain.seconds[count] / panels.seconds[count];
	}
	side_close(&plain), side_close(&panels);
	knit_graph_destroy(g);
	bench_sort(ratio, (size_t)count);
	bench_sort(plain.seconds, (size_t)count);
	bench_sort(panels.seconds, (size_t)count);
	printf("| %s | %s | %lld | %.3f | %.3f | **%.2f** | %.2f .. %.2f | %d | %.2f |\n", knit_dtype_name(type), s->name,
	       (long long)tokens, plain.seconds[count / 2] * 1e3, panels.seconds[count / 2] * 1e3, ratio[count / 2],
	       ratio[count / 4], ratio[count * 3 / 4], count, plain.seconds[0] / panels.seconds[0]);
	fflush(stdout);
}

static void measure_shape(knit_dtype type, const shape *s, double seconds, int64_t only_tokens) {
	static const int64_t tokens[] = {1, 2, 4, 8, 16, 64, 512};
	uint64_t state = 99;
	knit_context *ctx;
	knit_weights *store;

	check(knit_context_create(NULL, &ctx));
	check(knit_weights_create(ctx, &store));
	for (int l = 0; l < s->layers; ++l) {
		add_matrix(store, type, s->width, s->width, &state, "w", l);
		if (s->ff) {
			add_matrix(store, type, s->ff, s->width, &state, "up", l);
			add_matrix(store, type, s->width, s->ff, &state, "down", l);
		}
	}
	if (s->vocab)
		add_matrix(store, type, s->vocab, s->width, &state, "head", 0);
	for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; ++i)
		if (only_tokens == 0 || tokens[i] == only_tokens)
			measure(ctx, store, type, s, tokens[i], seconds);
	knit_weights_release(store);
	knit_context_destroy(ctx);
}

int main(int argc, char **argv) {
	/* The linears of a small decoder; out of every cache; in the last; in the second; a width that is no multiple of 64. */
	static const shape shapes[] = {{"30 layers of 576, 1536, head of 49152", 576, 1536, 49152, 30},
	                               {"6 x 4096 x 4096", 4096, 0, 0, 6},
	                               {"4 x 2048 x 2048", 2048, 0, 0, 4},
	                               {"4 x 512 x 512", 512, 0, 0, 4},
	                               {"8 x 288 x 288", 288, 0, 0, 8}};
	const double seconds = argc > 1 ? atof(argv[1]) : 1;
	const int64_t only_tokens = argc > 2 ? atoi(argv[2]) : 0;

	puts("| weights | matrices | tokens | plain, ms | panels, ms | plain / panels | quartiles | pairs | fastest |\n"
	     "|---|---|---|---|---|---|---|---|---|");
	for (int type = KNIT_Q8_0; type <= KNIT_Q4_0; ++type)
		for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i)
			measure_shape((knit_dtype)type, &shapes[i], seconds, only_tokens);
	return 0;
}
