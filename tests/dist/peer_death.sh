#!/bin/sh
# peer_death.sh mpiexec program ranks provider: runs peer_death and counts the survivors who said
# the right thing; mpiexec's own status tells only that a rank was killed.
set -u
output=$("$1" --enable-recovery -n "$3" "$2" "$4" 2>&1)
echo "$output"
survivors=$(echo "$output" | grep -c "^survivor [0-9]* after [0-9.]* s: rank 1 is lost: ")
if [ "$survivors" -ne $(($3 - 1)) ]; then
    echo "$survivors of $(($3 - 1)) survivors named the dead rank"
    exit 1
fi
