// Owns loops that do one thing each, as fast as a device can: read, copy, or multiply and add in f32, f16, 8-bit integers or
// matrices. What the bench holds kernels against; no op uses them (backends/vulkan/vk_peaks.c says what they must give).
//
// Nothing is known when this is compiled: factors are parameters, so that no loop becomes a formula. Sums are 32 numbers of
// each invocation that do not wait for one another.
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#ifdef DOT
#extension GL_EXT_spirv_intrinsics : require
#endif
#ifdef MATRIX
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix : require
#pragma use_vulkan_memory_model
#endif
#include "common/group.glsl"
#include "params/peak.h"

KNIT_PARAMS { knit_peak_params p; };

uint me() { return knit_group() * knit_width() + knit_lane(); }

#if defined(READ)

KNIT_IN(1) x_buffer { uvec4 x[]; };
KNIT_OUT(2) out_buffer { uint result[]; };

void main() {
	uint at = knit_group() * p.group_step + knit_lane();
	uvec4 a = uvec4(0), b = a, c = a, d = a;

	for (uint i = 0; i < p.repeat; i += 4) {
		a += x[at & p.mask];
		b += x[(at + p.step) & p.mask];
		c += x[(at + 2 * p.step) & p.mask];
		d += x[(at + 3 * p.step) & p.mask];
		at += 4 * p.step;
	}
	a += b + c + d;
	result[me()] = a.x + a.y + a.z + a.w;
}

#elif defined(COPY)

KNIT_IN(1) x_buffer { uvec4 x[]; };
KNIT_OUT(2) out_buffer { uvec4 result[]; };

void main() {
	uint at = knit_group() * p.group_step + knit_lane();

	for (uint i = 0; i < p.repeat; ++i) {
		result[at & p.mask] = x[at & p.mask];
		at += p.step;
	}
}

#elif defined(MATRIX)

// A subgroup's sums are 8 matrices. M, N and K by these numbers: see linear_coop.comp.
layout(constant_id = 8) const uint M = 16;
layout(constant_id = 9) const uint N = 16;
layout(constant_id = 10) const uint K = 16;

KNIT_OUT(1) out_buffer { float result[]; };

const uint SUMS = 8, MOST = 1024; // elements of a matrix, two to a word
shared uint stage[MOST / 2];
shared float ends[MOST];

void main() {
	fcoopmatNV<16, gl_ScopeSubgroup, M, K> x;
	fcoopmatNV<16, gl_ScopeSubgroup, K, N> y;
	fcoopmatNV<32, gl_ScopeSubgroup, M, N> acc[SUMS];

	for (uint i = knit_lane(); i < MOST / 2; i += knit_width())
		stage[i] = p.x;
	barrier();
	coopMatLoadNV(x, stage, 0, K / 2, false);
	coopMatLoadNV(y, stage, 0, N / 2, false);
	[[unroll]] for (uint k = 0; k < SUMS; ++k)
		acc[k] = fcoopmatNV<32, gl_ScopeSubgroup, M, N>(0);
	for (uint i = 0; i < p.repeat; ++i)
		[[unroll]] for (uint k = 0; k < SUMS; ++k)
			acc[k] = coopMatMulAddNV(x, y, acc[k]);
	[[unroll]] for (uint k = 1; k < SUMS; ++k)
		acc[0] += acc[k];
	coopMatStoreNV(acc[0], ends, 0, N, false);
	barrier();
	result[me()] = ends[knit_lane() % (M * N)];
}

#elif defined(DOT)

// OpSDot of four 8-bit integers in a word each; format 0: packed.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int sdot_4x8(uint a, uint b, spirv_literal int format);

KNIT_OUT(1) out_buffer { uint result[]; };

// A factor is the sum itself: equal products would be one that is computed before the loop.
#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7) what(8) what(9) what(10) what(11) what(12) \
	what(13) what(14) what(15) what(16) what(17) what(18) what(19) what(20) what(21) what(22) what(23) what(24) what(25) \
	what(26) what(27) what(28) what(29) what(30) what(31)
#define BEGIN(k) uint a##k = p.seed + k;
#define STEP(k) a##k += uint(sdot_4x8(a##k, p.x, 0));
#define END(k) sum += a##k;

void main() {
	uint sum = 0;

	EACH(BEGIN)
	for (uint i = 0; i < p.repeat; ++i) {
		EACH(STEP)
	}
	EACH(END)
	result[me()] = sum;
}

#else

KNIT_OUT(1) out_buffer { float result[]; };

#ifdef HALF
#define VECTOR f16vec2
#define NUMBER float16_t
#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7) what(8) what(9) what(10) what(11) what(12) \
	what(13) what(14) what(15)
#define PARTS(v) (float((v).x) + float((v).y))
#else
#define VECTOR vec4
#define NUMBER float
#define EACH(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
#define PARTS(v) ((v).x + (v).y + (v).z + (v).w)
#endif
#define BEGIN(k) VECTOR a##k = VECTOR(NUMBER(p.seed + k));
#define STEP(k) a##k = fma(a##k, x, y);
#define END(k) sum += PARTS(a##k);

void main() {
	const VECTOR x = VECTOR(NUMBER(uintBitsToFloat(p.x))), y = VECTOR(NUMBER(uintBitsToFloat(p.y)));
	float sum = 0;

	EACH(BEGIN)
	for (uint i = 0; i < p.repeat; ++i) {
		EACH(STEP)
	}
	EACH(END)
	result[me()] = sum;
}

#endif
