/* Owns the saving and restoring of a session's states. The format is in states_file.h, the writing of a file as a whole in
 * whole_file.h. Knows no op. */
#include "adapter.h"
#include "session_impl.h"
#include "states_file.h"
#include "whole_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PIECE = 1 << 20 };

/* ---- what there is ----------------------------------------------------------------------------------------------- */

/* A state of the program. */
typedef struct slot {
	knit_states_record record;
	const char *name;
	uint64_t cell_bytes;
	uint32_t buffer;
} slot;

typedef struct slots { slot *data; uint32_t count, cap; } slots;

static void slots_free(const knit_session *s, slots *all) { knit__free(&s->a, all->data, all->cap * sizeof *all->data); }

/* How the nodes that write a storage lay out its cells. */
static void find_ring(const knit_graph *g, uint32_t storage, knit_states_record *out) {
	for (uint32_t i = 0; i < g->order_count; ++i) {
		const knit_node *const n = &g->nodes[g->order[i]];
		const knit_op_def *const def = knit__op(n->op);

		for (uint32_t k = 0; k < def->state_outputs && def->ring_attr; ++k) {
			if (g->values[n->in[k]].storage != storage || n->attr[def->ring_attr - 1].i == 0)
				continue;
			out->ring = n->attr[def->ring_attr - 1].i;
			out->sinks = n->attr[def->sinks_attr - 1].i;
			return;
		}
	}
}

static knit_status slots_find(knit_session *s, slots *out) {
	const knit_graph *const g = s->program->graph;
	const knit_schedule *const schedule = knit__session_schedule(s);

	*out = (slots){0};
	for (uint32_t i = 0; i < schedule->buffer_count; ++i) {
		const knit_buffer_desc *const b = &schedule->buffers[i];
		slot one = {.name = b->name, .buffer = i};

		if (b->use != KNIT_BUFFER_STATE)
			continue;
		const knit_value *const v = &g->values[g->storages[b->storage].value];
		one.record = (knit_states_record){.dtype = (uint32_t)v->dtype, .rank = v->rank, .name_bytes = strlen(b->name)};
		for (uint32_t k = 0; k < v->rank; ++k)
			one.record.dims[k] = v->dims[k].v;
		find_ring(g, b->storage, &one.record);
		if (!knit__states_cell_bytes(&one.record, &one.cell_bytes))
			return knit__fail(&s->diag, KNIT_ERR_INTERNAL, 0, "state \"%.80s\" has no rows", b->name);
		if (!knit__grow(&s->a, (void **)&out->data, &out->cap, out->count + 1, sizeof *out->data))
			return knit__fail_memory(&s->diag, "the list of states", (out->count + 1) * sizeof *out->data);
		out->data[out->count++] = one;
	}
	if (out->count == 0)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "the program has no states");
	return KNIT_OK;
}

/* ---- who computes with them -------------------------------------------------------------------------------------- */

static knit_status add_buffer(knit_session *s, knit_hasher *h, uint32_t buffer, void *piece) {
	const knit_opened *const o = s->program->device;
	const uint64_t bytes = knit__session_schedule(s)->buffers[buffer].bytes;

	for (uint64_t at = 0; at < bytes;) {
		const size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
		const knit_status status = o->backend->buffer_read(o->dev, s->buffers[buffer], at, piece, n);
		if (status != KNIT_OK)
			return knit__session_device(s, status, "reading an adapter");
		knit__hasher_add(h, piece, n);
		at += n;
	}
	return KNIT_OK;
}

/* What stands in for an adapter weight now: a slot of the session's own, the bound set's tensor, or the program's. */
static knit_status add_adapter(knit_session *s, knit_hasher *h, const knit_identity_weight *w, void *piece) {
	const knit_schedule *const schedule = knit__session_schedule(s);
	const char *const name = knit__strings_get(&s->program->graph->strings, w->name);
	const knit_weight_entry *const bound = s->adapter ? knit__weights_get(s->adapter->store, name) : NULL;

	for (uint32_t i = 0; i < schedule->buffer_count; ++i)
		if (schedule->buffers[i].slots && strcmp(schedule->buffers[i].name, name) == 0)
			return add_buffer(s, h, i, piece);
	if (bound)
		knit__hasher_add(h, bound->data, (size_t)bound->bytes);
	else if (w->host)
		knit__hasher_add(h, w->host, (size_t)w->bytes);
	return KNIT_OK;
}

static knit_status identity_of(knit_session *s, void *piece, knit_digest *out) {
	const knit_identity *const id = &s->program->identity;
	knit_status status = KNIT_OK;
	knit_hasher h;

	knit__hasher_init(&h);
	knit__hasher_add(&h, &id->structure, sizeof id->structure);
	for (uint32_t i = 0; status == KNIT_OK && i < id->count; ++i) {
		const knit_identity_weight *const w = &id->weights[i];

		if (w->kind == KNIT_STORAGE_ADAPTER)
			status = add_adapter(s, &h, w, piece);
		else if (w->host)
			knit__hasher_add(&h, w->host, (size_t)w->bytes);
	}
	*out = knit__hasher_digest(&h);
	knit__program_forget(s->program);
	return status;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

/* What is written is hashed on its way. */
typedef struct output {
	knit_session *s;
	knit_whole_file file;
	knit_hasher hash;
	char *piece;
} output;

static knit_status put(output *o, const void *data, size_t bytes) {
	knit__hasher_add(&o->hash, data, bytes);
	return knit__whole_file_write(&o->file, data, bytes, &o->s->diag);
}

static knit_status put_padded(output *o, const void *data, uint64_t bytes) {
	static const char zeros[8];
	const knit_status status = put(o, data, (size_t)bytes);

	return status == KNIT_OK ? put(o, zeros, (size_t)(knit__padded8(bytes) - bytes)) : status;
}

static knit_status put_rows(output *o, const slot *from, uint64_t sequence, int64_t used) {
	const knit_opened *const dev = o->s->program->device;
	const uint64_t begin = sequence * (uint64_t)from->record.dims[1] * from->cell_bytes;
	const uint64_t bytes = (uint64_t)knit__states_cells_used(&from->record, used) * from->cell_bytes;

	for (uint64_t at = 0; at < bytes;) {
		const size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
		knit_status status = dev->backend->buffer_read(dev->dev, o->s->buffers[from->buffer], begin + at, o->piece, n);
		if (status != KNIT_OK)
			return knit__session_device(o->s, status, "reading a state");
		status = put(o, o->piece, n);
		if (status != KNIT_OK)
			return status;
		at += n;
	}
	return KNIT_OK;
}

static knit_status put_all(output *o, const slots *all, const knit_states_head *head, const int64_t *used, const void *note) {
	knit_status status = put(o, head, sizeof *head);

	if (status == KNIT_OK)
		status = put(o, used, head->sequences * sizeof *used);
	if (status == KNIT_OK)
		status = put_padded(o, note, head->note_bytes);
	for (uint32_t i = 0; status == KNIT_OK && i < all->count; ++i) {
		status = put(o, &all->data[i].record, sizeof all->data[i].record);
		if (status == KNIT_OK)
			status = put_padded(o, all->data[i].name, all->data[i].record.name_bytes);
	}
	for (uint32_t i = 0; i < all->count; ++i)
		for (uint32_t q = 0; status == KNIT_OK && q < head->sequences; ++q)
			status = put_rows(o, &all->data[i], q, used[q]);
	if (status != KNIT_OK)
		return status;
	const knit_digest sum = knit__hasher_digest(&o->hash);
	return knit__whole_file_write(&o->file, &sum, sizeof sum, &o->s->diag);
}

static knit_status check_used(knit_session *s, const slots *all, const int64_t *used, size_t sequences) {
	for (uint32_t i = 0; i < all->count; ++i) {
		const knit_states_record *const r = &all->data[i].record;

		if (sequences > (uint64_t)r->dims[0] || sequences > KNIT_STATES_MAX_SEQUENCES)
			return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "%zu sequences: state \"%.60s\" has %" PRId64, sequences,
			                  all->data[i].name, r->dims[0]);
		for (size_t q = 0; q < sequences; ++q) {
			if (used[q] < 0 || (r->ring == 0 && used[q] > r->dims[1]))
				return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "sequence %zu: %" PRId64 " positions in use: state "
				                                                  "\"%.60s\" has %" PRId64,
				                  q, used[q], all->data[i].name, r->dims[1]);
		}
	}
	return KNIT_OK;
}

/* LIMIT where the sizes overflow, which no state that exists can make them do. */
static knit_status fill_head(knit_session *s, const slots *all, const int64_t *used, size_t sequences, size_t note_bytes,
                             knit_states_head *head) {
	uint64_t total = sizeof *head + sequences * sizeof *used + knit__padded8(note_bytes) + KNIT_STATES_CHECKSUM, rows;
	bool ok = true;

	for (uint32_t i = 0; i < all->count; ++i) {
		const slot *const one = &all->data[i];

		total += sizeof one->record + knit__padded8(one->record.name_bytes);
		for (size_t q = 0; q < sequences; ++q)
			ok = ok && knit__mul_u64(one->cell_bytes, (uint64_t)knit__states_cells_used(&one->record, used[q]), &rows) &&
			     knit__add_u64(total, rows, &total);
	}
	*head = (knit_states_head){.version = KNIT_STATES_VERSION,
	                           .states = all->count,
	                           .file_bytes = total,
	                           .note_bytes = note_bytes,
	                           .sequences = (uint32_t)sequences};
	memcpy(head->magic, KNIT_STATES_MAGIC, sizeof head->magic);
	return ok ? KNIT_OK : knit__fail(&s->diag, KNIT_ERR_LIMIT, 0, "the states are larger than any file");
}

static knit_status save(knit_session *s, const slots *all, const char *path, const int64_t *used, size_t sequences,
                        const void *note, size_t note_bytes) {
	output o = {.s = s};
	knit_states_head head;
	knit_status status = check_used(s, all, used, sequences);

	if (status == KNIT_OK)
		status = fill_head(s, all, used, sequences, note_bytes, &head);
	if (status != KNIT_OK)
		return status;
	o.piece = knit__alloc(&s->a, PIECE);
	if (!o.piece)
		return knit__fail_memory(&s->diag, "a piece of a file", PIECE);
	knit__hasher_init(&o.hash);
	status = identity_of(s, o.piece, &head.identity);
	if (status == KNIT_OK)
		status = knit__whole_file_open(&s->a, path, &o.file, &s->diag);
	if (status == KNIT_OK)
		status = put_all(&o, all, &head, used, note);
	if (status == KNIT_OK)
		status = knit__whole_file_commit(&o.file, &s->diag);
	else
		knit__whole_file_abort(&o.file);
	knit__free(&s->a, o.piece, PIECE);
	return status;
}

knit_status knit_session_save_states(knit_session *s, const char *path, const int64_t *used, size_t sequences,
                                     const void *note, size_t note_bytes) {
	slots all = {0};

	if (!s)
		return KNIT_ERR_ARGUMENT;
	knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (!path || !used || !sequences || (!note && note_bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_save_states: %s", !path       ? "the path is NULL"
		                                                                                 : !used      ? "used is NULL"
		                                                                                 : !sequences ? "no sequences"
		                                                                                              : "the note is NULL");
	if (note_bytes > KNIT_STATES_MAX_NOTE)
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "a note of %zu bytes: at most %" PRIu64, note_bytes,
		                  KNIT_STATES_MAX_NOTE);
	if (s->states_unknown)
		return knit__fail(&s->diag, KNIT_ERR_STATE, 0, "an earlier run failed in the middle and left the states unknown: "
		                                               "there is nothing to save");
	status = slots_find(s, &all);
	if (status == KNIT_OK)
		status = save(s, &all, path, used, sequences, note, note_bytes);
	slots_free(s, &all);
	return status;
}

/* ---- restoring --------------------------------------------------------------------------------------------------- */

typedef struct match {
	const knit_states_record *record; /* of the file */
	uint64_t rows_at;                 /* of its first row */
} match;

static knit_status refuse(knit_session *s, const knit_states_reader *r, knit_status status, const char *what) {
	const size_t length = strlen(r->path), shown = length > 90 ? 90 : length;

	return knit__fail(&s->diag, status, 0, "%s%s: %s", shown < length ? "..." : "", r->path + length - shown, what);
}

static knit_status check_type(knit_session *s, const knit_states_reader *r, const slot *have, const knit_states_record *from) {
	bool same = from->dtype == have->record.dtype && from->rank == have->record.rank;
	char text[160];

	for (uint32_t k = 2; k < KNIT_MAX_RANK; ++k)
		same = same && from->dims[k] == have->record.dims[k];
	if (same)
		return KNIT_OK;
	snprintf(text, sizeof text, "state \"%.60s\" has rows of another type or shape (%s there, %s here)", have->name,
	         knit_dtype_name((knit_dtype)from->dtype), knit_dtype_name((knit_dtype)have->record.dtype));
	return refuse(s, r, KNIT_ERR_ARGUMENT, text);
}

/* Rows fit where both sides have them in the same cells. */
static knit_status check_rows(knit_session *s, const knit_states_reader *r, const slot *have, const knit_states_record *from) {
	const knit_states_record *const to = &have->record;
	const int64_t *const used = knit__states_used(r);
	char text[160];

	for (uint32_t q = 0; q < r->head.sequences; ++q) {
		const bool round = used[q] > from->dims[1];

		if (used[q] > 0 && q >= to->dims[0])
			return refuse(s, r, KNIT_ERR_LIMIT, "holds more sequences than this session has");
		if (round && (from->ring != to->ring || from->sinks != to->sinks || from->dims[1] != to->dims[1]))
			return refuse(s, r, KNIT_ERR_ARGUMENT, "was saved with another window, sinks or step size: its ring has gone round");
		if (!round && used[q] > to->dims[1]) {
			snprintf(text, sizeof text, "holds %" PRId64 " positions, this session has room for %" PRId64 ": make a longer one",
			         used[q], to->dims[1]);
			return refuse(s, r, KNIT_ERR_LIMIT, text);
		}
	}
	return KNIT_OK;
}

static uint64_t rows_bytes(const knit_states_reader *r, const knit_states_record *record) {
	const int64_t *const used = knit__states_used(r);
	uint64_t cell = 0, bytes = 0;

	knit__states_cell_bytes(record, &cell);
	for (uint32_t q = 0; q < r->head.sequences; ++q)
		bytes += cell * (uint64_t)knit__states_cells_used(record, used[q]);
	return bytes;
}

/* Finds each state of the program in the file; every state of the file must be one. */
static knit_status match_states(knit_session *s, const knit_states_reader *r, const slots *all, match *matches) {
	char text[160];
	uint64_t at = 0;

	for (uint32_t i = 0; i < r->head.states; ++i) {
		const char *name;
		const knit_states_record *const record = knit__states_record(r, i, &name);
		uint32_t k = 0;

		while (k < all->count && (matches[k].record || all->data[k].record.name_bytes != record->name_bytes ||
		                          memcmp(all->data[k].name, name, (size_t)record->name_bytes) != 0))
			++k;
		if (k == all->count) {
			snprintf(text, sizeof text, "holds a state \"%.*s\" that this model lacks", record->name_bytes < 60 ? (int)record->name_bytes : 60, name);
			return refuse(s, r, KNIT_ERR_ARGUMENT, text);
		}
		const knit_status status = check_type(s, r, &all->data[k], record);
		if (status != KNIT_OK)
			return status;
		matches[k] = (match){record, at};
		at += rows_bytes(r, record);
	}
	for (uint32_t k = 0; k < all->count; ++k)
		if (!matches[k].record) {
			snprintf(text, sizeof text, "lacks the state \"%.60s\" of this model", all->data[k].name);
			return refuse(s, r, KNIT_ERR_ARGUMENT, text);
		}
	return KNIT_OK;
}

static knit_status copy_rows(knit_session *s, const knit_states_reader *r, const slot *to, const match *from, char *piece) {
	const knit_opened *const o = s->program->device;
	const int64_t *const used = knit__states_used(r);
	uint64_t at = from->rows_at;

	for (uint32_t q = 0; q < r->head.sequences; ++q) {
		const uint64_t bytes = (uint64_t)knit__states_cells_used(from->record, used[q]) * to->cell_bytes;
		uint64_t place = q * (uint64_t)to->record.dims[1] * to->cell_bytes;

		for (const uint64_t end = at + bytes; at < end;) {
			const size_t n = end - at < PIECE ? (size_t)(end - at) : PIECE;
			knit_status status = knit__states_read(r, at, piece, n, &s->diag);
			if (status == KNIT_OK)
				status = knit__session_device(
					s, o->backend->buffer_write(o->dev, s->buffers[to->buffer], place, piece, n), "writing a state");
			if (status != KNIT_OK)
				return status;
			at += n;
			place += n;
		}
	}
	return KNIT_OK;
}

/* Room for what the file says, before anything is changed. */
static knit_status check_room(knit_session *s, const knit_states_reader *r, size_t sequences, const void *note,
                              size_t note_bytes) {
	const int64_t *const used = knit__states_used(r);
	char text[120];

	for (uint32_t q = (uint32_t)sequences; q < r->head.sequences; ++q)
		if (used[q] > 0)
			return refuse(s, r, KNIT_ERR_LIMIT, "holds more sequences than were asked for");
	if (!note || note_bytes >= r->head.note_bytes)
		return KNIT_OK;
	snprintf(text, sizeof text, "has a note of %" PRIu64 " bytes, there is room for %zu", r->head.note_bytes, note_bytes);
	return refuse(s, r, KNIT_ERR_LIMIT, text);
}

static knit_status restore(knit_session *s, const knit_states_reader *r, const slots *all, match *matches, char *piece) {
	knit_status status = match_states(s, r, all, matches);
	knit_digest identity;

	if (status == KNIT_OK)
		status = identity_of(s, piece, &identity);
	if (status == KNIT_OK && (identity.low != r->head.identity.low || identity.high != r->head.identity.high))
		status = refuse(s, r, KNIT_ERR_ARGUMENT, "was saved by another model, or with another adapter, visits or KV policy");
	for (uint32_t k = 0; status == KNIT_OK && k < all->count; ++k)
		status = check_rows(s, r, &all->data[k], matches[k].record);
	if (status != KNIT_OK)
		return status;

	/* From here on the states change. */
	status = knit_session_reset_states(s);
	s->states_unknown = true;
	for (uint32_t k = 0; status == KNIT_OK && k < all->count; ++k)
		status = copy_rows(s, r, &all->data[k], &matches[k], piece);
	s->states_unknown = status != KNIT_OK;
	return status;
}

static knit_status load(knit_session *s, const knit_states_reader *r, int64_t *used, size_t sequences, void *note,
                        size_t *note_bytes) {
	knit_status status = check_room(s, r, sequences, note, note_bytes ? *note_bytes : 0);
	slots all = {0};
	match *matches = NULL;
	char *piece = NULL;

	if (status == KNIT_OK)
		status = slots_find(s, &all);
	if (status == KNIT_OK) {
		matches = knit__alloc_array(&s->a, all.count, sizeof *matches);
		piece = knit__alloc(&s->a, PIECE);
		status = matches && piece ? restore(s, r, &all, matches, piece) : knit__fail_memory(&s->diag, "a piece of a file", PIECE);
	}
	knit__free(&s->a, piece, PIECE);
	knit__free(&s->a, matches, all.count * sizeof *matches);
	slots_free(s, &all);
	if (note_bytes && (status == KNIT_OK || status == KNIT_ERR_LIMIT))
		*note_bytes = (size_t)r->head.note_bytes;
	if (status != KNIT_OK)
		return status;
	for (size_t q = 0; q < sequences; ++q)
		used[q] = q < r->head.sequences ? knit__states_used(r)[q] : 0;
	if (note)
		memcpy(note, knit__states_note(r), (size_t)r->head.note_bytes);
	return KNIT_OK;
}

knit_status knit_session_load_states(knit_session *s, const char *path, int64_t *used, size_t sequences, void *note,
                                     size_t *note_bytes) {
	knit_states_reader r;

	if (!s)
		return KNIT_ERR_ARGUMENT;
	knit_status status = knit__session_begin(s);
	if (status != KNIT_OK)
		return status;
	if (!path || !used || !sequences || (note && !note_bytes))
		return knit__fail(&s->diag, KNIT_ERR_ARGUMENT, 0, "knit_session_load_states: %s", !path       ? "the path is NULL"
		                                                                                 : !used      ? "used is NULL"
		                                                                                 : !sequences ? "no sequences"
		                                                                                              : "note_bytes is NULL");
	status = knit__states_open(&s->a, path, &r, &s->diag);
	if (status == KNIT_OK)
		status = load(s, &r, used, sequences, note, note_bytes);
	knit__states_close(&r);
	return status;
}
