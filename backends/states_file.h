/* Owns the format of a file of saved states: what the head says and where the rows lie. Knows no session and no device.
 *
 * Little-endian, in this order:
 *     head      sizeof(knit_states_head), see there
 *     used      int64 per sequence: positions in use
 *     note      note_bytes of the caller's, then zeros up to a multiple of 8
 *     records   one knit_states_record per state, each followed by its name and zeros up to a multiple of 8
 *     rows      per state, in the records' order: per sequence the first min(used, cells) cells
 *     checksum  XXH3-128 of everything before it, low half first */
#ifndef KNIT_STATES_FILE_H
#define KNIT_STATES_FILE_H

#include "identity.h"

#define KNIT_STATES_MAGIC "KNITSTAT"
#define KNIT_STATES_VERSION 1
#define KNIT_STATES_CHECKSUM 16
/* Of what a file may ask for. */
#define KNIT_STATES_MAX_NOTE (UINT64_C(1) << 28)
#define KNIT_STATES_MAX_SEQUENCES (UINT32_C(1) << 20)
#define KNIT_STATES_MAX_STATES (UINT32_C(1) << 16)
#define KNIT_STATES_MAX_NAME 4096

typedef struct knit_states_head {
	char magic[8];
	uint32_t version, states;
	uint64_t file_bytes;
	knit_digest identity; /* of the program: graph, weights, adapters */
	uint64_t note_bytes;
	uint32_t sequences, reserved;
} knit_states_head;
_Static_assert(sizeof(knit_states_head) == 56, "the head has no gaps");

typedef struct knit_states_record {
	uint32_t dtype, rank;
	int64_t dims[KNIT_MAX_RANK]; /* [sequences, cells, ...]; 0 past the rank */
	int64_t ring, sinks;         /* ring 0: position p is in cell p */
	uint64_t name_bytes;
} knit_states_record;
_Static_assert(sizeof(knit_states_record) == 64, "a record has no gaps");

static inline uint64_t knit__padded8(uint64_t n) { return (n + 7) & ~UINT64_C(7); }

/* Bytes of one cell; false where type and dims make no sense. */
bool knit__states_cell_bytes(const knit_states_record *r, uint64_t *out);
/* Cells that hold something after `used` positions. */
static inline int64_t knit__states_cells_used(const knit_states_record *r, int64_t used) {
	return used < r->dims[1] ? used : r->dims[1];
}

/* An open file and everything in it but the rows, checked against itself: sizes, ranges, checksum. */
typedef struct knit_states_reader {
	const knit_allocator *a;
	int fd;
	const char *path;
	knit_states_head head;
	char *text; /* used, note and records, as in the file */
	uint64_t text_bytes, rows_at;
} knit_states_reader;

/* NOT_FOUND, IO, FORMAT (no such file, cut, damaged), LIMIT, MEMORY. On failure *out is cleared. */
knit_status knit__states_open(const knit_allocator *a, const char *path, knit_states_reader *out, knit_diag *d);
void knit__states_close(knit_states_reader *r);
const int64_t *knit__states_used(const knit_states_reader *r);
const void *knit__states_note(const knit_states_reader *r);
/* Record number `i` and its name, which is not terminated. */
const knit_states_record *knit__states_record(const knit_states_reader *r, uint32_t i, const char **name);
/* Bytes [at, at + bytes) of the rows. IO. */
knit_status knit__states_read(const knit_states_reader *r, uint64_t at, void *out, size_t bytes, knit_diag *d);

#endif
