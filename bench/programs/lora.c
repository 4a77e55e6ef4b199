/* What a LoRA costs per token of decode: a looped model made of random weights, with a LoRA on all seven projections of every
 * visit against the same visits without, over the same base weights, in alternating runs. */
#include "../../backends/program.h"
#include "../../frontends/models/decoder.h"
#include "../rows.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { VOCAB = 512, MAX_PAIRS = 1 << 16 };

static const char help[] =
	"bench-lora: time of a decoded token with a LoRA on every projection of every visit, against the same visits without.\n\n"
	"  bench-lora                                 dim 2048, 10 layers x 3, q8_0, rank 16\n"
	"  bench-lora --type f16 --pairs 100          other weights, more pairs\n"
	"  bench-lora --dim 576 --ffn 1536 --heads 9 --kv-heads 3\n"
	"  bench-lora --steps                         where the time goes, by op\n\n"
	"Both decoders share the base weights. A pair is a few tokens of each, the order changing from pair to pair; printed are\n"
	"the medians, and the median of the ratios of pairs with its interval of 95 % (by bootstrap). Weights\n"
	"are random, the vocabulary is small: the head would only dilute what is measured.\n\n"
	"      --dim N --ffn N --heads N --kv-heads N     (2048, 5632, 32, 4)\n"
	"      --layers N --loops N                       (10, 3)\n"
	"      --rank N         of the LoRA (16)\n"
	"      --type T         of base weights: f32, f16, bf16, q8_0, q4_0 (q8_0)\n"
	"      --lora-type T    of the LoRA: f32, f16, bf16 (f16)\n"
	"      --threads N      (all cores)\n"
	"      --pairs N        (40)\n"
	"      --tokens N       of each in a pair (2)\n"
	"      --cpu-time       processor time of one thread instead of the time that passes: for a machine that is busy\n"
	"      --steps          also the time by op, from runs of their own\n"
	"      --markdown       one row of a table: type, sizes, threads, times, ratio, interval, ratio of bytes\n";

typedef struct options {
	int64_t dim, ffn, heads, kv_heads, layers, loops, rank, pairs, tokens;
	uint32_t threads;
	knit_dtype type, lora_type;
	bool steps, markdown, cpu_time;
} options;

static _Noreturn void die(const char *what, const knit_diag *d) {
	fprintf(stderr, "bench-lora: %s%s%s\n", what, d && d->text[0] ? ": " : "", d ? d->text : "");
	exit(1);
}

static void must(knit_status status, const char *what, const knit_diag *d) {
	if (status != KNIT_OK)
		die(d && d->text[0] ? what : knit_status_name(status), d);
}

static clockid_t clock_used = CLOCK_MONOTONIC;

static double seconds(void) {
	struct timespec t;

	clock_gettime(clock_used, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252u;

static uint64_t random_u64(void) {
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* Fields of a float of so many exponent bits: any sign, any mantissa, magnitude in [2^exponent, 2^(exponent + 1)). */
static uint64_t keep_magnitude(uint64_t bits, int total, int exponent_bits, int exponent) {
	const int mantissa = total - 1 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
	const uint64_t field = ((UINT64_C(1) << exponent_bits) - 1) << mantissa;

	return (bits & ~field) | (uint64_t)(exponent + bias) << mantissa;
}

static void fill(char *data, uint64_t bytes, knit_dtype type, int exponent) {
	const uint64_t block = type == KNIT_Q8_0 ? 34 : type == KNIT_Q4_0 ? 18 : 0;

	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t r = random_u64();

		if (type == KNIT_F32)
			r = keep_magnitude(r & 0xffffffff, 32, 8, exponent) | keep_magnitude(r >> 32, 32, 8, exponent) << 32;
		for (int k = 0; (type == KNIT_F16 || type == KNIT_BF16) && k < 64; k += 16) {
			const uint64_t one = keep_magnitude(r >> k & 0xffff, 16, type == KNIT_F16 ? 5 : 8, exponent);
			r = (r & ~(UINT64_C(0xffff) << k)) | one << k;
		}
		memcpy(data + i, &r, bytes - i < 8 ? bytes - i : 8);
	}
	/* The scale of a block whose numbers go to 127 or 8. */
	const uint16_t scale = (uint16_t)keep_magnitude(0, 16, 5, exponent - (type == KNIT_Q8_0 ? 6 : 2));
	for (uint64_t i = 0; block && i < bytes; i += block)
		memcpy(data + i, &scale, sizeof scale);
}

/* Rows of about unit length; columns 0: a vector. */
static void put(knit_weights *store, const char *name, knit_dtype type, int64_t rows, int64_t columns) {
	const int64_t dims[] = {rows, columns}, length = columns ? columns : rows;
	uint64_t bytes = 0;
	knit_diag d = {0};

	if (!knit__dtype_bytes(type, (uint64_t)(rows * (columns ? columns : 1)), &bytes) ||
		(knit__dtype_info(type)->is_block && length % 32 != 0))
		die("the sizes are no multiples of 32", NULL);
	char *const data = malloc(bytes);
	if (!data)
		die("out of memory", NULL);
	fill(data, bytes, type, columns ? (int)lround(-0.5 * log2((double)length)) - 1 : 0);
	must(knit_weights_add(store, name, type, columns ? 2 : 1, dims, data, bytes, &d), name, &d);
	free(data);
}

static void put_base(const options *o, const knit__decoder_config *c, knit_weights *store) {
	char name[KNIT__NAME_BYTES];

	for (uint32_t l = 0; l < (uint32_t)o->layers; ++l)
		for (int p = KNIT__ATTN_NORM; p < KNIT__PART_COUNT; ++p) {
			int64_t rows, columns;

			knit__decoder_part_shape(c, (knit__part)p, &rows, &columns);
			knit__weight_name(KNIT__NAMES_GGUF, (knit__part)p, l, name);
			put(store, name, columns ? o->type : KNIT_F32, rows, columns);
		}
}

static void put_lora(const options *o, const knit__decoder_config *c, knit_weights *store) {
	char name[KNIT__NAME_BYTES];

	for (uint32_t v = 0; v < (uint32_t)(o->layers * o->loops); ++v)
		for (int p = KNIT__ATTN_Q; p < KNIT__PART_COUNT; ++p) {
			int64_t rows, columns;

			knit__decoder_part_shape(c, (knit__part)p, &rows, &columns);
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'a', name);
			put(store, name, o->lora_type, o->rank, columns);
			knit__adapter_name(KNIT__NAMES_GGUF, (knit__part)p, v, 'b', name);
			put(store, name, o->lora_type, rows, o->rank);
		}
}

static void put_keys(const options *o, knit_metadata *keys) {
	const struct { const char *key; int64_t value; } counts[] = {
		{"knit.embedding_length", o->dim},         {"knit.block_count", o->layers},
		{"knit.feed_forward_length", o->ffn},      {"knit.context_length", 512},
		{"knit.attention.head_count", o->heads},   {"knit.attention.head_count_kv", o->kv_heads},
		{"knit.loops", o->loops},
	};

	must(knit__metadata_add_string(keys, "general.architecture", "knit", 4, NULL), "keys", NULL);
	must(knit__metadata_add_f32(keys, "knit.attention.layer_norm_rms_epsilon", 1e-5f, NULL), "keys", NULL);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; ++i)
		must(knit__metadata_add_u32(keys, counts[i].key, (uint32_t)counts[i].value, NULL), "keys", NULL);
}

static void put_lora_keys(const options *o, knit_metadata *keys) {
	must(knit__metadata_add_u32(keys, "knit.lora.rank", (uint32_t)o->rank, NULL), "keys", NULL);
	must(knit__metadata_add_f32(keys, "knit.lora.alpha", 2 * (float)o->rank, NULL), "keys", NULL);
}

/* What shapes follow from; the rest is read from the keys and tensors afterwards. */
static knit__decoder_config sizes_of(const options *o) {
	return (knit__decoder_config){.dim = o->dim, .ffn = o->ffn, .heads = o->heads, .kv_heads = o->kv_heads,
								  .head_dim = o->dim / o->heads, .vocab = VOCAB};
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct runner {
	knit__decoder decoder;
	int32_t pos;
	float logits[VOCAB];
} runner;

static void open_runner(knit_context *ctx, const knit__decoder_config *c, knit_weights *base, knit_weights *lora, runner *r) {
	const knit__decoder_desc desc = {
		.config = c, .base = base, .adapters = lora, .positions = 512, .max_tokens = 1, .kv = KNIT_F16, .device = "cpu"};
	knit_diag d = {0};

	must(knit__decoder_open(ctx, &desc, &r->decoder, &d), "decoder", &d);
}

static double run(runner *r, int64_t tokens) {
	const double begin = seconds();
	knit_diag d = {0};

	for (int64_t t = 0; t < tokens; ++t) {
		const int32_t id = (r->pos * 37 + 11) % VOCAB, seq = 0, row = 0;

		must(knit__decoder_step(&r->decoder, &id, &seq, &r->pos, 1, &row, 1, r->logits, &d), "step", &d);
		r->pos = (r->pos + 1) % 512;
	}
	if (!isfinite((double)r->logits[0]))
		die("the model computes no numbers", NULL);
	return (seconds() - begin) / (double)tokens;
}

/* ---- by op ------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 25 };

/* Medians of each step, added up by op: on a busy machine some step of a token is always interrupted, each one rarely. */
static void times_by_op(runner *r, double *by_op) {
	const knit_schedule *const s = r->decoder.program->buckets[0].schedule;
	knit_step_time *const times = malloc(s->step_count * sizeof *times);
	double *const ms = malloc(s->step_count * ROUNDS * sizeof *ms);
	bench_stats stats;

	if (!times || !ms)
		die("out of memory", NULL);
	memset(ms, 0, s->step_count * ROUNDS * sizeof *ms);
	for (size_t round = 0; round < ROUNDS; ++round) {
		run(r, 1);
		const size_t n = knit__session_times(r->decoder.session, times, s->step_count);
		for (size_t i = 0; i < n && i < s->step_count; ++i)
			ms[times[i].step * ROUNDS + round] = (double)times[i].ns / 1e6;
	}
	for (uint32_t i = 0; i < s->step_count; ++i) {
		bench_stats_of(ms + (size_t)i * ROUNDS, ROUNDS, 1, &stats);
		by_op[s->steps[i].op] += stats.median;
	}
	free(ms);
	free(times);
}

static void print_steps(runner *with, runner *without) {
	double a[KNIT_OP_COUNT] = {0}, b[KNIT_OP_COUNT] = {0};

	times_by_op(with, a);
	times_by_op(without, b);
	printf("ms per token       with  without  difference\n");
	for (int op = 1; op < KNIT_OP_COUNT; ++op)
		if (a[op] > 0 || b[op] > 0)
			printf("%-14s %8.3f %8.3f  %+8.3f\n", knit__op((uint16_t)op)->name, a[op], b[op], a[op] - b[op]);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void measure(const options *o, runner *with, runner *without) {
	double *const ratio = malloc(3 * (size_t)o->pairs * sizeof *ratio);
	double *const a = ratio + o->pairs, *const b = a + o->pairs;
	bench_stats with_stats, without_stats, ratios;
	knit_memory m;

	if (!ratio)
		die("out of memory", NULL);
	run(with, 2);
	run(without, 2);
	for (int64_t i = 0; i < o->pairs; ++i) {
		if (i % 2)
			a[i] = run(with, o->tokens);
		b[i] = run(without, o->tokens);
		if (i % 2 == 0)
			a[i] = run(with, o->tokens);
		ratio[i] = a[i] / b[i];
	}
	bench_stats_of(ratio, (size_t)o->pairs, 1, &ratios);
	bench_stats_of(a, (size_t)o->pairs, 1, &with_stats);
	bench_stats_of(b, (size_t)o->pairs, 1, &without_stats);
	const double ms_with = with_stats.median * 1e3, ms_without = without_stats.median * 1e3;
	const double times = ratios.median, lo = ratios.lo, hi = ratios.hi;

	must(knit_program_memory(with->decoder.program, &m), "memory", NULL);
	/* Of the embedding one row is read; its other use is the head. */
	uint64_t embedding = 0;
	knit__dtype_bytes(o->type, (uint64_t)(VOCAB * o->dim), &embedding);
	const double base = (double)(m.weight_bytes_by_use - embedding), lora = (double)m.adapter_bytes;
	const double rate = base / ms_without / 1e6;

	if (o->markdown) {
		printf("| %s | %" PRId64 " / %" PRId64 " | %" PRId64 " x %" PRId64 " | %s, %" PRId64 " | %u | %.0f MB | %.2f ms | %.2f ms | "
			   "%+.2f %% | %+.2f to %+.2f %% | %+.2f %% | %.1f GB/s |\n",
			   knit_dtype_name(o->type), o->dim, o->ffn, o->layers, o->loops, knit_dtype_name(o->lora_type), o->rank, o->threads,
			   (double)m.weight_bytes / 1e6, ms_without, ms_with, (times - 1) * 100, (lo - 1) * 100, (hi - 1) * 100,
			   lora / base * 100, rate);
		free(ratio);
		return;
	}
	printf("base weights        %.1f MB, read %.1f times a token: %.1f MB\n", (double)m.weight_bytes / 1e6,
		   base / (double)m.weight_bytes, base / 1e6);
	printf("LoRA                %.1f MB a token: %+.2f %% bytes\n", lora / 1e6, lora / base * 100);
	printf("steps               %zu with, %zu without\n", knit_program_step_count(with->decoder.program, 0),
		   knit_program_step_count(without->decoder.program, 0));
	printf("without LoRA        %.3f ms a token (%.1f GB/s)\n", ms_without, rate);
	printf("with LoRA           %.3f ms a token (%.1f GB/s)\n", ms_with, (base + lora) / ms_with / 1e6);
	printf("ratio               %+.2f %%, 95 %% interval %+.2f to %+.2f %% (%" PRId64 " pairs of %" PRId64 " tokens)\n",
		   (times - 1) * 100, (lo - 1) * 100, (hi - 1) * 100, o->pairs, o->tokens);
	free(ratio);
}

static int64_t number(const char *name, int64_t lo, int64_t hi) {
	char *end;
	const long long n = strtoll(optarg, &end, 10);

	if (end == optarg || *end || n < lo || n > hi) {
		fprintf(stderr, "bench-lora: --%s \"%s\" is no number from %lld to %lld\n", name, optarg, (long long)lo, (long long)hi);
		exit(2);
	}
	return n;
}

static knit_dtype type_of(bool blocks) {
	const knit_dtype t = knit__dtype_parse(optarg);

	if (t == 0 || t == KNIT_I32 || (!blocks && knit__dtype_info(t)->is_block)) {
		fprintf(stderr, "bench-lora: \"%s\" is no type for these weights\n", optarg);
		exit(2);
	}
	return t;
}

static options parse(int argc, char **argv) {
	static const struct option longs[] = {
		{"dim", 1, NULL, 'd'},     {"ffn", 1, NULL, 'f'},       {"heads", 1, NULL, 'h'}, {"kv-heads", 1, NULL, 'k'},
		{"layers", 1, NULL, 'l'},  {"loops", 1, NULL, 'o'},     {"rank", 1, NULL, 'r'},  {"type", 1, NULL, 't'},
		{"lora-type", 1, NULL, 'T'}, {"threads", 1, NULL, 'j'}, {"pairs", 1, NULL, 'p'}, {"tokens", 1, NULL, 'n'},
		{"steps", 0, NULL, 's'},   {"cpu-time", 0, NULL, 'c'},   {"markdown", 0, NULL, 'm'},  {"help", 0, NULL, '?'},  {0},
	};
	options o = {2048, 5632, 32, 4, 10, 3, 16, 40, 2, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), KNIT_Q8_0, KNIT_F16, .steps = false};
	int index = 0;

	for (int option; (option = getopt_long_only(argc, argv, "", longs, &index)) != -1;) {
		const char *const name = longs[index].name;

		switch (option) {
		case 'd': o.dim = number(name, 32, 1 << 16); break;
		case 'f': o.ffn = number(name, 32, 1 << 18); break;
		case 'h': o.heads = number(name, 1, 1024); break;
		case 'k': o.kv_heads = number(name, 1, 1024); break;
		case 'l': o.layers = number(name, 1, 256); break;
		case 'o': o.loops = number(name, 1, 256); break;
		case 'r': o.rank = number(name, 1, 4096); break;
		case 't': o.type = type_of(true); break;
		case 'T': o.lora_type = type_of(false); break;
		case 'j': o.threads = (uint32_t)number(name, 1, 64); break;
		case 'p': o.pairs = number(name, 1, MAX_PAIRS); break;
		case 'n': o.tokens = number(name, 1, 512); break;
		case 's': o.steps = true; break;
		case 'c': o.cpu_time = true; break;
		case 'm': o.markdown = true; break;
		default:
			if (strcmp(argv[optind - 1], "--help") != 0)
				exit(2);
			fputs(help, stdout);
			exit(0);
		}
	}
	if (o.cpu_time) {
		o.threads = 1; /* waiting threads take processor time, too */
		clock_used = CLOCK_PROCESS_CPUTIME_ID;
	}
	return o;
}

int main(int argc, char **argv) {
	const options o = parse(argc, argv);
	const knit__decoder_config sizes = sizes_of(&o);
	knit__decoder_config config;
	knit_weights *base = NULL, *lora = NULL;
	static runner with, without;
	knit_context *ctx = NULL;
	knit_metadata keys, lora_keys;
	knit_diag d = {0};

	if (o.steps)
		setenv("KNIT_TIMES", "1", 1);
	must(knit_context_create(&(knit_context_desc){.cpu_threads = o.threads}, &ctx), "context", NULL);
	must(knit_weights_create(ctx, &base), "weights", NULL);
	must(knit_weights_create(ctx, &lora), "weights", NULL);
	put(base, "token_embd.weight", o.type, VOCAB, o.dim);
	put(base, "output_norm.weight", KNIT_F32, o.dim, 0);
	put_base(&o, &sizes, base);
	put_lora(&o, &sizes, lora);
	knit__metadata_init(&keys, &ctx->a);
	knit__metadata_init(&lora_keys, &ctx->a);
	put_keys(&o, &keys);
	put_lora_keys(&o, &lora_keys);
	must(knit__decoder_config_read(&keys, base, &config, &d), "config", &d);
	must(knit__decoder_config_adapter(&config, &lora_keys, lora, &d), "adapter", &d);
	open_runner(ctx, &config, base, lora, &with);
	open_runner(ctx, &config, base, NULL, &without);
	if (!o.markdown) {
		bench_peaks peaks;

		bench_measure_peaks(o.threads, &peaks);
		printf("memory              %.1f GB/s can be read with %u threads\n", peaks.read_gbps, o.threads);
	}
	measure(&o, &with, &without);
	if (o.steps)
		print_steps(&with, &without);
	knit__decoder_close(&with.decoder);
	knit__decoder_close(&without.decoder);
	knit__metadata_clear(&keys);
	knit__metadata_clear(&lora_keys);
	knit_weights_release(lora);
	knit_weights_release(base);
	knit_context_destroy(ctx);
	return 0;
}
