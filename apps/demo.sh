#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From nothing to captions on a fresh Debian 12 or Ubuntu 24.04: installs, builds, makes the data
# set, trains on 4 ranks with mpirun, and shows what the model says about pictures it never saw.
# Run it again and it skips what is done. TROUPE_DEMO_STEPS=n trains shorter or longer.
set -euo pipefail
cd "$(dirname "$0")/.."

started=$SECONDS
phase() { printf '\n[%3ds] %s\n' $((SECONDS - started)) "$1"; }
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
troupe=build/release/apps/troupe
steps=${TROUPE_DEMO_STEPS:-}

phase "packages"
bash .ci/install
if ! dpkg -s tuxpaint-stamps-default >/dev/null 2>&1; then
  echo "installing tuxpaint-stamps-default (160 MB of captioned pictures)"
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends \
    tuxpaint-stamps-default </dev/null | grep --line-buffered -E '^(Get|Unpacking|Setting)' || true
  dpkg -s tuxpaint-stamps-default >/dev/null
fi

phase "build"
cmake --preset release -DTROUPE_TESTS=OFF | tail -n 4
cmake --build --preset release --target troupe

phase "data set"
$troupe data stamps data/stamps
$troupe data index 'data/stamps/train-*.tar' --config apps/demo.yaml
$troupe data index 'data/stamps/heldout-*.tar' --config apps/demo.yaml

phase "training on 4 ranks"
if [ -e runs/demo/done ] && [ runs/demo/done -nt "$troupe" ]; then
  echo "runs/demo is trained already; remove it to train again"
else
  rm -rf runs/demo
  mpirun -n 4 $troupe train apps/demo.yaml ${steps:+--steps "$steps"}
  touch runs/demo/done
fi
checkpoint=$(ls -d runs/demo/step-* | sort -t- -k2 -n | tail -n 1)

phase "captions of held-out pictures"
$troupe caption "$checkpoint" --heldout 8

phase "does it look at the picture? loss with the true and with shuffled pictures"
$troupe evaluate "$checkpoint"
phase "done"
