/* Where the time from a model file to the first token goes, and how much memory the process takes for it beside the file, the
 * cache of keys and values and the arena. */
#include "../../frontends/formats/nonfinite.h"
#include "../../frontends/models/decoder.h"
#include "../../frontends/models/load.h"
#include "../stats.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
	"bench-load: milliseconds from a file in the page cache to the logits after its first tokens, by part, and memory.\n\n"
	"  bench-load MODEL...                  a row of a Markdown table for each\n\n"
	"open: mapping and metadata; check: every weight in search of NaN; vocabulary; plan: graph, passes, schedules; weights:\n"
	"packing, and the session; first: a prompt of --tokens; total: all of these, medians of --runs; warm: the prompt again.\n"
	"resident: the most that the process took, less what it took before; beyond: of that, what is not the weights' bytes, the keys\n"
	"and values of all positions, and the arena.\n\n"
	"      --ctx N       positions (4096)\n"
	"      --batch N     tokens of a step at most (64)\n"
	"      --tokens N    (3)\n"
	"      --runs N      (7)\n"
	"      --threads N   (all cores)\n";

enum { OPEN, CHECK, VOCABULARY, PLAN, WEIGHTS, FIRST, TOTAL, WARM, CLOSE, PARTS, MAX_RUNS = 101 };

typedef struct options { int64_t ctx, batch, tokens, runs; uint32_t threads; } options;

typedef struct figures {
	double seconds[PARTS][MAX_RUNS];
	double resident, beyond; /* MB */
} figures;

static knit_diag diag;

static void must(knit_status status, const char *what) {
	if (status == KNIT_OK)
		return;
	fprintf(stderr, "bench-load: %s: %s: %s\n", what, knit_status_name(status), diag.text);
	exit(1);
}

static double now(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double lap(double *since) {
	const double t = now(), passed = t - *since;

	*since = t;
	return passed;
}

/* The most that was resident since reset_peak, in MB; 0 where the system does not say. */
static double peak(void) {
	FILE *const f = fopen("/proc/self/status", "r");
	char line[128];
	double kib = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "VmHWM: %lf", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib * 1024 / 1e6;
}

static double reset_peak(void) {
	const int f = open("/proc/self/clear_refs", O_WRONLY);

	if (f >= 0) {
		if (write(f, "5", 1) != 1)
			fprintf(stderr, "bench-load: peaks are those of the whole process\n");
		close(f);
	}
	return peak();
}

static void feed(knit__decoder *d, const options *o, float *logits) {
	int32_t ids[64], seq[64] = {0}, pos[64];
	const int32_t last = (int32_t)o->tokens - 1;

	for (int i = 0; i < (int)o->tokens; ++i) {
		ids[i] = 3 + i * 17;
		pos[i] = i;
	}
	must(knit__decoder_step(d, ids, seq, pos, (size_t)o->tokens, &last, 1, logits, &diag), "run");
}

static void measure(const options *o, const char *path, int64_t run, figures *f) {
	const knit_context_desc host = {.cpu_threads = o->threads};
	const knit__model_desc desc = {.path = path, .skip_finite_check = true};
	knit_context *ctx;
	knit__model m;
	knit__decoder d;
	knit_program *plan;
	knit_nonfinite found;
	knit_memory memory;

	const double before = reset_peak(), begin = now();
	double at = begin;
	must(knit_context_create(&host, &ctx), "context");
	must(knit__model_load(ctx, &desc, &m, &diag), path);
	f->seconds[OPEN][run] = lap(&at);
	if (knit__weights_first_nonfinite(m.file.store, o->threads, &found) < knit_weights_count(m.file.store))
		must(KNIT_ERR_FORMAT, "NaN");
	f->seconds[CHECK][run] = lap(&at);
	const knit_status status = knit__tokenizer_create(ctx, &m.file.metadata, &m.tokenizer, &diag);
	must(status == KNIT_ERR_NOT_FOUND ? KNIT_OK : status, "vocabulary");
	f->seconds[VOCABULARY][run] = lap(&at);

	knit__decoder_desc how = {.config = &m.config, .base = m.file.store, .adapters = m.adapters, .device = "cpu",
	                          .positions = o->ctx, .max_tokens = o->batch, .kv = KNIT_F16, .plan_only = true};
	must(knit__decoder_compile(ctx, &how, &plan, &diag), "plan");
	knit_program_release(plan);
	f->seconds[PLAN][run] = lap(&at);
	const double twice = f->seconds[PLAN][run];
	how.plan_only = false;
	must(knit__decoder_open(ctx, &how, &d, &diag), "open");
	f->seconds[WEIGHTS][run] = lap(&at) - twice;

	float *const logits = malloc((size_t)d.vocab * sizeof *logits);
	feed(&d, o, logits);
	f->seconds[FIRST][run] = lap(&at);
	f->seconds[TOTAL][run] = at - begin - twice;
	feed(&d, o, logits);
	f->seconds[WARM][run] = lap(&at);
	must(knit_program_memory(d.program, &memory), "memory");
	f->resident = peak() - before;
	f->beyond = f->resident - (double)(memory.weight_bytes + memory.packed_bytes + memory.adapter_bytes + memory.state_bytes +
	                                   memory.arena_bytes) / 1e6;
	free(logits);
	at = now();
	knit__decoder_close(&d);
	knit__model_unload(&m);
	knit_context_destroy(ctx);
	f->seconds[CLOSE][run] = lap(&at);
}

static void print(const options *o, const char *path, figures *f) {
	const char *const slash = strrchr(path, '/');

	printf("| %s |", slash ? slash + 1 : path);
	for (int p = 0; p < PARTS; ++p) {
		bench_sort(f->seconds[p], (size_t)o->runs);
		printf(p == TOTAL ? " **%.1f** |" : " %.1f |", f->seconds[p][o->runs / 2] * 1e3);
	}
	printf(" %.0f | %.1f |\n", f->resident, f->beyond);
	fflush(stdout);
}

static int64_t number(const char *text, int64_t lo, int64_t hi) {
	char *end;
	const long long n = strtoll(text, &end, 10);

	if (*end || end == text || n < lo || n > hi) {
		fprintf(stderr, "bench-load: \"%s\" is no number from %" PRId64 " to %" PRId64 "\n", text, lo, hi);
		exit(2);
	}
	return n;
}

int main(int argc, char **argv) {
	static const struct option names[] = {
		{"ctx", required_argument, NULL, 'c'},  {"batch", required_argument, NULL, 'b'}, {"tokens", required_argument, NULL, 't'},
		{"runs", required_argument, NULL, 'r'}, {"threads", required_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'},
		{0},
	};
	options o = {.ctx = 4096, .batch = 64, .tokens = 3, .runs = 7};
	static figures f;

	for (int c; (c = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
		switch (c) {
		case 'c': o.ctx = number(optarg, 64, 1 << 24); break;
		case 'b': o.batch = number(optarg, 1, 1 << 20); break;
		case 't': o.tokens = number(optarg, 1, 64); break;
		case 'r': o.runs = number(optarg, 1, MAX_RUNS); break;
		case 'j': o.threads = (uint32_t)number(optarg, 0, 64); break;
		case 'h': fputs(help, stdout); return 0;
		default: fputs(help, stderr); return 2;
		}
	}
	o.tokens = o.tokens < o.batch ? o.tokens : o.batch;
	printf("| model | open | check | vocabulary | plan | weights | first | total, ms | warm | close | resident, MB | beyond |\n"
	       "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
	for (int i = optind; i < argc; ++i) {
		for (int64_t run = 0; run < o.runs; ++run)
			measure(&o, argv[i], run, &f);
		print(&o, argv[i], &f);
	}
	return 0;
}
