/* Saving and restoring states: what comes back and what is refused. What failures and kills leave is in
 * test_states_file_faults.c. */
#include "../../backends/states_file.h"
#include "../tools/states_model.h"
#include "../tools/suite.h"

#include <stdlib.h>
#include <string.h>

/* ---- coming back ------------------------------------------------------------------------------------------------- */

/* Saves after 13 and 5 positions, brings it back elsewhere and goes on: the same bits as without the detour. */
static void goes_on(states_spec from, states_spec to) {
	const int64_t used[] = {13, 5};
	states_model a = states_open(from), b = states_open(to);
	float want[STATES_TOKENS * STATES_VOCAB], got[STATES_TOKENS * STATES_VOCAB];
	int64_t back[3] = {-1, -1, -1};
	char note[8] = "";
	size_t note_bytes = sizeof note;

	for (int32_t q = 0; q < 2; ++q)
		states_feed_up_to(&a, q, (int)used[q]);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 2, "abcde", 5), KNIT_OK, "");
	/* what was there before does not shine through */
	for (int32_t q = 0; q < 2; ++q)
		states_feed_up_to(&b, q, 24);
	states_says(&b,
	            knit_session_load_states(b.session, states_path, back, (size_t)(to.sequences < 3 ? to.sequences : 3), note, &note_bytes),
	     KNIT_OK, "");
	ck_assert(back[0] == 13 && back[1] == 5 && (to.sequences < 3 ? back[2] == -1 : back[2] == 0));
	ck_assert(note_bytes == 5 && memcmp(note, "abcde", 5) == 0);
	for (int32_t q = 0; q < 2; ++q)
		for (int at = (int)used[q]; at < 24 - STATES_TOKENS; at += 3) {
			states_feed(&a, q, at, 3, want);
			states_feed(&b, q, at, 3, got);
			ck_assert_msg(memcmp(want, got, 3 * STATES_VOCAB * 4) == 0, "sequence %d, position %d", (int)q, at);
		}
	states_close(&a);
	states_close(&b);
}

START_TEST(contexts_come_back) {
	static const knit_dtype types[] = {KNIT_F32, KNIT_F16, KNIT_BF16, KNIT_Q8_0, KNIT_Q4_0};
	states_spec from = states_usual, to = states_usual;

	for (int i = 0; i < 5; ++i) {
		from.k = to.k = types[i];
		from.v = to.v = types[(i + 3) % 5];
		goes_on(from, to);
	}
}
END_TEST

/* More room, more sequences, other passes, a ring for what was in cells: none of it changes what states mean. */
START_TEST(contexts_move_to_other_programs) {
	states_spec from = states_usual, to = states_usual;

	to.positions = 100;
	to.sequences = 5;
	goes_on(from, to);
	to = states_usual;
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
	states_model a = states_open(states_usual), b = states_open(states_usual);
	float want[STATES_VOCAB], got[STATES_VOCAB];
	int64_t back[1];

	states_feed_up_to(&a, 0, 5);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, NULL, 0), KNIT_OK, "");
	for (int32_t q = 0; q < 2; ++q)
		states_feed_up_to(&b, q, 20);
	states_says(&b, knit_session_load_states(b.session, states_path, back, 1, NULL, NULL), KNIT_OK, "");
	for (int32_t q = 0; q < 2; ++q) {
		states_feed(&a, q, 12, 1, want);
		states_feed(&b, q, 12, 1, got);
		ck_assert(memcmp(want, got, sizeof got) == 0);
	}
	states_close(&a);
	states_close(&b);
}
END_TEST

/* A ring that has gone round comes back as it is, into one that goes round in the same way only. */
static void ring_comes_back(int64_t first) {
	states_spec s = states_usual;
	const int64_t used[] = {first, 30};
	int64_t back[2];
	float want[STATES_VOCAB * 4], got[STATES_VOCAB * 4];

	s.window = 9;
	s.sinks = 3;
	s.no_limit = true;
	states_model a = states_open(s), b = states_open(s);
	for (int32_t q = 0; q < 2; ++q)
		states_feed_up_to(&a, q, (int)used[q]);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 2, NULL, 0), KNIT_OK, "");
	states_says(&b, knit_session_load_states(b.session, states_path, back, 2, NULL, NULL), KNIT_OK, "");
	ck_assert(back[0] == first && back[1] == 30);
	for (int at = (int)first; at < first + 24; at += 4) {
		states_feed(&a, 0, at, 4, want);
		states_feed(&b, 0, at, 4, got);
		ck_assert(memcmp(want, got, sizeof got) == 0);
	}
	states_close(&b);
	s.max_tokens = STATES_TOKENS - 1;
	b = states_open(s);
	states_says(&b, knit_session_load_states(b.session, states_path, back, 2, NULL, NULL), KNIT_ERR_ARGUMENT,
	            "its ring has gone round");
	states_close(&b);
	states_close(&a);
}

START_TEST(rings_come_back) {
	for (int64_t first = 77; first < 94; first += 4) /* 16 cells: each is the oldest that is seen at one of them */
		ring_comes_back(first);
}
END_TEST

/* ---- refused ----------------------------------------------------------------------------------------------------- */

START_TEST(other_models_are_refused) {
	states_spec specs[9];
	const char *texts[] = {"another model", "another model", "another model", "another model",
	                       "\"k.1\" that this model lacks",
	                       "another type or shape", "holds 13 positions, this session has room for 12",
	                       "more sequences than this session has", "another model"};
	const knit_status status[] = {KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT, KNIT_ERR_ARGUMENT,
	                              KNIT_ERR_ARGUMENT,
	                              KNIT_ERR_ARGUMENT, KNIT_ERR_LIMIT, KNIT_ERR_LIMIT, KNIT_ERR_ARGUMENT};
	const int64_t used[] = {13, 5};
	states_spec from = states_usual;

	from.lora = 3;
	states_model a = states_open(from);
	for (int32_t q = 0; q < 2; ++q)
		states_feed_up_to(&a, q, (int)used[q]);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 2, "note", 4), KNIT_OK, "");
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
		states_model b = states_open(specs[i]);
		float before[STATES_VOCAB], after[STATES_VOCAB];
		int64_t back[2] = {-7, -7};
		char note[8] = "old";
		size_t note_bytes = sizeof note;

		states_feed_up_to(&b, 0, 6);
		states_probe(&b, before);
		states_says(&b, knit_session_load_states(b.session, states_path, back, 2, note, &note_bytes), status[i],
		            texts[i]);
		states_probe(&b, after);
		ck_assert_msg(memcmp(before, after, sizeof after) == 0, "row %d: the session was changed", i);
		ck_assert(back[0] == -7 && back[1] == -7 && strcmp(note, "old") == 0);
		states_close(&b);
	}
	/* The caller's arrays are too small. */
	int64_t back[1];
	char small[3];
	size_t note_bytes = sizeof small;
	states_says(&a, knit_session_load_states(a.session, states_path, back, 1, NULL, NULL), KNIT_ERR_LIMIT,
	            "more sequences than were asked");
	int64_t both[2];
	states_says(&a, knit_session_load_states(a.session, states_path, both, 2, small, &note_bytes), KNIT_ERR_LIMIT,
	     "a note of 4 bytes, there is room for 3");
	ck_assert_uint_eq(note_bytes, 4);
	states_close(&a);
}
END_TEST

/* The adapter that is bound counts, not the one that was compiled in. */
START_TEST(the_bound_adapter_counts) {
	const int64_t used[] = {9};
	int64_t back[1];
	states_spec s = states_usual;
	knit_weights *store;
	knit_adapter_set *set;
	knit_diag d;

	s.lora = 3;
	states_model a = states_open(s);
	ck_assert_int_eq(knit_weights_create(a.ctx, &store), KNIT_OK);
	states_add(store, "k.a", 4, STATES_DIM, 4);
	states_add(store, "k.b", STATES_DIM, 4, 4);
	ck_assert_int_eq(knit_adapter_open(a.program, store, &set, &d), KNIT_OK);
	ck_assert_int_eq(knit_session_bind_adapter(a.session, set), KNIT_OK);
	states_feed_up_to(&a, 0, 9);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, NULL, 0), KNIT_OK, "");
	ck_assert_int_eq(knit_session_bind_adapter(a.session, NULL), KNIT_OK);
	states_says(&a, knit_session_load_states(a.session, states_path, back, 1, NULL, NULL), KNIT_ERR_ARGUMENT,
	            "another adapter");
	s.lora = 4;
	states_model b = states_open(s);
	states_says(&b, knit_session_load_states(b.session, states_path, back, 1, NULL, NULL), KNIT_OK, "");
	states_close(&b);
	ck_assert_int_eq(knit_session_bind_adapter(a.session, set), KNIT_OK);
	states_says(&a, knit_session_load_states(a.session, states_path, back, 1, NULL, NULL), KNIT_OK, "");
	knit_adapter_release(set);
	knit_weights_release(store);
	states_close(&a);
}
END_TEST

/* Every length of the file, and every bit of it flipped: refused, and the session as it was. */
START_TEST(cut_and_flipped_files_are_refused) {
	states_spec s = states_usual;
	const int64_t used[] = {3};
	float before[STATES_VOCAB], after[STATES_VOCAB];
	int64_t back[1];
	size_t bytes;

	s.k = s.v = KNIT_Q4_0;
	states_model a = states_open(s);
	states_feed_up_to(&a, 0, 3);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, "xyz", 3), KNIT_OK, "");
	char *const data = states_slurp(states_path, &bytes);
	states_feed_up_to(&a, 0, 6);
	states_probe(&a, before);
	for (size_t length = 0; length < bytes; ++length) {
		states_spill(states_other, data, length);
		const knit_status status = knit_session_load_states(a.session, states_other, back, 1, NULL, NULL);
		states_says(&a, status, KNIT_ERR_FORMAT, "/other: ");
	}
	for (size_t i = 0; i < bytes; ++i) {
		data[i] = (char)(data[i] ^ (1 << (i % 8)));
		states_spill(states_other, data, bytes);
		states_says(&a, knit_session_load_states(a.session, states_other, back, 1, NULL, NULL), KNIT_ERR_FORMAT,
		            "/other: ");
		data[i] = (char)(data[i] ^ (1 << (i % 8)));
	}
	char *const longer = calloc(1, bytes + 1);
	memcpy(longer, data, bytes);
	states_spill(states_other, longer, bytes + 1);
	states_says(&a, knit_session_load_states(a.session, states_other, back, 1, NULL, NULL), KNIT_ERR_FORMAT,
	            "bytes past its end");
	free(longer);
	states_probe(&a, after);
	ck_assert(memcmp(before, after, sizeof after) == 0);
	states_spill(states_other, data, bytes);
	states_says(&a, knit_session_load_states(a.session, states_other, back, 1, NULL, NULL), KNIT_OK, "");
	free(data);
	states_close(&a);
}
END_TEST

/* Heads that make no sense with a checksum that does: made by hand. */
START_TEST(foreign_heads_are_refused) {
	const int64_t used[] = {3};
	int64_t back[1];
	size_t bytes;
	states_model a = states_open(states_usual);

	states_feed_up_to(&a, 0, 3);
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, "xyz", 3), KNIT_OK, "");
	char *const data = states_slurp(states_path, &bytes);
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
			states_spill(states_other, copy, bytes);
			const knit_status status = knit_session_load_states(a.session, states_other, back, 1, NULL, NULL);
			const bool same = memcmp(copy, data, bytes - KNIT_STATES_CHECKSUM) == 0;
			/* A ring or sinks that rows do not depend on, and the note, may be anything. */
			ck_assert_msg(status != KNIT_ERR_INTERNAL && status != KNIT_ERR_DEVICE && (!same || status == KNIT_OK),
			              "at %zu: %s", at, knit_status_name(status));
			free(copy);
		}
	}
	free(data);
	states_close(&a);
}
END_TEST

START_TEST(calls_are_checked) {
	states_model a = states_open(states_usual);
	int64_t used[3] = {3, 0, 0};

	states_feed_up_to(&a, 0, 3);
	ck_assert_int_eq(knit_session_save_states(NULL, states_path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT);
	ck_assert_int_eq(knit_session_load_states(NULL, states_path, used, 1, NULL, NULL), KNIT_ERR_ARGUMENT);
	states_says(&a, knit_session_save_states(a.session, NULL, used, 1, NULL, 0), KNIT_ERR_ARGUMENT, "the path is NULL");
	states_says(&a, knit_session_save_states(a.session, states_path, NULL, 1, NULL, 0), KNIT_ERR_ARGUMENT,
	            "used is NULL");
	states_says(&a, knit_session_save_states(a.session, states_path, used, 0, NULL, 0), KNIT_ERR_ARGUMENT,
	            "no sequences");
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, NULL, 1), KNIT_ERR_ARGUMENT,
	            "the note is NULL");
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, "", (size_t)1 << 40), KNIT_ERR_ARGUMENT,
	            "a note of");
	states_says(&a, knit_session_save_states(a.session, states_path, used, 3, NULL, 0), KNIT_ERR_ARGUMENT,
	            "3 sequences: state");
	used[0] = 25;
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT,
	            "25 positions in use");
	used[0] = -1;
	states_says(&a, knit_session_save_states(a.session, states_path, used, 1, NULL, 0), KNIT_ERR_ARGUMENT,
	            "-1 positions in use");
	used[0] = 3;
	states_says(&a, knit_session_save_states(a.session, states_folder, used, 1, NULL, 0), KNIT_ERR_ARGUMENT,
	            "no plain file");
	states_says(&a, knit_session_save_states(a.session, "/dev/null", used, 1, NULL, 0), KNIT_ERR_ARGUMENT,
	            "no plain file");
	states_says(&a, knit_session_save_states(a.session, "/nowhere/at/all", used, 1, NULL, 0), KNIT_ERR_IO,
	            "/nowhere/at/all");
	states_says(&a, knit_session_save_states(a.session, "", used, 1, NULL, 0), KNIT_ERR_IO, "");
	states_says(&a, knit_session_load_states(a.session, states_path, used, 1, NULL, NULL), KNIT_ERR_NOT_FOUND,
	            "/context: ");
	states_says(&a, knit_session_load_states(a.session, states_folder, used, 1, NULL, NULL), KNIT_ERR_FORMAT,
	            "no plain file");
	states_says(&a, knit_session_load_states(a.session, "/dev/zero", used, 1, NULL, NULL), KNIT_ERR_FORMAT,
	            "no plain file");
	states_says(&a, knit_session_load_states(a.session, states_path, used, 1, "", NULL), KNIT_ERR_ARGUMENT,
	            "note_bytes is NULL");
	states_says(&a, knit_session_load_states(a.session, states_path, NULL, 1, NULL, NULL), KNIT_ERR_ARGUMENT,
	            "used is NULL");
	states_spill(states_other, "GGUF", 4);
	states_says(&a, knit_session_load_states(a.session, states_other, used, 1, NULL, NULL), KNIT_ERR_FORMAT,
	            "too short");
	states_close(&a);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {contexts_come_back, contexts_move_to_other_programs, the_rest_is_zero,
	                              rings_come_back, other_models_are_refused, the_bound_adapter_counts,
	                              cut_and_flipped_files_are_refused, foreign_heads_are_refused, calls_are_checked};

	return suite_run_around("states_file", states_setup, states_teardown, tests, (int)(sizeof tests / sizeof *tests));
}
