/* SPDX-License-Identifier: Apache-2.0
 *
 * The subcommands of the program `troupe`: one file each, one entry in the table of main.c.
 *
 * Ownership: none. Threads: the main thread.
 * Failure: run returns the exit status; the sentence went to stderr.
 */
#ifndef TROUPE_APPS_TROUPE_COMMAND_H
#define TROUPE_APPS_TROUPE_COMMAND_H

#include "runtime/status.h"

/* EXIT_USAGE: the command line or the configuration is wrong; EXIT_FAILED: all else. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name;
    const char *usage;   /* after "troupe " */
    const char *summary; /* one line */
    const char *help;    /* the rest of `troupe help NAME` */
    /* argv[0] is the name of the command. */
    int (*run)(int argc, char **argv);
};

extern const struct command command_train;
extern const struct command command_caption;
extern const struct command command_evaluate;
extern const struct command command_data;
extern const struct command command_info;
extern const struct command command_profile;
extern const struct command command_route;
extern const struct command command_sim;
extern const struct command command_bench;

/* The exit status of a command that ended with this status. */
int command_exit(troupe_status status);
/* The same; a failure's sentence goes to stderr: "troupe train: ...". */
int command_end(const struct command *command, troupe_status status);
/* Prints the formatted reason and the usage line of the command; returns EXIT_USAGE. */
int command_usage(const struct command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
