/* Owns what is said of a device's own limits, as loops that do nothing else find them. */
#ifndef KNIT_PEAKS_H
#define KNIT_PEAKS_H

#include "knit.h"

enum { KNIT_PEAK_SIZES = 4 };

/* Per second: bytes, and operations (a multiplication and an addition are two). 0: the device cannot, or it was not measured. */
typedef struct knit_device_peaks {
	uint32_t size_count;
	uint64_t bytes[KNIT_PEAK_SIZES]; /* that are gone over again and again; the last is far beyond any cache */
	double read[KNIT_PEAK_SIZES], copy[KNIT_PEAK_SIZES]; /* a copied byte counts once */
	double f32, f16, int8; /* int8: products of bytes summed to 32 bits, four at once */
	double matrix;         /* f16 matrices with f32 sums, by the units that the device has for them */
	char missing[200];     /* what it cannot, in words; may be empty */
} knit_device_peaks;

/* Takes about a second. UNSUPPORTED: the backend has no such loops; NOT_FOUND; DEVICE also where a loop gave a wrong result. */
knit_status knit__device_peaks(knit_context *ctx, const char *id, knit_device_peaks *out, knit_diag *d);

#endif
