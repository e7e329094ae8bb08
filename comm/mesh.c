/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mesh.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum { VIEW_AXES = 4 };

static const enum troupe_axis dense_view[VIEW_AXES] = {TROUPE_TP, TROUPE_CP, TROUPE_DP, TROUPE_PP};
static const enum troupe_axis expert_view[VIEW_AXES] = {TROUPE_ETP, TROUPE_EP, TROUPE_EDP,
                                                        TROUPE_PP};

/* ---- rank lists ---- */

/* Reads digits at *cursor; false if there are none or the number does not fit an int. */
static bool read_number(const char **cursor, int *out) {
    const char *c = *cursor;
    int64_t value = 0;
    while (isdigit((unsigned char)*c) && value <= INT_MAX) {
        value = value * 10 + (*c++ - '0');
    }
    if (c == *cursor || value > INT_MAX) {
        return false;
    }
    *cursor = c;
    *out = (int)value;
    return true;
}

static void skip_spaces(const char **cursor) {
    while (isspace((unsigned char)**cursor)) {
        ++*cursor;
    }
}

/* "5" or "5-7". */
static bool read_interval(const char **cursor, int *first, int *last) {
    skip_spaces(cursor);
    if (!read_number(cursor, first)) {
        return false;
    }
    *last = *first;
    skip_spaces(cursor);
    if (**cursor == '-') {
        ++*cursor;
        skip_spaces(cursor);
        if (!read_number(cursor, last)) {
            return false;
        }
        skip_spaces(cursor);
    }
    return **cursor == ',' || **cursor == '\0';
}

static bool contains(const int *ranks, int count, int rank) {
    for (int i = 0; i < count; i++) {
        if (ranks[i] == rank) {
            return true;
        }
    }
    return false;
}

troupe_status troupe_ranks_parse(const char *text, int job_ranks, int *ranks_out, int *count_out) {
    const char *cursor = text;
    int count = 0;
    for (;;) {
        int first = 0, last = 0;
        if (!read_interval(&cursor, &first, &last)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "ranks \"%s\": a rank or an interval is expected at \"%s\"; write "
                               "for example \"0-3\" or \"0,2,5-7\"",
                               text, cursor);
        }
        if (last < first) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "ranks \"%s\": the interval %d-%d runs backwards; write %d-%d", text,
                               first, last, last, first);
        }
        if (last >= job_ranks) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "ranks \"%s\": rank %d does not exist; the job has %d (0-%d)", text,
                               last, job_ranks, job_ranks - 1);
        }
        for (int rank = first; rank <= last; rank++) {
            if (contains(ranks_out, count, rank)) {
                return troupe_fail(TROUPE_ERROR_INVALID, "ranks \"%s\": rank %d is named twice",
                                   text, rank);
            }
            ranks_out[count++] = rank;
        }
        if (*cursor == '\0') {
            *count_out = count;
            return TROUPE_OK;
        }
        cursor++;
    }
}

/* ---- meshes ---- */

static int size_or_one(int size) {
    return size == 0 ? 1 : size;
}

static void set_strides(struct troupe_mesh *mesh, const enum troupe_axis view[VIEW_AXES]) {
    int stride = 1;
    for (int i = 0; i < VIEW_AXES; i++) {
        mesh->stride[view[i]] = stride;
        stride *= mesh->size[view[i]];
    }
}

static troupe_status check_ranks(const struct troupe_mesh_options *o) {
    for (int i = 0; i < o->rank_count; i++) {
        if (o->ranks[i] < 0) {
            return troupe_fail(TROUPE_ERROR_INVALID, "entry %d of a rank list is %d", i,
                               o->ranks[i]);
        }
        if (contains(o->ranks, i, o->ranks[i])) {
            return troupe_fail(TROUPE_ERROR_INVALID, "rank %d is twice in the list of a mesh",
                               o->ranks[i]);
        }
    }
    return TROUPE_OK;
}

static troupe_status set_sizes(const struct troupe_mesh_options *o, struct troupe_mesh *mesh) {
    const int wanted[TROUPE_AXIS_COUNT] = {o->tp, o->cp, o->dp, o->pp, o->etp, o->ep, 1};
    for (int axis = 0; axis < TROUPE_AXIS_COUNT; axis++) {
        if (wanted[axis] < 0) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s %d: an axis has at least one rank",
                               troupe_axis_name((enum troupe_axis)axis), wanted[axis]);
        }
        mesh->size[axis] = size_or_one(wanted[axis]);
    }
    const int *size = mesh->size;
    int64_t stage = (int64_t)size[TROUPE_TP] * size[TROUPE_CP] * size[TROUPE_DP];
    if (stage * size[TROUPE_PP] != o->rank_count) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "tp %d x cp %d x dp %d x pp %d makes %lld ranks, but %d are listed",
                           size[TROUPE_TP], size[TROUPE_CP], size[TROUPE_DP], size[TROUPE_PP],
                           (long long)(stage * size[TROUPE_PP]), o->rank_count);
    }
    int64_t experts = (int64_t)size[TROUPE_ETP] * size[TROUPE_EP];
    if (stage % experts != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "etp %d x ep %d does not divide the %lld ranks of a pipeline stage",
                           size[TROUPE_ETP], size[TROUPE_EP], (long long)stage);
    }
    mesh->size[TROUPE_EDP] = (int)(stage / experts);
    return TROUPE_OK;
}

troupe_status troupe_mesh_init(const struct troupe_mesh_options *options, struct troupe_mesh *out) {
    struct troupe_mesh mesh = {.rank_count = options->rank_count};
    TROUPE_TRY(set_sizes(options, &mesh));
    TROUPE_TRY(check_ranks(options));
    TROUPE_TRY(TROUPE_NEW(&mesh.ranks, mesh.rank_count));
    memcpy(mesh.ranks, options->ranks, (size_t)mesh.rank_count * sizeof *mesh.ranks);
    set_strides(&mesh, dense_view);
    set_strides(&mesh, expert_view);
    *out = mesh;
    return TROUPE_OK;
}

void troupe_mesh_fini(struct troupe_mesh *mesh) {
    troupe_free(mesh->ranks);
    *mesh = (struct troupe_mesh){0};
}

const char *troupe_axis_name(enum troupe_axis axis) {
    static const char *const names[TROUPE_AXIS_COUNT] = {"tp",  "cp", "dp", "pp",
                                                         "etp", "ep", "edp"};
    TROUPE_ASSERT(axis >= 0 && axis < TROUPE_AXIS_COUNT, "axis %d", (int)axis);
    return names[axis];
}

int troupe_mesh_position(const struct troupe_mesh *mesh, int rank) {
    for (int i = 0; i < mesh->rank_count; i++) {
        if (mesh->ranks[i] == rank) {
            return i;
        }
    }
    return -1;
}

static int position_of(const struct troupe_mesh *mesh, int rank) {
    int position = troupe_mesh_position(mesh, rank);
    TROUPE_ASSERT(position >= 0, "rank %d is not in the mesh of %d ranks", rank, mesh->rank_count);
    return position;
}

static int coordinate_at(const struct troupe_mesh *mesh, int position, enum troupe_axis axis) {
    return position / mesh->stride[axis] % mesh->size[axis];
}

int troupe_mesh_coordinate(const struct troupe_mesh *mesh, int rank, enum troupe_axis axis) {
    return coordinate_at(mesh, position_of(mesh, rank), axis);
}

static void check_axes(struct troupe_axes axes) {
    bool dense = false, expert = false;
    for (int i = 0; i < axes.count; i++) {
        dense = dense || axes.axis[i] < TROUPE_PP;
        expert = expert || axes.axis[i] > TROUPE_PP;
        for (int j = 0; j < i; j++) {
            TROUPE_ASSERT(axes.axis[i] != axes.axis[j], "axis %s is named twice",
                          troupe_axis_name(axes.axis[i]));
        }
    }
    TROUPE_ASSERT(!(dense && expert), "%d axes of both the dense and the expert view", axes.count);
}

int troupe_mesh_group_size(const struct troupe_mesh *mesh, struct troupe_axes axes) {
    int size = 1;
    for (int i = 0; i < axes.count; i++) {
        size *= mesh->size[axes.axis[i]];
    }
    return size;
}

int troupe_mesh_group(const struct troupe_mesh *mesh, int rank, struct troupe_axes axes,
                      int *ranks_out) {
    check_axes(axes);
    int origin = position_of(mesh, rank); /* then with coordinate 0 on every axis of the group */
    for (int i = 0; i < axes.count; i++) {
        origin -= coordinate_at(mesh, origin, axes.axis[i]) * mesh->stride[axes.axis[i]];
    }
    int count = troupe_mesh_group_size(mesh, axes);
    for (int member = 0; member < count; member++) {
        int position = origin, rest = member;
        for (int i = axes.count - 1; i >= 0; i--) {
            position += rest % mesh->size[axes.axis[i]] * mesh->stride[axes.axis[i]];
            rest /= mesh->size[axes.axis[i]];
        }
        ranks_out[member] = mesh->ranks[position];
    }
    return count;
}

int troupe_mesh_group_index(const struct troupe_mesh *mesh, int rank, struct troupe_axes axes) {
    check_axes(axes);
    int position = position_of(mesh, rank), index = 0;
    for (int i = 0; i < axes.count; i++) {
        index = index * mesh->size[axes.axis[i]] + coordinate_at(mesh, position, axes.axis[i]);
    }
    return index;
}
