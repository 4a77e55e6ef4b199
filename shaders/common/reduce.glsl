/* Owns reductions over a group, whatever the width of its subgroups. Every invocation of the group calls them, at the same
 * place, and gets the same result. */
shared float knit_partial[(gl_WorkGroupSize.x + 3) / 4]; /* one per subgroup of the narrowest width, 4 */

float knit_group_sum(float x) {
	const float part = subgroupAdd(x);
	float sum = 0.0;

	barrier(); /* the last reduction has been read */
	if (subgroupElect())
		knit_partial[gl_SubgroupID] = part;
	barrier();
	for (uint i = 0; i < gl_NumSubgroups; ++i)
		sum += knit_partial[i];
	return sum;
}

/* Of numbers: what a NaN among them does is not defined. */
float knit_group_max(float x) {
	const float part = subgroupMax(x);
	float largest;

	barrier();
	if (subgroupElect())
		knit_partial[gl_SubgroupID] = part;
	barrier();
	largest = knit_partial[0];
	for (uint i = 1; i < gl_NumSubgroups; ++i)
		largest = max(largest, knit_partial[i]);
	return largest;
}

uint knit_group_min(uint x) {
	const uint part = subgroupMin(x);
	uint smallest;

	barrier();
	if (subgroupElect())
		knit_partial[gl_SubgroupID] = uintBitsToFloat(part);
	barrier();
	smallest = floatBitsToUint(knit_partial[0]);
	for (uint i = 1; i < gl_NumSubgroups; ++i)
		smallest = min(smallest, floatBitsToUint(knit_partial[i]));
	return smallest;
}
