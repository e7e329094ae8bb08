#!/bin/sh
# peer_death.sh mpiexec program provider host...: runs peer_death with one rank per host name (equal
# names share a host; the provider may be several words) and counts the survivors, who speak only if
# they see the right thing; mpiexec's own status tells only that a rank was killed.
set -u
mpiexec=$1
program=$2
provider=$3
shift 3
expected=$(($# - 1))
job=
for host in "$@"; do
    job="$job${job:+ :} -n 1 -x TROUPE_HOST_ID=$host $program $provider"
done
# shellcheck disable=SC2086 # the words of the job are separate arguments
output=$("$mpiexec" --enable-recovery $job 2>&1)
echo "$output"
if echo "$output" | grep -q '^skipped: '; then
    exit 77
fi
survivors=$(echo "$output" | grep -c "^survivor [0-9]* after [0-9.]* s: ")
if [ "$survivors" -ne "$expected" ]; then
    echo "$survivors of $expected survivors said why they end"
    exit 1
fi
