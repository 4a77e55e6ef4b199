/* knit plan --csv: bare blocks in, a placement out; what is wrong in a file is told with its line. */
#include "../tools/command.h"
#include "../tools/suite.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char knit[] = KNIT_BINARY_DIR "/knit";

#define RUN(result, input, ...) command_run((const char *const[]){knit, __VA_ARGS__, NULL}, input, result)

static char folder[] = "/tmp/knit-plan-csv-XXXXXX";

static const char *file_in(const char *name) {
	static char path[2][256];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
	return path[turn];
}

static void write_file(const char *path, const char *text) {
	FILE *f = fopen(path, "wb");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, strlen(text), f), strlen(text));
	fclose(f);
}

static double number(const cJSON *root, const char *name) {
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s is no number", name);
	return item->valuedouble;
}

/* The block that goes leaves a hole of 4, which two of 2 fill. */
static const char small[] = "id,lower,upper,size\na,0,2,4\nb,0,6,4\nc,2,6,2\nd,3,6,2\n";

START_TEST(text_and_json) {
	command_result r;

	RUN(&r, small, "plan", "--csv", "-");
	ck_assert_msg(r.code == 0, "%s", r.err);
	for (const char *const *word = (const char *const[]){"blocks ", "lower bound ", "peak ", "0.00 % above the bound",
	                                                      "nothing needs less", "greedy ", "in order ", "unshared ", "time ", NULL};
	     *word; ++word)
		ck_assert_msg(strstr(r.out, *word), "no \"%s\" in: %s", *word, r.out);
	command_clear(&r);

	RUN(&r, small, "plan", "--csv", "-", "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_double_eq(number(root, "blocks"), 4);
	ck_assert_double_eq(number(root, "lower_bound_bytes"), 8);
	ck_assert_double_eq(number(root, "peak_bytes"), 8);
	ck_assert_double_eq(number(root, "greedy_bytes"), 8);
	ck_assert_double_eq(number(root, "in_order_bytes"), 8);
	ck_assert_double_eq(number(root, "unshared_bytes"), 12);
	ck_assert_double_eq(number(root, "gap_percent"), 0);
	ck_assert(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "optimal")));
	ck_assert_double_ge(number(root, "seconds"), 0);
	cJSON_Delete(root);
}
END_TEST

typedef struct row { char id[16]; unsigned long long lower, upper, size, offset; } row;

static size_t read_offsets(const char *path, row *rows, size_t cap) {
	FILE *f = fopen(path, "r");
	char line[256];
	size_t n = 0;

	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
	ck_assert_str_eq(line, "id,lower,upper,size,offset\n");
	for (; fgets(line, sizeof line, f); ++n) {
		ck_assert_uint_lt(n, cap);
		row *b = &rows[n];
		ck_assert_int_eq(sscanf(line, "%15[^,],%llu,%llu,%llu,%llu", b->id, &b->lower, &b->upper, &b->size, &b->offset), 5);
	}
	fclose(f);
	return n;
}

/* Apart wherever they are alive together, below the peak that is printed. */
static void check_rows(const row *rows, size_t n, double peak) {
	for (size_t i = 0; i < n; ++i) {
		ck_assert_double_le((double)(rows[i].offset + rows[i].size), peak);
		for (size_t k = 0; k < i; ++k)
			ck_assert_msg(rows[i].lower >= rows[k].upper || rows[k].lower >= rows[i].upper ||
			                  rows[i].offset >= rows[k].offset + rows[k].size ||
			                  rows[k].offset >= rows[i].offset + rows[i].size,
			              "%s and %s share bytes", rows[i].id, rows[k].id);
	}
}

START_TEST(offsets_are_written) {
	static row rows[1024];
	command_result r;

	RUN(&r, small, "plan", "--csv", "-", "-o", file_in("out.csv"), "--json");
	cJSON *root = command_check_json(&r);
	const size_t n = read_offsets(file_in("out.csv"), rows, 1024);
	ck_assert_uint_eq(n, 4);
	ck_assert_str_eq(rows[2].id, "c");
	ck_assert_uint_eq(rows[2].lower, 2);
	ck_assert_uint_eq(rows[2].upper, 6);
	check_rows(rows, n, number(root, "peak_bytes"));
	cJSON_Delete(root);

	/* What was written can be read. */
	RUN(&r, NULL, "plan", "--csv", file_in("out.csv"), "--json");
	root = command_check_json(&r);
	ck_assert_double_eq(number(root, "blocks"), 4);
	cJSON_Delete(root);
}
END_TEST

START_TEST(public_instance) {
	static row rows[1024];
	static const char path[] = KNIT_TEST_DATA "/planner/B.1048576.csv";
	command_result r;

	if (access(path, R_OK) != 0) {
		printf("SKIP: %s is not there\n", path);
		return;
	}
	RUN(&r, NULL, "plan", "--csv", path, "-o", file_in("b.csv"), "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_double_eq(number(root, "peak_bytes"), 1048576);
	ck_assert_double_gt(number(root, "in_order_bytes"), 1048576);
	ck_assert_double_gt(number(root, "search_work"), 0);
	check_rows(rows, read_offsets(file_in("b.csv"), rows, 1024), 1048576);
	cJSON_Delete(root);
}
END_TEST

START_TEST(other_forms_of_text) {
	static const char *const texts[] = {
		"\xef\xbb\xbfid,lower,upper,size\r\na,0,1,5\r\n\r\n", "id, lower, upper, size\n a , 0 , 1 , 5 ",
		"id,lower,upper,size,offset\na,0,1,5,77\n",
	};
	command_result r;

	for (size_t i = 0; i < sizeof texts / sizeof *texts; ++i) {
		RUN(&r, texts[i], "plan", "--csv", "-", "--json");
		cJSON *root = command_check_json(&r);
		ck_assert_double_eq(number(root, "blocks"), 1);
		ck_assert_double_eq(number(root, "peak_bytes"), 5);
		cJSON_Delete(root);
	}
	RUN(&r, "id,lower,upper,size\n", "plan", "--csv", "-", "--json");
	cJSON *root = command_check_json(&r);
	ck_assert_double_eq(number(root, "blocks"), 0);
	ck_assert_double_eq(number(root, "peak_bytes"), 0);
	cJSON_Delete(root);
}
END_TEST

START_TEST(faults_are_told_with_their_line) {
	static const struct { const char *text, *part; } cases[] = {
		{"", ":1: the first line must be \"id,lower,upper,size\""},
		{"id,lower,size,upper\na,0,1,5\n", ":1: the first line must be"},
		{"a,0,1,5\n", ":1: the first line must be"},
		{"id,lower,upper,size\na,0,1,5\nb,0,1\n", ":3: there is no size"},
		{"id,lower,upper,size\na\n", ":2: there is no lower"},
		{"id,lower,upper,size\n,0,1,5\n", ":2: the id is empty"},
		{"id,lower,upper,size\na,0,1,5\n\nb,0,x,5\n", ":4: upper \"x\" is no number"},
		{"id,lower,upper,size\na,-1,1,5\n", ":2: lower \"-1\" is no number"},
		{"id,lower,upper,size\na,0,1,5k\n", ":2: size \"5k\" is no number"},
		{"id,lower,upper,size\na,0,1,99999999999999999999\n", ":2: size \"99999999999999999999\" is no number"},
		{"id,lower,upper,size\na,0,1,5,6\n", ":2: more fields than the first line names"},
		{"id,lower,upper,size,offset\na,0,1,5,6,7\n", ":2: more fields"},
		{"id,lower,upper,size\na,3,3,5\n", ":2: lower 3 is not below upper 3"},
		{"id,lower,upper,size\na,0,4294967296,5\n", ":2: upper 4294967296 is above"},
		{"id,lower,upper,size\na,0,1,9223372036854775807\n", "2^60"},
	};
	command_result r;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
		RUN(&r, cases[i].text, "plan", "--csv", "-");
		command_check_error(&r, 1, cases[i].part);
	}
}
END_TEST

START_TEST(too_many_blocks) {
	const size_t lines = (1 << 14) + 1;
	char *text = malloc(lines * 16 + 64), *end = text;
	command_result r;

	ck_assert_ptr_nonnull(text);
	end += sprintf(end, "id,lower,upper,size\n");
	for (size_t i = 0; i < lines; ++i)
		end += sprintf(end, "a,0,1,0\n");
	RUN(&r, text, "plan", "--csv", "-");
	command_check_error(&r, 1, ":16386: more than 16384 blocks");
	free(text);
}
END_TEST

START_TEST(use_is_checked) {
	command_result r;

	RUN(&r, NULL, "plan", "--csv", "/nowhere/blocks.csv");
	command_check_error(&r, 1, "/nowhere/blocks.csv: No such file");
	RUN(&r, small, "plan", "--csv", "-", "-o", "/nowhere/out.csv");
	command_check_error(&r, 1, "/nowhere/out.csv");
	RUN(&r, small, "plan", "--csv", "-", "model.gguf");
	command_check_error(&r, 2, "model.gguf is too much");
	RUN(&r, small, "plan", "--csv", "-", "--html", "x.html");
	command_check_error(&r, 2, "--html is too much");
	RUN(&r, NULL, "plan", "model.gguf", "-o", "x.csv");
	command_check_error(&r, 2, "-o is for the offsets of --csv");

	/* A file is not replaced by its own offsets, nor by those of a file that cannot be read. */
	write_file(file_in("in.csv"), small);
	RUN(&r, NULL, "plan", "--csv", file_in("in.csv"), "-o", file_in("in.csv"));
	command_check_error(&r, 1, "would replace what is read");
	write_file(file_in("bad.csv"), "id,lower,upper,size\nx,1,0,1\n");
	RUN(&r, NULL, "plan", "--csv", file_in("bad.csv"), "-o", file_in("kept.csv"));
	command_check_error(&r, 1, ":2: ");
	ck_assert_int_ne(access(file_in("kept.csv"), F_OK), 0);
}
END_TEST

int main(void) {
	const TTest *const tests[] = {text_and_json, offsets_are_written, public_instance, other_forms_of_text,
	                              faults_are_told_with_their_line, too_many_blocks, use_is_checked};
	int failed;

	if (!mkdtemp(folder))
		return 1;
	failed = suite_run("cli_plan_csv", tests, sizeof tests / sizeof *tests);
	for (const char *const *name = (const char *const[]){"out.csv", "b.csv", "in.csv", "bad.csv", NULL}; *name; ++name)
		unlink(file_in(*name));
	rmdir(folder);
	return failed;
}
