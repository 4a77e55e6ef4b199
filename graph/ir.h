/* Owns the intermediate representation: storages (bytes that exist), values (typed windows on them) and nodes (ops),
 * as arrays indexed by 32-bit ids, 0 = none. A weight that is visited many times is ONE storage (and usually one
 * value) used by many nodes; that identity is what every later stage must keep. */
#ifndef KNIT_IR_H
#define KNIT_IR_H

#include "base.h"
#include "dtype.h"
#include "expr.h"

#define KNIT_MAX_IN 12
#define KNIT_MAX_OUT 3
#define KNIT_MAX_ATTRS 6

typedef enum knit_storage_kind {
	KNIT_STORAGE_CONST = 1, /* a weight */
	KNIT_STORAGE_ADAPTER,   /* a weight of an adapter: reported apart, bound anew per session by its name, so that its bytes
	                         * are never merged with others' or folded */
	KNIT_STORAGE_TEMP,      /* an activation: lives in the arena */
	KNIT_STORAGE_INPUT,
	KNIT_STORAGE_OUTPUT,    /* written by a step, read by the caller */
	KNIT_STORAGE_STATE,     /* outlives a run */
} knit_storage_kind;

typedef struct knit_storage {
	knit_storage_kind kind;
	uint32_t name;         /* string id: weight, input, output or state; 0 for TEMP */
	uint32_t value;        /* the value that is the whole of it (STATE: version 0) */
	knit_dtype dtype;      /* of the bytes; every value on it has the same */
	uint64_t max_bytes;    /* at the symbols' declared upper bounds */
	const void *host;      /* CONST, ADAPTER: the bytes, owned by a store that the graph retains; NULL in a parsed graph */
	uint8_t slots;         /* 1: ADAPTER [count, ...], a matrix per adapter, in a buffer that each session makes and fills */
} knit_storage;

typedef struct knit_value {
	uint32_t storage;
	uint32_t producer; /* node that wrote it; 0 for inputs, weights, initial states and views */
	uint32_t view_of;  /* the value it is a window on (never itself a view); 0: the whole storage, contiguous */
	uint32_t version;  /* STATE: 0 initially, +1 per write */
	knit_dtype dtype;
	uint8_t rank;
	uint8_t layout;    /* 0: plain strides; else a packed format of the target, for whole constants only */
	knit_dim dims[KNIT_MAX_RANK], strides[KNIT_MAX_RANK]; /* in elements */
	knit_dim offset;                                     /* elements from the storage's start */
} knit_value;

/* Which member is used is fixed by the op's attribute table. */
typedef union knit_attr { double f; int64_t i; } knit_attr;

typedef struct knit_node {
	uint16_t op; /* KNIT_OP_NONE: removed */
	uint8_t in_count, out_count;
	uint32_t in[KNIT_MAX_IN]; /* values; 0 for an absent optional operand */
	uint32_t out[KNIT_MAX_OUT];
	knit_attr attr[KNIT_MAX_ATTRS];
	uint32_t origin; /* string id */
	uint32_t parts;  /* string id: what a fused node was made of ("linear+linear+add"); 0: itself */
} knit_node;

typedef struct knit_port { uint32_t name, value; } knit_port;
typedef struct knit_state_slot { uint32_t storage, current; } knit_state_slot; /* current: value of the last version */

struct knit_graph {
	knit_context *ctx; /* retained */
	const knit_allocator *a;
	knit_strings strings;
	knit_exprs exprs;
	knit_storage *storages; /* [1 .. storage_count) and likewise below: element 0 is never used */
	knit_value *values;
	knit_node *nodes;
	uint32_t *order; /* execution order: node ids, topological; removed nodes are absent */
	knit_port *inputs, *outputs;
	knit_state_slot *states;
	knit_weights **stores; /* retained, so that `host` stays valid */
	uint32_t storage_count, storage_cap, value_count, value_cap, node_count, node_cap, order_count, order_cap;
	uint32_t input_count, input_cap, output_count, output_cap, state_count, state_cap, store_count, store_cap;
	uint32_t origin; /* string id given to new nodes */
	knit_diag diag;  /* the first error */
};

/* ---- making ------------------------------------------------------------------------------------------------------ */

typedef struct knit_type { knit_dtype dtype; uint8_t rank; knit_dim dims[KNIT_MAX_RANK]; } knit_type;

/* A deep copy that shares only the host bytes (stores retained). */
knit_status knit__graph_clone(const knit_graph *from, knit_graph **out, knit_diag *d);

/* 0 on failure, with g->diag set. A whole-storage contiguous value is made with the storage. */
uint32_t knit__storage_add(knit_graph *g, knit_storage_kind kind, const char *name, const knit_type *type,
                           const void *host, uint32_t *value);
/* A window: dims/strides/offset in elements, relative to the storage. Views of views refer to the underlying value. */
uint32_t knit__view_add(knit_graph *g, uint32_t of, uint8_t rank, const knit_dim *dims, const knit_dim *strides,
                        knit_dim offset);
/* Checks the operands with the op's `infer`, makes the outputs (new TEMP storages, or the next version of a state) and
 * appends the node to the order. Returns the node, 0 on failure with g->diag set. */
uint32_t knit__node_add(knit_graph *g, uint16_t op, uint32_t in_count, const uint32_t *in, const knit_attr *attr);
/* The same as a builder call: does nothing after the first error, returns the first output's value. */
knit_tensor knit__build(knit_graph *g, uint16_t op, uint32_t in_count, const uint32_t *in, const knit_attr *attr);
/* Records a builder error: "<op> at <origin>: <message>". */
void knit__build_fail(knit_graph *g, const char *op, knit_status status, const char *fmt, ...) KNIT_PRINTF(4, 5);
/* Whether `t` names a value of g (or is none and optional); records an ARGUMENT error otherwise. */
bool knit__build_check(knit_graph *g, const char *op, const char *operand, knit_tensor t);

/* ---- changing ---------------------------------------------------------------------------------------------------- */

/* Every use of `from` (node inputs, views on it, outputs, states) becomes a use of `to`, which has the same type.
 * False, with nothing changed, where a view of `from` cannot be expressed as a view of a strided `to`. */
bool knit__replace_uses(knit_graph *g, uint32_t from, uint32_t to);
/* Marks the node removed and takes it out of the order. Its outputs must be unused. */
void knit__node_remove(knit_graph *g, uint32_t node);
/* Drops removed nodes and unreferenced values and storages, renumbering in order. */
knit_status knit__graph_compact(knit_graph *g);

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static inline const knit_value *knit__value(const knit_graph *g, uint32_t id) { return &g->values[id]; }
static inline const knit_storage *knit__value_storage(const knit_graph *g, uint32_t id) {
	return &g->storages[g->values[id].storage];
}
/* The underlying non-view value. */
static inline uint32_t knit__value_root(const knit_graph *g, uint32_t id) {
	return g->values[id].view_of ? g->values[id].view_of : id;
}
/* The node that must run before the value can be read; 0 for leaves. */
static inline uint32_t knit__value_producer(const knit_graph *g, uint32_t id) {
	return g->values[knit__value_root(g, id)].producer;
}
/* Row-major without gaps (dims of 1 may have any stride). */
bool knit__value_contiguous(const knit_graph *g, uint32_t id);
/* Whether value `id` exists in the running graph: a leaf, an output of a node that was not removed, or a view of one of
 * those. Values left behind by passes are not live. Safe on a broken graph. */
bool knit__value_live(const knit_graph *g, uint32_t id);
/* Innermost dimension has stride 1 (or size 1). */
bool knit__value_rows_contiguous(const knit_graph *g, uint32_t id);
/* Contiguous strides for dims; SHAPE if they would need a product of two symbols. */
knit_status knit__strides_contiguous(knit_graph *g, uint8_t rank, const knit_dim *dims, knit_dim *strides);
/* Elements at the upper bounds (b NULL: declared); false on overflow. */
bool knit__value_max_elements(const knit_graph *g, const knit_bounds *b, uint32_t id, uint64_t *out);
/* Bytes of the whole storage under the value at the upper bounds. */
bool knit__storage_max_bytes(const knit_graph *g, const knit_bounds *b, uint32_t storage, uint64_t *out);
/* uses[v]: how many node inputs and output ports name v; a use of a view counts at its root too. `uses` has
 * value_count elements. */
void knit__count_uses(const knit_graph *g, uint32_t *uses);
/* "f32 [tokens, 64]" */
void knit__value_text(const knit_graph *g, uint32_t id, char *out, size_t size);
const char *knit__origin_text(const knit_graph *g, const knit_node *n);

#endif
