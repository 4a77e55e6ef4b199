/* A context of 300 tokens saved and restored through knit.h: the continuation has the bits that it would have had, in the same
 * session later, in another one, in another program of the same model. On the bundled model. */
#include "../tools/model_run.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 256, SAVED = 300, AFTER = 24, ALL = SAVED + AFTER };

static const char model_path[] = KNIT_SOURCE_DIR "/frontends/demo/shakespeare.gguf";

static const knit__decoder_desc kinds[] = {
	{.kv = KNIT_F16},
	{.kv_k = KNIT_Q8_0, .kv_v = KNIT_Q4_0},
	{.kv = KNIT_F32, .sequences = 2},
	{.kv = KNIT_BF16, .window = 100, .sinks = 4}, /* a ring that has gone round */
};

static void open_run(model_run *r, knit__decoder_desc desc, knit__kv_policy policy) {
	knit_diag diag = {0};

	desc.positions = 400;
	desc.max_tokens = desc.max_outputs = 50;
	memset(r, 0, sizeof *r);
	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &r->ctx), KNIT_OK);
	ck_assert_msg(knit__model_load(r->ctx, &(knit__model_desc){.path = model_path}, &r->model, &diag) == KNIT_OK, "%s",
				  diag.text);
	r->model.config.kv_policy = policy;
	desc.config = &r->model.config;
	desc.base = r->model.file.store;
	desc.adapters = r->model.adapters;
	ck_assert_msg(knit__decoder_open(r->ctx, &desc, &r->decoder, &diag) == KNIT_OK, "%s", diag.text);
}

/* Feeds positions [begin, end) of a fixed text to sequence 0; the logits after each go to out. */
static void feed(model_run *r, int32_t begin, int32_t end, size_t batch, float *out) {
	int32_t ids[50], seq[50] = {0}, pos[50], rows[50];
	static float logits[50 * VOCAB];
	knit_diag diag = {0};

	for (int32_t at = begin; at < end; at += (int32_t)batch) {
		const size_t tokens = end - at < (int32_t)batch ? (size_t)(end - at) : batch;

		for (size_t t = 0; t < tokens; ++t) {
			pos[t] = at + (int32_t)t;
			ids[t] = (uint8_t)"What light through yonder window breaks? It is the east, and Juliet is the sun.\n"[pos[t] % 80];
			rows[t] = (int32_t)t;
		}
		ck_assert_msg(knit__decoder_step(&r->decoder, ids, seq, pos, tokens, rows, tokens, logits, &diag) == KNIT_OK, "%s",
					  diag.text);
		if (out)
			memcpy(out + (at - begin) * VOCAB, logits, tokens * VOCAB * sizeof *logits);
	}
}

static void restore(model_run *r, const char *path) {
	int64_t used[1] = {0};
	char note[16] = "";
	size_t note_bytes = sizeof note;
	knit_diag d = {0};

	const knit_status status = knit_session_load_states(r->decoder.session, path, used, 1, note, &note_bytes);
	knit_session_diag(r->decoder.session, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
	ck_assert(used[0] == SAVED && note_bytes == 5 && memcmp(note, "token", 5) == 0);
}

static void check_kind(const knit__decoder_desc *kind, knit__kv_policy policy, const char *path) {
	static float want[AFTER * VOCAB], got[AFTER * VOCAB];
	static const int64_t used[] = {SAVED};
	model_run first, other;
	knit_diag d = {0};

	open_run(&first, *kind, policy);
	feed(&first, 0, SAVED, 50, NULL);
	const knit_status saved = knit_session_save_states(first.decoder.session, path, used, 1, "token", 5);
	knit_session_diag(first.decoder.session, &d);
	ck_assert_msg(saved == KNIT_OK, "%s", d.text);
	feed(&first, SAVED, ALL, 1, want);

	/* Back in the session that went on, and that has then read something else. */
	feed(&first, 0, 50, 50, NULL);
	restore(&first, path);
	feed(&first, SAVED, ALL, 1, got);
	ck_assert_msg(memcmp(want, got, sizeof got) == 0, "off by %g", test_largest_difference(want, got, AFTER * VOCAB));
	/* And in one that has read nothing. */
	open_run(&other, *kind, policy);
	restore(&other, path);
	feed(&other, SAVED, ALL, 1, got);
	ck_assert_msg(memcmp(want, got, sizeof got) == 0, "off by %g", test_largest_difference(want, got, AFTER * VOCAB));
	/* Without the context it is another text: what is compared depends on what was restored. */
	ck_assert_int_eq(knit_session_reset_states(other.decoder.session), KNIT_OK);
	feed(&other, SAVED, ALL, 1, got);
	ck_assert(test_largest_difference(want, got, AFTER * VOCAB) > 0.1);
	model_run_close(&other);
	model_run_close(&first);
}

START_TEST(a_long_context_comes_back) {
	char path[] = "/tmp/knit-context-XXXXXX";
	const int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i)
		check_kind(&kinds[i], KNIT__KV_MODEL, path);
	check_kind(&kinds[0], KNIT__KV_LAYER, path);
	check_kind(&kinds[1], KNIT__KV_FIRST, path);
	unlink(path);
}
END_TEST

START_TEST(a_ring_comes_back) {
	char path[] = "/tmp/knit-context-XXXXXX";
	const int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	check_kind(&kinds[3], KNIT__KV_FIRST, path);
	unlink(path);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {a_long_context_comes_back, a_ring_comes_back}, *const quick[] = {a_ring_comes_back};

	if (suite_quick())
		return suite_run("context", quick, 1);
	return suite_run("context", tests, sizeof tests / sizeof *tests);
}
