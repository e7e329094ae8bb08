/* SPDX-License-Identifier: Apache-2.0 */
/* A run through the program: trains in two layouts, resumes bit by bit, captions and evaluates. */
#include <sys/stat.h>

#include "tests/e2e/program.h"
#include "tests/unit/modules/data_files.h"

static struct test_folder folder;
static const char *config;

static const char wide[] = "--ranks 4 --set placement.vision.ranks=0-3 --set placement.vision.dp=4 "
                           "--set placement.llm.ranks=0-3 --set placement.llm.tp=2 "
                           "--set placement.llm.dp=2";

static void write_config(void) {
    static const char text[] =
        "model:\n"
        "  vision: {layers: 1, hidden: 24, heads: 3, patch: 8, image: 32}\n"
        "  projector: {hidden: 16}\n"
        "  llm: {layers: 2, hidden: 32, heads: 4, kv_heads: 2, ffn: 48, sequence: 64}\n"
        "data: {synthetic: {samples: 40, text_max: 20}}\n"
        "train: {seed: 3, steps: 6, global_batch: 8, microbatches: 2, checkpoint_every: 2}\n";
    config = test_path(&folder, "config.yaml");
    test_write(config, text, sizeof text - 1);
}

static void expect_same_file(const char *run_a, const char *run_b, const char *name) {
    char path[256];
    uint8_t *a = NULL, *b = NULL;
    size_t a_bytes = 0, b_bytes = 0;
    snprintf(path, sizeof path, "%s/%s/%s", folder.path, run_a, name);
    EXPECT_OK(troupe_file_read(path, &a, &a_bytes));
    snprintf(path, sizeof path, "%s/%s/%s", folder.path, run_b, name);
    EXPECT_OK(troupe_file_read(path, &b, &b_bytes));
    EXPECT_EQ(a_bytes, b_bytes);
    EXPECT(memcmp(a, b, a_bytes) == 0, "%s of %s and %s differ", name, run_a, run_b);
    troupe_free(a);
    troupe_free(b);
}

static bool exists(const char *name) {
    struct stat about;
    return stat(test_path(&folder, name), &about) == 0;
}

/* Lines of metrics.jsonl; each must be one object that names its step. */
static int metrics_lines(const char *run) {
    char path[256], line[4096], prefix[32];
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder.path, run);
    FILE *file = fopen(path, "r");
    EXPECT(file != NULL, "%s", path);
    int count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        snprintf(prefix, sizeof prefix, "{\"step\": %d, ", ++count);
        EXPECT(strncmp(line, prefix, strlen(prefix)) == 0, "line %d: %s", count, line);
    }
    fclose(file);
    return count;
}

static void resumed_run_equals_an_uninterrupted_one(void) {
    EXPECT_RUN(0, "step 6/6", "train %s %s --set train.run_dir=%s/whole", config, wide,
               folder.path);
    /* the same schedule of the learning rate, but it dies after its checkpoint of step 4: what a
     * killed save leaves behind must not be taken */
    EXPECT_RUN(0, "step 6/6", "train %s %s --set train.run_dir=%s/cut", config, wide, folder.path);
    char command[512];
    snprintf(command, sizeof command,
             "cd %s/cut && mv step-6 step-6.tmp && mkdir step-9 && cp step-4/model* step-9",
             folder.path);
    EXPECT_EQ(system(command), 0);
    EXPECT_RUN(0, "step 6/6", "train %s %s --resume --set train.run_dir=%s/cut", config, wide,
               folder.path);
    EXPECT_EQ(metrics_lines("cut"), 6);
    static const char *const files[] = {"step-6/model.safetensors", "step-6/state.json",
                                        "step-6/optimizer-m.safetensors",
                                        "step-6/optimizer-v.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        expect_same_file("whole", "cut", files[i]);
    }
    EXPECT(!exists("cut/step-6.tmp"), "the unfinished checkpoint is still there");
    EXPECT(exists("whole/config.yaml") && exists("whole/train.log"), "in %s", folder.path);
}

static void any_layout_resumes_from_any_other(void) {
    char command[512];
    snprintf(command, sizeof command, "cp -r %s/whole %s/other && rm -r %s/other/step-6",
             folder.path, folder.path, folder.path);
    EXPECT_EQ(system(command), 0);
    EXPECT_RUN(0, "step 6/6",
               "train %s --ranks 2 --placement disjoint --resume --set train.run_dir=%s/other",
               config, folder.path);
}

static void a_fresh_start_beside_older_checkpoints_is_refused(void) {
    EXPECT_RUN(2, "is there from an earlier run: give --resume",
               "train %s %s --set train.run_dir=%s/whole", config, wide, folder.path);
}

static void other_model_sizes_are_refused_by_the_tensor(void) {
    EXPECT_RUN(2, "the model needs",
               "train %s %s --resume --steps 8 --set model.projector.hidden=17 --set "
               "train.run_dir=%s/whole",
               config, wide, folder.path);
}

static void damaged_checkpoint_is_named(void) {
    char path[256];
    snprintf(path, sizeof path, "%s/other/step-6/model.safetensors", folder.path);
    EXPECT(truncate(path, 5000) == 0, "%s", path);
    EXPECT_RUN(1, "step-6/model.safetensors: truncated", "evaluate %s/other/step-6", folder.path);
}

static void pictures_get_captions(void) {
    const char *picture = test_path(&folder, "large.png");
    struct troupe_image image;
    uint8_t *png = NULL;
    size_t bytes = 0;
    test_picture(300, 170, 5, &image);
    EXPECT_OK(troupe_image_encode_png(&image, &png, &bytes));
    test_write(picture, png, bytes);
    troupe_free(png);
    troupe_image_fini(&image);
    EXPECT_RUN(0, "large.png: ", "caption %s/whole/step-6 %s", folder.path, picture);
    EXPECT_RUN(0, "the model says", "caption %s/whole/step-6 --heldout 3", folder.path);
    EXPECT_RUN(1, "config.yaml", "caption %s/whole/step-6 %s", folder.path, config);
}

static void evaluation_compares_two_losses_on_two_sets(void) {
    EXPECT_RUN(0, "training           40", "evaluate %s/whole/step-6", folder.path);
    const char *row = strstr(program_output, "held out");
    double own = 0, shuffled = 0, gap = 0;
    long samples = 0;
    EXPECT(row != NULL &&
               sscanf(row, "held out %ld %lf %lf %lf %%", &samples, &own, &shuffled, &gap) == 4,
           "%s", program_output);
    EXPECT_EQ(samples, 40);
    /* after six steps near the start: log of the vocabulary, 261 */
    EXPECT(own > 4 && own < 6 && shuffled > 4 && shuffled < 6, "%s", program_output);
    EXPECT_NEAR(gap, 100 * (shuffled - own) / own, 0.1);
}

int main(int argc, char **argv) {
    program_init(argc, argv);
    test_folder_init(&folder);
    write_config();
    TEST(resumed_run_equals_an_uninterrupted_one);
    TEST(any_layout_resumes_from_any_other);
    TEST(a_fresh_start_beside_older_checkpoints_is_refused);
    TEST(other_model_sizes_are_refused_by_the_tensor);
    TEST(pictures_get_captions);
    TEST(evaluation_compares_two_losses_on_two_sets);
    TEST(damaged_checkpoint_is_named);
    test_folder_fini(&folder);
    return TEST_END();
}
