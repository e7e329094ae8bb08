/* SPDX-License-Identifier: Apache-2.0 */
/* Parity with one rank: every layout and placement trains 20 steps from the same seed and must give
 * the losses, per-module gradient norms, step-1 gradients and final parameters of a single rank.
 * Initial weights are bitwise those of a single rank, and replicas bitwise equal at the end.
 * Loopback ranks with seeded delays; run with the name of one case, or without for all. */
#include <pthread.h>
#include <stdbool.h>

#include "modules/train/train.h"
#include "runtime/check.h"
#include "runtime/memory.h"
#include "tests/test.h"

enum { STEPS = 20, RANKS_MAX = 8, TENSORS_MAX = 128 };

struct layout_case {
    const char *name;
    int ranks;
    const char *settings; /* key=value separated by blanks */
    int host_ranks;       /* adjacent ranks that share a host; 0: all */
};

static const struct layout_case cases[] = {
    {"encoder_dp4_llm_tp2_dp2", 4,
     "placement.vision.ranks=0-3 placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.tp=2 "
     "placement.llm.dp=2",
     0},
    {"disjoint_dp2_tp2", 4,
     "placement.vision.ranks=0-1 placement.vision.dp=2 placement.llm.ranks=2-3 placement.llm.tp=2",
     0},
    {"fan_in_dp3_dp2", 5,
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=3-4 placement.llm.dp=2",
     0},
    {"encoder_tp2_llm_dp4", 4,
     "placement.vision.ranks=0-1 placement.vision.tp=2 placement.llm.ranks=0-3 placement.llm.dp=4",
     0},
    {"fan_out_dp1_dp4", 4,
     "placement.vision.ranks=2 placement.vision.dp=1 placement.llm.ranks=0-3 placement.llm.dp=4",
     0},
    {"equal_dp2", 2,
     "placement.vision.ranks=0-1 placement.vision.dp=2 placement.llm.ranks=0-1 placement.llm.dp=2",
     0},
    {"equal_tp2_dp2", 4,
     "placement.vision.ranks=0-3 placement.vision.tp=2 placement.vision.dp=2 "
     "placement.llm.ranks=0-3 placement.llm.tp=2 placement.llm.dp=2",
     0},
    {"overlap_partly_dp3_tp2", 4,
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=2-3 placement.llm.tp=2",
     0},
    {"pp3_uneven", 3,
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=0-2 placement.llm.pp=3 "
     "placement.llm.layers=[2,1,2]",
     0},
    {"pp2_dp2_colocated", 4,
     "placement.vision.ranks=0-3 placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 "
     "placement.llm.dp=2",
     0},
    {"pp2_tp2_disjoint", 6,
     "placement.vision.ranks=4-5 placement.vision.dp=2 placement.llm.ranks=0-3 placement.llm.pp=2 "
     "placement.llm.tp=2",
     0},
    {"pp3_disjoint_encoder_tp2", 5,
     "placement.vision.ranks=3-4 placement.vision.tp=2 placement.llm.ranks=0-2 placement.llm.pp=3",
     0},
    {"tp4_encoder_dp4", 4,
     "placement.vision.ranks=0-3 placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.tp=4",
     0},
    {"dp3_dp5_all_overlap", 5,
     "placement.vision.ranks=1-3 placement.vision.dp=3 placement.llm.ranks=0-4 placement.llm.dp=5",
     0},
    {"projector_on_llm_ranks", 4,
     "placement.vision.ranks=0-1 placement.vision.dp=2 placement.projector.ranks=2-3 "
     "placement.projector.dp=2 placement.llm.ranks=2-3 placement.llm.tp=2",
     0},
    {"three_modules_disjoint", 6,
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.projector.ranks=3 "
     "placement.llm.ranks=4-5 placement.llm.pp=2",
     0},
    {"encoder_dp8_llm_tp2_dp2_pp2", 8,
     "placement.vision.ranks=0-7 placement.vision.dp=8 placement.llm.ranks=0-7 placement.llm.tp=2 "
     "placement.llm.dp=2 placement.llm.pp=2",
     0},
    {"untied_pp2", 2,
     "model.llm.untied=true placement.vision.ranks=0-1 placement.vision.dp=2 "
     "placement.llm.ranks=0-1 placement.llm.pp=2",
     0},
    {"fifo_order", 4,
     "schedule.order=fifo placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"gpipe_order", 4,
     "schedule.order=gpipe schedule.slots=4 schedule.credits=4 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"interleaved_order", 4,
     "schedule.order=interleaved schedule.slots=4 schedule.credits=4 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"three_phase_order", 4,
     "schedule.order=three_phase schedule.slots=4 schedule.credits=4 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"zero_bubble_order", 4,
     "schedule.order=zero_bubble schedule.slots=4 schedule.credits=4 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"fill_order", 4,
     "schedule.order=fill schedule.slots=4 schedule.credits=4 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"mode_static", 4,
     "schedule.mode=static placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2",
     0},
    {"mode_static_dp3_pp2_dp2_order_1f1b", 7,
     "schedule.mode=static schedule.order=1f1b data.synthetic.text_only=0.5 "
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=3-6 placement.llm.pp=2 "
     "placement.llm.dp=2",
     3},
    {"scarce_slots_and_credits", 4,
     "schedule.slots=1 schedule.credits=1 schedule.look_ahead=5 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.dp=2",
     0},
    {"mostly_text_only", 4,
     "data.synthetic.text_only=0.8 placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.llm.ranks=0-3 placement.llm.tp=2 placement.llm.dp=2",
     0},
    {"relays_on_another_host_dp2_tp4", 6,
     "placement.vision.ranks=0-1 placement.vision.dp=2 placement.llm.ranks=2-5 placement.llm.tp=4",
     2},
    {"relays_on_two_hosts_dp3_tp2_dp2", 8,
     "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=4-7 placement.llm.tp=2 "
     "placement.llm.dp=2",
     3},
    {"relays_on_hosts_with_holders_tp8", 8,
     "model.vision.heads=8 model.llm.heads=8 model.llm.kv_heads=8 placement.vision.ranks=0-2 "
     "placement.vision.dp=3 placement.llm.ranks=0-7 placement.llm.tp=8",
     4},
    {"balanced_dp4_llm_tp2_dp2", 4,
     "data.assign=balanced placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.llm.ranks=0-3 placement.llm.tp=2 placement.llm.dp=2",
     0},
    {"balanced_pp2_dp2_colocated", 4,
     "data.assign=balanced placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.dp=2",
     0},
    {"balanced_encoder_tp2_dp2_llm_dp4", 4,
     "data.assign=balanced placement.vision.ranks=0-3 placement.vision.tp=2 placement.vision.dp=2 "
     "placement.llm.ranks=0-3 placement.llm.dp=4",
     0},
    {"balanced_disjoint_dp3_tp2", 5,
     "data.assign=balanced placement.vision.ranks=0-2 placement.vision.dp=3 "
     "placement.llm.ranks=3-4 placement.llm.tp=2",
     0},
    {"balanced_projector_on_llm_ranks", 5,
     "data.assign=balanced placement.vision.ranks=0-2 placement.vision.dp=3 "
     "placement.projector.ranks=3-4 placement.projector.dp=2 placement.llm.ranks=3-4 "
     "placement.llm.dp=2",
     0},
    {"balanced_mostly_text_only", 4,
     "data.assign=balanced data.synthetic.text_only=0.8 placement.vision.ranks=0-3 "
     "placement.vision.dp=4 placement.llm.ranks=0-3 placement.llm.dp=4",
     0},
    {"balanced_relays_on_hosts_dp5_tp2_dp2", 8,
     "data.assign=balanced placement.vision.ranks=0-4 placement.vision.dp=5 "
     "placement.llm.ranks=4-7 placement.llm.tp=2 placement.llm.dp=2",
     3},
    {"balanced_shares_1_2_3_0_llm_pp2_dp2", 4,
     "data.assign=balanced placement.vision.ranks=0-3 placement.vision.dp=4 "
     "placement.vision.shares=[1,2,3,0] placement.llm.ranks=0-3 placement.llm.pp=2 "
     "placement.llm.dp=2",
     0},
    {"balanced_shares_tp2_dp2_projector_apart", 5,
     "data.assign=balanced placement.vision.ranks=0-3 placement.vision.tp=2 placement.vision.dp=2 "
     "placement.vision.shares=[3,1] placement.projector.ranks=1-3 placement.projector.dp=3 "
     "placement.projector.shares=[0,1,4] placement.llm.ranks=3-4 placement.llm.pp=2 "
     "placement.llm.layers=[4,1]",
     0},
    {"policy_homogeneous", 3, "placement.policy=homogeneous", 0},
    {"policy_colocated", 4, "placement.policy=colocated", 0},
    {"policy_disjoint", 4, "placement.policy=disjoint", 0},
};

/* One run: what all ranks agree on, and full tensors pieced together from the shards. */
enum moment { INITIAL, FIRST_GRADIENT, FINAL, MOMENTS };

struct tensor {
    char name[TROUPE_PARAMETER_NAME_BYTES];
    int64_t elements;
    float *data[MOMENTS];
    bool *seen[MOMENTS]; /* by element: some shard has put it */
};

struct run {
    struct troupe_config config;
    int ranks;
    uint64_t seed;
    double loss[STEPS];
    double norm[STEPS];
    double module_norm[STEPS][TROUPE_CONFIG_MODULES];
    struct tensor tensors[TENSORS_MAX];
    int tensor_count;
    pthread_mutex_t lock; /* tensors, while ranks put their boxes in */
    troupe_loopback *world;
};

struct rank {
    struct run *run;
    int rank;
    pthread_t thread;
};

static int64_t elements_of(const struct troupe_parameter_spec *spec) {
    int64_t elements = 1;
    for (int d = 0; d < spec->dimensions; d++) {
        elements *= spec->shape[d];
    }
    return elements;
}

static struct tensor *find_tensor(struct run *run, const struct troupe_parameter_spec *spec) {
    for (int i = 0; i < run->tensor_count; i++) {
        if (strcmp(run->tensors[i].name, spec->name) == 0) {
            return &run->tensors[i];
        }
    }
    EXPECT(run->tensor_count < TENSORS_MAX, "more than %d tensors", TENSORS_MAX);
    struct tensor *tensor = &run->tensors[run->tensor_count++];
    memcpy(tensor->name, spec->name, sizeof tensor->name);
    tensor->elements = elements_of(spec);
    for (int m = 0; m < MOMENTS; m++) {
        tensor->data[m] = calloc((size_t)tensor->elements, sizeof(float));
        tensor->seen[m] = calloc((size_t)tensor->elements, sizeof(bool));
    }
    return tensor;
}

/* Copies the box of a shard into a full tensor; replicas must agree bit for bit. */
static void put_box(const struct troupe_parameter *p, const float *box, struct tensor *tensor,
                    enum moment moment) {
    float *full = tensor->data[moment];
    bool *seen = tensor->seen[moment];
    int64_t count = troupe_parameter_elements(p);
    for (int64_t i = 0; i < count; i++) {
        int64_t index[TROUPE_DIMENSIONS_MAX] = {0};
        int64_t at = 0, rest = i;
        for (int d = p->spec.dimensions - 1; d >= 0; d--) {
            index[d] = rest % p->extent[d];
            rest /= p->extent[d];
        }
        for (int d = 0; d < p->spec.dimensions; d++) {
            at = at * p->spec.shape[d] + p->begin[d] + index[d];
        }
        EXPECT(!seen[at] || memcmp(&full[at], &box[i], sizeof(float)) == 0,
               "%s element %" PRId64 ": replicas hold %.9g and %.9g", p->spec.name, at, full[at],
               box[i]);
        full[at] = box[i];
        seen[at] = true;
    }
}

struct collect {
    struct run *run;
    enum moment moment;
};

static void collect_parameter(void *arg, const struct troupe_parameter *parameter,
                              const struct troupe_shard *shard, int dp_index) {
    (void)shard;
    (void)dp_index;
    struct collect *collect = arg;
    put_box(parameter, collect->moment == FIRST_GRADIENT ? parameter->gradient : parameter->value,
            find_tensor(collect->run, &parameter->spec), collect->moment);
}

static void collect(struct run *run, troupe_train *train, enum moment moment) {
    struct collect arg = {run, moment};
    pthread_mutex_lock(&run->lock);
    troupe_train_visit(train, collect_parameter, &arg);
    pthread_mutex_unlock(&run->lock);
}

static void *train_rank(void *arg) {
    struct rank *me = arg;
    struct run *run = me->run;
    troupe_comm *comm = NULL;
    troupe_train *train = NULL;
    EXPECT_OK(troupe_comm_open_loopback(run->world, me->rank, &comm));
    EXPECT_OK(troupe_train_create(
        &(struct troupe_train_options){.config = &run->config, .comm = comm}, &train));
    collect(run, train, INITIAL);
    for (int step = 0; step < STEPS; step++) {
        struct troupe_step_report report;
        EXPECT_OK(troupe_train_step(train, &report));
        if (me->rank == 0) {
            run->loss[step] = report.loss;
            run->norm[step] = report.grad_norm;
            memcpy(run->module_norm[step], report.module_norm, sizeof report.module_norm);
        }
        if (step == 0) {
            collect(run, train, FIRST_GRADIENT);
        }
    }
    collect(run, train, FINAL);
    troupe_train_destroy(train);
    troupe_comm_close(comm);
    return NULL;
}

static void set_all(struct troupe_config *config, const char *settings) {
    char copy[1024], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        EXPECT_OK(troupe_config_set(config, word));
    }
}

static const char *const model_settings =
    "model.vision.layers=2 model.vision.hidden=24 model.vision.heads=4 model.vision.ffn=40 "
    "model.vision.patch=4 model.vision.image=16 model.projector.hidden=20 model.llm.layers=5 "
    "model.llm.hidden=32 model.llm.heads=4 model.llm.kv_heads=4 model.llm.ffn=44 "
    "model.llm.sequence=96 data.synthetic.samples=64 data.synthetic.images_min=1 "
    "data.synthetic.images_max=3 data.synthetic.text_min=3 data.synthetic.text_max=30 "
    "data.synthetic.text_only=0.25 data.max_images=3 train.global_batch=11 train.microbatches=4 "
    "train.lr=1e-3 train.warmup=0 train.eps=1e-5 train.clip=1.0 train.run_dir=/tmp "
    "train.workers=1";

static void train(struct run *run, int ranks, int host_ranks, const char *settings, uint64_t seed) {
    struct rank all[RANKS_MAX];
    memset(run, 0, sizeof *run);
    run->ranks = ranks;
    pthread_mutex_init(&run->lock, NULL);
    troupe_config_init(&run->config);
    set_all(&run->config, model_settings);
    set_all(&run->config, settings);
    char steps[32];
    snprintf(steps, sizeof steps, "train.steps=%d", STEPS);
    EXPECT_OK(troupe_config_set(&run->config, steps));
    EXPECT_OK(troupe_config_resolve(&run->config));
    EXPECT_OK(troupe_loopback_create(
        &(struct troupe_loopback_options){
            .ranks = ranks, .seed = seed, .delay_ns_max = 20000, .host_ranks = host_ranks},
        &run->world));
    for (int r = 0; r < ranks; r++) {
        all[r] = (struct rank){.run = run, .rank = r};
        EXPECT_EQ(pthread_create(&all[r].thread, NULL, train_rank, &all[r]), 0);
    }
    for (int r = 0; r < ranks; r++) {
        pthread_join(all[r].thread, NULL);
    }
    troupe_loopback_destroy(run->world);
    pthread_mutex_destroy(&run->lock);
}

static void run_free(struct run *run) {
    for (int i = 0; i < run->tensor_count; i++) {
        for (int m = 0; m < MOMENTS; m++) {
            free(run->tensors[i].data[m]);
            free(run->tensors[i].seen[m]);
        }
    }
}

static void expect_relative(const char *what, int step, double actual, double expected) {
    if (!(fabs(actual - expected) <= 1e-5 * fabs(expected))) {
        TEST_FAIL("%s of step %d is %.9g, a single rank gives %.9g", what, step + 1, actual,
                  expected);
    }
}

/* The gradient of a key bias is zero in exact arithmetic: softmax does not see a constant. */
static bool is_key_bias(const char *name) {
    size_t length = strlen(name);
    return length > 6 && strcmp(name + length - 6, "k.bias") == 0;
}

static double largest(const float *values, int64_t count) {
    double result = 0;
    for (int64_t i = 0; i < count; i++) {
        result = fmax(result, fabs(values[i]));
    }
    return result;
}

static void compare_moment(const struct tensor *t, const struct tensor *ref, enum moment moment,
                           double norm) {
    const float *x = t->data[moment], *y = ref->data[moment];
    double tolerance = 1e-5 * largest(y, ref->elements) + 1e-7 * norm;
    for (int64_t i = 0; i < ref->elements; i++) {
        EXPECT(t->seen[moment][i], "%s element %" PRId64 ": no rank holds it", t->name, i);
        EXPECT(fabs((double)x[i] - y[i]) <= tolerance,
               "%s element %" PRId64 " of moment %d: %.9g, a single rank gives %.9g", t->name, i,
               (int)moment, x[i], y[i]);
    }
}

/* <g, ref> / <ref, ref>: Adam and clipping would hide a wrong scale. */
static void compare_scale(const struct tensor *t, const struct tensor *ref) {
    const float *x = t->data[FIRST_GRADIENT], *y = ref->data[FIRST_GRADIENT];
    double dot = 0, square = 0;
    for (int64_t i = 0; i < ref->elements; i++) {
        dot += (double)x[i] * y[i];
        square += (double)y[i] * y[i];
    }
    EXPECT(square == 0 || fabs(dot / square - 1) <= 1e-5, "%s: scale of the gradient is %.9g",
           t->name, dot / square);
}

static void compare_tensor(const struct tensor *t, const struct tensor *ref, double norm) {
    EXPECT_STRING(t->name, ref->name);
    EXPECT_EQ(t->elements, ref->elements);
    EXPECT(memcmp(t->data[INITIAL], ref->data[INITIAL], (size_t)ref->elements * sizeof(float)) == 0,
           "%s: initial weights differ", t->name);
    compare_moment(t, ref, FIRST_GRADIENT, norm);
    if (!is_key_bias(t->name)) {
        compare_moment(t, ref, FINAL, norm);
        compare_scale(t, ref);
    }
}

static const struct tensor *same_name(const struct run *run, const char *name) {
    for (int i = 0; i < run->tensor_count; i++) {
        if (strcmp(run->tensors[i].name, name) == 0) {
            return &run->tensors[i];
        }
    }
    TEST_FAIL("no tensor %s", name);
}

static void compare(const struct run *run, const struct run *ref) {
    static const char *const names[] = {"norm of vision", "norm of projector", "norm of llm"};
    for (int step = 0; step < STEPS; step++) {
        expect_relative("loss", step, run->loss[step], ref->loss[step]);
        expect_relative("gradient norm", step, run->norm[step], ref->norm[step]);
        for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
            expect_relative(names[i], step, run->module_norm[step][i], ref->module_norm[step][i]);
        }
    }
    EXPECT_EQ(run->tensor_count, ref->tensor_count);
    for (int i = 0; i < ref->tensor_count; i++) {
        compare_tensor(same_name(run, ref->tensors[i].name), &ref->tensors[i], ref->norm[0]);
    }
}

/* The model and data keys of a case hold for its reference too; who has what does not. */
static void reference_settings(const char *settings, char *out, size_t bytes) {
    char copy[1024], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", settings);
    snprintf(out, bytes, "placement.policy=homogeneous");
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        bool assigns = strncmp(word, "data.assign=", 12) == 0;
        if (strncmp(word, "model.", 6) == 0 || (strncmp(word, "data.", 5) == 0 && !assigns)) {
            strncat(out, " ", bytes - strlen(out) - 1);
            strncat(out, word, bytes - strlen(out) - 1);
        }
    }
}

static void check_case(const struct layout_case *c, uint64_t seed) {
    static struct run run, ref;
    char settings[1024];
    reference_settings(c->settings, settings, sizeof settings);
    train(&ref, 1, 0, settings, seed);
    EXPECT(ref.loss[STEPS - 1] < ref.loss[0] && ref.norm[0] > 0, "loss went from %g to %g",
           ref.loss[0], ref.loss[STEPS - 1]);
    train(&run, c->ranks, c->host_ranks, c->settings, seed);
    compare(&run, &ref);
    run_free(&run);
    run_free(&ref);
    printf("  %s: loss %.6f -> %.6f on %d ranks as on one\n", c->name, ref.loss[0],
           ref.loss[STEPS - 1], c->ranks);
}

int main(int argc, char **argv) {
    uint64_t seed = test_seed();
    for (size_t i = 0; i < TROUPE_COUNT_OF(cases); i++) {
        if (argc < 2 || strcmp(argv[1], cases[i].name) == 0) {
            check_case(&cases[i], seed + i);
            test_count++;
        }
    }
    return TEST_END();
}
