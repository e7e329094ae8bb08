/* SPDX-License-Identifier: Apache-2.0 */
/* The program's help, and what it says to wrong command lines, configurations and data: one
 * sentence with the place, exit status 2 for the user's mistake and 1 for what the world broke. */
#include "tests/e2e/program.h"
#include "tests/unit/modules/data_files.h"

static struct test_folder folder;

static const char *write_config(const char *name, const char *text) {
    const char *path = test_path(&folder, name);
    test_write(path, text, strlen(text));
    return path;
}

#define MODEL                                                                                      \
    "model:\n"                                                                                     \
    "  vision: {layers: 1, hidden: 24, heads: 3, patch: 8, image: 32}\n"                           \
    "  projector: {hidden: 16}\n"                                                                  \
    "  llm: {layers: 2, hidden: 32, heads: 4, kv_heads: 2, ffn: 48, sequence: 64}\n"

#define RUN "train: {run_dir: %s/run, steps: 2, global_batch: 4, microbatches: 2}\n"

/* ---- help ---- */

static void every_command_has_help(void) {
    static const char *const commands[] = {"train", "caption", "evaluate", "data",
                                           "info",  "sim",     "profile"};
    EXPECT_RUN(0, "help COMMAND", "help");
    EXPECT_RUN(2, "help COMMAND", "%s", "");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char usage[64];
        EXPECT_RUN(0, commands[i], "help");
        snprintf(usage, sizeof usage, "usage: troupe %s", commands[i]);
        EXPECT_RUN(0, usage, "help %s", commands[i]);
    }
    EXPECT_RUN(0, "placement.llm.tp", "help config");
    EXPECT_RUN(2, "there is no command 'trian'", "help trian");
    EXPECT_RUN(2, "there is no command 'trian'", "trian x.yaml");
}

static void info_shows_machine_and_build(void) {
    EXPECT_RUN(0, "usable", "info");
    static const char *const parts[] = {"devices",  "cpu",  "loopback",   "hwloc", "colocated",
                                        "disjoint", "1f1b", "TROUPE_LOG", "cJSON"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        EXPECT(strstr(program_output, parts[i]) != NULL, "no %s in:\n%s", parts[i], program_output);
    }
}

/* ---- command line ---- */

static void misuse_is_told_with_the_usage(void) {
    EXPECT_RUN(2, "usage: troupe train", "train");
    EXPECT_RUN(2, "name one config file", "train a.yaml b.yaml");
    EXPECT_RUN(2, "there is no option --fast", "train a.yaml --fast");
    EXPECT_RUN(2, "--steps needs a value", "train a.yaml --steps");
    EXPECT_RUN(2, "--ranks 0: it takes a number of at least 1", "train a.yaml --ranks 0");
    EXPECT_RUN(2, "--ranks 4x: it takes a number of at least 1", "train a.yaml --ranks 4x");
    EXPECT_RUN(2, "--ranks 999: at most 256", "train a.yaml --ranks 999");
    EXPECT_RUN(2, "name a checkpoint", "caption");
    EXPECT_RUN(2, "either pictures or --heldout", "caption runs/x");
    EXPECT_RUN(2, "name one checkpoint", "evaluate");
    EXPECT_RUN(2, "say stamps or index", "data");
    EXPECT_RUN(2, "say stamps or index, not stamp", "data stamp x");
    EXPECT_RUN(2, "name one folder", "data stamps");
    EXPECT_RUN(2, "name shards, or a config file", "data index");
    EXPECT_RUN(2, "info takes no operand", "info all");
    EXPECT_RUN(2, "name one config file", "sim");
    EXPECT_RUN(2, "name one config file", "profile");
}

/* ---- configuration ---- */

static void unknown_key_names_file_line_and_nearest_key(void) {
    const char *path = write_config("key.yaml", "train:\n  steps: 2\n  microbatch: 4\n");
    char expected[256];
    snprintf(expected, sizeof expected,
             "%s:3: unknown key 'train.microbatch'; did you mean 'train.microbatches'?", path);
    EXPECT_RUN(2, expected, "train %s", path);
    EXPECT_RUN(2, "--set: unknown key 'train.stepz'; did you mean 'train.steps'?",
               "train %s --set train.stepz=3", write_config("empty.yaml", "train: {steps: 2}\n"));
}

static const char *synthetic_config(void) {
    char text[1024];
    snprintf(text, sizeof text, MODEL "data: {synthetic: {samples: 16, text_max: 20}}\n" RUN,
             folder.path);
    return write_config("synthetic.yaml", text);
}

static void layout_that_does_not_fit_is_refused(void) {
    const char *config = synthetic_config();
    EXPECT_RUN(2, "rank 3 does not exist; the job has 2",
               "train %s --ranks 2 --set placement.vision.ranks=0-3 --set placement.vision.dp=4 "
               "--set placement.llm.ranks=0-1 --set placement.llm.dp=2",
               config);
    EXPECT_RUN(2, "placement.llm.tp: tp 3 does not divide 4 heads",
               "train %s --ranks 3 --set placement.vision.ranks=0-2 --set "
               "placement.vision.dp=3 --set placement.llm.ranks=0-2 --set placement.llm.tp=3",
               config);
    EXPECT_RUN(2, "order policy \"lifo\" is not known; there are fifo, 1f1b",
               "train %s --ranks 1 --placement homogeneous --order lifo", config);
    EXPECT_RUN(2, "./none.so", "train %s --ranks 1 --placement ./none.so", config);
}

static int times_said(const char *text) {
    int count = 0;
    for (const char *at = strstr(program_output, text); at != NULL; at = strstr(at + 1, text)) {
        count++;
    }
    return count;
}

static void keys_that_the_policy_ignores_are_named_once(void) {
    static const char mapping[] = "--set placement.vision.ranks=0-3 --set placement.vision.dp=4 "
                                  "--set placement.llm.ranks=0-3 --set placement.llm.tp=2";
    char path[256], line[256] = "";
    const char *warning = "warning: placement.policy disjoint does not follow "
                          "placement.vision.ranks, placement.vision.dp, placement.llm.ranks\n";
    EXPECT_RUN(0, warning,
               "train %s --ranks 4 --placement disjoint %s --set train.run_dir=%s/disjoint",
               synthetic_config(), mapping, folder.path);
    EXPECT_EQ(times_said("warning: "), 1);
    snprintf(path, sizeof path, "%s/disjoint/train.log", folder.path);
    FILE *log = fopen(path, "r");
    EXPECT(log != NULL && fgets(line, sizeof line, log) != NULL, "%s", path);
    fclose(log);
    EXPECT(strcmp(line, warning) == 0, "the log begins with '%s'", line);

    EXPECT_RUN(0, "step 2/2",
               "train %s --ranks 4 --placement manual %s --set train.run_dir=%s/manual",
               synthetic_config(), mapping, folder.path);
    EXPECT_EQ(times_said("warning: "), 0);
    EXPECT_RUN(0, "does not follow placement.vision.ranks",
               "train %s --ranks 2 --placement colocated %s --set train.run_dir=%s/two",
               synthetic_config(), mapping, folder.path);
}

static void missing_files_are_named(void) {
    EXPECT_RUN(1, "nowhere.yaml: No such file", "train nowhere.yaml");
    EXPECT_RUN(1, "nowhere/config.yaml: No such file", "evaluate nowhere");
    EXPECT_RUN(1, "no checkpoint to go on from", "train %s --resume", synthetic_config());
}

/* ---- data ---- */

static const char *data_config(void) {
    char text[1024];
    snprintf(text, sizeof text, MODEL "data: {train: \"%s/train-*.tar\"}\n" RUN, folder.path,
             folder.path);
    return write_config("data.yaml", text);
}

/* Four samples; the third has the given picture bytes, the fourth the given caption. */
static const char *write_shard(const char *name, const char *picture, const char *caption) {
    const char *path = test_path(&folder, name);
    troupe_tar *tar = test_tar(path);
    test_add_text(tar, "a.txt", "A red house.");
    test_add_png(tar, "a.png", 32, 32, 10);
    test_add_text(tar, "b.txt", "A blue boat.");
    test_add_png(tar, "b.png", 32, 16, 20);
    test_add_text(tar, "c.txt", "A green hill.");
    if (picture != NULL) {
        test_add_text(tar, "c.png", picture);
    } else {
        test_add_png(tar, "c.png", 16, 32, 30);
    }
    test_add_text(tar, "d.txt", caption != NULL ? caption : "A dog.");
    test_add_png(tar, "d.png", 32, 32, 40);
    EXPECT_OK(troupe_tar_close(tar));
    return path;
}

static void missing_shard_and_index_are_named(void) {
    const char *config = data_config();
    EXPECT_RUN(1, "no-such.tar", "data index %s/no-such.tar", folder.path);
    EXPECT_RUN(1, "train-*.tar", "train %s --ranks 1 --placement homogeneous", config);
    write_shard("train-0.tar", NULL, NULL);
    EXPECT_RUN(1, "troupe data index", "train %s --ranks 1 --placement homogeneous", config);
    EXPECT_RUN(0, "4 samples with 4 pictures in 1 shards", "data index --config %s", config);
    EXPECT_RUN(0, "up to date", "data index --config %s", config);
    EXPECT_RUN(0, "step 2/2", "train %s --ranks 1 --placement homogeneous", config);
}

static void truncated_shard_is_named(void) {
    const char *config = data_config();
    const char *path = write_shard("train-0.tar", NULL, NULL);
    EXPECT(truncate(path, 2000) == 0, "%s", path);
    EXPECT_RUN(1, "train-0.tar", "data index --config %s", config);
    EXPECT(strstr(program_output, "truncated") != NULL || strstr(program_output, "ends") != NULL,
           "%s", program_output);
}

static void undecodable_picture_is_named_and_left_out_only_on_request(void) {
    const char *config = data_config();
    write_shard("train-0.tar", "no picture at all", NULL);
    EXPECT_RUN(1, "c.png", "data index --config %s", config);
    EXPECT(strstr(program_output, "train-0.tar") != NULL, "%s", program_output);
    EXPECT_RUN(0, "3 samples with 3 pictures in 1 shards, 1 left out",
               "data index --config %s --set data.skip_undecodable=true", config);
    EXPECT_RUN(0, "step 2/2",
               "train %s --ranks 1 --placement homogeneous --set data.skip_undecodable=true --set "
               "train.run_dir=%s/left_out",
               config, folder.path);
}

/* The index was made of the shard as it was. */
static void shard_damaged_after_its_index_stops_the_training(void) {
    const char *config = data_config();
    static const char training[] = "train %s --ranks 1 --placement homogeneous "
                                   "--set train.run_dir=%s/damaged";
    const char *path = write_shard("train-0.tar", NULL, NULL);
    EXPECT_RUN(0, "4 samples", "data index --config %s", config);
    EXPECT(truncate(path, 4000) == 0, "%s", path);
    EXPECT_RUN(1, "train-0.tar: has changed since", training, config, folder.path);
    write_shard("train-0.tar", "no picture at all", NULL);
    EXPECT_RUN(1, "train-0.tar: has changed since", training, config, folder.path);
    EXPECT(unlink(path) == 0, "%s", path);
    EXPECT_RUN(1, "train-*.tar: no shard matches", training, config, folder.path);
}

static void text_too_long_is_named_and_cut_only_on_request(void) {
    const char *config = data_config();
    write_shard("train-0.tar", NULL,
                "A very long caption of a picture that shows a dog under a tree by the sea.");
    EXPECT_RUN(1,
               "sample d: 16 image tokens, 74 caption bytes, begin and end exceed "
               "model.llm.sequence, 64",
               "data index --config %s", config);
    EXPECT_RUN(0, "1 captions cut", "data index --config %s --set data.truncate=true", config);
}

int main(int argc, char **argv) {
    program_init(argc, argv);
    test_folder_init(&folder);
    TEST(every_command_has_help);
    TEST(info_shows_machine_and_build);
    TEST(misuse_is_told_with_the_usage);
    TEST(unknown_key_names_file_line_and_nearest_key);
    TEST(layout_that_does_not_fit_is_refused);
    TEST(keys_that_the_policy_ignores_are_named_once);
    TEST(missing_files_are_named);
    TEST(missing_shard_and_index_are_named);
    TEST(truncated_shard_is_named);
    TEST(undecodable_picture_is_named_and_left_out_only_on_request);
    TEST(shard_damaged_after_its_index_stops_the_training);
    TEST(text_too_long_is_named_and_cut_only_on_request);
    test_folder_fini(&folder);
    return TEST_END();
}
