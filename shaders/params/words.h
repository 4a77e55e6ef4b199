/* Owns the words of parameter blocks. A block is one struct of 32-bit words, read by C and GLSL alike: arrays are of
 * words (never of vectors), and nothing in it needs padding. */
#ifndef KNIT_PARAMS_WORDS_H
#define KNIT_PARAMS_WORDS_H

#ifndef VULKAN /* defined by every GLSL compiler for Vulkan */
#include <stdint.h>
typedef uint32_t uint;
#endif

#endif
