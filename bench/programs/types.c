/* Weights of every block type through the same linears, the types in turn: bytes of weights read per second, as a ratio to
 * q4_0's. Prints Markdown rows.
 *
 *   bench-types [SECONDS [TOKENS]]      KNIT_CPU_ISA=avx2 bench-types
 *
 * The first row is q4_0 packed in panels, the layout that a linear gets; rows without it lie as they do in the file. */
#include "side.h"

#include <string.h>

enum { MAX_ROUNDS = SIDE_MOST_RUNS, MAX_TOKENS = 512, TYPES = 7 };

static const struct {
	const char *name, *disable;
	knit_dtype type;
	int64_t elements, bytes, scales_at, scales; /* of a block; where its f16 scales stand */
} types[TYPES] = {{"q4_0 in panels", NULL, KNIT_Q4_0, 32, 18, 0, 1},
                  {"q4_0", "layout", KNIT_Q4_0, 32, 18, 0, 1},
                  {"q4_K in panels", NULL, KNIT_Q4_K, 256, 144, 0, 2},
                  {"q4_K", "layout", KNIT_Q4_K, 256, 144, 0, 2},
                  {"q6_K in panels", NULL, KNIT_Q6_K, 256, 210, 208, 1},
                  {"q6_K", "layout", KNIT_Q6_K, 256, 210, 208, 1},
                  {"q8_0", "layout", KNIT_Q8_0, 32, 34, 0, 1}};

typedef struct type_side {
	knit_weights *store;
	knit_graph *graph;
	side side;
} type_side;

/* Random bits with scales of 2^-10: sums stay far from overflow through one matrix, and each reads the input anew. */
static void type_open(type_side *s, int t, knit_context *ctx, int64_t n, int matrices, int64_t tokens, const float *x) {
	const int64_t bytes = n * n / types[t].elements * types[t].bytes;
	const knit_dim dims[] = {knit_n(tokens), knit_n(n)};
	unsigned char *const data = malloc((size_t)bytes);
	const uint16_t scale = (15 - 10) << 10;
	uint64_t state = 99;
	knit_tensor sum = {0};

	if (!data)
		exit(1);
	check(knit_weights_create(ctx, &s->store));
	for (int m = 0; m < matrices; ++m) {
		char name[32];

		for (int64_t i = 0; i < bytes; ++i)
			data[i] = (unsigned char)(next(&state) >> 32);
		for (int64_t at = types[t].scales_at; at < bytes; at += types[t].bytes)
			for (int64_t i = 0; i < types[t].scales; ++i)
				memcpy(data + at + 2 * i, &scale, 2);
		snprintf(name, sizeof name, "w.%d", m);
		check(knit_weights_add(s->store, name, types[t].type, 2, (int64_t[]){n, n}, data, (size_t)bytes, &diag));
	}
	free(data);
	check(knit_graph_create(ctx, &s->graph));
	const knit_tensor in = knit_input(s->graph, "x", KNIT_F32, 2, dims);
	for (int m = 0; m < matrices; ++m) {
		const knit_tensor y = knit_linear(s->graph, in, knit_weight(s->graph, s->store, "w.%d", m));

		sum = m ? knit_add(s->graph, sum, y) : y;
	}
	knit_output(s->graph, "y", sum);
	check(knit_graph_status(s->graph, &diag));
	side_open(&s->side, s->graph, types[t].disable, x, (size_t)(tokens * n) * 4);
}

static void type_close(type_side *s) {
	side_close(&s->side);
	knit_graph_destroy(s->graph);
	knit_weights_release(s->store);
}

static void measure(int64_t n, int matrices, int64_t tokens, double seconds) {
	static type_side sides[TYPES];
	static float x[MAX_TOKENS * 4096];
	knit_context *ctx;
	double base = 0, base_elements = 0;
	int rounds = 0;

	fill_input(x, tokens * n);
	check(knit_context_create(NULL, &ctx));
	for (int t = 0; t < TYPES; ++t)
		type_open(&sides[t], t, ctx, n, matrices, tokens, x);
	for (int t = 0; t < TYPES; ++t)
		side_run(&sides[t].side);
	for (const double end = bench_now() + seconds; rounds < MAX_ROUNDS && (rounds < 5 || bench_now() < end); ++rounds)
		for (int i = 0; i < TYPES; ++i) {
			const int t = (i + rounds) % TYPES; /* who goes first changes */

			sides[t].side.seconds[rounds] = side_run(&sides[t].side);
		}
	for (int t = 0; t < TYPES; ++t) {
		const double elements = (double)(n * n * matrices), bytes = elements / (double)types[t].elements * (double)types[t].bytes;

		bench_sort(sides[t].side.seconds, (size_t)rounds);
		const double median = sides[t].side.seconds[rounds / 2], best = sides[t].side.seconds[0];
		if (t == 0) {
			base = bytes / median;
			base_elements = elements / median;
		}
		printf("| %s | %d x %lld x %lld | %lld | %.3f | %.2f | %.2f | **%.2f** | %.2f |\n", types[t].name, matrices,
		       (long long)n, (long long)n, (long long)tokens, median * 1e3, bytes / median * 1e-9, bytes / best * 1e-9,
		       bytes / median / base, elements / median / base_elements);
		type_close(&sides[t]);
	}
	fflush(stdout);
	knit_context_destroy(ctx);
}

int main(int argc, char **argv) {
	const double seconds = argc > 1 ? atof(argv[1]) : 2;
	const int64_t tokens = argc > 2 ? atoi(argv[2]) : 1;

	if (tokens < 1 || tokens > MAX_TOKENS)
		return 2;
	puts("| type | matrices | tokens | ms | GB/s | fastest, GB/s | bytes/s to q4_0's | weights/s to q4_0's |\n"
	     "|---|---|---|---|---|---|---|---|");
	/* out of every cache; in the last; in the second */
	measure(4096, 6, tokens, seconds);
	measure(2048, 4, tokens, seconds);
	measure(768, 2, tokens, seconds);
	return 0;
}
