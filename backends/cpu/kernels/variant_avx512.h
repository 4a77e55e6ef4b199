/* Owns the names that kernels in plain C get where they are compiled for AVX-512. */
#ifndef KNIT_KERNELS_VARIANT_H
#define KNIT_KERNELS_VARIANT_H

#define KNIT_VARIANT(op) knit__##op##_avx512
#define KNIT_VARIANT_NAME(op) op "_avx512"
#define KNIT_VARIANT_ISA KNIT_CPU_AVX512

#endif
