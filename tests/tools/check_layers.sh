#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Includes point down only: runtime <- comm <- scheduler <- actors <- modules <- apps, and
# modules/kernels uses only runtime. A *_internal.h stays in its folder, those below it and that
# layer's tests. Of the headers only runtime/inbox.h includes Concurrency Kit, and no header
# includes that.
# usage: check_layers.sh [root]
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

layers='runtime comm scheduler actors modules apps'
# shellcheck disable=SC2086 # a list of words
grep -rnE --include='*.[ch]' --include='*.cu' '^[[:space:]]*#[[:space:]]*include' $layers tests |
    awk -F: -v layers="$layers" '
    function folder(path) { return substr(path, 1, match(path, /\/[^\/]*$/) - 1) }
    function top(path) { return substr(path, 1, index(path, "/") - 1) }
    function complain(why) { print $1 ":" $2 ": " why; bad = 1 }
    BEGIN { n = split(layers, name, " "); for (i = 1; i <= n; i++) { rank[name[i]] = i } }
    {
        file = $1
        target = $3
        sub(/^[^<"]*[<"]/, "", target)
        sub(/[>"].*/, "", target)
        from = top(file)
        to = top(target)
        if ($3 ~ /<ck_/ && file ~ /\.h$/ && file != "runtime/inbox.h") {
            complain("a header includes Concurrency Kit, which is C only")
        }
        if (target == "runtime/inbox.h" && file ~ /\.h$/) {
            complain("a header includes inbox.h; hide the inbox behind an opaque type")
        }
        if ((from in rank) && (to in rank) && rank[to] > rank[from]) {
            complain(from " includes upward: " target)
        }
        if (file ~ /^modules\/kernels\// && (to in rank) && to != "runtime" &&
            target !~ /^modules\/kernels\//) {
            complain("kernels use only runtime, not " target)
        }
        if (target ~ /_internal\.h$/ && index(folder(file) "/", folder(target) "/") != 1 &&
            (from != "tests" || (file ~ /^tests\/unit\// && file !~ "^tests/unit/" to "/"))) {
            complain("internal header of another folder: " target)
        }
    }
    END { exit bad }'
