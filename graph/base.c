/* Owns allocation, strings, text buffers and diagnostics. Knows nothing about graphs. */
#include "base.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE_ALIGN 64

static void *default_alloc(void *user, size_t size, size_t align) {
	void *p = NULL;

	(void)user;
	return posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) == 0 ? p : NULL;
}

static void default_free(void *user, void *ptr, size_t size) {
	(void)user;
	(void)size;
	free(ptr);
}

const knit_allocator knit__default_allocator = {default_alloc, default_free, NULL};

const char *knit_status_name(knit_status status) {
	static const char *const names[] = {"OK",     "ARGUMENT", "SHAPE", "STATE",  "NOT_FOUND", "UNSUPPORTED",
	                                    "FORMAT", "LIMIT",    "IO",    "MEMORY", "DEVICE",    "INTERNAL"};

	return (unsigned)status < sizeof names / sizeof names[0] ? names[status] : "UNKNOWN";
}

static _Thread_local uint64_t alloc_count;

uint64_t knit__alloc_count(void) { return alloc_count; }

void *knit__alloc(const knit_allocator *a, size_t size) {
	++alloc_count;
	return a->alloc(a->user, size ? size : 1, BASE_ALIGN);
}

void *knit__alloc_zero(const knit_allocator *a, size_t size) {
	void *p = knit__alloc(a, size);

	if (p)
		memset(p, 0, size);
	return p;
}

void *knit__alloc_array(const knit_allocator *a, size_t count, size_t size) {
	size_t bytes;

	return __builtin_mul_overflow(count, size, &bytes) ? NULL : knit__alloc_zero(a, bytes);
}

void knit__free(const knit_allocator *a, void *ptr, size_t size) {
	if (ptr)
		a->free(a->user, ptr, size ? size : 1);
}

bool knit__grow(const knit_allocator *a, void **data, uint32_t *cap, uint32_t need, size_t element_size) {
	if (need <= *cap)
		return true;

	uint32_t wanted = *cap < 8 ? 8 : *cap > UINT32_MAX / 2 ? UINT32_MAX : *cap * 2;
	if (wanted < need)
		wanted = need;
	char *grown = knit__alloc_array(a, wanted, element_size);
	if (!grown)
		return false;
	if (*cap)
		memcpy(grown, *data, *cap * element_size);
	knit__free(a, *data, *cap * element_size);
	*data = grown;
	*cap = wanted;
	return true;
}

uint64_t knit__hash(uint64_t seed, const void *data, size_t bytes) {
	const unsigned char *p = data;

	for (size_t i = 0; i < bytes; ++i)
		seed = (seed ^ p[i]) * UINT64_C(0x100000001b3);
	return seed;
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

void knit__strings_init(knit_strings *s, const knit_allocator *a) { *s = (knit_strings){.a = a}; }

void knit__strings_clear(knit_strings *s) {
	for (uint32_t i = 0; i < s->count; ++i)
		knit__free(s->a, s->text[i], strlen(s->text[i]) + 1);
	if (s->text)
		knit__free(s->a, s->text, s->cap * sizeof *s->text);
	if (s->table)
		knit__free(s->a, s->table, s->table_cap * sizeof *s->table);
	*s = (knit_strings){.a = s->a};
}

/* table holds id + 1, where id counts from 0 in `text`; public ids are one higher, so that 0 stays the empty string. */
static uint32_t *strings_slot(const knit_strings *s, const char *text) {
	uint32_t i = (uint32_t)knit__hash(KNIT__HASH_SEED, text, strlen(text)) & (s->table_cap - 1);

	while (s->table[i] && strcmp(s->text[s->table[i] - 1], text) != 0)
		i = (i + 1) & (s->table_cap - 1);
	return &s->table[i];
}

static bool strings_rehash(knit_strings *s) {
	knit_strings next = *s;

	next.table_cap = s->table_cap ? s->table_cap * 2 : 64;
	next.table = knit__alloc_array(s->a, next.table_cap, sizeof *next.table);
	if (!next.table)
		return false;
	for (uint32_t i = 0; i < s->count; ++i)
		*strings_slot(&next, s->text[i]) = i + 1;
	if (s->table)
		knit__free(s->a, s->table, s->table_cap * sizeof *s->table);
	*s = next;
	return true;
}

uint32_t knit__strings_intern(knit_strings *s, const char *text) {
	if (!*text)
		return 0;
	if ((s->count + 1) * 2 > s->table_cap && !strings_rehash(s))
		return UINT32_MAX;

	uint32_t *slot = strings_slot(s, text);
	if (*slot)
		return *slot;
	if (!knit__grow(s->a, (void **)&s->text, &s->cap, s->count + 1, sizeof *s->text))
		return UINT32_MAX;

	size_t bytes = strlen(text) + 1;
	char *copy = knit__alloc(s->a, bytes);
	if (!copy)
		return UINT32_MAX;
	memcpy(copy, text, bytes);
	s->text[s->count++] = copy;
	return *slot = s->count;
}

const char *knit__strings_get(const knit_strings *s, uint32_t id) {
	return id == 0 || id > s->count ? "" : s->text[id - 1];
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

void knit__text_add(knit_text *t, const char *fmt, ...) {
	va_list args, again;

	if (t->failed)
		return;
	va_start(args, fmt);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0 || (uint64_t)t->count + (uint64_t)n + 1 > UINT32_MAX ||
	    !knit__grow(t->a, (void **)&t->data, &t->cap, t->count + (uint32_t)n + 1, 1)) {
		t->failed = true;
	} else {
		vsnprintf(t->data + t->count, (size_t)n + 1, fmt, again);
		t->count += (uint32_t)n;
	}
	va_end(again);
}

void knit__text_clear(knit_text *t) {
	if (t->data)
		knit__free(t->a, t->data, t->cap);
	*t = (knit_text){.a = t->a};
}

bool knit__text_to_double(const char *text, double *out) {
	const char *const point = localeconv()->decimal_point;
	char own[80], *end;
	size_t n = 0;

	*out = 0;
	for (; *text; ++text) {
		const char *const piece = *text == '.' ? point : text;
		const size_t bytes = *text == '.' ? strlen(point) : 1;

		if (n + bytes >= sizeof own || (*text != '.' && *text == *point))
			return false;
		memcpy(own + n, piece, bytes);
		n += bytes;
	}
	own[n] = 0;
	const double x = strtod(own, &end);
	if (end == own || *end)
		return false;
	*out = x;
	return true;
}

/* ---- diagnostics ------------------------------------------------------------------------------------------------- */

knit_status knit__fail_v(knit_diag *d, knit_status status, uint32_t node, const char *fmt, va_list args) {
	if (d && d->status == KNIT_OK) {
		d->status = status;
		d->node = node;
		vsnprintf(d->text, sizeof d->text, fmt, args);
	}
	return status;
}

knit_status knit__fail(knit_diag *d, knit_status status, uint32_t node, const char *fmt, ...) {
	va_list args;

	va_start(args, fmt);
	knit__fail_v(d, status, node, fmt, args);
	va_end(args);
	return status;
}

knit_status knit__fail_memory(knit_diag *d, const char *what, uint64_t bytes) {
	return knit__fail(d, KNIT_ERR_MEMORY, 0, "out of memory: %s needs %llu bytes", what, (unsigned long long)bytes);
}
