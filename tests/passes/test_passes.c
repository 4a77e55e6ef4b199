/* Each pass against golden texts (tests/passes/<pass>.<case>.ir: a graph, then what it becomes, or "unchanged" for the
 * twin that must not fire), and on random graphs: run twice, checked, and compared by the oracle before and after.
 *
 * A golden file may say, in comments: "!bytes s3 10" (weights with equal numbers get equal bytes, with equal tens all
 * but the last), "!target <name>", "!order 2 1 3" (lines of nodes, counted from 1, in this order).
 * KNIT_UPDATE_GOLDEN=1 writes what is found into the files; read the diff before committing. */
#include "../../graph/context.h"
#include "../../graph/pass.h"
#include "../../graph/pass_check.h"
#include "../../graph/text.h"
#include "../tools/random_graph.h"

#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_STORAGES 64
#define TOLERANCE 1e-9

static knit_context *ctx;

static void setup(void) { ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK); }
static void teardown(void) { knit_context_destroy(ctx); }

/* ---- targets ----------------------------------------------------------------------------------------------------- */

typedef enum mode { ANY, NOTHING, CONTIGUOUS, CONTIGUOUS_EVEN_COPY, FIRST_CONTIGUOUS, COPIES_ONLY, PACKS,
			   PACKS_FOR_LINEAR, MODES } mode;
static const char *const mode_names[MODES] = {"any", "nothing", "contiguous", "contiguous_even_copy",
											  "first_contiguous", "copies_only", "packs",
											  "packs_for_linear"};
static const mode modes[MODES] = {ANY, NOTHING, CONTIGUOUS, CONTIGUOUS_EVEN_COPY, FIRST_CONTIGUOUS, COPIES_ONLY,
								  PACKS, PACKS_FOR_LINEAR};

static knit_kernel select_kernel(const void *device, const knit_node_view *n) {
	const mode m = *(const mode *)device;

	if (m == ANY || m == PACKS)
		return 1;
	for (uint32_t i = 0; m == PACKS_FOR_LINEAR && i < n->in_count; ++i)
		if (n->in[i].layout && n->op != KNIT_OP_LINEAR)
			return 0;
	if (m == PACKS_FOR_LINEAR)
		return 1;
	if (m == NOTHING || (m == COPIES_ONLY && n->op != KNIT_OP_COPY))
		return 0;
	if (n->op == KNIT_OP_COPY && m != CONTIGUOUS_EVEN_COPY)
		return 1;
	for (uint32_t i = 0; i < (m == FIRST_CONTIGUOUS ? 1u : n->in_count); ++i)
		if (n->in[i].kind && !n->in[i].contiguous)
			return 0;
	return 1;
}

static uint64_t no_scratch(const void *device, knit_kernel kernel, const knit_node_view *n) {
	(void)device, (void)kernel, (void)n;
	return 0;
}

static uint8_t want_layout(const void *device, const knit_shape *weight, const knit_weight_use *uses, uint32_t count) {
	const mode m = *(const mode *)device;

	(void)uses;
	ck_assert_uint_gt(count, 0);
	return (m == PACKS || m == PACKS_FOR_LINEAR) && weight->rank == 2 ? 3 : 0;
}

static uint64_t packed_bytes(const void *device, uint8_t layout, const knit_shape *weight) {
	(void)device, (void)layout, (void)weight;
	return UINT64_MAX;
}

static knit_target target(mode m) {
	return (knit_target){.weight_layout = want_layout,
						 .packed_bytes = packed_bytes,
						 .device = &modes[m],
						 .select = select_kernel,
						 .scratch = no_scratch,
						 .buffer_align = 64,
						 .max_buffer = UINT64_MAX};
}

/* ---- golden files ------------------------------------------------------------------------------------------------ */

typedef struct golden {
	const char *path, *name; /* name: behind the last slash */
	char pass[32];
	char *before, *after;  /* after: NULL for "unchanged" */
	uint32_t changes;
	knit_graph *g;
	void *bytes[MAX_STORAGES];
	mode target;
	bool has_target;
} golden;

static char *read_file(const char *path) {
	FILE *f = fopen(path, "rb");

	ck_assert_msg(f != NULL, "cannot open %s", path);
	char *text = calloc(1, 1 << 16);
	const size_t n = fread(text, 1, (1 << 16) - 1, f);
	ck_assert_msg(n > 0 && feof(f), "%s is empty or too long", path);
	fclose(f);
	return text;
}

static void split(golden *t) {
	t->before = read_file(t->path);
	char *mark = strstr(t->before, "==== ");
	ck_assert_msg(mark != NULL, "%s has no ==== line", t->name);
	if (strncmp(mark, "==== after ", 11) == 0) {
		char *end;

		t->changes = (uint32_t)strtoul(mark + 11, &end, 10);
		ck_assert_msg(t->changes > 0 && *end == '\n', "%s: ==== after needs the number of changes", t->name);
		t->after = end + 1;
	} else {
		ck_assert_msg(strcmp(mark, "==== unchanged\n") == 0, "%s: needs ==== after N or ==== unchanged", t->name);
	}
	*mark = 0;
}

static void give_bytes(golden *t, const char *at) {
	unsigned storage, pattern;

	ck_assert_int_eq(sscanf(at, "s%u %u", &storage, &pattern), 2);
	ck_assert(storage > 0 && storage < MAX_STORAGES && storage < t->g->storage_count && !t->bytes[storage]);
	knit_storage *s = &t->g->storages[storage];
	unsigned char *bytes = malloc(s->max_bytes);
	for (uint64_t i = 0; i < s->max_bytes; ++i)
		bytes[i] = (unsigned char)(i % 32 + pattern / 10); /* as f32, f16 or bf16: small numbers, no NaN */
	bytes[s->max_bytes - 2] = (unsigned char)(pattern % 10);
	s->host = t->bytes[storage] = bytes;
}

static void permute(golden *t, const char *at) {
	uint32_t order[64];
	char *end;

	for (uint32_t i = 0; i < t->g->order_count; ++i, at = end) {
		const unsigned long line = strtoul(at, &end, 10);
		ck_assert_msg(line >= 1 && line <= t->g->order_count, "%s: bad !order", t->name);
		order[i] = t->g->order[line - 1];
	}
	memcpy(t->g->order, order, t->g->order_count * sizeof *order);
}

static void obey(golden *t) {
	for (const char *p = t->before; (p = strstr(p, "; !")) != NULL; ++p) {
		if (strncmp(p, "; !bytes ", 9) == 0) {
			give_bytes(t, p + 9);
		} else if (strncmp(p, "; !order ", 9) == 0) {
			permute(t, p + 9);
		} else if (strncmp(p, "; !target ", 10) == 0) {
			const size_t length = strcspn(p + 10, "\n");
			for (int m = 0; m < MODES; ++m)
				if (strlen(mode_names[m]) == length && strncmp(mode_names[m], p + 10, length) == 0) {
					t->target = (mode)m;
					t->has_target = true;
				}
			ck_assert_msg(t->has_target, "%s: unknown !target", t->name);
		} else {
			ck_abort_msg("%s: unknown directive %.20s", t->name, p);
		}
	}
}

static char *print(const knit_graph *g) {
	knit_text t = {.a = g->a};

	ck_assert_int_eq(knit__print_text(g, &t), KNIT_OK);
	char *copy = strdup(t.data);
	knit__text_clear(&t);
	return copy;
}

static void update(const golden *t, const char *found) {
	FILE *f = fopen(t->path, "wb");

	ck_assert(f != NULL);
	if (t->after)
		fprintf(f, "%s==== after %u\n%s", t->before, t->changes, found);
	else
		fprintf(f, "%s==== unchanged\n", t->before);
	fclose(f);
}

static void run_golden(const char *path) {
	golden t = {.path = path, .name = strrchr(path, '/') + 1};
	knit_graph *original;
	knit_diag d = {0};
	uint32_t changes = 0, again = 0;

	snprintf(t.pass, sizeof t.pass, "%.*s", (int)strcspn(t.name, "."), t.name);
	const knit_pass *pass = knit__pass_find(t.pass);
	ck_assert_msg(pass != NULL, "%s names no pass", t.name);
	split(&t);
	ck_assert_msg(knit__parse_text(ctx, t.before, &t.g, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	obey(&t);
	char *before = print(t.g);
	const bool runs = strstr(t.before, "!order") == NULL; /* a wrong order is what the pass is there for */
	ck_assert_int_eq(knit__graph_clone(t.g, &original, &d), KNIT_OK);

	const knit_target fake = target(t.target), *device = t.has_target ? &fake : NULL;
	ck_assert_msg(pass->run(t.g, device, &changes, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	if (t.after)
		ck_assert_int_eq(knit__graph_compact(t.g), KNIT_OK);
	char *found = print(t.g);
	if (getenv("KNIT_UPDATE_GOLDEN"))
		update(&t, found);
	else
		ck_assert_msg(strcmp(found, t.after ? t.after : before) == 0, "%s gives\n%s", t.name, found);
	ck_assert_msg(changes == t.changes, "%s: %u changes, not %u", t.name, changes, t.changes);

	ck_assert_msg(knit__check_valid(t.g, NULL, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	ck_assert_msg(knit__check_text(t.g, &d) == KNIT_OK, "%s: %s", t.name, d.text);
	bool skipped = false;
	if (runs)
		ck_assert_msg(knit__check_equal(original, t.g, 5, TOLERANCE, &skipped, &d) == KNIT_OK, "%s: %s", t.name,
					  d.text);
	ck_assert_msg(!skipped, "%s is too large to run", t.name);
	ck_assert_int_eq(pass->run(t.g, device, &again, &d), KNIT_OK);
	ck_assert_msg(again == 0, "%s: a second run reports %u changes", t.name, again);

	for (int i = 0; i < MAX_STORAGES; ++i)
		free(t.bytes[i]);
	knit_graph_destroy(original);
	knit_graph_destroy(t.g);
	free(before);
	free(found);
	free(t.before);
}

START_TEST(golden_files) {
	uint32_t fires = 0, twins = 0;
	glob_t found;

	ck_assert_int_eq(glob(KNIT_SOURCE_DIR "/tests/passes/*.ir", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; ++i) {
		run_golden(found.gl_pathv[i]);
		char *text = read_file(found.gl_pathv[i]);
		twins += strstr(text, "==== unchanged") != NULL;
		fires += strstr(text, "==== after") != NULL;
		free(text);
	}
	globfree(&found);
	ck_assert_uint_ge(fires, 45);
	ck_assert_uint_ge(twins, 50);
}
END_TEST

START_TEST(every_pass_has_golden_files) {
	const knit_pass *p;

	for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i) {
		char pattern[512];
		glob_t found;

		snprintf(pattern, sizeof pattern, KNIT_SOURCE_DIR "/tests/passes/%s.*.ir", p->name);
		ck_assert_msg(glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc >= 2, "no golden files for %s", p->name);
		globfree(&found);
		ck_assert_ptr_eq(knit__pass_find(p->name), p);
		ck_assert(p->about && *p->about);
	}
	ck_assert_ptr_null(knit__pass_find("no such pass"));
}
END_TEST

/* ---- random graphs ----------------------------------------------------------------------------------------------- */

/* What the graph's weights take: each storage that something uses, once. */
static uint64_t weight_bytes(const knit_graph *g, uint32_t *storages) {
	bool *used = calloc(g->storage_count, sizeof *used);
	uint64_t bytes = 0;

	*storages = 0;
	for (uint32_t i = 0; i < g->order_count; ++i)
		for (int k = 0; k < g->nodes[g->order[i]].in_count; ++k)
			used[g->values[g->nodes[g->order[i]].in[k]].storage] = true;
	for (uint32_t i = 0; i < g->output_count; ++i)
		used[g->values[g->outputs[i].value].storage] = true;
	for (uint32_t i = 1; i < g->storage_count; ++i) {
		if (!used[i] || (g->storages[i].kind != KNIT_STORAGE_CONST && g->storages[i].kind != KNIT_STORAGE_ADAPTER))
			continue;
		bytes += g->storages[i].max_bytes;
		++*storages;
	}
	free(used);
	return bytes;
}

static void run_pass(const knit_pass *pass, knit_graph *g, const knit_target *t, uint64_t seed, uint32_t *fired) {
	uint32_t changes = 0, again = 0, storages_before, storages_after;
	const uint64_t bytes_before = weight_bytes(g, &storages_before);
	knit_graph *before;
	knit_diag d = {0};
	bool skipped;

	ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
	ck_assert_msg(pass->run(g, t, &changes, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(pass->run(g, t, &again, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(again == 0, "seed %llu: %s reports %u changes on its own result", (unsigned long long)seed,
				  pass->name, again);
	ck_assert_int_eq(knit__graph_compact(g), KNIT_OK);
	ck_assert_int_eq(g->diag.status, KNIT_OK);
	ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_text(g, &d) == KNIT_OK, "seed %llu, %s: %s", (unsigned long long)seed, pass->name,
				  d.text);
	ck_assert_msg(knit__check_equal(before, g, seed, TOLERANCE, &skipped, &d) == KNIT_OK, "seed %llu, %s: %s",
				  (unsigned long long)seed, pass->name, d.text);
	ck_assert(!skipped);
	/* No pass may enlarge the constants or split a storage. */
	ck_assert_uint_le(weight_bytes(g, &storages_after), bytes_before);
	ck_assert_uint_le(storages_after, storages_before);
	*fired += changes;
	knit_graph_destroy(before);
}

START_TEST(random_graphs_keep_their_meaning) {
	uint32_t fired[16] = {0};
	const knit_pass *p;

	for (uint64_t seed = 0; seed < 80; ++seed) {
		const knit_target t = target(modes[seed % MODES]);
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_msg(random_graph(ctx, seed, 24, &g, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed,
					  d.text);
		for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i)
			run_pass(p, g, &t, seed, &fired[i]);
		knit_graph_destroy(g);
	}
	/* The random graphs must give every pass work, except order, which finds valid orders only. */
	for (size_t i = 0; (p = knit__pass_at(i)) != NULL; ++i)
		ck_assert_msg(fired[i] > 20 || strcmp(p->name, "order") == 0, "%s fired %u times", p->name, fired[i]);
}
END_TEST

/* Any order of the passes, several times. */
START_TEST(passes_in_any_order_keep_the_meaning) {
	size_t count = 0;

	while (knit__pass_at(count))
		++count;
	for (uint64_t seed = 100; seed < 120; ++seed) {
		const knit_target t = target(modes[seed % MODES]);
		uint64_t random = seed;
		uint32_t fired = 0;
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_int_eq(random_graph(ctx, seed, 16, &g, &d), KNIT_OK);
		for (int i = 0; i < 10; ++i) {
			random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			run_pass(knit__pass_at((size_t)(random >> 33) % count), g, &t, seed, &fired);
		}
		knit_graph_destroy(g);
	}
}
END_TEST

/* A shuffled order, repaired, is valid again: the order pass needs no help from the others. */
START_TEST(shuffled_orders_are_repaired) {
	for (uint64_t seed = 200; seed < 240; ++seed) {
		uint64_t random = seed;
		uint32_t changes = 0, again = 0;
		knit_diag d = {0};
		knit_graph *g, *before;

		ck_assert_int_eq(random_graph(ctx, seed, 24, &g, &d), KNIT_OK);
		ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
		for (uint32_t i = g->order_count; i-- > 1;) {
			random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			const uint32_t j = (uint32_t)(random >> 33) % (i + 1), kept = g->order[i];
			g->order[i] = g->order[j];
			g->order[j] = kept;
		}
		ck_assert_int_eq(knit__pass_order(g, NULL, &changes, &d), KNIT_OK);
		ck_assert_uint_gt(changes, 0);
		ck_assert_msg(knit__check_valid(g, NULL, &d) == KNIT_OK, "seed %llu: %s", (unsigned long long)seed, d.text);
		ck_assert_msg(knit__check_equal(before, g, seed, 0, NULL, &d) == KNIT_OK, "%s", d.text);
		ck_assert_int_eq(knit__pass_order(g, NULL, &again, &d), KNIT_OK);
		ck_assert_uint_eq(again, 0);
		knit_graph_destroy(before);
		knit_graph_destroy(g);
	}
}
END_TEST

START_TEST(a_circle_has_no_order) {
	static const char text[] =
		"knit-ir 1\ns1 = input \"x\" f32 16 bytes\n%1 = input s1 : f32 [4]\n%2 = silu %1 : f32 [4]\n"
		"%3 = gelu %2 : f32 [4]\ninput \"x\" = %1\noutput \"y\" = %3\n";
	uint32_t changes = 0;
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_eq(knit__parse_text(ctx, text, &g, &d), KNIT_OK);
	g->nodes[1].in[0] = 3;
	ck_assert_int_eq(knit__pass_order(g, NULL, &changes, &d), KNIT_ERR_INTERNAL);
	ck_assert_ptr_nonnull(strstr(d.text, "waits for itself"));
	ck_assert_uint_eq(g->order[0], 1);
	knit_graph_destroy(g);
}
END_TEST

/* ---- the runner -------------------------------------------------------------------------------------------------- */

static uint32_t count_nodes_after(uint64_t seed, const char *disable, uint32_t *weights) {
	knit_diag d = {0};
	knit_graph *g, *before;
	const knit_target t = target(CONTIGUOUS);

	ck_assert_int_eq(random_graph(ctx, seed, 24, &g, &d), KNIT_OK);
	ck_assert_int_eq(knit__graph_clone(g, &before, &d), KNIT_OK);
	ck_assert_msg(knit__passes_run(g, &t, disable, &d) == KNIT_OK, "%s off: %s", disable ? disable : "nothing", d.text);
	ck_assert_msg(knit__check_equal(before, g, seed, TOLERANCE, NULL, &d) == KNIT_OK, "%s off: %s",
				  disable ? disable : "nothing", d.text);
	const uint32_t nodes = g->order_count;
	weight_bytes(g, weights);
	for (uint32_t i = 0; i < g->output_count; ++i)
		ck_assert_int_eq(knit__value_storage(g, g->outputs[i].value)->kind, KNIT_STORAGE_OUTPUT);
	knit_graph_destroy(before);
	knit_graph_destroy(g);
	return nodes;
}

#define FUSIONS "fuse_linear,merge_siblings,fuse_norm,fuse_kv,fuse_elementwise"

/* Nothing is fused here: equal computations, where they stay, give single readers and so more to fuse. */
START_TEST(passes_are_disabled_by_name) {
	static const char *const lists[] = {FUSIONS ",canonicalise",  FUSIONS ",dedup_weights", FUSIONS ",cse",
										FUSIONS ",dce",           FUSIONS ",cse, dce",      FUSIONS ",dce,,cse,",
										FUSIONS};
	uint32_t nodes[7] = {0}, weights[7] = {0}, n;

	for (uint64_t seed = 300; seed < 310; ++seed) {
		for (int i = 0; i < 7; ++i) {
			nodes[i] += count_nodes_after(seed, lists[i], &n);
			weights[i] += n;
		}
	}
	ck_assert_uint_gt(nodes[0], nodes[6]);
	ck_assert_uint_gt(weights[1], weights[6]);
	ck_assert_uint_gt(nodes[2], nodes[6]);
	ck_assert_uint_gt(nodes[3], nodes[6]);
	ck_assert_uint_gt(nodes[4], nodes[3]);
	ck_assert_uint_eq(nodes[4], nodes[5]);
}
END_TEST

/* Each fusion makes the graphs shorter, and none does when all are off. */
START_TEST(fusions_are_disabled_by_name) {
	static const char *const lists[] = {"fuse_linear", "merge_siblings", "fuse_norm", "fuse_kv", "fuse_elementwise"};
	uint32_t nodes[7] = {0}, n;

	for (uint64_t seed = 400; seed < 420; ++seed) {
		for (int i = 0; i < 5; ++i)
			nodes[i] += count_nodes_after(seed, lists[i], &n);
		nodes[5] += count_nodes_after(seed, FUSIONS, &n);
		nodes[6] += count_nodes_after(seed, NULL, &n);
	}
	for (int i = 0; i < 5; ++i) {
		ck_assert_msg(nodes[i] > nodes[6], "without %s: %u nodes, with it %u", lists[i], nodes[i], nodes[6]);
		ck_assert_msg(nodes[i] < nodes[5], "with only %s off: %u nodes, all off %u", lists[i], nodes[i], nodes[5]);
	}
}
END_TEST

START_TEST(wrong_names_are_refused) {
	static const struct { const char *list, *says; } bad[] = {
		{"legalise", "pass legalise cannot be switched off"}, {"cse,order", "pass order cannot be switched off"},
		{"cs", "no pass \"cs\" to switch off"},               {"csee", "no pass \"csee\" to switch off"},
		{"cse;dce", "no pass \"cse;dce\" to switch off"},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
		knit_diag d = {0};
		knit_graph *g;

		ck_assert_int_eq(random_graph(ctx, 1, 4, &g, &d), KNIT_OK);
		char *before = print(g);
		ck_assert_int_eq(knit__passes_run(g, NULL, bad[i].list, &d), KNIT_ERR_ARGUMENT);
		ck_assert_str_eq(d.text, bad[i].says);
		char *after = print(g);
		ck_assert_str_eq(before, after);
		free(before);
		free(after);
		knit_graph_destroy(g);
	}
}
END_TEST

/* Runs the passes with stderr in a file; returns what was written there. */
static char *run_with_stderr(const char *variable, const char *value) {
	char path[] = "/tmp/knit-passes-XXXXXX";
	const int file = mkstemp(path), kept = dup(2);
	knit_diag d = {0};
	knit_graph *g;

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(random_graph(ctx, 2, 12, &g, &d), KNIT_OK);
	fflush(stderr);
	dup2(file, 2);
	setenv(variable, value, 1);
	const knit_status status = knit__passes_run(g, NULL, NULL, &d);
	unsetenv(variable);
	fflush(stderr);
	dup2(kept, 2);
	close(kept);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	knit_graph_destroy(g);
	char *text = calloc(1, 1 << 20);
	ck_assert_int_ge(pread(file, text, (1 << 20) - 1, 0), 0);
	close(file);
	unlink(path);
	return text;
}

START_TEST(the_environment_shows_and_checks) {
	char *text = run_with_stderr("KNIT_DUMP", "cse");

	ck_assert_ptr_nonnull(strstr(text, "; before cse\nknit-ir 1\n"));
	ck_assert_ptr_nonnull(strstr(text, "; after cse\nknit-ir 1\n"));
	ck_assert_ptr_null(strstr(text, "dce\nknit-ir"));
	free(text);
	text = run_with_stderr("KNIT_CHECK", "1");
	ck_assert_str_eq(text, "");
	free(text);
}
END_TEST

/* KNIT_PASSES_OFF is added to what the caller switches off. */
START_TEST(the_environment_switches_off) {
	static const struct { const char *value, *disable; bool elementwise, cse; } rows[] = {
		{NULL, NULL, true, true},
		{"", NULL, true, true},
		{"fuse_elementwise", NULL, false, true},
		{NULL, "fuse_elementwise", false, true},
		{"fuse_elementwise", "cse", false, false},
		{" cse,, fuse_elementwise", "cse", false, false},
	};
	static const char text[] =
		"knit-ir 1\ns1 = input \"x\" f32 32 bytes\n%1 = input s1 : f32 [8]\n%2 = silu %1 : f32 [8]\n%3 = scale %2 {s=2} : f32 [8]\n"
		"%4 = silu %1 : f32 [8]\n%5 = scale %4 {s=2} : f32 [8]\ninput \"x\" = %1\noutput \"y\" = %3\noutput \"z\" = %5\n";
	knit_graph *g;
	knit_diag d = {0};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
		ck_assert_msg(knit__parse_text(ctx, text, &g, &d) == KNIT_OK, "%s", d.text);
		if (rows[i].value)
			setenv("KNIT_PASSES_OFF", rows[i].value, 1);
		const knit_status status = knit__passes_run(g, NULL, rows[i].disable, &d);
		unsetenv("KNIT_PASSES_OFF");
		ck_assert_msg(status == KNIT_OK, "%s", d.text);
		char *after = print(g);
		ck_assert_msg((strstr(after, "= map") != NULL) == rows[i].elementwise, "row %zu:\n%s", i, after);
		const char *const chain = rows[i].elementwise ? "= map" : "= silu", *const first = strstr(after, chain);
		ck_assert_msg((strstr(first + 1, chain) == NULL) == rows[i].cse, "row %zu:\n%s", i, after);
		free(after);
		knit_graph_destroy(g);
	}
	ck_assert_int_eq(knit__parse_text(ctx, text, &g, &d), KNIT_OK);
	setenv("KNIT_PASSES_OFF", "cse,nothing", 1);
	ck_assert_int_eq(knit__passes_run(g, NULL, NULL, &d), KNIT_ERR_ARGUMENT);
	unsetenv("KNIT_PASSES_OFF");
	ck_assert_msg(strstr(d.text, "\"nothing\"") != NULL, "%s", d.text);
	knit_graph_destroy(g);
}
END_TEST

/* ---- the checks themselves --------------------------------------------------------------------------------------- */

/* The oracle must see what a wrong pass could do. */
START_TEST(differences_are_found) {
	static const char text[] =
		"knit-ir 1\nsymbol t [1, 4]\ns1 = input \"x\" f32 128 bytes\ns2 = input \"p\" i32 16 bytes\n"
		"s3 = state \"k\" f32 256 bytes\n%1 = input s1 : f32 [t, 8]\n%2 = input s2 : i32 [t]\n"
		"%3 = state s3#0 : f32 [2, 4, 8]\n%4 = scale %1 {s=2} : f32 [t, 8]\n"
		"%5 = append %3, %4, %2, %2 {ring=0, sinks=0} : f32 [2, 4, 8] in s3#1\n%6 = silu %4 : f32 [t, 8]\n"
		"input \"x\" = %1\ninput \"p\" = %2\noutput \"y\" = %6\noutput \"z\" = %4\nstate s3 = %5\n";
	knit_graph *a, *b;
	knit_diag d = {0};
	bool skipped;

	ck_assert_msg(knit__parse_text(ctx, text, &a, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__graph_clone(a, &b, &d), KNIT_OK);
	/* p indexes sequences and positions: below both bounds */
	ck_assert_msg(knit__check_equal(a, b, 1, 0, &skipped, &d) == KNIT_OK, "%s", d.text);
	ck_assert(!skipped);
	b->nodes[3].op = KNIT_OP_GELU;
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, "output \"y\" differs at element 0") == d.text, "%s", d.text);
	b->nodes[3].op = KNIT_OP_SILU;
	b->nodes[2].in[1] = 1;
	d = (knit_diag){0};
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	ck_assert_msg(strstr(d.text, "state \"k\" differs at element ") == d.text, "%s", d.text);
	b->nodes[2].in[1] = 4;
	b->output_count = 1;
	d = (knit_diag){0};
	ck_assert_int_eq(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d), KNIT_ERR_INTERNAL);
	b->output_count = 2;
	b->nodes[1].attr[0].f = 2 * (1 + 1e-12); /* within the tolerance, but not equal */
	d = (knit_diag){0};
	ck_assert_msg(knit__check_equal(a, b, 1, TOLERANCE, NULL, &d) == KNIT_OK, "%s", d.text);
	ck_assert_int_eq(knit__check_equal(a, b, 1, 0, NULL, &d), KNIT_ERR_INTERNAL);
	knit_graph_destroy(a);
	knit_graph_destroy(b);
}
END_TEST

/* ---- memory ------------------------------------------------------------------------------------------------------ */

typedef struct budget { long left, live; } budget;

static void *budget_alloc(void *user, size_t size, size_t align) {
	budget *b = user;
	void *p = NULL;

	if (b->left == 0)
		return NULL;
	b->left -= b->left > 0;
	if (posix_memalign(&p, align, size) != 0)
		return NULL;
	b->live++;
	return p;
}

static void budget_free(void *user, void *ptr, size_t size) {
	(void)size;
	((budget *)user)->live--;
	free(ptr);
}

START_TEST(failed_allocations_are_reported) {
	budget b = {.left = -1};
	const knit_context_desc desc = {.allocator = {budget_alloc, budget_free, &b}};
	const knit_target t = target(CONTIGUOUS);
	knit_context *tight;
	knit_graph *g, *work;
	knit_diag d = {0};

	ck_assert_int_eq(knit_context_create(&desc, &tight), KNIT_OK);
	const long base = b.live;
	ck_assert_int_eq(random_graph(tight, 7, 12, &g, &d), KNIT_OK);
	const long built = b.live;
	for (long n = 0;; ++n) {
		d = (knit_diag){0};
		ck_assert_int_eq(knit__graph_clone(g, &work, &d), KNIT_OK);
		b.left = n;
		const knit_status status = knit__passes_run(work, &t, NULL, &d);
		b.left = -1;
		knit_graph_destroy(work);
		ck_assert_int_eq(b.live, built);
		if (status == KNIT_OK) {
			ck_assert_int_gt(n, 30);
			break;
		}
		ck_assert_msg(status == KNIT_ERR_MEMORY, "allocation %ld: %s: %s", n, knit_status_name(status), d.text);
		ck_assert_int_eq(d.status, KNIT_ERR_MEMORY);
	}
	knit_graph_destroy(g);
	ck_assert_int_eq(b.live, base);
	knit_context_destroy(tight);
}
END_TEST

int main(void) {
	Suite *s = suite_create("passes");
	TCase *c = tcase_create("passes");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, golden_files);
	tcase_add_test(c, every_pass_has_golden_files);
	tcase_add_test(c, random_graphs_keep_their_meaning);
	tcase_add_test(c, passes_in_any_order_keep_the_meaning);
	tcase_add_test(c, shuffled_orders_are_repaired);
	tcase_add_test(c, a_circle_has_no_order);
	tcase_add_test(c, passes_are_disabled_by_name);
	tcase_add_test(c, fusions_are_disabled_by_name);
	tcase_add_test(c, wrong_names_are_refused);
	tcase_add_test(c, the_environment_shows_and_checks);
	tcase_add_test(c, the_environment_switches_off);
	tcase_add_test(c, differences_are_found);
	tcase_add_test(c, failed_allocations_are_reported);
	suite_add_tcase(s, c);

	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
