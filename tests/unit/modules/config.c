/* SPDX-License-Identifier: Apache-2.0 */
/* Reading YAML and --set through the key table: values, round trip, and each kind of bad input. */
#include "modules/train/config.h"

#include <unistd.h>

#include "tests/test.h"

static char path[64];

static const char *write_file(const char *text) {
    snprintf(path, sizeof path, "/tmp/troupe-config-XXXXXX");
    int fd = mkstemp(path);
    EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", path);
    close(fd);
    return path;
}

static troupe_status read_text(struct troupe_config *config, const char *text) {
    troupe_config_init(config);
    troupe_status status = troupe_config_read(config, write_file(text));
    unlink(path);
    return status;
}

static void keys_of_every_type_are_read(void) {
    static struct troupe_config c;
    EXPECT_OK(read_text(&c, "model:\n  vision: {layers: 2, hidden: 48}\n  llm: {untied: true}\n"
                            "data: {train: \"a/*.tar\"}\n"
                            "train: {seed: 7, lr: 2.5e-4, betas: [0.8, 0.99]}\n"
                            "placement:\n  policy: manual\n"
                            "  llm: {ranks: \"0-3\", tp: 2, pp: 2, layers: [3, 1]}\n"));
    EXPECT_EQ(c.model.vision.layers, 2);
    EXPECT_EQ(c.model.vision.hidden, 48);
    EXPECT_EQ(c.model.llm.untied, true);
    EXPECT_STRING(c.data.train, "a/*.tar");
    EXPECT_EQ(c.train.seed, 7);
    EXPECT_NEAR(c.train.lr, 2.5e-4, 0);
    EXPECT_NEAR(c.train.betas[0], 0.8, 0);
    EXPECT_NEAR(c.train.betas[1], 0.99, 0);
    EXPECT_STRING(c.placement.module[2].ranks, "0-3");
    EXPECT_EQ(c.placement.module[2].layers.count, 2);
    EXPECT_EQ(c.placement.module[2].layers.values[1], 1);
    EXPECT_OK(troupe_config_set(&c, "train.steps=12"));
    EXPECT_EQ(c.train.steps, 12);
    EXPECT_OK(troupe_config_set(&c, "placement.llm.layers=[1,1,4]"));
    EXPECT_EQ(c.placement.module[2].layers.count, 3);
}

static void what_is_written_reads_back_equal(void) {
    static struct troupe_config a, b;
    troupe_config_init(&a);
    EXPECT_OK(troupe_config_set(&a, "train.lr=0.1"));
    EXPECT_OK(troupe_config_set(&a, "placement.vision.layers=[1,2]"));
    EXPECT_OK(troupe_config_set(&a, "data.train=it's \\ \"x\" y.tar"));
    FILE *file = fopen(write_file(""), "w");
    troupe_config_write(&a, file);
    fclose(file);
    troupe_config_init(&b);
    EXPECT_OK(troupe_config_read(&b, path));
    unlink(path);
    EXPECT(memcmp(&a, &b, sizeof a) == 0, "configs differ");
}

static void unknown_key_names_line_and_nearest(void) {
    static struct troupe_config c;
    EXPECT_ERROR(read_text(&c, "train:\n  seed: 1\n  step: 5\n"), TROUPE_ERROR_INVALID,
                 ":3: unknown key 'train.step'; did you mean 'train.steps'?");
    EXPECT_ERROR(read_text(&c, "placment:\n  policy: manual\n"), TROUPE_ERROR_INVALID,
                 ":1: unknown key 'placment'");
    EXPECT_ERROR(troupe_config_set(&c, "model.lm.layers=3"), TROUPE_ERROR_INVALID,
                 "--set: unknown key 'model.lm.layers'; did you mean 'model.llm.layers'?");
}

static void wrong_values_name_key_and_type(void) {
    static struct troupe_config c;
    EXPECT_ERROR(read_text(&c, "train: {steps: many}\n"), TROUPE_ERROR_INVALID,
                 ":1: train.steps: 'many' is not of type integer");
    EXPECT_ERROR(read_text(&c, "train: {steps: 3.5}\n"), TROUPE_ERROR_INVALID, "train.steps");
    EXPECT_ERROR(read_text(&c, "model: {vision: {hidden: 2147483647}}\n"), TROUPE_ERROR_INVALID,
                 "model.vision.hidden: '2147483647' is not of type integer to 2^24");
    EXPECT_ERROR(read_text(&c, "train: {betas: [0.9]}\n"), TROUPE_ERROR_INVALID, "train.betas");
    EXPECT_ERROR(read_text(&c, "train: {lr: nan}\n"), TROUPE_ERROR_INVALID, "train.lr");
    EXPECT_ERROR(read_text(&c, "train: 3\n"), TROUPE_ERROR_INVALID, "train must be a mapping");
    EXPECT_ERROR(read_text(&c, "train: {seed: 1, seed: 2}\n"), TROUPE_ERROR_INVALID, "twice");
    EXPECT_ERROR(read_text(&c, "train: [\n"), TROUPE_ERROR_INVALID, "not YAML");
    EXPECT_ERROR(read_text(&c, ""), TROUPE_ERROR_INVALID, "no mapping");
    EXPECT_ERROR(troupe_config_read(&c, "/nonexistent.yaml"), TROUPE_ERROR_IO,
                 "/nonexistent.yaml: No such file");
    EXPECT_ERROR(troupe_config_set(&c, "train.steps"), TROUPE_ERROR_INVALID, "key.path=value");
}

static void impossible_settings_are_refused(void) {
    static struct troupe_config c;
    troupe_config_init(&c);
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "not neither");
    EXPECT_OK(troupe_config_set(&c, "data.synthetic.samples=10"));
    EXPECT_OK(troupe_config_resolve(&c));
    EXPECT_OK(troupe_config_set(&c, "train.global_batch=3"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID,
                 "train.global_batch 3 is smaller than train.microbatches 4");
    EXPECT_OK(troupe_config_set(&c, "train.global_batch=4"));
    EXPECT_OK(troupe_config_set(&c, "placement.llm.cp=2"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "placement.llm: cp");
    EXPECT_OK(troupe_config_set(&c, "placement.llm.cp=1"));
    EXPECT_OK(troupe_config_set(&c, "model.llm.vocabulary=260"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID,
                 "model.llm.vocabulary is 260, but must be at least 261"); /* the tokenizer's */
    EXPECT_OK(troupe_config_set(&c, "model.llm.vocabulary=261"));
    EXPECT_OK(troupe_config_set(&c, "comm.stall_s=1e300"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "comm.stall_s is 1e+300");
    EXPECT_OK(troupe_config_set(&c, "comm.stall_s=0"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "comm.stall_s is 0");
    EXPECT_OK(troupe_config_set(&c, "comm.stall_s=5"));
    EXPECT_OK(troupe_config_set(&c, "train.device=tpu"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "train.device");
}

static void shares_that_make_no_sense_are_refused(void) {
    static struct troupe_config c;
    troupe_config_init(&c);
    EXPECT_OK(troupe_config_set(&c, "data.synthetic.samples=10"));
    EXPECT_OK(troupe_config_set(&c, "placement.vision.shares=[1,2]"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID,
                 "placement.vision.shares: with data.assign contiguous images stay");
    EXPECT_OK(troupe_config_set(&c, "data.assign=balanced"));
    EXPECT_OK(troupe_config_resolve(&c));
    EXPECT_OK(troupe_config_set(&c, "placement.vision.shares=[1,-2]"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID,
                 "placement.vision.shares: -2 for shard 1; a share lies in 0 to 10000");
    EXPECT_OK(troupe_config_set(&c, "placement.vision.shares=[0,0]"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "all are 0");
    EXPECT_OK(troupe_config_set(&c, "placement.vision.shares=[]"));
    EXPECT_OK(troupe_config_set(&c, "placement.llm.shares=[1,2]"));
    EXPECT_ERROR(troupe_config_resolve(&c), TROUPE_ERROR_INVALID, "it can have llm.layers");
}

int main(void) {
    TEST(keys_of_every_type_are_read);
    TEST(what_is_written_reads_back_equal);
    TEST(unknown_key_names_line_and_nearest);
    TEST(wrong_values_name_key_and_type);
    TEST(impossible_settings_are_refused);
    TEST(shares_that_make_no_sense_are_refused);
    return TEST_END();
}
