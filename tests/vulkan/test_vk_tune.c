/* Checks the choices of kernels: any of them gives right results, the file that keeps them is never trusted, measuring
 * writes all or nothing. */
#include "../../backends/vulkan/vk_tune.h"
#include "../../backends/vulkan/vk_tune_file.h"
#include "../conformance/conf_run.h"
#include "../tools/suite.h"
#include "../tools/vulkan_case.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static conf_case *cases;
static size_t case_count;
static char folder[] = "/tmp/knit-tune-XXXXXX";

static knit_vk_probe probe_of_device(void) {
	knit_device *const dev = vulkan_open_limited(NULL, NULL);
	const knit_vk_probe p = dev->probe;

	vulkan_backend()->close(dev);
	return p;
}

static void file_remove(const knit_vk_probe *p) {
	char path[640];

	ck_assert(knit__vk_tuning_path(p, path, sizeof path));
	unlink(path);
}

static bool is_table(const knit_vk_probe *p, const knit_vk_tuning *t) {
	return memcmp(t, knit__vk_tuning_of((int)p->caps.device_class), sizeof *t) == 0;
}

/* Number `which` of each choice's candidates, in turn where there are fewer. */
static knit_vk_tuning variant(const knit_vk_probe *p, uint32_t which) {
	knit_vk_tuning t = *knit__vk_tuning_of((int)p->caps.device_class);

	for (uint32_t i = 0; i < knit__vk_choice_count; ++i) {
		const knit_vk_choice *const c = &knit__vk_choices[i];
		const uint32_t value = c->candidates[which % c->count];
		if (knit__vk_candidate_fits(&p->caps, c, value))
			knit__vk_tuning_set(&t, c, value);
	}
	return t;
}

START_TEST(the_table_is_among_the_candidates) {
	static const int classes[] = {KNIT_VK_DISCRETE, KNIT_VK_INTEGRATED, KNIT_VK_SOFTWARE};
	size_t rows = 0;

	for (uint32_t i = 0; i < knit__vk_choice_count; ++i) {
		const knit_vk_choice *const c = &knit__vk_choices[i];
		rows += c->count;
		for (size_t k = 0; k < sizeof classes / sizeof classes[0]; ++k) {
			bool found = false;
			for (uint32_t n = 0; n < c->count; ++n)
				found = found || c->candidates[n] == knit__vk_tuning_get(knit__vk_tuning_of(classes[k]), c);
			ck_assert_msg(found, "%s of class %d", c->name, classes[k]);
		}
	}
	ck_assert_uint_le(rows, sizeof((knit_tune_result *)0)->rows / sizeof(knit_tune_row));
	/* every number of the struct is some choice's */
	ck_assert_uint_eq(knit__vk_choice_count * sizeof(uint32_t), sizeof(knit_vk_tuning));
}
END_TEST

START_TEST(limits_rule_candidates_out) {
	knit_vk_probe p = {.caps = {.device_class = KNIT_VK_SOFTWARE, .max_invocations = 128, .max_shared_bytes = 32768}};
	knit_vk_tuning t = *knit__vk_tuning_of(KNIT_VK_SOFTWARE);

	ck_assert(knit__vk_tuning_fits(&p.caps, &t));
	t.matvec_width = 128;
	ck_assert(knit__vk_tuning_fits(&p.caps, &t));
	t.matvec_width = 256;
	ck_assert(!knit__vk_tuning_fits(&p.caps, &t));
	t.matvec_width = 96; /* no candidate */
	ck_assert(!knit__vk_tuning_fits(&p.caps, &t));
	t.matvec_width = 64;
	t.dot_rows = KNIT_VK_NEVER; /* of a device that has no integer dot product there is nothing to say */
	ck_assert(!knit__vk_tuning_fits(&p.caps, &t));
	p.caps.features = KNIT_VK_DOT;
	ck_assert(knit__vk_tuning_fits(&p.caps, &t));
	t.attention_quads = 16; /* fixed by the class */
	ck_assert(!knit__vk_tuning_fits(&p.caps, &t));
}
END_TEST

START_TEST(choices_go_through_the_file) {
	const knit_vk_probe p = probe_of_device();
	knit_vk_tuning back;

	for (uint32_t which = 0; which < KNIT_VK_MAX_CANDIDATES; ++which) {
		const knit_vk_tuning t = variant(&p, which);
		ck_assert(knit__vk_tuning_save(&p, &t));
		ck_assert_int_eq(knit__vk_tuning_load(&p, &back), KNIT_VK_TUNING_FILE);
		ck_assert_int_eq(memcmp(&t, &back, sizeof t), 0);
		knit_device *const dev = vulkan_open_limited(NULL, NULL);
		ck_assert_int_eq(memcmp(&t, &dev->kernel_caps.tuning, sizeof t), 0);
		vulkan_backend()->close(dev);
	}
	file_remove(&p);
	ck_assert_int_eq(knit__vk_tuning_load(&p, &back), KNIT_VK_TUNING_TABLE);
	ck_assert(is_table(&p, &back));
}
END_TEST

static void check_ignored(const knit_vk_probe *p, knit_vk_tuning_source why) {
	knit_vk_tuning t;

	ck_assert_int_eq(knit__vk_tuning_load(p, &t), why);
	ck_assert(is_table(p, &t));
}

static void write_file(const char *path, const char *data, size_t bytes) {
	FILE *const f = fopen(path, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
	fclose(f);
}

START_TEST(a_spoilt_file_is_ignored) {
	const knit_vk_probe p = probe_of_device();
	const knit_vk_tuning t = variant(&p, 0);
	char path[640], data[4096];

	ck_assert(knit__vk_tuning_save(&p, &t) && knit__vk_tuning_path(&p, path, sizeof path));
	FILE *const f = fopen(path, "rb");
	ck_assert_ptr_nonnull(f);
	const size_t bytes = fread(data, 1, sizeof data, f);
	fclose(f);
	ck_assert(bytes > 100 && bytes < 1024);
	for (size_t i = 0; i < bytes; ++i) {
		data[i] ^= 1;
		write_file(path, data, bytes);
		check_ignored(&p, KNIT_VK_TUNING_DAMAGED);
		data[i] ^= 1;
		write_file(path, data, i);
		check_ignored(&p, KNIT_VK_TUNING_DAMAGED);
	}
	memset(data + bytes, 'x', sizeof data - bytes); /* more than one has */
	write_file(path, data, sizeof data);
	check_ignored(&p, KNIT_VK_TUNING_DAMAGED);
	unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0); /* fopen takes it, fread does not */
	check_ignored(&p, KNIT_VK_TUNING_DAMAGED);
	rmdir(path);
}
END_TEST

static bool facts_say(const char *part) {
	static knit_device_fact facts[512];
	const knit_context_desc desc = {0};
	size_t count = 0;

	ck_assert_int_eq(vulkan_backend()->facts(0, &desc, facts, 512, &count), KNIT_OK);
	for (size_t i = 0; i < count && i < 512; ++i)
		if (strcmp(facts[i].group, "tuning") == 0 && strcmp(facts[i].name, "choices") == 0)
			return strstr(facts[i].value, part) != NULL;
	return false;
}

START_TEST(a_file_for_something_else_is_ignored_and_said) {
	const knit_vk_probe p = probe_of_device();
	knit_vk_probe other = p;
	knit_vk_tuning t = variant(&p, 0);

	ck_assert(facts_say("the table's") && !facts_say("ignored"));
	/* another driver of the same number, at the same path */
	snprintf(other.driver.driverInfo, sizeof other.driver.driverInfo, "another");
	ck_assert(knit__vk_tuning_save(&other, &t));
	check_ignored(&p, KNIT_VK_TUNING_FOREIGN);
	ck_assert(facts_say("of another device"));
	/* other devices and drivers have other files */
	other = p;
	other.uuid[3] ^= 1;
	check_ignored(&other, KNIT_VK_TUNING_TABLE);
	other = p;
	++other.properties.driverVersion;
	check_ignored(&other, KNIT_VK_TUNING_TABLE);
	/* what this device cannot do */
	t.matvec_width = 100;
	ck_assert(knit__vk_tuning_save(&p, &t));
	check_ignored(&p, KNIT_VK_TUNING_UNFIT);
	ck_assert(facts_say("limits"));
	t = variant(&p, 0);
	ck_assert(knit__vk_tuning_save(&p, &t));
	ck_assert(facts_say("measured"));
	/* no folder: no file */
	setenv("KNIT_CACHE", "", 1);
	ck_assert(!knit__vk_tuning_save(&p, &t));
	check_ignored(&p, KNIT_VK_TUNING_TABLE);
	setenv("KNIT_CACHE", folder, 1);
	file_remove(&p);
}
END_TEST

/* One of so many cases of each op that a choice is about: others for other numbers. */
static size_t sample_make(size_t which, conf_case *out) {
	static const struct { uint16_t op; size_t every; } ops[] = {
		{KNIT_OP_LINEAR, 37}, {KNIT_OP_LINEAR_LORA, 97}, {KNIT_OP_LINEAR_GROUP, 83}, {KNIT_OP_GLU, 97},
		{KNIT_OP_LORA_SELECT, 97}, {KNIT_OP_ATTENTION, 97},
	};
	size_t count = 0;

	for (size_t k = 0; k < sizeof ops / sizeof ops[0]; ++k) {
		size_t met = 0;
		for (size_t i = 0; i < case_count; ++i)
			if (cases[i].op == ops[k].op && met++ % ops[k].every == which * 5)
				out[count++] = cases[i];
	}
	return count;
}

START_TEST(any_choice_gives_right_results) {
	const conf_config cfg = {.device = "vulkan", .threads = 1};
	conf_case *const sample = calloc(case_count, sizeof *sample);
	const uint64_t before = knit__vk_messages();
	const knit_vk_probe p = probe_of_device();
	const knit_vk_tuning t = variant(&p, (uint32_t)_i);

	ck_assert_ptr_nonnull(sample);
	const size_t count = sample_make((size_t)_i, sample);
	ck_assert_uint_gt(count, 10);
	ck_assert(knit__vk_tuning_save(&p, &t));
	printf("candidates number %d: ", _i);
	const int failed = conf_run(&cfg, sample, count);
	file_remove(&p);
	free(sample);
	ck_assert_int_eq(failed, 0);
	ck_assert_uint_eq(knit__vk_messages() - before, 0);
}
END_TEST

static bool until_three(void *user, const char *choice, size_t done, size_t total) {
	size_t *const asked = user;

	ck_assert_ptr_nonnull(choice);
	ck_assert_uint_eq(done, *asked);
	ck_assert_uint_gt(total, 3);
	return (*asked)++ < 3;
}

START_TEST(stopping_leaves_nothing_behind) {
	const knit_vk_probe p = probe_of_device();
	size_t asked = 0;
	const knit_tune_desc desc = {.go_on = until_three, .user = &asked}, reset = {.reset = true};
	const knit_vk_tuning kept = variant(&p, 1);
	static knit_tune_result r;
	knit_context *ctx;
	knit_diag d = {0}, folderless = {0};
	knit_vk_tuning t;

	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_int_eq(knit_device_tune(ctx, "vulkan:0", &desc, &r, &d), KNIT_ERR_STATE);
	ck_assert_uint_eq(asked, 4);
	ck_assert_uint_eq(r.count, 0);
	check_ignored(&p, KNIT_VK_TUNING_TABLE);
	/* what was there stays */
	ck_assert(knit__vk_tuning_save(&p, &kept));
	asked = 0;
	ck_assert_int_eq(knit_device_tune(ctx, "vulkan:0", &desc, &r, &d), KNIT_ERR_STATE);
	ck_assert_int_eq(knit__vk_tuning_load(&p, &t), KNIT_VK_TUNING_FILE);
	ck_assert_int_eq(memcmp(&t, &kept, sizeof t), 0);
	/* and goes when it is asked to */
	for (int i = 0; i < 2; ++i)
		ck_assert_msg(knit_device_tune(ctx, "vulkan:0", &reset, &r, &d) == KNIT_OK, "%s", d.text);
	check_ignored(&p, KNIT_VK_TUNING_TABLE);
	/* devices and calls that cannot be */
	ck_assert_int_eq(knit_device_tune(ctx, "cpu", NULL, &r, &d), KNIT_ERR_UNSUPPORTED);
	ck_assert_int_eq(knit_device_tune(ctx, "abacus", NULL, &r, &d), KNIT_ERR_NOT_FOUND);
	ck_assert_int_eq(knit_device_tune(ctx, NULL, NULL, &r, &d), KNIT_ERR_ARGUMENT);
	setenv("KNIT_CACHE", "", 1);
	ck_assert_int_eq(knit_device_tune(ctx, "vulkan:0", NULL, &r, &folderless), KNIT_ERR_IO);
	ck_assert_ptr_nonnull(strstr(folderless.text, "KNIT_CACHE"));
	setenv("KNIT_CACHE", folder, 1);
	knit_context_destroy(ctx);
}
END_TEST

/* With few candidates: the limits rule some out. */
START_TEST(what_is_measured_is_used) {
	static knit_tune_result r;
	const uint64_t before = knit__vk_messages();
	knit_context *ctx;
	knit_diag d = {0};
	int usual = 0, chosen = 0, choices = 0;

	setenv("KNIT_VK_LIMITS", "invocations=64,features=0", 1);
	ck_assert_int_eq(knit_context_create(NULL, &ctx), KNIT_OK);
	ck_assert_msg(knit_device_tune(ctx, "vulkan:0", NULL, &r, &d) == KNIT_OK, "%s", d.text);
	knit_context_destroy(ctx);
	knit_device *const dev = vulkan_open_limited(NULL, NULL);
	for (size_t i = 0; i < r.count; ++i) {
		const knit_tune_row *const row = &r.rows[i];
		choices += i == 0 || strcmp(row->choice, r.rows[i - 1].choice) != 0;
		usual += row->usual;
		chosen += row->chosen;
		ck_assert(row->ms > 0);
		ck_assert_str_ne(row->choice, "dot_rows");
		for (uint32_t k = 0; k < knit__vk_choice_count; ++k)
			if (row->chosen && strcmp(knit__vk_choices[k].name, row->choice) == 0)
				ck_assert_uint_eq(knit__vk_tuning_get(&dev->kernel_caps.tuning, &knit__vk_choices[k]),
				                  strcmp(row->candidate, "never") ? strtoul(row->candidate, NULL, 10) : KNIT_VK_NEVER);
	}
	/* all but dot_rows and attention_chunk, which need what this device now lacks, and attention_quads, which is fixed */
	ck_assert_int_eq(choices, (int)knit__vk_choice_count - 3);
	ck_assert_int_eq(usual, choices);
	ck_assert_int_eq(chosen, choices);
	file_remove(&dev->probe);
	vulkan_backend()->close(dev);
	unsetenv("KNIT_VK_LIMITS");
	ck_assert_uint_eq(knit__vk_messages() - before, 0);
}
END_TEST

int main(void) {
	Suite *const s = suite_create("vk_tune");
	TCase *const t = tcase_create("vk_tune");

	if (!vulkan_present_checked())
		return 0;
	if (!mkdtemp(folder))
		return 1;
	setenv("KNIT_CACHE", folder, 1);
	cases = cases_make(&case_count);
	tcase_set_timeout(t, 0);
	tcase_add_test(t, the_table_is_among_the_candidates);
	tcase_add_test(t, limits_rule_candidates_out);
	tcase_add_test(t, choices_go_through_the_file);
	tcase_add_test(t, a_spoilt_file_is_ignored);
	tcase_add_test(t, a_file_for_something_else_is_ignored_and_said);
	tcase_add_loop_test(t, any_choice_gives_right_results, 0, KNIT_VK_MAX_CANDIDATES);
	tcase_add_test(t, stopping_leaves_nothing_behind);
	tcase_add_test(t, what_is_measured_is_used);
	suite_add_tcase(s, t);
	const int failed = suite_finish(s, CK_NOFORK);
	cases_free(cases);
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", folder);
	return system(command) != 0 || failed != 0;
}
