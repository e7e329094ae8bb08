/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine that need not exist: how fast a device computes, how fast links carry bytes, and who
 * shares which link. Every rank has a port to its host's links and shares the network cards of its
 * host; a port carries one transfer after the other in each direction, which is the contention.
 *
 *     TROUPE_TRY(troupe_cluster_read("h100.cluster", &cluster));    (or troupe_cluster_default)
 *     int64_t ns = troupe_cluster_compute_ns(&cluster, &(struct troupe_work){.flops = 1e12, ...});
 *     troupe_traffic_create(&cluster, rank_count, &traffic);
 *     int64_t arrives = troupe_traffic_send(traffic, now_ns, from, to, bytes);
 *
 * Ownership: a cluster is plain data; a traffic object is create/destroy and borrows the cluster.
 * Threads: a traffic object one at a time, the rest any.
 * Failure: read: ERROR_IO, ERROR_INVALID with file and line.
 */
#ifndef TROUPE_SCHEDULER_CLUSTER_H
#define TROUPE_SCHEDULER_CLUSTER_H

#include <stdint.h>
#include <stdio.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_EFFICIENCY_POINTS_MAX = 8 };

struct troupe_link {
    int64_t latency_ns;
    double bytes_per_s; /* 0: no limit */
};

/* What share of its peak a device reaches in products of so many rows; straight lines between
 * points over log(rows), constant beyond the ends. */
struct troupe_efficiency {
    double rows;
    double share;
};

struct troupe_cluster {
    int ranks_per_host;         /* 0: one host holds all ranks */
    int nics_per_host;          /* 0: as many as ranks on the host */
    struct troupe_link inside;  /* between ranks of a host; a port in and one out for each rank */
    struct troupe_link between; /* between hosts; a port in and one out for each card */
    int64_t control_ns;         /* a control message from one rank to another */
    double flops_per_s;         /* peak of one device */
    double memory_bytes_per_s;
    struct troupe_efficiency efficiency[TROUPE_EFFICIENCY_POINTS_MAX]; /* by ascending rows */
    int efficiency_count;                                              /* 0: the peak */
    int64_t launch_ns; /* that any task takes at least */
};

/* One device, eight a host, of the kind of an H100: 989 TFLOPS in bf16, 3.35 TB/s, 450 GB/s to its
 * neighbours in each direction, a 400 Gb/s card for each rank. */
void troupe_cluster_default(struct troupe_cluster *out);
/* Lines `key: value`, # begins a comment; keys are those of troupe_cluster_write. What is not said
 * stays as troupe_cluster_default has it. */
troupe_status troupe_cluster_read(const char *path, struct troupe_cluster *out);
void troupe_cluster_write(const struct troupe_cluster *cluster, FILE *file);

struct troupe_work {
    double flops;
    double bytes; /* that cross the device's memory */
    double rows;  /* of the products, for the efficiency curve */
};

/* The roofline: the slower of computing and moving bytes. */
int64_t troupe_cluster_compute_ns(const struct troupe_cluster *cluster,
                                  const struct troupe_work *work);
/* A message from rank to rank with the links to itself; 0 from a rank to itself. */
int64_t troupe_cluster_transfer_ns(const struct troupe_cluster *cluster, int from, int to,
                                   int64_t bytes);

enum troupe_collective_kind {
    TROUPE_COLLECTIVE_ALL_REDUCE,
    TROUPE_COLLECTIVE_REDUCE_SCATTER,
    TROUPE_COLLECTIVE_ALL_GATHER,
};

/* The faster of a ring and a binary tree over the slowest link among the ranks; `bytes` is the
 * whole operand, of which each rank holds all (all_reduce, reduce_scatter) or gets all
 * (all_gather). */
int64_t troupe_cluster_collective_ns(const struct troupe_cluster *cluster,
                                     enum troupe_collective_kind kind, const int *ranks, int count,
                                     int64_t bytes);

/* The ports' state while messages are under way. */
typedef struct troupe_traffic troupe_traffic;
troupe_status troupe_traffic_create(const struct troupe_cluster *cluster, int rank_count,
                                    troupe_traffic **out);
void troupe_traffic_destroy(troupe_traffic *traffic);
void troupe_traffic_reset(troupe_traffic *traffic);
/* A transfer that both ends are ready for at `now_ns`; when it has arrived. Calls come in the order
 * of their time; transfers of one pair of ranks arrive in the order of the calls. */
int64_t troupe_traffic_send(troupe_traffic *traffic, int64_t now_ns, int from, int to,
                            int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
