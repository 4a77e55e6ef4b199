/* Owns the measuring of what a device can do at best. */
#ifndef KNIT_VK_PEAKS_H
#define KNIT_VK_PEAKS_H

#include "../peaks.h"
#include "vk.h"

knit_status knit__vk_peaks(uint32_t index, const knit_context_desc *host, knit_device_peaks *out, knit_diag *d);
/* The same of a device that is open. */
knit_status knit__vk_peaks_of(knit_device *dev, knit_device_peaks *out, knit_diag *d);

#endif
