#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Calls that belong to one place: the environment to runtime/options.c, raw memory to runtime, ending
# the process to runtime/check.c and the apps. Comments and texts do not count. What a library or
# launcher owns is said at the end of the line: `free(text); /* open_memstream's */`.
# usage: check_calls.sh [root]
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

find runtime comm scheduler actors modules apps -name '*.[ch]' -o -name '*.cu' | sort |
    xargs awk '
    function calls(names) { return code ~ "(^|[^A-Za-z0-9_.>])(" names ")[ ]*\\(" }
    function complain(why) { print FILENAME ":" FNR ": " why; bad = 1 }
    FNR == 1 { comment = 0 }
    {
        code = $0
        gsub(/\\"/, "", code)
        gsub(/"[^"]*"/, "\"\"", code)
        if (comment) { if (!sub(/^.*\*\//, "", code)) { next } comment = 0 }
        gsub(/\/\*[^*]*(\*[^*\/][^*]*)*\*\//, "", code)
        if (sub(/\/\*.*$/, "", code)) { comment = 1 }
    }
    / \/\* [a-z_]+.s \*\/$/ { next }
    FILENAME != "runtime/options.c" && calls("getenv|secure_getenv|setenv|putenv") {
        complain("reads the environment; add a row to runtime/options.h")
    }
    FILENAME !~ /^runtime\// &&
        calls("malloc|calloc|realloc|aligned_alloc|strdup|free") {
        complain("raw memory; use TROUPE_NEW and troupe_free")
    }
    FILENAME != "runtime/check.c" && FILENAME !~ /^apps\// &&
        calls("exit|_exit|_Exit|quick_exit|abort") {
        complain("ends the process; return a status or use TROUPE_ASSERT")
    }
    END { exit bad }'
