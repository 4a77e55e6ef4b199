#!/usr/bin/env bash
# Builds the engine and its tests for 64-bit ARM with the cross compiler and runs them under qemu-user: the processor with
# every extension takes the kernels with the dot product instruction, and lowered the others; one that lacks it must take
# those by itself.
#   aarch64.sh SOURCE_DIR WORK_DIR
# KNIT_AARCH64_ALL=1: all test programs on both processors, which takes some minutes more.
# exit code 77: skipped, because a tool is missing
set -euo pipefail
source_dir=$1 work=$2
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
	command -v "$tool" >/dev/null || { echo "SKIP: no $tool here"; exit 77; }
done
cmake -S "$source_dir" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKNIT_ENGINE_ONLY=ON \
	-DCMAKE_TOOLCHAIN_FILE="$source_dir/tests/tools/aarch64.cmake" >/dev/null
cmake --build "$work"
rm -f "$work"/*.log

# What the environment may have lowered for the tests around this one.
unset KNIT_CPU_ISA

# run CPU TEST [ARGUMENT...]
run() {
	local cpu=$1 test=$2 started=$SECONDS status=0
	shift 2
	local log=$work/$cpu-$test${1:+-$(tr -dc 'a-z0-9' <<<"$*")}.log
	QEMU_CPU=$cpu qemu-aarch64 "$work/tests/engine/test-$test" "$@" >"$log" 2>&1 || status=$?
	sed "s/^/$cpu $test: /" "$log"
	echo "$cpu $test $*: $((SECONDS - started)) s"
	return $status
}

first="bench-peak_loops unit-cpu unit-cpu_kernels unit-cpu_linear unit-cpu_panels" more=
[ -z "${KNIT_AARCH64_ALL:-}" ] || more="unit-cpu_attention unit-cpu_fused unit-cpu_glu unit-cpu_linear_lora unit-kv_slot unit-pool unit-quant unit-quant_k"

parts() {
	local status=0 part
	for part in "$@"; do
		run max conformance-conformance --part "$part" || status=1
	done
	return $status
}

units() {
	local status=0 test
	for test in $first $more; do
		run max "$test" || status=1
	done
	for test in ${more:+$first} ${more:-bench-peak_loops unit-cpu}; do
		run cortex-a57 "$test" || status=1
	done
	run cortex-a57 conformance-conformance --device cpu --threads 3 --few || status=1
	return $status
}

# Two processes of about the same length. All at once it takes longer and says whether every kernel is reached by a case.
status=0
if [ -n "$more" ]; then
	units &
	run max conformance-conformance || status=1
else
	{ units && parts 2/3; } &
	parts 0/3 1/3 || status=1
fi
wait $! || status=1
for log in "$work"/max-conformance-conformance*.log; do
	grep -q "dotprod, 3 threads" "$log" || { echo "FAIL: dotprod was not run"; status=1; }
done
exit $status
