/* Owns a small model whose states are saved and restored, and a folder for the files. */
#include "states_model.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, HEAD_DIM = 8 };

const states_spec states_usual = {.sequences = 2, .positions = 24, .k = KNIT_F16, .v = KNIT_Q8_0, .weights = 1, .scale = 0.4f};

char states_folder[] = "/tmp/knit-states-XXXXXX", states_path[64], states_other[64];

void states_add(knit_weights *w, const char *name, int64_t rows, int64_t columns, uint32_t seed) {
	float data[STATES_DIM * STATES_DIM];
	const int64_t dims[] = {rows, columns};

	for (const char *c = name; *c; ++c)
		seed = seed * 31 + (uint32_t)*c;
	for (int64_t i = 0; i < rows * columns; ++i) {
		seed = seed * 1664525u + 1013904223u;
		data[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
	}
	ck_assert_int_eq(knit_weights_add(w, name, KNIT_F32, 2, dims, data, (size_t)(rows * columns) * 4, NULL), KNIT_OK);
}

knit_status states_build(const states_spec *s, states_model *m) {
	static const char *const names[] = {"q", "k", "v"};
	knit_graph *g = NULL;
	knit_diag d = {0};

	ck_assert_int_eq(knit_weights_create(m->ctx, &m->store), KNIT_OK);
	states_add(m->store, "embed", STATES_VOCAB, STATES_DIM, s->weights);
	for (int i = 0; i < 3; ++i)
		states_add(m->store, names[i], STATES_DIM, STATES_DIM, s->weights);
	if (s->lora) {
		states_add(m->store, "k.a", 4, STATES_DIM, s->lora);
		states_add(m->store, "k.b", STATES_DIM, 4, s->lora);
	}
	knit_status status = knit_graph_create(m->ctx, &g);
	if (status != KNIT_OK)
		return status;
	const int64_t most = s->max_tokens ? s->max_tokens : STATES_TOKENS;
	const knit_dim n = knit_sym(g, "tokens", 1, most);
	const knit_tensor ids = knit_input(g, "ids", KNIT_I32, 1, &n), seq = knit_input(g, "seq", KNIT_I32, 1, &n);
	const knit_tensor pos = knit_input(g, "pos", KNIT_I32, 1, &n), embed = knit_weight(g, m->store, "embed");
	const knit_kv_desc desc = {.sequences = s->sequences, .positions = s->no_limit ? 0 : s->positions,
	                           .kv_heads = HEADS,
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

states_model states_open(states_spec s) {
	const knit_context_desc desc = {.cpu_threads = 1};
	states_model m = {0};

	ck_assert_int_eq(knit_context_create(&desc, &m.ctx), KNIT_OK);
	ck_assert_int_eq(states_build(&s, &m), KNIT_OK);
	return m;
}

void states_close(states_model *m) {
	knit_session_destroy(m->session);
	knit_program_release(m->program);
	knit_weights_release(m->store);
	knit_context_destroy(m->ctx);
	memset(m, 0, sizeof *m);
}

void states_feed(const states_model *m, int32_t sequence, int first, int count, float *logits) {
	int32_t ids[STATES_TOKENS], seq[STATES_TOKENS], pos[STATES_TOKENS];

	for (int i = 0; i < count; ++i) {
		pos[i] = first + i;
		seq[i] = sequence;
		ids[i] = (int32_t)((pos[i] * 7 + sequence * 3 + pos[i] / 5) % STATES_VOCAB);
	}
	ck_assert_int_eq(knit_session_set(m->session, "tokens", count), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "ids", ids, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "seq", seq, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_write(m->session, "pos", pos, (size_t)count * 4), KNIT_OK);
	ck_assert_int_eq(knit_session_run(m->session), KNIT_OK);
	if (logits)
		ck_assert_int_eq(knit_session_read(m->session, "logits", logits, (size_t)(count * STATES_VOCAB) * 4), KNIT_OK);
}

void states_feed_up_to(const states_model *m, int32_t sequence, int end) {
	for (int at = 0; at < end; at += STATES_TOKENS / 2)
		states_feed(m, sequence, at, end - at < STATES_TOKENS / 2 ? end - at : STATES_TOKENS / 2, NULL);
}

void states_says(const states_model *m, knit_status status, knit_status want, const char *text) {
	knit_diag d;

	knit_session_diag(m->session, &d);
	ck_assert_msg(status == want, "%s (%s), not %s", knit_status_name(status), d.text, knit_status_name(want));
	ck_assert_msg(strstr(d.text, text) != NULL, "\"%s\" lacks \"%s\"", d.text, text);
	ck_assert_int_eq(d.status, want);
}

void states_probe(const states_model *m, float *logits) { states_feed(m, 0, 6, 1, logits); }

/* ---- files ------------------------------------------------------------------------------------------------------- */

void states_setup(void) {
	snprintf(states_folder, sizeof states_folder, "/tmp/knit-states-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(states_folder));
	snprintf(states_path, sizeof states_path, "%s/context", states_folder);
	snprintf(states_other, sizeof states_other, "%s/other", states_folder);
}

int states_strangers(void) {
	DIR *d = opendir(states_folder);
	int n = 0;

	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.' && strcmp(e->d_name, "context") != 0 && strcmp(e->d_name, "other") != 0;
	closedir(d);
	return n;
}

void states_teardown(void) {
	char command[80];

	ck_assert_int_eq(states_strangers(), 0);
	snprintf(command, sizeof command, "rm -r %s", states_folder);
	ck_assert_int_eq(system(command), 0);
}

char *states_slurp(const char *name, size_t *bytes) {
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

void states_spill(const char *name, const char *data, size_t bytes) {
	FILE *f = fopen(name, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
	ck_assert_int_eq(fclose(f), 0);
}
