/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the program `troupe` and checks what it says and its exit status.
 *
 *     program_init(argc, argv);                  (argv[1]: the program)
 *     EXPECT_RUN(2, "did you mean 'train.steps'", "train x.yaml --set train.stepz=%d", 3);
 */
#ifndef TROUPE_TESTS_E2E_PROGRAM_H
#define TROUPE_TESTS_E2E_PROGRAM_H

#include <stdarg.h>
#include <sys/wait.h>

#include "tests/test.h"

enum { PROGRAM_OUTPUT = 1 << 16 };

static char program_path[1024];
static char program_output[PROGRAM_OUTPUT]; /* both streams of the last run */

static inline void program_init(int argc, char **argv) {
    EXPECT(argc == 2, "give the program as the argument");
    snprintf(program_path, sizeof program_path, "%s", argv[1]);
}

/* Exit status of `troupe ARGUMENTS`. */
static inline int program_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int program_run(const char *format, ...) {
    char command[4096];
    int used = snprintf(command, sizeof command, "'%s' ", program_path);
    va_list args;
    va_start(args, format);
    vsnprintf(command + used, sizeof command - (size_t)used - sizeof " 2>&1", format, args);
    va_end(args);
    strcat(command, " 2>&1");
    FILE *pipe = popen(command, "r");
    EXPECT(pipe != NULL, "%s", command);
    size_t bytes = fread(program_output, 1, PROGRAM_OUTPUT - 1, pipe);
    program_output[bytes] = '\0';
    int status = pclose(pipe);
    EXPECT(WIFEXITED(status), "%s was killed by signal %d:\n%s", command, WTERMSIG(status),
           program_output);
    return WEXITSTATUS(status);
}

/* The exit status, and a part of what is said. */
#define EXPECT_RUN(expected, part, ...)                                                            \
    do {                                                                                           \
        int test_status = program_run(__VA_ARGS__);                                                \
        if (test_status != (expected) || strstr(program_output, (part)) == NULL) {                 \
            TEST_FAIL("exit status %d, expected %d and \"%s\" in:\n%s", test_status, (expected),   \
                      (part), program_output);                                                     \
        }                                                                                          \
    } while (0)

#endif
