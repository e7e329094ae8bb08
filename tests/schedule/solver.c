/* SPDX-License-Identifier: Apache-2.0 */
/* A state is how often each method has fired and when ranks and the other tasks are ready. Of all
 * states with the same counts, one that is nowhere earlier than another need not be looked at. */
#include "tests/schedule/solver.h"

#include "tests/test.h"

enum {
    TASKS_MAX = 160,
    METHODS_MAX = 40,
    RANKS_MAX = 8,
    ARCS_MAX = 1200,
    TABLE_SIZE = 1 << 14, /* of remembered states */
    KEPT = 4,             /* with the same place in the table */
    TIMES_MAX = RANKS_MAX + TASKS_MAX,
};

struct arc {
    int task;
    int64_t delay;
};

/* Who waits for a task, or whom a task waits for. */
struct arcs {
    int begin[TASKS_MAX + 1];
    struct arc of[ARCS_MAX];
    int count;
};

struct memory {
    bool used;
    uint8_t fired[METHODS_MAX];
    int32_t times[TIMES_MAX]; /* when ranks are free, when each task not fired may begin */
};

struct solver {
    const struct troupe_graph *graph;
    const struct troupe_costs *costs;
    int first[METHODS_MAX + 1]; /* task of the method's firing 0 */
    int method_of[TASKS_MAX];
    int rank_of[TASKS_MAX];
    int64_t ns[TASKS_MAX];
    int64_t tail[TASKS_MAX]; /* longest path behind it */
    int order[TASKS_MAX];    /* topological */
    struct arcs before;
    uint8_t fired[METHODS_MAX];
    int64_t end[TASKS_MAX]; /* of the tasks fired */
    int64_t free_at[RANKS_MAX];
    int64_t head[TASKS_MAX]; /* scratch: earliest begin of the tasks not fired */
    int64_t best;
    int64_t nodes, nodes_max;
    struct memory *table;
};

static int task_count(const struct solver *s) {
    return s->first[s->graph->method_count];
}

static bool has_fired(const struct solver *s, int task) {
    return task - s->first[s->method_of[task]] < s->fired[s->method_of[task]];
}

/* ---- the problem ---- */

static void add_arc(struct solver *s, int from, int64_t delay) {
    EXPECT(s->before.count < ARCS_MAX, "%d arcs", s->before.count);
    s->before.of[s->before.count++] = (struct arc){from, delay};
}

static void add_slot_arcs(struct solver *s, int take, int task) {
    const struct troupe_method *method = &s->graph->methods[take];
    int slots = s->graph->gangs[method->gang].slots, firing = task - s->first[take];
    for (int m = 0; m < s->graph->method_count; m++) {
        if (s->graph->methods[m].gang == method->gang && s->graph->methods[m].slot_return &&
            firing >= slots) {
            add_arc(s, s->first[m] + firing - slots, 0);
        }
    }
}

/* Everything that the task waits for. */
static void add_arcs_of(struct solver *s, int task) {
    int m = s->method_of[task], firing = task - s->first[m];
    const struct troupe_method *method = &s->graph->methods[m];
    if (firing > 0) {
        add_arc(s, task - 1, 0);
    }
    for (int i = 0; i < method->after_count; i++) {
        add_arc(s, s->first[method->after[i]] + firing, 0);
    }
    for (int e = 0; e < s->graph->edge_count; e++) {
        if (s->graph->edges[e].to == m) {
            add_arc(s, s->first[s->graph->edges[e].from] + firing,
                    troupe_cost_of_edge(s->costs, e, 0, firing));
        }
    }
    if (method->slot_take) {
        add_slot_arcs(s, m, task);
    }
}

static void sort_tasks(struct solver *s) {
    bool placed[TASKS_MAX] = {false};
    for (int count = 0; count < task_count(s);) {
        int before = count;
        for (int t = 0; t < task_count(s); t++) {
            bool ready = !placed[t];
            for (int a = s->before.begin[t]; a < s->before.begin[t + 1]; a++) {
                ready = ready && placed[s->before.of[a].task];
            }
            if (ready) {
                placed[t] = true;
                s->order[count++] = t;
            }
        }
        EXPECT(count > before, "the tasks wait for themselves");
    }
}

static void find_tails(struct solver *s) {
    for (int i = task_count(s) - 1; i >= 0; i--) {
        int t = s->order[i];
        for (int a = s->before.begin[t]; a < s->before.begin[t + 1]; a++) {
            const struct arc *arc = &s->before.of[a];
            int64_t tail = arc->delay + s->ns[t] + s->tail[t];
            s->tail[arc->task] = tail > s->tail[arc->task] ? tail : s->tail[arc->task];
        }
    }
}

static void read_problem(struct solver *s) {
    const struct troupe_graph *graph = s->graph;
    EXPECT(graph->method_count <= METHODS_MAX && graph->rank_count <= RANKS_MAX, "%d methods",
           graph->method_count);
    for (int m = 0; m < graph->method_count; m++) {
        const struct troupe_gang *gang = &graph->gangs[graph->methods[m].gang];
        s->first[m + 1] = s->first[m] + graph->methods[m].firings;
        EXPECT(s->first[m + 1] <= TASKS_MAX && gang->rank_count == 1, "%d tasks", s->first[m + 1]);
        for (int t = s->first[m]; t < s->first[m + 1]; t++) {
            s->method_of[t] = m;
            s->rank_of[t] = gang->ranks[0];
            s->ns[t] = troupe_cost_of_task(s->costs, m, 0, t - s->first[m]);
        }
    }
    for (int t = 0; t < task_count(s); t++) {
        s->before.begin[t] = s->before.count;
        add_arcs_of(s, t);
    }
    s->before.begin[task_count(s)] = s->before.count;
    sort_tasks(s);
    find_tails(s);
}

/* ---- bounds ---- */

/* Earliest begins of the tasks not fired, with their ranks free when they are. */
static int64_t find_heads(struct solver *s) {
    int64_t longest = 0;
    for (int i = 0; i < task_count(s); i++) {
        int t = s->order[i];
        if (has_fired(s, t)) {
            continue;
        }
        s->head[t] = s->free_at[s->rank_of[t]];
        for (int a = s->before.begin[t]; a < s->before.begin[t + 1]; a++) {
            const struct arc *arc = &s->before.of[a];
            int64_t end =
                has_fired(s, arc->task) ? s->end[arc->task] : s->head[arc->task] + s->ns[arc->task];
            s->head[t] = end + arc->delay > s->head[t] ? end + arc->delay : s->head[t];
        }
        int64_t path = s->head[t] + s->ns[t] + s->tail[t];
        longest = path > longest ? path : longest;
    }
    return longest;
}

/* For each rank and each least tail: the first head, the work with at least that tail, the tail. */
static int64_t find_rank_bound(const struct solver *s, int rank) {
    int64_t longest = 0;
    for (int t = 0; t < task_count(s); t++) {
        if (s->rank_of[t] != rank || has_fired(s, t)) {
            continue;
        }
        int64_t first = INT64_MAX, work = 0;
        for (int u = 0; u < task_count(s); u++) {
            if (s->rank_of[u] == rank && !has_fired(s, u) && s->tail[u] >= s->tail[t]) {
                first = s->head[u] < first ? s->head[u] : first;
                work += s->ns[u];
            }
        }
        int64_t ns = first + work + s->tail[t];
        longest = ns > longest ? ns : longest;
    }
    return longest;
}

static int64_t find_bound(struct solver *s) {
    int64_t bound = find_heads(s);
    for (int r = 0; r < s->graph->rank_count && bound < s->best; r++) {
        int64_t ns = find_rank_bound(s, r);
        bound = ns > bound ? ns : bound;
    }
    return bound;
}

/* ---- what has been seen ---- */

static uint64_t hash_of(const struct solver *s) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int m = 0; m < s->graph->method_count; m++) {
        hash = (hash ^ s->fired[m]) * UINT64_C(0x100000001b3);
    }
    return hash ^ (hash >> 29);
}

/* Needs the heads. */
static void describe(const struct solver *s, struct memory *out) {
    memset(out, 0, sizeof *out);
    out->used = true;
    memcpy(out->fired, s->fired, sizeof out->fired);
    for (int r = 0; r < s->graph->rank_count; r++) {
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
    int t = s->first[m] + s->fired[m];
    if (t == s->first[m + 1]) {
        return -1;
    }
    for (int a = s->before.begin[t]; a < s->before.begin[t + 1]; a++) {
        if (!has_fired(s, s->before.of[a].task)) {
            return -1;
        }
    }
    return t;
}

static void search(struct solver *s);

static void fire(struct solver *s, int task, int64_t begin) {
    int rank = s->rank_of[task], m = s->method_of[task];
    int64_t free_before = s->free_at[rank];
    s->end[task] = begin + s->ns[task];
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
    for (int m = 0; m < s->graph->method_count; m++) {
        int t = next_task(s, m);
        if (t < 0) {
            continue;
        }
        tasks[count] = t;
        begins[count++] = s->head[t];
        if (s->head[t] + s->ns[t] < first_end) {
            first_end = s->head[t] + s->ns[t];
            rank = s->rank_of[t];
        }
    }
    if (count == 0) {
        int64_t end = 0;
        for (int r = 0; r < s->graph->rank_count; r++) {
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
            bool conflicts = tasks[i] >= 0 && s->rank_of[tasks[i]] == rank && begins[i] < first_end;
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
    s->graph = graph;
    s->costs = costs;
    s->best = INT64_MAX;
    s->nodes_max = nodes_max;
    read_problem(s);
    search(s);
    *out = (struct solution){
        .optimum_ns = s->best, .proved = s->nodes <= s->nodes_max, .nodes = s->nodes};
    free(s->table);
    free(s);
}
