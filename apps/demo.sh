#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to captions on a fresh Debian 12 or Ubuntu 24.04: installs, builds, makes the data
# set, trains on 4 ranks with mpirun, and shows what the model says about pictures it never saw.
# Run it again and it skips what is done. DEMO_STEPS=n trains shorter or longer.
set -euo pipefail
cd "$(dirname "$0")/.."

build="build-demo"
troupe=$build/apps/troupe
config=apps/demo.yaml
run=runs/demo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

phase() { printf '\n[%3d s] %s\n' "$SECONDS" "$1"; }

phase "packages"
.ci/install --demo
echo "all packages are there"

phase "build"
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DTROUPE_TESTS=OFF | tail -n 4
cmake --build $build --target troupe

phase "data set"
$troupe data stamps data/stamps
$troupe data index --config $config

phase "training on 4 ranks"
if [ -e $run/done ] && [ ! $config -nt $run/done ]; then
    echo "$run is trained already; remove it to train again"
else
    rm -rf $run
    mpirun -n 4 $troupe train $config ${DEMO_STEPS:+--steps "$DEMO_STEPS"}
    touch $run/done
fi
checkpoint=$(printf '%s\n' $run/step-* | sort -V | tail -n 1)

phase "captions of held-out pictures"
$troupe caption "$checkpoint" --heldout 8

phase "does it look at the picture? loss with the true and with shuffled pictures"
$troupe evaluate "$checkpoint"
phase "done; try: $troupe caption $checkpoint YOUR_PICTURE.png"
