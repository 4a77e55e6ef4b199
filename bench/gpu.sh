#!/usr/bin/env bash
# What a GPU is worth to knit, in one call: builds (unless BUILD names a build folder), prints the device, checks the Vulkan
# backend on it with the conformance suite, times decode and prefill of three shapes in three formats, and writes a page.
#
#   bench/gpu.sh OUT.md                 on a machine with a Vulkan driver
#   DEVICE=vulkan:1 bench/gpu.sh OUT.md
#   LLAMA_BENCH="/opt/llama-bench -ngl 99" bench/gpu.sh OUT.md     beside a peer that was built with its own Vulkan backend
#   SHAPES="125m 1.1b" TYPES="q8_0" RUNS=5 bench/gpu.sh OUT.md     less of it
#
# Needs about 12 GiB of disk for the models (TMPDIR), 10 minutes, and what `make test` needs.
set -euo pipefail

out=${1:?usage: bench/gpu.sh OUT.md (see the head of this file)}
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build/release}
device=${DEVICE:-vulkan}
shapes=${SHAPES:-125m 1.1b 8b}
types=${TYPES:-f16 q8_0 q4_0}
runs=${RUNS:-10}
seconds=${SECONDS_PER_TEST:-15}
page=$(mktemp)
trap 'rm -f "$page"' EXIT

if [ -z "${BUILD:-}" ]; then
	cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -Wno-dev >/dev/null
	cmake --build "$build" -j"$(nproc)" >/dev/null
fi
knit=$build/knit

{
	printf '# A GPU: what the Vulkan backend does on it\n\nMade by `bench/gpu.sh` at commit %s, %s.\n\n' \
		"$(git -C "$root" describe --always --dirty 2>/dev/null || echo "${COMMIT:-unknown}")" "$(date -u +%F)"
	printf '## The device\n\n```\n'
	"$knit" devices -v
	printf '```\n\n## Conformance\n\n```\n'
} >"$page"

conformance=$build/tests/test-vulkan-conformance
if [ -x "$conformance" ]; then
	if (cd "$root" && timeout 900 "$conformance") >"$page.conformance" 2>&1; then verdict=passed; else verdict="FAILED ($?)"; fi
	tail -n 30 "$page.conformance" >>"$page"
	rm -f "$page.conformance"
else
	verdict="not run: $conformance is not built"
fi
printf '```\n\nThe suite: %s.\n' "$verdict" >>"$page"

for shape in $shapes; do
	for type in $types; do
		peer=()
		[ -n "${LLAMA_BENCH:-}" ] && peer=(--peer "llama-bench=$LLAMA_BENCH")
		printf '\n## %s, %s\n\n' "$shape" "$type" >>"$page"
		echo "$shape $type ..." >&2
		"$knit" bench --shape "$shape,type=$type" --device "$device" -p 512 -n 128 -d 0,4096 -r "$runs" --seconds "$seconds" \
			--markdown "${peer[@]}" >>"$page" 2>"$page.err" || {
			printf 'did not run: %s\n' "$(tail -n 1 "$page.err")" >>"$page"
		}
		rm -f "$page.err"
	done
done
mv "$page" "$out"
chmod 644 "$out"
trap - EXIT
echo "written: $out" >&2
[ "$verdict" = passed ]
