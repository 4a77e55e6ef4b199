/* Owns the names that kernels in plain C get where they are compiled for any processor. */
#ifndef KNIT_KERNELS_VARIANT_H
#define KNIT_KERNELS_VARIANT_H

#define KNIT_VARIANT(op) knit__##op##_plain
#define KNIT_VARIANT_NAME(op) op
#define KNIT_VARIANT_ISA KNIT_CPU_PLAIN

#endif
