/* Owns KV policies: which slot each visit uses and whether it writes there, the types of keys and values, window and
 * sinks, and their text. Knows no weights and no graph. */
#ifndef KNIT_KV_H
#define KNIT_KV_H

#include "visits.h"

typedef enum knit__kv_policy {
	KNIT__KV_MODEL = 0, /* the model's own map; one slot per visit where it has none */
	KNIT__KV_VISIT,     /* one slot per visit */
	KNIT__KV_LAYER,     /* one per layer: each visit of the layer writes over what the one before wrote */
	KNIT__KV_FIRST,     /* one per layer: its first visit writes, later ones only read */
	KNIT__KV_GROUP,     /* one per `group` adjacent layers and loop: the first of them writes, the others only read */
} knit__kv_policy;

/* What `--kv` says. */
typedef struct knit__kv_spec {
	knit__kv_policy policy;
	uint32_t group;         /* of KNIT__KV_GROUP */
	knit_dtype k, v;        /* 0: not said */
	int64_t window, sinks;  /* window 0: all positions are kept */
} knit__kv_spec;

/* Items with commas between them, in any order, each at most once: a policy (visit, layer, first, group:N), a type for both
 * (f32, f16, bf16, q8_0, q4_0), k=TYPE, v=TYPE, window=N, sinks=N. ARGUMENT with what is wrong. */
knit_status knit__kv_parse(const char *text, knit__kv_spec *out, knit_diag *diag);
/* "first, k q8_0, v q4_0, window 1024 with 4 sinks"; cut at `bytes`. */
void knit__kv_text(const knit__kv_spec *spec, char *out, size_t bytes);

/* Slot of visit 0, 1, 2 ... and whether it writes there. */
typedef struct knit__kv_map {
	uint16_t slot[KNIT__MAX_VISITS];
	bool writes[KNIT__MAX_VISITS];
	uint32_t count;
} knit__kv_map;

/* Any policy but KNIT__KV_MODEL. Slots have the numbers of the first visits that use them. */
void knit__kv_map_make(knit__kv_policy policy, uint32_t group, const uint16_t *layers, uint32_t count, knit__kv_map *out);
/* The first visit of each slot must write: otherwise it would read what no visit has written. False with that visit. */
bool knit__kv_map_check(const knit__kv_map *map, uint32_t *visit);
/* The number of distinct slots. */
uint32_t knit__kv_map_slots(const knit__kv_map *map);

#endif
