/* A list is short (at most 1024 visits), so loops are looked for by comparing it with itself at every distance. */
#include "visits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */

static bool digit(char c) {
	return c >= '0' && c <= '9';
}

/* A number up to 65,535; larger ones are cut there, which is past every limit. */
static bool number(const char **at, uint32_t *out) {
	const char *const begin = *at;

	*out = 0;
	for (; digit(**at); ++*at)
		*out = *out > UINT16_MAX / 10 ? UINT16_MAX : *out * 10 + (uint32_t)(**at - '0');
	return *at != begin;
}

static knit_status bad_text(const char *text, knit_diag *diag) {
	return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
					  "visits \"%.60s\": needs layers with commas between them, like 0,1,1,2 or 0-3,2-3,4 or 0-3x2", text);
}

static knit_status too_many(knit_diag *diag) {
	return knit__fail(diag, KNIT_ERR_LIMIT, 0, "more than %d visits", (int)KNIT__MAX_VISITS);
}

static knit_status add(knit__visit_list *list, uint32_t layer, uint32_t layers, knit_diag *diag) {
	if (layer >= layers)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
						  "visit %u is of layer %u, the model has layers 0 to %u: correct the list of visits",
						  (unsigned)list->count, (unsigned)layer, (unsigned)layers - 1);
	if (list->count == KNIT__MAX_VISITS)
		return too_many(diag);
	list->layer[list->count++] = (uint16_t)layer;
	return KNIT_OK;
}

/* One item between commas: A, A-B, either with xN. */
static knit_status add_item(knit__visit_list *list, uint32_t first, uint32_t last, uint32_t times, uint32_t layers,
							knit_diag *diag) {
	for (uint32_t n = 0; n < times; ++n)
		for (uint32_t layer = first;; layer += last > first ? 1 : UINT32_MAX) {
			const knit_status status = add(list, layer, layers, diag);
			if (status != KNIT_OK)
				return status;
			if (layer == last)
				break;
		}
	return KNIT_OK;
}

knit_status knit__visits_parse(const char *text, uint32_t layers, knit__visit_list *out, knit_diag *diag) {
	const char *at = text;

	memset(out, 0, sizeof *out);
	for (;; ++at) {
		uint32_t first, last, times = 1;
		if (!number(&at, &first))
			return bad_text(text, diag);
		last = first;
		if (*at == '-' && (++at, !number(&at, &last)))
			return bad_text(text, diag);
		if (*at == 'x' && (++at, !number(&at, &times) || times == 0))
			return bad_text(text, diag);
		if (*at != ',' && *at != '\0')
			return bad_text(text, diag);
		const knit_status status = add_item(out, first, last, times, layers, diag);
		if (status != KNIT_OK)
			return status;
		if (*at == '\0')
			break;
	}
	knit__visits_find_loops(out);
	return KNIT_OK;
}

typedef struct writer {
	char *out;
	size_t at, bytes;
	bool comma;
} writer;

static void put(writer *w, const char *text) {
	const int n = w->at < w->bytes
					  ? snprintf(w->out + w->at, w->bytes - w->at, "%s%s", w->comma ? "," : "", text)
					  : 0;

	w->at += (size_t)n;
	w->comma = true;
}

/* How many visits from `from` on (below `to`) count up by one. */
static uint32_t run_length(const knit__visit_list *list, uint32_t from, uint32_t to) {
	uint32_t n = 1;

	while (from + n < to && list->layer[from + n] == list->layer[from + n - 1] + 1)
		++n;
	return n;
}

static void put_item(writer *w, uint32_t first, uint32_t count, uint32_t times) {
	char text[64], repeat[16] = "";

	if (times > 1)
		snprintf(repeat, sizeof repeat, "x%u", (unsigned)times);
	if (count > 1)
		snprintf(text, sizeof text, "%u-%u%s", (unsigned)first, (unsigned)(first + count - 1), repeat);
	else
		snprintf(text, sizeof text, "%u%s", (unsigned)first, repeat);
	put(w, text);
}

/* The run that begins at `from`, comes again at once and covers most that way; false if none does. */
static bool repeated(const knit__visit_list *list, uint32_t from, uint32_t *length, uint32_t *repeats) {
	const uint32_t most = run_length(list, from, list->count);
	uint32_t covered = 0;

	for (uint32_t n = 1; n <= most; ++n) {
		uint32_t times = 1;
		while (from + (times + 1) * n <= list->count &&
			   memcmp(list->layer + from, list->layer + from + times * n, n * sizeof *list->layer) == 0)
			++times;
		if (times > 1 && times * n > covered) {
			*length = n;
			*repeats = times;
			covered = times * n;
		}
	}
	return covered > 0;
}

/* A repeated run, or a run up to where one begins. Returns its visits. */
static uint32_t put_piece(writer *w, const knit__visit_list *list, uint32_t from) {
	const uint32_t most = run_length(list, from, list->count);
	uint32_t n = 1, times = 1, next_n, next_times;

	if (!repeated(list, from, &n, &times))
		while (n < most && !repeated(list, from + n, &next_n, &next_times))
			++n;
	put_item(w, list->layer[from], n, times);
	return n * times;
}

void knit__visits_text(const knit__visit_list *list, char *out, size_t bytes) {
	writer w = {.out = out, .bytes = bytes};

	out[0] = '\0';
	for (uint32_t v = 0; v < list->count;)
		v += put_piece(&w, list, v);
	if (w.at >= bytes && bytes > 4)
		memcpy(out + bytes - 4, "...", 4);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

knit_status knit__visits_make(uint32_t layers, const knit__loop_counts *counts, knit__visit_list *out, knit_diag *diag) {
	const uint64_t loops = counts->loops ? counts->loops : 1, repeats = counts->repeats ? counts->repeats : 1;
	const uint64_t block = counts->block ? counts->block : 1;

	memset(out, 0, sizeof *out);
	if (counts->prelude >= layers || counts->coda >= layers || counts->prelude + counts->coda >= layers)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "a prelude of %" PRIu64 " and a coda of %" PRIu64 " layers leave none of %u for the core: "
						  "correct knit.prelude and knit.coda",
						  counts->prelude, counts->coda, (unsigned)layers);
	const uint64_t core = layers - counts->prelude - counts->coda;
	if (block > core || core % block != 0)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "a core of %" PRIu64 " layers is no whole number of blocks of %" PRIu64
						  ": correct knit.block.layers",
						  core, block);
	/* Divided, not multiplied: the counts are the file's. */
	if (repeats > KNIT__MAX_VISITS / core || loops > KNIT__MAX_VISITS / (core * repeats) ||
		counts->prelude + core * repeats * loops + counts->coda > KNIT__MAX_VISITS)
		return too_many(diag);

	uint16_t *at = out->layer;
	for (uint32_t l = 0; l < counts->prelude; ++l)
		*at++ = (uint16_t)l;
	for (uint64_t loop = 0; loop < loops; ++loop)
		for (uint64_t b = 0; b < core / block; ++b)
			for (uint64_t r = 0; r < repeats; ++r)
				for (uint64_t l = 0; l < block; ++l)
					*at++ = (uint16_t)(counts->prelude + b * block + l);
	for (uint64_t l = 0; l < counts->coda; ++l)
		*at++ = (uint16_t)(layers - counts->coda + l);
	out->count = (uint32_t)(at - out->layer);
	out->shape = (knit__loop_shape){
		.prelude = (uint32_t)counts->prelude,
		.core = (uint32_t)(core * repeats),
		.coda = (uint32_t)counts->coda,
		.loops = (uint32_t)loops,
		.block = (uint32_t)block,
		.repeats = (uint32_t)repeats,
	};
	return KNIT_OK;
}

/* ---- loops ------------------------------------------------------------------------------------------------------- */

/* The stretch of visits in [from, to) that is repeated at once and covers most, the shortest such; loops 1 if none is. */
static knit__loop_shape widest_loop(const knit__visit_list *list, uint32_t from, uint32_t to) {
	knit__loop_shape best = {.prelude = 0, .core = to - from, .coda = 0, .loops = 1, .block = 1, .repeats = 1};
	uint32_t covered = 0;

	for (uint32_t core = 1; core <= (to - from) / 2; ++core)
		for (uint32_t begin = from, at = from; at + core <= to; ++at) {
			/* [begin, at) equals what lies `core` further on */
			if (at + core < to && list->layer[at] == list->layer[at + core])
				continue;
			const uint32_t loops = (at - begin) / core + 1;
			if (loops > 1 && loops * core > covered) {
				covered = loops * core;
				best.prelude = begin - from;
				best.core = core;
				best.loops = loops;
				best.coda = to - begin - covered;
			}
			begin = at + 1;
		}
	return best;
}

/* Whether the list is blocks of one length, each repeated `repeats` times at once. */
static bool is_blocks(const knit__visit_list *list, uint32_t block, uint32_t repeats) {
	const uint32_t period = block * repeats;

	if (list->count % period != 0)
		return false;
	for (uint32_t v = 0; v < list->count; ++v)
		if (list->layer[v] != list->layer[v / period * period + v % block])
			return false;
	return true;
}

void knit__visits_find_loops(knit__visit_list *list) {
	const knit__loop_shape widest = widest_loop(list, 0, list->count);
	const uint32_t after = widest.prelude + widest.core * widest.loops;

	list->shape = widest;
	if (widest.loops == 1 || (widest_loop(list, 0, widest.prelude).loops == 1 &&
							  widest_loop(list, after, list->count).loops == 1))
		return;
	for (uint32_t repeats = widest.loops; repeats > 1; --repeats)
		for (uint32_t block = 1; block * repeats < list->count; ++block)
			if (is_blocks(list, block, repeats)) {
				list->shape = (knit__loop_shape){
					.core = list->count, .loops = 1, .block = block, .repeats = repeats};
				return;
			}
	list->shape.loops = 0;
}

static knit_status append(knit__visit_list *list, const uint16_t *layers, uint32_t count, knit_diag *diag) {
	if (count > KNIT__MAX_VISITS - list->count)
		return too_many(diag);
	memcpy(list->layer + list->count, layers, count * sizeof *layers);
	list->count += count;
	return KNIT_OK;
}

knit_status knit__visits_set_loops(knit__visit_list *list, uint32_t loops, knit_diag *diag) {
	const knit__visit_list old = *list;
	knit__loop_shape s = old.shape;
	knit_status status;

	if (s.loops == 0)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
						  "the model's visits repeat themselves in more than one way: say with --visits which to run");
	/* Repeated blocks: a unit of one block, `repeats` times, for each. Loops: one unit, the core. */
	const bool blocks = s.loops == 1 && s.repeats > 1;
	const uint32_t unit = blocks ? s.block : s.core, stride = blocks ? s.block * s.repeats : s.core;
	const uint32_t units = blocks ? s.core / stride : 1;

	list->count = 0;
	status = append(list, old.layer, s.prelude, diag);
	for (uint32_t u = 0; u < units; ++u)
		for (uint32_t n = 0; n < loops && status == KNIT_OK; ++n)
			status = append(list, old.layer + s.prelude + u * stride, unit, diag);
	if (status == KNIT_OK)
		status = append(list, old.layer + old.count - s.coda, s.coda, diag);
	if (status != KNIT_OK) {
		*list = old;
		return status;
	}
	if (blocks) {
		s.repeats = loops;
		s.core = units * unit * loops;
	} else {
		s.loops = loops;
	}
	list->shape = s;
	return KNIT_OK;
}

int32_t knit__visits_loop_end(const knit__loop_shape *shape, uint32_t visit) {
	if (shape->loops == 0 || visit < shape->prelude || visit >= shape->prelude + shape->core * shape->loops)
		return -1;
	const uint32_t in_loops = visit - shape->prelude;
	return in_loops % shape->core == shape->core - 1 ? (int32_t)(in_loops / shape->core) : -1;
}

void knit__visits_stand_for(const knit__visit_list *model, const knit__visit_list *list,
							uint16_t stands_for[KNIT__MAX_VISITS]) {
	uint16_t next[KNIT__MAX_LAYERS]; /* per layer: from where to look for its next visit */
	uint16_t last[KNIT__MAX_LAYERS];

	memset(next, 0, sizeof next);
	memset(last, 0xff, sizeof last);
	for (uint32_t v = 0; v < list->count; ++v) {
		const uint16_t layer = list->layer[v];
		uint32_t at = next[layer];
		while (at < model->count && model->layer[at] != layer)
			++at;
		if (at < model->count) {
			last[layer] = (uint16_t)at;
			next[layer] = (uint16_t)(at + 1);
		} else {
			next[layer] = (uint16_t)at;
		}
		stands_for[v] = last[layer];
	}
}
