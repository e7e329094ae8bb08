/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what the shards of several ranks write is what one rank reads, failures are shared,
 * and a save that is killed at any moment leaves a whole checkpoint behind. */
#include "modules/train/checkpoint.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/job.h"
#include "modules/train/folder.h"
#include "tests/unit/modules/fixture.h"

enum { TP = 2, DP = 2, SEED = 5, OTHER_SEED = 6, MODULES = 3 };

static char run_dir[64];
static struct troupe_config config;

/* The whole model's shard on one rank, with optimizers. */
struct model {
    struct fixture_model fixture;
    troupe_optimizer *optimizers[MODULES];
    struct troupe_checkpoint_shard shards[MODULES];
};

static void model_open(struct model *model, const struct fixture_options *options, int dp_index) {
    fixture_model_open(&model->fixture, options);
    for (int i = 0; i < MODULES; i++) {
        struct troupe_parameter *parameters = NULL;
        int count = fixture_parameters(&model->fixture, i, &parameters);
        EXPECT_OK(troupe_optimizer_create(
            &(struct troupe_optimizer_options){.stream = model->fixture.stream,
                                               .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
                                               .parameters = parameters,
                                               .count = count},
            &model->optimizers[i]));
        model->shards[i] = (struct troupe_checkpoint_shard){.parameters = parameters,
                                                            .count = count,
                                                            .optimizer = model->optimizers[i],
                                                            .tp_index = options->tp_index,
                                                            .dp_index = dp_index};
    }
}

static void model_close(struct model *model) {
    for (int i = 0; i < MODULES; i++) {
        troupe_optimizer_destroy(model->optimizers[i]);
    }
    fixture_model_close(&model->fixture);
}

typedef void visit_element(float *value, float *first, float *second, double x);

static void model_visit(struct model *model, visit_element *visit, double x) {
    for (int i = 0; i < MODULES; i++) {
        for (int p = 0; p < model->shards[i].count; p++) {
            const struct troupe_parameter *parameter = &model->shards[i].parameters[p];
            struct troupe_moments moments = troupe_optimizer_moments(model->optimizers[i], p);
            for (int64_t e = 0; e < troupe_parameter_elements(parameter); e++) {
                visit(&parameter->value[e], &moments.first[e], &moments.second[e], x);
            }
        }
    }
}

static void moments_follow_value(float *value, float *first, float *second, double x) {
    *first = 2 * *value;
    *second = 3 * *value;
    (void)x;
}

static void all_are(float *value, float *first, float *second, double x) {
    *value = *first = *second = (float)x;
}

static void expect_all(float *value, float *first, float *second, double x) {
    EXPECT(*value == (float)x && *first == (float)x && *second == (float)x, "%g %g %g, not %g",
           *value, *first, *second, x);
}

static void expect_moments(float *value, float *first, float *second, double x) {
    EXPECT(*first == 2 * *value && *second == 3 * *value, "moments %g %g of %g", *first, *second,
           *value);
    (void)x;
}

static void model_read(struct model *model, const char *path) {
    for (int i = 0; i < MODULES; i++) {
        const struct troupe_checkpoint_shard *shard = &model->shards[i];
        EXPECT_OK(troupe_checkpoint_read_weights(path, shard));
        EXPECT_OK(troupe_checkpoint_read_moments(path, shard));
    }
}

static troupe_group *group_of(troupe_comm *comm, const int *ranks, int count, uint32_t id) {
    troupe_group *group = NULL;
    struct troupe_group_options options = {
        .ranks = ranks, .count = count, .id = id, .bytes_max = 1 << 16};
    EXPECT_OK(troupe_group_create(comm, &options, &group));
    return group;
}

static troupe_status save(const struct model *model, troupe_group *world, int64_t step) {
    return troupe_checkpoint_save(&(struct troupe_checkpoint){.config = &config,
                                                              .step = step,
                                                              .position = 10 * step,
                                                              .plan = "tp 2, dp 2",
                                                              .shards = model->shards,
                                                              .shard_count = MODULES,
                                                              .world = world});
}

/* ---- four ranks ---- */

struct save_job {
    int64_t step;
    troupe_status statuses[TP * DP];
};

static troupe_status save_rank(void *arg, troupe_comm *comm) {
    struct save_job *job = arg;
    struct model model;
    int rank = troupe_comm_rank(comm), tp_index = rank % TP, dp_index = rank / TP;
    const int ranks[TP * DP] = {0, 1, 2, 3};
    troupe_group *world = group_of(comm, ranks, TP * DP, 1);
    troupe_group *tp = group_of(comm, ranks + dp_index * TP, TP, 2 + (uint32_t)dp_index);
    struct fixture_options options = {
        .config = &config.model, .tp_index = tp_index, .tp_count = TP, .tp = tp, .seed = SEED};
    model_open(&model, &options, dp_index);
    model_visit(&model, moments_follow_value, 0);
    if (dp_index > 0) {
        model_visit(&model, all_are, NAN); /* a replica that writes would be seen */
    }
    job->statuses[rank] = save(&model, world, job->step);
    troupe_group_destroy(tp);
    troupe_group_destroy(world);
    model_close(&model);
    return TROUPE_OK;
}

static void shards_of_four_ranks_are_read_whole_by_one(void) {
    struct save_job job = {.step = 3};
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = TP * DP}, save_rank, &job));
    for (int r = 0; r < TP * DP; r++) {
        EXPECT_EQ(job.statuses[r], TROUPE_OK);
    }
    char path[128];
    struct troupe_checkpoint_state state;
    struct model read, fresh;
    EXPECT_OK(troupe_checkpoint_newest(run_dir, path, sizeof path));
    EXPECT_OK(troupe_checkpoint_load_state(path, &state));
    EXPECT_EQ(state.step, 3);
    EXPECT_EQ(state.position, 30);
    EXPECT_EQ(state.seed, config.train.seed);
    struct fixture_options options = {.config = &config.model, .seed = OTHER_SEED};
    model_open(&read, &options, 0);
    options.seed = SEED;
    model_open(&fresh, &options, 0);
    model_read(&read, path);
    model_visit(&read, expect_moments, 0);
    for (int i = 0; i < MODULES; i++) {
        for (int p = 0; p < read.shards[i].count; p++) {
            const struct troupe_parameter *a = &read.shards[i].parameters[p];
            const struct troupe_parameter *b = &fresh.shards[i].parameters[p];
            size_t bytes = (size_t)troupe_parameter_elements(a) * sizeof(float);
            EXPECT(memcmp(a->value, b->value, bytes) == 0, "%s", a->spec.name);
        }
    }
    model_close(&read);
    model_close(&fresh);
}

static void a_save_that_fails_on_one_rank_fails_on_all(void) {
    char kept[sizeof config.train.run_dir];
    memcpy(kept, config.train.run_dir, sizeof kept);
    snprintf(config.train.run_dir, sizeof config.train.run_dir, "/proc/none");
    struct save_job job = {.step = 4};
    EXPECT_OK(troupe_job_run(&(struct troupe_job_options){.ranks = TP * DP}, save_rank, &job));
    EXPECT_EQ(job.statuses[0], TROUPE_ERROR_IO);
    for (int r = 1; r < TP * DP; r++) {
        EXPECT_EQ(job.statuses[r], TROUPE_ERROR_ABORTED);
    }
    memcpy(config.train.run_dir, kept, sizeof kept);
}

/* ---- which one is taken ---- */

static void unfinished_folders_are_not_taken(void) {
    static const char *const names[] = {"step-7.tmp", "step-8", "step-", "step-x", "step-9.old"};
    char path[160];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", run_dir, names[i]);
        EXPECT_OK(troupe_folder_make(path));
    }
    EXPECT_OK(troupe_checkpoint_newest(run_dir, path, sizeof path));
    EXPECT(strcmp(path + strlen(path) - strlen("/step-3"), "/step-3") == 0, "%s", path);
    snprintf(path, sizeof path, "%s/step-8", run_dir);
    EXPECT_ERROR(troupe_checkpoint_newest(path, path, sizeof path), TROUPE_ERROR_IO,
                 "looked for folders step-N with a state.json");
    EXPECT_ERROR(troupe_checkpoint_newest("/nowhere", path, sizeof path), TROUPE_ERROR_IO,
                 "/nowhere: no checkpoint to go on from");
}

/* ---- killed ---- */

static troupe_status save_forever(void *arg, troupe_comm *comm) {
    struct model model;
    const int rank = 0;
    int ready = *(const int *)arg;
    troupe_group *world = group_of(comm, &rank, 1, 1);
    model_open(&model, &(struct fixture_options){.config = &config.model}, 0);
    for (int64_t step = 10;; step++) {
        model_visit(&model, all_are, (double)step);
        EXPECT_OK(save(&model, world, step));
        if (step == 10) {
            EXPECT_EQ(write(ready, "x", 1), 1);
        }
    }
}

/* Starts to save step 10, 11, ... in a child that is killed some time after the first. */
static void save_and_kill(int64_t after_us) {
    int ready[2];
    char byte;
    EXPECT_EQ(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        troupe_job_run(&(struct troupe_job_options){.ranks = 1}, save_forever, &ready[1]);
        _exit(1);
    }
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    usleep((useconds_t)after_us);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ready[0]);
    close(ready[1]);
}

static void a_killed_save_leaves_a_whole_checkpoint(void) {
    enum { KILLS = 8, WITHIN_US = 30000 };
    uint64_t seed = test_seed();
    struct model model;
    char path[128];
    for (uint64_t i = 0; i < KILLS; i++) {
        save_and_kill((int64_t)troupe_random_below(seed, 0, i, WITHIN_US));
        struct troupe_checkpoint_state state;
        EXPECT_OK(troupe_checkpoint_newest(run_dir, path, sizeof path));
        EXPECT_OK(troupe_checkpoint_load_state(path, &state));
        EXPECT(state.step >= 10, "step %" PRId64, state.step);
        model_open(&model, &(struct fixture_options){.config = &config.model}, 0);
        model_read(&model, path);
        model_visit(&model, expect_all, (double)state.step);
        model_close(&model);
    }
}

int main(void) {
    troupe_config_init(&config);
    config.model = fixture_config(false);
    config.model.vision.heads = 2;       /* TP divides them */
    config.train.seed = (1ll << 60) + 1; /* more than a JSON number holds */
    snprintf(run_dir, sizeof run_dir, "/tmp/troupe-test-XXXXXX");
    EXPECT(mkdtemp(run_dir) != NULL, "%s", run_dir);
    snprintf(config.train.run_dir, sizeof config.train.run_dir, "%s", run_dir);
    TEST(shards_of_four_ranks_are_read_whole_by_one);
    TEST(a_save_that_fails_on_one_rank_fails_on_all);
    TEST(unfinished_folders_are_not_taken);
    TEST(a_killed_save_leaves_a_whole_checkpoint);
    EXPECT_OK(troupe_folder_remove(run_dir));
    return TEST_END();
}
