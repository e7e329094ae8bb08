/* SPDX-License-Identifier: Apache-2.0 */
/* The list of order policies. */
#include "scheduler/order.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "runtime/check.h"
#include "scheduler/order_internal.h"
#include "scheduler/policy_internal.h"

static const struct troupe_order_policy *const builtin[] = {
    &troupe_order_fifo,        &troupe_order_1f1b,        &troupe_order_gpipe,
    &troupe_order_interleaved, &troupe_order_three_phase, &troupe_order_zero_bubble,
    &troupe_order_fill,
};

troupe_status troupe_order_no_state(const struct troupe_order_setting *setting, void **state_out) {
    (void)setting;
    *state_out = NULL;
    return TROUPE_OK;
}

void troupe_order_keep_state(void *state) {
    (void)state;
}

void troupe_order_no_plan(void *state, int64_t step) {
    (void)state;
    (void)step;
}

int troupe_order_unbounded(const void *state, const struct troupe_graph *graph, int gang) {
    (void)state;
    (void)graph;
    (void)gang;
    return INT_MAX;
}

static bool is_complete(const void *table) {
    const struct troupe_order_policy *policy = table;
    return policy->create != NULL && policy->destroy != NULL && policy->begin_step != NULL &&
           policy->in_flight != NULL && policy->pick != NULL;
}

troupe_status troupe_order_find(const char *name, const struct troupe_order_policy **out) {
    static const struct troupe_policy_kind kind = {
        .what = "order policy",
        .symbol = "troupe_order_policy",
        .builtin = (const void *const *)builtin,
        .builtin_count = TROUPE_COUNT_OF(builtin),
        .required = "one of its slots",
        .complete = is_complete,
    };
    const void *table = NULL;
    TROUPE_TRY(troupe_policy_find(&kind, name, &table));
    *out = table;
    return TROUPE_OK;
}

const struct troupe_order_policy *troupe_order_builtin(int index) {
    return index >= 0 && index < (int)TROUPE_COUNT_OF(builtin) ? builtin[index] : NULL;
}

bool troupe_candidate_is_older(const struct troupe_candidate *a, const struct troupe_candidate *b) {
    if (a->ready != b->ready) {
        return a->ready < b->ready;
    }
    if (a->microbatch != b->microbatch) {
        return a->microbatch < b->microbatch;
    }
    return a->method < b->method;
}
