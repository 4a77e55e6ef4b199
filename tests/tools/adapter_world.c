/* Owns two adapters over one model. */
#include "adapter_world.h"

#include <check.h>

const int32_t adapter_ids[ADAPTER_STEPS] = {1, 17, 40, 3, 3, 21, 9}, adapter_zeros[ADAPTER_STEPS],
              adapter_rising[ADAPTER_STEPS] = {0, 1, 2, 3, 4, 5, 6};

void adapter_world_fill(adapter_world *w, knit_context *ctx) {
	w->ctx = ctx;
	w->base = adapter_model_base(ctx, KNIT_F32);
	w->first = adapter_model_adapter(ctx, KNIT_F32, 1, 0.25f);
	w->second = adapter_model_adapter(ctx, KNIT_F32, 2, 0.25f);
	ck_assert(w->base && w->first && w->second);
}

void adapter_world_open(adapter_world *w) {
	knit_context *ctx = NULL;

	ck_assert_int_eq(knit_context_create(&(knit_context_desc){.cpu_threads = 2}, &ctx), KNIT_OK);
	adapter_world_fill(w, ctx);
}

void adapter_world_close(adapter_world *w) {
	knit_weights_release(w->base);
	knit_weights_release(w->first);
	knit_weights_release(w->second);
	knit_context_destroy(w->ctx);
}

knit_program *adapter_compile(const adapter_world *w, knit_weights *adapter, const char *disable) {
	const adapter_model m = {.mode = adapter ? ADAPTER_BOUND : ADAPTER_NONE, .base = w->base, .adapter = adapter};
	knit_diag d = {0};
	knit_program *p = adapter_model_compile(w->ctx, &m, "cpu", disable, &d);

	ck_assert_msg(p != NULL, "%s", d.text);
	return p;
}

knit_session *adapter_session(knit_program *p) {
	knit_session *s = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_session_create(p, &s, &d) == KNIT_OK, "%s", d.text);
	return s;
}

knit_adapter_set *adapter_set(knit_program *p, knit_weights *store) {
	knit_adapter_set *a = NULL;
	knit_diag d = {0};

	ck_assert_msg(knit_adapter_open(p, store, &a, &d) == KNIT_OK, "%s", d.text);
	return a;
}

void adapter_bind(knit_session *s, knit_adapter_set *a) {
	knit_diag d;
	const knit_status status = knit_session_bind_adapter(s, a);

	knit_session_diag(s, &d);
	ck_assert_msg(status == KNIT_OK, "%s", d.text);
}

void adapter_script(knit_session *s, float out[ADAPTER_LOGITS]) {
	ck_assert_int_eq(knit_session_reset_states(s), KNIT_OK);
	ck_assert_int_eq(adapter_model_run(s, ADAPTER_PROMPT, adapter_ids, adapter_zeros, adapter_rising, out), KNIT_OK);
	for (int t = ADAPTER_PROMPT; t < ADAPTER_STEPS; ++t)
		ck_assert_int_eq(adapter_model_run(s, 1, &adapter_ids[t], adapter_zeros, &adapter_rising[t], out + t * ADAPTER_VOCAB), KNIT_OK);
}

void adapter_script_of(const adapter_world *w, knit_weights *adapter, const char *disable, float out[ADAPTER_LOGITS]) {
	knit_program *p = adapter_compile(w, adapter, disable);
	knit_session *s = adapter_session(p);

	adapter_script(s, out);
	knit_session_destroy(s);
	knit_program_release(p);
}

void adapter_check_idle(const knit_session *s, uint64_t binds) {
	knit_counters c;

	knit_session_counters(s, &c);
	ck_assert_uint_eq(c.binds, binds);
	ck_assert_uint_eq(c.allocations, 0);
	ck_assert_uint_eq(c.buffers, 0);
	ck_assert_uint_eq(c.packs, 0);
	ck_assert_uint_eq(c.uploads, 0);
}
