#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The linters find what they look for: each planted violation fails, the clean tree passes.
# usage: lint_finds.sh, from any folder
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{runtime,comm,scheduler,actors,modules/{kernels,nn},apps,tests/unit/comm}
cd "$tree"

expect() { # pass|fail linter file line-of-code
    printf '%s\n' "$4" >"$3"
    if "$tools/$2" "$tree" >/dev/null; then result=pass; else result=fail; fi
    rm "$3"
    if [ "$result" != "$1" ]; then
        echo "$2: $3 with '$4' should $1" >&2
        exit 1
    fi
}

expect pass check_layers.sh comm/a.c '#include "runtime/status.h"'
expect fail check_layers.sh comm/a.c '#include "actors/actor.h"'
expect fail check_layers.sh modules/kernels/a.c '#include "comm/comm.h"'
expect pass check_layers.sh modules/kernels/a.c '#include "modules/kernels/kernels.h"'
expect fail check_layers.sh comm/a.c '#include "runtime/device_internal.h"'
expect pass check_layers.sh comm/a.c '#include "comm/a_internal.h"'
expect pass check_layers.sh modules/nn/a.c '#include "modules/a_internal.h"'
expect fail check_layers.sh modules/a.c '#include "modules/kernels/a_internal.h"'
expect pass check_layers.sh tests/unit/comm/a.c '#include "comm/a_internal.h"'
expect fail check_layers.sh tests/unit/comm/a.c '#include "actors/a_internal.h"'
expect pass check_layers.sh comm/a.c '#include <ck_stack.h>'
expect fail check_layers.sh comm/a.h '#include <ck_stack.h>'
expect pass check_layers.sh runtime/inbox.h '#include <ck_stack.h>'
expect fail check_layers.sh comm/a.h '#include "runtime/inbox.h"'

expect fail check_calls.sh comm/a.c 'x = getenv("A");'
expect pass check_calls.sh runtime/options.c 'x = getenv("A");'
expect fail check_calls.sh comm/a.c 'p = malloc(4);'
expect pass check_calls.sh runtime/a.c 'p = malloc(4);'
expect fail check_calls.sh comm/a.c '    free(p); /* why */'
expect pass check_calls.sh comm/a.c "    free(p); /* open_memstream's */"
expect pass check_calls.sh comm/a.c 'troupe_free(p); pool->free(p); /* free(p) */ puts("exit(1)");'
expect fail check_calls.sh modules/a.c 'exit(1);'
expect pass check_calls.sh apps/a.c 'exit(1);'
expect fail check_calls.sh runtime/a.c '/* a */ abort(); /* b */'
