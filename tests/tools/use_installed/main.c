/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "runtime/topology.h"
#include "runtime/version.h"

int main(void) {
    troupe_topology *topology = NULL;
    const struct troupe_topology_options options = {.synthetic = "core:4 pu:1"};
    if (troupe_topology_open(&options, &topology) != TROUPE_OK) {
        fprintf(stderr, "%s\n", troupe_last_error());
        return 1;
    }
    int cores = troupe_topology_counts(topology).cores;
    troupe_topology_close(topology);
    printf("troupe %s sees %d cores\n", troupe_version(), cores);
    return cores == 4 ? 0 : 1;
}
