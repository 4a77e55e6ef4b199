/* Owns the search for NaN and infinity in tensors' bytes. Looks at exponent bits, converts nothing. */
#include "nonfinite.h"

#include "reader.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

enum {
	PART_BYTES = 1 << 20,     /* claimed by a thread at a time; of a part without NaN nothing more is asked */
	THREAD_BYTES = 2 << 20,   /* what starting a thread must be worth */
	MAX_THREADS = 16,         /* more than that wait for memory */
	CHUNK = 1024,             /* words between two looks at what has been found */
};

/* Where the 16 or 32 bits that may be NaN stand: `words` of them from `at` on, every `stride` bytes; together they stand for
 * `elements` elements. */
typedef struct layout {
	uint64_t stride, elements, at, words;
	uint32_t exponent, mantissa; /* masks */
	size_t word_bytes;
} layout;

static bool layout_of(knit_dtype dtype, layout *out) {
	const knit_dtype_info *info = knit__dtype_info(dtype);

	if (!info)
		return false;
	*out = (layout){info->block_bytes, info->block_elements, 0, 1, 0x7c00, 0x03ff, 2}; /* f16, and the blocks' scales */
	if (dtype == KNIT_F32)
		*out = (layout){4, 1, 0, 1, 0x7f800000, 0x007fffff, 4};
	if (dtype == KNIT_BF16)
		*out = (layout){2, 1, 0, 1, 0x7f80, 0x007f, 2};
	if (dtype == KNIT_Q4_K)
		out->words = 2; /* of the scales and of the minima */
	if (dtype == KNIT_Q6_K)
		out->at = info->block_bytes - 2;
	return dtype != KNIT_I32;
}

/* ---- a quick no -------------------------------------------------------------------------------------------------- */

/* Whether none of `count` words is all ones under the mask: adding the mask's lowest bit then carries into the bit above it. */
static inline __attribute__((always_inline)) bool none16(const uint8_t *p, uint64_t count, uint64_t stride, uint32_t mask) {
	const uint16_t low = (uint16_t)(mask & (0 - mask)), ones = (uint16_t)mask;
	uint16_t any = 0;

	for (uint64_t i = 0; i < count; ++i) {
		uint16_t bits;

		memcpy(&bits, p + i * stride, sizeof bits);
		any |= (uint16_t)((bits & ones) + low);
	}
	return !(any & 0x8000);
}

static bool none32(const uint8_t *p, uint64_t count) {
	uint32_t any = 0;

	for (uint64_t i = 0; i < count; ++i) {
		uint32_t bits;

		memcpy(&bits, p + i * 4, sizeof bits);
		any |= (bits & 0x7f800000) + 0x00800000;
	}
	return !(any & 0x80000000);
}

/* Strides as constants, so that the compiler knows each loop. */
static bool none_in(const layout *l, const uint8_t *p, uint64_t count) {
	if (l->word_bytes == 4)
		return none32(p, count);
	switch (l->stride) {
	case 2:
		return none16(p, count, 2, l->exponent);
	case 34:
		return none16(p, count, 34, l->exponent);
	case 18:
		return none16(p, count, 18, l->exponent);
	default:
		return none16(p, count, l->stride, l->exponent);
	}
}

/* Blocks [begin, end). */
static bool part_finite(const layout *l, const uint8_t *data, uint64_t begin, uint64_t end) {
	for (uint64_t i = begin; i < end; i += CHUNK) {
		const uint64_t count = end - i < CHUNK ? end - i : CHUNK;

		for (uint64_t word = 0; word < l->words; ++word)
			if (!none_in(l, data + i * l->stride + l->at + word * l->word_bytes, count))
				return false;
	}
	return true;
}

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

static void count(const layout *l, const uint8_t *data, uint64_t block, knit_nonfinite *out) {
	for (uint64_t word = 0; word < l->words; ++word) {
		uint32_t bits = 0;

		memcpy(&bits, data + block * l->stride + l->at + word * l->word_bytes, l->word_bytes);
		if ((bits & l->exponent) != l->exponent)
			continue;
		if (out->nan + out->inf == 0)
			out->first = block * l->elements;
		if (bits & l->mantissa)
			out->nan++;
		else
			out->inf++;
	}
}

bool knit__weights_all_finite(const knit_weight_info *w, knit_nonfinite *out) {
	layout l;

	*out = (knit_nonfinite){0};
	if (!layout_of(w->dtype, &l))
		return true;
	const uint64_t blocks = w->bytes / l.stride;
	for (uint64_t i = 0; i < blocks; i += CHUNK) {
		const uint64_t end = blocks - i < CHUNK ? blocks : i + CHUNK;

		if (part_finite(&l, w->data, i, end))
			continue;
		for (uint64_t block = i; block < end; ++block)
			count(&l, w->data, block, out);
	}
	return out->nan + out->inf == 0;
}

/* ---- a store ----------------------------------------------------------------------------------------------------- */

typedef struct scan {
	const knit_weights *store;
	pthread_mutex_t lock;
	size_t entry;     /* from here on parts are to be claimed */
	uint64_t at;      /* byte of that entry */
	size_t first_bad; /* entries from here on need not be looked at */
} scan;

typedef struct part { size_t entry; uint64_t begin, end; } part; /* blocks */

static bool claim(scan *s, part *out) {
	bool found = false;

	pthread_mutex_lock(&s->lock);
	while (!found && s->entry < s->first_bad) {
		const knit_weight_entry *const w = &s->store->entries[s->entry];
		layout l;

		if (!layout_of(w->dtype, &l) || s->at >= w->bytes / l.stride * l.stride) {
			++s->entry;
			s->at = 0;
			continue;
		}
		const uint64_t blocks = w->bytes / l.stride, some = PART_BYTES / l.stride, begin = s->at / l.stride;
		*out = (part){s->entry, begin, blocks - begin < some ? blocks : begin + some};
		s->at = out->end * l.stride;
		found = true;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}

static void *work(void *arg) {
	scan *const s = arg;
	part p;

	while (claim(s, &p)) {
		const knit_weight_entry *const w = &s->store->entries[p.entry];
		const uint8_t *const data = w->data;
		layout l;

		layout_of(w->dtype, &l);
		if (knit__weights_forgettable(s->store, data))
			knit__mapping_expect(data + p.begin * l.stride, (p.end - p.begin) * l.stride);
		if (part_finite(&l, data, p.begin, p.end))
			continue;
		pthread_mutex_lock(&s->lock);
		s->first_bad = p.entry < s->first_bad ? p.entry : s->first_bad;
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static uint32_t threads_for(const knit_weights *store, uint32_t threads) {
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < store->count; ++i)
		bytes += store->entries[i].bytes;
#ifdef __linux__
	cpu_set_t set;

	if (threads == 0 && sched_getaffinity(0, sizeof set, &set) == 0)
		threads = (uint32_t)CPU_COUNT(&set);
#endif
	threads = threads < MAX_THREADS ? threads : MAX_THREADS;
	return bytes / THREAD_BYTES < threads ? (uint32_t)(bytes / THREAD_BYTES) : threads;
}

size_t knit__weights_first_nonfinite(const knit_weights *store, uint32_t threads, knit_nonfinite *out) {
	scan s = {.store = store, .lock = PTHREAD_MUTEX_INITIALIZER, .first_bad = store->count};
	const uint32_t wanted = threads_for(store, threads);
	pthread_t others[MAX_THREADS];
	uint32_t started = 0;

	*out = (knit_nonfinite){0};
	while (started + 1 < wanted && pthread_create(&others[started], NULL, work, &s) == 0)
		++started;
	work(&s);
	for (uint32_t i = 0; i < started; ++i)
		pthread_join(others[i], NULL);

	knit_weight_info info;
	if (knit_weights_at(store, s.first_bad, &info) == KNIT_OK)
		knit__weights_all_finite(&info, out);
	return s.first_bad;
}
