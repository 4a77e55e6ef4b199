/* Owns reductions over a group, whatever the width of its subgroups. Every invocation of the group calls them, at the same
 * place, and gets the same result. A reduction leaves one number per subgroup in shared memory, which each invocation
 * then combines in the same order. */
shared uint knit_partial[(gl_WorkGroupSize.x + 3) / 4]; /* one per subgroup of the narrowest width, 4 */

void knit_exchange(uint part) {
	barrier(); /* what the last reduction left has been read */
	if (subgroupElect())
		knit_partial[gl_SubgroupID] = part;
	barrier();
}

#ifdef KNIT_REDUCE_VECTORS
shared vec3 knit_partial_vectors[(gl_WorkGroupSize.x + 3) / 4];

vec3 knit_group_sum(vec3 x) {
	const vec3 part = subgroupAdd(x);
	vec3 sum = vec3(0.0);

	barrier();
	if (subgroupElect())
		knit_partial_vectors[gl_SubgroupID] = part;
	barrier();
	for (uint i = 0; i < gl_NumSubgroups; ++i)
		sum += knit_partial_vectors[i];
	return sum;
}
#endif

float knit_group_sum(float x) {
	float sum = 0.0;

	knit_exchange(floatBitsToUint(subgroupAdd(x)));
	for (uint i = 0; i < gl_NumSubgroups; ++i)
		sum += uintBitsToFloat(knit_partial[i]);
	return sum;
}

/* Of numbers: what a NaN among them does is not defined. */
float knit_group_max(float x) {
	knit_exchange(floatBitsToUint(subgroupMax(x)));

	float largest = uintBitsToFloat(knit_partial[0]);
	for (uint i = 1; i < gl_NumSubgroups; ++i)
		largest = max(largest, uintBitsToFloat(knit_partial[i]));
	return largest;
}

uint knit_group_max(uint x) {
	knit_exchange(subgroupMax(x));

	uint largest = knit_partial[0];
	for (uint i = 1; i < gl_NumSubgroups; ++i)
		largest = max(largest, knit_partial[i]);
	return largest;
}

uint knit_group_min(uint x) {
	knit_exchange(subgroupMin(x));

	uint smallest = knit_partial[0];
	for (uint i = 1; i < gl_NumSubgroups; ++i)
		smallest = min(smallest, knit_partial[i]);
	return smallest;
}
