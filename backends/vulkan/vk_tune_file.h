/* Owns the file that keeps what `knit tune` measured on a device. */
#ifndef KNIT_VK_TUNE_FILE_H
#define KNIT_VK_TUNE_FILE_H

#include "vk_probe.h"

typedef enum knit_vk_tuning_source {
	KNIT_VK_TUNING_TABLE,   /* no file, or no folder for one */
	KNIT_VK_TUNING_FILE,
	/* There is a file, and it is ignored: damaged; of another device, driver or knit; beyond the device's limits. */
	KNIT_VK_TUNING_DAMAGED,
	KNIT_VK_TUNING_FOREIGN,
	KNIT_VK_TUNING_UNFIT,
} knit_vk_tuning_source;

/* Where it lies, by the device's UUID and the driver's version; false where there is no folder for it. */
bool knit__vk_tuning_path(const knit_vk_probe *p, char *out, size_t size);
/* The choices for a device: the file's where it is sound, else the table's. */
knit_vk_tuning_source knit__vk_tuning_load(const knit_vk_probe *p, knit_vk_tuning *out);
/* Replaces the file as a whole; false where that cannot be. */
bool knit__vk_tuning_save(const knit_vk_probe *p, const knit_vk_tuning *t);
/* "measured", "from the table; the file is damaged" ... */
const char *knit__vk_tuning_source_text(knit_vk_tuning_source source);

#endif
