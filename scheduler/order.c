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
    &troupe_order_fifo,
    &troupe_order_1f1b,
};

int troupe_order_unbounded(const struct troupe_graph *graph, int gang) {
    (void)graph;
    (void)gang;
    return INT_MAX;
}

static troupe_status load(const char *path, const struct troupe_order_policy **out) {
    const void *table = NULL;
    TROUPE_TRY(troupe_policy_load(path, "troupe_order_policy", &table));
    const struct troupe_order_policy *policy = table;
    if (policy->name == NULL || policy->in_flight == NULL || policy->pick == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "order policy %s leaves name, in_flight or pick empty", path);
    }
    *out = policy;
    return TROUPE_OK;
}

troupe_status troupe_order_find(const char *name, const struct troupe_order_policy **out) {
    if (troupe_policy_is_path(name)) {
        return load(name, out);
    }
    char known[256] = "";
    for (size_t i = 0; i < TROUPE_COUNT_OF(builtin); i++) {
        if (strcmp(builtin[i]->name, name) == 0) {
            *out = builtin[i];
            return TROUPE_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", builtin[i]->name);
    }
    return troupe_fail(TROUPE_ERROR_INVALID,
                       "order policy \"%s\" is not known; there are %s, or the path of a shared "
                       "object with a / in it",
                       name, known);
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
