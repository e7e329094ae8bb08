/* SPDX-License-Identifier: Apache-2.0 */
/* Options from an environment that the test sets: defaults, values, refusals, the printed table. */
#include "runtime/options.h"

#include <stdbool.h>

#include "runtime/log.h"
#include "runtime/version.h"
#include "tests/test.h"

static struct troupe_options read_options(void) {
    struct troupe_options options;
    EXPECT_OK(troupe_options_read(&options));
    return options;
}

static void empty_environment_gives_the_defaults(void) {
    EXPECT_EQ(clearenv(), 0);
    struct troupe_options options = read_options();
    EXPECT_STRING(options.log, "warn");
    EXPECT_STRING(options.host_id, "");
    EXPECT_STRING(options.provider, "auto");
    EXPECT_EQ(options.threads, 0);
    EXPECT(troupe_log_enabled(TROUPE_LEVEL_WARN) && !troupe_log_enabled(TROUPE_LEVEL_INFO));
}

static void values_are_read_and_the_log_level_is_set(void) {
    setenv("TROUPE_LOG", "debug", 1);
    setenv("TROUPE_HOST_ID", "node 7", 1);
    setenv("TROUPE_THREADS", "1024", 1);
    setenv("TROUPE_BIND", "", 1);
    struct troupe_options options = read_options();
    EXPECT_STRING(options.host_id, "node 7");
    EXPECT_EQ(options.threads, 1024);
    EXPECT_STRING(options.bind, "yes");
    EXPECT(troupe_log_enabled(TROUPE_LEVEL_DEBUG) && !troupe_log_enabled(TROUPE_LEVEL_TRACE));
}

static void expect_refused(const char *name, const char *value, const char *accepted) {
    clearenv();
    setenv(name, value, 1);
    struct troupe_options options = {.threads = -7};
    EXPECT_ERROR(troupe_options_read(&options), TROUPE_ERROR_INVALID, name);
    EXPECT(strstr(troupe_last_error(), accepted) != NULL, "%s", troupe_last_error());
    EXPECT_EQ(options.threads, -7); /* written only on success */
    clearenv();
}

static void bad_values_are_refused_with_what_is_accepted(void) {
    static const char *const numbers[] = {"-1", "1025", "fifty", "5x", "99999999999999999999"};
    for (int i = 0; i < 5; i++) {
        expect_refused("TROUPE_THREADS", numbers[i], "0 to 1024");
    }
    expect_refused("TROUPE_LOG", "loud", "error, warn, info, debug, trace");
    expect_refused("TROUPE_LOG", "war", "error, warn");
    expect_refused("TROUPE_PROVIDER", "auto, shm", "auto, shm, tcp, mpi");
}

static void printed_table_shows_every_option_and_its_value(void) {
    setenv("TROUPE_THREADS", "5", 1);
    struct troupe_options options = read_options();
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    troupe_options_print(&options, file);
    fclose(file);
#define EXPECT_LISTED(field, kind, name, normal, accepted, help)                                   \
    EXPECT(strstr(text, name) != NULL && strstr(text, help) != NULL, "%s", name);
    TROUPE_OPTION_TABLE(EXPECT_LISTED)
#undef EXPECT_LISTED
    EXPECT(strstr(text, "TROUPE_THREADS 5 (default \"0\"") != NULL, "%s", text);
    free(text);
}

static void version_is_the_projects(void) {
    EXPECT_STRING(troupe_version(), TROUPE_TEST_VERSION);
}

int main(void) {
    TEST(empty_environment_gives_the_defaults);
    TEST(values_are_read_and_the_log_level_is_set);
    TEST(bad_values_are_refused_with_what_is_accepted);
    TEST(printed_table_shows_every_option_and_its_value);
    TEST(version_is_the_projects);
    return TEST_END();
}
