/* Reads a file of saved states. All of it is outside data: nothing is believed before it was checked, and nothing is handed
 * out before the checksum of the whole file was right. */
#include "states_file.h"

#include "../graph/dtype.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 18 };

static knit_status fail_file(const knit_states_reader *r, knit_diag *d, knit_status status, const char *what) {
	const size_t length = strlen(r->path), shown = length > 120 ? 120 : length;

	return knit__fail(d, status, 0, "%s%s: %s", shown < length ? "..." : "", r->path + length - shown, what);
}

static knit_status read_at(const knit_states_reader *r, uint64_t at, void *out, size_t bytes, knit_diag *d) {
	for (char *to = out; bytes;) {
		const ssize_t n = pread(r->fd, to, bytes, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail_file(r, d, KNIT_ERR_IO, n < 0 ? strerror(errno) : "became shorter while it was read");
		to += n;
		at += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return KNIT_OK;
}

bool knit__states_cell_bytes(const knit_states_record *r, uint64_t *out) {
	const knit_dtype_info *info = knit__dtype_info((knit_dtype)r->dtype);
	uint64_t elements = 1;

	if (!info || r->rank < 3 || r->rank > KNIT_MAX_RANK || r->dims[r->rank - 1] % info->block_elements != 0)
		return false;
	for (uint32_t i = 0; i < r->rank; ++i)
		if (r->dims[i] < 1)
			return false;
	for (uint32_t i = 2; i < r->rank; ++i)
		if (!knit__mul_u64(elements, (uint64_t)r->dims[i], &elements))
			return false;
	return knit__dtype_bytes((knit_dtype)r->dtype, elements, out);
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static knit_status check_head(const knit_states_reader *r, uint64_t file_bytes, knit_diag *d) {
	const knit_states_head *h = &r->head;

	if (memcmp(h->magic, KNIT_STATES_MAGIC, sizeof h->magic) != 0)
		return fail_file(r, d, KNIT_ERR_FORMAT, "is no file of saved states (another kind of file)");
	if (h->version != KNIT_STATES_VERSION)
		return fail_file(r, d, KNIT_ERR_FORMAT, "was saved by another version of knit: save it again");
	if (h->file_bytes != file_bytes)
		return fail_file(r, d, KNIT_ERR_FORMAT,
		                 h->file_bytes > file_bytes ? "is cut: a part of it is missing" : "has bytes past its end");
	if (h->note_bytes > KNIT_STATES_MAX_NOTE || h->states > KNIT_STATES_MAX_STATES || h->sequences < 1 ||
	    h->sequences > KNIT_STATES_MAX_SEQUENCES)
		return fail_file(r, d, KNIT_ERR_FORMAT, "is damaged: its head asks for what no file has");
	return KNIT_OK;
}

static knit_status check_sum(const knit_states_reader *r, void *piece, knit_diag *d) {
	const uint64_t end = r->head.file_bytes - KNIT_STATES_CHECKSUM;
	knit_digest want, got;
	knit_hasher h;

	knit__hasher_init(&h);
	for (uint64_t at = 0; at < end;) {
		const size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
		const knit_status status = read_at(r, at, piece, n, d);
		if (status != KNIT_OK)
			return status;
		knit__hasher_add(&h, piece, n);
		at += n;
	}
	got = knit__hasher_digest(&h);
	const knit_status status = read_at(r, end, &want, sizeof want, d);
	if (status != KNIT_OK)
		return status;
	return got.low == want.low && got.high == want.high
	           ? KNIT_OK
	           : fail_file(r, d, KNIT_ERR_FORMAT, "is damaged: its checksum is another one");
}

/* The length of the text and of the rows, by walking the records. The file may be anything. */
static bool measure(const knit_states_reader *r, uint64_t *text_bytes, uint64_t *rows_bytes) {
	const int64_t *used = knit__states_used(r);
	uint64_t at = r->head.sequences * sizeof *used + knit__padded8(r->head.note_bytes), rows = 0;

	for (uint32_t q = 0; q < r->head.sequences; ++q)
		if (used[q] < 0)
			return false;
	for (uint32_t i = 0; i < r->head.states; ++i) {
		knit_states_record record;
		uint64_t cell;

		if (at + sizeof record > r->text_bytes)
			return false;
		memcpy(&record, r->text + at, sizeof record);
		at += sizeof record;
		if (record.name_bytes > KNIT_STATES_MAX_NAME || at + knit__padded8(record.name_bytes) > r->text_bytes ||
		    record.ring < 0 || record.sinks < 0 || !knit__states_cell_bytes(&record, &cell))
			return false;
		at += knit__padded8(record.name_bytes);
		for (uint32_t q = 0; q < r->head.sequences; ++q) {
			uint64_t bytes;

			if (!knit__mul_u64(cell, (uint64_t)knit__states_cells_used(&record, used[q]), &bytes) ||
			    !knit__add_u64(rows, bytes, &rows))
				return false;
		}
	}
	*text_bytes = at;
	*rows_bytes = rows;
	return true;
}

/* Where the rows begin is known when the records have been read: reads more until they have. */
static knit_status read_text(knit_states_reader *r, knit_diag *d) {
	const uint64_t most = r->head.file_bytes - sizeof r->head - KNIT_STATES_CHECKSUM;
	uint64_t rows = 0, want = r->head.sequences * sizeof(int64_t) + knit__padded8(r->head.note_bytes);

	want += (uint64_t)r->head.states * (sizeof(knit_states_record) + KNIT_STATES_MAX_NAME);
	r->text_bytes = want < most ? want : most;
	if (r->text_bytes < r->head.sequences * sizeof(int64_t) + knit__padded8(r->head.note_bytes))
		return fail_file(r, d, KNIT_ERR_FORMAT, "is damaged: it is shorter than its head says");
	r->text = knit__alloc(r->a, (size_t)r->text_bytes);
	if (!r->text)
		return knit__fail_memory(d, "the head of a file of states", r->text_bytes);
	const knit_status status = read_at(r, sizeof r->head, r->text, (size_t)r->text_bytes, d);
	if (status != KNIT_OK)
		return status;

	uint64_t text = 0;
	if (!measure(r, &text, &rows) || sizeof r->head + text + rows + KNIT_STATES_CHECKSUM != r->head.file_bytes)
		return fail_file(r, d, KNIT_ERR_FORMAT, "is damaged: its records do not fit its length");
	r->rows_at = sizeof r->head + text;
	return KNIT_OK;
}

static knit_status open_checked(knit_states_reader *r, knit_diag *d) {
	struct stat st;

	r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0)
		return fail_file(r, d, errno == ENOENT ? KNIT_ERR_NOT_FOUND : KNIT_ERR_IO, strerror(errno));
	if (fstat(r->fd, &st) != 0)
		return fail_file(r, d, KNIT_ERR_IO, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail_file(r, d, KNIT_ERR_FORMAT, "is no plain file");
	const uint64_t bytes = (uint64_t)st.st_size;
	if (bytes < sizeof r->head + KNIT_STATES_CHECKSUM)
		return fail_file(r, d, KNIT_ERR_FORMAT, "is no file of saved states, or cut: it is too short");
	knit_status status = read_at(r, 0, &r->head, sizeof r->head, d);
	if (status == KNIT_OK)
		status = check_head(r, bytes, d);
	if (status != KNIT_OK)
		return status;

	void *piece = knit__alloc(r->a, PIECE);
	if (!piece)
		return knit__fail_memory(d, "a piece of a file", PIECE);
	status = check_sum(r, piece, d);
	knit__free(r->a, piece, PIECE);
	return status == KNIT_OK ? read_text(r, d) : status;
}

knit_status knit__states_open(const knit_allocator *a, const char *path, knit_states_reader *out, knit_diag *d) {
	*out = (knit_states_reader){.a = a, .path = path, .fd = -1};
	const knit_status status = open_checked(out, d);

	if (status != KNIT_OK)
		knit__states_close(out);
	return status;
}

void knit__states_close(knit_states_reader *r) {
	if (r->fd >= 0)
		close(r->fd);
	if (r->a)
		knit__free(r->a, r->text, (size_t)r->text_bytes);
	*r = (knit_states_reader){.fd = -1};
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/* The text is 64-byte aligned and all its parts are multiples of 8. */
const int64_t *knit__states_used(const knit_states_reader *r) { return (const int64_t *)(const void *)r->text; }

const void *knit__states_note(const knit_states_reader *r) { return r->text + r->head.sequences * sizeof(int64_t); }

const knit_states_record *knit__states_record(const knit_states_reader *r, uint32_t i, const char **name) {
	uint64_t at = r->head.sequences * sizeof(int64_t) + knit__padded8(r->head.note_bytes);

	for (;; --i) {
		const knit_states_record *record = (const knit_states_record *)(const void *)(r->text + at);

		*name = (const char *)(record + 1);
		if (i == 0)
			return record;
		at += sizeof *record + knit__padded8(record->name_bytes);
	}
}

knit_status knit__states_read(const knit_states_reader *r, uint64_t at, void *out, size_t bytes, knit_diag *d) {
	return read_at(r, r->rows_at + at, out, bytes, d);
}
