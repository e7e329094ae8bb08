/* SPDX-License-Identifier: Apache-2.0
 *
 * The test harness: one program per file, one function per claim, named as the claim.
 *
 *     static void full_ring_returns_again(void) { EXPECT_EQ(push(r, x), TROUPE_AGAIN); }
 *     int main(void) { TEST(full_ring_returns_again); return TEST_END(); }
 *
 * A failed expectation prints the place and both values and ends the test program with status 1;
 * nothing vanishes in release builds. Chance takes its seed from test_seed(), which prints it.
 */
#ifndef TROUPE_TESTS_TEST_H
#define TROUPE_TESTS_TEST_H

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/status.h"

enum { TEST_SKIPPED = 77 };

static int test_count __attribute__((unused)); /* by programs without claims */

#define TEST(claim)                                                                                \
    do {                                                                                           \
        printf("  %s\n", #claim);                                                                  \
        fflush(stdout);                                                                            \
        claim();                                                                                   \
        test_count++;                                                                              \
    } while (0)

#define TEST_END() (printf("%d claims hold\n", test_count), test_count > 0 ? 0 : 1)

#define TEST_FAIL(...)                                                                             \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, __func__);                              \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        exit(1);                                                                                   \
    } while (0)

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: expected %s:", __FILE__, __LINE__, __func__, #condition);  \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fputc('\n', stderr);                                                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Integers of any type that fits int64_t. */
#define EXPECT_EQ(actual, expected)                                                                \
    do {                                                                                           \
        int64_t test_a = (int64_t)(actual), test_e = (int64_t)(expected);                          \
        if (test_a != test_e) {                                                                    \
            TEST_FAIL("%s is %" PRId64 ", expected %s = %" PRId64, #actual, test_a, #expected,     \
                      test_e);                                                                     \
        }                                                                                          \
    } while (0)

#define EXPECT_OK(expr)                                                                            \
    do {                                                                                           \
        troupe_status test_s = (expr);                                                             \
        if (test_s != TROUPE_OK) {                                                                 \
            TEST_FAIL("%s: %s: %s", #expr, troupe_status_name(test_s), troupe_last_error());       \
        }                                                                                          \
    } while (0)

/* The status, and a part of the sentence that names the cause. */
#define EXPECT_ERROR(expr, status, part)                                                           \
    do {                                                                                           \
        troupe_status test_s = (expr);                                                             \
        if (test_s != (status)) {                                                                  \
            TEST_FAIL("%s: %s, expected %s", #expr, troupe_status_name(test_s), #status);          \
        }                                                                                          \
        if (strstr(troupe_last_error(), (part)) == NULL) {                                         \
            TEST_FAIL("%s: error \"%s\" does not say \"%s\"", #expr, troupe_last_error(), (part)); \
        }                                                                                          \
    } while (0)

#define EXPECT_STRING(actual, expected)                                                            \
    do {                                                                                           \
        const char *test_a = (actual), *test_e = (expected);                                       \
        if (strcmp(test_a, test_e) != 0) {                                                         \
            TEST_FAIL("%s is \"%s\", expected \"%s\"", #actual, test_a, test_e);                   \
        }                                                                                          \
    } while (0)

/* |actual - expected| <= tolerance; NaN never passes. */
#define EXPECT_NEAR(actual, expected, tolerance)                                                   \
    do {                                                                                           \
        double test_a = (actual), test_e = (expected), test_t = (tolerance);                       \
        if (!(fabs(test_a - test_e) <= test_t)) {                                                  \
            TEST_FAIL("%s is %.9g, expected %s = %.9g within %.3g", #actual, test_a, #expected,    \
                      test_e, test_t);                                                             \
        }                                                                                          \
    } while (0)

/* A fresh seed, or the one in TEST_SEED; always printed, so that a failure can be repeated. */
static inline uint64_t test_seed(void) {
    const char *text = getenv("TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0)
                                 : (uint64_t)now.tv_sec * 1000000007u + (uint64_t)now.tv_nsec;
    printf("  seed TEST_SEED=%" PRIu64 "\n", seed);
    return seed;
}

#endif
