/* Saving and restoring states: what comes back, what is refused, what is left after failures and kills. */
#include "../../backends/states_file.h"
#include "../../backends/whole_file.h"
#include "../tools/suite.h"
#include "../tools/track_alloc.h"

#include "knit.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DIM = 32, HEADS = 4, HEAD_DIM = 8, VOCAB = 12, TOKENS = 8, LARGE = 20000 };

/* A model of one layer visited twice, in ways that differ. */
typedef struct spec {
	int64_t sequences, positions, window, sinks;
	knit_dtype k, v;
	uint32_t weights, lora; /* seeds; lora 0: none */
	float scale;            /* of attention */
	const char *disable;
	bool share, no_limit;   /* both visits use one slot; only the window is kept */
	int64_t max_tokens;
} spec;

static const spec usual = {.sequences = 2, .positions = 24, .k = KNIT_F16, .v = KNIT_Q8_0, .weights = 1, .scale = 0.4f};

typedef struct model {
	knit_context *ctx;
	knit_weights *store;
	knit_program *program;
	knit_session *session;
} model;

static char folder[] = "/tmp/knit-states-XXXXXX", path[64], other[64];

/* ---- a model ----------------------------------------------------------------------------------------------------- */

static void add(knit_weights *w, const char *name, int64_t rows, int64_t columns, uint32_t seed) {
	float data[DIM * DIM];
	const int64_t dims[] = {rows, columns};

	for (const char *c = name; *c; ++c)
		seed = seed * 31 + (uint32_t)*c;
	for (int64_t i = 0; i < rows * columns; ++i) {
		seed = seed * 1664525u + 1013904223u;
		data[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
	}
	ck_assert_int_eq(knit_weights_add(w, name, KNIT_F32, 2, dims, data, (size_t)(rows * columns) * 4, NULL), KNIT_OK);
}

static knit_status build(const spec *s, model *m) {
	static const char *const names[] = {"q", "k", "v"};
	knit_graph *g = NULL;
	knit_diag d = {0};

	ck_assert_int_eq(knit_weights_create(m->ctx, &m->store), KNIT_OK);
	add(m->store, "embed", VOCAB, DIM, s->weights);
	for (int i = 0; i < 3; ++i)
		add(m->store, names[i], DIM, DIM, s->weights);
	if (s->lora) {
		add(m->store, "k.a", 4, DIM, s->lora);
		add(m->store, "k.b", DIM, 4, s->lora);
	}
	knit_status status = knit_graph_create(m->ctx, &g);
	if (status != KNIT_OK)
		return status;
	const int64_t most = s->max_tokens ? s->max_tokens : TOKENS;
	const knit_dim n = knit_sym(g, "tokens", 1, most);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &n), seq = knit_input(g, "seq", KNIT_I32, 1, &n);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &n), embed = knit_weight(g, m->store, "embed");
	const knit_kv_desc desc = {.sequences = s->sequences, .positions = s->no_limit ? 0 : s->positions, .kv_heads = HEADS,
	                           .head_dim = HEAD_DIM, .k = s->k, .v = s->v, .window = s->window, .sinks = s->sinks,
	                           .max_tokens = most};
	knit_tensor x = knit_gather(g, embed, ids);
	knit_kv_slot slot = {0};

	for (int visit = 0; visit < 2; ++visit) {
		knit_tensor y[3];

		knit_origin(g, "visit.%d", visit);
		for (int i = 0; i < 3; ++i) {
			y[i] = knit_linear(g, x, knit_weight(g, m->store, "%s", names[i]));
			if (i == 1 && s->lora)
				y[i] = knit_add(g, y[i], knit_linear(g, knit_linear(g, x, knit_adapter(g, m->store, "k.a")),
				                                     knit_adapter(g, m->store, "k.b")));
			y[i] = knit_split_heads(g, y[i], HEADS);
			if (i < 2)
				y[i] = knit_rope(g, y[i], pos, NULL);
		}
		if (visit == 0 || !s->share)
			slot = knit_kv_slot_define(g, &desc, "%d", visit);
		knit_kv_slot_append(g, &slot, y[1], y[2], seq, pos);
		x = knit_add(g, x, knit_merge_heads(g, knit_kv_slot_attend(g, &slot, y[0], seq, pos, s->scale)));
	}
	knit_output(g, "logits", knit_linear(g, x, embed));
	const knit_compile_desc compile = {.device = "cpu", .disable_passes = s->disable};
	status = knit_compile(g, &compile, &m->program, &d);
	knit_graph_destroy(g);
	return status == KNIT_OK ? knit_session_create(m->program, &m->session, &d) : status;
}

static model open_model(spec s) {
	const knit_context_desc desc = {.cpu_threads = 1};
	model m = {0};

	ck_assert_int_eq(knit_context_create(&desc, &m.ctx), KNIT_OK);
	ck_assert_int_eq(build(&s, &m), KNIT_OK);
	return m;
}

static void close_model(model *m) {
	knit_session_destroy(m->session);
	knit_program_release(m->program);
	knit_weights_release(m->store);
	knit_context_destroy(m->ctx);
	memset(m, 0, sizeof *m);
}

/* Token number p of sequence q is a function of both. */
static void feed(const model *m, int32_t sequence, int first, int count, float *logits) {
	int32_t ids[TOKENS], seq[TOKENS], pos[TOKENS];

	for (int i = 0; i < count; ++i) {
		pos[i] = first + i;
		seq[i] = sequence;
		ids[i] = (int32_t)((pos[i] * 7 + sequence * 3 + pos[i] / 5) % VOCAB);
	}
	ck_assert_int_eq(knit_session_set(m->session, "tokens", count), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "ids", ids, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "seq", seq, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "pos", pos, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_run(m->session), KNIT_OK);
	if (logits)
		ck_assert_int_eq(knit_session_read(m->session, "logits", logits, (size_t)(count * VOCAB) * 4), KNIT_OK);
}

static void feed_up_to(const model *m, int32_t sequence, int end) {
	for (int at = 0; at < end; at += TOKENS / 2)
		feed(m, sequence, at, end - at < TOKENS / 2 ? end - at : TOKENS / 2, NULL);
}

static void says(const model *m, knit_status status, knit_status want, const char *text) {
	knit_diag d;

	knit_session_diag(m->session, &d);
	ck_assert_msg(status == want, "%s (%s), not %s", knit_status_name(status), d.text, knit_status_name(want));
	ck_assert_msg(strstr(d.text, text) != NULL, "\"%s\" lacks \"%s\"", d.text, text);
	ck_assert_int_eq(d.status, want);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void setup(void) {
	snprintf(folder, sizeof folder, "/tmp/knit-states-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/context", folder);
	snprintf(other, sizeof other, "%s/other", folder);
}

/* Names in the folder but for the two above. */
static int strangers(void) {
	DIR *d = opendir(folder);
	int n = 0;

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.' && strcmp(e->d_name, "context") != 0 && strcmp(e->d_name, "other") != 0;
	closedir(d);
	return n;
}

static void teardown(void) {
	char command[80];

	ck_assert_int_eq(strangers(), 0);
	snprintf(command, sizeof command, "rm -r %s", folder);
	ck_assert_int_eq(system(command), 0);
}

static char *slurp(const char *name, size_t *bytes) {
	FILE *f = fopen(name, "rb");
	char *data;

	ck_assert_ptr_nonnull(f);
	fseek(f, 0, SEEK_END);
	*bytes = (size_t)ftell(f);
	rewind(f);
	data = malloc(*bytes + 1);
	ck_assert_uint_eq(fread(data, 1, *bytes, f), *bytes);
	fclose(f);
	return data;
}

static void spill(const char *name, const char *data, size_t bytes) {
	FILE *f = fopen(name, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
	ck_assert_int_eq(fclose(f), 0);
}

/* ---- coming back ------------------------------------------------------------------------------------------------- */

/* Saves after 13 and 5 positions, brings it back elsewhere and goes on: the same bits as without the detour. */
static void goes_on(spec from, spec to) {
	const int64_t used[] = {13, 5};
	model a = open_model(from), b = open_model(to);
	float want[TOKENS * VOCAB], got[TOKENS * VOCAB];
	int64_t back[3] = {-1, -1, -1};
	char note[8] = "";
	size_t note_bytes = sizeof note;

	for (int32_t q = 0; q < 2; ++q)
		feed_up_to(&a, q, (int)used[q]);
	says(&a, knit_session_save_states(a.session, path, used, 2, "abcde", 5), KNIT_OK, "");
	/* what was there before does not shine through */
	for (int32_t q = 0; q < 2; ++q)
		feed_up_to(&b, q, 24);
	says(&b, knit_session_load_states(b.session, path, back, (size_t)(to.sequences < 3 ? to.sequences : 3), note, &note_bytes),
	     KNIT_OK, "");
	ck_assert(back[0] == 13 && back[1] == 5 && (to.sequences < 3 ? back[2] == -1 : back[2] == 0));
	ck_assert(note_bytes == 5 && memcmp(note, "abcde", 5) == 0);
	for (int32_t q = 0; q < 2; ++q)
		for (int at = (int)used[q]; at < 24 - TOKENS; at += 3) {
			feed(&a, q, at, 3, want);
			feed(&b, q, at, 3, got);
			ck_assert_msg(memcmp(want, got, 3 * VOCAB * 4) == 0, "sequence %d, position %d", (int)q, at);
		}
	close_model(&a);
	close_model(&b);
}

START_TEST(contexts_come_back) {
	static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	spec from = usual, to = usual;

	for (int i = 0; i < 5; ++i) {
		from.k = to.k = types[i];
		from.v = to.v = types[(i + 3) % 5];
		goes_on(from, to);
	}
}
END_TEST

/* More room, more sequences, other passes, a ring for what was in cells: none of it changes what states mean. */
START_TEST(contexts_move_to_other_programs) {
	spec from = usual, to = usual;

	to.positions = 100;
	to.sequences = 5;
	goes_on(from, to);
	to = usual;
	to.disable = "canonicalise,cse,dedup_weights";
	goes_on(from, to);
	goes_on(to, from);
	from.window = to.window = 20;
	from.sinks = to.sinks = 2;
	to.no_limit = true; /* 20 + 2 + 7 cells in a ring */
	goes_on(from, to);
	goes_on(to, from);
	from.lora = to.lora = 9;
	goes_on(from, to);
}
END_TEST

/* What was not saved is zero, whatever the session held: a token that looks at it sees what it would in a new session. */
START_TEST(the_rest_is_zero) {
	const int64_t used[] = {5};
	model a = open_model(usual), b = open_model(usual);
	float want[VOCAB], got[VOCAB];
	int64_t back[1];

	feed_up_to(&a, 0, 5);
	says(&a, knit_session_save_states(a.session, path, used, 1, NULL, 0), KNIT_OK, "");
	for (int32_t q = 0; q < 2; ++q)
		feed_up_to(&b, q, 20);
	says(&b, knit_session_load_states(b.session, path, back, 1, NULL, NULL), KNIT_OK, "");
	for (int32_t q = 0; q < 2; ++q) {
		feed(&a, q, 12, 1, want);
		feed(&b, q, 12, 1, got);
		ck_assert(memcmp(want, got, sizeof got) == 0);
	}
	close_model(&a);
	close_model(&b);
}
END_TEST

/* A ring that has gone round comes back as it is, into one that goes round in the same way only. */
static void ring_comes_back(int64_t first) {
	spec s = usual;
	const int64_t used[] = {first, 30};
	int64_t back[2];
	float want[VOCAB * 4], got[VOCAB * 4];

	s.window = 9;
	s.sinks = 3;
	s.no_limit = true;
	model a = open_model(s), b = open_model(s);
	for (int32_t q = 0; q < 2; ++q)
		feed_up_to(&a, q, (int)used[q]);
	says(&a, knit_session_save_states(a.session, path, used, 2, NULL, 0), KNIT_OK, "");
	says(&b, knit_session_load_states(b.session, path, back, 2, NULL, NULL), KNIT_OK, "");
	ck_assert(back[0] == first && back[1] == 30);
	for (int at = (int)first; at < first + 24; at += 4) {
		feed(&a, 0, at, 4, want);
		feed(&b, 0, at, 4, got);
		ck_assert(memcmp(want, got, sizeof got) == 0);
	}
	close_model(&b);
	s.max_tokens = TOKENS - 1;
	b = open_model(s);
	says(&b, knit_session_load_states(b.session, path, back, 2, NULL, NULL), KNIT_ERR_ARGUMENT, "its ring has gone round");
	close_model(&b);
	close_model(&a);
}

START_TEST(rings_come_back) {
	for (int64_t first = 77; first < 94; first += 4) /* 16 cells: each is the oldest that is seen at one of them */
		ring_comes_back(first);
}
END_TEST

/* ---- refused ----------------------------------------------------------------------------------------------------- */

/* The session's next logits; two sessions with the same states give the same. */
static void probe(const model *m, float *logits) { feed(m, 0, 6, 1, logits); }

START_TEST(other_models_are_refused) {
	spec specs[9];
	const char *texts[] = {"another model", "another model", "another model", "another model", "\"k.1\" that this model lacks",
	                       "another type or shape", "holds 13 positions, this session has room for 12",
	                       "more sequences than this session has", "another model"};
	const knit_status status[] = {KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT,
	                              KNIT_ERR_ARGUMENT, KNIT_ERR_LIMIT, KNIT_ERR_LIMIT, KNIT_ERR_ARGUMENT};
	const int64_t used[] = {13, 5};
	spec from = usual;

	from.lora = 3;
	model a = open_model(from);
	for (int32_t q = 0; q < 2; ++q)
		feed_up_to(&a, q, (int)used[q]);
	says(&a, knit_session_save_states(a.session, path, used, 2, "note", 4), KNIT_OK, "");
	for (int i = 0; i < 9; ++i)
		specs[i] = from;
	specs[0].weights = 2;
	specs[1].lora = 4;
	specs[2].lora = 0;
	specs[3].scale = 0.5f;
	specs[4].share = true;
	specs[5].v = KNIT_Q4_0;
	specs[6].positions = 12;
	specs[7].sequences = 1;
	specs[8].window = 20; /* the slot has as many cells, but what is seen is less */
	for (int i = 0; i < 9; ++i) {
		model b = open_model(specs[i]);
		float before[VOCAB], after[VOCAB];
		int64_t back[2] = {-7, -7};
		char note[8] = "old";
		size_t note_bytes = sizeof note;

		feed_up_to(&b, 0, 6);
		probe(&b, before);
		says(&b, knit_session_load_states(b.session, path, back, 2, note, &note_bytes), status[i], texts[i]);
		probe(&b, after);
		ck_assert_msg(memcmp(before, after, sizeof after) == 0, "row %d: the session was changed", i);
		ck_assert(back[0] == -7 && back[1] == -7 && strcmp(note, "old") == 0);
		close_model(&b);
	}
	/* The caller's arrays are too small. */
	int64_t back[1];
	char small[3];
	size_t note_bytes = sizeof small;
	says(&a, knit_session_load_states(a.session, path, back, 1, NULL, NULL), KNIT_ERR_LIMIT, "more sequences than were asked");
	int64_t both[2];
	says(&a, knit_session_load_states(a.session, path, both, 2, small, &note_bytes), KNIT_ERR_LIMIT,
	     "a note of 4 bytes, there is room for 3");
	ck_assert_uint_eq(note_bytes, 4);
	close_model(&a);
}
END_TEST

/* The adapter that is bound counts, not the one that was compiled in. */
START_TEST(the_bound_adapter_counts) {
	const int64_t used[] = {9};
	int64_t back[1];
	spec s = usual;
	knit_weights *store;
	knit_adapter_set *set;
	knit_diag d;

	s.lora = 3;
	model a = open_model(s);
	ck_assert_int_eq(knit_weights_create(a.ctx, &store), KNIT_OK);
	add(store, "k.a", 4, DIM, 4);
	add(store, "k.b", DIM, 4, 4);
	ck_assert_int_eq(knit_adapter_open(a.program, store, &set, &d), KNIT_OK);
	ck_assert_int_eq(knit_session_bind_adapter(a.session, set), KNIT_OK);
	feed_up_to(&a, 0, 9);
	says(&a, knit_session_save_states(a.session, path, used, 1, NULL, 0), KNIT_OK, "");
	ck_assert_int_eq(knit_session_bind_adapter(a.session, NULL), KNIT_OK);
	says(&a, knit_session_load_states(a.session, path, back, 1, NULL, NULL), KNIT_ERR_ARGUMENT, "another adapter");
	s.lora = 4;
	model b = open_model(s);
	says(&b, knit_session_load_states(b.session, path, back, 1, NULL, NULL), KNIT_OK, "");
	close_model(&b);
	ck_assert_int_eq(knit_session_bind_adapter(a.session, set), KNIT_OK);
	says(&a, knit_session_load_states(a.session, path, back, 1, NULL, NULL), KNIT_OK, "");
	knit_adapter_release(set);
	knit_weights_release(store);
	close_model(&a);
}
END_TEST

/* Every length of the file, and every bit of it flipped: refused, and the session as it was. */
START_TEST(cut_and_flipped_files_are_refused) {
	spec s = usual;
	const int64_t used[] = {3};
	float before[VOCAB], after[VOCAB];
	int64_t back[1];
	size_t bytes;

	s.k = s.v = KNIT_Q4_0;
	model a = open_model(s);
	feed_up_to(&a, 0, 3);
	says(&a, knit_session_save_states(a.session, path, used, 1, "xyz", 3), KNIT_OK, "");
	char *const data = slurp(path, &bytes);
	feed_up_to(&a, 0, 6);
	probe(&a, before);
	for (size_t length = 0; length < bytes; ++length) {
		spill(other, data, length);
		const knit_status status = knit_session_load_states(a.session, other, back, 1, NULL, NULL);
		says(&a, status, KNIT_ERR_FORMAT, "/other: ");
	}
	for (size_t i = 0; i < bytes; ++i) {
		data[i] = (char)(data[i] ^ (1 << (i % 8)));
		spill(other, data, bytes);
		says(&a, knit_session_load_states(a.session, other, back, 1, NULL, NULL), KNIT_ERR_FORMAT, "/other: ");
		data[i] = (char)(data[i] ^ (1 << (i % 8)));
	}
	char *const longer = calloc(1, bytes + 1);
	memcpy(longer, data, bytes);
	spill(other, longer, bytes + 1);
	says(&a, knit_session_load_states(a.session, other, back, 1, NULL, NULL), KNIT_ERR_FORMAT, "bytes past its end");
	free(longer);
	probe(&a, after);
	ck_assert(memcmp(before, after, sizeof after) == 0);
	spill(other, data, bytes);
	says(&a, knit_session_load_states(a.session, other, back, 1, NULL, NULL), KNIT_OK, "");
	free(data);
	close_model(&a);
}
END_TEST

/* Heads that make no sense with a checksum that does: made by hand. */
START_TEST(foreign_heads_are_refused) {
	const int64_t used[] = {3};
	int64_t back[1];
	size_t bytes;
	model a = open_model(usual);

	feed_up_to(&a, 0, 3);
	says(&a, knit_session_save_states(a.session, path, used, 1, "xyz", 3), KNIT_OK, "");
	char *const data = slurp(path, &bytes);
	for (size_t at = 8; at < 400 && at + 8 < bytes; at += 4) {
		for (int kind = 0; kind < 3; ++kind) {
			static const uint32_t values[] = {0, 0x7fffffff, 0xffffffff};
			char *const copy = malloc(bytes);
			knit_hasher h;

			memcpy(copy, data, bytes);
			memcpy(copy + at, &values[kind], 4);
			knit__hasher_init(&h);
			knit__hasher_add(&h, copy, bytes - KNIT_STATES_CHECKSUM);
			const knit_digest sum = knit__hasher_digest(&h);
			memcpy(copy + bytes - KNIT_STATES_CHECKSUM, &sum, sizeof sum);
			spill(other, copy, bytes);
			const knit_status status = knit_session_load_states(a.session, other, back, 1, NULL, NULL);
			const bool same = memcmp(copy, data, bytes - KNIT_STATES_CHECKSUM) == 0;
			/* A ring or sinks that rows do not depend on, and the note, may be anything. */
			ck_assert_msg(status != KNIT_ERR_INTERNAL && status != KNIT_ERR_DEVICE && (!same || status == KNIT_OK),
			              "at %zu: %s", at, knit_status_name(status));
			free(copy);
		}
	}
	free(data);
	close_model(&a);
}
END_TEST

START_TEST(calls_are_checked) {
	model a = open_model(usual);
	int64_t used[3] = {3, 0, 0};

	feed_up_to(&a, 0, 3);
	ck_assert_int_eq(knit_session_save_states(NULL, path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_load_states(NULL, path, used, 1, NULL, NULL), KNIT_ERR_ARGUMENT);
	says(&a, knit_session_save_states(a.session, NULL, used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "the path is NULL");
	says(&a, knit_session_save_states(a.session, path, NULL, 1, NULL, 0), KNIT_ERR_ARGUMENT, "used is NULL");
	says(&a, knit_session_save_states(a.session, path, used, 0, NULL, 0), KNIT_ERR_ARGUMENT, "no sequences");
	says(&a, knit_session_save_states(a.session, path, used, 1, NULL, 1), KNIT_ERR_ARGUMENT, "the note is NULL");
	says(&a, knit_session_save_states(a.session, path, used, 1, "", (size_t)1 << 40), KNIT_ERR_ARGUMENT, "a note of");
	says(&a, knit_session_save_states(a.session, path, used, 3, NULL, 0), KNIT_ERR_ARGUMENT, "3 sequences: state");
	used[0] = 25;
	says(&a, knit_session_save_states(a.session, path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "25 positions in use");
	used[0] = -1;
	says(&a, knit_session_save_states(a.session, path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "-1 positions in use");
	used[0] = 3;
	says(&a, knit_session_save_states(a.session, folder, used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "no plain file");
	says(&a, knit_session_save_states(a.session, "/dev/null", used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "no plain file");
	says(&a, knit_session_save_states(a.session, "/nowhere/at/all", used, 1, NULL, 0), KNIT_ERR_IO, "/nowhere/at/all");
	says(&a, knit_session_save_states(a.session, "", used, 1, NULL, 0), KNIT_ERR_IO, "");
	says(&a, knit_session_load_states(a.session, path, used, 1, NULL, NULL), KNIT_ERR_NOT_FOUND, "/context: ");
	says(&a, knit_session_load_states(a.session, folder, used, 1, NULL, NULL), KNIT_ERR_FORMAT, "no plain file");
	says(&a, knit_session_load_states(a.session, "/dev/zero", used, 1, NULL, NULL), KNIT_ERR_FORMAT, "no plain file");
	says(&a, knit_session_load_states(a.session, path, used, 1, "", NULL), KNIT_ERR_ARGUMENT, "note_bytes is NULL");
	says(&a, knit_session_load_states(a.session, path, NULL, 1, NULL, NULL), KNIT_ERR_ARGUMENT, "used is NULL");
	spill(other, "GGUF", 4);
	says(&a, knit_session_load_states(a.session, other, used, 1, NULL, NULL), KNIT_ERR_FORMAT, "too short");
	close_model(&a);
}
END_TEST

/* ---- failing ----------------------------------------------------------------------------------------------------- */

static void save_context(const model *m, int used_positions, const char *note) {
	const int64_t used[] = {used_positions};

	says(m, knit_session_save_states(m->session, path, used, 1, note, strlen(note)), KNIT_OK, "");
}

/* One of the two contexts that were ever saved under the name, whole. */
static void check_either(const model *m, const char *a, const char *b) {
	char note[16] = "";
	size_t note_bytes = sizeof note;
	int64_t used[1];

	says(m, knit_session_load_states(m->session, path, used, 1, note, &note_bytes), KNIT_OK, "");
	ck_assert((note_bytes == strlen(a) && memcmp(note, a, note_bytes) == 0 && used[0] == 5) ||
	          (note_bytes == strlen(b) && memcmp(note, b, note_bytes) == 0 && used[0] == 24));
}

/* The file keeps its mode, and a link stays one. */
START_TEST(files_are_replaced) {
	model a = open_model(usual);
	struct stat st;
	char link[80];

	feed_up_to(&a, 0, 24);
	knit__whole_file_names_only = _i;
	umask(027);
	save_context(&a, 5, "first");
	ck_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
	ck_assert_int_eq(chmod(path, 0604), 0);
	snprintf(link, sizeof link, "%s/other", folder);
	ck_assert_int_eq(symlink("context", link), 0);
	const int64_t used[] = {24};
	says(&a, knit_session_save_states(a.session, link, used, 1, "second", 6), KNIT_OK, "");
	ck_assert(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	ck_assert(lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0604);
	check_either(&a, "-", "second");
	knit__whole_file_names_only = false;
	umask(022);
	close_model(&a);
}
END_TEST

/* A disk that is full at any point: IO, the old file as it was, nothing beside it. */
START_TEST(full_disks_leave_the_old_file) {
	model a = open_model(usual);
	const int64_t used[] = {24};
	struct rlimit old, small;
	size_t bytes, now;

	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	feed_up_to(&a, 0, 24);
	knit__whole_file_names_only = _i;
	save_context(&a, 5, "first");
	char *const first = slurp(path, &bytes);
	says(&a, knit_session_save_states(a.session, other, used, 1, "second", 6), KNIT_OK, "");
	free(slurp(other, &now));
	const rlim_t whole = (rlim_t)now;
	for (rlim_t at = 0; at < whole; at += at < 40 || whole - at < 40 ? 1 : 199) {
		small = old;
		small.rlim_cur = at;
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
		const knit_status status = knit_session_save_states(a.session, path, used, 1, "second", 6);
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
		says(&a, status, KNIT_ERR_IO, "File too large");
		char *const there = slurp(path, &now);
		ck_assert(now == bytes && memcmp(there, first, bytes) == 0);
		free(there);
		ck_assert_int_eq(strangers(), 0);
	}
	free(first);
	knit__whole_file_names_only = false;
	close_model(&a);
}
END_TEST

/* A process killed at any point while it saves over and over: what is under the name is whole. */
START_TEST(kills_leave_a_whole_file) {
	spec s = usual;
	uint64_t seed = 12345;
	int saved = 0;

	s.positions = LARGE; /* 4 MiB a file: most of the time is spent writing */
	model a = open_model(s);
	feed_up_to(&a, 0, 24);
	save_context(&a, 5, "first");
	for (int round = 0; round < 60; ++round) {
		const pid_t child = fork();

		ck_assert_int_ge(child, 0);
		if (child == 0) {
			knit__whole_file_names_only = round % 2;
			const int64_t few[] = {24}, all[] = {LARGE};

			for (;;) {
				knit_session_save_states(a.session, other, all, 1, "large", 5);
				knit_session_save_states(a.session, path, few, 1, "second", 6);
			}
		}
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		const struct timespec wait = {0, (long)(seed >> 40) * 4 % 60000000};
		nanosleep(&wait, NULL);
		ck_assert_int_eq(kill(child, SIGKILL), 0);
		ck_assert_int_eq(waitpid(child, NULL, 0), child);
		check_either(&a, "first", "second");
		int64_t used[1];
		if (access(other, F_OK) == 0) {
			says(&a, knit_session_load_states(a.session, other, used, 1, NULL, NULL), KNIT_OK, "");
			ck_assert_int_eq(used[0], LARGE);
			++saved;
		}
	}
	printf("killed 60 times while saving; the large file was there, and whole, after %d of them\n", saved);
	close_model(&a);
	/* Between link and rename a complete file may have been left under its passing name; without files without names any. */
	char command[96];
	snprintf(command, sizeof command, "rm -f %s/context.* %s/other.*", folder, folder);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Each allocation in turn fails: MEMORY, nothing leaked, nothing left, the session as it was. */
START_TEST(allocations_may_fail) {
	track_alloc t = {0};
	model m = {0};
	const int64_t used[] = {5};
	int64_t back[1];
	float before[VOCAB], after[VOCAB];
	bool done = false;

	m.ctx = track_context(&t);
	ck_assert_ptr_nonnull(m.ctx);
	ck_assert_int_eq(build(&usual, &m), KNIT_OK);
	feed_up_to(&m, 0, 6);
	says(&m, knit_session_save_states(m.session, path, used, 1, "n", 1), KNIT_OK, "");
	probe(&m, before);
	const uint64_t live = t.live;
	for (int call = 0; call < 2; ++call, done = false) {
		for (int fail_at = 1; !done; ++fail_at) {
			t.fail_at = t.count + (uint64_t)fail_at;
			const knit_status status = call ? knit_session_load_states(m.session, path, back, 1, NULL, NULL)
			                                : knit_session_save_states(m.session, other, used, 1, "n", 1);
			done = status == KNIT_OK;
			ck_assert_msg(done || status == KNIT_ERR_MEMORY, "%s", knit_status_name(status));
			ck_assert_uint_eq(t.live, live);
			ck_assert(done || call || access(other, F_OK) != 0);
			ck_assert_int_lt(fail_at, 100);
			t.fail_at = 0;
			if (!done) {
				probe(&m, after);
				ck_assert(memcmp(before, after, sizeof after) == 0);
			}
		}
	}
	close_model(&m);
	ck_assert(t.live == 0 && !t.bad_free);
}
END_TEST

int main(void) {
	Suite *const s = suite_create("states_file");
	TCase *const c = tcase_create("all");
	const TTest *const tests[] = {contexts_come_back, contexts_move_to_other_programs, the_rest_is_zero,
	                              rings_come_back,
	                              other_models_are_refused, the_bound_adapter_counts, cut_and_flipped_files_are_refused,
	                              foreign_heads_are_refused, calls_are_checked, files_are_replaced,
	                              full_disks_leave_the_old_file, kills_leave_a_whole_file, allocations_may_fail};

	tcase_set_timeout(c, 0);
	tcase_add_checked_fixture(c, setup, teardown);
	for (size_t i = 0; i < sizeof tests / sizeof *tests; ++i)
		tcase_add_loop_test(c, tests[i], 0, tests[i] == files_are_replaced || tests[i] == full_disks_leave_the_old_file ? 2 : 1);
	suite_add_tcase(s, c);
	SRunner *const r = srunner_create(s);
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
