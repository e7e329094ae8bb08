/* SPDX-License-Identifier: Apache-2.0
 *
 * Options and operands of a subcommand.
 *
 *     bool resume = false;
 *     struct config_edits edits = {0};
 *     const struct argument options[] = {{"--resume", .flag = &resume},
 *                                        {"--steps", .edits = &edits, .key = "train.steps"},
 *                                        {"--set", .edits = &edits},
 *                                        {0}};
 *     int operands = arguments_parse(&command_train, argc, argv, options);
 *     if (operands < 0) { return EXIT_USAGE; }               (argv[1 .. operands] are left)
 *
 * Ownership: texts point into argv. Threads: the main thread.
 * Failure: parse has printed what is wrong and the usage line.
 */
#ifndef TROUPE_APPS_TROUPE_ARGUMENTS_H
#define TROUPE_APPS_TROUPE_ARGUMENTS_H

#include <stdbool.h>

#include "apps/troupe/command.h"
#include "modules/train/config.h"

enum { CONFIG_EDITS_MAX = 64 };

/* key.path=value, to be put on top of a config file in this order. */
struct config_edits {
    char assignments[CONFIG_EDITS_MAX][TROUPE_CONFIG_TEXT_BYTES];
    int count;
};

/* What an option fills: one of these. */
struct argument {
    const char *name;           /* "--steps" */
    bool *flag;                 /* takes no value */
    int *number;                /* at least 1 */
    const char **text;          /* any text */
    struct config_edits *edits; /* value of `key`, or key.path=value itself */
    const char *key;
};

/* The list ends with an empty name. Returns the number of operands, or -1. */
int arguments_parse(const struct command *command, int argc, char **argv,
                    const struct argument *options);

/* Reads a file (NULL: only the defaults) and applies the edits; not resolved. */
troupe_status config_load(struct troupe_config *config, const char *path,
                          const struct config_edits *edits);

#endif
