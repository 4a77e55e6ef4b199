/* knit: a compute graph engine for language models that visit their weights more than once.
 *
 * Build a graph with the functions below, compile it for a device, run it in a session:
 *
 *     graph --knit_compile--> program (immutable, shareable) --knit_session_create--> session (everything mutable)
 *
 * Conventions
 *   - Every create/open/compile returns a knit_status and hands its result over through the last pointer (before the
 *     optional knit_diag). On failure the result is NULL and nothing is leaked.
 *   - Builder calls never fail loudly: the first error of a graph is kept (sticky), later calls do nothing and return
 *     id 0. Ask once, with knit_graph_status.
 *   - Destroying or releasing NULL does nothing. Objects count references: any order of destruction is safe.
 *   - Shapes are written [outermost, ..., innermost]; the innermost dimension is contiguous. Sizes are in bytes where
 *     a name says `bytes`, otherwise in elements.
 *   - A knit_graph and a knit_session belong to one thread at a time; contexts, weights and programs may be shared.
 */
#ifndef KNIT_H
#define KNIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KNIT_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define KNIT_PRINTF(f, a)
#endif

#define KNIT_VERSION_MAJOR 0
#define KNIT_VERSION_MINOR 1
#define KNIT_VERSION_PATCH 0

#define KNIT_MAX_RANK 4

#ifdef __cplusplus
extern "C" {
#endif

/* ---- statuses ---------------------------------------------------------------------------------------------------- */

typedef enum knit_status {
	KNIT_OK = 0,
	KNIT_ERR_ARGUMENT,    /* the call itself is wrong: null, out of range, wrong object */
	KNIT_ERR_SHAPE,       /* shapes or types of the operands do not fit the op */
	KNIT_ERR_STATE,       /* right call, wrong moment (run before its inputs are written, run after a failed run) */
	KNIT_ERR_NOT_FOUND,   /* no tensor, symbol, input, output, file or device of that name */
	KNIT_ERR_UNSUPPORTED, /* valid, but this device or build cannot do it */
	KNIT_ERR_FORMAT,      /* a file is malformed */
	KNIT_ERR_LIMIT,       /* a documented limit is exceeded */
	KNIT_ERR_IO,          /* the operating system could not read or write */
	KNIT_ERR_MEMORY,      /* a host or device allocation failed */
	KNIT_ERR_DEVICE,      /* device lost or driver error; the session is dead, the program is not */
	KNIT_ERR_INTERNAL,    /* a bug in knit: please report it */
} knit_status;

/* What went wrong, in the caller's memory. `node` is the graph node concerned, 0 if none. */
typedef struct knit_diag {
	knit_status status;
	uint32_t node;
	char text[248];
} knit_diag;

/* "OK", "ARGUMENT", "SHAPE" ...; never NULL. */
const char *knit_status_name(knit_status status);

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Q8_0: blocks of 32 values, one f16 scale and 32 int8 (34 bytes). Q4_0: one f16 scale and 32 nibbles (18 bytes).
 * Q4_K: blocks of 256 values, 8 parts of 32 nibbles with a scale and a minimum of 6 bits each (144 bytes). Q6_K: blocks of
 * 256 values of 6 bits, 16 parts with a scale of 8 bits each (210 bytes). The last two are for weights only. */
typedef enum knit_dtype { KNIT_F32 = 1, KNIT_F16, KNIT_BF16, KNIT_I32, KNIT_Q8_0, KNIT_Q4_0, KNIT_Q4_K, KNIT_Q6_K } knit_dtype;

/* "f32", "q8_0" ...; "?" for an unknown value. */
const char *knit_dtype_name(knit_dtype dtype);

typedef struct knit_context knit_context;
typedef struct knit_weights knit_weights;
typedef struct knit_graph knit_graph;
typedef struct knit_program knit_program;
typedef struct knit_session knit_session;

typedef struct knit_tensor { uint32_t id; } knit_tensor; /* id 0 is "no tensor" */
typedef struct knit_state { uint32_t id; } knit_state;   /* id 0 is "no state" */
typedef struct knit_dim { int64_t v; } knit_dim;         /* v >= 0: a number; v < 0: an expression of the graph */

/* ---- context ----------------------------------------------------------------------------------------------------- */

/* alloc: `align` is a power of two; returns NULL on failure. free: gets the size that alloc got. Both thread-safe. */
typedef struct knit_allocator {
	void *(*alloc)(void *user, size_t size, size_t align);
	void (*free)(void *user, void *ptr, size_t size);
	void *user;
} knit_allocator;

typedef enum knit_log_level { KNIT_LOG_WARNING = 1, KNIT_LOG_INFO, KNIT_LOG_DEBUG } knit_log_level;

/* Zero means default everywhere: malloc, no log, one thread per core. */
typedef struct knit_context_desc {
	knit_allocator allocator;
	void (*log)(void *user, int level, const char *text);
	void *log_user;
	uint32_t cpu_threads; /* threads of the CPU device, the calling one included; 0: one per available core */
} knit_context_desc;

knit_status knit_context_create(const knit_context_desc *desc, knit_context **out);
void knit_context_destroy(knit_context *ctx);

/* A device that this build knows. `id` is what knit_compile_desc.device takes: "cpu", "null", "vulkan:0"; it also takes
 * "vulkan" (the best of them: discrete before integrated before software) and part of a name ("vulkan:radeon"). */
typedef struct knit_device_info {
	char id[32];
	char name[128];
	char detail[256];      /* one line: instruction sets, driver, or why it is absent */
	uint64_t memory_bytes; /* 0: unknown */
	bool available;
	bool software;         /* a GPU that the processor plays: right and slow, never chosen as the best */
} knit_device_info;

/* Writes up to cap entries and the number there is. Opens nothing. */
knit_status knit_devices(knit_context *ctx, knit_device_info *out, size_t cap, size_t *count);

/* One thing known of a device: "memory", "heap 0", "2.0 GiB, the device's own, 1.4 GiB of it free". */
typedef struct knit_device_fact {
	char group[24], name[40], value[184];
} knit_device_fact;

/* The same for what is known of one device beyond that: limits, features, memory, and which kernels they allow. NOT_FOUND
 * if there is no device of that id; a device may have no facts. */
knit_status knit_device_facts(knit_context *ctx, const char *id, knit_device_fact *out, size_t cap, size_t *count);

/* What was measured of one candidate of one choice that a device's kernels have: a number, "never" for no such rows. */
typedef struct knit_tune_row {
	char choice[32], candidate[16];
	double ms;   /* of a few runs that hang on the choice, the best of each */
	bool usual;  /* what the table for this class of device says */
	bool chosen; /* the usual one unless another was faster by more than 3 % */
} knit_tune_row;

typedef struct knit_tune_result {
	knit_tune_row rows[64];
	size_t count;
	char file[640]; /* where the choices were written, or from where they were removed */
} knit_tune_result;

/* go_on, which may be NULL, is asked before each measurement, `done` of `total`; false ends it all. */
typedef struct knit_tune_desc {
	bool reset; /* measure nothing; forget what was measured */
	bool (*go_on)(void *user, const char *choice, size_t done, size_t total);
	void *user;
} knit_tune_desc;

/* Measures on a device, in seconds, which of its kernels' forms are fastest, and keeps that in the cache folder for this
 * device, driver and version of knit: devices opened from then on use it. Never needed; no result depends on it but for
 * rounding. desc NULL: zeros. UNSUPPORTED where a device has no such choices; STATE where go_on said no: then the file is
 * as it was; IO where it cannot be written. */
knit_status knit_device_tune(knit_context *ctx, const char *id, const knit_tune_desc *desc, knit_tune_result *out,
                             knit_diag *diag);

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Opens a GGUF, safetensors or llama2.c file by its content. The file is mapped, not read; tensors with equal bytes
 * become one storage. Errors: NOT_FOUND, IO, FORMAT (with offset and field), LIMIT, MEMORY. */
knit_status knit_weights_open(knit_context *ctx, const char *path, knit_weights **out, knit_diag *diag);

/* An empty store, to be filled with knit_weights_add before its first use in a graph. */
knit_status knit_weights_create(knit_context *ctx, knit_weights **out);

/* Adds a tensor of dims [outermost..innermost]. `data` is copied. `bytes` must be exactly the tensor's size. */
knit_status knit_weights_add(knit_weights *store, const char *name, knit_dtype dtype, int rank, const int64_t *dims,
                             const void *data, size_t bytes, knit_diag *diag);

/* One tensor of a store. Tensors with the same `storage` number share their bytes. */
typedef struct knit_weight_info {
	const char *name;
	knit_dtype dtype;
	int rank;
	int64_t dims[KNIT_MAX_RANK];
	const void *data;
	uint64_t bytes;
	uint32_t storage;
} knit_weight_info;

size_t knit_weights_count(const knit_weights *store);
/* NOT_FOUND if index >= count. */
knit_status knit_weights_at(const knit_weights *store, size_t index, knit_weight_info *out);
knit_status knit_weights_find(const knit_weights *store, const char *name, knit_weight_info *out);
void knit_weights_release(knit_weights *store);

/* ---- building a graph -------------------------------------------------------------------------------------------- */

knit_status knit_graph_create(knit_context *ctx, knit_graph **out);
void knit_graph_destroy(knit_graph *g);
/* The graph's first error, or OK. diag may be NULL. */
knit_status knit_graph_status(const knit_graph *g, knit_diag *diag);

/* A size that is known only at run time, in [lo, hi] (0 <= lo <= hi). Memory is planned for hi. Same name, same symbol. */
knit_dim knit_sym(knit_graph *g, const char *name, int64_t lo, int64_t hi);
knit_dim knit_dim_add(knit_graph *g, knit_dim a, knit_dim b);
knit_dim knit_dim_mul(knit_graph *g, knit_dim a, int64_t factor);
knit_dim knit_n(int64_t n);

/* Names what is built from here on; shown in errors, dumps and profiles ("visit.3.blk.0.attn_k"). */
void knit_origin(knit_graph *g, const char *fmt, ...) KNIT_PRINTF(2, 3);

knit_tensor knit_input(knit_graph *g, const char *name, knit_dtype t, int rank, const knit_dim *dims);
/* A tensor of a store, by name. Asking again for the same tensor gives the same storage: this is how layers are tied. */
knit_tensor knit_weight(knit_graph *g, knit_weights *store, const char *fmt, ...) KNIT_PRINTF(3, 4);
/* The same, for a weight that belongs to an adapter (LoRA) and not to the base model. It goes by its name: two tensors
 * with equal bytes stay two, and a session can have another tensor of that name (knit_session_bind_adapter). ARGUMENT
 * where a graph asks two stores for one name. */
knit_tensor knit_adapter(knit_graph *g, knit_weights *store, const char *fmt, ...) KNIT_PRINTF(3, 4);
/* Room for `count` matrices [rows, columns] of any weight type, as one tensor [count, rows, columns]: one per adapter,
 * for batches whose sequences use different ones. Each session has its own, zero when it is made; number 0 stays zero
 * ("no adapter"), the others are filled by knit_session_fill_adapter_slot with the tensors of this name. Asking again
 * for the same gives the same. */
knit_tensor knit_adapter_slots(knit_graph *g, knit_dtype t, int64_t count, int64_t rows, int64_t columns,
                               const char *fmt, ...) KNIT_PRINTF(6, 7);
void knit_output(knit_graph *g, const char *name, knit_tensor t);

/* In the comments below n, k, m are numbers and R stands for any leading dimensions. */

/* table [rows, n], ids i32 [k] -> f32 [k, n]: row ids[i] of the table (embedding; choosing rows of activations). */
knit_tensor knit_gather(knit_graph *g, knit_tensor table, knit_tensor ids);
/* x f32 [R, k], w [n, k] of any weight dtype -> f32 [R, n]: x w^T. */
knit_tensor knit_linear(knit_graph *g, knit_tensor x, knit_tensor w);
/* The low-rank part of a linear (Hu et al. 2021), x f32 [R, k] -> f32 [R, n]: scale * (x a^T) b^T with a [r, k] and
 * b [n, r] of any weight type; the two ids are then 0. Or, where sequences use different adapters: x [tokens, k],
 * a [count, r, k], b [count, n, r] (knit_adapter_slots), adapter_of_sequence i32 [sequences] and seq i32 [tokens]; token
 * t uses the matrices number adapter_of_sequence[seq[t]]. */
knit_tensor knit_lora(knit_graph *g, knit_tensor x, knit_tensor a, knit_tensor b, float scale,
                      knit_tensor adapter_of_sequence, knit_tensor seq);
/* Same shape, or b a vector [n] (f32, f16, bf16) repeated along the leading dimensions of a [R, n]. */
knit_tensor knit_add(knit_graph *g, knit_tensor a, knit_tensor b);
knit_tensor knit_mul(knit_graph *g, knit_tensor a, knit_tensor b);
knit_tensor knit_scale(knit_graph *g, knit_tensor x, float s);
/* x / (1 + exp(-x)) */
knit_tensor knit_silu(knit_graph *g, knit_tensor x);
/* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form of Hendrycks and Gimpel 2016. */
knit_tensor knit_gelu(knit_graph *g, knit_tensor x);
/* x [R, n], gain [n]: x / sqrt(mean(x^2) + eps) * gain (Zhang and Sennrich 2019). */
knit_tensor knit_rms_norm(knit_graph *g, knit_tensor x, knit_tensor gain, float eps);
/* (x - mean) / sqrt(var + eps) * gain + bias; bias may be id 0 (none) (Ba et al. 2016). */
knit_tensor knit_layer_norm(knit_graph *g, knit_tensor x, knit_tensor gain, knit_tensor bias, float eps);
/* Along the innermost dimension. */
knit_tensor knit_softmax(knit_graph *g, knit_tensor x);
/* x f32 [R, n] -> i32 [R]: index of the largest element, the lowest index among equals. */
knit_tensor knit_argmax(knit_graph *g, knit_tensor x);
/* Conversion between f32, f16 and bf16 (round to nearest even). */
knit_tensor knit_cast(knit_graph *g, knit_tensor x, knit_dtype dtype);

typedef enum knit_rope_layout {
	KNIT_ROPE_INTERLEAVED = 0, /* pairs (2i, 2i+1), as llama2.c and GGUF llama files store it */
	KNIT_ROPE_SPLIT = 1,       /* pairs (i, i + rotary/2), as Hugging Face stores it */
} knit_rope_layout;

/* Zero means default: theta 10000, all of head_dim rotated, interleaved. */
typedef struct knit_rope_desc {
	float theta;
	int64_t rotary_dims; /* even, <= head_dim; the rest passes through */
	knit_rope_layout layout;
} knit_rope_desc;

/* x f32 [tokens, heads, head_dim], pos i32 [tokens]: pair i of each head turned by pos * theta^(-2i/rotary_dims)
 * (Su et al. 2021). */
knit_tensor knit_rope(knit_graph *g, knit_tensor x, knit_tensor pos, const knit_rope_desc *desc);

/* Views: no bytes move; a copy is made only where a kernel needs it. */
knit_tensor knit_reshape(knit_graph *g, knit_tensor x, int rank, const knit_dim *dims);
/* Elements [begin, begin + size) of dimension `axis`. */
knit_tensor knit_slice(knit_graph *g, knit_tensor x, int axis, int64_t begin, knit_dim size);
/* Swaps two dimensions. */
knit_tensor knit_transpose(knit_graph *g, knit_tensor x, int axis_a, int axis_b);
/* [R, heads * head_dim] -> [R, heads, head_dim] and back. */
knit_tensor knit_split_heads(knit_graph *g, knit_tensor x, int64_t heads);
knit_tensor knit_merge_heads(knit_graph *g, knit_tensor x);

/* A named store of rows that outlives a run: dims [sequences, positions, ...], all numbers, rank 3 or 4; f32, f16,
 * bf16, or q8_0 or q4_0 where the last dimension is a multiple of 32. Zero-filled when a session is made and by
 * knit_session_reset_states. */
knit_state knit_state_define(knit_graph *g, knit_dtype t, int rank, const knit_dim *dims, const char *fmt, ...)
	KNIT_PRINTF(5, 6);
/* rows f32 [tokens, ...] are written to cells (seq[t], pos[t]), rounded to the state's type; seq and pos i32 [tokens],
 * pairs distinct in one run. */
void knit_state_append(knit_graph *g, knit_state s, knit_tensor rows, knit_tensor seq, knit_tensor pos);
/* The same where the positions from `sinks` on go round: position p is in cell p below sinks, else in cell
 * sinks + (p - sinks) % ring. The state has sinks + ring cells; positions have no upper bound. ring 0: no ring. */
void knit_state_append_ring(knit_graph *g, knit_state s, knit_tensor rows, knit_tensor seq, knit_tensor pos,
                            int64_t ring, int64_t sinks);
/* The whole state as it stands after the appends made so far: [sequences, positions, ...]. */
knit_tensor knit_state_read(knit_graph *g, knit_state s);

/* Zero means default: scale 1/sqrt(head_dim), no window, no ring, kv_heads from the shape of k. */
typedef struct knit_attention_desc {
	float scale;
	int64_t window;   /* token t sees only positions > pos[t] - window; 0: all */
	int64_t ring;     /* k and v were written by knit_state_append_ring with this ring; needs a window. At least
	                   * window + (upper bound of tokens) - 1, or the last tokens of a run would overwrite what its first
	                   * ones see */
	int64_t sinks;    /* positions below this are seen whatever the window */
	int64_t kv_heads; /* needed where k or v has rank 3 */
} knit_attention_desc;

/* q f32 [tokens, heads, head_dim]; k, v [sequences, positions, kv_heads, head_dim] or [sequences, positions,
 * kv_heads * head_dim] (heads a multiple of kv_heads), of any type a state may have, each its own; seq, pos i32 [tokens]
 * -> f32 [tokens, heads, head_dim]. Token t attends to the cells of sequence seq[t] at positions <= pos[t] (Vaswani et
 * al. 2017; grouped queries: Ainslie et al. 2023; sinks: Xiao et al. 2023). With a ring, the positions of one sequence
 * in one run may not lie further apart than ring - window (the run refuses that with ARGUMENT). A sequence may begin
 * anew at 0; otherwise it may step back by at most ring - window from the highest position written, since what lay before
 * has been overwritten (nobody checks that). */
knit_tensor knit_attention(knit_graph *g, knit_tensor q, knit_tensor k, knit_tensor v, knit_tensor seq, knit_tensor pos,
                           const knit_attention_desc *desc);

/* Where keys and values are kept: for one visit, or for several that share it. Zero means default where a comment says
 * so. */
typedef struct knit_kv_desc {
	int64_t sequences;          /* default 1 */
	int64_t positions;          /* of a sequence, at most; needed without a window; 0 with one: no limit */
	int64_t kv_heads, head_dim;
	knit_dtype k, v;            /* any pair of f32, f16, bf16, q8_0, q4_0; default f16. q8_0 and q4_0 need
	                             * kv_heads * head_dim to be a multiple of 32 */
	int64_t window, sinks;      /* as in knit_attention_desc */
	int64_t max_tokens;         /* of one sequence in one run, at most: the symbol's upper bound; needed with a window */
} knit_kv_desc;

/* A value; copies name the same slot. Without a window it has `positions` cells, with one the smaller of that and
 * sinks + ring, ring = window + max_tokens - 1. Bytes: sequences * cells * kv_heads * head_dim elements of k and of v. */
typedef struct knit_kv_slot {
	knit_state k, v;
	knit_kv_desc desc; /* defaults filled in */
	int64_t cells;
	int64_t ring;      /* 0: a cell for every position */
} knit_kv_slot;

/* Defines the states "k.NAME" and "v.NAME". On an error of the graph both ids are 0. */
knit_kv_slot knit_kv_slot_define(knit_graph *g, const knit_kv_desc *desc, const char *fmt, ...) KNIT_PRINTF(3, 4);
/* k, v f32 [tokens, kv_heads, head_dim] go to the slot at (seq[t], pos[t]); seq, pos i32 [tokens]. */
void knit_kv_slot_append(knit_graph *g, const knit_kv_slot *slot, knit_tensor k, knit_tensor v, knit_tensor seq,
                         knit_tensor pos);
/* knit_attention over the slot as it stands after the appends made so far. scale 0: 1/sqrt(head_dim). */
knit_tensor knit_kv_slot_attend(knit_graph *g, const knit_kv_slot *slot, knit_tensor q, knit_tensor seq, knit_tensor pos,
                                float scale);

typedef enum knit_graph_format { KNIT_GRAPH_TEXT = 0, KNIT_GRAPH_DOT = 1 } knit_graph_format;
/* Writes the graph through `write` in pieces. The text form can be read back by knit's own tools. */
knit_status knit_graph_print(const knit_graph *g, knit_graph_format format,
                             void (*write)(void *user, const char *text, size_t bytes), void *user);

/* ---- compiling --------------------------------------------------------------------------------------------------- */

/* A range of one symbol that gets kernels and a memory plan of its own (tokens = 1 for decode, 2..512 for prefill). */
typedef struct knit_bucket { const char *symbol; int64_t lo, hi; } knit_bucket;

typedef struct knit_compile_desc {
	const char *device;         /* "cpu", "null", "vulkan:0"; "vulkan+cpu": what is read most per token on the first, as far as
	                             * device_memory allows, the rest on the second; NULL: the best found */
	const knit_bucket *buckets; /* all on one symbol, not overlapping; none: one program for the whole range */
	size_t bucket_count;
	uint64_t memory_limit;      /* bytes for weights, states and arena together; 0: no limit */
	const char *disable_passes; /* comma-separated pass names, for tests and bug reports; NULL: none. The environment variable
	                             * KNIT_PASSES_OFF adds to them */
	bool plan_only;             /* for the figures alone: no weight is made resident, no session can be made */
	uint64_t device_memory;     /* of a split: bytes that may lie on its first device; 0: what that has free, but for a tenth */
} knit_compile_desc;

/* The graph is not changed and may be destroyed afterwards. Errors: the graph's own first error; UNSUPPORTED (op and
 * name) where the device has no kernel; LIMIT where memory_limit does not suffice, with the sum. */
knit_status knit_compile(const knit_graph *g, const knit_compile_desc *desc, knit_program **out, knit_diag *diag);
void knit_program_release(knit_program *p);

/* Bytes by class. Equal weights are counted once in weight_bytes and once per use in weight_bytes_by_use. */
typedef struct knit_memory {
	uint64_t weight_bytes;        /* base weights resident, each storage once */
	uint64_t weight_bytes_by_use; /* what they would be if every use had its own copy */
	uint64_t adapter_bytes;       /* LoRA weights, each storage once, and the slots of one session */
	uint64_t packed_bytes;        /* what layouts for kernels take beyond weight_bytes: their padding, and whole second
	                               * copies of weights whose own bytes cannot be given back (not from a mapped file) */
	uint64_t state_bytes;         /* KV slots of one session */
	uint64_t arena_bytes;         /* activations and scratch of one session: the largest bucket's plan. Where the device limits
	                               * a buffer there are several arenas, each as the bucket that needs most of it */
	uint64_t arena_lower_bound;   /* peak of bytes alive at once: no plan can be smaller */
	uint64_t arena_unshared;      /* what the arena would be if no two tensors shared bytes */
	uint64_t io_bytes;            /* input and output tensors */
	uint32_t weight_storages;     /* number of distinct base weight storages */
	uint32_t weight_uses;         /* number of uses of them by steps */
	uint32_t packed_storages;     /* of them, those that lie in a layout of the device's */
	uint64_t padding_bytes;       /* of packed_bytes: rows and columns that these are filled up with */
} knit_memory;

knit_status knit_program_memory(const knit_program *p, knit_memory *out);
/* The number of steps that run in bucket `bucket` (0-based). 0 for a bucket that does not exist. */
size_t knit_program_step_count(const knit_program *p, size_t bucket);
/* The device's id ("cpu"). */
const char *knit_program_device(const knit_program *p);

/* Zero means default where a comment says so. */
typedef struct knit_report_desc {
	int64_t context; /* positions that a row of attention sees in decode; default: the cells of the largest state */
	int64_t prompt;  /* tokens (of the buckets' symbol) in the prompt of prefill, at most 2^17; default: one whole run */
} knit_report_desc;

/* Writes all there is to know of a program, as one JSON object in pieces: memory, storages with their uses, and per
 * bucket the steps with the parts of fused ones, their FLOP and bytes, and the places and lifetimes of activations; the
 * sums for one token of decode and for a prompt. Schema "knit.report/1", described in frontends/README.md. ARGUMENT, or MEMORY:
 * what was written until then is no JSON. */
knit_status knit_program_report(const knit_program *p, const knit_report_desc *desc,
                                void (*write)(void *user, const char *text, size_t bytes), void *user);

/* ---- running ----------------------------------------------------------------------------------------------------- */

knit_status knit_session_create(knit_program *p, knit_session **out, knit_diag *diag);
void knit_session_destroy(knit_session *s);
/* Symbols start at their lower bound. LIMIT outside [lo, hi]. */
knit_status knit_session_set(knit_session *s, const char *symbol, int64_t value);
/* Copies the whole input; `bytes` must be its size at the symbols' values when the session runs. */
knit_status knit_session_write(knit_session *s, const char *input, const void *data, size_t bytes);
/* Checks symbols, inputs and every index (ids, seq, pos) before any work, then runs to the end. A failure during the
 * work leaves the states unknown: the session answers STATE until knit_session_reset_states. */
knit_status knit_session_run(knit_session *s);
/* `bytes` must be the output's size at the symbols' values of the last run. */
knit_status knit_session_read(knit_session *s, const char *output, void *data, size_t bytes);
knit_status knit_session_reset_states(knit_session *s);

/* States outlive a session in a file: a context that was computed once (a prompt cache).
 *
 * Writes what the first used[i] positions of sequence i have left in every state, for i < sequences, and a note of the
 * caller's (the tokens, say; at most 256 MiB). The file appears under `path` when it is complete, replacing what was there;
 * on failure, or if the process is killed, what was there stays. Errors: ARGUMENT (no states, more sequences or positions
 * than they have, path no plain file), STATE (states unknown after a failed run), IO, MEMORY. */
knit_status knit_session_save_states(knit_session *s, const char *path, const int64_t *used, size_t sequences,
                                     const void *note, size_t note_bytes);
/* Brings them back. The session's program must compute the same: the same graph over the same weights (adapters that are
 * bound among them), whatever the device, the passes, the number of sequences and the length of the context, as long as they
 * suffice. Other sequences and positions are zero afterwards. used[0 .. sequences) becomes what was given when saving, 0 for
 * sequences that were not saved. note (NULL: not wanted) has room for *note_bytes, which becomes the note's size.
 * Errors, after each of which the session is as it was: NOT_FOUND, IO, FORMAT (another kind of file, cut, damaged),
 * ARGUMENT (saved by another model, adapter or state layout), LIMIT (more positions, sequences or note than there is room
 * for). Only a device or disk that fails while rows are copied leaves the states unknown. */
knit_status knit_session_load_states(knit_session *s, const char *path, int64_t *used, size_t sequences, void *note,
                                     size_t *note_bytes);
/* What went wrong in the last call on this session. */
void knit_session_diag(const knit_session *s, knit_diag *out);

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* A program's adapter weights (knit_adapter) taken from another store: immutable, shareable between sessions and
 * threads. It keeps the program and the store. */
typedef struct knit_adapter_set knit_adapter_set;

/* Finds every adapter weight of the program by its name in the store and places it on the program's device; whatever
 * else the store holds is passed over. All the work is done here: binding does none. Errors: NOT_FOUND with the name;
 * SHAPE with the name, what was found and what was needed; ARGUMENT where the program has no adapter weights; STATE where
 * it was compiled with plan_only; MEMORY. */
knit_status knit_adapter_open(knit_program *p, knit_weights *store, knit_adapter_set **out, knit_diag *diag);
void knit_adapter_release(knit_adapter_set *a);

/* From the next run on the session computes with these weights; NULL: with those that the program was compiled with.
 * Pointers are exchanged, in microseconds: nothing is compiled, allocated, packed or uploaded. States stay as they are
 * (what another adapter put into them too). The session keeps the set while it is bound. ARGUMENT for a set of another
 * program. */
knit_status knit_session_bind_adapter(knit_session *s, knit_adapter_set *a);

/* Copies the store's tensors to place `slot` of every knit_adapter_slots of the program (this session's; the store is
 * not kept); NULL: zeros. Errors as of knit_adapter_open, before anything is copied; ARGUMENT for slot 0, which stays
 * zero, and for a slot that is not there. */
knit_status knit_session_fill_adapter_slot(knit_session *s, int64_t slot, knit_weights *store);

/* What writing, running, reading, resetting, binding and filling slots have done since the session was made. */
typedef struct knit_counters {
	uint64_t runs;        /* that succeeded */
	uint64_t binds;       /* of adapters */
	uint64_t slots;       /* filled */
	uint64_t allocations; /* asked of the context's allocator */
	uint64_t buffers;     /* made on the device */
	uint64_t packs;       /* weights brought into a kernel's layout */
	uint64_t uploads;     /* weights copied to the device; inputs do not count */
} knit_counters;

void knit_session_counters(const knit_session *s, knit_counters *out);

/* ---- planning bare blocks ---------------------------------------------------------------------------------------- */

/* Bytes that are needed from step `first` to step `last`, both included. */
typedef struct knit_block { uint64_t bytes; uint32_t first, last; uint64_t offset; } knit_block;

typedef struct knit_block_plan {
	uint64_t peak;        /* bytes that the placement needs */
	uint64_t lower_bound; /* the largest sum of (aligned) bytes alive at one step: no placement can need less */
	uint64_t greedy;      /* what the greedy orders reach, before the exact search */
	uint64_t in_order;    /* what placing in the order of `first`, each into the best gap, would need: common practice */
	uint64_t unshared;    /* the sum of all (aligned) bytes */
	uint64_t search_work; /* spent by the exact search, in looked-at blocks; 0: it was not needed */
	bool optimal;         /* proven: no placement needs less than `peak` */
} knit_block_plan;

/* Gives each block an offset, a multiple of align (a power of two), so that no two that are needed at one step share a
 * byte and the peak is low: what knit_compile does with activations, for anybody's blocks. The same blocks get the same
 * offsets on every machine. Takes seconds at most, milliseconds where a greedy order meets the lower bound. Errors:
 * ARGUMENT (first > last, align), LIMIT (2^60 bytes), MEMORY. */
knit_status knit_plan_blocks(knit_context *ctx, knit_block *blocks, size_t count, uint64_t align, knit_block_plan *out,
                             knit_diag *diag);

#ifdef __cplusplus
}
#endif
#endif
