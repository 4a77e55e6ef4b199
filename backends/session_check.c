/* Owns the checks of index inputs before a run: an index outside its table would make a kernel read foreign memory, two
 * tokens for one cell of a state would make the result depend on who writes last. */
#include "session_check.h"

knit_status knit__check_indices(const int32_t *values, size_t count, int64_t bound, const char *input, const char *op,
                                const char *origin, knit_diag *d) {
	for (size_t i = 0; i < count; ++i) {
		if (values[i] >= 0 && values[i] < bound)
			continue;
		if (bound <= 0)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "input \"%.40s\"[%zu] is %d, but what it chooses from (%.20s at "
			                                           "%.60s) is empty in this run",
			                  input, i, values[i], op, origin);
		return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "input \"%.40s\"[%zu] is %d: %.20s at %.60s takes 0 to %lld", input, i,
		                  values[i], op, origin, (long long)bound - 1);
	}
	return KNIT_OK;
}

static inline uint64_t key(int32_t seq, int32_t pos) { return ((uint64_t)(uint32_t)seq << 32) | (uint32_t)pos; }

static void sift_down(uint64_t *keys, size_t at, size_t count) {
	const uint64_t moved = keys[at];

	for (size_t child; (child = 2 * at + 1) < count; at = child) {
		if (child + 1 < count && keys[child + 1] > keys[child])
			++child;
		if (keys[child] <= moved)
			break;
		keys[at] = keys[child];
	}
	keys[at] = moved;
}

/* Heapsort: in place, without allocation, and never quadratic. */
static void sort(uint64_t *keys, size_t count) {
	for (size_t i = count / 2; i-- > 0;)
		sift_down(keys, i, count);
	for (size_t end = count; end-- > 1;) {
		const uint64_t largest = keys[0];
		keys[0] = keys[end];
		keys[end] = largest;
		sift_down(keys, 0, end);
	}
}

static knit_status fail_pair(const int32_t *seq, const int32_t *pos, size_t count, uint64_t twice, const char *state,
                             knit_diag *d) {
	size_t first = 0;

	while (first < count && key(seq[first], pos[first]) != twice)
		++first;
	size_t second = first + 1;
	while (second < count && key(seq[second], pos[second]) != twice)
		++second;
	return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "tokens %zu and %zu both write cell (seq %d, pos %d) of state \"%.60s\": "
	                                           "each cell may be written once in a run",
	                  first, second, seq[first], pos[first], state);
}

/* The usual case: one sequence after the other, each in rising order. */
static bool rising(const int32_t *seq, const int32_t *pos, size_t count) {
	size_t i = 1;

	while (i < count && key(seq[i - 1], pos[i - 1]) < key(seq[i], pos[i]))
		++i;
	return i >= count;
}

static void fill_sorted(const int32_t *seq, const int32_t *pos, size_t count, uint64_t *keys) {
	for (size_t i = 0; i < count; ++i)
		keys[i] = key(seq[i], pos[i]);
	if (!rising(seq, pos, count))
		sort(keys, count);
}

knit_status knit__check_ring(const int32_t *seq, const int32_t *pos, size_t count, uint64_t *keys, int64_t sinks,
                             int64_t span, const char *op, const char *origin, knit_diag *d) {
	size_t first = 0;

	for (size_t i = 0; i < count; ++i) {
		if (pos[i] < 0)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "token %zu has position %d: %.20s at %.60s takes 0 and above", i,
			                  pos[i], op, origin);
	}
	fill_sorted(seq, pos, count, keys);
	for (size_t i = 0; i < count; ++i) {
		const int64_t low = (int64_t)(uint32_t)keys[first], high = (int64_t)(uint32_t)keys[i];

		if (keys[i] >> 32 != keys[first] >> 32 || low < sinks)
			first = i;
		else if (high - low > span)
			return knit__fail(d, KNIT_ERR_ARGUMENT, 0, "sequence %d has positions %lld and %lld in one run: the ring of "
			                                           "%.20s at %.60s takes at most %lld apart",
			                  (int)(keys[i] >> 32), (long long)low, (long long)high, op, origin, (long long)span);
	}
	return KNIT_OK;
}

knit_status knit__check_pairs(const int32_t *seq, const int32_t *pos, size_t count, uint64_t *keys, const char *state,
                              knit_diag *d) {
	if (rising(seq, pos, count))
		return KNIT_OK;
	fill_sorted(seq, pos, count, keys);
	for (size_t i = 1; i < count; ++i) {
		if (keys[i - 1] == keys[i])
			return fail_pair(seq, pos, count, keys[i], state, d);
	}
	return KNIT_OK;
}
