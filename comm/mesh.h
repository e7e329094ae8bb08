/* SPDX-License-Identifier: Apache-2.0
 *
 * A mesh gives the ranks of one module coordinates on named axes. The list of ranks is in axis
 * order, tp fastest:
 *
 *     dense view    rank = list[tp + TP * (cp + CP * (dp + DP * pp))]
 *     expert view   rank = list[etp + ETP * (ep + EP * (edp + EDP * pp))]
 *
 * Both views name the same ranks; EDP follows from the others. Lists of different meshes may
 * overlap.
 *
 *     struct troupe_mesh mesh;
 *     TROUPE_TRY(troupe_ranks_parse("0-3", job_ranks, ranks, &count));
 *     TROUPE_TRY(troupe_mesh_init(&(struct troupe_mesh_options){
 *         .ranks = ranks, .rank_count = count, .tp = 2, .dp = 2}, &mesh));
 *     count = troupe_mesh_group(&mesh, rank, TROUPE_AXES(TROUPE_TP), group);
 *     troupe_mesh_fini(&mesh);
 *
 * Ownership: the mesh copies the list; fini frees it and accepts a zeroed mesh.
 * Threads: a mesh is constant after init; any thread may ask.
 * Failure: TROUPE_ERROR_INVALID with a sentence for a list or sizes that do not fit; a rank that is
 * not in the mesh, or axes of both views in one call, are programmer errors.
 */
#ifndef TROUPE_COMM_MESH_H
#define TROUPE_COMM_MESH_H

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum troupe_axis {
    TROUPE_TP,
    TROUPE_CP,
    TROUPE_DP,
    TROUPE_PP, /* of both views */
    TROUPE_ETP,
    TROUPE_EP,
    TROUPE_EDP,
    TROUPE_AXIS_COUNT
};

/* An ordered choice of axes of one view; the last one varies fastest. All-zero: no axis. */
struct troupe_axes {
    int count;
    enum troupe_axis axis[4];
};

#define TROUPE_AXES(...)                                                                           \
    ((struct troupe_axes){                                                                         \
        .count = (int)(sizeof((enum troupe_axis[]){__VA_ARGS__}) / sizeof(enum troupe_axis)),      \
        .axis = {__VA_ARGS__}})

/* Sizes: 0 means 1. */
struct troupe_mesh_options {
    const int *ranks;
    int rank_count; /* = tp * cp * dp * pp */
    int tp, cp, dp, pp;
    int etp, ep; /* etp * ep divides tp * cp * dp */
};

struct troupe_mesh {
    int size[TROUPE_AXIS_COUNT];
    int stride[TROUPE_AXIS_COUNT]; /* in positions of the list */
    int rank_count;
    int *ranks;
};

/* "0-3" or "0,2,5-7": distinct ranks of a job of job_ranks ranks, in the order written.
 * ranks_out has room for job_ranks entries. */
troupe_status troupe_ranks_parse(const char *text, int job_ranks, int *ranks_out, int *count_out);

troupe_status troupe_mesh_init(const struct troupe_mesh_options *options, struct troupe_mesh *out);
void troupe_mesh_fini(struct troupe_mesh *mesh);

/* "tp" */
const char *troupe_axis_name(enum troupe_axis axis);
/* Index of the rank in the list, -1 if it is not in the mesh. */
int troupe_mesh_position(const struct troupe_mesh *mesh, int rank);
int troupe_mesh_coordinate(const struct troupe_mesh *mesh, int rank, enum troupe_axis axis);

/* The group of `rank` along the axes: the ranks that share all its other coordinates, last axis
 * fastest. ranks_out has room for troupe_mesh_group_size entries; returns their number. */
int troupe_mesh_group(const struct troupe_mesh *mesh, int rank, struct troupe_axes axes,
                      int *ranks_out);
int troupe_mesh_group_size(const struct troupe_mesh *mesh, struct troupe_axes axes);
/* Index of the rank in that group. */
int troupe_mesh_group_index(const struct troupe_mesh *mesh, int rank, struct troupe_axes axes);

#ifdef __cplusplus
}
#endif
#endif
