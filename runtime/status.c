/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_TEXT_BYTES = 1024 };

static _Thread_local char last_error[ERROR_TEXT_BYTES];

const char *troupe_status_name(troupe_status status) {
    switch (status) {
#define CASE_NAME(name, value, text)                                                               \
    case TROUPE_##name:                                                                            \
        return "TROUPE_" #name;
        TROUPE_STATUS_TABLE(CASE_NAME)
#undef CASE_NAME
    }
    return "unknown status";
}

const char *troupe_status_text(troupe_status status) {
    switch (status) {
#define CASE_TEXT(name, value, text)                                                               \
    case TROUPE_##name:                                                                            \
        return text;
        TROUPE_STATUS_TABLE(CASE_TEXT)
#undef CASE_TEXT
    }
    return "unknown status";
}

troupe_status troupe_fail(troupe_status status, const char *format, ...) {
    char text[ERROR_TEXT_BYTES]; /* the arguments may point into last_error */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(last_error, text, sizeof text);
    return status;
}

troupe_status troupe_fail_in(troupe_status status, const char *format, ...) {
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used >= 0 && used + 2 < (int)sizeof text) {
        size_t begin = (size_t)used + 2;
        size_t bytes = strnlen(last_error, sizeof text - begin - 1);
        memcpy(text + used, ": ", 2);
        memcpy(text + begin, last_error, bytes);
        text[begin + bytes] = '\0';
    }
    memcpy(last_error, text, sizeof text);
    return status;
}

const char *troupe_last_error(void) {
    return last_error;
}
