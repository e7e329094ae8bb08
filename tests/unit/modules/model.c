/* SPDX-License-Identifier: Apache-2.0
 *
 * The model in every layout equals the model on one rank: tensor parallel ranks are threads over
 * loopback, pipeline stages are chained by hand. Checked against PyTorch in tests/parity.
 */
#include <pthread.h>

#include "comm/comm.h"
#include "modules/optim/optimizer.h"
#include "tests/unit/modules/fixture.h"

enum { TP_MAX = 4, MODULES = 3, WEIGHT_SEED = 11 };

/* Sizes that 1 to 4 ranks can share; vocabulary and inner columns do not divide. */
static struct troupe_model_config config_of(int tp_count, bool untied) {
    struct troupe_model_config config = fixture_config(untied);
    int heads = tp_count == 1 ? 4 : tp_count;
    config.vision.heads = heads;
    config.vision.hidden = 8 * heads;
    config.llm.heads = 2 * heads;
    config.llm.kv_heads = heads;
    config.llm.hidden = 16 * heads;
    EXPECT_OK(troupe_model_config_resolve(&config));
    return config;
}

static const struct fixture_shape ragged = {.seed = 21, .samples = 5};

/* Relative to the tensor's largest element, with a floor for tensors of zeros. */
static void expect_box(const struct troupe_parameter *part, const float *data,
                       const struct troupe_parameter *whole, const float *reference) {
    double largest = 0;
    for (int64_t i = 0; i < troupe_parameter_elements(whole); i++) {
        largest = fmax(largest, fabs((double)reference[i]));
    }
    for (int64_t i = 0; i < troupe_parameter_elements(part); i++) {
        int64_t element = 0, rest = i, stride = 1;
        for (int d = part->spec.dimensions - 1; d >= 0; d--) {
            element += (part->begin[d] + rest % part->extent[d]) * stride;
            rest /= part->extent[d];
            stride *= part->spec.shape[d];
        }
        double error = fabs((double)data[i] - (double)reference[element]);
        EXPECT(error <= 1e-5 * largest + 1e-7, "%s element %lld: %.9g, expected %.9g",
               part->spec.name, (long long)i, (double)data[i], (double)reference[element]);
    }
}

static struct troupe_parameter *find(struct fixture_model *model, const char *name) {
    for (int m = 0; m < model->module_count; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, m, &list);
        for (int i = 0; i < count; i++) {
            if (strcmp(list[i].spec.name, name) == 0) {
                return &list[i];
            }
        }
    }
    TEST_FAIL("no parameter %s", name);
}

static void expect_gradients(struct fixture_model *model, struct fixture_model *reference) {
    for (int m = 0; m < model->module_count; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, m, &list);
        for (int i = 0; i < count; i++) {
            struct troupe_parameter *whole = find(reference, list[i].spec.name);
            expect_box(&list[i], list[i].gradient, whole, whole->gradient);
        }
    }
}

static void expect_same_weights(struct fixture_model *model, struct fixture_model *reference) {
    for (int m = 0; m < model->module_count; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, m, &list);
        for (int i = 0; i < count; i++) {
            struct troupe_parameter *whole = find(reference, list[i].spec.name);
            int64_t columns = list[i].spec.dimensions == 2 ? list[i].extent[1] : 1;
            int64_t full_columns = list[i].spec.dimensions == 2 ? whole->spec.shape[1] : 1;
            int64_t skip = list[i].spec.dimensions == 2 ? list[i].begin[1] : 0;
            for (int64_t e = 0; e < troupe_parameter_elements(&list[i]); e++) {
                int64_t from = (list[i].begin[0] + e / columns) * full_columns + skip + e % columns;
                EXPECT(memcmp(&list[i].value[e], &whole->value[from], sizeof(float)) == 0,
                       "%s element %lld", list[i].spec.name, (long long)e);
            }
        }
    }
}

/* One tensor-parallel rank. */
struct member {
    pthread_t thread;
    troupe_loopback *world;
    const struct troupe_model_config *config;
    const struct fixture_batch *batch;
    int index;
    int count;
    int stages;
    struct fixture_model model;
    troupe_comm *comm;
    troupe_group *group;
    double loss;
};

static void *member_run(void *arg) {
    struct member *member = arg;
    int ranks[TP_MAX] = {0, 1, 2, 3};
    EXPECT_OK(troupe_comm_open_loopback(member->world, member->index, &member->comm));
    struct troupe_group_options group = {
        .ranks = ranks,
        .count = member->count,
        .id = 1,
        .bytes_max = troupe_module_group_bytes(member->config, FIXTURE_ROWS)};
    EXPECT_OK(troupe_group_create(member->comm, &group, &member->group));
    struct fixture_options options = {.config = member->config,
                                      .tp_index = member->index,
                                      .tp_count = member->count,
                                      .tp = member->group,
                                      .stages = member->stages,
                                      .seed = WEIGHT_SEED};
    fixture_model_open(&member->model, &options);
    member->loss = fixture_step(&member->model, member->batch);
    EXPECT_OK(troupe_group_barrier(member->group));
    return NULL;
}

/* What every member holds in full (norms, row-parallel biases, positions) has the same gradient,
 * bit by bit, without a reduction of its own. */
static void expect_equal_replicas(struct member *members) {
    for (int m = 0; m < members[0].model.module_count; m++) {
        struct troupe_parameter *first = NULL;
        int count = fixture_parameters(&members[0].model, m, &first);
        for (int i = 0; i < count; i++) {
            for (int t = 1; first[i].spec.tp_dimension < 0 && t < members[0].count; t++) {
                struct troupe_parameter *other = NULL;
                fixture_parameters(&members[t].model, m, &other);
                size_t bytes = (size_t)troupe_parameter_elements(&first[i]) * sizeof(float);
                EXPECT(memcmp(first[i].gradient, other[i].gradient, bytes) == 0, "%s on member %d",
                       first[i].spec.name, t);
            }
        }
    }
}

static void close_member(struct member *member) {
    fixture_model_close(&member->model);
    troupe_group_destroy(member->group);
    troupe_comm_close(member->comm);
}

static void expect_tensor_parallel_parity(int tp_count, int stages, bool untied, bool text_only) {
    struct troupe_model_config config = config_of(tp_count, untied);
    static struct fixture_batch batch;
    struct fixture_shape shape = ragged;
    shape.text_only = text_only;
    fixture_batch_fill(&batch, &config, &shape);
    struct fixture_model one;
    fixture_model_open(&one, &(struct fixture_options){.config = &config, .seed = WEIGHT_SEED});
    double loss = fixture_step(&one, &batch);

    struct troupe_loopback_options options = {.ranks = tp_count, .seed = 3};
    troupe_loopback *world = NULL;
    EXPECT_OK(troupe_loopback_create(&options, &world));
    struct member members[TP_MAX];
    for (int t = 0; t < tp_count; t++) {
        members[t] = (struct member){.world = world,
                                     .config = &config,
                                     .batch = &batch,
                                     .index = t,
                                     .count = tp_count,
                                     .stages = stages};
        pthread_create(&members[t].thread, NULL, member_run, &members[t]);
    }
    for (int t = 0; t < tp_count; t++) {
        pthread_join(members[t].thread, NULL);
    }
    for (int t = 0; t < tp_count; t++) {
        EXPECT_NEAR(members[t].loss, loss, 1e-5 * loss);
        EXPECT(memcmp(&members[t].loss, &members[0].loss, sizeof(double)) == 0);
        expect_same_weights(&members[t].model, &one);
        if (stages == 1) {
            expect_gradients(&members[t].model, &one);
        }
    }
    expect_equal_replicas(members);
    for (int t = 0; t < tp_count; t++) {
        close_member(&members[t]);
    }
    troupe_loopback_destroy(world);
    fixture_model_close(&one);
}

static void tensor_parallel_2_equals_one_rank(void) {
    expect_tensor_parallel_parity(2, 1, false, false);
    expect_tensor_parallel_parity(2, 1, true, false);
}

static void tensor_parallel_3_equals_one_rank(void) {
    expect_tensor_parallel_parity(3, 1, false, false);
}

static void tensor_parallel_4_equals_one_rank(void) {
    expect_tensor_parallel_parity(4, 1, true, false);
}

static void tensor_parallel_2_in_two_stages_equals_one_rank(void) {
    expect_tensor_parallel_parity(2, 2, true, false);
}

static void tensor_parallel_takes_a_batch_without_pictures(void) {
    expect_tensor_parallel_parity(2, 1, false, true);
}

/* The tied embedding's two copies hold one gradient in parts, as the runtime sums them. */
static void join_tied_copies(struct fixture_model *model) {
    struct troupe_parameter *first = find(model, "llm.embedding.weight");
    struct troupe_parameter *list = NULL;
    int count = fixture_parameters(model, model->module_count - 1, &list);
    for (int i = 0; i < count; i++) {
        for (int64_t e = 0; list[i].tied_copy && e < troupe_parameter_elements(first); e++) {
            list[i].gradient[e] = first->gradient[e] += list[i].gradient[e];
        }
    }
}

static void expect_pipeline_parity(int stages, bool untied) {
    struct troupe_model_config config = fixture_config(untied);
    static struct fixture_batch batch;
    fixture_batch_fill(&batch, &config, &ragged);
    struct fixture_model one, split;
    fixture_model_open(&one, &(struct fixture_options){.config = &config, .seed = WEIGHT_SEED});
    fixture_model_open(&split, &(struct fixture_options){
                                   .config = &config, .seed = WEIGHT_SEED, .stages = stages});
    double loss = fixture_step(&one, &batch);
    double split_loss = fixture_step(&split, &batch);
    EXPECT(memcmp(&loss, &split_loss, sizeof(loss)) == 0, "%.17g and %.17g", loss, split_loss);
    expect_same_weights(&split, &one);
    join_tied_copies(&split);
    expect_gradients(&split, &one);
    fixture_model_close(&one);
    fixture_model_close(&split);
}

static void pipeline_stages_equal_the_whole(void) {
    for (int stages = 2; stages <= 3; stages++) {
        expect_pipeline_parity(stages, false);
        expect_pipeline_parity(stages, true);
    }
}

/* A stage without layers passes rows through: 4 stages of 3 layers. */
static void a_stage_may_have_no_layers(void) {
    expect_pipeline_parity(4, false);
}

/* backward_weight needs only what the slot kept: other slots' methods come between, and the
 * boundary tensors are overwritten. */
static void microbatches_interleave_in_slots(void) {
    struct troupe_model_config config = fixture_config(false);
    static struct fixture_batch batches[2];
    struct fixture_shape shapes[2] = {{.seed = 31, .samples = 4}, {.seed = 32, .samples = 6}};
    struct fixture_model ordered, mixed;
    for (int k = 0; k < 2; k++) {
        fixture_batch_fill(&batches[k], &config, &shapes[k]);
    }
    struct fixture_options options = {.config = &config, .seed = WEIGHT_SEED};
    fixture_model_open(&ordered, &options);
    fixture_model_open(&mixed, &options);
    fixture_zero_gradients(&ordered);
    double losses[2];
    for (int k = 0; k < 2; k++) {
        losses[k] = fixture_forward(&ordered, &batches[k], 0);
        fixture_backward_input(&ordered, &batches[k], 0);
        fixture_backward_weight(&ordered, &batches[k], 0);
    }
    fixture_zero_gradients(&mixed);
    EXPECT_NEAR(fixture_forward(&mixed, &batches[0], 2), losses[0], 0);
    EXPECT_NEAR(fixture_forward(&mixed, &batches[1], 1), losses[1], 0);
    fixture_backward_input(&mixed, &batches[0], 2);
    fixture_backward_input(&mixed, &batches[1], 1);
    for (int i = 0; i < mixed.module_count; i++) {
        size_t bytes = FIXTURE_SLOTS * FIXTURE_ROWS * FIXTURE_HIDDEN * sizeof(float);
        memset(mixed.outputs[i], 0xff, bytes);
        memset(mixed.gradients[i], 0xff, bytes);
    }
    fixture_backward_weight(&mixed, &batches[0], 2);
    fixture_backward_weight(&mixed, &batches[1], 1);
    for (int m = 0; m < MODULES; m++) {
        struct troupe_parameter *a = NULL, *b = NULL;
        int count = fixture_parameters(&ordered, m, &a);
        fixture_parameters(&mixed, m, &b);
        for (int i = 0; i < count; i++) {
            size_t bytes = (size_t)troupe_parameter_elements(&a[i]) * sizeof(float);
            EXPECT(memcmp(a[i].gradient, b[i].gradient, bytes) == 0, "%s", a[i].spec.name);
        }
    }
    fixture_model_close(&ordered);
    fixture_model_close(&mixed);
}

static void a_batch_without_pictures_leaves_the_encoder_alone(void) {
    struct troupe_model_config config = fixture_config(false);
    static struct fixture_batch batch;
    struct fixture_shape shape = {.seed = 41, .samples = 3, .text_only = true};
    fixture_batch_fill(&batch, &config, &shape);
    struct fixture_model model;
    fixture_model_open(&model, &(struct fixture_options){.config = &config, .seed = WEIGHT_SEED});
    EXPECT(fixture_step(&model, &batch) > 0);
    for (int m = 0; m < 2; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(&model, m, &list);
        for (int i = 0; i < count; i++) {
            for (int64_t e = 0; e < troupe_parameter_elements(&list[i]); e++) {
                EXPECT(list[i].gradient[e] == 0, "%s", list[i].spec.name);
            }
        }
    }
    fixture_model_close(&model);
}

static void a_batch_without_rows_is_legal(void) {
    struct troupe_model_config config = fixture_config(false);
    static struct fixture_batch batch;
    fixture_batch_fill(&batch, &config, &(struct fixture_shape){.seed = 42});
    struct fixture_model model;
    fixture_model_open(&model, &(struct fixture_options){.config = &config, .seed = WEIGHT_SEED});
    EXPECT_NEAR(fixture_step(&model, &batch), 0, 0);
    fixture_model_close(&model);
}

static double total_square_sum(struct fixture_model *model) {
    double total = 0;
    for (int m = 0; m < model->module_count; m++) {
        struct troupe_parameter *list = NULL;
        int count = fixture_parameters(model, m, &list);
        double squares[128];
        EXPECT(count <= 128);
        struct troupe_gradient_list gradients = {
            model->stream, troupe_kernels_for(TROUPE_DEVICE_CPU), list, count, true};
        EXPECT_OK(troupe_gradient_square_sums(&gradients, squares));
        for (int i = 0; i < count; i++) {
            total += squares[i];
        }
    }
    return total;
}

static void sixty_steps_learn_a_batch_by_heart(void) {
    struct troupe_model_config config = fixture_config(false);
    static struct fixture_batch batch;
    fixture_batch_fill(&batch, &config, &ragged);
    struct fixture_model model;
    fixture_model_open(&model, &(struct fixture_options){.config = &config, .seed = WEIGHT_SEED});
    troupe_optimizer *optimizers[MODULES];
    for (int m = 0; m < MODULES; m++) {
        struct troupe_optimizer_options options = {
            .stream = model.stream, .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU)};
        options.count = fixture_parameters(&model, m, &options.parameters);
        EXPECT_OK(troupe_optimizer_create(&options, &optimizers[m]));
    }
    struct troupe_lr_schedule schedule = {.lr = 1e-2, .lr_min = 1e-3, .warmup = 5, .steps = 60};
    double first = fixture_step(&model, &batch);
    for (int step = 1; step <= 60; step++) {
        fixture_step(&model, &batch);
        struct troupe_optimizer_step update = {
            .step = step,
            .lr = troupe_learning_rate(&schedule, step),
            .gradient_scale = troupe_clip_scale(total_square_sum(&model), 1.0)};
        for (int m = 0; m < MODULES; m++) {
            EXPECT_OK(troupe_optimizer_update(optimizers[m], &update));
        }
    }
    double last = fixture_forward(&model, &batch, 0);
    EXPECT(last * 5 < first, "loss from %g to %g", first, last);
    for (int m = 0; m < MODULES; m++) {
        troupe_optimizer_destroy(optimizers[m]);
    }
    fixture_model_close(&model);
}

/* The loss of a sample's last target, from the logits of the row before it: batch without the last
 * token against the batch itself. */
static void inference_agrees_with_training(void) {
    struct troupe_model_config config = fixture_config(true);
    static struct fixture_batch batch, cut;
    struct fixture_shape shape = {.seed = 51, .samples = 1};
    fixture_batch_fill(&batch, &config, &shape);
    cut = batch;
    int64_t rows = --cut.language.rows;
    cut.cu_len[1] = (int32_t)rows;
    cut.language.cu_len = cut.cu_len;
    struct fixture_model trained, infer;
    struct fixture_options options = {.config = &config, .seed = WEIGHT_SEED};
    fixture_model_open(&trained, &options);
    options.inference = true;
    fixture_model_open(&infer, &options);
    double with = fixture_forward(&trained, &batch, 0);
    EXPECT_NEAR(fixture_forward(&infer, &batch, 0), with, 0);
    int target = batch.targets[rows - 1];
    batch.targets[rows - 1] = -1;
    double without = fixture_forward(&trained, &batch, 0);
    fixture_forward(&infer, &cut, 0);
    double sum = 0;
    for (int v = 0; v < config.llm.vocabulary; v++) {
        sum += exp((double)infer.logits[v]);
    }
    EXPECT_NEAR(log(sum) - (double)infer.logits[target], with - without, 1e-5);
    fixture_model_close(&trained);
    fixture_model_close(&infer);
}

static void a_layout_that_does_not_fit_is_refused(void) {
    struct troupe_model_config config = fixture_config(false);
    const struct troupe_module_class *const *classes = troupe_module_classes();
    config.vision.heads = 3;
    config.llm.heads = 8;
    config.llm.kv_heads = 4;
    EXPECT_OK(classes[0]->check(&config, 3));
    EXPECT_ERROR(classes[0]->check(&config, 2), TROUPE_ERROR_INVALID,
                 "vision.heads 3 is not divisible by tp 2");
    EXPECT_ERROR(classes[2]->check(&config, 3), TROUPE_ERROR_INVALID,
                 "llm.heads 8 is not divisible by tp 3");
    EXPECT_ERROR(classes[2]->check(&config, 8), TROUPE_ERROR_INVALID,
                 "llm.kv_heads 4 is not divisible by tp 8");
    config.llm.kv_heads = 8;
    config.llm.vocabulary = 7;
    EXPECT_ERROR(classes[2]->check(&config, 8), TROUPE_ERROR_INVALID, "llm.vocabulary 7");
    EXPECT_ERROR(classes[1]->check(&config, 64), TROUPE_ERROR_INVALID, "projector.hidden");
}

static void sizes_that_do_not_fit_name_their_key(void) {
    struct troupe_model_config config = fixture_config(false);
    config.llm.kv_heads = 3;
    EXPECT_ERROR(troupe_model_config_resolve(&config), TROUPE_ERROR_INVALID,
                 "model.llm.heads 4 is not divisible by model.llm.kv_heads 3");
    config = fixture_config(false);
    config.vision.image = 9;
    EXPECT_ERROR(troupe_model_config_resolve(&config), TROUPE_ERROR_INVALID,
                 "model.vision.image 9");
    config = fixture_config(false);
    config.llm.layers = 0;
    EXPECT_ERROR(troupe_model_config_resolve(&config), TROUPE_ERROR_INVALID, "model.llm.layers");
    struct troupe_model_config defaults = fixture_config(false);
    defaults.vision.ffn = 0;
    defaults.llm.vocabulary = 0;
    EXPECT_OK(troupe_model_config_resolve(&defaults));
    EXPECT_EQ(defaults.vision.ffn, 96);
    EXPECT_EQ(defaults.llm.vocabulary, 261);
}

/* Two multiply-adds by hand: one layer, one sample of 4 rows with 2 targets, no pictures. */
static void flops_follow_the_formula(void) {
    struct troupe_model_config config = fixture_config(false);
    const struct troupe_module_class *llm = troupe_module_classes()[2];
    int32_t cu_len[] = {0, 4};
    struct troupe_language_batch batch = {
        .samples = 1, .rows = 4, .cu_len = cu_len, .targets_count = 2};
    struct troupe_shard shard = {.tp_count = 1, .layer_end = 1, .last_stage = true};
    struct troupe_module_task task = {.language = &batch};
    double weights = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 43;
    double attention = 4 * (4 * 5 / 2) * 32;
    double head = 2 * 2 * 32 * 53;
    EXPECT_NEAR(llm->flops(&config, &shard, &task), 2 * 4 * weights + attention + head, 0);
}

int main(void) {
    TEST(tensor_parallel_2_equals_one_rank);
    TEST(tensor_parallel_3_equals_one_rank);
    TEST(tensor_parallel_4_equals_one_rank);
    TEST(tensor_parallel_2_in_two_stages_equals_one_rank);
    TEST(tensor_parallel_takes_a_batch_without_pictures);
    TEST(pipeline_stages_equal_the_whole);
    TEST(a_stage_may_have_no_layers);
    TEST(microbatches_interleave_in_slots);
    TEST(a_batch_without_pictures_leaves_the_encoder_alone);
    TEST(a_batch_without_rows_is_legal);
    TEST(sixty_steps_learn_a_batch_by_heart);
    TEST(inference_agrees_with_training);
    TEST(a_layout_that_does_not_fit_is_refused);
    TEST(sizes_that_do_not_fit_name_their_key);
    TEST(flops_follow_the_formula);
    return TEST_END();
}
