# A thin front for CMake. `make demo` and `make test` work on a fresh Debian 12.

.PHONY: all demo test clean

all: build/release/knit

build/release/knit: FORCE
	@cmake --preset release -Wno-dev >/dev/null
	@cmake --build build/release

.PHONY: FORCE
FORCE:

# Builds the command and lets the bundled model write.
demo:
	@.ci/setup demo
	@cmake --preset release -DKNIT_TESTS=OFF -Wno-dev >/dev/null
	@cmake --build build/release --target knit-cli
	@echo
	@echo '$$ knit run frontends/demo/shakespeare.gguf -p "ROMEO:" -n 500 --endless --temp 0.8 --seed 7'
	@build/release/knit run frontends/demo/shakespeare.gguf -p "ROMEO:" -n 500 --endless --temp 0.8 --seed 7

# Builds with ASan and UBSan and runs every test; the tests build what they need of other kinds (TSan, clang, installed).
test:
	@.ci/setup test
	@cmake --preset debug -Wno-dev >/dev/null
	@cmake --build build/debug
	@ctest --test-dir build/debug --output-on-failure -j 2

clean:
	rm -rf build
