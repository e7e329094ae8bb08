/* SPDX-License-Identifier: Apache-2.0 */
/* Switching the placement while training runs. Between every two of these placements, in both
 * directions: the losses are those of one undisturbed rank, weights and moments are bit for bit
 * what they were, and the bytes moved are exactly those that the ranks lacked. The same for a job
 * that is saved in one placement and resumes in another. Every other job deals its images out
 * (data.assign balanced). Run with the number of a placement, or without for all; and with `sim` on
 * simulated devices, the undisturbed rank on the CPU. */
#include <sys/stat.h>
#include <unistd.h>

#include "modules/data/file.h"
#include "runtime/memory.h"
#include "tests/e2e/loopback_job.h"

enum { RANKS = 6, BOXES_MAX = 256, BYTES_PER_ELEMENT = 12 };

static const char *const placements[] = {
    "placement.policy=homogeneous",
    "placement.vision.ranks=0-5 placement.vision.dp=6 placement.llm.ranks=0-5 placement.llm.tp=2 "
    "placement.llm.dp=3",
    "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=3-4 placement.llm.dp=2",
    "placement.vision.ranks=0-5 placement.vision.dp=6 placement.llm.ranks=0-5 placement.llm.pp=3 "
    "placement.llm.dp=2",
    "placement.vision.ranks=2 placement.llm.ranks=2",
    "placement.vision.ranks=4-5 placement.vision.tp=2 placement.llm.ranks=0-3 placement.llm.pp=2 "
    "placement.llm.tp=2",
    "placement.vision.ranks=0-1 placement.vision.dp=2 placement.llm.ranks=2-5 placement.llm.tp=4",
    "placement.vision.ranks=0-3 placement.vision.tp=2 placement.vision.dp=2 "
    "placement.llm.ranks=2-5 placement.llm.dp=4",
    "placement.vision.ranks=0 placement.projector.ranks=1-2 placement.projector.dp=2 "
    "placement.llm.ranks=3-5 placement.llm.pp=3 placement.llm.layers=[2,1,1]",
    "placement.policy=disjoint placement.vision.pp=2",
};
enum { PLACEMENTS = sizeof placements / sizeof *placements, STEPS = 2 * PLACEMENTS };

static const char *device = "cpu";

static const char data_settings[] =
    "data.synthetic.samples=64 data.synthetic.images_min=1 data.synthetic.images_max=3 "
    "data.synthetic.text_min=3 data.synthetic.text_max=30 data.synthetic.text_only=0.25 "
    "data.max_images=3 train.warmup=0 train.eps=1e-5";

/* ---- what a rank holds ---- */

struct box {
    char name[TROUPE_PARAMETER_NAME_BYTES];
    int64_t begin[TROUPE_DIMENSIONS_MAX], extent[TROUPE_DIMENSIONS_MAX];
};

struct boxes {
    struct box all[BOXES_MAX];
    int count;
};

static void note_box(void *arg, const struct troupe_parameter *p, const struct troupe_shard *shard,
                     int dp_index) {
    (void)shard, (void)dp_index;
    struct boxes *boxes = arg;
    EXPECT(boxes->count < BOXES_MAX, "more than %d parameters", BOXES_MAX);
    struct box *box = &boxes->all[boxes->count++];
    snprintf(box->name, sizeof box->name, "%s", p->spec.name);
    for (int d = 0; d < TROUPE_DIMENSIONS_MAX; d++) {
        bool used = d < p->spec.dimensions;
        box->begin[d] = used ? p->begin[d] : 0;
        box->extent[d] = used ? p->extent[d] : 1;
    }
}

static int64_t common_elements(const struct box *a, const struct box *b) {
    int64_t elements = 1;
    for (int d = 0; d < TROUPE_DIMENSIONS_MAX; d++) {
        int64_t begin = a->begin[d] > b->begin[d] ? a->begin[d] : b->begin[d];
        int64_t a_end = a->begin[d] + a->extent[d], b_end = b->begin[d] + b->extent[d];
        int64_t end = a_end < b_end ? a_end : b_end;
        elements *= end > begin ? end - begin : 0;
    }
    return elements;
}

/* |need \ have|: a rank has at most one box of a name. */
static int64_t lacking(const struct boxes *have, const struct boxes *need) {
    int64_t elements = 0;
    for (int i = 0; i < need->count; i++) {
        elements += common_elements(&need->all[i], &need->all[i]);
        for (int j = 0; j < have->count; j++) {
            if (strcmp(need->all[i].name, have->all[j].name) == 0) {
                elements -= common_elements(&need->all[i], &have->all[j]);
            }
        }
    }
    return elements;
}

/* ---- one job ---- */

struct walk {
    const int *visits; /* placements: the first at the start, then one more after each step */
    int count;
    int first_step;     /* that it runs, counted from 0 */
    const char *resume; /* checkpoint, or NULL */
    bool balanced;      /* data.assign */
    bool saves;         /* at the end; and at the beginning, to compare with what it resumed */
    char run_dir[64];
    double loss[STEPS], norm[STEPS];
    int64_t lacking[RANKS];
    pthread_barrier_t barrier;
};

static void set_placement(struct troupe_config *config, int placement) {
    loopback_job_set(config, placements[placement]);
    EXPECT_OK(troupe_config_resolve(config));
}

static void base_config(struct troupe_config *config, const struct walk *walk) {
    char settings[128];
    troupe_config_init(config);
    loopback_job_set(config, loopback_job_model);
    loopback_job_set(config, data_settings);
    snprintf(settings, sizeof settings, "train.steps=%d train.run_dir=%s train.device=%s",
             (int)STEPS, walk->run_dir, device);
    loopback_job_set(config, settings);
    loopback_job_set(config, walk->balanced ? "data.assign=balanced" : "data.assign=contiguous");
}

static void read_state(const char *run_dir, int64_t step, uint8_t *data[3], size_t bytes[3]) {
    static const char *const names[] = {"model", "optimizer-m", "optimizer-v"};
    for (int i = 0; i < 3; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/step-%" PRId64 "/%s.safetensors", run_dir, step, names[i]);
        EXPECT_OK(troupe_file_read(path, &data[i], &bytes[i]));
    }
}

/* All ranks save; rank 0 compares with what was saved before, if that is given. */
static void save_and_compare(struct walk *walk, int rank, troupe_train *train, uint8_t *before[3],
                             size_t before_bytes[3], bool compare) {
    uint8_t *data[3];
    size_t bytes[3];
    EXPECT_OK(troupe_train_save(train));
    if (rank != 0) {
        return;
    }
    read_state(walk->run_dir, troupe_train_position(train), data, bytes);
    for (int i = 0; i < 3; i++) {
        if (compare) {
            EXPECT_EQ(bytes[i], before_bytes[i]);
            EXPECT(memcmp(data[i], before[i], bytes[i]) == 0, "file %d differs after the switch",
                   i);
            troupe_free(before[i]);
        }
        before[i] = data[i];
        before_bytes[i] = bytes[i];
    }
}

/* The sum over all ranks, on each. */
static int64_t sum_lacking(struct walk *walk, int rank, int64_t mine) {
    int64_t sum = 0;
    walk->lacking[rank] = mine;
    pthread_barrier_wait(&walk->barrier);
    for (int r = 0; r < RANKS; r++) {
        sum += walk->lacking[r];
    }
    pthread_barrier_wait(&walk->barrier);
    return sum;
}

static void switch_and_check(struct walk *walk, int rank, troupe_train *train, int placement) {
    struct troupe_config *next = malloc(sizeof *next);
    struct boxes *have = calloc(1, sizeof *have), *need = calloc(1, sizeof *need);
    struct troupe_switch_report report;
    uint8_t *saved[3] = {NULL};
    size_t saved_bytes[3];
    base_config(next, walk);
    set_placement(next, placement);
    save_and_compare(walk, rank, train, saved, saved_bytes, false);
    troupe_train_visit(train, note_box, have);
    EXPECT_OK(troupe_train_switch(train, next, &report));
    troupe_train_visit(train, note_box, need);
    save_and_compare(walk, rank, train, saved, saved_bytes, true);
    int64_t bound = sum_lacking(walk, rank, lacking(have, need)) * BYTES_PER_ELEMENT;
    EXPECT_EQ(report.bytes_moved, bound);
    EXPECT_EQ(report.bytes_bound, bound);
    EXPECT_EQ(report.step, troupe_train_position(train));
    for (int i = 0; i < 3; i++) {
        troupe_free(saved[i]);
    }
    free(next);
    free(have);
    free(need);
}

static void walk_rank(struct loopback_job *job, int rank, troupe_comm *comm) {
    struct walk *walk = job->arg;
    troupe_train *train = NULL;
    struct troupe_train_options options = {
        .config = &job->configs[rank], .comm = comm, .resume = walk->resume};
    EXPECT_OK(troupe_train_create(&options, &train));
    EXPECT_EQ(troupe_train_position(train), walk->first_step);
    if (walk->resume != NULL) {
        EXPECT_OK(troupe_train_save(train));
    }
    for (int i = 0; i < walk->count; i++) {
        struct troupe_step_report report;
        if (i > 0 && walk->visits[i] != walk->visits[i - 1]) {
            switch_and_check(walk, rank, train, walk->visits[i]);
        }
        EXPECT_OK(troupe_train_step(train, &report));
        if (rank == 0) {
            walk->loss[i] = report.loss;
            walk->norm[i] = report.grad_norm;
        }
    }
    if (walk->saves) {
        EXPECT_OK(troupe_train_save(train));
    }
    troupe_train_destroy(train);
}

static void remove_folder(const char *path) {
    char command[96];
    snprintf(command, sizeof command, "rm -r %s", path);
    EXPECT_EQ(system(command), 0);
}

/* The folder of the run is left. */
static void take_walk(struct walk *walk, int ranks, uint64_t seed) {
    static struct loopback_job job;
    job = (struct loopback_job){
        .ranks = ranks, .seed = seed, .delay_ns_max = 20000, .body = walk_rank, .arg = walk};
    snprintf(walk->run_dir, sizeof walk->run_dir, "/tmp/troupe-switch-XXXXXX");
    EXPECT(mkdtemp(walk->run_dir) != NULL, "%s", walk->run_dir);
    pthread_barrier_init(&walk->barrier, NULL, RANKS);
    for (int r = 0; r < ranks; r++) {
        base_config(&job.configs[r], walk);
        set_placement(&job.configs[r], walk->visits[0]);
    }
    loopback_job_run(&job);
    pthread_barrier_destroy(&walk->barrier);
}

static void expect_close(const char *what, int step, double actual, double expected) {
    EXPECT(fabs(actual - expected) <= 1e-5 * fabs(expected),
           "%s of step %d is %.9g, undisturbed %.9g", what, step + 1, actual, expected);
}

/* ---- all pairs ---- */

static struct walk undisturbed;

static void train_undisturbed(void) {
    static int visits[STEPS];
    undisturbed.visits = visits;
    undisturbed.count = STEPS;
    take_walk(&undisturbed, 1, 0);
    remove_folder(undisturbed.run_dir);
    EXPECT(undisturbed.loss[STEPS - 1] < undisturbed.loss[0], "loss went from %g to %g",
           undisturbed.loss[0], undisturbed.loss[STEPS - 1]);
}

static void expect_undisturbed(const struct walk *walk) {
    for (int i = 0; i < walk->count; i++) {
        int step = walk->first_step + i;
        expect_close("loss", step, walk->loss[i], undisturbed.loss[step]);
        expect_close("gradient norm", step, walk->norm[i], undisturbed.norm[step]);
    }
}

/* From `hub` to each placement of a higher number and back. */
static void go_there_and_back(int hub, uint64_t seed) {
    int visits[STEPS], count = 0;
    struct walk *walk = calloc(1, sizeof *walk);
    visits[count++] = hub;
    for (int p = hub + 1; p < PLACEMENTS; p++) {
        visits[count++] = p;
        visits[count++] = hub;
    }
    walk->visits = visits;
    walk->count = count;
    walk->balanced = hub % 2 == 0;
    take_walk(walk, RANKS, seed);
    remove_folder(walk->run_dir);
    expect_undisturbed(walk);
    printf("    from placement %d: %d switches\n", hub, count - 1);
    free(walk);
}

/* ---- saved in one, resumed in another ---- */

static void expect_same_state(const char *run_dir, const char *other_dir, int64_t step) {
    uint8_t *a[3], *b[3];
    size_t a_bytes[3], b_bytes[3];
    read_state(run_dir, step, a, a_bytes);
    read_state(other_dir, step, b, b_bytes);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(a_bytes[i], b_bytes[i]);
        EXPECT(memcmp(a[i], b[i], a_bytes[i]) == 0, "file %d differs after the resume", i);
        troupe_free(a[i]);
        troupe_free(b[i]);
    }
}

static void resume_everywhere(int saved, uint64_t seed) {
    enum { BEFORE = 4, AFTER = 4 };
    const int before[BEFORE] = {saved, saved, saved, saved};
    struct walk *first = calloc(1, sizeof *first), *second = calloc(1, sizeof *second);
    char checkpoint[96];
    *first = (struct walk){.visits = before, .count = BEFORE, .saves = true};
    take_walk(first, RANKS, seed);
    snprintf(checkpoint, sizeof checkpoint, "%s/step-%d", first->run_dir, (int)BEFORE);
    for (int p = 0; p < PLACEMENTS; p++) {
        const int after[AFTER] = {p, p, p, p};
        *second = (struct walk){.visits = after,
                                .count = AFTER,
                                .first_step = BEFORE,
                                .resume = checkpoint,
                                .balanced = (saved + p) % 2 == 0};
        take_walk(second, RANKS, seed);
        expect_same_state(first->run_dir, second->run_dir, BEFORE);
        expect_undisturbed(second);
        remove_folder(second->run_dir);
    }
    remove_folder(first->run_dir);
    free(first);
    free(second);
}

int main(int argc, char **argv) {
    uint64_t seed = test_seed();
    int only = -1; /* all */
    train_undisturbed();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "sim") == 0) {
            device = "sim";
        } else {
            only = atoi(argv[i]);
        }
    }
    for (int p = 0; p + 1 < PLACEMENTS; p++) {
        if (only < 0 || only == p) {
            go_there_and_back(p, seed + (uint64_t)p);
            resume_everywhere(p, seed + (uint64_t)p);
            test_count += 2;
        }
    }
    return TEST_END();
}
