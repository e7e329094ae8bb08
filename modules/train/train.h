/* SPDX-License-Identifier: Apache-2.0
 *
 * A training job on one rank: the graph vision -> projector -> llm, each module in its own layout
 * on its own ranks, as actors of a troupe_runtime. Every rank of the job makes the same calls.
 *
 *     troupe_train_create(&(struct troupe_train_options){.config = &config, .comm = comm}, &train);
 *     while (troupe_train_position(train) < config.train.steps) {
 *         TROUPE_TRY(troupe_train_step(train, &report));
 *     }
 *     troupe_train_save(train);
 *
 * The loss is the sum of -log p over the target tokens of the global batch divided by their
 * number; every gradient reduction is a plain sum.
 *
 * Ownership: comm and workers borrowed for the life of the object. Threads: the rank's thread.
 * Failure: a sentence that names what was seen; after a failed step the object is only good for
 * destroy. ERROR_NUMERIC names the first module that produced a value that is not finite.
 */
#ifndef TROUPE_MODULES_TRAIN_TRAIN_H
#define TROUPE_MODULES_TRAIN_TRAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "comm/comm.h"
#include "modules/nn/module.h"
#include "modules/train/config.h"
#include "modules/train/report.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct troupe_train troupe_train;

struct troupe_train_options {
    const struct troupe_config *config; /* resolved */
    troupe_comm *comm;
    troupe_workers *workers; /* team that helps this rank's kernels, or NULL; borrowed */
    const char *resume;      /* checkpoint directory, or NULL: start at step 0 */
};

troupe_status troupe_train_create(const struct troupe_train_options *options, troupe_train **out);
void troupe_train_destroy(troupe_train *train);

/* Steps done so far, those before a resume included. */
int64_t troupe_train_position(const troupe_train *train);
troupe_status troupe_train_step(troupe_train *train, struct troupe_step_report *report);

/* Between two steps: goes on with the placement and the schedule of `config`, in which nothing else
 * may differ. A switch that fails leaves all as it was and says why, unless the transport failed.
 */
troupe_status troupe_train_switch(troupe_train *train, const struct troupe_config *config,
                                  struct troupe_switch_report *report);
/* Every rank calls it with what it did alone (reading a file, say): fails on all if that failed on
 * one, with its last error. */
troupe_status troupe_train_agree(troupe_train *train, troupe_status status);

/* Whether the job can go on: false after a failure of the transport. */
bool troupe_train_is_alive(const troupe_train *train);

/* Writes run_dir/step-N with all ranks: under a temporary name, synchronised, then renamed. */
troupe_status troupe_train_save(troupe_train *train);

/* Adds the task times of the latest step to a profile (modules/train/costs.h). Rank 0 only. */
void troupe_train_write_profile(const troupe_train *train, FILE *file);

/* Keys of the config that the placement policy has not followed; "": none. */
const char *troupe_train_ignored(const troupe_train *train);
/* "vision dp 4 on ranks 0-3, ...": one line a module, then islands; valid while train lives. */
const char *troupe_train_describe(const troupe_train *train);

/* Calls visit for every parameter of this rank's shards, module by module. For tests and tools. */
void troupe_train_visit(troupe_train *train,
                        void (*visit)(void *arg, const struct troupe_parameter *parameter,
                                      const struct troupe_shard *shard, int dp_index),
                        void *arg);

/* Makes the next progress call print what every actor waits for; safe in a signal handler. */
void troupe_train_request_report(troupe_train *train);

#ifdef __cplusplus
}
#endif
#endif
