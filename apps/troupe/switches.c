/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/troupe/switches.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static troupe_status read_wish(const char *text, struct switch_wish *out) {
    char *end = NULL;
    errno = 0;
    long long step = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != ':' || end[1] == '\0' || step < 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "--switch %s: write it as STEP:POLICY, such as 100:colocated, "
                           "100:./other.yaml or 100:order=fifo",
                           text);
    }
    *out = (struct switch_wish){.step = step, .what = end + 1};
    return TROUPE_OK;
}

troupe_status switches_read(const struct config_edits *texts, struct switches *out) {
    *out = (struct switches){.count = 0};
    for (int i = 0; i < texts->count; i++) {
        struct switch_wish wish;
        TROUPE_TRY(read_wish(texts->assignments[i], &wish));
        int place = out->count++;
        for (; place > 0 && out->list[place - 1].step > wish.step; place--) {
            out->list[place] = out->list[place - 1];
        }
        out->list[place] = wish;
    }
    return TROUPE_OK;
}

static bool ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), ending_length = strlen(ending);
    return length >= ending_length && strcmp(text + length - ending_length, ending) == 0;
}

static troupe_status apply(const char *what, struct troupe_config *config) {
    static const char order[] = "order=";
    char assignment[TROUPE_CONFIG_TEXT_BYTES + 32];
    if (ends_with(what, ".yaml") || ends_with(what, ".yml")) {
        return troupe_config_read_placement(config, what);
    }
    if (strncmp(what, order, sizeof order - 1) == 0) {
        snprintf(assignment, sizeof assignment, "schedule.order=%s", what + sizeof order - 1);
    } else {
        snprintf(assignment, sizeof assignment, "placement.policy=%s", what);
    }
    return troupe_config_set(config, assignment);
}

troupe_status switch_apply(const struct switch_wish *wish, struct troupe_config *config) {
    TROUPE_TRY(apply(wish->what, config));
    return troupe_config_resolve(config);
}
