/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine: cores, NUMA nodes, GPUs, and which cores belong to which rank. Ranks of one machine
 * share its cores in contiguous, near-even slices, those with a GPU the cores next to it; with more
 * ranks than cores they share cores, which is allowed and said. What a launcher has already bound
 * is kept.
 *
 *     troupe_topology_open(&(struct troupe_topology_options){0}, &topology);
 *     troupe_topology_bind(topology, (struct troupe_slice){.index = 1, .count = 8}, text,
 *                          sizeof text);                   "cores 2-3 of 16, NUMA node 0"
 *
 * Ownership: open/close by one owner. Threads: one at a time for bind, any for the rest.
 * Failure: open returns ERROR_INVALID (synthetic text) or ERROR_IO; the rest cannot fail: where
 * binding is impossible, the sentence says so.
 */
#ifndef TROUPE_RUNTIME_TOPOLOGY_H
#define TROUPE_RUNTIME_TOPOLOGY_H

#include <stddef.h>
#include <stdio.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_topology troupe_topology;

struct troupe_topology_options {
    const char *synthetic; /* "package:2 numa:1 core:8 pu:2" as hwloc has it; NULL: this machine */
    const char *xml;       /* another machine, GPUs included, as lstopo exports it; NULL: no */
    const char *cpuset;    /* usable OS processors, "0-3,8"; NULL: what this thread may use now */
};

struct troupe_topology_counts {
    int packages;
    int numa_nodes;
    int cores;        /* of the machine */
    int usable_cores; /* in the cpuset */
    int processors;   /* hardware threads ("PU") of the machine */
    int gpus;         /* NVIDIA GPUs on the PCI bus */
};

/* The index-th of `count` ranks that share the same cores. */
struct troupe_slice {
    int index;
    int count;
    const char *gpu; /* PCI bus id of the rank's GPU, "0000:3b:00.0": of the cores next to it, where
                        the rank may use some of those; NULL or "": of all */
};

troupe_status troupe_topology_open(const struct troupe_topology_options *options,
                                   troupe_topology **out);
void troupe_topology_close(troupe_topology *topology);
struct troupe_topology_counts troupe_topology_counts(const troupe_topology *topology);

/* The OS processors that ranks with this GPU (NULL: none) share, bit p % 8 of byte p / 8. Ranks
 * with the same share them. */
void troupe_topology_processors(const troupe_topology *topology, const char *gpu,
                                unsigned char *bits, size_t bytes);
/* OS processor of each core of the slice, the first hardware thread of each: what
 * troupe_workers_options.cores takes. Writes at most `max`; returns how many cores the slice has.
 */
int troupe_topology_cores(const troupe_topology *topology, struct troupe_slice slice, int *cores,
                          int max);
/* Binds the calling thread to the cores of its slice, and with a GPU its memory to their NUMA nodes
 * (as long as there is some), and writes a sentence that says what was done. Threads created later
 * inherit it. On a machine that is not this one nothing is bound. */
void troupe_topology_bind(const troupe_topology *topology, struct troupe_slice slice, char *text,
                          size_t text_bytes);
/* A summary line, then packages, caches and NUMA nodes with their cores, and what is next to each
 * GPU. */
void troupe_topology_print(const troupe_topology *topology, FILE *file);

#ifdef __cplusplus
}
#endif
#endif
