/* SPDX-License-Identifier: Apache-2.0 */
/* Which methods can be issued now. A method that cannot waits for one thing, the first that the
 * rules name; when that changes, and only then, it is looked at again. Most things have one method
 * that can wait for them (an input its consumer, a credit its producer, a slot the method that
 * takes slots); for the others there are lists, the watches.
 *
 * Whether ranks have room for a ticket is counted by gang, not by method, and gangs with something
 * to issue are in a list, longest ready first. The policy chooses among what competes with the
 * first of them: the ready methods of all gangs that share a rank with it. So a ticket costs what
 * its ranks' gangs cost, not what the island does. */
#include "runtime/check.h"
#include "scheduler/engine_internal.h"

/* ---- gangs with something to issue ---- */

static bool has_room(const troupe_engine *engine, int gang) {
    const struct gang_state *state = gang_at(engine, gang);
    return state->stuffed == 0 && state->no_room < engine->graph->gangs[gang].rank_count;
}

static bool has_something(const troupe_engine *engine, int gang) {
    const struct gang_state *state = gang_at(engine, gang);
    return state->ready_reductions > 0 || (state->ready_tickets > 0 && has_room(engine, gang));
}

static void insert_gang(troupe_engine *engine, int gang) {
    struct gang_state *state = gang_at(engine, gang);
    state->listed = true;
    state->before = engine->last_gang;
    state->behind = TROUPE_NONE;
    *(engine->last_gang == TROUPE_NONE ? &engine->first_gang
                                       : &gang_at(engine, engine->last_gang)->behind) = gang;
    engine->last_gang = gang;
}

static void remove_gang(troupe_engine *engine, int gang) {
    struct gang_state *state = gang_at(engine, gang);
    state->listed = false;
    *(state->before == TROUPE_NONE ? &engine->first_gang
                                   : &gang_at(engine, state->before)->behind) = state->behind;
    *(state->behind == TROUPE_NONE ? &engine->last_gang : &gang_at(engine, state->behind)->before) =
        state->before;
}

static void update_gang(troupe_engine *engine, int gang) {
    struct gang_state *state = gang_at(engine, gang);
    bool wanted = !state->held && has_something(engine, gang);
    if (wanted && !state->listed) {
        insert_gang(engine, gang);
    } else if (!wanted && state->listed) {
        remove_gang(engine, gang);
    }
}

void troupe_engine_hold(troupe_engine *engine, int gang) {
    const struct troupe_lists *neighbours = &engine->index->neighbours;
    for (int i = neighbours->begin[gang]; i < neighbours->begin[gang + 1]; i++) {
        struct gang_state *state = gang_at(engine, neighbours->items[i]);
        if (state->listed) {
            state->held = true;
            engine->held_count++;
            remove_gang(engine, neighbours->items[i]);
        }
    }
}

void troupe_engine_release(troupe_engine *engine, int gang) {
    const struct troupe_lists *neighbours = &engine->index->neighbours;
    for (int i = neighbours->begin[gang]; engine->held_count > 0 && i < neighbours->begin[gang + 1];
         i++) {
        struct gang_state *state = gang_at(engine, neighbours->items[i]);
        if (state->held) {
            state->held = false;
            engine->held_count--;
            update_gang(engine, neighbours->items[i]);
        }
    }
}

void troupe_engine_count_tickets(troupe_engine *engine, int rank, int by) {
    struct rank_state *state = rank_at(engine, rank);
    int before = state->outstanding, now = before + by;
    int ahead = engine->options.look_ahead, most = ahead + TROUPE_TICKETS_OVER;
    int busy = (now >= 1) - (before >= 1);
    int no_room = (now >= ahead) - (before >= ahead), stuffed = (now >= most) - (before >= most);
    state->outstanding = now;
    if (busy == 0 && no_room == 0 && stuffed == 0) {
        return;
    }
    const struct troupe_lists *gangs = &engine->index->gangs;
    for (int i = gangs->begin[rank]; i < gangs->begin[rank + 1]; i++) {
        struct gang_state *gang = gang_at(engine, gangs->items[i]);
        gang->busy += busy;
        gang->no_room += no_room;
        gang->stuffed += stuffed;
        update_gang(engine, gangs->items[i]);
    }
}

/* ---- methods that wait ---- */

/* The list of those that wait for this, or NONE where only one can. */
static int watch_of(const troupe_engine *engine, enum troupe_engine_wait_kind kind, int index) {
    int ranks = engine->method_count; /* the lists of ranks come behind those of methods */
    switch (kind) {
    case TROUPE_WAIT_FOR_AFTER:
        return engine->index->place_of_method[index];
    case TROUPE_WAIT_FOR_MEMORY:
        return ranks + engine->index->place_of_rank[index];
    case TROUPE_WAIT_FOR_LANE:
        return ranks + engine->rank_count + engine->index->place_of_rank[index];
    case TROUPE_WAIT_FOR_LOOK_AHEAD:
        return ranks + 2 * engine->rank_count + engine->index->place_of_rank[index];
    default:
        return TROUPE_NONE;
    }
}

int troupe_engine_watch_count(const troupe_engine *engine) {
    return engine->method_count + 3 * engine->rank_count;
}

static void push_changed(troupe_engine *engine, int method) {
    struct method_state *state = method_at(engine, method);
    state->place = PLACE_CHANGED;
    state->next = engine->changed;
    engine->changed = method;
}

/* Takes it out of, or puts it into, the ready ones of its gang. */
static void count_ready(troupe_engine *engine, int method, int by) {
    int gang = engine->graph->methods[method].gang;
    struct gang_state *state = gang_at(engine, gang);
    *(in_reduction_lane(engine, method) ? &state->ready_reductions : &state->ready_tickets) += by;
    update_gang(engine, gang);
}

void troupe_engine_change(troupe_engine *engine, int method) {
    struct method_state *state = method_at(engine, method);
    if (state->place == PLACE_READY) {
        count_ready(engine, method, -1);
        push_changed(engine, method);
    } else if (state->place == PLACE_WAITING) {
        TROUPE_DEBUG_ASSERT(watch_of(engine, state->wait.kind, state->wait.index) == TROUPE_NONE,
                            "method %d is in a list", method);
        push_changed(engine, method);
    }
}

void troupe_engine_wake(troupe_engine *engine, int method, enum troupe_engine_wait_kind kind,
                        int index) {
    const struct method_state *state = method_at(engine, method);
    if (state->place == PLACE_WAITING && state->wait.kind == kind && state->wait.index == index) {
        push_changed(engine, method);
    }
}

void troupe_engine_wake_all(troupe_engine *engine, enum troupe_engine_wait_kind kind, int index) {
    int *first = &engine->watchers[watch_of(engine, kind, index)];
    while (*first != TROUPE_NONE) {
        int method = *first;
        *first = method_at(engine, method)->next;
        push_changed(engine, method);
    }
}

static void look_at(troupe_engine *engine, int method) {
    struct method_state *state = method_at(engine, method);
    int64_t firing = troupe_engine_next_firing(engine, method);
    state->wait = troupe_engine_firing_wait(engine, method, firing);
    if (state->wait.kind == TROUPE_WAIT_FOR_NOTHING) {
        state->place = PLACE_READY;
        state->ready = state->ready != 0 ? state->ready : engine->moment;
        count_ready(engine, method, 1);
        troupe_engine_release(engine, engine->graph->methods[method].gang);
        return;
    }
    state->place = PLACE_WAITING;
    state->ready = 0;
    int watch = watch_of(engine, state->wait.kind, state->wait.index);
    if (watch != TROUPE_NONE) {
        state->next = engine->watchers[watch];
        engine->watchers[watch] = method;
    }
}

void troupe_engine_settle(troupe_engine *engine) {
    engine->moment++;
    while (engine->changed != TROUPE_NONE) {
        int method = engine->changed;
        engine->changed = method_at(engine, method)->next;
        look_at(engine, method);
    }
}

/* ---- what is offered ---- */

/* Whether a rank that gets this ticket now may have to wait for one that is not done. */
static bool has_unfinished_input(const troupe_engine *engine, int method, int64_t firing) {
    const struct troupe_lists *inputs = &engine->index->inputs;
    for (int i = inputs->begin[method]; i < inputs->begin[method + 1]; i++) {
        const struct edge_state *state = input_at(engine, inputs->items[i]);
        const struct troupe_edge *edge = &engine->graph->edges[inputs->items[i]];
        if (!counts_arrivals(state) && receivers_of(engine, state, inputs->items[i], firing) != 0 &&
            method_at(engine, edge->from)->done_least + edge->initial <= firing) {
            return true;
        }
    }
    return false;
}

static struct troupe_candidate make_candidate(const troupe_engine *engine, int method) {
    int64_t firing = troupe_engine_next_firing(engine, method);
    const struct gang_state *gang = gang_at(engine, engine->graph->methods[method].gang);
    return (struct troupe_candidate){.method = method,
                                     .microbatch = microbatch_of(engine, method, firing),
                                     .waits = has_unfinished_input(engine, method, firing),
                                     .queues = gang->busy == gang_of(engine, method)->rank_count,
                                     .ready = method_at(engine, method)->ready};
}

int troupe_engine_offer(troupe_engine *engine, int gang) {
    const struct troupe_graph_index *index = engine->index;
    int count = 0;
    for (int i = index->neighbours.begin[gang]; i < index->neighbours.begin[gang + 1]; i++) {
        int g = index->neighbours.items[i];
        bool room = has_room(engine, g);
        if (!gang_at(engine, g)->listed) {
            continue;
        }
        for (int j = index->methods.begin[g]; j < index->methods.begin[g + 1]; j++) {
            int m = index->methods.items[j];
            if (method_at(engine, m)->place == PLACE_READY &&
                (room || in_reduction_lane(engine, m))) {
                engine->candidates[count++] = make_candidate(engine, m);
            }
        }
    }
    return count;
}
