# Debian's cross compiler for 64-bit ARM (gcc-aarch64-linux-gnu); what it builds runs under qemu-user. Programs are linked
# statically: the emulator needs no ARM system beside them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc CACHE STRING "the cross compiler")
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
