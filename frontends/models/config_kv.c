/* Reads which KV slots a model's visits use, and answers what slots the visits that run have. */
#include "config_tensors.h"

#include <inttypes.h>
#include <string.h>

static uint64_t visits_hash(const knit__decoder_config *c) {
	return knit__hash(KNIT__HASH_SEED, c->visits, c->visit_count * sizeof *c->visits);
}

/* knit.kv.policy: a policy as --kv takes it, nothing else. */
static knit_status read_policy(knit__decoder_config *c, const knit_metadata *m, bool *there, knit_diag *diag) {
	const char *text = NULL;
	knit__kv_spec spec = {0};
	const knit_status status = knit__metadata_string(m, "knit.kv.policy", &text, diag);

	*there = false;
	if (status == KNIT_ERR_NOT_FOUND)
		return KNIT_OK;
	if (status != KNIT_OK)
		return status;
	if (knit__kv_parse(text, &spec, NULL) != KNIT_OK || spec.policy == KNIT__KV_MODEL || spec.k || spec.v || spec.window)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "knit.kv.policy is \"%.40s\", needs visit, layer, first or group:N: correct the key", text);
	c->own_kv_policy = spec.policy;
	c->own_kv_group = spec.group;
	*there = true;
	return KNIT_OK;
}

static knit_status read_array(const knit__decoder_config *c, const knit_metadata *m, const char *key,
							  const knit_metadata_entry **out, knit_diag *diag) {
	const knit_status status = knit__metadata_array(m, key, out, diag);

	if (status == KNIT_ERR_NOT_FOUND)
		*out = NULL;
	if (status != KNIT_OK)
		return status == KNIT_ERR_NOT_FOUND ? KNIT_OK : status;
	if ((*out)->count != c->model_visits.count)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0,
						  "%s has %" PRIu64 " entries, the model has %u visits: correct the key", key, (*out)->count,
						  (unsigned)c->model_visits.count);
	return KNIT_OK;
}

static knit_status read_entry(const knit_metadata_entry *e, uint32_t at, const char *key, uint64_t hi, uint64_t *out,
							  knit_diag *diag) {
	bool flag = false;

	if (hi == 1 && knit__metadata_bool_at(e, at, &flag)) {
		*out = flag;
		return KNIT_OK;
	}
	if (knit__metadata_u64_at(e, at, out) && *out <= hi)
		return KNIT_OK;
	return knit__fail(diag, KNIT_ERR_FORMAT, 0, "%s: entry %u is no number from 0 to %" PRIu64 ": correct the key", key,
					  (unsigned)at, hi);
}

/* Without knit.kv.writes the first visit of each slot writes. */
static knit_status fill_map(knit__kv_map *map, uint32_t count, const knit_metadata_entry *slots,
							const knit_metadata_entry *writes, knit_diag *diag) {
	bool used[KNIT__MAX_VISITS] = {false};

	map->count = count;
	for (uint32_t v = 0; v < count; ++v) {
		uint64_t slot = v, wrote = 0;
		knit_status status = KNIT_OK;

		if (slots)
			status = read_entry(slots, v, "knit.kv.slots", KNIT__MAX_VISITS - 1, &slot, diag);
		if (status != KNIT_OK)
			return status;
		wrote = !used[slot];
		used[slot] = true;
		if (writes)
			status = read_entry(writes, v, "knit.kv.writes", 1, &wrote, diag);
		if (status != KNIT_OK)
			return status;
		map->slot[v] = (uint16_t)slot;
		map->writes[v] = wrote != 0;
	}
	return KNIT_OK;
}

knit_status knit__decoder_read_kv(knit__decoder_config *c, const knit_metadata *m, knit_diag *diag) {
	const knit_metadata_entry *slots = NULL, *writes = NULL;
	bool policy = false;
	uint32_t visit = 0;
	knit_status status = read_policy(c, m, &policy, diag);

	if (status == KNIT_OK)
		status = read_array(c, m, "knit.kv.slots", &slots, diag);
	if (status == KNIT_OK)
		status = read_array(c, m, "knit.kv.writes", &writes, diag);
	if (status != KNIT_OK || (!slots && !writes))
		return status;
	if (policy || !slots)
		return knit__fail(diag, KNIT_ERR_FORMAT, 0, "%s: correct the keys",
						  policy ? "the file has knit.kv.policy and a map of its own, needs one of them"
								 : "the file has knit.kv.writes without knit.kv.slots");
	c->own_kv_visits = visits_hash(c);
	status = fill_map(&c->own_kv, c->model_visits.count, slots, writes, diag);
	if (status == KNIT_OK && !knit__kv_map_check(&c->own_kv, &visit))
		status = knit__fail(diag, KNIT_ERR_FORMAT, 0,
							"visit %u reads KV slot %u, which neither it nor a visit before it writes: correct knit.kv.slots "
							"or knit.kv.writes",
							(unsigned)visit, (unsigned)c->own_kv.slot[visit]);
	return status;
}

knit_status knit__decoder_kv_map(const knit__decoder_config *c, knit__kv_map *out, knit_diag *diag) {
	const bool asked = c->kv_policy != KNIT__KV_MODEL;
	const knit__kv_policy policy = asked ? c->kv_policy : c->own_kv_policy;

	if (!asked && c->own_kv.count && visits_hash(c) != c->own_kv_visits)
		return knit__fail(diag, KNIT_ERR_UNSUPPORTED, 0,
						  "the model's KV slots are for its own visits: with others name a policy (--kv visit, layer, "
						  "first or group:N)");
	if (!asked && c->own_kv.count)
		*out = c->own_kv;
	else
		knit__kv_map_make(policy == KNIT__KV_MODEL ? KNIT__KV_VISIT : policy, asked ? c->kv_group : c->own_kv_group,
						  c->visits, c->visit_count, out);
	return KNIT_OK;
}

bool knit__decoder_layer_writes_kv(const knit__decoder_config *c, uint32_t layer) {
	knit__decoder_config own = *c;
	knit__kv_map map;

	own.kv_policy = KNIT__KV_MODEL;
	if (knit__decoder_kv_map(&own, &map, NULL) != KNIT_OK)
		return true;
	for (uint32_t v = 0; v < map.count; ++v)
		if (own.visits[v] == layer && map.writes[v])
			return true;
	/* A layer that is not visited may be visited by other visits. */
	for (uint32_t v = 0; v < map.count; ++v)
		if (own.visits[v] == layer)
			return false;
	return true;
}

uint64_t knit__decoder_kv_bytes(const knit__decoder_config *c, knit_dtype k, knit_dtype v) {
	const uint64_t row = (uint64_t)c->kv_heads * (uint64_t)c->head_dim;
	uint64_t k_bytes = 0, v_bytes = 0;
	knit__kv_map map;

	if (knit__decoder_kv_map(c, &map, NULL) != KNIT_OK || !knit__dtype_bytes(k, row, &k_bytes) ||
		!knit__dtype_bytes(v, row, &v_bytes))
		return 0;
	return knit__kv_map_slots(&map) * (k_bytes + v_bytes);
}
