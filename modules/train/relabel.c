/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/relabel.h"

#include "runtime/memory.h"
#include "scheduler/assignment.h"

/* n ranks; roles are numbered as they. */
struct relabelling {
    const struct troupe_relabel_options *options;
    int n;
    int64_t *overlap; /* (n, n): elements of a role that a rank holds */
    bool *used;       /* (n): a role of the placement */
    int host_count;
    int *members;        /* (hosts, n): the used ranks of each host */
    int *member_count;   /* (hosts) */
    int64_t *host_gains; /* (hosts, hosts): most that can stay if a host plays another */
    int *host_of_role;   /* (hosts): which host plays it */
    int64_t *gains;      /* (n, n): scratch */
    int *choice;         /* (n): scratch */
};

/* ---- what ranks hold of what roles need ---- */

static void add_overlap(struct relabelling *r, const struct troupe_layout *from,
                        const struct troupe_layout *to, int64_t tensors, int64_t *needed) {
    for (int i = 0; i < to->piece_count; i++) {
        const struct troupe_layout_piece *need = &to->pieces[i];
        *needed += tensors * troupe_box_elements(&need->box);
        r->used[need->rank] = true;
        for (int j = 0; j < from->piece_count; j++) {
            const struct troupe_layout_piece *have = &from->pieces[j];
            struct troupe_box common;
            if (troupe_box_intersect(&need->box, &have->box, &common)) {
                r->overlap[(int64_t)need->rank * r->n + have->rank] +=
                    tensors * troupe_box_elements(&common);
            }
        }
    }
}

/* Once for all tensors that have the same layouts. */
static troupe_status find_overlap(struct relabelling *r, int64_t *needed) {
    const struct troupe_state_map *from = r->options->from, *to = r->options->to;
    int64_t *tensors = NULL; /* (from classes, to classes) */
    TROUPE_TRY(TROUPE_NEW(&tensors, from->class_count * to->class_count));
    for (int t = 0; t < to->tensor_count; t++) {
        tensors[from->class_of_tensor[t] * to->class_count + to->class_of_tensor[t]]++;
    }
    for (int a = 0; a < from->class_count; a++) {
        for (int b = 0; b < to->class_count; b++) {
            int64_t count = tensors[a * to->class_count + b];
            if (count > 0) {
                add_overlap(r, &from->layouts[a], &to->layouts[b], count, needed);
            }
        }
    }
    troupe_free(tensors);
    return TROUPE_OK;
}

/* ---- hosts ---- */

static void find_hosts(struct relabelling *r) {
    for (int rank = 0; rank < r->n; rank++) {
        int host = r->options->host_of_rank[rank];
        r->host_count = host >= r->host_count ? host + 1 : r->host_count;
        if (r->used[rank]) {
            r->members[host * r->n + r->member_count[host]++] = rank;
        }
    }
}

/* The best way for the ranks of host b to play the roles of host a, which are as many. */
static troupe_status assign_members(struct relabelling *r, int a, int b, int64_t *gain_out) {
    const int *roles = r->members + a * r->n, *ranks = r->members + b * r->n;
    int count = r->member_count[a];
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < count; j++) {
            r->gains[i * count + j] = r->overlap[(int64_t)roles[i] * r->n + ranks[j]];
        }
    }
    TROUPE_TRY(troupe_assign(r->gains, count, r->choice));
    *gain_out = 0;
    for (int i = 0; i < count; i++) {
        *gain_out += r->gains[i * count + r->choice[i]];
    }
    return TROUPE_OK;
}

/* A host that plays one of another size is worth less than any allowed assignment. */
static troupe_status assign_hosts(struct relabelling *r, int64_t needed) {
    for (int a = 0; a < r->host_count; a++) {
        for (int b = 0; b < r->host_count; b++) {
            int64_t gain = 0;
            if (r->member_count[a] == r->member_count[b]) {
                TROUPE_TRY(assign_members(r, a, b, &gain));
                gain += needed + 1;
            }
            r->host_gains[a * r->host_count + b] = gain;
        }
    }
    return troupe_assign(r->host_gains, r->host_count, r->host_of_role);
}

static troupe_status assign_ranks(struct relabelling *r, int *rank_of_role, int64_t *kept) {
    for (int role = 0; role < r->n; role++) {
        rank_of_role[role] = role; /* those that are not used */
    }
    *kept = 0;
    for (int a = 0; a < r->host_count; a++) {
        int b = r->host_of_role[a];
        int64_t gain = 0;
        TROUPE_TRY(assign_members(r, a, b, &gain));
        *kept += gain;
        for (int i = 0; i < r->member_count[a]; i++) {
            rank_of_role[r->members[a * r->n + i]] = r->members[b * r->n + r->choice[i]];
        }
    }
    return TROUPE_OK;
}

/* ---- the call ---- */

static troupe_status run(struct relabelling *r, int *rank_of_role, int64_t *needed, int64_t *kept) {
    int n = r->n;
    TROUPE_TRY(TROUPE_NEW(&r->overlap, n * n));
    TROUPE_TRY(TROUPE_NEW(&r->used, n));
    TROUPE_TRY(TROUPE_NEW(&r->members, n * n));
    TROUPE_TRY(TROUPE_NEW(&r->member_count, n));
    TROUPE_TRY(TROUPE_NEW(&r->host_gains, n * n));
    TROUPE_TRY(TROUPE_NEW(&r->host_of_role, n));
    TROUPE_TRY(TROUPE_NEW(&r->gains, n * n));
    TROUPE_TRY(TROUPE_NEW(&r->choice, n));
    *needed = 0;
    TROUPE_TRY(find_overlap(r, needed));
    find_hosts(r);
    TROUPE_TRY(assign_hosts(r, *needed));
    return assign_ranks(r, rank_of_role, kept);
}

troupe_status troupe_relabel(const struct troupe_relabel_options *options, int *rank_of_role_out,
                             int64_t *needed_out, int64_t *kept_out) {
    struct relabelling r = {.options = options, .n = options->rank_count};
    troupe_status status = run(&r, rank_of_role_out, needed_out, kept_out);
    troupe_free(r.overlap);
    troupe_free(r.used);
    troupe_free(r.members);
    troupe_free(r.member_count);
    troupe_free(r.host_gains);
    troupe_free(r.host_of_role);
    troupe_free(r.gains);
    troupe_free(r.choice);
    return status;
}
