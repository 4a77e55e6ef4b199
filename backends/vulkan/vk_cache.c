/* Owns the file that keeps a driver's compiled pipelines between runs: where it lies, whether what it holds is sound and
 * this driver's, replacing it. Knows nothing of what is inside. */
#include "vk_cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A driver may trust what it is given, so damage is found before it sees anything. */
#define MAGIC UINT64_C(0x31504b5654494e4b) /* "KNITVKP1" */
#define MAX_BYTES (UINT64_C(1) << 30)
/* Of the header that Vulkan prescribes: bytes, version, vendor, device, 16 bytes of the driver's identity. */
#define DRIVER_HEADER 32

typedef struct file_header { uint64_t magic, bytes, hash, unused; } file_header;

/* ---- where ------------------------------------------------------------------------------------------------------- */

bool knit__vk_cache_folder(char *out, size_t size) {
	const char *const own = getenv("KNIT_CACHE"), *const cache = getenv("XDG_CACHE_HOME"), *const home = getenv("HOME");
	int n = -1;

	if (own)
		n = snprintf(out, size, "%s", own);
	else if (cache && cache[0] == '/')
		n = snprintf(out, size, "%s/knit", cache);
	else if (home && home[0] == '/')
		n = snprintf(out, size, "%s/.cache/knit", home);
	return n > 0 && (size_t)n < size;
}

bool knit__vk_cache_path(const knit_device *dev, char *out, size_t size) {
	const VkPhysicalDeviceProperties *const p = &dev->properties;
	char at[512];

	if (!knit__vk_cache_folder(at, sizeof at))
		return false;
	const uint64_t driver = knit__hash(KNIT__HASH_SEED, p->pipelineCacheUUID, sizeof p->pipelineCacheUUID);
	const int n = snprintf(out, size, "%s/vulkan-%04x-%04x-%016llx.pipelines", at, (unsigned)p->vendorID,
	                       (unsigned)p->deviceID, (unsigned long long)driver);
	return n > 0 && (size_t)n < size;
}

/* All folders above the file. */
static void make_folders(const char *path) {
	char at[640];

	snprintf(at, sizeof at, "%s", path);
	for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(at, 0700) != 0 && errno != EEXIST)
			return;
		*slash = '/';
	}
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static uint32_t word(const unsigned char *p) {
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

/* Drivers are said to check this themselves; not all have. */
static bool of_this_driver(const knit_device *dev, const unsigned char *data, uint64_t bytes) {
	const VkPhysicalDeviceProperties *const p = &dev->properties;

	return bytes >= DRIVER_HEADER && word(data) >= DRIVER_HEADER && word(data) <= bytes &&
	       word(data + 4) == VK_PIPELINE_CACHE_HEADER_VERSION_ONE && word(data + 8) == p->vendorID &&
	       word(data + 12) == p->deviceID && memcmp(data + 16, p->pipelineCacheUUID, VK_UUID_SIZE) == 0;
}

void *knit__vk_cache_load(const knit_device *dev, size_t *bytes) {
	char path[640];
	file_header h;
	void *data = NULL;

	*bytes = 0;
	if (!knit__vk_cache_path(dev, path, sizeof path))
		return NULL;
	FILE *const f = fopen(path, "rb");
	if (!f)
		return NULL;
	if (fread(&h, sizeof h, 1, f) == 1 && h.magic == MAGIC && h.bytes >= DRIVER_HEADER && h.bytes <= MAX_BYTES)
		data = knit__alloc(&dev->a, (size_t)h.bytes);
	const bool sound = data && fread(data, 1, (size_t)h.bytes, f) == h.bytes && fgetc(f) == EOF &&
	                   knit__hash(KNIT__HASH_SEED, data, (size_t)h.bytes) == h.hash && of_this_driver(dev, data, h.bytes);
	fclose(f);
	if (!sound) {
		if (data)
			knit__free(&dev->a, data, (size_t)h.bytes);
		return NULL;
	}
	*bytes = (size_t)h.bytes;
	return data;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

bool knit__vk_cache_replace(const char *path, const void *head, size_t head_bytes, const void *data, size_t bytes) {
	char beside[704];

	make_folders(path);
	/* A name of its own: two processes, or two devices of one, may save at once. */
	snprintf(beside, sizeof beside, "%s.XXXXXX", path);
	const int fd = mkstemp(beside);
	FILE *const f = fd >= 0 ? fdopen(fd, "wb") : NULL;
	if (!f) {
		if (fd >= 0) {
			close(fd);
			unlink(beside);
		}
		return false;
	}
	bool ok = fwrite(head, 1, head_bytes, f) == head_bytes && fwrite(data, 1, bytes, f) == bytes;
	ok = fclose(f) == 0 && ok;
	if (ok && rename(beside, path) == 0)
		return true;
	unlink(beside);
	return false;
}

void knit__vk_cache_save(const knit_device *dev, const void *data, size_t bytes) {
	char path[640];
	const file_header h = {.magic = MAGIC, .bytes = bytes, .hash = knit__hash(KNIT__HASH_SEED, data, bytes)};

	if (bytes >= DRIVER_HEADER && bytes <= MAX_BYTES && knit__vk_cache_path(dev, path, sizeof path))
		knit__vk_cache_replace(path, &h, sizeof h, data, bytes);
}
