/* Owns the file that keeps what was measured on a device: lines of text that end with a checksum. Nothing hangs on
 * it: whatever is wrong with it, the table holds. */
#include "vk_tune_file.h"

#include "vk_cache.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_TEXT 2048

typedef struct text { char at[MAX_TEXT]; size_t bytes; } text;

static void add(text *t, const char *fmt, ...) KNIT_PRINTF(2, 3);
static void add(text *t, const char *fmt, ...) {
	va_list args;

	va_start(args, fmt);
	const int n = vsnprintf(t->at + t->bytes, sizeof t->at - t->bytes, fmt, args);
	va_end(args);
	t->bytes += n > 0 && (size_t)n < sizeof t->at - t->bytes ? (size_t)n : 0;
}

static void uuid_text(const knit_vk_probe *p, char out[2 * VK_UUID_SIZE + 1]) {
	for (size_t i = 0; i < VK_UUID_SIZE; ++i)
		snprintf(out + 2 * i, 3, "%02x", p->uuid[i]);
}

bool knit__vk_tuning_path(const knit_vk_probe *p, char *out, size_t size) {
	char at[512], uuid[2 * VK_UUID_SIZE + 1];

	if (!knit__vk_cache_folder(at, sizeof at))
		return false;
	uuid_text(p, uuid);
	const int n = snprintf(out, size, "%s/vulkan-%s-%08" PRIx32 ".tuning", at, uuid, p->properties.driverVersion);
	return n > 0 && (size_t)n < size;
}

/* What a file is good for: this device, this driver, this knit. */
static void head_make(const knit_vk_probe *p, text *t) {
	char uuid[2 * VK_UUID_SIZE + 1];

	uuid_text(p, uuid);
	*t = (text){0};
	add(t, "knit %d.%d.%d tuning 1\n", KNIT_VERSION_MAJOR, KNIT_VERSION_MINOR, KNIT_VERSION_PATCH);
	add(t, "device %04" PRIx32 ":%04" PRIx32 " %s\n", p->properties.vendorID, p->properties.deviceID, uuid);
	add(t, "driver %08" PRIx32 " %.100s\n", p->properties.driverVersion, p->driver.driverInfo);
}

static uint64_t sum_of(const char *data, size_t bytes) { return knit__hash(KNIT__HASH_SEED, data, bytes); }

/* ---- reading ----------------------------------------------------------------------------------------------------- */

#define SUM_BYTES (sizeof "sum 0123456789abcdef\n" - 1)

static bool sum_agrees(const text *t) {
	char want[SUM_BYTES + 1];

	if (t->bytes <= SUM_BYTES)
		return false;
	snprintf(want, sizeof want, "sum %016" PRIx64 "\n", sum_of(t->at, t->bytes - SUM_BYTES));
	return memcmp(t->at + t->bytes - SUM_BYTES, want, SUM_BYTES) == 0;
}

/* All choices in their order, and nothing else. */
static bool values_read(const char *at, knit_vk_tuning *out) {
	char name[40];
	uint32_t value;
	int used;

	for (uint32_t i = 0; i < knit__vk_choice_count; ++i) {
		used = 0;
		if (sscanf(at, "%39s %" SCNu32 "%n", name, &value, &used) != 2 || at[used] != '\n' ||
		    strcmp(name, knit__vk_choices[i].name) != 0)
			return false;
		knit__vk_tuning_set(out, &knit__vk_choices[i], value);
		at += used + 1;
	}
	return strncmp(at, "sum ", 4) == 0;
}

knit_vk_tuning_source knit__vk_tuning_load(const knit_vk_probe *p, knit_vk_tuning *out) {
	char path[640];
	text t = {0}, head;
	knit_vk_tuning measured;

	*out = *knit__vk_tuning_of((int)p->caps.device_class);
	if (!knit__vk_tuning_path(p, path, sizeof path))
		return KNIT_VK_TUNING_TABLE;
	FILE *const f = fopen(path, "rb");
	if (!f)
		return KNIT_VK_TUNING_TABLE;
	t.bytes = fread(t.at, 1, sizeof t.at - 1, f);
	fclose(f);
	if (!sum_agrees(&t))
		return KNIT_VK_TUNING_DAMAGED;
	head_make(p, &head);
	if (t.bytes < head.bytes || memcmp(t.at, head.at, head.bytes) != 0)
		return KNIT_VK_TUNING_FOREIGN;
	if (!values_read(t.at + head.bytes, &measured))
		return KNIT_VK_TUNING_DAMAGED;
	if (!knit__vk_tuning_fits(&p->caps, &measured))
		return KNIT_VK_TUNING_UNFIT;
	*out = measured;
	return KNIT_VK_TUNING_FILE;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

bool knit__vk_tuning_save(const knit_vk_probe *p, const knit_vk_tuning *tuning) {
	char path[640];
	text t;

	if (!knit__vk_tuning_path(p, path, sizeof path))
		return false;
	head_make(p, &t);
	for (uint32_t i = 0; i < knit__vk_choice_count; ++i)
		add(&t, "%s %" PRIu32 "\n", knit__vk_choices[i].name, knit__vk_tuning_get(tuning, &knit__vk_choices[i]));
	add(&t, "sum %016" PRIx64 "\n", sum_of(t.at, t.bytes));
	return knit__vk_cache_replace(path, "", 0, t.at, t.bytes);
}

const char *knit__vk_tuning_source_text(knit_vk_tuning_source source) {
	switch (source) {
	case KNIT_VK_TUNING_FILE: return "measured (knit tune)";
	case KNIT_VK_TUNING_DAMAGED: return "the table's; ignored, damaged:";
	case KNIT_VK_TUNING_FOREIGN: return "the table's; ignored, of another device, driver or knit:";
	case KNIT_VK_TUNING_UNFIT: return "the table's; ignored, beyond this device's limits:";
	default: return "the table's";
	}
}
