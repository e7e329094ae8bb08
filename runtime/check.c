/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void troupe_check_failed(const char *file, int line, const char *function, const char *condition,
                         const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s:%d: %s: assertion `%s' failed: %s\n", file, line, function, condition,
            text);
    fflush(NULL);
    abort();
}
