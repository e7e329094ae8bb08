/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration of a training job: a YAML file, then `--set key.path=value` on top of it. One
 * table (config.c) says every key's type, default and meaning; it serves reading, writing the
 * resolved configuration, `troupe help config` and the "did you mean" of an unknown key.
 *
 *     troupe_config_init(&config);
 *     TROUPE_TRY(troupe_config_read(&config, "demo.yaml"));
 *     TROUPE_TRY(troupe_config_set(&config, "train.steps=10"));
 *     TROUPE_TRY(troupe_config_resolve(&config));
 *
 * Ownership: plain data, strings are stored inside. Threads: plain data.
 * Failure: ERROR_IO or ERROR_INVALID, one sentence with file, line and key; config then is
 * half-filled and only good for another init.
 */
#ifndef TROUPE_MODULES_TRAIN_CONFIG_H
#define TROUPE_MODULES_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "modules/nn/config.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TROUPE_CONFIG_TEXT_BYTES = 512,
    TROUPE_CONFIG_LIST_MAX = 64,
};

struct troupe_config_list {
    int values[TROUPE_CONFIG_LIST_MAX];
    int count;
};

struct troupe_config_placement {
    char ranks[TROUPE_CONFIG_TEXT_BYTES]; /* "0-3"; "" when the policy chooses */
    int tp, cp, dp, pp, ep, etp;          /* 0: not given */
    bool sp;
    struct troupe_config_list layers; /* per pipeline stage; empty: near-even */
    struct troupe_config_list shares; /* of image work, per DP shard; empty: all alike */
};

struct troupe_config_synthetic {
    int samples; /* 0: no synthetic data */
    int images_min, images_max;
    int side_min;           /* of a picture in pixels; 0: the patch */
    int text_min, text_max; /* caption bytes */
    double text_only;       /* fraction of samples without pictures */
};

struct troupe_config {
    struct troupe_model_config model;
    struct {
        char train[TROUPE_CONFIG_TEXT_BYTES];   /* glob of shards */
        char heldout[TROUPE_CONFIG_TEXT_BYTES]; /* glob of shards, or "" */
        char index[TROUPE_CONFIG_TEXT_BYTES];   /* of the training shards; "": beside the first */
        int max_images;
        bool skip_undecodable;
        bool truncate;
        char assign[TROUPE_CONFIG_TEXT_BYTES]; /* images to encoder shards: contiguous, balanced */
        struct troupe_config_synthetic synthetic;
    } data;
    struct {
        char run_dir[TROUPE_CONFIG_TEXT_BYTES];
        int64_t seed;
        int steps;
        int global_batch;
        int microbatches;
        double lr, lr_min;
        int warmup;
        double betas[2];
        double eps;
        double weight_decay;
        double clip; /* 0: off */
        char dtype[TROUPE_CONFIG_TEXT_BYTES];
        char device[TROUPE_CONFIG_TEXT_BYTES];
        int workers;          /* threads per rank, 0: its share of the cores */
        int checkpoint_every; /* steps; 0: only at the end */
    } train;
    struct {
        char policy[TROUPE_CONFIG_TEXT_BYTES];
        struct troupe_config_placement module[TROUPE_CONFIG_MODULES];
    } placement;
    struct {
        char order[TROUPE_CONFIG_TEXT_BYTES];
        char mode[TROUPE_CONFIG_TEXT_BYTES];  /* dynamic, static */
        char costs[TROUPE_CONFIG_TEXT_BYTES]; /* measured, roofline, or a profile's path */
        int look_ahead;
        int credits; /* messages in flight per edge */
        int slots;   /* activation slots per actor; 0: pipeline depth */
    } schedule;
    struct {
        char provider[TROUPE_CONFIG_TEXT_BYTES];
        bool windows;
        char serialize[TROUPE_CONFIG_TEXT_BYTES]; /* auto, true, false */
        double stall_s;
    } comm;
};

/* All defaults. */
void troupe_config_init(struct troupe_config *config);
/* Reads a YAML file over what is there. An unknown key names file, line and the nearest key. */
troupe_status troupe_config_read(struct troupe_config *config, const char *path);
/* Reads a file that holds what stands under `placement:` of a config, or that word with it, in
 * place of the placement that is there. */
troupe_status troupe_config_read_placement(struct troupe_config *config, const char *path);
/* "train.steps=10"; lists as "placement.llm.layers=[2,1,1]". */
troupe_status troupe_config_set(struct troupe_config *config, const char *assignment);
/* Checks what can be checked without data and ranks; fills derived defaults. */
troupe_status troupe_config_resolve(struct troupe_config *config);
/* The first key whose values differ and that begins with none of `except` (a list that ends with
 * NULL); NULL if there is none. */
const char *troupe_config_difference(const struct troupe_config *a, const struct troupe_config *b,
                                     const char *const *except);
/* Writes every key as YAML that troupe_config_read accepts. */
void troupe_config_write(const struct troupe_config *config, FILE *file);
/* Prints every key with type, default and meaning. */
void troupe_config_help(FILE *file);

#ifdef __cplusplus
}
#endif
#endif
