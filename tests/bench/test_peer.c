/* Other programs as subjects: what they are called with, what is read back; the page cache and memory as the system counts it. */
#include "../../bench/child.h"
#include "../../bench/page_cache.h"
#include "../../bench/peer.h"
#include "../tools/suite.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/knit-peer-XXXXXX", program[64], heard[64];

static void write_file(const char *path, const char *text, mode_t mode) {
	FILE *const f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, mode) != 0)
		abort(); /* no test is running yet */
}

/* A program that notes its arguments and answers with three samples. */
static void make_program(void) {
	char text[512];

	if (!mkdtemp(folder))
		abort();
	snprintf(program, sizeof program, "%s/bench", folder);
	snprintf(heard, sizeof heard, "%s/heard", folder);
	snprintf(text, sizeof text,
	         "#!/bin/sh\necho \"$@\" >%s\necho '[{\"build_commit\":\"abc\",\"build_number\":7,\"backends\":\"CPU\",\"cpu_info\":\"a cpu\","
	         "\"gpu_info\":\"\",\"samples_ns\":[4000000000,2000000000,1000000000]}]'\n", heard);
	write_file(program, text, 0700);
}

static bool was_told(const char *words) {
	char text[1024] = " ";
	FILE *const f = fopen(heard, "r");

	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(text + 1, sizeof text - 1, f));
	fclose(f);
	text[strcspn(text, "\n")] = ' ';
	return strstr(text, words) != NULL;
}

static bench_subject *opened(const char *name) {
	const char *const extra = strchr(name, '!');
	bench_peer_desc desc = {.model = "m.gguf", .threads = 2, .batch = 64, .runs = 2, .kv = KNIT_Q8_0};
	bench_subject *s = NULL;
	knit_diag diag = {0};
	char spec[160];

	snprintf(spec, sizeof spec, "%.*s=%s%s%s", (int)strcspn(name, "!"), name, program, extra ? " " : "", extra ? extra + 1 : "");
	desc.spec = spec;
	ck_assert_msg(bench_peer_open(&desc, &s, &diag) == KNIT_OK, "%s", diag.text);
	return s;
}

START_TEST(what_llama_bench_is_told) {
	bench_subject *const s = opened("llama-bench!--poll 0");
	const bench_test test = {.made = 8, .depth = 16};
	double seconds[8];
	size_t count;
	knit_diag diag = {0};

	ck_assert_int_eq(s->kind->run(s, &test, seconds, 8, &count, &diag), KNIT_OK);
	ck_assert(was_told(" -m m.gguf -p 0 -n 8 -d 16 -t 2 -b 64 -ub 64 -ctk q8_0 -ctv q8_0 -r 2 -o json --poll 0 "));
	ck_assert_uint_eq(count, 3);
	ck_assert_double_eq_tol(seconds[0], 4, 1e-9);
	ck_assert_str_eq(s->name, "llama-bench");
	ck_assert_str_eq(s->version, "build 7 (abc) --poll 0");
	ck_assert_str_eq(s->driver, "a cpu");
	ck_assert(s->on_host && s->kind->warms_itself);
	s->kind->close(s);
}
END_TEST

START_TEST(what_ik_is_told) {
	bench_subject *const s = opened("ik-llama-bench:repacked!-rtr 1");
	double seconds[8];
	size_t count;
	knit_diag diag = {0};

	ck_assert_str_eq(s->name, "ik-llama-bench repacked");
	/* Its prompts are not warmed up: the first run is one more, and is not counted. */
	ck_assert_int_eq(s->kind->run(s, &(bench_test){.prompt = 8}, seconds, 8, &count, &diag), KNIT_OK);
	ck_assert(was_told(" -p 8 -n 0 -t 2 ") && was_told(" -r 3 -o json -rtr 1 "));
	ck_assert_uint_eq(count, 2);
	ck_assert_double_eq_tol(seconds[0], 2, 1e-9);
	ck_assert_int_eq(s->kind->run(s, &(bench_test){.made = 8, .depth = 16}, seconds, 8, &count, &diag), KNIT_OK);
	ck_assert(was_told(" -p 0 -n 0 -gp 16,8 -t 2 ") && was_told(" -r 2 "));
	ck_assert_uint_eq(count, 3);
	/* It has no prompt after other tokens. */
	ck_assert_int_eq(s->kind->run(s, &(bench_test){.prompt = 8, .depth = 16}, seconds, 8, &count, &diag), KNIT_ERR_UNSUPPORTED);
	s->kind->close(s);
}
END_TEST

/* Another build of the command. */
START_TEST(what_knit_is_told) {
	char text[512];
	bench_subject *s;
	double seconds[8];
	size_t count;
	knit_diag diag = {0};

	snprintf(text, sizeof text, "#!/bin/sh\necho \"$@\" >%s\necho '{\"schema\":\"knit.bench/1\",\"commit\":\"abc\",\"device\":\"cpu\",\"seconds\":[0.5,0.25]}'\n", heard);
	write_file(program, text, 0700);
	s = opened("knit:before!--device null");
	ck_assert_str_eq(s->name, "other knit before");
	ck_assert_int_eq(s->kind->run(s, &(bench_test){.made = 8, .depth = 16}, seconds, 8, &count, &diag), KNIT_OK);
	ck_assert(was_told(" bench m.gguf -p 0 -n 8 -d 16 --threads 2 --batch 64 -r 2 --kv q8_0 --no-peaks --no-check --no-load --json --device null "));
	ck_assert_uint_eq(count, 2);
	ck_assert_double_eq_tol(seconds[1], 0.25, 1e-9);
	ck_assert_str_eq(s->version, "commit abc --device null");
	s->kind->close(s);
	unlink(program);
}
END_TEST

START_TEST(first_token) {
	bench_subject *const s = opened("ik-llama-bench");
	bench_probe probe;
	knit_diag diag = {0};

	ck_assert_int_eq(bench_peer_probe(s, 0, &probe, &diag), KNIT_OK);
	ck_assert(was_told(" -p 16 -n 0 ") && was_told(" -w 0 "));
	ck_assert(probe.load > 0 && probe.load < 30 && probe.first == 0);
	s->kind->close(s);
}
END_TEST

START_TEST(specs_that_are_wrong) {
	static const char *const specs[] = {"llama-bench", "ik=/bin/true", "llama-bench:=/bin/true", "llama-bench2=/bin/true"};
	bench_peer_desc desc = {.model = "m"};
	bench_subject *s;
	knit_diag diag = {0};

	for (size_t i = 0; i < sizeof specs / sizeof *specs; ++i) {
		desc.spec = specs[i];
		ck_assert_msg(bench_peer_open(&desc, &s, &diag) == KNIT_ERR_ARGUMENT, "%s", specs[i]);
	}
	desc.spec = "llama-bench=/nowhere/to/be/found";
	ck_assert_int_eq(bench_peer_open(&desc, &s, &diag), KNIT_ERR_NOT_FOUND);
}
END_TEST

START_TEST(a_program_that_fails) {
	char *const fails[] = {(char[]){"false"}, NULL}, *const absent[] = {(char[]){"/nowhere/to/be/found"}, NULL};
	bench_child child;
	knit_diag diag = {0};

	ck_assert_int_eq(bench_child_run(fails, &child, &diag), KNIT_ERR_IO);
	ck_assert_ptr_null(child.text);
	ck_assert_int_eq(bench_child_run(absent, &child, &diag), KNIT_ERR_NOT_FOUND);
	ck_assert_ptr_null(child.text);
}
END_TEST

/* More than a pipe holds, and more than is kept. */
START_TEST(a_program_that_says_much) {
	char *const argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"head -c 3000000 /dev/zero | tr '\\0' x"}, NULL};
	bench_child child;
	knit_diag diag = {0};

	ck_assert_int_eq(bench_child_run(argv, &child, &diag), KNIT_OK);
	ck_assert_uint_eq(strlen(child.text), (1 << 20) - 1);
	ck_assert(child.seconds > 0);
	free(child.text);
}
END_TEST

/* It is the child's: this process has much more. */
START_TEST(memory_of_a_program) {
	enum { BYTES = 128 << 20 };
	char *const argv[] = {(char[]){"sleep"}, (char[]){"0.2"}, NULL};
	char *const data = malloc(BYTES);
	bench_child child;
	knit_diag diag = {0};

	memset(data, 1, BYTES);
	ck_assert_int_eq(bench_child_run(argv, &child, &diag), KNIT_OK);
	ck_assert_uint_gt(child.memory.peak, 100000);
	ck_assert_uint_lt(child.memory.peak, BYTES / 2);
	ck_assert(child.seconds >= 0.2);
	free(data);
	free(child.text);
}
END_TEST

START_TEST(memory_of_this_process) {
	enum { BYTES = 64 << 20 };
	bench_resident before = {0}, after = {0}, raised = {.peak = 1, .anon = UINT64_MAX, .file = 2};

	ck_assert(bench_resident_look(0, &before) && bench_resident_look(getpid(), &before));
	char *const data = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(data, MAP_FAILED);
	memset(data, 1, BYTES);
	ck_assert(bench_resident_look(0, &after));
	munmap(data, BYTES);
	ck_assert_uint_ge(after.anon, before.anon + BYTES - (1 << 20));
	ck_assert_uint_ge(after.peak, after.anon);
	/* What it had stays the peak, and the most of each class is kept. */
	bench_resident later = after;
	ck_assert(bench_resident_look(0, &later));
	ck_assert_uint_ge(later.anon, after.anon);
	bench_resident_raise(&raised, &after);
	ck_assert(raised.peak == after.peak && raised.anon == UINT64_MAX);
	ck_assert(!bench_resident_look(0x7ffffff0, &later));
}
END_TEST

START_TEST(dropping_a_file) {
	enum { BYTES = 8 << 20 };
	char path[80];
	char *const data = malloc(BYTES);
	FILE *f;

	snprintf(path, sizeof path, "%s/file", folder);
	memset(data, 7, BYTES);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, BYTES, f), BYTES);
	fclose(f);
	free(data);
	ck_assert_double_eq_tol(bench_cached_share(path), 1, 0.01);
	const double kept = bench_cache_drop(path);
	ck_assert_double_eq_tol(kept, bench_cached_share(path), 0.02);
	if (kept > BENCH_DROPPED)
		printf("SKIP: %s lies on a file system that keeps %.0f %% of a file in memory\n", path, kept * 100);
	bench_cache_fill(path);
	ck_assert_double_eq_tol(bench_cached_share(path), 1, 0.01);
	unlink(path);
	ck_assert_double_lt(bench_cached_share(path), 0);
	ck_assert_double_lt(bench_cache_drop(path), 0);
}
END_TEST

/* Which calls the loading of a subject consists of. */
typedef struct counted { int calls, with_tokens; bool slow; } counted;

static knit_status count_probe(void *subject, int64_t tokens, bench_probe *out, knit_diag *diag) {
	counted *const c = subject;

	(void)diag;
	c->with_tokens += tokens > 0;
	*out = (bench_probe){.load = ++c->calls, .memory = {.peak = tokens > 0 ? 42 : 7}};
	return c->slow ? KNIT_ERR_DEVICE : KNIT_OK;
}

START_TEST(loading) {
	bench_loading l;
	knit_diag diag = {0};
	counted c = {0};

	const bool drops = bench_cache_drop(program) >= 0 && bench_cached_share(program) <= BENCH_DROPPED;
	ck_assert_int_eq(bench_loading_measure(program, count_probe, &c, 5, &l, &diag), KNIT_OK);
	/* Once from disk where that is possible, five times from the page cache: the third in time is taken, the memory of the first. */
	ck_assert_int_eq(c.calls, drops ? 6 : 5);
	ck_assert_int_eq(c.with_tokens, 1);
	ck_assert(l.disk.load == (drops ? 1 : 0));
	ck_assert(l.cached.load == (drops ? 4 : 3));
	ck_assert_uint_eq(l.cached.memory.peak, 42);
	c.slow = true;
	ck_assert_int_eq(bench_loading_measure(program, count_probe, &c, 5, &l, &diag), KNIT_ERR_DEVICE);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {what_llama_bench_is_told, what_ik_is_told, first_token,   specs_that_are_wrong, a_program_that_fails,
	                              a_program_that_says_much, memory_of_a_program, memory_of_this_process, dropping_a_file, loading, what_knit_is_told};

	make_program();
	const int failed = suite_run("bench/peer", tests, sizeof tests / sizeof *tests);
	unlink(program);
	unlink(heard);
	rmdir(folder);
	return failed;
}
