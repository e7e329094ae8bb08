#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a GPU test under compute-sanitizer: no access outside an allocation. Status 77 (skipped) where
# the machine refuses the tool. Errors that calls return are the tests' own business.
# usage: memcheck.sh program [arguments]
set -uo pipefail
output=$(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9 "$@" 2>&1)
status=$?
printf '%s\n' "$output"
if grep -qE 'Device not supported|not supported on this|Unable to initialize' <<<"$output" ||
    { grep -q '^========= Error:' <<<"$output" && ! grep -q 'ERROR SUMMARY' <<<"$output"; }; then
    echo 'memcheck: compute-sanitizer is refused here'
    exit 77
fi
echo "memcheck: $(basename "$1") ended with status $status under compute-sanitizer"
exit "$status"
