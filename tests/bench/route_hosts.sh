#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench.route_hosts on two hosts: network namespaces of this machine, joined by a pair of virtual
# devices whose rate is limited. They are gone when this ends. Exit status 77 where it is not
# allowed to make any.
#
#     tests/bench/route_hosts.sh BUILD [RANKS [MBIT [BYTES]]]
set -u
program=${1:?name the build folder}/tests/bench/bench.route_hosts
ranks=${2:-4} mbit=${3:-1000} bytes=${4:-67108864}
a=troupe-a-$$ b=troupe-b-$$ device_a=tra$$ device_b=trb$$

skip() {
    echo "skipped: $1"
    exit 77
}
clean_up() {
    ip netns del "$a" 2>/dev/null
    ip netns del "$b" 2>/dev/null
}
in_space() { ip netns exec "$@"; }

for tool in ip tc mpiexec; do
    command -v $tool >/dev/null || skip "there is no $tool"
done
trap clean_up EXIT
trap 'exit 1' INT TERM HUP PIPE
ip netns add "$a" 2>/dev/null && ip netns add "$b" 2>/dev/null ||
    skip "network namespaces are not allowed here"
ip -n "$a" link add "$device_a" type veth peer name "$device_b" netns "$b" 2>/dev/null ||
    skip "virtual network devices are not allowed here"
ip -n "$a" addr add 10.77.0.1/24 dev "$device_a"
ip -n "$b" addr add 10.77.0.2/24 dev "$device_b"
for end in "$a $device_a" "$b $device_b"; do
    set -- $end
    ip -n "$1" link set lo up && ip -n "$1" link set "$2" up || exit 1
    in_space "$1" tc qdisc add dev "$2" root tbf rate "${mbit}mbit" burst 256kb latency 50ms ||
        skip "tc cannot limit the rate of a device here"
done
for end in "$a $device_a" "$b $device_b"; do # a device is not used before its state says so
    set -- $end
    tries=100
    until ip -n "$1" link show "$2" | grep -q 'state UP'; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || exit 1
        sleep 0.1
    done
done
# MPI stays in shared memory, and off libfabric, which would note the devices of this place.
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMPI_MCA_mtl=^ofi OMPI_MCA_rmaps_base_oversubscribe=1
timeout -k 5 300 mpiexec -n "$ranks" "$program" "$a" "$device_a" "$b" "$device_b" "$mbit" "$bytes"
