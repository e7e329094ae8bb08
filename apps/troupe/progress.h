/* SPDX-License-Identifier: Apache-2.0
 *
 * One line that tells how far something is: rewritten in place on a terminal, else a new line every
 * two seconds.
 *
 *     struct progress progress = {0};
 *     progress_show(&progress, "%d of %d pictures", done, total);
 *     progress_end(&progress, "%d pictures", total);
 *
 * Ownership: none. Threads: one. Failure: none.
 */
#ifndef TROUPE_APPS_TROUPE_PROGRESS_H
#define TROUPE_APPS_TROUPE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool lines;        /* even on a terminal: a launcher gives every rank one, but not its user */
    uint64_t shown_ns; /* of the last line; 0: none yet */
};

void progress_show(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The last line: always shown, and ended. */
void progress_end(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
