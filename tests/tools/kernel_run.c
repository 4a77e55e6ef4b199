#include "kernel_run.h"
#include "../../backends/cpu/cpu.h"
#include "../../backends/cpu/kernels/panels.h"
#include "../../ops/quant.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p) {
	if (!p)
		abort();
	return p;
}

static double random_in(uint64_t *state, double range) {
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return ((double)(*state >> 11) * 0x1p-53 * 2 - 1) * range;
}

static uint64_t bytes_for(knit_dtype dtype, int64_t elements) {
	uint64_t bytes = 0;

	if (!knit__dtype_bytes(dtype, (uint64_t)elements, &bytes))
		abort();
	return bytes;
}

int64_t bench_count(const knit_cpu_tensor *t) {
	int64_t n = 1;

	for (int i = 0; i < t->rank; ++i)
		n *= t->dims[i];
	return n;
}

/* Strides with a gap between rows; returns the elements up to the last one. */
static int64_t layout(knit_cpu_tensor *t, knit_dtype dtype, int rank, const int64_t *dims, int64_t gap) {
	int64_t stride = 1, last = 1;

	t->dtype = dtype;
	t->rank = (uint8_t)rank;
	for (int i = rank - 1; i >= 0; --i) {
		t->dims[i] = dims[i];
		t->strides[i] = stride;
		last += (dims[i] - 1) * stride;
		stride *= dims[i];
		if (i == rank - 1)
			stride += gap;
	}
	return bench_count(t) ? last : 0;
}

static int64_t offset_of(const knit_cpu_tensor *t, int64_t element) {
	int64_t offset = 0;

	for (int i = t->rank - 1; i >= 0; --i) {
		offset += element % t->dims[i] * t->strides[i];
		element /= t->dims[i];
	}
	return offset;
}

static void fill(kernel_bench *b, knit_cpu_tensor *t, double range) {
	const int64_t n = t->dims[t->rank - 1], count = bench_count(t);
	double *const row = must(malloc((size_t)(n + 1) * sizeof *row));

	for (int64_t i = 0; i < count; i += n) {
		for (int64_t j = 0; j < n; ++j)
			row[j] = t->dtype == KNIT_I32 ? floor((random_in(&b->seed, 0.5) + 0.5) * range) : random_in(&b->seed, range);
		knit__encode(t->dtype, row, t->data + bytes_for(t->dtype, offset_of(t, i)), (uint64_t)n);
	}
	free(row);
}

void bench_in(kernel_bench *b, uint32_t i, knit_dtype dtype, int rank, const int64_t *dims, double range, int64_t gap,
              size_t shift) {
	bench_tensor *const in = &b->in[i];
	const int64_t elements = layout(&in->t, dtype, rank, dims, gap), block = knit__dtype_info(dtype)->block_elements;
	const uint64_t bytes = bytes_for(dtype, (elements + block - 1) / block * block);

	in->memory = must(malloc(bytes + shift ? bytes + shift : 1));
	in->t.data = in->memory + shift;
	memset(in->memory, 0xff, bytes + shift);
	if (bytes)
		fill(b, &in->t, range);
	if (b->in_count < i + 1)
		b->in_count = i + 1;
}

void bench_indices(kernel_bench *b, uint32_t i, int64_t n, const int32_t *values) {
	bench_in(b, i, KNIT_I32, 1, &n, 1, 0, 0);
	memcpy(b->in[i].t.data, values, (size_t)n * sizeof *values);
}

void bench_out(kernel_bench *b, knit_dtype dtype, int rank, const int64_t *dims) {
	b->out_bytes = bytes_for(dtype, layout(&b->out, dtype, rank, dims, 0));
	b->out_memory = must(malloc(b->out_bytes ? b->out_bytes : 1));
	b->out.data = b->out_memory;
}

void bench_out_state(kernel_bench *b) {
	b->out = b->in[0].t;
	b->out_bytes = bytes_for(b->out.dtype, bench_count(&b->out));
	b->writes_state = true;
}

void bench_out_more(kernel_bench *b, knit_dtype dtype, int rank, const int64_t *dims) {
	bench_tensor *const out = &b->more[b->more_count++];
	const uint64_t bytes = bytes_for(dtype, layout(&out->t, dtype, rank, dims, 0));

	out->memory = must(malloc(bytes ? bytes : 1));
	out->t.data = out->memory;
}

void bench_out_more_state(kernel_bench *b) {
	++b->more_count;
	b->more[b->more_count - 1] = (bench_tensor){.t = b->in[b->more_count].t};
}

void bench_pack(kernel_bench *b, uint32_t i) {
	bench_tensor *const in = &b->in[i];
	const int64_t rows = in->t.dims[0], columns = in->t.dims[1];

	free(in->packed);
	in->packed = must(aligned_alloc(64, knit__panels_bytes(in->t.dtype, rows, columns)));
	knit__panels_pack(in->t.dtype, rows, columns, in->t.data, in->packed, 0, (rows + KNIT_PANEL_ROWS - 1) / KNIT_PANEL_ROWS);
}

void bench_absent(kernel_bench *b, uint32_t i) {
	free(b->in[i].memory);
	free(b->in[i].packed);
	b->in[i] = (bench_tensor){0};
}

void bench_set(kernel_bench *b, uint32_t i, int64_t element, double value) {
	const knit_cpu_tensor *const t = &b->in[i].t;

	knit__encode(t->dtype, &value, t->data + bytes_for(t->dtype, offset_of(t, element)), 1);
}

void bench_free(kernel_bench *b) {
	for (uint32_t i = 0; i < b->in_count; ++i) {
		free(b->in[i].memory);
		free(b->in[i].packed);
	}
	for (uint32_t i = 0; i < b->more_count; ++i)
		free(b->more[i].memory);
	free(b->out_memory);
	*b = (kernel_bench){0};
}

double *bench_values(const knit_cpu_tensor *t) {
	const int64_t count = bench_count(t), n = t->rank ? t->dims[t->rank - 1] : 1;
	double *const out = must(malloc((size_t)(count + 1) * sizeof *out));

	if (knit__dtype_info(t->dtype)->is_block) {
		for (int64_t i = 0; i < count; i += n)
			knit__decode(t->dtype, t->data + bytes_for(t->dtype, offset_of(t, i)), out + i, (uint64_t)n);
		return out;
	}
	for (int64_t i = 0; i < count; ++i)
		knit__decode(t->dtype, t->data + bytes_for(t->dtype, offset_of(t, i)), out + i, 1);
	return out;
}

const float *bench_floats(const knit_cpu_tensor *t) { return (const float *)(const void *)t->data; }

void *bench_copy(const void *p, size_t bytes) {
	void *const c = must(malloc(bytes ? bytes : 1));

	memcpy(c, p, bytes);
	return c;
}

int64_t bench_whole(knit_dtype dtype, int64_t columns) {
	const int64_t block = knit__dtype_info(dtype)->block_elements;

	return (columns + block - 1) / block * block;
}

void bench_take_row(kernel_bench *one, const kernel_bench *all, int64_t r, const uint32_t *per_row, int count) {
	for (uint32_t i = 0; i < all->in_count; ++i)
		one->in[i].t = all->in[i].t;
	one->in_count = all->in_count;
	for (int i = 0; i < count; ++i) {
		knit_cpu_tensor *const t = &one->in[per_row[i]].t;

		if (!t->data)
			continue;
		t->data += r * t->strides[0] * 4;
		t->dims[0] = 1;
	}
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void view_of(const knit_cpu_tensor *t, knit_operand_view *v) {
	int64_t stride = 1;

	if (!t->data)
		return;
	*v = (knit_operand_view){.kind = KNIT_STORAGE_TEMP, .dtype = t->dtype, .rank = t->rank, .contiguous = true};
	v->rows_contiguous = t->rank == 0 || t->dims[t->rank - 1] == 1 || t->strides[t->rank - 1] == 1;
	for (int i = t->rank - 1; i >= 0; --i) {
		v->dims[i].v = t->dims[i];
		v->strides[i].v = t->strides[i];
		v->contiguous = v->contiguous && (t->dims[i] == 1 || t->strides[i] == stride);
		stride *= t->dims[i];
	}
	v->max_elements = (uint64_t)bench_count(t);
}

static void node_of(const kernel_bench *b, knit_node_view *node) {
	static const knit_graph empty;

	*node = (knit_node_view){.op = b->op,
	                         .in_count = (uint8_t)b->in_count,
	                         .out_count = (uint8_t)(1 + b->more_count),
	                         .graph = &empty};
	node->attr = b->attr;
	for (uint32_t i = 0; i < b->in_count; ++i) {
		view_of(&b->in[i].t, &node->in[i]);
		node->in[i].layout = b->in[i].packed ? KNIT_CPU_PANELS : 0;
	}
	view_of(&b->out, &node->out[0]);
	for (uint32_t i = 0; i < b->more_count; ++i)
		view_of(&b->more[i].t, &node->out[i + 1]);
}

bool bench_accepts(const kernel_bench *b, const knit_cpu_kernel *k) {
	knit_node_view node;

	node_of(b, &node);
	return k->accepts(&node);
}

/* What a kernel says that it reads lies in its weights; all units together read all of each weight that they read of. */
static void check_reads(const kernel_bench *b, const knit_cpu_kernel *k, const knit_cpu_step *s, int64_t units) {
	for (int64_t begin = 0, end = units; begin < end; begin += 1 + units / 7) {
		knit_cpu_read reads[KNIT_CPU_READS];
		const uint32_t count = k->reads(s, begin, end, reads);

		for (uint32_t i = 0; i < count; ++i) {
			bool found = false;
			for (uint32_t n = 1; n < b->in_count && !found; ++n) {
				const knit_cpu_tensor *const w = &b->in[n].t;
				const char *const data = s->in[n].data;
				if (w->rank != 2 || !data || reads[i].at < data)
					continue;
				const uint64_t bytes = b->in[n].packed ? knit__panels_bytes(w->dtype, w->dims[0], w->dims[1])
				                                       : bytes_for(w->dtype, w->dims[0] * w->strides[0]);
				const uint64_t at = (uint64_t)(reads[i].at - data);
				found = at < bytes && (uint64_t)reads[i].bytes == bytes - at && (begin > 0 || at == 0);
				found = found || (at < bytes && begin > 0 && (uint64_t)reads[i].bytes <= bytes - at);
			}
			if (!found)
				abort();
		}
	}
}

void bench_run(kernel_bench *b, const knit_cpu_kernel *k, int64_t piece, uint32_t threads) {
	knit_cpu_step s = {.attr = b->attr, .threads = threads};
	knit_node_view node;
	void *memory = NULL;

	node_of(b, &node);
	for (uint32_t i = 0; i < b->in_count; ++i) {
		s.in[i] = b->in[i].t;
		if (b->in[i].packed) {
			s.in[i].data = b->in[i].packed;
			s.in[i].layout = KNIT_CPU_PANELS;
		}
	}
	s.out[0] = b->out;
	if (!b->writes_state)
		memset(b->out.data, 0xff, b->out_bytes);
	for (uint32_t i = 0; i < b->more_count; ++i) {
		s.out[i + 1] = b->more[i].t;
		if (b->more[i].memory)
			memset(b->more[i].memory, 0xff, bytes_for(b->more[i].t.dtype, bench_count(&b->more[i].t)));
	}
	const uint64_t scratch = k->scratch ? k->scratch(&node, threads) : 0;
	if (scratch) {
		if (posix_memalign(&memory, 64, scratch))
			abort();
		memset(memory, 0xff, scratch);
		s.scratch = memory;
	}
	for (int p = 0; p < KNIT_CPU_PHASES && k->phases[p].run; ++p) {
		const int64_t units = k->phases[p].units(&s), step = piece ? piece : units;
		const int64_t pieces = step ? (units + step - 1) / step : 0;

		if (k->reads && (p + 1 == KNIT_CPU_PHASES || !k->phases[p + 1].run))
			check_reads(b, k, &s, units);
		for (uint32_t t = 0; k->phases[p].own && pieces > 0 && t < threads; ++t)
			k->phases[p].own(&s, t);
		for (int64_t i = pieces - 1; i >= 0; --i)
			k->phases[p].run(&s, i * step, (i + 1) * step < units ? (i + 1) * step : units, (uint32_t)(i % threads));
	}
	free(memory);
}

static knit_array reference_out(const knit_cpu_tensor *t, bool state) {
	knit_array out = {.dtype = t->dtype, .rank = t->rank};

	memcpy(out.dims, t->dims, sizeof out.dims);
	out.data = state ? bench_values(t) : must(malloc((size_t)(bench_count(t) + 1) * sizeof(double)));
	return out;
}

void bench_references(const kernel_bench *b, bool absolute, double *result[KNIT_MAX_OUT]) {
	knit_array in[KNIT_MAX_IN] = {0}, out[KNIT_MAX_OUT] = {0};

	for (uint32_t i = 0; i < b->in_count; ++i) {
		const knit_cpu_tensor *const t = &b->in[i].t;

		if (!t->data)
			continue;
		in[i] = (knit_array){.dtype = t->dtype, .rank = t->rank, .data = bench_values(t)};
		memcpy(in[i].dims, t->dims, sizeof in[i].dims);
		for (int64_t j = 0; absolute && j < bench_count(t); ++j)
			in[i].data[j] = fabs(in[i].data[j]);
	}
	out[0] = reference_out(&b->out, b->writes_state);
	for (uint32_t i = 0; i < b->more_count; ++i)
		out[i + 1] = reference_out(&b->more[i].t, !b->more[i].memory);
	knit__op(b->op)->eval(b->attr, in, b->in_count, out);
	for (uint32_t i = 0; i < b->in_count; ++i)
		free(in[i].data);
	for (uint32_t i = 0; i < KNIT_MAX_OUT; ++i)
		result[i] = out[i].data;
}

double *bench_reference(const kernel_bench *b, bool absolute) {
	double *out[KNIT_MAX_OUT];

	bench_references(b, absolute, out);
	for (uint32_t i = 1; i < KNIT_MAX_OUT; ++i)
		free(out[i]);
	return out[0];
}

const knit_cpu_kernel *bench_kernel(uint16_t op, size_t n) {
	const knit_cpu_isa isa = knit__cpu_isa_found();

	for (uint32_t i = 0; i < knit__cpu_kernel_count; ++i)
		if (knit__cpu_kernels[i]->op == op && knit__cpu_kernels[i]->isa <= isa && n-- == 0)
			return knit__cpu_kernels[i];
	return NULL;
}

const knit_cpu_kernel *bench_accepting(const kernel_bench *b, size_t n) {
	const knit_cpu_kernel *k;

	for (size_t i = 0; (k = bench_kernel(b->op, i)); ++i)
		if (bench_accepts(b, k) && n-- == 0)
			return k;
	return NULL;
}

const knit_cpu_kernel *bench_like(const kernel_bench *b, const knit_cpu_kernel *k) {
	const knit_cpu_kernel *other;

	for (size_t n = 0; (other = bench_accepting(b, n)); ++n)
		if (other->isa == k->isa || other->isa == KNIT_CPU_PLAIN)
			return other;
	ck_abort_msg("no kernel of the level of %s", k->name);
	return NULL;
}

double bench_quantising_bound(const double *x, const double *w, int64_t k) {
	double sum = 0;

	for (int64_t i = 0; i < k; i += 32) {
		double max = 0, products = 0;

		for (int64_t j = i; j < i + 32; ++j) {
			max = fmax(max, fabs(x[j]));
			products += fabs(w[j]);
		}
		sum += products * max / 254 * 1.0001;
	}
	return sum;
}
