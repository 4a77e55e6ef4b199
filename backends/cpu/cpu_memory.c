/* Owns where the bytes of buffers come from: the allocator, mappings of their own, and chunks that weights share. Knows no
 * op. */
#include "cpu.h"

#include <sys/mman.h>
#include <unistd.h>

/* From here on a buffer is a mapping: zero pages that cost memory only where they are touched, so a KV slot grows with
 * its context and not with its limit. */
#define MAP_MIN_BYTES (UINT64_C(1) << 18)
/* Weights are filled from end to end and read as streams: they lie in pages that are as large as the system has them, which
 * come and go 512 times as fast as small ones and need no walks through page tables. A weight of many such pages has a
 * mapping of its own, whose end lies in small pages; smaller ones share chunks. */
#define HUGE_BYTES (UINT64_C(1) << 21)
#define CHUNK_BYTES (UINT64_C(1) << 25)
#define SHARE_MIN_BYTES (UINT64_C(1) << 16)
#define SHARE_MAX_BYTES (UINT64_C(1) << 23)
#define PART_ALIGN 64

/* Lives as long as it has parts. */
struct knit_cpu_chunk {
	char *data;
	uint64_t used, mapped;
	uint32_t parts;
};

/* `bytes` is a multiple of pages. NULL if there is no room. */
static char *map(uint64_t bytes, bool huge) {
	const uint64_t more = huge ? HUGE_BYTES : 0;

	if (bytes > SIZE_MAX - more)
		return NULL;
	char *const p = mmap(NULL, (size_t)(bytes + more), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (!huge)
		return p;
	/* cut off what lies before the first boundary and behind the end */
	const uint64_t before = (HUGE_BYTES - (uintptr_t)p % HUGE_BYTES) % HUGE_BYTES;
	if (before)
		munmap(p, (size_t)before);
	if (more - before)
		munmap(p + before + bytes, (size_t)(more - before));
#ifdef MADV_HUGEPAGE
	madvise(p + before, (size_t)bytes, MADV_HUGEPAGE);
#endif
	return p + before;
}

static bool map_own(knit_buffer *buf, bool huge) {
	uint64_t mapped;

	if (!knit__align_u64(buf->bytes, (uint64_t)sysconf(_SC_PAGESIZE), &mapped))
		return false;
	buf->data = map(mapped, huge && mapped >= HUGE_BYTES);
	buf->mapped_bytes = buf->data ? mapped : 0;
	return buf->data != NULL;
}

/* ---- chunks; the lock is held ------------------------------------------------------------------------------------ */

static void chunk_free(knit_device *dev, knit_cpu_chunk *c) {
	munmap(c->data, (size_t)c->mapped);
	knit__free(&dev->a, c, sizeof *c);
}

/* No part will be taken of it any more: what is left of it goes back, also of the last large page. */
static void chunk_close(knit_device *dev) {
	knit_cpu_chunk *const c = dev->chunk;
	uint64_t kept = 0;

	dev->chunk = NULL;
	if (!c || !knit__align_u64(c->used, (uint64_t)sysconf(_SC_PAGESIZE), &kept) || kept >= c->mapped)
		return;
	munmap(c->data + kept, (size_t)(c->mapped - kept));
	c->mapped = kept;
}

static bool chunk_make(knit_device *dev) {
	knit_cpu_chunk *const c = knit__alloc_zero(&dev->a, sizeof *c);

	if (!c)
		return false;
	c->data = map(CHUNK_BYTES, true);
	c->mapped = CHUNK_BYTES;
	if (!c->data) {
		knit__free(&dev->a, c, sizeof *c);
		return false;
	}
	dev->chunk = c;
	return true;
}

static bool part_take(knit_device *dev, knit_buffer *buf) {
	const uint64_t bytes = (buf->bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;

	if (dev->chunk && dev->chunk->mapped - dev->chunk->used < bytes)
		chunk_close(dev);
	if (!dev->chunk && !chunk_make(dev))
		return false;
	buf->chunk = dev->chunk;
	buf->data = buf->chunk->data + buf->chunk->used;
	buf->chunk->used += bytes;
	buf->chunk->parts++;
	return true;
}

static void part_give(knit_device *dev, knit_buffer *buf) {
	knit_cpu_chunk *const c = buf->chunk;

	if (--c->parts > 0)
		return; /* its bytes wait for the others: weights of a program go together */
	if (c == dev->chunk)
		dev->chunk = NULL;
	chunk_free(dev, c);
}

/* ------------------------------------------------------------------------------------------------------------------ */

bool knit__cpu_memory_take(knit_device *dev, knit_buffer_use use, knit_buffer *buf) {
	const bool weight = use == KNIT_BUFFER_CONST;

	if (dev->default_allocator && weight && buf->bytes >= SHARE_MIN_BYTES && buf->bytes <= SHARE_MAX_BYTES) {
		pthread_mutex_lock(&dev->memory_lock);
		const bool ok = part_take(dev, buf);
		pthread_mutex_unlock(&dev->memory_lock);
		return ok;
	}
	if (dev->default_allocator && buf->bytes >= MAP_MIN_BYTES)
		return map_own(buf, weight);
	buf->data = knit__alloc_zero(&dev->a, (size_t)buf->bytes);
	return buf->data != NULL;
}

void knit__cpu_memory_give(knit_device *dev, knit_buffer *buf) {
	if (buf->chunk) {
		pthread_mutex_lock(&dev->memory_lock);
		part_give(dev, buf);
		pthread_mutex_unlock(&dev->memory_lock);
	} else if (buf->mapped_bytes) {
		munmap(buf->data, (size_t)buf->mapped_bytes);
	} else if (!buf->imported) {
		knit__free(&dev->a, buf->data, (size_t)buf->bytes);
	}
}
