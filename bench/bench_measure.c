/* Measures what `knit bench` was asked for: makes or finds the model, opens the subjects, lets them take turns. */
#include "bench_cli.h"
#include "clock.h"
#include "page.h"
#include "peer.h"
#include "random_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_WARM_UP = 6, STEADY_WINDOW = 4 };
#define STEADY 0.03

typedef struct bench {
	const bench_options *o;
	bench_run run;
	bench_subject *subjects[2 * BENCH_MAX_SUBJECTS];
	size_t subject_count;
	bench_knit_desc descs[BENCH_MAX_SUBJECTS]; /* of the first subjects, which are knit's */
	bench_loading loading[BENCH_MAX_SUBJECTS]; /* theirs */
	size_t desc_count;
	bench_reference *reference;
	bench_profile *profiles; /* of all subjects */
	size_t profile_count;
	char path[4096];
	bool temporary;
} bench;

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool making(void *user, uint64_t done, uint64_t total) {
	(void)user;
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\rmaking the model: %3.0f %%%s", total ? (double)done * 100 / (double)total : 100,
		        done == total ? "\r\033[K" : "");
	return !cli_interrupted;
}

static int make_model(bench *b) {
	const knit_allocator *a;
	knit_context *ctx = NULL;
	bench_shape shape;
	knit_diag diag = {0};
	const char *folder = getenv("TMPDIR");

	if (bench_shape_parse(b->o->shape, &shape, &diag) != KNIT_OK)
		return cli_usage("bench", "--shape %s", diag.text);
	if (b->o->keep)
		snprintf(b->path, sizeof b->path, "%s", b->o->keep);
	else
		snprintf(b->path, sizeof b->path, "%s/knit-bench-%ld.gguf", folder ? folder : "/tmp", (long)getpid());
	bench_shape_text(&shape, b->run.model);
	b->run.seed = shape.seed;
	if (knit_context_create(NULL, &ctx) != KNIT_OK)
		return cli_fail("out of memory");
	a = &ctx->a;
	const knit_status status = bench_random_model(a, &shape, b->path, making, NULL, &b->run.file_bytes, &diag);
	knit_context_destroy(ctx);
	if (status == KNIT_ERR_STATE && cli_interrupted)
		return CLI_INTERRUPTED;
	if (status != KNIT_OK)
		return cli_fail_diag(status, &diag);
	b->temporary = !b->o->keep;
	return CLI_OK;
}

static int find_model(bench *b) {
	struct stat st;

	if (b->o->shape)
		return make_model(b);
	snprintf(b->path, sizeof b->path, "%s", b->o->common.model.path);
	snprintf(b->run.model, sizeof b->run.model, "%s", b->path);
	if (stat(b->path, &st) == 0)
		b->run.file_bytes = (uint64_t)st.st_size;
	return CLI_OK;
}

/* ---- subjects ---------------------------------------------------------------------------------------------------- */

static int64_t most(const int64_t *list, size_t count) {
	int64_t n = 0;

	for (size_t i = 0; i < count; ++i)
		n = list[i] > n ? list[i] : n;
	return n;
}

/* What is found out of a subject before the others are there: its first token, what its device can do, whether it is right. */
static knit_status look_at(bench *b, const bench_knit_desc *desc, bench_subject *s, knit_diag *diag) {
	knit_status status = bench_knit_first_token(s, BENCH_WARM_RUNS, diag);

	if (status != KNIT_OK)
		return status;
	if (!b->o->no_peaks && !s->on_host && strchr(s->device, '+') == NULL)
		bench_device_peaks(s->device, &s->peaks, s->no_peaks);
	if (!b->o->no_peaks)
		bench_device_latency(s->device, b->run.threads, &s->submit_seconds, &s->step_seconds);
	/* What computes nothing cannot be wrong. */
	if (b->o->no_check || strcmp(s->device, "null") == 0)
		return KNIT_OK;
	if (!b->reference)
		status = bench_reference_make(desc, &b->reference, diag);
	return status == KNIT_OK ? bench_reference_check(b->reference, s, diag) : status;
}

/* One device or program twice shows what the noise is: "knit cpu #2". */
static void tell_apart(bench *b, bench_subject *s) {
	const size_t bytes = strlen(s->name);
	size_t same = 1;

	for (size_t k = 0; k < b->subject_count; ++k) {
		const char *const other = b->subjects[k]->name;
		same += b->subjects[k] != s && strncmp(other, s->name, bytes) == 0 && (other[bytes] == '\0' || other[bytes + 1] == '#');
	}
	if (same > 1)
		snprintf(s->name + bytes, sizeof s->name - bytes, " #%zu", same);
}

static void describe_subjects(bench *b) {
	const bench_options *const o = b->o;
	const int64_t tested = most(o->prompts, o->prompt_count) > most(o->makes, o->make_count)
	                           ? most(o->prompts, o->prompt_count)
	                           : most(o->makes, o->make_count);

	for (size_t i = 0; i < (o->device_count ? o->device_count : 1); ++i)
		b->descs[b->desc_count++] = (bench_knit_desc){
			.path = b->path,
			.device = o->device_count ? o->devices[i] : NULL,
			.device_memory = o->device_count && strchr(o->devices[i], '+') ? o->common.device_memory : 0,
			.threads = b->run.threads,
			.max_depth = most(o->depths, o->depth_count) + tested,
			.batch = o->batch,
			.kv = o->common.kv.k,
			.visits = o->common.model.visits,
			.loops = o->common.model.loops,
			.no_adapter = o->common.model.no_adapter,
		};
}

static knit_status probe_knit(void *desc, int64_t tokens, bench_probe *out, knit_diag *diag) {
	return bench_probe_knit(desc, tokens, out, diag);
}

/* Before this process opens the file: what it has mapped stays in the page cache, and its threads would be lost to a child. */
static int measure_loading(bench *b, bench_subject **peers) {
	const bench_options *const o = b->o;
	knit_diag diag = {0};

	for (size_t i = 0; i < b->desc_count && !o->no_load && !cli_interrupted; ++i) {
		const int64_t tokens = most(o->prompts, o->prompt_count);
		const knit_status status = bench_loading_measure(b->path, probe_knit, &b->descs[i], tokens, &b->loading[i], &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		b->run.cached_after_drop = b->loading[i].share_kept;
	}
	for (size_t i = 0; i < o->peer_count && !o->no_load && !cli_interrupted; ++i) {
		bench_loading l;
		const knit_status status = bench_loading_measure(o->peer_model ? o->peer_model : b->path, bench_peer_probe, peers[i], 0, &l, &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		peers[i]->first_cold = l.cached.load;
		peers[i]->disk_first = l.disk.load;
	}
	return cli_interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static int open_peers(bench *b, bench_subject **peers) {
	const bench_options *const o = b->o;
	knit_diag diag = {0};

	for (size_t i = 0; i < o->peer_count; ++i) {
		const bench_peer_desc desc = {.spec = o->peers[i], .model = o->peer_model ? o->peer_model : b->path, .threads = b->run.threads,
		                              .batch = o->batch, .runs = o->peer_runs, .kv = o->common.kv.k};
		const knit_status status = bench_peer_open(&desc, &peers[i], &diag);
		if (status == KNIT_ERR_ARGUMENT)
			return cli_usage("bench", "%s", diag.text);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		if (o->peer_model)
			snprintf(peers[i]->model, sizeof peers[i]->model, "%s", o->peer_model);
	}
	return CLI_OK;
}

static int open_knit(bench *b) {
	knit_diag diag = {0};

	for (size_t i = 0; i < b->desc_count && !cli_interrupted; ++i) {
		const bench_loading *const l = &b->loading[i];
		knit_status status = bench_knit_open(&b->descs[i], &b->subjects[b->subject_count], &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		bench_subject *const s = b->subjects[b->subject_count++];
		snprintf(s->name, sizeof s->name, "knit %.40s", s->device);
		tell_apart(b, s);
		status = look_at(b, &b->descs[i], s, &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		if (b->o->no_load)
			continue;
		s->load_seconds = l->cached.load;
		s->first_cold = l->cached.first;
		s->disk_load = l->disk.load;
		s->disk_first = l->disk.load + l->disk.first;
		s->seen = l->cached.memory;
	}
	return cli_interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static int open_subjects(bench *b) {
	bench_subject *peers[BENCH_MAX_SUBJECTS] = {0};

	describe_subjects(b);
	int code = open_peers(b, peers);
	if (code == CLI_OK)
		code = measure_loading(b, peers);
	if (code == CLI_OK)
		code = open_knit(b);
	for (size_t i = 0; i < b->o->peer_count && peers[i]; ++i) { /* closed with the others */
		b->subjects[b->subject_count++] = peers[i];
		tell_apart(b, peers[i]);
	}
	return code;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* One or more runs; those before the row is warm are thrown away. */
static knit_status measure_once(const bench *b, bench_row *r, bool keep, knit_diag *diag) {
	double got[16];
	size_t count = 0;
	const knit_status status = r->subject->kind->run((bench_subject *)(uintptr_t)r->subject, &r->test, got,
	                                                 sizeof got / sizeof *got, &count, diag);

	for (size_t i = 0; status == KNIT_OK && i < count && b->run.planted > 0 && !r->subject->kind->warms_itself; ++i) {
		const double begin = bench_now();
		while (bench_now() - begin < got[i] * b->run.planted)
			;
		got[i] += bench_now() - begin;
	}
	if (status == KNIT_ERR_UNSUPPORTED) {
		r->absent = true;
		return KNIT_OK;
	}
	for (size_t i = 0; status == KNIT_OK && keep && i < count && r->count < BENCH_MAX_SAMPLES; ++i)
		r->seconds[r->count++] = got[i];
	if (status == KNIT_OK && !keep)
		r->seconds[r->warm_up++] = count ? got[count - 1] : 0;
	return status;
}

/* Warms up until the times have settled, or long enough. */
static knit_status warm_up(const bench *b, bench_row *r, knit_diag *diag) {
	const double begin = bench_now();
	knit_status status = KNIT_OK;

	if (r->subject->kind->warms_itself)
		return KNIT_OK;
	while (status == KNIT_OK && !cli_interrupted && r->warm_up < MAX_WARM_UP && !r->steady) {
		status = measure_once(b, r, false, diag);
		r->steady = bench_is_steady(r->seconds, r->warm_up, STEADY_WINDOW, STEADY);
		if (r->warm_up >= 1 && bench_now() - begin > b->o->seconds / 4)
			break;
	}
	return status;
}

static void finish_row(bench_row *r, const bench_row *first) {
	const double tokens = (double)(r->test.prompt + r->test.made);
	double rates[BENCH_MAX_SAMPLES], firsts[BENCH_MAX_SAMPLES];

	for (size_t i = 0; i < r->count; ++i)
		rates[i] = tokens / r->seconds[i];
	bench_stats_of(rates, r->count, 1, &r->rate);
	r->steady = r->steady || r->rate.mad < STEADY * r->rate.median;
	for (size_t i = 0; i < first->count; ++i)
		firsts[i] = tokens / first->seconds[i];
	if (r != first)
		bench_ratio_of(rates, r->count, firsts, first->count, 1, &r->ratio);
}

/* Whether peers take part in this round: --peer-starts of them, spread evenly. */
static bool peers_turn(const bench_options *o, int64_t round) {
	const int64_t starts = o->peer_starts && o->peer_starts < o->runs ? o->peer_starts : o->runs;

	return round == 0 || round * starts / o->runs != (round - 1) * starts / o->runs;
}

/* All subjects of one test, taking turns. */
static int measure_test(bench *b, bench_row *rows) {
	const double begin = bench_now();
	knit_diag diag = {0};
	char done[64];

	for (size_t i = 0; i < b->subject_count && !cli_interrupted; ++i) {
		const knit_status status = warm_up(b, &rows[i], &diag);
		if (status != KNIT_OK)
			return cli_fail("%s: %s", rows[i].subject->name, diag.text[0] ? diag.text : knit_status_name(status));
	}
	for (int64_t round = 0; round < b->o->runs && !cli_interrupted; ++round) {
		if (round >= 3 && bench_now() - begin > b->o->seconds * (double)b->subject_count)
			break;
		for (size_t i = 0; i < b->subject_count && !cli_interrupted; ++i) {
			/* The order turns round each time, so that none always runs on what another left. */
			const size_t at = round % 2 ? b->subject_count - 1 - i : i;
			if (rows[at].absent || (rows[at].subject->kind->warms_itself && !peers_turn(b->o, round)))
				continue;
			const knit_status status = measure_once(b, &rows[at], true, &diag);
			if (status != KNIT_OK)
				return cli_fail("%s: %s", rows[at].subject->name, diag.text[0] ? diag.text : knit_status_name(status));
		}
		if (isatty(STDERR_FILENO)) {
			snprintf(done, sizeof done, "\rrun %" PRId64 " of %" PRId64 "\r\033[K", round + 1, b->o->runs);
			fputs(done, stderr);
		}
	}
	for (size_t i = 0; i < b->subject_count; ++i)
		finish_row(&rows[i], &rows[0]);
	return cli_interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static size_t list_tests(const bench_options *o, bench_test *out) {
	size_t n = 0;

	for (size_t d = 0; d < o->depth_count; ++d) {
		for (size_t i = 0; i < o->prompt_count && n < BENCH_MAX_TESTS; ++i)
			if (o->prompts[i])
				out[n++] = (bench_test){.prompt = o->prompts[i], .depth = o->depths[d]};
		for (size_t i = 0; i < o->make_count && n < BENCH_MAX_TESTS; ++i)
			if (o->makes[i])
				out[n++] = (bench_test){.made = o->makes[i], .depth = o->depths[d]};
	}
	return n;
}

/* Moves the rows of subjects that have the test to the front; returns how many. */
static size_t keep_present(bench_row *rows, size_t count) {
	size_t n = 0;
	char name[48];

	for (size_t i = 0; i < count; ++i) {
		bench_test_name(&rows[i].test, name);
		if (rows[i].absent)
			fprintf(stderr, "note: %s has no test like %s\n", rows[i].subject->name, name);
		else
			rows[n++] = rows[i];
	}
	for (size_t i = n; i < count; ++i)
		rows[i] = (bench_row){0};
	return n;
}

static int measure(bench *b) {
	bench_test tests[BENCH_MAX_TESTS];
	const size_t count = list_tests(b->o, tests);
	int code = CLI_OK;

	b->run.rows = calloc(count * b->subject_count + 1, sizeof *b->run.rows);
	if (!b->run.rows)
		return cli_fail("out of memory");
	const double begin = bench_now(), others = bench_others_seconds();
	for (size_t t = 0; t < count && code == CLI_OK; ++t) {
		bench_row *const rows = b->run.rows + b->run.row_count;
		for (size_t i = 0; i < b->subject_count; ++i) {
			rows[i].subject = b->subjects[i];
			rows[i].test = tests[t];
			if (strcmp(b->subjects[i]->device, "null") != 0) /* which moves and computes nothing */
				/* Another program is held against what this one has to move and compute for the same file. */
				bench_cost_of(bench_knit_program(b->subjects[i < b->desc_count ? i : 0]), &tests[t], b->o->batch, &rows[i].cost);
		}
		code = measure_test(b, rows);
		if (code == CLI_OK || rows[0].count >= 3)
			b->run.row_count += keep_present(rows, b->subject_count);
	}
	if (others >= 0)
		b->run.busy = (bench_others_seconds() - others) / ((bench_now() - begin) * bench_cores());
	return code;
}

/* Afterwards and one after the other, so that no two copies of the weights are there at once. */
static int profile(bench *b) {
	bench_test tests[BENCH_MAX_TESTS];
	const size_t count = list_tests(b->o, tests);
	knit_diag diag = {0};

	b->profiles = calloc(count * b->desc_count + 1, sizeof *b->profiles);
	if (!b->profiles)
		return cli_fail("out of memory");
	for (size_t i = 0; i < b->desc_count; ++i)
		bench_knit_let_go(b->subjects[i]);
	for (size_t i = 0; i < b->desc_count && !cli_interrupted; ++i) {
		bench_profile *made = NULL;
		size_t made_count = 0;
		const knit_status status = bench_profile_run(&b->descs[i], b->subjects[i], tests, count, &made, &made_count, &diag);
		if (status != KNIT_OK)
			return cli_fail_diag(status, &diag);
		memcpy(b->profiles + b->profile_count, made, made_count * sizeof *made);
		b->profile_count += made_count;
		free(made);
	}
	return CLI_OK;
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static void print(FILE *f, void *user) {
	static void (*const printers[])(FILE *, const bench_run *) = {bench_print_table, bench_print_json, bench_print_markdown,
	                                                             bench_print_csv};
	const bench *const b = user;

	printers[b->o->format](f, &b->run);
	for (size_t i = 0; b->o->profile && i < b->profile_count; ++i) {
		if (b->o->format == BENCH_JSON)
			bench_profile_json(f, &b->run, &b->profiles[i]);
		else if (b->o->format != BENCH_CSV)
			bench_profile_print(f, &b->run, &b->profiles[i], b->o->format == BENCH_MARKDOWN);
	}
}

static void print_page(FILE *f, void *user) {
	const bench *const b = user;

	bench_page_print(f, &b->run, b->profiles, b->profile_count);
}

static void print_trace(FILE *f, void *user) {
	const bench *const b = user;

	bench_profile_trace(f, b->profiles, b->profile_count);
}

static void describe(bench *b) {
	const bench_options *const o = b->o;

	b->run.threads = o->common.threads ? o->common.threads : bench_cores();
	b->run.batch = o->batch;
	b->run.cached_after_drop = -1;
	b->run.planted = o->planted;
	snprintf(b->run.kv, sizeof b->run.kv, "%s", knit_dtype_name(o->common.kv.k ? o->common.kv.k : KNIT_F16));
	snprintf(b->run.flags, sizeof b->run.flags, "%s", o->flags);
	bench_machine(&b->run);
}

int bench_all(const bench_options *o) {
	bench here = {.o = o}, *const b = &here;

	describe(b);
	int code = bench_write_check(o->output);
	code = code == CLI_OK ? bench_write_check(o->html) : code;
	code = code == CLI_OK ? bench_write_check(o->trace) : code;
	code = code == CLI_OK ? find_model(b) : code;
	b->run.clock_before = bench_clock_loop();
	if (code == CLI_OK)
		code = open_subjects(b);
	if (code == CLI_OK && !o->no_peaks)
		bench_measure_peaks(b->run.threads, &b->run.peaks);
	if (code == CLI_OK)
		code = measure(b);
	b->run.clock_after = bench_clock_loop();
	if (code == CLI_OK && !o->no_peaks) {
		b->run.peaks.read_gbps_first = b->run.peaks.read_gbps;
		const double again = bench_measure_read(b->run.threads);
		b->run.peaks.read_gbps = again > b->run.peaks.read_gbps ? again : b->run.peaks.read_gbps;
	}
	if (code == CLI_OK && (o->profile || o->trace || o->html))
		code = profile(b);
	b->run.interrupted = code == CLI_INTERRUPTED;
	if ((code == CLI_OK || code == CLI_INTERRUPTED) && b->run.row_count) {
		const int printed = bench_write(o->output, print, b);
		code = code == CLI_OK ? printed : code;
	}
	if (code == CLI_OK && o->html && b->run.row_count)
		code = bench_write(o->html, print_page, b);
	if (code == CLI_OK && o->trace)
		code = bench_write(o->trace, print_trace, b);
	for (size_t i = 0; i < b->subject_count; ++i)
		b->subjects[i]->kind->close(b->subjects[i]);
	bench_reference_free(b->reference);
	bench_profiles_clear(b->profiles, b->profile_count);
	free(b->profiles);
	if (b->temporary)
		unlink(b->path);
	free(b->run.rows);
	return code;
}
