/* Owns the views: reshape, slice, transpose, split_heads, merge_heads. A view is a value on the bytes of another, never
 * a node; only where strides cannot express it, a copy node goes before it. */
#include "op_util.h"

#include <string.h>

static const knit_tensor none = {0};

/* A view under construction, so that values may move while it is made. */
typedef struct window {
	knit_value v;
	uint32_t of;
} window;

static bool begin(knit_graph *g, const char *op, knit_tensor x, window *w) {
	if (!knit__op_usable(g) || !knit__op_check_operand(g, op, "x", x))
		return false;
	w->v = *knit__value(g, x.id);
	w->of = x.id;
	return true;
}

static knit_tensor finish(knit_graph *g, const window *w) {
	return (knit_tensor){knit__view_add(g, w->of, w->v.rank, w->v.dims, w->v.strides, w->v.offset)};
}

/* The same elements in a storage of their own. */
static bool make_contiguous(knit_graph *g, window *w) {
	const knit_tensor copy = knit__build(g, KNIT_OP_COPY, 1, &w->of, NULL);

	if (!copy.id)
		return false;
	w->v = *knit__value(g, copy.id);
	w->of = copy.id;
	return true;
}

/* Expressions report to a diagnostic of their own; the graph's error names the op. */
static bool expr_ok(knit_graph *g, const char *op, const knit_diag *d) {
	if (d->status == KNIT_OK)
		return true;
	knit__build_fail(g, op, d->status, "%s", d->text);
	return false;
}

typedef struct dims_text {
	char text[160];
} dims_text;

static dims_text text_of(const knit_graph *g, int rank, const knit_dim *dims) {
	knit_text list = {.a = g->a};
	dims_text t = {"[]"};

	for (int i = 0; i < rank; ++i) {
		char dim[64];

		knit__dim_text(&g->exprs, &g->strings, dims[i], dim, sizeof dim);
		knit__text_add(&list, "%s%s", i ? ", " : "[", dim);
	}
	knit__text_add(&list, "]");
	if (list.data && rank > 0)
		strncpy(t.text, list.data, sizeof t.text - 1);
	knit__text_clear(&list);
	return t;
}

static bool dim_valid(const knit_graph *g, knit_dim d) {
	return d.v >= 0 || knit__expr_get(&g->exprs, d) != NULL;
}

/* ---- reshape ----------------------------------------------------------------------------------------------------- */

/* A number of elements: number * the product of expressions that share no factor among their own terms. */
typedef struct product {
	int64_t number;
	int count;
	knit_expr factor[KNIT_MAX_RANK];
} product;

static int64_t common_divisor(int64_t a, int64_t b) {
	while (b != 0) {
		const int64_t r = a % b;
		a = b;
		b = r;
	}
	return a < 0 ? -a : a;
}

/* False on overflow. */
static bool product_of(const knit_exprs *e, int rank, const knit_dim *dims, product *out) {
	*out = (product){.number = 1};
	for (int i = 0; i < rank; ++i) {
		const knit_expr *x = knit__expr_get(e, dims[i]);

		if (!x) {
			if (!knit__mul_i64(out->number, dims[i].v, &out->number))
				return false;
			continue;
		}
		knit_expr *f = &out->factor[out->count++];
		int64_t divisor = x->k0;

		*f = *x;
		for (int t = 0; t < f->terms; ++t)
			divisor = common_divisor(divisor, f->k[t]);
		f->k0 /= divisor;
		for (int t = 0; t < f->terms; ++t)
			f->k[t] /= divisor;
		if (!knit__mul_i64(out->number, divisor, &out->number))
			return false;
	}
	return true;
}

static bool factor_equal(const knit_expr *a, const knit_expr *b) {
	bool equal = a->k0 == b->k0 && a->terms == b->terms;

	for (int t = 0; equal && t < a->terms; ++t)
		equal = a->k[t] == b->k[t] && a->sym[t] == b->sym[t];
	return equal;
}

/* Equal for all values of the symbols. Sufficient, not necessary: (n+1)(n+1) never meets n(n+2)+1 in affine dims. */
static bool product_equal(product a, product b) {
	if (a.number != b.number)
		return false;
	if (a.number == 0)
		return true;
	if (a.count != b.count)
		return false;
	for (int i = 0; i < a.count; ++i) {
		int j = 0;

		while (j < b.count && !factor_equal(&a.factor[i], &b.factor[j]))
			++j;
		if (j == b.count)
			return false;
		b.factor[j] = b.factor[--b.count];
	}
	return true;
}

/* Strides for dims without gaps, with errors that name the op. */
static bool contiguous_strides(knit_graph *g, const char *op, int rank, const knit_dim *dims, knit_dim *strides) {
	knit_diag d = {0};
	knit_dim stride = {1};

	for (int i = rank - 1; i >= 0 && d.status == KNIT_OK; --i) {
		strides[i] = stride;
		if (i > 0)
			knit__expr_product(&g->exprs, stride, dims[i], &stride, &d);
	}
	return expr_ok(g, op, &d);
}

static bool same_shape(const knit_value *v, int rank, const knit_dim *dims) {
	bool same = v->rank == rank;

	for (int i = 0; same && i < rank; ++i)
		same = knit__dim_equal(v->dims[i], dims[i]);
	return same;
}

static bool check_reshape(knit_graph *g, const knit_value *v, int rank, const knit_dim *dims) {
	const knit_dtype_info *info = knit__dtype_info(v->dtype);
	product from, to;

	if (rank < 1 || rank > KNIT_MAX_RANK || !dims) {
		knit__build_fail(g, "reshape", KNIT_ERR_ARGUMENT, "rank %d, needs 1 to %d", rank, KNIT_MAX_RANK);
		return false;
	}
	for (int i = 0; i < rank; ++i) {
		if (dim_valid(g, dims[i]))
			continue;
		knit__build_fail(g, "reshape", KNIT_ERR_ARGUMENT, "dimension %d is no number and no expression of this graph",
						 i);
		return false;
	}
	if (!product_of(&g->exprs, v->rank, v->dims, &from) || !product_of(&g->exprs, rank, dims, &to)) {
		knit__build_fail(g, "reshape", KNIT_ERR_LIMIT, "%s to %s: the number of elements does not fit 64 bits",
						 text_of(g, v->rank, v->dims).text, text_of(g, rank, dims).text);
		return false;
	}
	if (!product_equal(from, to)) {
		knit__build_fail(g, "reshape", KNIT_ERR_SHAPE, "%s to %s: the numbers of elements differ",
						 text_of(g, v->rank, v->dims).text, text_of(g, rank, dims).text);
		return false;
	}
	if (info->is_block && (dims[rank - 1].v < 0 || dims[rank - 1].v % info->block_elements != 0)) {
		knit__build_fail(g, "reshape", KNIT_ERR_SHAPE,
						 "%s of %s: the innermost dimension is no multiple of the block of %u",
						 text_of(g, rank, dims).text, info->name, info->block_elements);
		return false;
	}
	return true;
}

knit_tensor knit_reshape(knit_graph *g, knit_tensor x, int rank, const knit_dim *dims) {
	window w;

	if (!begin(g, "reshape", x, &w) || !check_reshape(g, &w.v, rank, dims))
		return none;
	if (same_shape(&w.v, rank, dims))
		return x;
	if (!knit__value_contiguous(g, x.id) && !make_contiguous(g, &w))
		return none;
	w.v.rank = (uint8_t)rank;
	memcpy(w.v.dims, dims, (size_t)rank * sizeof *dims);
	if (!contiguous_strides(g, "reshape", rank, w.v.dims, w.v.strides))
		return none;
	return finish(g, &w);
}

/* ---- slice ------------------------------------------------------------------------------------------------------- */

/* Adds factor * d to a sum kept as one coefficient per symbol; false on overflow. */
static bool accumulate(const knit_exprs *e, knit_dim d, int64_t factor, int64_t *k0, int64_t *k) {
	const knit_expr *x = knit__expr_get(e, d);
	int64_t part;

	if (!x)
		return knit__mul_i64(d.v, factor, &part) && knit__add_i64(*k0, part, k0);
	if (!knit__mul_i64(x->k0, factor, &part) || !knit__add_i64(*k0, part, k0))
		return false;
	for (int t = 0; t < x->terms; ++t)
		if (!knit__mul_i64(x->k[t], factor, &part) || !knit__add_i64(k[x->sym[t]], part, &k[x->sym[t]]))
			return false;
	return true;
}

/* Whether begin + size <= dim for all values of the symbols. */
static bool inside(const knit_exprs *e, int64_t begin_at, knit_dim size, knit_dim dim) {
	int64_t k[KNIT_MAX_SYMBOLS] = {0}, lo, part;

	if (__builtin_sub_overflow(INT64_C(0), begin_at, &lo) || !accumulate(e, dim, 1, &lo, k) ||
		!accumulate(e, size, -1, &lo, k))
		return false;
	for (uint32_t s = 0; s < e->symbol_count; ++s)
		if (!knit__mul_i64(k[s], k[s] < 0 ? e->symbols[s].hi : e->symbols[s].lo, &part) ||
			!knit__add_i64(lo, part, &lo))
			return false;
	return lo >= 0;
}

static bool check_axis(knit_graph *g, const char *op, const knit_value *v, int axis) {
	if (axis >= 0 && axis < v->rank)
		return true;
	knit__build_fail(g, op, KNIT_ERR_ARGUMENT, "axis %d of %s, needs 0 to %d", axis, text_of(g, v->rank, v->dims).text,
					 v->rank - 1);
	return false;
}

knit_tensor knit_slice(knit_graph *g, knit_tensor x, int axis, int64_t begin_at, knit_dim size) {
	const knit_dtype_info *info;
	knit_diag d = {0};
	knit_dim moved;
	window w;

	if (!begin(g, "slice", x, &w) || !check_axis(g, "slice", &w.v, axis))
		return none;
	info = knit__dtype_info(w.v.dtype);
	if (!dim_valid(g, size)) {
		knit__build_fail(g, "slice", KNIT_ERR_ARGUMENT, "the size is no number and no expression of this graph");
		return none;
	}
	if (begin_at < 0 || !inside(&g->exprs, begin_at, size, w.v.dims[axis])) {
		char text[64];

		knit__dim_text(&g->exprs, &g->strings, size, text, sizeof text);
		knit__build_fail(g, "slice", KNIT_ERR_SHAPE, "%s elements from %lld on do not always lie in dimension %d of %s",
						 text, (long long)begin_at, axis, text_of(g, w.v.rank, w.v.dims).text);
		return none;
	}
	if (info->is_block && axis == w.v.rank - 1 &&
		(size.v < 0 || size.v % info->block_elements != 0 || begin_at % info->block_elements != 0)) {
		knit__build_fail(g, "slice", KNIT_ERR_SHAPE, "%lld elements from %lld on break a %s block of %u",
						 (long long)size.v, (long long)begin_at, info->name, info->block_elements);
		return none;
	}
	if (begin_at == 0 && knit__dim_equal(size, w.v.dims[axis]))
		return x;
	knit__expr_mul(&g->exprs, w.v.strides[axis], begin_at, &moved, &d);
	if (d.status == KNIT_OK)
		knit__expr_add(&g->exprs, w.v.offset, moved, &w.v.offset, &d);
	if (!expr_ok(g, "slice", &d))
		return none;
	w.v.dims[axis] = size;
	return finish(g, &w);
}

/* ---- transpose --------------------------------------------------------------------------------------------------- */

static void swap(knit_dim *a, knit_dim *b) {
	const knit_dim t = *a;
	*a = *b;
	*b = t;
}

knit_tensor knit_transpose(knit_graph *g, knit_tensor x, int axis_a, int axis_b) {
	window w;

	if (!begin(g, "transpose", x, &w) || !check_axis(g, "transpose", &w.v, axis_a) ||
		!check_axis(g, "transpose", &w.v, axis_b))
		return none;
	if (axis_a == axis_b)
		return x;
	if (knit__dtype_info(w.v.dtype)->is_block && (axis_a == w.v.rank - 1 || axis_b == w.v.rank - 1)) {
		knit__build_fail(g, "transpose", KNIT_ERR_SHAPE, "axes %d and %d of %s %s: blocks lie along the innermost axis",
						 axis_a, axis_b, knit_dtype_name(w.v.dtype), text_of(g, w.v.rank, w.v.dims).text);
		return none;
	}
	swap(&w.v.dims[axis_a], &w.v.dims[axis_b]);
	swap(&w.v.strides[axis_a], &w.v.strides[axis_b]);
	return finish(g, &w);
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

knit_tensor knit_split_heads(knit_graph *g, knit_tensor x, int64_t heads) {
	const knit_dtype_info *info;
	knit_diag d = {0};
	knit_dim stride;
	window w;

	if (!begin(g, "split_heads", x, &w))
		return none;
	const int last = w.v.rank - 1;
	const int64_t n = w.v.dims[last].v;
	if (w.v.rank >= KNIT_MAX_RANK) {
		knit__build_fail(g, "split_heads", KNIT_ERR_SHAPE, "x is %s of rank %d, needs rank 1 to %d",
						 text_of(g, w.v.rank, w.v.dims).text, w.v.rank, KNIT_MAX_RANK - 1);
		return none;
	}
	if (heads < 1 || n < 0 || n % heads != 0) {
		knit__build_fail(g, "split_heads", KNIT_ERR_SHAPE,
						 "x %s into %lld heads: needs an innermost multiple of the heads",
						 text_of(g, w.v.rank, w.v.dims).text, (long long)heads);
		return none;
	}
	info = knit__dtype_info(w.v.dtype);
	if (n / heads % info->block_elements != 0) {
		knit__build_fail(g, "split_heads", KNIT_ERR_SHAPE, "head_dim %lld breaks a %s block of %u",
						 (long long)(n / heads), info->name, info->block_elements);
		return none;
	}
	knit__expr_mul(&g->exprs, w.v.strides[last], n / heads, &stride, &d);
	if (!expr_ok(g, "split_heads", &d))
		return none;
	w.v.dims[last + 1].v = n / heads;
	w.v.strides[last + 1] = w.v.strides[last];
	w.v.dims[last].v = heads;
	w.v.strides[last] = stride;
	w.v.rank++;
	return finish(g, &w);
}

/* Whether the two innermost dimensions lie in memory as one, and the stride of that one. */
static bool heads_adjacent(knit_graph *g, const knit_value *v, knit_dim *stride) {
	const knit_dim heads = v->dims[v->rank - 2], dim = v->dims[v->rank - 1];
	knit_dim next;

	*stride = dim.v == 1 ? v->strides[v->rank - 2] : v->strides[v->rank - 1];
	return heads.v == 1 || dim.v == 1 ||
		   (knit__expr_product(&g->exprs, v->strides[v->rank - 1], dim, &next, NULL) == KNIT_OK &&
			knit__dim_equal(next, v->strides[v->rank - 2]));
}

knit_tensor knit_merge_heads(knit_graph *g, knit_tensor x) {
	knit_diag d = {0};
	knit_dim merged, stride;
	window w;

	if (!begin(g, "merge_heads", x, &w))
		return none;
	if (w.v.rank < 2) {
		knit__build_fail(g, "merge_heads", KNIT_ERR_SHAPE, "x is %s of rank %d, needs rank 2 to %d",
						 text_of(g, w.v.rank, w.v.dims).text, w.v.rank, KNIT_MAX_RANK);
		return none;
	}
	const int last = w.v.rank - 1;
	knit__expr_product(&g->exprs, w.v.dims[last - 1], w.v.dims[last], &merged, &d);
	if (!expr_ok(g, "merge_heads", &d))
		return none;
	if (!heads_adjacent(g, &w.v, &stride)) {
		if (!make_contiguous(g, &w))
			return none;
		stride = (knit_dim){1};
	}
	w.v.dims[last - 1] = merged;
	w.v.strides[last - 1] = stride;
	w.v.dims[last] = (knit_dim){0};
	w.v.strides[last] = (knit_dim){0};
	w.v.rank--;
	return finish(g, &w);
}
