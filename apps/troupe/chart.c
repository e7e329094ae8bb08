/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/troupe/chart.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "modules/nn/module.h"
#include "scheduler/gantt.h"

enum { RANKS_PRINTED_MAX = 16 };

static troupe_status write_file(const char *path, const struct troupe_gantt *gantt,
                                troupe_status (*write)(FILE *file,
                                                       const struct troupe_gantt *gantt)) {
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    troupe_status status = write(file, gantt);
    if (fclose(file) != 0 && status == TROUPE_OK) {
        status = troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    return status;
}

troupe_status chart_write(const struct chart_paths *paths, const struct troupe_schedule *schedule,
                          const struct troupe_bound_result *bound, const char *title) {
    const char *names[TROUPE_CONFIG_MODULES];
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        names[i] = troupe_module_classes()[i]->name;
    }
    const struct troupe_gantt gantt = {.schedule = *schedule,
                                       .module_names = names,
                                       .module_count = TROUPE_CONFIG_MODULES,
                                       .bound_ns = bound->ns,
                                       .title = title};
    if (paths->svg != NULL) {
        TROUPE_TRY(write_file(paths->svg, &gantt, troupe_gantt_write_svg));
    }
    return paths->trace != NULL ? write_file(paths->trace, &gantt, troupe_gantt_write_trace)
                                : TROUPE_OK;
}

static void print_row(const char *name, const struct troupe_rank_account *rank, double whole_ns) {
    printf("%-8s %6.1f", name, 100 * (double)rank->busy_ns / whole_ns);
    for (int i = 0; i < TROUPE_IDLE_COUNT; i++) {
        printf(" %10.1f", 100 * (double)rank->idle_ns[i] / whole_ns);
    }
    printf("\n");
}

void chart_print_account(const struct troupe_account *account,
                         const struct troupe_bound_result *bound) {
    double t = (double)account->makespan_ns;
    int ranks = account->graph->rank_count;
    char who[48] = "the longest path";
    if (bound->kind == TROUPE_BOUND_MACHINE) {
        snprintf(who, sizeof who, "what rank %d has to do", bound->rank);
    }
    printf("T %.4f ms, T* %.4f ms (%s), T/T* %.4f, idle %.1f %%\n\n%% of T     busy", t * 1e-6,
           (double)bound->ns * 1e-6, who, bound->ns > 0 ? t / (double)bound->ns : 1,
           100 - 100 * (double)account->total.busy_ns / (t * ranks));
    for (int i = 0; i < TROUPE_IDLE_COUNT; i++) {
        printf(" %10s", troupe_idle_name((enum troupe_idle)i));
    }
    printf("\n");
    for (int r = 0; r < ranks && ranks <= RANKS_PRINTED_MAX; r++) {
        char name[16];
        snprintf(name, sizeof name, "rank %d", r);
        print_row(name, &account->ranks[r], t);
    }
    print_row("all", &account->total, t * ranks);
}
