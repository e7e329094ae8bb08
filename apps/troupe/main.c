/* SPDX-License-Identifier: Apache-2.0 */
/* The program `troupe`: finds the subcommand and runs it. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "apps/troupe/command.h"
#include "comm/comm.h"
#include "modules/train/config.h"
#include "runtime/check.h"
#include "runtime/version.h"

static const struct command *const commands[] = {
    &command_train, &command_caption, &command_evaluate, &command_data,  &command_info,
    &command_route, &command_sim,     &command_profile,  &command_bench,
};

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

int command_exit(troupe_status status) {
    return status == TROUPE_OK ? EXIT_DONE
                               : (status == TROUPE_ERROR_INVALID ? EXIT_USAGE : EXIT_FAILED);
}

int command_end(const struct command *command, troupe_status status) {
    bool speaks = status != TROUPE_ERROR_ABORTED && troupe_last_error()[0] != '\0';
    if (status != TROUPE_OK && speaks) { /* else another rank has said why */
        fflush(stdout);
        fprintf(stderr, "troupe %s: %s\n", command->name, troupe_last_error());
    }
    return command_exit(status);
}

int command_usage(const struct command *command, const char *format, ...) {
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    if (troupe_comm_refuse(why)) { /* once for all ranks of a launched job */
        fprintf(stderr, "troupe %s: %s\nusage: troupe %s\n", command->name, why, command->usage);
    }
    return EXIT_USAGE;
}

static int help_all(FILE *file) {
    fprintf(file, "troupe %s: trains multimodal models with a parallel layout for each module\n\n",
            troupe_version());
    for (size_t i = 0; i < TROUPE_COUNT_OF(commands); i++) {
        fprintf(file, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(file, "  %-10s %s\n\n", "help",
            "this page; `troupe help COMMAND`; `troupe help config`");
    fprintf(file, "Start several ranks with `mpirun -n 4 troupe train ...`, with `srun --mpi=pmix "
                  "-n 4 troupe train ...`,\nor as threads of one process with --ranks 4.\n");
    return file == stdout ? EXIT_DONE : EXIT_USAGE;
}

static int no_command(const char *name) {
    fprintf(stderr, "troupe: there is no command '%s'\n", name);
    return help_all(stderr);
}

static int help_config(void) {
    printf("keys of a config file, and of --set key.path=value:\n");
    troupe_config_help(stdout);
    return EXIT_DONE;
}

static int help(int argc, char **argv) {
    if (argc < 2) {
        return help_all(stdout);
    }
    if (strcmp(argv[1], "config") == 0) {
        return help_config();
    }
    const struct command *command = find_command(argv[1]);
    if (command == NULL) {
        return no_command(argv[1]);
    }
    printf("usage: troupe %s\n\n%s\n\n%s", command->usage, command->summary, command->help);
    return EXIT_DONE;
}

static bool asks_for_help(const char *word) {
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        return help_all(stderr);
    }
    if (asks_for_help(argv[1])) {
        return help(argc - 1, argv + 1);
    }
    const struct command *command = find_command(argv[1]);
    return command != NULL ? command->run(argc - 1, argv + 1) : no_command(argv[1]);
}
