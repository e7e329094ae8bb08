/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe sim` and `troupe profile`, the pictures that they and `troupe train` draw, and what
 * metrics.jsonl says of the schedule. */
#include "runtime/memory.h"
#include "tests/e2e/program.h"
#include "tests/unit/modules/data_files.h"

static struct test_folder folder;
static const char *config;

static const char placement[] =
    "--ranks 4 --set placement.vision.ranks=0-3 --set placement.vision.dp=4 "
    "--set placement.llm.ranks=0-3 --set placement.llm.pp=2 --set placement.llm.dp=2 "
    "--set placement.policy=manual";

static void write_config(void) {
    static const char text[] =
        "model:\n"
        "  vision: {layers: 1, hidden: 24, heads: 3, patch: 8, image: 32}\n"
        "  projector: {hidden: 16}\n"
        "  llm: {layers: 2, hidden: 32, heads: 4, kv_heads: 2, ffn: 48, sequence: 64}\n"
        "data: {synthetic: {samples: 40, text_max: 20}}\n"
        "train: {seed: 3, steps: 3, global_batch: 8, microbatches: 4}\n";
    config = test_path(&folder, "config.yaml");
    test_write(config, text, sizeof text - 1);
}

/* The number behind `name` in the program's output. */
static double number_after(const char *text, const char *name) {
    const char *at = strstr(text, name);
    EXPECT(at != NULL, "no %s in:\n%s", name, text);
    return strtod(at + strlen(name), NULL);
}

static void expect_in_file(const char *name, const char *const *parts, size_t count) {
    char path[512];
    uint8_t *data = NULL;
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/%s", folder.path, name);
    EXPECT_OK(troupe_file_read(path, &data, &bytes));
    for (size_t i = 0; i < count; i++) {
        EXPECT(memmem(data, bytes, parts[i], strlen(parts[i])) != NULL, "no %s in %s", parts[i],
               name);
    }
    troupe_free(data);
}

static const char *const svg_parts[] = {"<svg ",  "vision F",          "llm W", "T* ", "rank 3</t",
                                        "</svg>", "gradient reduction"};
static const char *const trace_parts[] = {"\"traceEvents\"", "llm stage 1 dp 1 forward 3",
                                          "lower bound T*", "\"reductions\""};

static void every_order_is_simulated(void) {
    static const char *const orders[] = {"fifo", "1f1b", "three_phase", "fill"};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        EXPECT_RUN(0, "T/T*", "sim %s %s --order %s --svg %s/sim.svg --trace %s/sim.json", config,
                   placement, orders[i], folder.path, folder.path);
        EXPECT(number_after(program_output, "T/T* ") >= 1, "%s", program_output);
        expect_in_file("sim.svg", svg_parts, sizeof svg_parts / sizeof svg_parts[0]);
        expect_in_file("sim.json", trace_parts, sizeof trace_parts / sizeof trace_parts[0]);
    }
}

static void a_cluster_file_changes_the_time(void) {
    EXPECT_RUN(0, "T/T*", "sim %s %s", config, placement);
    double before = number_after(program_output, "T ");
    EXPECT_RUN(0, "launch_ns: 10000", "sim %s --print-cluster", config);
    char path[512];
    static const char text[] = "launch_ns: 100000 # ten times\n";
    snprintf(path, sizeof path, "%s/slow.cluster", folder.path);
    test_write(path, text, sizeof text - 1);
    EXPECT_RUN(0, "T/T*", "sim %s %s --cluster %s", config, placement, path);
    EXPECT(number_after(program_output, "T ") > 5 * before, "%s", program_output);
    EXPECT_RUN(1, "nowhere.cluster", "sim %s --cluster nowhere.cluster", config);
}

static void shares_deal_the_images_of_the_simulated_step(void) {
    EXPECT_RUN(0, "shares of image work 1 3",
               "sim %s --ranks 2 --set data.assign=balanced --set placement.vision.ranks=0-1 --set "
               "placement.vision.dp=2 --set placement.vision.shares=[1,3] --set "
               "placement.llm.ranks=0-1 --set placement.llm.pp=2",
               config);
    EXPECT_RUN(2, "3 shares are listed, but dp is 2",
               "sim %s --ranks 2 --set data.assign=balanced --set placement.vision.ranks=0-1 --set "
               "placement.vision.dp=2 --set placement.vision.shares=[1,3,2] --set "
               "placement.llm.ranks=0-1 --set placement.llm.pp=2",
               config);
}

static void tuning_never_lengthens_a_step(void) {
    EXPECT_RUN(
        0, "tuned: ",
        "sim %s --ranks 2 --tune --set data.assign=balanced --set placement.vision.ranks=0-1 "
        "--set placement.vision.dp=2 --set placement.llm.ranks=0-1 --set placement.llm.pp=2",
        config);
    EXPECT(number_after(program_output, "simulated steps by ") >= 0, "%s", program_output);
    EXPECT(strstr(program_output, "--set placement.vision.shares=[") != NULL &&
               strstr(program_output, "--set placement.llm.layers=[1,1]") != NULL,
           "%s", program_output);
}

static void a_profile_is_measured_and_simulated(void) {
    EXPECT_RUN(0, "", "profile %s %s --steps 2 --out %s/times.txt", config, placement, folder.path);
    static const char *const parts[] = {"vision tp 1 parameters ", " backward_weight rows ",
                                        "llm tp 1 parameters ", " reduce rows 0 ns "};
    expect_in_file("times.txt", parts, sizeof parts / sizeof parts[0]);
    EXPECT_RUN(0, "T/T*", "sim %s %s --profile %s/times.txt", config, placement, folder.path);
    EXPECT_RUN(2, "has no forward of", "sim %s --ranks 1 --profile %s/times.txt", config,
               folder.path);
}

static void training_plans_by_a_profile_in_either_mode(void) {
    EXPECT_RUN(0, "", "profile %s %s --steps 2 --out %s/times.txt", config, placement, folder.path);
    EXPECT_RUN(0, "step 2/2",
               "train %s %s --steps 2 --set schedule.costs=%s/times.txt --set "
               "train.run_dir=%s/by_profile",
               config, placement, folder.path, folder.path);
    EXPECT_RUN(0, "step 2/2",
               "train %s %s --steps 2 --mode static --set train.run_dir=%s/in_static", config,
               placement, folder.path);
    EXPECT_RUN(0, "T/T*", "sim %s %s --mode static", config, placement);
    EXPECT_RUN(1, "nowhere.txt",
               "train %s %s --set schedule.costs=nowhere.txt --set train.run_dir=%s/nowhere",
               config, placement, folder.path);
    EXPECT_RUN(2, "it must be dynamic or static", "train %s --mode fixed", config);
}

/* Of the four ranks each is busy or idle, for one cause, all the time of the step: to four digits.
 */
static void expect_it_adds_up(const char *metrics) {
    static const char *const parts[] = {"\"busy_ms\": [",   "\"head\": [",     "\"tail\": [",
                                        "\"imbalance\": [", "\"boundary\": [", "\"reduction\": [",
                                        "\"other\": ["};
    double t = number_after(metrics, "\"t_ms\": "), sums[4] = {0};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const char *at = strstr(metrics, parts[i]);
        EXPECT(at != NULL, "no %s in %s", parts[i], metrics);
        at += strlen(parts[i]);
        for (int r = 0; r < 4; r++) {
            char *end = NULL;
            sums[r] += strtod(at, &end);
            at = end + 1;
        }
    }
    for (int r = 0; r < 4; r++) {
        EXPECT(sums[r] > 0.997 * t && sums[r] < 1.003 * t, "rank %d: %f of %f ms", r, sums[r], t);
    }
}

static void training_draws_its_last_step(void) {
    EXPECT_RUN(0, "step 3/3",
               "train %s %s --set train.run_dir=%s/run --svg %s/t.svg --trace %s/t.json", config,
               placement, folder.path, folder.path, folder.path);
    expect_in_file("t.svg", svg_parts, sizeof svg_parts / sizeof svg_parts[0]);
    expect_in_file("t.json", trace_parts, sizeof trace_parts / sizeof trace_parts[0]);
    static const char *const parts[] = {"\"schedule\": {\"t_ms\": ", "\"head\": [",
                                        "\"reduction\": ["};
    expect_in_file("run/metrics.jsonl", parts, sizeof parts / sizeof parts[0]);
    char path[512];
    uint8_t *data = NULL;
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/run/metrics.jsonl", folder.path);
    EXPECT_OK(troupe_file_read(path, &data, &bytes));
    data[bytes - 1] = '\0'; /* the last line's end */
    EXPECT(number_after((const char *)data, "\"ratio\": ") >= 1, "%s", (const char *)data);
    expect_it_adds_up((const char *)data);
    EXPECT(strstr(program_output, "T/T* ") != NULL, "%s", program_output);
    troupe_free(data);
}

int main(int argc, char **argv) {
    program_init(argc, argv);
    test_folder_init(&folder);
    write_config();
    TEST(every_order_is_simulated);
    TEST(a_cluster_file_changes_the_time);
    TEST(shares_deal_the_images_of_the_simulated_step);
    TEST(tuning_never_lengthens_a_step);
    TEST(a_profile_is_measured_and_simulated);
    TEST(training_plans_by_a_profile_in_either_mode);
    TEST(training_draws_its_last_step);
    test_folder_fini(&folder);
    return TEST_END();
}
