#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Trains one model with `troupe train` and with PyTorch in turns and prints the ratios.
#
#     tests/bench/pytorch.sh [BUILD_DIRECTORY] [options of pytorch.py]
#
# The first run makes a virtual environment with PyTorch (about 5 GB) in the build directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../../build}
[ $# -eq 0 ] || shift
python=$build/bench/pytorch/bin/python
if ! "$python" -c 'import torch, yaml' 2>/dev/null; then
    echo "installing PyTorch into $build/bench/pytorch"
    python3 -m venv "$build/bench/pytorch"
    "$build/bench/pytorch/bin/pip" install --quiet torch numpy pyyaml
fi
cmake --build "$build" --target troupe bench.batches >/dev/null
exec "$python" "$here/pytorch.py" "$build" "$@"
