/* Owns the contract between the Vulkan backend and its kernels: what a kernel is told, which dispatches it asks for, how
 * their parameters are filled. Knows no op by itself and calls nothing of Vulkan: kernels/ can be read and tested
 * without a driver. */
#ifndef KNIT_VK_KERNEL_H
#define KNIT_VK_KERNEL_H

#include "../../graph/schedule.h"
#include "vk_tuning.h"

/* What a device can do beyond the baseline (Vulkan 1.2, 8- and 16-bit storage, 16-bit floats and 8-bit integers in
 * arithmetic, subgroup basic, arithmetic and shuffle). shaders/variants.cmake names the same words in lower case. */
enum {
	KNIT_VK_DOT = 1,      /* integer dot product of 4 x 8 bit */
	KNIT_VK_COOPMAT = 2,  /* KHR cooperative matrix, f16 with f32 sums, subgroup scope: caps.matrix */
	KNIT_VK_SUBGROUP_CONTROL = 4, /* subgroup size can be required per pipeline */
};

typedef enum knit_vk_class { KNIT_VK_DISCRETE = 1, KNIT_VK_INTEGRATED, KNIT_VK_SOFTWARE } knit_vk_class;

/* m x k times k x n: what a subgroup multiplies at once. */
typedef struct knit_vk_matrix { uint32_t m, n, k; } knit_vk_matrix;

/* Limits as they hold for kernels: the driver's, or lower ones set through KNIT_VK_LIMITS. */
typedef struct knit_vk_caps {
	uint32_t features;
	uint32_t vendor; /* PCI id: 0x1002 AMD, 0x8086 Intel, 0x10de NVIDIA */
	knit_vk_class device_class;
	uint32_t subgroup, subgroup_min, subgroup_max; /* invocations; subgroup: what a pipeline gets unless it asks */
	uint32_t max_invocations, max_shared_bytes;    /* of a group */
	uint32_t max_groups;                           /* per axis; at most 65,535 is used */
	uint32_t storage_align;                        /* of a binding's first byte */
	uint64_t max_binding_bytes, max_allocation_bytes;
	knit_vk_matrix matrix;                         /* of KNIT_VK_COOPMAT; else 0 */
	knit_vk_tuning tuning; /* the table's, or what was measured on this device */
} knit_vk_caps;

/* An operand as a kernel sees it: numbers only. */
typedef struct knit_vk_tensor {
	bool present; /* false: absent optional operand */
	knit_dtype dtype;
	uint8_t rank, layout;
	int64_t dims[KNIT_MAX_RANK], strides[KNIT_MAX_RANK]; /* elements */
	int64_t offset;  /* elements from the storage's first byte, which is where a whole binding begins */
	uint64_t storage_bytes; /* what a whole binding covers, at the symbols' upper bounds */
} knit_vk_tensor;

typedef struct knit_vk_step {
	knit_vk_tensor in[KNIT_MAX_IN], out[KNIT_MAX_OUT];
	uint8_t in_count, out_count;
	const knit_attr *attr;
	uint64_t scratch_bytes;
} knit_vk_step;

/* What one storage-buffer binding of a dispatch shows. bytes 0: the whole storage; else a part of it, at a multiple of
 * caps.storage_align. ABSENT binds four bytes of zeros of this dispatch that nobody reads or writes. */
typedef enum knit_vk_source { KNIT_VK_ABSENT, KNIT_VK_IN, KNIT_VK_OUT, KNIT_VK_SCRATCH, KNIT_VK_TABLE } knit_vk_source;
typedef struct knit_vk_binding {
	knit_vk_source source;
	uint8_t index; /* of the operand */
	bool written;  /* the shader writes it: declared so that phases of a step can be ordered */
	uint64_t at, bytes;
} knit_vk_binding;

#define KNIT_VK_MAX_BINDINGS 20
#define KNIT_VK_MAX_SPEC 12
/* Bytes of the parameter block of one dispatch: a uniform block (std430) at set 0, binding 0. */
#define KNIT_VK_PARAM_BYTES 256

/* One dispatch of a step, asked for once, when the plan is made. Bindings are numbered from 1 in the order given;
 * spec[i] is specialization constant i, and spec[0] is local_size_x of every shader. */
typedef struct knit_vk_dispatch {
	const char *shader; /* a name in the table of variants */
	uint32_t spec[KNIT_VK_MAX_SPEC];
	uint8_t spec_count, binding_count;
	uint8_t subgroup;    /* 0: any size; else the size that the pipeline requires (KNIT_VK_SUBGROUP_CONTROL) */
	bool waits;          /* for the dispatches of this step before it */
	knit_vk_binding bindings[KNIT_VK_MAX_BINDINGS];
} knit_vk_dispatch;

typedef struct knit_vk_kernel {
	const char *name; /* "linear_matvec" */
	uint16_t op;
	uint32_t needs;   /* KNIT_VK_*: rows whose needs the device lacks are passed over */
	/* Whether it computes this node: types, ranks, strides, sizes against the limits. Pure. */
	bool (*accepts)(const knit_vk_caps *caps, const knit_node_view *node);
	/* Scratch bytes at the bucket's upper bounds; NULL: none. */
	uint64_t (*scratch)(const knit_vk_caps *caps, const knit_node_view *node);
	/* The dispatches of a step whose dims are at the bucket's upper bounds; how many, at most `cap`; 0: cannot. Called with
	 * the same step twice: first with out NULL, to count. */
	uint32_t (*plan)(const knit_vk_caps *caps, const knit_vk_step *step, knit_vk_dispatch *out, uint32_t cap);
	/* Parameters and group counts of dispatch `index` of those, with the dims of this run (never above the bounds): called when
	 * a symbol has changed, never per token otherwise. params is zeroed, KNIT_VK_PARAM_BYTES long. A group count of 0 in
	 * groups[0] skips it. */
	void (*fill)(const knit_vk_caps *caps, const knit_vk_step *step, uint32_t index, void *params, uint32_t groups[3]);
	/* Optional: a table of constants for the bindings KNIT_VK_TABLE, made once per plan: its bytes, and its filling. */
	uint64_t (*table_bytes)(const knit_vk_caps *caps, const knit_vk_step *step);
	void (*table_fill)(const knit_vk_caps *caps, const knit_vk_step *step, void *out);
} knit_vk_kernel;

/* The only list of kernels: kernel number n (1-based, as knit_kernel) is row n - 1. Fastest first: selection takes the
 * first row whose op, needs and accepts() fit. Defined in kernels/kernel_table.c. */
extern const knit_vk_kernel *const knit__vk_kernels[];
extern const uint32_t knit__vk_kernel_count;

/* ---- shared by kernels (kernels/util.c) -------------------------------------------------------------------------- */

/* `count` groups folded into x and y so that neither is above the limit. Shaders number them y * gl_NumWorkGroups.x + x
 * and let those at or above the count, which is a parameter, do nothing. */
void knit__vk_grid(const knit_vk_caps *caps, uint64_t count, uint32_t groups[3]);
/* The largest power of two that is at most `wanted` and at most the device's invocations per group. */
uint32_t knit__vk_local(const knit_vk_caps *caps, uint32_t wanted);

#endif
