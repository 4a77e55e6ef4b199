/* Owns the names that kernels in plain C get where they are compiled for AVX2. */
#ifndef KNIT_KERNELS_VARIANT_H
#define KNIT_KERNELS_VARIANT_H

#define KNIT_VARIANT(op) knit__##op##_avx2
#define KNIT_VARIANT_NAME(op) op "_avx2"
#define KNIT_VARIANT_ISA KNIT_CPU_AVX2

#endif
