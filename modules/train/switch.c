/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/switch.h"

#include <stdio.h>

#include "modules/train/agree.h"
#include "modules/train/relabel.h"
#include "modules/train/state_move.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { BYTES_PER_ELEMENT = TROUPE_STATE_KINDS * sizeof(float) };

struct change {
    const struct troupe_switch_options *options;
    struct troupe_fleet *old;
    struct troupe_fleet *next;
    struct troupe_plan *plan; /* until the fleet takes it */
    struct troupe_state_map from, to;
    struct troupe_state_part *from_parts, *to_parts; /* by tensor */
    int *rank_of_role;
    int *host_of_rank;
    struct troupe_state_move *move;
    struct troupe_switch_report report;
    uint64_t plan_ns;
    uint64_t fingerprint; /* of the plan */
};

/* ---- before anything changes ---- */

static uint64_t add_int(uint64_t hash, int64_t value) {
    return (hash ^ (uint64_t)value) * UINT64_C(0x100000001b3); /* FNV-1a, a word at a time */
}

static uint64_t fingerprint_of(const struct troupe_plan *plan) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_module_plan *module = &plan->modules[i];
        hash = add_int(add_int(add_int(hash, module->tp), module->dp), module->pp);
        for (int r = 0; r < module->mesh.rank_count; r++) {
            hash = add_int(hash, module->mesh.ranks[r]);
        }
        for (int s = 0; s <= module->pp; s++) {
            hash = add_int(hash, module->layer_begin[s]);
        }
    }
    return hash;
}

static troupe_status find_hosts(struct change *change) {
    const troupe_comm *comm = change->old->options.comm;
    int ranks = troupe_comm_size(comm);
    TROUPE_TRY(TROUPE_NEW(&change->host_of_rank, ranks));
    for (int r = 0; r < ranks; r++) {
        change->host_of_rank[r] = troupe_comm_host(comm, r);
    }
    return TROUPE_NEW(&change->rank_of_role, ranks);
}

/* Only placement and schedule may be others. */
static troupe_status check_config(const struct change *change) {
    static const char *const sections[] = {"placement.", "schedule.", NULL};
    const char *key =
        troupe_config_difference(change->old->options.config, change->options->config, sections);
    return key == NULL ? TROUPE_OK
                       : troupe_fail(TROUPE_ERROR_INVALID,
                                     "a switch may change placement and schedule, not %s", key);
}

static troupe_status make_plan(struct change *change) {
    const struct troupe_config *config = change->options->config;
    int ranks = change->old->plan->rank_count;
    int64_t needed = 0, kept = 0;
    TROUPE_TRY(find_hosts(change));
    TROUPE_TRY(troupe_plan_create(config, ranks, &change->plan));
    TROUPE_TRY(troupe_state_map_of_plan(&config->model, change->old->plan, &change->from));
    TROUPE_TRY(troupe_state_map_of_plan(&config->model, change->plan, &change->to));
    TROUPE_TRY(troupe_relabel(&(struct troupe_relabel_options){.from = &change->from,
                                                               .to = &change->to,
                                                               .host_of_rank = change->host_of_rank,
                                                               .rank_count = ranks},
                              change->rank_of_role, &needed, &kept));
    troupe_plan_relabel(change->plan, change->rank_of_role);
    troupe_state_map_relabel(&change->to, change->rank_of_role);
    for (int r = 0; r < ranks; r++) {
        change->report.relabelled += change->rank_of_role[r] != r;
    }
    change->report.bytes_bound = (needed - kept) * BYTES_PER_ELEMENT;
    change->report.bytes_state = needed * BYTES_PER_ELEMENT;
    change->fingerprint = fingerprint_of(change->plan);
    return TROUPE_OK;
}

static troupe_status build_fleet(struct change *change) {
    const struct troupe_switch_options *o = change->options;
    struct troupe_fleet_options options = change->old->options;
    struct troupe_plan *plan = change->plan;
    options.config = o->config;
    options.generation = 1 - options.generation;
    options.alone = true;
    change->plan = NULL; /* the fleet's from here on */
    TROUPE_TRY(troupe_fleet_create(&options, plan, &change->next));
    TROUPE_TRY(troupe_fleet_prepare_samples(change->next, o->first_step, o->last_step));
    return troupe_runtime_prepare(change->next->runtime);
}

static troupe_status plan_move(struct change *change) {
    const struct troupe_fleet *old = change->old;
    TROUPE_TRY(troupe_fleet_state(old, &change->from, &change->from_parts));
    TROUPE_TRY(troupe_fleet_state(change->next, &change->to, &change->to_parts));
    uint64_t begin_ns = troupe_clock_ns();
    TROUPE_TRY(troupe_state_move_create(
        &(struct troupe_state_move_options){.comm = old->options.comm,
                                            .stream = old->options.stream,
                                            .host_of_rank = change->host_of_rank,
                                            .from = &change->from,
                                            .to = &change->to,
                                            .from_parts = change->from_parts,
                                            .to_parts = change->to_parts},
        &change->move));
    change->plan_ns += troupe_clock_ns() - begin_ns;
    return TROUPE_OK;
}

/* All that can go wrong on this rank alone. */
static troupe_status prepare(struct change *change) {
    TROUPE_TRY(check_config(change));
    uint64_t begin_ns = troupe_clock_ns();
    TROUPE_TRY(make_plan(change));
    change->plan_ns = troupe_clock_ns() - begin_ns;
    TROUPE_TRY(build_fleet(change));
    return plan_move(change);
}

/* ---- the change ---- */

/* Only the transport can fail here. */
static troupe_status carry_out(struct change *change) {
    TROUPE_TRY(troupe_state_move_run(change->move));
    troupe_fleet_stop(change->old);
    return troupe_fleet_start(change->next);
}

static troupe_status add_up(struct change *change, uint64_t begin_ns) {
    struct troupe_switch_report *report = &change->report;
    int64_t bytes = (int64_t)troupe_state_move_bytes(change->move).received;
    double ms[2] = {(double)change->plan_ns * 1e-6, 0};
    ms[1] = (double)(troupe_clock_ns() - begin_ns) * 1e-6;
    TROUPE_TRY(troupe_group_all_reduce(change->options->world, TROUPE_SUM, TROUPE_ELEMENT_INT64,
                                       &bytes, 1));
    TROUPE_TRY(
        troupe_group_all_reduce(change->options->world, TROUPE_MAX, TROUPE_ELEMENT_FLOAT64, ms, 2));
    report->step = change->options->first_step;
    report->bytes_moved = bytes;
    report->plan_ms = ms[0];
    report->pause_ms = ms[1];
    return TROUPE_OK;
}

/* A rank that fails half-way must not leave the others waiting. */
static troupe_status end_job(const struct change *change, troupe_status status) {
    char why[1024];
    snprintf(why, sizeof why, "%s", troupe_last_error());
    troupe_comm_abort(change->old->options.comm, why);
    return troupe_fail(status, "%s", why);
}

static troupe_status run(struct change *change) {
    uint64_t begin_ns = troupe_clock_ns();
    troupe_status status = prepare(change);
    TROUPE_TRY(troupe_agree(change->options->world, status, change->fingerprint));
    status = carry_out(change);
    if (status == TROUPE_OK) {
        status = add_up(change, begin_ns);
    }
    return status == TROUPE_OK ? TROUPE_OK : end_job(change, status);
}

static void clean_up(struct change *change) {
    troupe_state_move_destroy(change->move);
    troupe_free(change->from_parts);
    troupe_free(change->to_parts);
    troupe_free(change->rank_of_role);
    troupe_free(change->host_of_rank);
    troupe_state_map_fini(&change->from);
    troupe_state_map_fini(&change->to);
    troupe_plan_destroy(change->plan);
}

troupe_status troupe_switch_run(const struct troupe_switch_options *options,
                                struct troupe_fleet **fleet, struct troupe_switch_report *out) {
    struct change change = {.options = options, .old = *fleet};
    troupe_status status = run(&change);
    clean_up(&change);
    if (status != TROUPE_OK) {
        troupe_fleet_destroy(change.next);
        return status;
    }
    troupe_fleet_destroy(change.old);
    *fleet = change.next;
    *out = change.report;
    return TROUPE_OK;
}
