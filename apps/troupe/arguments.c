/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/troupe/arguments.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct argument *find(const struct argument *options, const char *name) {
    for (; options->name != NULL; options++) {
        if (strcmp(options->name, name) == 0) {
            return options;
        }
    }
    return NULL;
}

static int take_number(const struct command *command, const struct argument *option,
                       const char *value) {
    char *end = NULL;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < 1 || number > INT_MAX) {
        return command_usage(command, "%s %s: it takes a number of at least 1", option->name,
                             value);
    }
    *option->number = (int)number;
    return EXIT_DONE;
}

static int take_edit(const struct command *command, const struct argument *option,
                     const char *value) {
    struct config_edits *edits = option->edits;
    if (edits->count == CONFIG_EDITS_MAX) {
        return command_usage(command, "more than %d values set; put them into the config file",
                             CONFIG_EDITS_MAX);
    }
    char *assignment = edits->assignments[edits->count++];
    const char *key = option->key != NULL ? option->key : "";
    int length = snprintf(assignment, TROUPE_CONFIG_TEXT_BYTES, "%s%s%s", key,
                          option->key != NULL ? "=" : "", value);
    if (length >= TROUPE_CONFIG_TEXT_BYTES) {
        return command_usage(command, "%s: the value is longer than %d bytes", option->name,
                             TROUPE_CONFIG_TEXT_BYTES);
    }
    return EXIT_DONE;
}

static int take_value(const struct command *command, const struct argument *option,
                      const char *value) {
    if (value == NULL) {
        return command_usage(command, "%s needs a value", option->name);
    }
    if (option->number != NULL) {
        return take_number(command, option, value);
    }
    if (option->edits != NULL) {
        return take_edit(command, option, value);
    }
    *option->text = value;
    return EXIT_DONE;
}

int arguments_parse(const struct command *command, int argc, char **argv,
                    const struct argument *options) {
    int operands = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            argv[++operands] = argv[i];
            continue;
        }
        const struct argument *option = find(options, argv[i]);
        if (option == NULL) {
            command_usage(command, "there is no option %s", argv[i]);
            return -1;
        }
        if (option->flag != NULL) {
            *option->flag = true;
            continue;
        }
        i++;
        if (take_value(command, option, i < argc ? argv[i] : NULL) != EXIT_DONE) {
            return -1;
        }
    }
    return operands;
}

troupe_status config_load(struct troupe_config *config, const char *path,
                          const struct config_edits *edits) {
    troupe_config_init(config);
    if (path != NULL) {
        TROUPE_TRY(troupe_config_read(config, path));
    }
    for (int i = 0; i < edits->count; i++) {
        TROUPE_TRY(troupe_config_set(config, edits->assignments[i]));
    }
    return TROUPE_OK;
}
