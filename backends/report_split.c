/* What lies on which of two devices and why, as JSON. The decision itself is split/place.c's, asked for once more: it is
 * pure. */
#include "report_split.h"

#include "report.h"
#include "split/split.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static bool add(cJSON *object, const char *name, cJSON *item) {
	if (item && cJSON_AddItemToObject(object, name, item))
		return true;
	cJSON_Delete(item);
	return false;
}

static bool add_u64(cJSON *object, const char *name, uint64_t n) {
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, n);
	return add(object, name, cJSON_CreateRaw(text));
}

static bool add_text(cJSON *object, const char *name, const char *text) {
	return add(object, name, cJSON_CreateString(text));
}

/* Attaches the item, or deletes it. */
static bool append(cJSON *array, cJSON *item, bool filled) {
	if (filled && item && cJSON_AddItemToArray(array, item))
		return true;
	cJSON_Delete(item);
	return false;
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* "vulkan:0" of "vulkan:0+cpu". */
static void side_name(const knit_opened *o, knit_side side, char *out, size_t size) {
	const char *const plus = strchr(o->id, '+');

	if (side == KNIT_NEAR)
		snprintf(out, size, "%.*s", plus ? (int)(plus - o->id) : 0, o->id);
	else
		snprintf(out, size, "%s", plus ? plus + 1 : "");
}

static bool add_devices(cJSON *root, const knit_program *p, const knit_split_place *place) {
	cJSON *const array = cJSON_CreateArray();

	if (!add(root, "devices", array))
		return false;
	for (knit_side side = KNIT_NEAR; side <= KNIT_FAR; ++side) {
		const knit_split_sum *const sum = &place->sums[side];
		cJSON *const object = cJSON_CreateObject();
		char name[64];
		side_name(p->device, side, name, sizeof name);
		const bool filled = object && add_text(object, "device", name) && add_u64(object, "steps", sum->steps) &&
		                    add_u64(object, "weight_storages", sum->storages) &&
		                    add_u64(object, "weight_bytes", sum->weight_bytes) &&
		                    add_u64(object, "state_bytes", sum->state_bytes) &&
		                    add_u64(object, "arena_bytes", sum->arena_bytes) &&
		                    add_u64(object, "io_bytes", sum->io_bytes) &&
		                    add_u64(object, "weight_bytes_read", sum->read_bytes);
		if (!append(array, object, filled))
			return false;
	}
	return true;
}

/* ---- storages ---------------------------------------------------------------------------------------------------- */

static const char *on_name(uint8_t on) {
	static const char *const names[] = {"none", "first", "second", "both"};

	return names[on & 3];
}

static void why_text(const knit_split_storage *t, char *out, size_t size) {
	switch (t->why) {
	case KNIT_SPLIT_READS: snprintf(out, size, "%.3g reads per token", t->reads); return;
	case KNIT_SPLIT_NO_ROOM: snprintf(out, size, "did not fit"); return;
	case KNIT_SPLIT_SWITCHES: snprintf(out, size, "would add switches of devices"); return;
	case KNIT_SPLIT_NO_KERNEL: snprintf(out, size, "no kernel on the first device"); return;
	case KNIT_SPLIT_WITH_STEPS: break;
	}
	snprintf(out, size, "with its steps");
}

static bool add_storages(cJSON *root, const knit_program *p, const knit_split_place *place) {
	const knit_schedule *const s = p->buckets[0].schedule;
	cJSON *const array = cJSON_CreateArray();

	if (!add(root, "storages", array))
		return false;
	for (uint32_t i = 0; i < s->buffer_count; ++i) {
		const knit_split_storage *const t = &place->storages[i];
		char why[64];
		if (s->buffers[i].use == KNIT_BUFFER_ARENA)
			continue;
		cJSON *const object = cJSON_CreateObject();
		why_text(t, why, sizeof why);
		const bool filled = object && add_u64(object, "id", s->buffers[i].storage) &&
		                    add_text(object, "name", s->buffers[i].name ? s->buffers[i].name : "") &&
		                    add_u64(object, "bytes", s->buffers[i].bytes) && add_text(object, "on", on_name(t->on)) &&
		                    add(object, "reads_per_token", cJSON_CreateNumber(t->reads)) && add_text(object, "why", why);
		if (!append(array, object, filled))
			return false;
	}
	return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static bool add_cut(cJSON *root, const knit_program *p, const knit_split_place *place) {
	const uint32_t bucket = knit__program_smallest_bucket(p);
	const knit_schedule *const s = p->buckets[bucket].schedule;
	knit_split_cut cut;
	uint64_t bytes = 0;

	if (knit__split_cut(s, place->sides, &p->a, &cut, NULL) != KNIT_OK)
		return false;
	for (uint32_t i = 0; i < cut.move_count; ++i)
		bytes += knit__split_move_bytes(s, cut.moves[i].storage, s->bounds.lo);
	const bool ok = add_u64(root, "runs", cut.run_count) &&
	                add_u64(root, "switches_per_token", cut.run_count ? cut.run_count - 1 : 0) &&
	                add_u64(root, "moves_per_token", cut.move_count) && add_u64(root, "moved_bytes_per_token", bytes) &&
	                add_u64(root, "steps_without_kernel", place->moved_steps);
	knit__split_cut_clear(&cut, &p->a);
	return ok;
}

cJSON *knit__report_split(const knit_program *p) {
	const knit_schedule *schedules[KNIT_MAX_BUCKETS];
	knit_split_place place;

	for (uint32_t i = 0; i < p->bucket_count; ++i)
		schedules[i] = p->buckets[i].schedule;
	if (knit__split_describe(schedules, p->bucket_count, p->device->memory_budget, &p->a, &place, NULL) != KNIT_OK)
		return NULL;
	cJSON *root = cJSON_CreateObject();
	const bool limited = p->device->memory_budget != UINT64_MAX;
	const bool ok = root &&
	                (limited ? add_u64(root, "budget_bytes", p->device->memory_budget)
	                         : add(root, "budget_bytes", cJSON_CreateNull())) &&
	                add_devices(root, p, &place) && add_cut(root, p, &place) && add_storages(root, p, &place);
	knit__split_place_clear(&place, &p->a);
	if (ok)
		return root;
	cJSON_Delete(root);
	return NULL;
}
