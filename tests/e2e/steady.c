/* SPDX-License-Identifier: Apache-2.0 */
/* No thread of Troupe allocates while it trains: this program is linked with wrapped malloc,
 * calloc, realloc, aligned_alloc and posix_memalign, which count the calls of everything linked
 * into it. Loopback ranks take two steps to settle, then ten in which nobody may call. */
#include <stdatomic.h>

#include "runtime/memory.h"
#include "runtime/workers.h"
#include "tests/e2e/loopback_job.h"

enum { SETTLING_STEPS = 2, STEADY_STEPS = 10, CALLERS_MAX = 16 };

static atomic_bool armed;
static atomic_int call_count;
static _Atomic(void *) callers[CALLERS_MAX]; /* for addr2line */

static void count_call(void *caller) {
    if (atomic_load(&armed)) {
        int call = atomic_fetch_add(&call_count, 1);
        atomic_store(&callers[call % CALLERS_MAX], caller);
    }
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes) {
    count_call(__builtin_return_address(0));
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes) {
    count_call(__builtin_return_address(0));
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
    count_call(__builtin_return_address(0));
    return __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    count_call(__builtin_return_address(0));
    return __real_aligned_alloc(alignment, bytes);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes) {
    count_call(__builtin_return_address(0));
    return __real_posix_memalign(out, alignment, bytes);
}

static void wrappers_see_the_library(void) {
    void *memory = NULL;
    atomic_store(&armed, true);
    EXPECT_OK(troupe_alloc(1, 1, &memory));
    atomic_store(&armed, false);
    EXPECT_EQ(atomic_load(&call_count), 1);
    atomic_store(&call_count, 0);
    troupe_free(memory);
}

/* Ranks meet here; those that wait go on serving the others. */
struct meeting {
    atomic_int arrived;
};

static void meet(struct meeting *meeting, int ranks, troupe_comm *comm) {
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < ranks) {
        if (troupe_comm_progress(comm) == 0) {
            troupe_comm_idle(comm);
        }
    }
}

struct meetings {
    struct meeting settled, armed, done;
};

static void take_steps(troupe_train *train, int steps) {
    struct troupe_step_report report;
    for (int i = 0; i < steps; i++) {
        EXPECT_OK(troupe_train_step(train, &report));
    }
}

static void train_steadily(struct loopback_job *job, int rank, troupe_comm *comm) {
    struct meetings *meetings = job->arg;
    troupe_train *train = NULL;
    troupe_workers *workers = NULL;
    EXPECT_OK(troupe_workers_create(&(struct troupe_workers_options){.count = 2}, &workers));
    EXPECT_OK(troupe_train_create(&(struct troupe_train_options){.config = &job->configs[rank],
                                                                 .comm = comm,
                                                                 .workers = workers},
                                  &train));
    take_steps(train, SETTLING_STEPS);
    meet(&meetings->settled, job->ranks, comm);
    if (rank == 0) {
        atomic_store(&armed, true);
    }
    meet(&meetings->armed, job->ranks, comm);
    take_steps(train, STEADY_STEPS);
    meet(&meetings->done, job->ranks, comm);
    atomic_store(&armed, false);
    troupe_train_destroy(train);
    troupe_workers_destroy(workers);
}

static void expect_no_calls(int ranks, const char *placement) {
    static struct loopback_job job;
    struct meetings meetings = {0};
    job = (struct loopback_job){.ranks = ranks,
                                .seed = test_seed(),
                                .delay_ns_max = 20000,
                                .body = train_steadily,
                                .arg = &meetings};
    loopback_job_configure(&job, loopback_job_model);
    for (int r = 0; r < ranks; r++) {
        loopback_job_set(&job.configs[r],
                         "train.steps=12 data.synthetic.samples=64 data.synthetic.images_min=1 "
                         "data.synthetic.images_max=3 data.max_images=3 data.synthetic.text_min=3 "
                         "data.synthetic.text_max=30 data.synthetic.text_only=0.25");
        loopback_job_set(&job.configs[r], placement);
    }
    loopback_job_run(&job);
    int count = atomic_load(&call_count);
    for (int i = 0; i < count && i < CALLERS_MAX; i++) {
        fprintf(stderr, "  called from %p\n", atomic_load(&callers[i]));
    }
    EXPECT_EQ(count, 0);
}

static void one_rank_does_not_allocate(void) {
    expect_no_calls(1, "placement.policy=homogeneous");
}

static void tp_dp_and_pp_do_not_allocate(void) {
    expect_no_calls(4, "placement.vision.ranks=0-3 placement.vision.tp=2 placement.vision.dp=2 "
                       "placement.llm.ranks=0-3 placement.llm.pp=2 placement.llm.tp=2");
}

static void disjoint_ranks_do_not_allocate(void) {
    expect_no_calls(5, "placement.vision.ranks=0-2 placement.vision.dp=3 placement.llm.ranks=3-4 "
                       "placement.llm.dp=2 schedule.order=fifo");
}

int main(void) {
    TEST(wrappers_see_the_library);
    TEST(one_rank_does_not_allocate);
    TEST(tp_dp_and_pp_do_not_allocate);
    TEST(disjoint_ranks_do_not_allocate);
    return TEST_END();
}
