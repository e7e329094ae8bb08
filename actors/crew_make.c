/* SPDX-License-Identifier: Apache-2.0 */
/* What a crew is made of: tasks, gates and buffers of a graph that lives on one rank. */
#include "actors/crew_internal.h"
#include "runtime/check.h"

enum { WORKERS_MAX = 64, SPIN_NS_DEFAULT = 50000 };

/* ---- what a crew can run ---- */

static troupe_status check_gang(const struct troupe_actor_gang *gang) {
    const struct troupe_actor_class *class = gang->options.actor_class;
    for (int m = 0; m < class->method_count; m++) {
        const struct troupe_actor_method *method = &class->methods[m];
        if (method->once || method->lane == TROUPE_LANE_REDUCTION) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "%s %s fires once a step or reduces; workers fire methods that do "
                               "so once a microbatch, set workers to 0",
                               gang->name, method->name);
        }
    }
    if (gang->stream != NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "%s computes on a device; workers fire methods on the host", gang->name);
    }
    return TROUPE_OK;
}

static troupe_status check(const troupe_runtime *runtime) {
    const struct troupe_runtime_options *options = &runtime->options;
    if (options->workers > WORKERS_MAX) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%d workers; 1 to %d are possible",
                           options->workers, WORKERS_MAX);
    }
    if (runtime->rank_count != 1 || options->microbatches == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "workers fire the steps of a job of one rank; this one has %d and %s",
                           runtime->rank_count, options->microbatches == 0 ? "no steps" : "steps");
    }
    for (int g = 0; g < runtime->gang_count; g++) {
        TROUPE_TRY(check_gang(&runtime->gangs[g]));
    }
    for (int e = 0; e < runtime->edge_count; e++) {
        if (runtime->edges[e].options.route != NULL || runtime->edges[e].options.plan != NULL) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "edge %s has a route or a plan; workers need messages of one size",
                               runtime->edges[e].name);
        }
    }
    return TROUPE_OK;
}

/* ---- gates ---- */

static bool waits_for_room(const troupe_runtime *runtime, const struct troupe_actor_edge *edge) {
    return edge->options.credits < runtime->options.microbatches + edge->options.initial;
}

static struct crew_task *task_of(const struct troupe_crew *crew, int gang, int method) {
    return &crew->tasks[crew->runtime->gangs[gang].first_method + method];
}

/* Every use of a gate: one gate at the taker, one give at the giver. */
struct relation {
    struct crew_task *giver, *taker;
    int open; /* units at the start */
};

/* Calls `use` for each relation of the graph; edges first, in their order. */
static void for_each_relation(const struct troupe_crew *crew,
                              void (*use)(void *arg, const struct relation *relation), void *arg) {
    const troupe_runtime *runtime = crew->runtime;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int i = 0; i < edge->options.from_count; i++) {
            struct crew_task *from = task_of(crew, edge->from[i], edge->from_method);
            struct crew_task *to = task_of(crew, edge->to[i], edge->to_method);
            use(arg, &(struct relation){from, to, edge->options.initial});
            if (waits_for_room(runtime, edge)) {
                use(arg,
                    &(struct relation){to, from, edge->options.credits - edge->options.initial});
            }
        }
    }
    for (int g = 0; g < runtime->gang_count; g++) {
        const struct troupe_actor_class *class = runtime->gangs[g].options.actor_class;
        struct crew_task *taker = NULL, *giver = NULL;
        for (int m = 0; m < class->method_count; m++) {
            const struct troupe_actor_method *method = &class->methods[m];
            for (int k = 0; k < method->after_count; k++) {
                use(arg,
                    &(struct relation){task_of(crew, g, method->after[k]), task_of(crew, g, m), 0});
            }
            taker = method->slot_take ? task_of(crew, g, m) : taker;
            giver = method->slot_return ? task_of(crew, g, m) : giver;
        }
        if (taker != NULL && giver != NULL) {
            use(arg, &(struct relation){giver, taker, runtime->gangs[g].options.slots});
        }
    }
}

static void count_relation(void *arg, const struct relation *relation) {
    (void)arg;
    relation->taker->gate_count++;
    relation->giver->give_count++;
}

/* The arrays have been laid out, counts are zero again. */
static void add_relation(void *arg, const struct relation *relation) {
    (void)arg;
    struct crew_task *taker = relation->taker, *giver = relation->giver;
    struct crew_gate *gate = &taker->gates[taker->gate_count++];
    *gate = (struct crew_gate){.task = taker, .open = relation->open};
    taker->missing += relation->open == 0;
    giver->gives[giver->give_count++] = (struct crew_give){.gate = gate, .actor = taker->actor};
}

/* ---- tasks ---- */

static void make_task(const struct troupe_crew *crew, int g, int m) {
    const struct troupe_actor_gang *gang = &crew->runtime->gangs[g];
    struct crew_task *task = task_of(crew, g, m);
    *task = (struct crew_task){
        .index = gang->first_method + m,
        .actor = &crew->actors[g],
        .method = &gang->options.actor_class->methods[m],
        .slots = gang->options.slots,
        .firing = {.runtime = crew->runtime, .argument = gang->options.argument, .gang = g}};
}

static troupe_status make_tasks(struct troupe_crew *crew) {
    const troupe_runtime *runtime = crew->runtime;
    crew->task_count = runtime->graph.method_count;
    TROUPE_TRY(TROUPE_NEW(&crew->tasks, crew->task_count));
    TROUPE_TRY(TROUPE_NEW(&crew->actors, runtime->gang_count));
    for (int g = 0; g < runtime->gang_count; g++) {
        const struct troupe_actor_gang *gang = &runtime->gangs[g];
        int worker = gang->options.worker;
        worker = (worker > 0 ? worker - 1 : g) % crew->worker_count;
        crew->actors[g] =
            (struct crew_actor){.name = gang->name,
                                .state = gang->state,
                                .tasks = task_of(crew, g, 0),
                                .task_count = gang->options.actor_class->method_count};
        atomic_init(&crew->actors[g].place, crew_place(worker, worker));
        for (int m = 0; m < crew->actors[g].task_count; m++) {
            make_task(crew, g, m);
        }
    }
    return TROUPE_OK;
}

static troupe_status make_gates(struct troupe_crew *crew) {
    for_each_relation(crew, count_relation, NULL);
    for (int t = 0; t < crew->task_count; t++) {
        crew->gate_total += crew->tasks[t].gate_count;
    }
    TROUPE_TRY(TROUPE_NEW(&crew->gates, crew->gate_total));
    TROUPE_TRY(TROUPE_NEW(&crew->gives, crew->gate_total));
    struct crew_gate *gate = crew->gates;
    struct crew_give *give = crew->gives;
    for (int t = 0; t < crew->task_count; t++) {
        struct crew_task *task = &crew->tasks[t];
        task->gates = gate;
        task->gives = give;
        gate += task->gate_count;
        give += task->give_count;
        task->gate_count = task->give_count = 0;
    }
    for_each_relation(crew, add_relation, NULL);
    return TROUPE_OK;
}

/* ---- buffers: an output is the input of its consumer ---- */

/* A cache line at least, so that two workers' messages are apart. */
static size_t message_bytes(const struct troupe_actor_edge *edge) {
    size_t bytes =
        (size_t)(edge->options.from_rows_max * edge->options.columns) * edge->element_bytes;
    return (bytes + TROUPE_CACHE_LINE - 1) / TROUPE_CACHE_LINE * TROUPE_CACHE_LINE;
}

static void add_window(struct crew_task *task, struct troupe_tensor *tensor,
                       const struct crew_window *window) {
    tensor->data = window->memory;
    if (window->count > 1) {
        task->windows[task->window_count] = *window;
        task->windows[task->window_count++].tensor = tensor;
    }
}

static int find_port(const int *ports, int port) {
    int i = 0;
    while (ports[i] != port) {
        i++;
    }
    return i;
}

static void make_channel(const struct troupe_crew *crew, const struct troupe_actor_edge *edge,
                         int i, char *memory) {
    const struct troupe_connect_options *options = &edge->options;
    struct crew_task *from = task_of(crew, edge->from[i], edge->from_method);
    struct crew_task *to = task_of(crew, edge->to[i], edge->to_method);
    struct troupe_tensor *output =
        &from->firing.outputs[find_port(from->method->outputs, edge->from_port)];
    struct troupe_tensor *input = &to->firing.inputs[find_port(to->method->inputs, edge->to_port)];
    *output = *input = (struct troupe_tensor){.rows = options->from_rows_max,
                                              .columns = options->columns,
                                              .stride = options->columns,
                                              .dtype = options->dtype};
    struct crew_window window = {
        .memory = memory, .bytes = message_bytes(edge), .count = options->credits};
    add_window(to, input, &window);
    window.next = options->initial % options->credits;
    add_window(from, output, &window);
    output->data = memory + window.bytes * (size_t)window.next;
}

static troupe_status make_buffers(struct troupe_crew *crew) {
    const troupe_runtime *runtime = crew->runtime;
    size_t bytes = 0;
    int windows = 0;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        bytes +=
            message_bytes(edge) * (size_t)edge->options.credits * (size_t)edge->options.from_count;
    }
    TROUPE_TRY(TROUPE_NEW(&crew->memory, bytes));
    TROUPE_TRY(TROUPE_NEW(&crew->windows, crew->task_count * 2 * TROUPE_PORTS_MAX));
    for (int t = 0; t < crew->task_count; t++) {
        crew->tasks[t].windows = crew->windows + windows;
        windows += crew->tasks[t].method->input_count + crew->tasks[t].method->output_count;
    }
    char *memory = crew->memory;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_actor_edge *edge = &runtime->edges[e];
        for (int i = 0; i < edge->options.from_count; i++) {
            make_channel(crew, edge, i, memory);
            memory += message_bytes(edge) * (size_t)edge->options.credits;
        }
    }
    return TROUPE_OK;
}

/* ---- workers ---- */

/* All that can be on its way at once: of each edge its messages and its room, and all actors. */
static size_t ring_capacity(const troupe_runtime *runtime) {
    size_t units = (size_t)runtime->gang_count + 1;
    for (int e = 0; e < runtime->edge_count; e++) {
        const struct troupe_connect_options *options = &runtime->edges[e].options;
        units += 2 * (size_t)options->credits * (size_t)options->from_count;
    }
    return units;
}

static troupe_status make_worker(struct troupe_crew *crew, int i) {
    struct crew_worker *w = &crew->workers[i];
    w->crew = crew;
    w->index = w->turn = i;
    w->home = crew_place(i, i);
    TROUPE_TRY(TROUPE_NEW(&w->ready, crew->ready_mask + 1));
    TROUPE_TRY(TROUPE_NEW(&w->outgoing, crew->worker_count));
    for (int to = 0; to < crew->worker_count; to++) {
        TROUPE_TRY(troupe_spsc_init(&w->outgoing[to], to == i ? 1 : ring_capacity(crew->runtime)));
    }
    return TROUPE_OK;
}

/* What can fire at the beginning of a step without an event: all its inputs are initial ones. */
static troupe_status make_starters(struct troupe_crew *crew) {
    TROUPE_TRY(TROUPE_NEW(&crew->starters, crew->task_count));
    for (int t = 0; t < crew->task_count; t++) {
        if (crew->tasks[t].missing == 0) {
            crew->starters[crew->starter_count++] = &crew->tasks[t];
        }
    }
    return TROUPE_OK;
}

static troupe_status make_crew(struct troupe_crew *crew) {
    TROUPE_TRY(check(crew->runtime));
    TROUPE_TRY(make_tasks(crew));
    TROUPE_TRY(make_gates(crew));
    TROUPE_TRY(make_buffers(crew));
    TROUPE_TRY(make_starters(crew));
    for (crew->ready_mask = 1; crew->ready_mask < (uint32_t)crew->task_count;) {
        crew->ready_mask = crew->ready_mask * 2 + 1;
    }
    TROUPE_TRY(TROUPE_NEW(&crew->workers, crew->worker_count));
    for (int i = 0; i < crew->worker_count; i++) {
        TROUPE_TRY(make_worker(crew, i));
    }
    return troupe_crew_start(crew);
}

troupe_status troupe_crew_create(troupe_runtime *runtime, struct troupe_crew **out) {
    troupe_status status = TROUPE_OK;
    struct troupe_crew *crew = NULL;
    TROUPE_TRY(TROUPE_NEW(&crew, 1));
    crew->runtime = runtime;
    crew->worker_count = runtime->options.workers;
    crew->microbatches = runtime->options.microbatches;
    crew->trace = runtime->options.trace;
    troupe_counter_begin(&crew->counter);
    CPU_ZERO(&crew->cores);
    bool fits = sched_getaffinity(0, sizeof crew->cores, &crew->cores) == 0 &&
                crew->worker_count <= CPU_COUNT(&crew->cores);
    crew->spin_ns = fits ? SPIN_NS_DEFAULT : 0;
    crew->step = -1;
    TROUPE_TRY_FAIL(make_crew(crew));
    *out = crew;
    return TROUPE_OK;
fail:
    troupe_crew_destroy(crew);
    return status;
}

void troupe_crew_destroy(struct troupe_crew *crew) {
    if (crew == NULL) {
        return;
    }
    troupe_crew_stop(crew);
    for (int i = 0; crew->workers != NULL && i < crew->worker_count; i++) {
        struct crew_worker *w = &crew->workers[i];
        for (int to = 0; w->outgoing != NULL && to < crew->worker_count; to++) {
            troupe_spsc_fini(&w->outgoing[to]);
        }
        troupe_free(w->outgoing);
        troupe_free(w->ready);
    }
    troupe_free(crew->workers);
    troupe_free(crew->starters);
    troupe_free(crew->windows);
    troupe_free(crew->memory);
    troupe_free(crew->gives);
    troupe_free(crew->gates);
    troupe_free(crew->actors);
    troupe_free(crew->tasks);
    troupe_free(crew);
}
