#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs every test that needs a GPU, on a machine that has one (elsewhere they are skipped).
# Installs nothing. Needs nvcc with cuBLASLt, CMake, Ninja, pkg-config, hwloc, Concurrency Kit and
# cJSON; takes MPI, NCCL (also of a Python package), libyaml, libfabric, and the image and tar
# libraries where they are. What is not installed may be unpacked (`dpkg -x x.deb folder`): say
# TROUPE_PREFIX=folder. Takes at most 8 minutes; the last lines are CTest's summary.
# usage: tests/gpu.sh [build-folder]
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-build-gpu}"
build=$(cd "${1:-build-gpu}" && pwd)

# Unpacked packages believe that they are in /usr: give pkg-config corrected copies of their files.
if [ -n "${TROUPE_PREFIX:-}" ]; then
    prefix=$(cd "$TROUPE_PREFIX" && pwd)
    mkdir -p "$build/pkgconfig"
    find "$prefix" -name '*.pc' -exec cp -t "$build/pkgconfig" {} +
    sed -i "s|/usr|$prefix/usr|g" "$build"/pkgconfig/*.pc
    export PKG_CONFIG_PATH="$build/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
    for folder in $(find "$prefix" -name '*.so.*' -printf '%h\n' | sort -u); do
        export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
fi

# NCCL as a Python package: headers and library lie side by side in its folder.
options=()
wheel=$(python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>/dev/null || true)
if [ -n "$wheel" ]; then
    options+=("-DNCCL_ROOT=$wheel")
    export LD_LIBRARY_PATH="$wheel/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

timeout 60 cmake -S . -B "$build" -G Ninja -DTROUPE_CUDA=ON \
    -DTROUPE_PYTHON3="$(command -v python3)" "${options[@]}"
timeout 150 cmake --build "$build" --target gpu_tests
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
if command -v compute-sanitizer >/dev/null; then
    tests/memcheck.sh "$build/tests/kernels/kernels.rows" cuda | grep '^memcheck:' || true
else
    echo 'memcheck: there is no compute-sanitizer; going on without'
fi
exec timeout $((470 - SECONDS)) ctest --test-dir "$build" -L gpu --output-on-failure
