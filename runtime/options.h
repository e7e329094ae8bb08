/* SPDX-License-Identifier: Apache-2.0
 *
 * The options in the environment, all of them in one table: what concerns a run on this machine
 * and not the model. The table is the documentation (`troupe info` prints it), the parser and the
 * struct; nothing else reads the environment.
 *
 *     struct troupe_options options;
 *     TROUPE_TRY(troupe_options_read(&options));
 *     wait_limits.spin_ns = (uint64_t)options.spin_us * 1000;
 *
 * Ownership: texts point into the environment; they last while nobody changes it.
 * Threads: read once at start. Failure: ERROR_INVALID names variable, value and what is accepted.
 */
#ifndef TROUPE_RUNTIME_OPTIONS_H
#define TROUPE_RUNTIME_OPTIONS_H

#include <stdint.h>
#include <stdio.h>

#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(field, kind, "VARIABLE", "default", "accepted", "help"); kinds: CHOICE, NUMBER, TEXT. */
#define TROUPE_OPTION_TABLE(X)                                                                     \
    X(log, CHOICE, "TROUPE_LOG", "warn", "error, warn, info, debug, trace",                        \
      "how much is logged to stderr")                                                              \
    X(host_id, TEXT, "TROUPE_HOST_ID", "", "any text",                                             \
      "name of this host; empty: the system's; ranks with one name share a machine")               \
    X(provider, CHOICE, "TROUPE_PROVIDER", "auto", "auto, shm, tcp, mpi",                          \
      "transport between processes; overrides comm.provider of the config unless auto")            \
    X(bind, CHOICE, "TROUPE_BIND", "yes", "yes, no", "bind each rank to its own cores")            \
    X(threads, NUMBER, "TROUPE_THREADS", "0", "0 to 1024",                                         \
      "threads of a rank that share its kernels; 0: one per core of the rank")                     \
    X(spin_us, NUMBER, "TROUPE_SPIN_US", "50", "0 to 1000000",                                     \
      "microseconds a waiting thread spins before it parks")                                       \
    X(stall_s, NUMBER, "TROUPE_STALL_S", "60", "0 to 86400",                                       \
      "seconds without progress after which a job ends and says what it waits for; 0: never")

#define TROUPE_OPTION_CHOICE const char *
#define TROUPE_OPTION_NUMBER int64_t
#define TROUPE_OPTION_TEXT   const char *

struct troupe_options {
#define TROUPE_OPTION_FIELD(field, kind, name, normal, accepted, help) TROUPE_OPTION_##kind field;
    TROUPE_OPTION_TABLE(TROUPE_OPTION_FIELD)
#undef TROUPE_OPTION_FIELD
};

/* Reads all options and sets the log level. A variable that begins with TROUPE_ and is not in the
 * table is logged as a warning: it is probably misspelt. An empty value means the default. */
troupe_status troupe_options_read(struct troupe_options *out);
/* One paragraph per option: name, value, default, accepted values, help. */
void troupe_options_print(const struct troupe_options *options, FILE *file);

#ifdef __cplusplus
}
#endif
#endif
