/* SPDX-License-Identifier: Apache-2.0 */
/* The whole model and the optimizer on a GPU, step by step beside the CPU. Skipped where there is
 * no GPU. */
#include "modules/optim/optimizer.h"
#include "runtime/device.h"
#include "tests/unit/modules/fixture.h"

enum { MODULES = 3, STEPS = 20 };

/* A model that learns. */
struct learner {
    enum troupe_device_kind kind;
    struct fixture_model model;
    troupe_optimizer *optimizers[MODULES];
    double *squares; /* as many as a module has parameters, at most */
};

static void learner_open(struct learner *l, const struct troupe_model_config *config) {
    fixture_model_open(&l->model,
                       &(struct fixture_options){.config = config, .seed = 3, .kind = l->kind});
    int most = 0;
    for (int m = 0; m < MODULES; m++) {
        struct troupe_optimizer_options options = {
            .stream = l->model.stream, .kernels = troupe_kernels_for(l->kind), .weight_decay = 0.1};
        options.count = fixture_parameters(&l->model, m, &options.parameters);
        most = options.count > most ? options.count : most;
        EXPECT_OK(troupe_optimizer_create(&options, &l->optimizers[m]));
    }
    size_t bytes = (size_t)most * sizeof(double);
    EXPECT_OK(troupe_device_alloc_host(l->model.device, bytes, (void **)&l->squares));
}

static void learner_close(struct learner *l) {
    for (int m = 0; m < MODULES; m++) {
        troupe_optimizer_destroy(l->optimizers[m]);
    }
    troupe_device_free_host(l->model.device, l->squares);
    fixture_model_close(&l->model);
}

static double square_sum(struct learner *l) {
    double sum = 0;
    for (int m = 0; m < MODULES; m++) {
        struct troupe_gradient_list list = {.stream = l->model.stream,
                                            .kernels = troupe_kernels_for(l->kind),
                                            .replicas_count = true};
        struct troupe_parameter *parameters = NULL;
        list.count = fixture_parameters(&l->model, m, &parameters);
        list.parameters = parameters;
        EXPECT_OK(troupe_gradient_square_sums(&list, l->squares));
        EXPECT_OK(troupe_stream_synchronize(l->model.stream));
        for (int i = 0; i < list.count; i++) {
            sum += l->squares[i];
        }
    }
    return sum;
}

/* Returns the mean loss before the update. */
static double learn(struct learner *l, const struct fixture_batch *batch, int step) {
    double loss = fixture_step(&l->model, batch) / (double)batch->language.step_targets;
    struct troupe_optimizer_step update = {
        .step = step, .lr = 3e-3, .gradient_scale = troupe_clip_scale(square_sum(l), 1.0)};
    for (int m = 0; m < MODULES; m++) {
        EXPECT_OK(troupe_optimizer_update(l->optimizers[m], &update));
    }
    return loss;
}

static void twenty_steps_give_the_losses_of_the_cpu(void) {
    struct troupe_model_config config = fixture_config(false);
    static struct fixture_batch batches[STEPS];
    struct learner cpu = {.kind = TROUPE_DEVICE_CPU}, gpu = {.kind = TROUPE_DEVICE_CUDA};
    learner_open(&cpu, &config);
    learner_open(&gpu, &config);
    double largest = 0;
    for (int step = 1; step <= STEPS; step++) {
        struct fixture_batch *batch = &batches[step - 1];
        fixture_batch_fill(batch, &config,
                           &(struct fixture_shape){.seed = (uint64_t)step % 4, .samples = 6});
        double expected = learn(&cpu, batch, step), actual = learn(&gpu, batch, step);
        printf("    step %2d: loss %.7f, on the cpu %.7f\n", step, actual, expected);
        EXPECT_NEAR(actual, expected, 1e-4 * expected);
        largest = fmax(largest, fabs(actual - expected) / expected);
    }
    printf("    largest relative difference %.2g\n", largest);
    learner_close(&cpu);
    learner_close(&gpu);
}

int main(void) {
    if (troupe_device_count(TROUPE_DEVICE_CUDA) == 0) {
        char why[128];
        troupe_device_summary(TROUPE_DEVICE_CUDA, why, sizeof why);
        printf("skipped: %s\n", why);
        return TEST_SKIPPED;
    }
    TEST(twenty_steps_give_the_losses_of_the_cpu);
    return TEST_END();
}
