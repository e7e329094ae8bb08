/* SPDX-License-Identifier: Apache-2.0
 *
 * The schedule, clipping and AdamW: against values worked out by hand; AdamW over many steps is
 * compared with PyTorch in tests/parity.
 */
#include "modules/optim/optimizer.h"

#include "tests/test.h"

static void warm_up_is_linear_and_the_cosine_ends_at_lr_min(void) {
    struct troupe_lr_schedule schedule = {.lr = 1, .lr_min = 0.1, .warmup = 10, .steps = 110};
    EXPECT_NEAR(troupe_learning_rate(&schedule, 1), 0.1, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 5), 0.5, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 10), 1, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 60), 0.55, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 110), 0.1, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 500), 0.1, 1e-12);
}

static void without_warm_up_the_first_step_has_lr(void) {
    struct troupe_lr_schedule schedule = {.lr = 3, .steps = 20};
    EXPECT_NEAR(troupe_learning_rate(&schedule, 1), 3, 1e-12);
    EXPECT_NEAR(troupe_learning_rate(&schedule, 20), 0, 1e-12);
    schedule.steps = 1;
    EXPECT_NEAR(troupe_learning_rate(&schedule, 1), 3, 1e-12);
}

static void the_norm_is_cut_to_clip(void) {
    EXPECT_NEAR(troupe_clip_scale(16, 1), 0.25, 1e-15);
    EXPECT_NEAR(troupe_clip_scale(0.25, 1), 1, 0);
    EXPECT_NEAR(troupe_clip_scale(16, 0), 1, 0);
    EXPECT_NEAR(troupe_clip_scale(NAN, 1), 1, 0);
}

/* A matrix that decays and is split, a vector that is replicated, a tied copy. */
struct parameters {
    float values[3][4];
    float gradients[3][4];
    struct troupe_parameter list[3];
    troupe_device *device;
    troupe_stream *stream;
};

static void parameters_open(struct parameters *p) {
    memset(p, 0, sizeof(*p));
    for (int i = 0; i < 3; i++) {
        p->list[i].spec.dimensions = 1;
        p->list[i].spec.tp_dimension = i == 1 ? -1 : 0;
        p->list[i].spec.decay = i == 0;
        p->list[i].extent[0] = 4;
        p->list[i].value = p->values[i];
        p->list[i].gradient = p->gradients[i];
        for (int e = 0; e < 4; e++) {
            p->values[i][e] = 1;
            p->gradients[i][e] = (float)(i + 1);
        }
    }
    p->list[2].tied_copy = true;
    EXPECT_OK(
        troupe_device_open(TROUPE_DEVICE_CPU, &(struct troupe_device_options){0}, &p->device));
    EXPECT_OK(troupe_stream_create(p->device, &p->stream));
}

static void parameters_close(struct parameters *p) {
    troupe_stream_destroy(p->stream);
    troupe_device_close(p->device);
}

static void replicas_and_tied_copies_count_once(void) {
    struct parameters p;
    parameters_open(&p);
    double squares[3];
    struct troupe_gradient_list gradients = {p.stream, troupe_kernels_for(TROUPE_DEVICE_CPU),
                                             p.list, 3, true};
    EXPECT_OK(troupe_gradient_square_sums(&gradients, squares));
    EXPECT_NEAR(squares[0], 4, 0);
    EXPECT_NEAR(squares[1], 16, 0);
    EXPECT_NEAR(squares[2], 0, 0);
    gradients.replicas_count = false;
    EXPECT_OK(troupe_gradient_square_sums(&gradients, squares));
    EXPECT_NEAR(squares[0], 4, 0);
    EXPECT_NEAR(squares[1], 0, 0);
    parameters_close(&p);
}

/* In the first step m / (1 - beta1) is g and v / (1 - beta2) is g^2, whatever g: the step is lr. */
static void the_first_step_has_the_length_of_lr(void) {
    struct parameters p;
    parameters_open(&p);
    troupe_optimizer *optimizer = NULL;
    struct troupe_optimizer_options options = {.stream = p.stream,
                                               .kernels = troupe_kernels_for(TROUPE_DEVICE_CPU),
                                               .parameters = p.list,
                                               .count = 3,
                                               .weight_decay = 0.5};
    EXPECT_OK(troupe_optimizer_create(&options, &optimizer));
    struct troupe_optimizer_step step = {.step = 1, .lr = 0.1, .gradient_scale = 0.5};
    EXPECT_OK(troupe_optimizer_update(optimizer, &step));
    EXPECT_NEAR(p.values[0][3], 1 - 0.1 * (1 + 0.5), 1e-6); /* decays */
    EXPECT_NEAR(p.values[1][0], 1 - 0.1, 1e-6);
    struct troupe_moments moments = troupe_optimizer_moments(optimizer, 1);
    EXPECT_NEAR(moments.first[2], 0.1 * 1, 1e-6); /* gradient 2 times scale 0.5 */
    EXPECT_NEAR(moments.second[2], 0.05 * 1, 1e-6);
    troupe_optimizer_destroy(optimizer);
    parameters_close(&p);
}

int main(void) {
    TEST(warm_up_is_linear_and_the_cosine_ends_at_lr_min);
    TEST(without_warm_up_the_first_step_has_lr);
    TEST(the_norm_is_cut_to_clip);
    TEST(replicas_and_tied_copies_count_once);
    TEST(the_first_step_has_the_length_of_lr);
    return TEST_END();
}
