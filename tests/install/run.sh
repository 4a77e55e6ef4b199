#!/usr/bin/env bash
# Installs a release build into an empty prefix, then compiles and runs a user of it as C and as C++ by pkg-config alone.
# usage: run.sh SOURCE_DIR WORK_DIR
set -euo pipefail
source_dir=$1 work=$2
rm -rf "$work/prefix"
mkdir -p "$work"
cmake -S "$source_dir" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKNIT_TESTS=OFF \
	-DCMAKE_INSTALL_PREFIX="$work/prefix" >/dev/null
cmake --build "$work/build" >/dev/null
cmake --install "$work/build" >/dev/null

headers=$(find "$work/prefix" -name '*.h' | wc -l)
if [ "$headers" -ne 1 ]; then
	echo "the install has $headers headers, needs exactly one (knit.h)"
	exit 1
fi
pc=$(dirname "$(find "$work/prefix" -name knit.pc)")
export PKG_CONFIG_PATH=$pc
read -ra flags <<<"$(pkg-config --cflags knit)"
read -ra libs <<<"$(pkg-config --static --libs knit)"
for language in c c++; do
	compiler=$([ "$language" = c ] && echo gcc || echo g++)
	"$compiler" -x "$language" -Wall -Wextra -Werror "${flags[@]}" "$source_dir/tests/install/consumer.c" -x none \
		"${libs[@]}" -o "$work/consumer-$language"
	echo "as $language: $("$work/consumer-$language")"
done
"$work/prefix/bin/knit" --version
