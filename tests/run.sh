#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds with warnings as errors and runs the tests, the sanitizer runs
# among them; with --slow, the slow ones too. The last lines are CTest's own summary.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=release
case "${1:-}" in
'') ;;
--slow) tests=slow ;;
*)
    echo "usage: tests/run.sh [--slow]" >&2
    exit 2
    ;;
esac

.ci/install --test
cmake --preset release
cmake --build --preset release
exec ctest --preset "$tests"
