#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libfabric's own ping-pong, for `troupe bench`: peer_fabric.sh shm|tcp BYTES REPEATS prints the
# microseconds one way, median, least and most of 5 runs. Needs fi_pingpong (libfabric-bin).
command -v fi_pingpong > /dev/null || exit 77
kind=rdm
[ "$1" = tcp ] && kind=msg
for port in 47611 47612 47613 47614 47615; do
    fi_pingpong -p "$1" -e "$kind" -I "$3" -S "$2" -B "$port" > /dev/null 2>&1 &
    server=$!
    sleep 0.5
    timeout 30 fi_pingpong -p "$1" -e "$kind" -I "$3" -S "$2" -P "$port" 127.0.0.1 2> /dev/null |
        awk 'END { if (NF >= 7) print $(NF - 1) }'
    kill "$server" 2> /dev/null
    wait "$server" 2> /dev/null
done | sort -g | awk '{ v[NR] = $1 } END { if (NR == 0) exit 1
    printf "figure %s %s %s\n", v[int((NR + 1) / 2)], v[1], v[NR] }'
