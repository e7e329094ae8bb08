/* SPDX-License-Identifier: Apache-2.0 */
/* Which gradients are summed in which collectives: every element that has a replica once, in runs
 * of bounded length, and alike on all members of a group. */
#include "modules/train/gradient_sums.h"

#include "modules/train/config.h"
#include "tests/test.h"

enum { PARAMETERS_MAX = 64, RUN_MAX = 1 << 20 };

struct fixture {
    struct troupe_config config;
    struct troupe_plan *plan;
    troupe_loopback *world;
    troupe_comm *comm;
    struct troupe_parameter parameters[PARAMETERS_MAX];
    int count;
    int64_t elements;
    float *memory;
    struct troupe_gradient_sums sums;
};

/* The first shard of a stage of the language model, on rank `rank`; whole parameters. */
static void open_shard(struct fixture *f, const char *const *settings, int stage, int rank) {
    memset(f, 0, sizeof *f);
    troupe_config_init(&f->config);
    EXPECT_OK(troupe_config_set(&f->config, "model.llm.vocabulary=50000"));
    EXPECT_OK(troupe_config_set(&f->config, "model.llm.layers=2"));
    EXPECT_OK(troupe_config_set(&f->config, "model.llm.hidden=32"));
    EXPECT_OK(troupe_config_set(&f->config, "data.synthetic.samples=4"));
    EXPECT_OK(troupe_config_set(&f->config, "placement.policy=colocated"));
    for (int i = 0; settings[i] != NULL; i++) {
        EXPECT_OK(troupe_config_set(&f->config, settings[i]));
    }
    EXPECT_OK(troupe_config_resolve(&f->config));
    EXPECT_OK(troupe_plan_create(&f->config, 2, &f->plan));
    EXPECT_OK(troupe_loopback_create(&(struct troupe_loopback_options){.ranks = 2}, &f->world));
    EXPECT_OK(troupe_comm_open_loopback(f->world, rank, &f->comm));
    const struct troupe_module_plan *llm = &f->plan->modules[TROUPE_LLM];
    struct troupe_shard shard = troupe_plan_shard(llm, stage, 0);
    static struct troupe_parameter_spec specs[PARAMETERS_MAX];
    f->count = llm->module_class->specs(&f->config.model, &shard, specs);
    for (int i = 0; i < f->count; i++) {
        f->parameters[i].spec = specs[i];
        memcpy(f->parameters[i].extent, specs[i].shape, sizeof specs[i].shape);
        f->elements += troupe_parameter_elements(&f->parameters[i]);
    }
    f->memory = calloc((size_t)f->elements, sizeof(float));
    float *next = f->memory;
    for (int i = 0; i < f->count; i++) {
        f->parameters[i].gradient = next;
        next += troupe_parameter_elements(&f->parameters[i]);
    }
    EXPECT_OK(troupe_gradient_sums_init(
        &(struct troupe_gradient_sums_options){.comm = f->comm,
                                               .config = &f->config.model,
                                               .module = llm,
                                               .stage = stage,
                                               .dp_group = 1,
                                               .tied_group = 2,
                                               .parameters = f->parameters,
                                               .count = f->count},
        &f->sums));
}

static void close_shard(struct fixture *f) {
    troupe_gradient_sums_fini(&f->sums);
    free(f->memory);
    troupe_comm_close(f->comm);
    troupe_loopback_destroy(f->world);
    troupe_plan_destroy(f->plan);
}

/* How often the element is summed, and that no run is too long. */
static int64_t summed(const struct fixture *f, bool tied) {
    int64_t sum = 0;
    for (int i = 0; i < f->sums.run_count; i++) {
        const struct troupe_gradient_run *run = &f->sums.runs[i];
        EXPECT(run->count > 0 && run->count <= RUN_MAX, "run of %" PRId64, run->count);
        for (int64_t e = 0; run->tied == tied && e < run->count; e++) {
            run->data[e] += 1;
        }
        sum += run->tied == tied ? run->count : 0;
    }
    return sum;
}

static void replicas_sum_each_gradient_once(void) {
    struct fixture f;
    const char *const settings[] = {"placement.llm.dp=2", "placement.llm.tp=1", NULL};
    open_shard(&f, settings, 0, 0);
    EXPECT_EQ(f.plan->modules[TROUPE_LLM].dp, 2);
    EXPECT_EQ(summed(&f, false), f.elements);
    for (int64_t e = 0; e < f.elements; e++) {
        EXPECT(f.memory[e] == 1, "element %" PRId64 " is summed %g times", e, (double)f.memory[e]);
    }
    EXPECT_EQ(f.sums.run_count, (f.elements + RUN_MAX - 1) / RUN_MAX);
    EXPECT(f.sums.dp != NULL && f.sums.tied == NULL, "one group");
    close_shard(&f);
}

static void both_ends_cut_the_tied_embedding_alike(void) {
    struct fixture f[2];
    const char *const settings[] = {"placement.llm.pp=2", NULL};
    const int64_t embedding = 50000 * 32;
    for (int stage = 0; stage < 2; stage++) {
        open_shard(&f[stage], settings, stage, stage);
        EXPECT_EQ(f[stage].plan->modules[TROUPE_LLM].pp, 2);
        EXPECT_EQ(summed(&f[stage], true), embedding);
        EXPECT_EQ(f[stage].sums.run_count, 2);
        EXPECT_EQ(f[stage].sums.runs[0].count, RUN_MAX);
        EXPECT(f[stage].sums.dp == NULL && f[stage].sums.tied != NULL, "one group");
    }
    close_shard(&f[0]);
    close_shard(&f[1]);
}

static void nothing_is_summed_where_nothing_is_shared(void) {
    struct fixture f;
    const char *const settings[] = {"placement.llm.pp=2", "model.llm.untied=true", NULL};
    open_shard(&f, settings, 1, 1);
    EXPECT_EQ(f.sums.run_count, 0);
    EXPECT(f.sums.dp == NULL && f.sums.tied == NULL, "no group");
    close_shard(&f);
}

int main(void) {
    TEST(replicas_sum_each_gradient_once);
    TEST(both_ends_cut_the_tied_embedding_alike);
    TEST(nothing_is_summed_where_nothing_is_shared);
    return TEST_END();
}
