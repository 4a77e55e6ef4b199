/* Owns the file that keeps a driver's compiled pipelines between runs. */
#ifndef KNIT_VK_CACHE_H
#define KNIT_VK_CACHE_H

#include "vk.h"

/* What an earlier run left for this device and driver: *bytes of them, the caller's to free with knit__free and that
 * size. NULL where there is nothing or nothing sound: the file is only there to save time. */
void *knit__vk_cache_load(const knit_device *dev, size_t *bytes);
/* Replaces the file as a whole, or leaves it as it is: nobody ever reads half of one. Says nothing of failures. */
void knit__vk_cache_save(const knit_device *dev, const void *data, size_t bytes);
/* Where the file lies; false where there is no folder for it (KNIT_CACHE is empty, or there is no home). */
bool knit__vk_cache_path(const knit_device *dev, char *out, size_t size);

/* The folder of this and other files that are only there to save time; false as above. */
bool knit__vk_cache_folder(char *out, size_t size);
/* A file of head and then data in one step, with the folders above it: others see the old one or the new one. */
bool knit__vk_cache_replace(const char *path, const void *head, size_t head_bytes, const void *data, size_t bytes);

#endif
