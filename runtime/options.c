/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/log.h"

enum kind { CHOICE, NUMBER, TEXT };

struct row {
    const char *name;
    enum kind kind;
    const char *normal;
    const char *accepted;
    const char *help;
    size_t offset; /* of the field in struct troupe_options */
};

static const struct row rows[] = {
#define ROW(field, kind, name, normal, accepted, help)                                             \
    {name, kind, normal, accepted, help, offsetof(struct troupe_options, field)},
    TROUPE_OPTION_TABLE(ROW)
#undef ROW
};

_Static_assert(offsetof(struct troupe_options, log) == 0, "the first row is TROUPE_LOG");

/* Position of `value` in a list such as "error, warn, info", or -1. */
static int choice_index(const char *list, const char *value) {
    size_t bytes = strlen(value);
    for (int index = 0;; index++) {
        size_t length = strcspn(list, ",");
        if (length == bytes && memcmp(list, value, bytes) == 0) {
            return index;
        }
        if (list[length] == '\0') {
            return -1;
        }
        list += length + 2;
    }
}

static bool parse_number(const char *accepted, const char *value, int64_t *out) {
    int64_t low = 0, high = 0;
    int read = sscanf(accepted, "%" SCNd64 " to %" SCNd64, &low, &high);
    TROUPE_ASSERT(read == 2, "range \"%s\"", accepted);
    char *end = NULL;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < low || number > high) {
        return false;
    }
    *out = number;
    return true;
}

static bool parse(const struct row *row, const char *value, void *field) {
    switch (row->kind) {
    case NUMBER:
        return parse_number(row->accepted, value, field);
    case CHOICE:
        if (choice_index(row->accepted, value) < 0) {
            return false;
        }
        *(const char **)field = value;
        return true;
    case TEXT:
        *(const char **)field = value;
        return true;
    }
    return false;
}

static troupe_status read_row(const struct row *row, struct troupe_options *options) {
    const char *value = getenv(row->name);
    bool given = value != NULL && value[0] != '\0';
    if (!parse(row, given ? value : row->normal, (char *)options + row->offset)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "environment: %s is \"%s\"; accepted: %s",
                           row->name, value, row->accepted);
    }
    return TROUPE_OK;
}

static bool is_known(const char *name, size_t bytes) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(rows); i++) {
        if (strlen(rows[i].name) == bytes && memcmp(rows[i].name, name, bytes) == 0) {
            return true;
        }
    }
    return false;
}

static void warn_of_unknown(void) {
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        size_t bytes = strcspn(*entry, "=");
        if (strncmp(*entry, "TROUPE_", strlen("TROUPE_")) == 0 && !is_known(*entry, bytes)) {
            TROUPE_LOG_WARN("options", "%.*s is no option; `troupe info` lists them", (int)bytes,
                            *entry);
        }
    }
}

troupe_status troupe_options_read(struct troupe_options *out) {
    struct troupe_options options;
    for (size_t i = 0; i < TROUPE_COUNT_OF(rows); i++) {
        TROUPE_TRY(read_row(&rows[i], &options));
    }
    /* the choices of TROUPE_LOG are the levels, in their order */
    troupe_log_set_level((enum troupe_log_level)choice_index(rows[0].accepted, options.log));
    warn_of_unknown();
    *out = options;
    return TROUPE_OK;
}

void troupe_options_print(const struct troupe_options *options, FILE *file) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(rows); i++) {
        const struct row *row = &rows[i];
        const void *field = (const char *)options + row->offset;
        fprintf(file, "%s ", row->name);
        if (row->kind == NUMBER) {
            fprintf(file, "%" PRId64, *(const int64_t *)field);
        } else {
            fprintf(file, "\"%s\"", *(const char *const *)field);
        }
        fprintf(file, " (default \"%s\"; %s)\n    %s\n", row->normal, row->accepted, row->help);
    }
}
