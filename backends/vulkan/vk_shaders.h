/* Owns the look of the embedded shaders: a list sorted by name, made from shaders/variants.cmake when knit is built. */
#ifndef KNIT_VK_SHADERS_H
#define KNIT_VK_SHADERS_H

#include <stddef.h>
#include <stdint.h>

typedef struct knit_vk_shader {
	const char *name;
	const uint32_t *code; /* SPIR-V, entry point "main" */
	size_t code_bytes;
	uint32_t needs; /* KNIT_VK_* of vk_kernel.h */
} knit_vk_shader;

extern const knit_vk_shader knit__vk_shaders[];
extern const uint32_t knit__vk_shader_count;
/* NULL if there is none of that name. */
const knit_vk_shader *knit__vk_shader_find(const char *name);

#endif
