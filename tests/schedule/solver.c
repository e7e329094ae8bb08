/* SPDX-License-Identifier: Apache-2.0 */
/* A state is how often each method has fired and when ranks and the other tasks are ready. Of all
 * states with the same counts, one that is nowhere earlier than another need not be looked at. */
#include "tests/schedule/solver.h"

#include "tests/schedule/problem.h"
#include "tests/test.h"

enum {
    TASKS_MAX = 160,
    METHODS_MAX = 40,
    RANKS_MAX = 8,
    TABLE_SIZE = 1 << 14, /* of remembered states */
    KEPT = 4,             /* with the same place in the table */
    TIMES_MAX = RANKS_MAX + TASKS_MAX,
};

struct memory {
    bool used;
    uint8_t fired[METHODS_MAX];
    int32_t times[TIMES_MAX]; /* when ranks are free, when each task not fired may begin */
};

struct solver {
    struct problem p;
    int64_t tail[TASKS_MAX]; /* longest path behind it */
    uint8_t fired[METHODS_MAX];
    int64_t end[TASKS_MAX]; /* of the tasks fired */
    int64_t free_at[RANKS_MAX];
    int64_t head[TASKS_MAX]; /* scratch: earliest begin of the tasks not fired */
    int64_t best;
    int64_t nodes, nodes_max;
    struct memory *table;
};

static int task_count(const struct solver *s) {
    return s->p.task_count;
}

static bool has_fired(const struct solver *s, int task) {
    return task - s->p.first[s->p.method_of[task]] < s->fired[s->p.method_of[task]];
}

/* ---- the problem ---- */

static void find_tails(struct solver *s) {
    for (int i = task_count(s) - 1; i >= 0; i--) {
        int t = s->p.order[i];
        for (int a = s->p.begin[t]; a < s->p.begin[t + 1]; a++) {
            const struct problem_arc *arc = &s->p.before[a];
            int64_t tail = arc->delay + s->p.ns[t] + s->tail[t];
            s->tail[arc->task] = tail > s->tail[arc->task] ? tail : s->tail[arc->task];
        }
    }
}

static void read_problem(struct solver *s, const struct troupe_graph *graph,
                         const struct troupe_costs *costs) {
    EXPECT(graph->method_count <= METHODS_MAX && graph->rank_count <= RANKS_MAX, "%d methods",
           graph->method_count);
    problem_read(graph, costs, &s->p);
    EXPECT(s->p.task_count <= TASKS_MAX, "%d tasks", s->p.task_count);
    find_tails(s);
}

/* ---- bounds ---- */

/* Earliest begins of the tasks not fired, with their ranks free when they are. */
static int64_t find_heads(struct solver *s) {
    int64_t longest = 0;
    for (int i = 0; i < task_count(s); i++) {
        int t = s->p.order[i];
        if (has_fired(s, t)) {
            continue;
        }
        s->head[t] = s->free_at[s->p.rank_of[t]];
        for (int a = s->p.begin[t]; a < s->p.begin[t + 1]; a++) {
            const struct problem_arc *arc = &s->p.before[a];
            int64_t end = has_fired(s, arc->task) ? s->end[arc->task]
                                                  : s->head[arc->task] + s->p.ns[arc->task];
            s->head[t] = end + arc->delay > s->head[t] ? end + arc->delay : s->head[t];
        }
        int64_t path = s->head[t] + s->p.ns[t] + s->tail[t];
        longest = path > longest ? path : longest;
    }
    return longest;
}

/* For each rank and each least tail: the first head, the work with at least that tail, the tail. */
static int64_t find_rank_bound(const struct solver *s, int rank) {
    int64_t longest = 0;
    for (int t = 0; t < task_count(s); t++) {
        if (s->p.rank_of[t] != rank || has_fired(s, t)) {
            continue;
        }
        int64_t first = INT64_MAX, work = 0;
        for (int u = 0; u < task_count(s); u++) {
            if (s->p.rank_of[u] == rank && !has_fired(s, u) && s->tail[u] >= s->tail[t]) {
                first = s->head[u] < first ? s->head[u] : first;
                work += s->p.ns[u];
            }
        }
        int64_t ns = first + work + s->tail[t];
        longest = ns > longest ? ns : longest;
    }
    return longest;
}

static int64_t find_bound(struct solver *s) {
    int64_t bound = find_heads(s);
    for (int r = 0; r < s->p.graph->rank_count && bound < s->best; r++) {
        int64_t ns = find_rank_bound(s, r);
        bound = ns > bound ? ns : bound;
    }
    return bound;
}

/* ---- what has been seen ---- */

static uint64_t hash_of(const struct solver *s) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int m = 0; m < s->p.graph->method_count; m++) {
        hash = (hash ^ s->fired[m]) * UINT64_C(0x100000001b3);
    }
    return hash ^ (hash >> 29);
}

/* Needs the heads. */
static void describe(const struct solver *s, struct memory *out) {
    memset(out, 0, sizeof *out);
    out->used = true;
    memcpy(out->fired, s->fired, sizeof out->fired);
    for (int r = 0; r < s->p.graph->rank_count; r++) {
        out->times[r] = (int32_t)s->free_at[r];
    }
    for (int t = 0; t < task_count(s); t++) {
        out->times[RANKS_MAX + t] = has_fired(s, t) ? 0 : (int32_t)s->head[t];
    }
}

static bool is_nowhere_later(const struct memory *a, const struct memory *b) {
    for (int i = 0; i < TIMES_MAX; i++) {
        if (a->times[i] > b->times[i]) {
            return false;
        }
    }
    return true;
}

/* Whether a state at least as good has been seen; else remembers this one. */
static bool is_dominated(struct solver *s) {
    struct memory mine, *kept = &s->table[hash_of(s) % TABLE_SIZE * KEPT];
    describe(s, &mine);
    int place = (int)(s->nodes % KEPT);
    for (int i = 0; i < KEPT; i++) {
        bool same = kept[i].used && memcmp(kept[i].fired, mine.fired, sizeof mine.fired) == 0;
        if (same && is_nowhere_later(&kept[i], &mine)) {
            return true;
        }
        place = !kept[i].used || (same && is_nowhere_later(&mine, &kept[i])) ? i : place;
    }
    kept[place] = mine;
    return false;
}

/* ---- the search ---- */

/* The next task of a method, -1 when it has none or it waits for a task that has not fired. */
static int next_task(const struct solver *s, int m) {
    int t = s->p.first[m] + s->fired[m];
    if (t == s->p.first[m + 1]) {
        return -1;
    }
    for (int a = s->p.begin[t]; a < s->p.begin[t + 1]; a++) {
        if (!has_fired(s, s->p.before[a].task)) {
            return -1;
        }
    }
    return t;
}

static void search(struct solver *s);

static void fire(struct solver *s, int task, int64_t begin) {
    int rank = s->p.rank_of[task], m = s->p.method_of[task];
    int64_t free_before = s->free_at[rank];
    s->end[task] = begin + s->p.ns[task];
    s->free_at[rank] = s->end[task];
    s->fired[m]++;
    search(s);
    s->fired[m]--;
    s->free_at[rank] = free_before;
}

/* On the rank where some task could end first, one that begins before that end must come next. */
static void search(struct solver *s) {
    if (++s->nodes > s->nodes_max) {
        return;
    }
    int64_t bound = find_bound(s);
    if (bound >= s->best) {
        return;
    }
    int64_t begins[METHODS_MAX], first_end = INT64_MAX;
    int tasks[METHODS_MAX], count = 0, rank = -1;
    for (int m = 0; m < s->p.graph->method_count; m++) {
        int t = next_task(s, m);
        if (t < 0) {
            continue;
        }
        tasks[count] = t;
        begins[count++] = s->head[t];
        if (s->head[t] + s->p.ns[t] < first_end) {
            first_end = s->head[t] + s->p.ns[t];
            rank = s->p.rank_of[t];
        }
    }
    if (count == 0) {
        int64_t end = 0;
        for (int r = 0; r < s->p.graph->rank_count; r++) {
            end = s->free_at[r] > end ? s->free_at[r] : end;
        }
        s->best = end < s->best ? end : s->best;
        return;
    }
    if (is_dominated(s)) {
        return;
    }
    for (int left = count; left > 0; left--) { /* longest tail first */
        int choice = -1;
        for (int i = 0; i < count; i++) {
            bool conflicts =
                tasks[i] >= 0 && s->p.rank_of[tasks[i]] == rank && begins[i] < first_end;
            if (conflicts && (choice < 0 || s->tail[tasks[i]] > s->tail[tasks[choice]])) {
                choice = i;
            }
        }
        if (choice < 0) {
            return;
        }
        int task = tasks[choice];
        tasks[choice] = -1;
        fire(s, task, begins[choice]);
    }
}

void solver_solve(const struct troupe_graph *graph, const struct troupe_costs *costs,
                  int64_t nodes_max, struct solution *out) {
    struct solver *s = calloc(1, sizeof *s);
    EXPECT(s != NULL, "no memory");
    s->table = calloc((size_t)TABLE_SIZE * KEPT, sizeof *s->table);
    EXPECT(s->table != NULL, "no memory");
    s->best = INT64_MAX;
    s->nodes_max = nodes_max;
    read_problem(s, graph, costs);
    search(s);
    *out = (struct solution){
        .optimum_ns = s->best, .proved = s->nodes <= s->nodes_max, .nodes = s->nodes};
    problem_free(&s->p);
    free(s->table);
    free(s);
}
