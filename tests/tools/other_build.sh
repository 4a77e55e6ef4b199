#!/usr/bin/env bash
# Builds the project another way than the tests' own and runs some of its tests.
#   other_build.sh clang SOURCE_DIR WORK_DIR            every source with clang, warnings as errors
#   other_build.sh tsan SOURCE_DIR WORK_DIR TEST...     the named test programs under the thread sanitizer
#   other_build.sh release SOURCE_DIR WORK_DIR TEST...  the named test programs, optimised
# exit code 77: skipped, because the tool is missing
set -euo pipefail
kind=$1 source_dir=$2 work=$3
shift 3
case $kind in
clang)
	command -v clang >/dev/null || { echo "SKIP: no clang here"; exit 77; }
	cmake -S "$source_dir" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang \
		-DCMAKE_CXX_COMPILER=clang++ >/dev/null
	cmake --build "$work"
	exit 0
	;;
tsan) args=(-DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-g -O1" -DKNIT_SANITIZE=thread) ;;
release) args=(-DCMAKE_BUILD_TYPE=Release) ;;
esac
cmake -S "$source_dir" -B "$work" -G Ninja "${args[@]}" >/dev/null
cmake --build "$work" --target "$@"
for test in "$@"; do
	echo "== $test ($kind)"
	program=$(find "$work" -name "$test" -type f -perm -u+x | head -n 1)
	TSAN_OPTIONS=halt_on_error=1 "$program"
done
