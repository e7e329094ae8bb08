/* SPDX-License-Identifier: Apache-2.0 */
/* A state is one sequence of tasks for each rank; every task begins as early as its rank's one
 * before and what it waits for allow. A move takes a task of the longest path, or any, to another
 * place of its sequence. A move that makes tasks wait for each other in a circle is refused. */
#include "tests/schedule/annealer.h"

#include "runtime/clock.h"
#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { REACH = 12, BEGIN_CHECK = 64 };

struct annealer {
    const struct problem *p;
    int *sequence; /* tasks by rank, one rank behind the other */
    int *first;    /* of each rank in sequence, and behind the last */
    int *place;    /* of each task in sequence */
    int *after;    /* tasks that wait for a task: after[first_after[t] .. first_after[t + 1]) */
    int64_t *after_delay;
    int *first_after;
    int *waits; /* scratch */
    int *queue;
    int64_t *end_ns;
    int *cause; /* the task whose end made it begin then; -1: none */
    int last;   /* the task that ends last */
    uint64_t seed, drawn;
};

static uint64_t below(struct annealer *s, uint64_t bound) {
    return troupe_random_below(s->seed, 1, s->drawn++, bound);
}

static double uniform(struct annealer *s) {
    return troupe_random_uniform(s->seed, 2, s->drawn++);
}

/* ---- evaluation ---- */

static void release(struct annealer *s, int from, int task, int64_t ready_ns, int *count) {
    if (ready_ns > s->end_ns[task]) { /* until it is queued: when it may begin */
        s->end_ns[task] = ready_ns;
        s->cause[task] = from;
    }
    if (--s->waits[task] == 0) {
        s->queue[(*count)++] = task;
    }
}

/* The makespan, or INT64_MAX where tasks wait in a circle. */
static int64_t evaluate(struct annealer *s) {
    const struct problem *p = s->p;
    int count = 0;
    int64_t makespan = 0;
    for (int t = 0; t < p->task_count; t++) {
        s->waits[t] = p->begin[t + 1] - p->begin[t] + (s->place[t] > s->first[p->rank_of[t]]);
        s->end_ns[t] = 0;
        s->cause[t] = -1;
        if (s->waits[t] == 0) {
            s->queue[count++] = t;
        }
    }
    for (int i = 0; i < count; i++) {
        int t = s->queue[i];
        s->end_ns[t] += p->ns[t];
        if (s->end_ns[t] >= makespan) {
            makespan = s->end_ns[t];
            s->last = t;
        }
        for (int a = s->first_after[t]; a < s->first_after[t + 1]; a++) {
            release(s, t, s->after[a], s->end_ns[t] + s->after_delay[a], &count);
        }
        if (s->place[t] + 1 < s->first[p->rank_of[t] + 1]) {
            release(s, t, s->sequence[s->place[t] + 1], s->end_ns[t], &count);
        }
    }
    return count == p->task_count ? makespan : INT64_MAX;
}

/* ---- moves ---- */

static void shift(struct annealer *s, int from, int to) {
    int task = s->sequence[from], step = from < to ? 1 : -1;
    for (int i = from; i != to; i += step) {
        s->sequence[i] = s->sequence[i + step];
        s->place[s->sequence[i]] = i;
    }
    s->sequence[to] = task;
    s->place[task] = to;
}

/* One in two is on the longest path. */
static int choose_task(struct annealer *s, const int *path, int path_count) {
    return path_count > 0 && below(s, 2) == 0 ? path[below(s, (uint64_t)path_count)]
                                              : (int)below(s, (uint64_t)s->p->task_count);
}

static int find_path(const struct annealer *s, int *path) {
    int count = 0;
    for (int t = s->last; t >= 0; t = s->cause[t]) {
        path[count++] = t;
    }
    return count;
}

/* ---- the search ---- */

static int64_t anneal(struct annealer *s, double seconds, int64_t bound_ns) {
    const struct problem *p = s->p;
    uint64_t begin_ns = troupe_clock_ns();
    int *path = NULL;
    EXPECT_OK(TROUPE_NEW(&path, p->task_count));
    int64_t now = evaluate(s), best = now;
    EXPECT(now < INT64_MAX, "the first schedule waits for itself");
    int path_count = find_path(s, path);
    double heat = 0, warmest = (double)now * 0.004;
    for (int64_t i = 0; best > bound_ns; i++) {
        if (i % BEGIN_CHECK == 0) {
            double spent = troupe_clock_seconds(begin_ns, troupe_clock_ns()) / seconds;
            if (spent >= 1) {
                break;
            }
            double left = 1 - spent * 4 + (int)(spent * 4); /* four times from warm to cold */
            heat = warmest * left * left;
        }
        int task = choose_task(s, path, path_count), rank = p->rank_of[task];
        int from = s->place[task], to = from - REACH + (int)below(s, 2 * REACH + 1);
        if (to == from || to < s->first[rank] || to >= s->first[rank + 1]) {
            continue;
        }
        shift(s, from, to);
        int64_t then = evaluate(s);
        bool taken = then <= now || (then < INT64_MAX && heat > 0 &&
                                     uniform(s) < exp((double)(now - then) / heat));
        if (!taken) {
            shift(s, to, from);
            continue;
        }
        path_count = find_path(s, path);
        now = then;
        best = now < best ? now : best;
    }
    troupe_free(path);
    return best;
}

static void make_after(struct annealer *s) {
    const struct problem *p = s->p;
    EXPECT_OK(TROUPE_NEW(&s->first_after, p->task_count + 2));
    EXPECT_OK(TROUPE_NEW(&s->after, p->arc_count));
    EXPECT_OK(TROUPE_NEW(&s->after_delay, p->arc_count));
    int *end = s->first_after + 1;
    for (int a = 0; a < p->arc_count; a++) {
        end[p->before[a].task + 1]++;
    }
    for (int t = 0; t < p->task_count; t++) {
        end[t + 1] += end[t];
    }
    for (int t = 0; t < p->task_count; t++) {
        for (int a = p->begin[t]; a < p->begin[t + 1]; a++) {
            int at = end[p->before[a].task]++;
            s->after[at] = t;
            s->after_delay[at] = p->before[a].delay;
        }
    }
}

static int compare_starts(const void *a, const void *b, void *arg) {
    const int64_t *start_ns = arg;
    int64_t x = start_ns[*(const int *)a], y = start_ns[*(const int *)b];
    return (x > y) - (x < y);
}

static void make_sequences(struct annealer *s, const int64_t *start_ns) {
    const struct problem *p = s->p;
    int ranks = p->graph->rank_count, count = 0;
    EXPECT_OK(TROUPE_NEW(&s->sequence, p->task_count));
    EXPECT_OK(TROUPE_NEW(&s->first, ranks + 1));
    EXPECT_OK(TROUPE_NEW(&s->place, p->task_count));
    for (int r = 0; r < ranks; r++) {
        s->first[r] = count;
        for (int t = 0; t < p->task_count; t++) {
            if (p->rank_of[t] == r) {
                s->sequence[count++] = t;
            }
        }
        qsort_r(s->sequence + s->first[r], (size_t)(count - s->first[r]), sizeof *s->sequence,
                compare_starts, (void *)start_ns);
    }
    s->first[ranks] = count;
    for (int i = 0; i < count; i++) {
        s->place[s->sequence[i]] = i;
    }
}

int64_t annealer_run(const struct problem *problem, const int64_t *start_ns, double seconds,
                     uint64_t seed, int64_t bound_ns) {
    struct annealer s = {.p = problem, .seed = seed};
    make_after(&s);
    make_sequences(&s, start_ns);
    EXPECT_OK(TROUPE_NEW(&s.waits, problem->task_count));
    EXPECT_OK(TROUPE_NEW(&s.queue, problem->task_count));
    EXPECT_OK(TROUPE_NEW(&s.end_ns, problem->task_count));
    EXPECT_OK(TROUPE_NEW(&s.cause, problem->task_count));
    int64_t best = anneal(&s, seconds, bound_ns);
    troupe_free(s.sequence);
    troupe_free(s.first);
    troupe_free(s.place);
    troupe_free(s.after);
    troupe_free(s.after_delay);
    troupe_free(s.first_after);
    troupe_free(s.waits);
    troupe_free(s.queue);
    troupe_free(s.end_ns);
    troupe_free(s.cause);
    return best;
}
