/* Owns the mapping of outside files and the bounded little-endian reader. Knows no file format. */
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are used in place: a little-endian machine is needed"
#endif

/* ---- the mapping ------------------------------------------------------------------------------------------------- */

static knit_status map_descriptor(int fd, knit_mapping *out, knit_diag *diag) {
	struct stat st;

	if (fstat(fd, &st) != 0)
		return knit__fail(diag, KNIT_ERR_IO, 0, "cannot read the file's size: %s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return knit__fail(diag, KNIT_ERR_IO, 0, "is a directory, a model file is needed");
	if (!S_ISREG(st.st_mode))
		return knit__fail(diag, KNIT_ERR_IO, 0, "is no regular file: it cannot be mapped");
	if (st.st_size == 0)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "the file is empty");
	if ((uint64_t)st.st_size > SIZE_MAX)
		return knit__fail(diag, KNIT_ERR_LIMIT, 0, "the file does not fit into the address space");

	void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return knit__fail(diag, errno == ENOMEM ? KNIT_ERR_MEMORY : KNIT_ERR_IO, 0, "cannot map the file: %s",
		                  strerror(errno));
	*out = (knit_mapping){data, (uint64_t)st.st_size};
	return KNIT_OK;
}

knit_status knit__mapping_open(const char *path, knit_mapping *out, knit_diag *diag) {
	*out = (knit_mapping){0};

	/* Not blocking: opening a pipe by mistake must end in an error, not in a wait. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return knit__fail(diag, errno == ENOENT || errno == ENOTDIR ? KNIT_ERR_NOT_FOUND : KNIT_ERR_IO, 0,
		                  "cannot open the file: %s", strerror(errno));

	const knit_status status = map_descriptor(fd, out, diag);
	close(fd);
	return status;
}

void knit__mapping_close(void *data, uint64_t bytes) {
	if (data)
		munmap(data, (size_t)bytes);
}

/* Pages that a part of a mapping lies in. The advice is no more than that: what the system thinks of it changes nothing. */
static void advise(const void *data, uint64_t bytes, int advice) {
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t begin = (uintptr_t)data / page * page, end = ((uintptr_t)data + bytes + page - 1) / page * page;

	madvise((void *)begin, end - begin, advice);
}

void knit__mapping_forget(const void *data, uint64_t bytes) { advise(data, bytes, MADV_DONTNEED); }

void knit__mapping_expect(const void *data, uint64_t bytes) {
#ifdef MADV_POPULATE_READ
	advise(data, bytes, MADV_POPULATE_READ);
#else
	(void)data, (void)bytes;
#endif
}

/* ---- the reader -------------------------------------------------------------------------------------------------- */

void knit__reader_init(knit_reader *r, const char *format, const void *data, uint64_t bytes, knit_diag *diag) {
	*r = (knit_reader){.data = data, .bytes = bytes, .format = format, .diag = diag};
}

void knit__reader_subject(knit_reader *r, const char *fmt, ...) {
	va_list args;

	va_start(args, fmt);
	vsnprintf(r->subject, sizeof r->subject, fmt, args);
	va_end(args);
}

knit_status knit__reader_fail(knit_reader *r, knit_status status, const char *fmt, ...) {
	char text[sizeof r->diag->text];
	va_list args;

	if (r->status != KNIT_OK)
		return r->status;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	r->status = status;
	knit__fail(r->diag, status, 0, "%s: byte %llu: %s%s%s", r->format, (unsigned long long)r->field_at, r->subject,
	           r->subject[0] ? ": " : "", text);
	return status;
}

const uint8_t *knit__reader_take(knit_reader *r, uint64_t bytes, const char *field) {
	if (r->status != KNIT_OK)
		return NULL;

	r->field_at = r->at;
	if (bytes > knit__reader_remaining(r)) {
		knit__reader_fail(r, KNIT_ERR_FORMAT, "%s needs %llu bytes, the file ends after %llu", field,
		                  (unsigned long long)bytes, (unsigned long long)knit__reader_remaining(r));
		return NULL;
	}
	const uint8_t *p = r->data + r->at;
	r->at += bytes;
	return p;
}

/* Numbers are copied out: a field of a file lies at any address. */
uint8_t knit__reader_u8(knit_reader *r, const char *field) {
	const uint8_t *p = knit__reader_take(r, 1, field);

	return p ? *p : 0;
}

static void take_into(knit_reader *r, void *out, size_t bytes, const char *field) {
	const uint8_t *p = knit__reader_take(r, bytes, field);

	if (p)
		memcpy(out, p, bytes);
}

uint16_t knit__reader_u16(knit_reader *r, const char *field) {
	uint16_t v = 0;

	take_into(r, &v, sizeof v, field);
	return v;
}

uint32_t knit__reader_u32(knit_reader *r, const char *field) {
	uint32_t v = 0;

	take_into(r, &v, sizeof v, field);
	return v;
}

uint64_t knit__reader_u64(knit_reader *r, const char *field) {
	uint64_t v = 0;

	take_into(r, &v, sizeof v, field);
	return v;
}

float knit__reader_f32(knit_reader *r, const char *field) {
	float v = 0;

	take_into(r, &v, sizeof v, field);
	return v;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

const char *knit__printable(char out[KNIT_PRINTABLE_BYTES], const void *text, uint64_t bytes) {
	const unsigned char *p = text;
	const uint64_t room = KNIT_PRINTABLE_BYTES - 4; /* "..." and the terminator */
	const uint64_t n = bytes < room ? bytes : room;

	for (uint64_t i = 0; i < n; ++i)
		out[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
	strcpy(out + n, n < bytes ? "..." : "");
	return out;
}

bool knit__utf8_valid(const void *text, uint64_t bytes, uint64_t *bad) {
	const unsigned char *p = text;
	uint64_t i = 0;

	while (i < bytes) {
		const unsigned char lead = p[i];
		/* The second byte's range excludes overlong forms, surrogates and values beyond U+10FFFF (RFC 3629, section 4). */
		unsigned char low = 0x80, high = 0xbf;
		uint64_t more;

		if (lead < 0x80) {
			++i;
			continue;
		}
		if (lead >= 0xc2 && lead <= 0xdf) {
			more = 1;
		} else if (lead >= 0xe0 && lead <= 0xef) {
			more = 2;
			low = lead == 0xe0 ? 0xa0 : 0x80;
			high = lead == 0xed ? 0x9f : 0xbf;
		} else if (lead >= 0xf0 && lead <= 0xf4) {
			more = 3;
			low = lead == 0xf0 ? 0x90 : 0x80;
			high = lead == 0xf4 ? 0x8f : 0xbf;
		} else {
			break;
		}
		if (bytes - i <= more || p[i + 1] < low || p[i + 1] > high)
			break;
		if (more > 1 && (p[i + 2] & 0xc0) != 0x80)
			break;
		if (more > 2 && (p[i + 3] & 0xc0) != 0x80)
			break;
		i += more + 1;
	}
	if (i < bytes && bad)
		*bad = i;
	return i == bytes;
}
