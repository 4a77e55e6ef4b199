/* Reads the text of --kv and makes maps. A list of visits is short, so slots are looked for by walking it. */
#include "kv.h"

#include "../../graph/dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */

enum { ITEM_BYTES = 32 };
enum { SAID_POLICY = 1, SAID_TYPE = 2, SAID_K = 4, SAID_V = 8, SAID_WINDOW = 16, SAID_SINKS = 32 };

static const char *const policy_names[] = {
	[KNIT__KV_VISIT] = "visit", [KNIT__KV_LAYER] = "layer", [KNIT__KV_FIRST] = "first", [KNIT__KV_GROUP] = "group:"};

static bool read_number(const char *text, int64_t lo, int64_t hi, int64_t *out) {
	int64_t n = 0;

	if (!*text)
		return false;
	for (; *text; ++text) {
		if (*text < '0' || *text > '9' || n > hi / 10)
			return false;
		n = n * 10 + (*text - '0');
	}
	*out = n;
	return n >= lo && n <= hi;
}

static bool read_policy(const char *item, knit__kv_spec *s) {
	int64_t group = 0;

	for (int p = KNIT__KV_VISIT; p < KNIT__KV_GROUP; ++p)
		if (strcmp(item, policy_names[p]) == 0) {
			s->policy = (knit__kv_policy)p;
			return true;
		}
	if (strncmp(item, policy_names[KNIT__KV_GROUP], 6) != 0 || !read_number(item + 6, 1, KNIT__MAX_LAYERS, &group))
		return false;
	s->policy = KNIT__KV_GROUP;
	s->group = (uint32_t)group;
	return true;
}

static bool read_type(const char *item, knit_dtype *out) {
	const knit_dtype t = knit__dtype_parse(item);

	if (!t || !knit__dtype_info(t)->is_state)
		return false;
	*out = t;
	return true;
}

/* What the item says; 0 if it says nothing. */
static int read_item(const char *item, knit__kv_spec *s) {
	knit_dtype both;

	if (read_policy(item, s))
		return SAID_POLICY;
	if (read_type(item, &both)) {
		s->k = s->v = both;
		return SAID_TYPE | SAID_K | SAID_V;
	}
	if (strncmp(item, "k=", 2) == 0 && read_type(item + 2, &s->k))
		return SAID_K;
	if (strncmp(item, "v=", 2) == 0 && read_type(item + 2, &s->v))
		return SAID_V;
	if (strncmp(item, "window=", 7) == 0 && read_number(item + 7, 1, INT32_MAX, &s->window))
		return SAID_WINDOW;
	if (strncmp(item, "sinks=", 6) == 0 && read_number(item + 6, 0, INT32_MAX, &s->sinks))
		return SAID_SINKS;
	return 0;
}

knit_status knit__kv_parse(const char *text, knit__kv_spec *out, knit_diag *diag) {
	knit__kv_spec s = {0};
	int said = 0;

	for (const char *at = text;; ++at) {
		const size_t n = strcspn(at, ",");
		char item[ITEM_BYTES] = "";

		if (n < sizeof item)
			memcpy(item, at, n);
		const int what = read_item(item, &s);
		if (!what)
			return knit__fail(diag, KNIT_ERR_ARGUMENT, 0,
							  "\"%.*s\" is no policy (visit, layer, first, group:N), type (f32, f16, bf16, q8_0, q4_0), "
							  "k=TYPE, v=TYPE, window=N or sinks=N",
							  n > 40 ? 40 : (int)n, at);
		if (said & what)
			return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "\"%.*s\" says what was said before", (int)n, at);
		said |= what;
		at += n;
		if (!*at)
			break;
	}
	if (s.sinks && !s.window)
		return knit__fail(diag, KNIT_ERR_ARGUMENT, 0, "sinks=%" PRId64 " needs a window=N: without one all positions are seen",
						  s.sinks);
	*out = s;
	return KNIT_OK;
}

void knit__kv_text(const knit__kv_spec *spec, char *out, size_t bytes) {
	char policy[32] = "the model's slots", window[64] = "";

	if (spec->policy == KNIT__KV_GROUP)
		snprintf(policy, sizeof policy, "a slot per %u layers", (unsigned)spec->group);
	else if (spec->policy != KNIT__KV_MODEL)
		snprintf(policy, sizeof policy, "a slot per %s",
				 spec->policy == KNIT__KV_VISIT   ? "visit"
				 : spec->policy == KNIT__KV_LAYER ? "layer (last visit)"
												  : "layer (first visit)");
	if (spec->window)
		snprintf(window, sizeof window, ", window %" PRId64 " with %" PRId64 " sinks", spec->window, spec->sinks);
	if (spec->k == spec->v)
		snprintf(out, bytes, "%s, %s%s", policy, knit_dtype_name(spec->k), window);
	else
		snprintf(out, bytes, "%s, k %s, v %s%s", policy, knit_dtype_name(spec->k), knit_dtype_name(spec->v), window);
}

/* ---- maps -------------------------------------------------------------------------------------------------------- */

/* How often each visit's layer was visited before. */
static void count_earlier(const uint16_t *layers, uint32_t count, uint16_t *earlier) {
	uint16_t seen[KNIT__MAX_LAYERS] = {0};

	for (uint32_t v = 0; v < count; ++v)
		earlier[v] = seen[layers[v]]++;
}

static bool shares(knit__kv_policy policy, uint32_t group, const uint16_t *layers, const uint16_t *earlier, uint32_t a,
				   uint32_t b) {
	if (policy == KNIT__KV_VISIT)
		return a == b;
	if (policy != KNIT__KV_GROUP)
		return layers[a] == layers[b];
	return layers[a] / group == layers[b] / group && earlier[a] == earlier[b];
}

void knit__kv_map_make(knit__kv_policy policy, uint32_t group, const uint16_t *layers, uint32_t count, knit__kv_map *out) {
	uint16_t earlier[KNIT__MAX_VISITS];

	count_earlier(layers, count, earlier);
	out->count = count;
	for (uint32_t v = 0; v < count; ++v) {
		uint32_t first = 0;

		while (!shares(policy, group, layers, earlier, first, v))
			++first;
		out->slot[v] = (uint16_t)first;
		out->writes[v] = first == v || policy == KNIT__KV_LAYER;
	}
}

bool knit__kv_map_check(const knit__kv_map *map, uint32_t *visit) {
	bool written[KNIT__MAX_VISITS] = {false};

	for (uint32_t v = 0; v < map->count; ++v) {
		if (map->slot[v] < KNIT__MAX_VISITS && (map->writes[v] || written[map->slot[v]])) {
			written[map->slot[v]] = true;
			continue;
		}
		*visit = v;
		return false;
	}
	return true;
}

uint32_t knit__kv_map_slots(const knit__kv_map *map) {
	bool used[KNIT__MAX_VISITS] = {false};
	uint32_t slots = 0;

	for (uint32_t v = 0; v < map->count; ++v) {
		slots += !used[map->slot[v]];
		used[map->slot[v]] = true;
	}
	return slots;
}
