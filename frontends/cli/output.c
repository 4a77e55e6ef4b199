/* Numbers and JSON for people and programs, files in, stdout out, Ctrl-C. */
#include "cli.h"

#include "../text/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t cli_interrupted;

static void on_interrupt(int signal_number) {
	(void)signal_number;
	cli_interrupted = 1;
}

void cli_catch_interrupts(void) {
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
}

const char *cli_bytes(uint64_t bytes, char out[32]) {
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(out, 32, "%" PRIu64 " B", bytes);
		return out;
	}
	for (; value >= 1024 && unit < 3; ++unit)
		value /= 1024;
	snprintf(out, 32, value < 10 ? "%.2f %s" : value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

const char *cli_count(uint64_t n, char out[32]) {
	char digits[24];
	const int length = snprintf(digits, sizeof digits, "%" PRIu64, n);
	int at = 0;

	for (int i = 0; i < length; ++i) {
		if (i && (length - i) % 3 == 0)
			out[at++] = ',';
		out[at++] = digits[i];
	}
	out[at] = '\0';
	return out;
}

cJSON *cli_json_u64(uint64_t n) {
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, n);
	return cJSON_CreateRaw(text);
}

/* Bytes of the valid UTF-8 character at text, 0 if there is none (RFC 3629: no surrogates, nothing longer than needed).
 */
static size_t valid_utf8(const uint8_t *s, size_t left) {
	const size_t n = knit__utf8_sequence_bytes(s[0]);

	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; ++i)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
		(s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

cJSON *cli_json_text(const char *text, size_t bytes) {
	char *clean = malloc(bytes * 3 + 1), *out = clean;
	cJSON *item;

	if (!clean)
		return NULL;
	for (size_t at = 0; at < bytes;) {
		const size_t n = valid_utf8((const uint8_t *)text + at, bytes - at);
		if (n && text[at]) {
			memcpy(out, text + at, n);
			out += n;
		} else { /* cJSON's strings end at a NUL, so it is replaced too */
			memcpy(out, "\xef\xbf\xbd", 3);
			out += 3;
		}
		at += n ? n : 1;
	}
	*out = '\0';
	item = cJSON_CreateString(clean);
	free(clean);
	return item;
}

static void print_part(FILE *f, const char *name, uint64_t bytes, const char *rest) {
	char text[32];

	if (bytes)
		fprintf(f, "  %-12s %12s%s%s\n", name, cli_bytes(bytes, text), *rest ? "  " : "", rest);
}

void cli_print_fit(FILE *f, const knit__fit *fit) {
	const knit_memory *m = &fit->memory;
	char slots[96], bytes[32];

	if (fit->positions >= KNIT__MAX_CONTEXT)
		snprintf(slots, sizeof slots, "the window's cells, for any number of positions");
	else
		snprintf(slots, sizeof slots, "%" PRId64 " positions, %s each", fit->positions,
				 cli_bytes(fit->bytes_per_position, bytes));
	print_part(f, "weights", m->weight_bytes, "each stored once");
	print_part(f, "adapters", m->adapter_bytes, "");
	print_part(f, "packed", m->packed_bytes, "more for kernels");
	print_part(f, "KV cache", m->state_bytes, slots);
	print_part(f, "arena", m->arena_bytes, "");
	print_part(f, "in, out", m->io_bytes, "");
	if (fit->limit >= fit->total)
		print_part(f, "rest", fit->limit - fit->total, "free");
	fprintf(f, "  %-12s %12s  of %s", "sum", cli_bytes(fit->total, slots), cli_bytes(fit->limit, bytes));
	fprintf(f, " (%" PRIu64 " of %" PRIu64 " bytes)\n", fit->total, fit->limit);
}

cJSON *cli_json_kv(const knit__kv_spec *kv) {
	static const char *const names[] = {"model", "visit", "layer", "first", "group"};
	cJSON *root = cJSON_CreateObject();

	cJSON_AddStringToObject(root, "policy", names[kv->policy]);
	if (kv->policy == KNIT__KV_GROUP)
		cJSON_AddNumberToObject(root, "group", kv->group);
	cJSON_AddStringToObject(root, "k", knit_dtype_name(kv->k));
	cJSON_AddStringToObject(root, "v", knit_dtype_name(kv->v));
	cJSON_AddNumberToObject(root, "window", (double)kv->window);
	cJSON_AddNumberToObject(root, "sinks", (double)kv->sinks);
	return root;
}

cJSON *cli_json_memory(const knit_memory *m) {
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"weight_bytes", m->weight_bytes},
		{"weight_bytes_by_use", m->weight_bytes_by_use},
		{"weight_storages", m->weight_storages},
		{"weight_uses", m->weight_uses},
		{"adapter_bytes", m->adapter_bytes},
		{"packed_bytes", m->packed_bytes},
		{"packed_storages", m->packed_storages},
		{"padding_bytes", m->padding_bytes},
		{"kv_bytes", m->state_bytes},
		{"arena_bytes", m->arena_bytes},
		{"arena_lower_bound", m->arena_lower_bound},
		{"arena_unshared", m->arena_unshared},
		{"io_bytes", m->io_bytes},
	};
	cJSON *object = cJSON_CreateObject();

	for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
		cJSON_AddItemToObject(object, rows[i].name, cli_json_u64(rows[i].value));
	return object;
}

int cli_json_print(cJSON *root) {
	char *text = root ? cJSON_PrintUnformatted(root) : NULL;

	cJSON_Delete(root);
	if (!text)
		return cli_fail("out of memory while writing JSON");
	puts(text);
	cJSON_free(text);
	return cli_finish_stdout();
}

int cli_finish_stdout(void) {
	if (fflush(stdout) == 0 && !ferror(stdout))
		return CLI_OK;
	if (errno == EPIPE)
		return CLI_PIPE_CLOSED; /* the reader had enough: nothing to say */
	return cli_fail("cannot write the output: %s", strerror(errno));
}

bool cli_write_all(int fd, const char *data, size_t bytes) {
	while (bytes) {
		const ssize_t n = write(fd, data, bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		data += n;
		bytes -= (size_t)n;
	}
	return true;
}

int cli_file_open(const knit_allocator *a, const char *path, cli_file *f) {
	memset(f, 0, sizeof *f);
	return knit__file_out_open(a, path, &f->out, &f->diag) == KNIT_OK ? CLI_OK : cli_fail("%s", f->diag.text);
}

void cli_file_write(void *user, const char *text, size_t bytes) {
	cli_file *f = user;

	if (f->diag.status == KNIT_OK)
		(void)knit__file_out_write(&f->out, text, bytes, &f->diag);
}

int cli_file_close(cli_file *f, knit_status status) {
	if (f->diag.status == KNIT_OK && status == KNIT_OK)
		(void)knit__file_out_commit(&f->out, &f->diag);
	else
		knit__file_out_abort(&f->out);
	if (f->diag.status != KNIT_OK)
		return cli_fail("%s", f->diag.text);
	return status == KNIT_OK ? CLI_OK : cli_fail("nothing is written: %s", knit_status_name(status));
}

int cli_read_file(const char *path, size_t limit, char **data, size_t *bytes) {
	const bool is_stdin = strcmp(path, "-") == 0;
	FILE *f = is_stdin ? stdin : fopen(path, "rb");
	size_t cap = 1 << 16, count = 0;
	char *text = f ? malloc(cap) : NULL;

	*data = NULL;
	*bytes = 0;
	if (!f)
		return cli_fail("%s: %s", path, strerror(errno));
	while (text && !cli_interrupted) {
		errno = 0;
		const size_t n = fread(text + count, 1, cap - count, f);
		count += n;
		if (count > limit || n == 0)
			break;
		if (count == cap) {
			char *larger = realloc(text, cap * 2);
			if (!larger)
				free(text);
			text = larger;
			cap *= 2;
		}
	}
	const bool failed = ferror(f) && !cli_interrupted;
	const int error = errno;
	if (!is_stdin)
		fclose(f);
	if (!text)
		return cli_fail("%s: out of memory", is_stdin ? "stdin" : path);
	if (!failed && count <= limit && !cli_interrupted) {
		*data = text;
		*bytes = count;
		return CLI_OK;
	}
	free(text);
	if (cli_interrupted)
		return CLI_INTERRUPTED;
	if (failed)
		return cli_fail("%s: %s", is_stdin ? "stdin" : path, strerror(error));
	return cli_fail("%s: more than %zu bytes; cut it into parts", is_stdin ? "stdin" : path, limit);
}
