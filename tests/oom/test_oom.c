/* Fails allocation 1, 2, 3 ... of everything from the context to a run until all succeeds: status MEMORY each time,
 * every byte given back, no crash. */
#include "../tools/small_model.h"
#include "../tools/suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct heap {
	atomic_long budget;  /* allocations that still succeed */
	atomic_long live;    /* blocks */
	atomic_long bytes;   /* in them */
	atomic_long refused;
} heap;

static void *heap_alloc(void *user, size_t size, size_t align) {
	heap *const h = user;
	void *p = NULL;

	if (atomic_fetch_sub(&h->budget, 1) <= 0) {
		atomic_fetch_add(&h->refused, 1);
		return NULL;
	}
	if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0)
		return NULL;
	atomic_fetch_add(&h->live, 1);
	atomic_fetch_add(&h->bytes, (long)size);
	return p;
}

/* `size` must be what was asked for: the sum comes out at zero only then. */
static void heap_free(void *user, void *ptr, size_t size) {
	heap *const h = user;

	atomic_fetch_sub(&h->live, 1);
	atomic_fetch_sub(&h->bytes, (long)size);
	free(ptr);
}

static const char *stage;

static knit_status run_session(knit_session *s) {
	static const int32_t ids[3] = {1, 2, 3}, seq[3], pos[3] = {0, 1, 2};
	static float logits[3 * SMALL_VOCAB];
	knit_status status = knit_session_set(s, "tokens", 3);

	if (status == KNIT_OK)
		status = knit_session_write(s, "ids", ids, sizeof ids);
	if (status == KNIT_OK)
		status = knit_session_write(s, "seq", seq, sizeof seq);
	if (status == KNIT_OK)
		status = knit_session_write(s, "pos", pos, sizeof pos);
	if (status == KNIT_OK)
		status = knit_session_run(s);
	if (status == KNIT_OK)
		status = knit_session_read(s, "logits", logits, sizeof logits);
	return status == KNIT_OK ? knit_session_reset_states(s) : status;
}

static knit_status everything(const knit_context_desc *desc, const knit_compile_desc *compile, knit_diag *d) {
	knit_context *ctx = NULL;
	knit_weights *w = NULL;
	knit_graph *g = NULL;
	knit_program *p = NULL;
	knit_session *s = NULL;

	stage = "context";
	knit_status status = knit_context_create(desc, &ctx);
	if (status == KNIT_OK) {
		stage = "weights";
		status = small_model_weights(ctx, &w);
	}
	if (status == KNIT_OK) {
		stage = "graph";
		status = small_model_graph(ctx, w, &g);
	}
	if (status == KNIT_OK) {
		stage = "compile";
		status = knit_compile(g, compile, &p, d);
		ck_assert(!p == (status != KNIT_OK));
		ck_assert_int_eq(d->status, status);
	}
	if (status == KNIT_OK) {
		stage = "session";
		status = knit_session_create(p, &s, d);
		ck_assert(!s == (status != KNIT_OK));
		ck_assert_int_eq(d->status, status);
	}
	if (status == KNIT_OK) {
		stage = "run";
		status = run_session(s);
	}
	knit_session_destroy(s);
	knit_program_release(p);
	knit_graph_destroy(g);
	knit_weights_release(w);
	knit_context_destroy(ctx);
	return status;
}

/* `spread`: 0 tries every allocation; k steps on by one k-th of the way done. */
static void fail_each(const knit_compile_desc *compile, long spread) {
	static const long most = 1000000;
	knit_status status;
	long n = 0;

	do {
		heap h = {0};
		knit_diag d = {0};
		const knit_context_desc desc = {.allocator = {heap_alloc, heap_free, &h}, .cpu_threads = 2};
		atomic_store(&h.budget, n);
		status = everything(&desc, compile, &d);
		ck_assert_msg(status == KNIT_OK || status == KNIT_ERR_MEMORY, "allocation %ld refused, %s: %s: %s", n + 1, stage,
		              knit_status_name(status), d.text);
		ck_assert_msg(status == KNIT_OK || atomic_load(&h.refused) > 0, "MEMORY, but nothing was refused (%s)", stage);
		ck_assert_msg(status != KNIT_OK || atomic_load(&h.refused) == 0, "allocation %ld refused and nobody said so", n + 1);
		ck_assert_msg(atomic_load(&h.live) == 0 && atomic_load(&h.bytes) == 0,
		              "allocation %ld refused, %s: %ld blocks, %ld bytes not given back", n + 1, stage,
		              atomic_load(&h.live), atomic_load(&h.bytes));
		n += 1 + (spread ? n / spread : 0);
		ck_assert_int_lt(n, most);
	} while (status != KNIT_OK);
	ck_assert_int_gt(n, 100);
	printf("allocations until success: at most %ld\n", n);
}

static const knit_bucket decode_prefill[] = {{"tokens", 1, 1}, {"tokens", 2, SMALL_TOKENS}};

START_TEST(on_null) { fail_each(&(knit_compile_desc){.device = "null"}, 0); }
END_TEST

START_TEST(on_null_in_two_buckets) {
	fail_each(&(knit_compile_desc){.device = "null", .buckets = decode_prefill, .bucket_count = 2}, 0);
}
END_TEST

START_TEST(on_the_cpu) { fail_each(&(knit_compile_desc){.device = "cpu"}, 0); }
END_TEST

START_TEST(without_the_guard) {
	setenv("KNIT_GUARD", "0", 1);
	fail_each(&(knit_compile_desc){.device = "cpu", .buckets = decode_prefill, .bucket_count = 2}, 0);
}
END_TEST

/* The interpreter, printer and parser run in between: very many allocations, so a spread of them. */
START_TEST(with_every_check) {
	setenv("KNIT_CHECK", "1", 1);
	fail_each(&(knit_compile_desc){.device = "null"}, 25);
}
END_TEST

/* A split is two devices and a plan per run of steps: some of the model on each. */
START_TEST(on_a_split) {
	fail_each(&(knit_compile_desc){.device = "cpu+null", .buckets = decode_prefill, .bucket_count = 2, .device_memory = 45000},
	          100);
}
END_TEST

int main(void) {
	Suite *s = suite_create("oom");
	TCase *t = tcase_create("oom");

	tcase_set_timeout(t, 250);
	tcase_add_test(t, on_null);
	tcase_add_test(t, on_null_in_two_buckets);
	tcase_add_test(t, on_the_cpu);
	tcase_add_test(t, on_a_split);
	tcase_add_test(t, without_the_guard);
	tcase_add_test(t, with_every_check);
	suite_add_tcase(s, t);
	return suite_finish(s, CK_FORK);
}
