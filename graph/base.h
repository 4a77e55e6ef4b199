/* Owns what every other file needs and nothing about graphs: allocation through the caller's allocator, checked
 * arithmetic, growable arrays, interned strings, the sticky diagnostic. */
#ifndef KNIT_BASE_H
#define KNIT_BASE_H

#include "knit.h"

#include <stdarg.h>

/* ---- checked arithmetic: false on overflow, *out then untouched --------------------------------------------------- */

static inline bool knit__mul_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool knit__add_u64(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline bool knit__mul_i64(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool knit__add_i64(int64_t a, int64_t b, int64_t *out) { return !__builtin_add_overflow(a, b, out); }
/* Rounds up to a multiple of align (a power of two); false on overflow. */
static inline bool knit__align_u64(uint64_t a, uint64_t align, uint64_t *out) {
	if (!knit__add_u64(a, align - 1, out))
		return false;
	*out &= ~(align - 1);
	return true;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* A filled-in allocator (defaults resolved). All return NULL on failure; size 0 gives a valid pointer of size 1. */
void *knit__alloc(const knit_allocator *a, size_t size);                 /* 64-byte aligned, not cleared */
void *knit__alloc_zero(const knit_allocator *a, size_t size);            /* the same, cleared */
void *knit__alloc_array(const knit_allocator *a, size_t count, size_t size); /* checked product, cleared */
void knit__free(const knit_allocator *a, void *ptr, size_t size);        /* ptr may be NULL */
/* How often the calling thread has asked for memory so far: the difference over a call is what the call asked for. */
uint64_t knit__alloc_count(void);
extern const knit_allocator knit__default_allocator;

/* Makes room for `need` elements: grows *data (of *cap elements, element_size bytes each) to at least `need`, keeping
 * the contents and clearing the new part. False on failure, everything unchanged. */
bool knit__grow(const knit_allocator *a, void **data, uint32_t *cap, uint32_t need, size_t element_size);

/* ---- strings ----------------------------------------------------------------------------------------------------- */

/* Interned strings; id 0 is the empty string. Ids are dense and pointers stay valid until clear. */
typedef struct knit_strings {
	const knit_allocator *a;
	char **text;
	uint32_t *table; /* open addressing, capacity a power of two */
	uint32_t count, cap, table_cap;
} knit_strings;

void knit__strings_init(knit_strings *s, const knit_allocator *a);
void knit__strings_clear(knit_strings *s);
/* UINT32_MAX on allocation failure. */
uint32_t knit__strings_intern(knit_strings *s, const char *text);
const char *knit__strings_get(const knit_strings *s, uint32_t id);

/* A growing text buffer. After a failed allocation `failed` is set and later calls do nothing. */
typedef struct knit_text {
	const knit_allocator *a;
	char *data; /* always terminated once something was added; NULL before */
	uint32_t count, cap;
	bool failed;
} knit_text;

void knit__text_add(knit_text *t, const char *fmt, ...) KNIT_PRINTF(2, 3);
void knit__text_clear(knit_text *t);
/* The whole text as a number with a point, whatever the locale says; false, and *out is 0, where it is none. */
bool knit__text_to_double(const char *text, double *out);

/* ---- diagnostics ------------------------------------------------------------------------------------------------- */

/* Records the first failure only: later ones are consequences of it. Returns `status`, so that callers can
 * `return knit__fail(...)`. d may be NULL. */
knit_status knit__fail(knit_diag *d, knit_status status, uint32_t node, const char *fmt, ...) KNIT_PRINTF(4, 5);
knit_status knit__fail_v(knit_diag *d, knit_status status, uint32_t node, const char *fmt, va_list args);
/* The usual text for a failed allocation. */
knit_status knit__fail_memory(knit_diag *d, const char *what, uint64_t bytes);

/* 64-bit FNV-1a; continues from `seed` (start with KNIT__HASH_SEED). Not for untrusted collision resistance. */
#define KNIT__HASH_SEED UINT64_C(0xcbf29ce484222325)
uint64_t knit__hash(uint64_t seed, const void *data, size_t bytes);

#endif
