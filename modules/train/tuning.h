/* SPDX-License-Identifier: Apache-2.0
 *
 * How many layers each pipeline stage and how much of the image work each encoder shard should
 * have: moves one layer, or one part of a share, from one to another as long as the simulated steps
 * get shorter. The last stage also has the head, the first ones wait for the encoder, so even is
 * seldom best.
 *
 *     struct troupe_tuning tuning;
 *     TROUPE_TRY(troupe_tune(&options, &config, &tuning));
 *     config.placement.module[2].layers, .module[0].shares; tuning.ns of tuning.before_ns
 *
 * Layers of a module with pp above 1 are moved, and shares of the vision encoder with dp above 1
 * where data.assign is balanced; what the config says of them is where the search begins. Shares
 * that rise or fall evenly from the first shard to the last are tried before single moves.
 *
 * Ownership: the caller's storage. Threads: one. Failure: what the simulation of the config says.
 */
#ifndef TROUPE_MODULES_TRAIN_TUNING_H
#define TROUPE_MODULES_TRAIN_TUNING_H

#include "modules/train/simulation.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_tuning_options {
    int rank_count;
    const struct troupe_cluster *cluster;
    const char *profile; /* path; NULL: the cluster's roofline */
    int64_t step;        /* the first of those simulated */
    int trials_max;      /* simulations, at most; 0: 300 */
};

struct troupe_tuning {
    int trials;
    int64_t before_ns; /* the simulated steps together */
    int64_t ns;        /* with what has been found */
};

/* `config` is resolved, and gets layers and shares where better ones are found. */
troupe_status troupe_tune(const struct troupe_tuning_options *options, struct troupe_config *config,
                          struct troupe_tuning *out);

#ifdef __cplusplus
}
#endif
#endif
