/* SPDX-License-Identifier: Apache-2.0 */
/* Mode static: before each step the conductor knows the order of all its tickets
 * (scheduler/script.h) and ships each member's in one message; during the step nobody reports and
 * nobody decides.
 *
 * Where the host may wait in a launch, members of a gang come together before each of its tasks: by
 * the time that one of them is held up by the collective, none needs a message from another to come
 * to it. Tasks of one rank hold nobody up. */
#include "actors/runtime_internal.h"
#include "runtime/clock.h"
#include "runtime/memory.h"
#include "scheduler/script.h"

/* Tasks of a gang with a member here, counted from the start. */
struct meeting {
    int64_t come;  /* first member: members that have come, in all */
    int64_t said;  /* that this member has come to */
    int64_t begun; /* by this member */
    int64_t all;   /* to which all members have come */
};

struct troupe_static_step {
    troupe_script *script; /* of the whole job; conductors, else NULL */
    /* This rank's tickets of the step. */
    const struct troupe_script_line *lines;
    int count, next;
    bool here;
    int64_t step;
    struct troupe_script_line *received; /* where lines come to from another conductor */
    struct troupe_transfer receive;
    struct troupe_transfer *sends; /* by rank; conductors */
    struct meeting *meetings;      /* by gang; NULL: the host never waits */
};

static bool conducts(const troupe_runtime *runtime, int rank) {
    return runtime->conductor_of[rank] == runtime->rank;
}

static void received(struct troupe_transfer *transfer) {
    troupe_runtime *runtime = transfer->arg;
    if (transfer->status != TROUPE_OK) {
        troupe_runtime_fail(runtime, transfer->status);
        return;
    }
    runtime->static_step->here = true;
}

static void sent(struct troupe_transfer *transfer) {
    troupe_runtime *runtime = transfer->arg;
    runtime->sends_in_flight--;
    if (transfer->status != TROUPE_OK) {
        troupe_runtime_fail(runtime, transfer->status);
    }
}

static struct troupe_transfer transfer_of(troupe_runtime *runtime, int peer,
                                          const struct troupe_script_line *lines, int count) {
    return (struct troupe_transfer){
        .peer = peer,
        .tag = TROUPE_EDGE_TAG | TROUPE_SCRIPT_TAG,
        .segments = {{(void *)(uintptr_t)lines, (size_t)count * sizeof *lines}},
        .segment_count = 1,
        .arg = runtime};
}

static troupe_status send_lines(troupe_runtime *runtime, int rank) {
    struct troupe_static_step *own = runtime->static_step;
    int count = 0;
    const struct troupe_script_line *lines = troupe_script_lines(own->script, rank, &count);
    if (rank == runtime->rank) {
        own->lines = lines;
        own->here = true;
        return TROUPE_OK;
    }
    own->sends[rank] = transfer_of(runtime, rank, lines, count);
    own->sends[rank].done = sent;
    runtime->sends_in_flight++;
    return troupe_comm_post_send(runtime->comm, &own->sends[rank]);
}

static troupe_status conduct(troupe_runtime *runtime, int64_t step) {
    TROUPE_TRY(troupe_mark_step_receivers(runtime, step));
    TROUPE_TRY(troupe_script_plan(runtime->static_step->script, step));
    for (int r = 0; r < runtime->rank_count; r++) {
        if (conducts(runtime, r)) {
            TROUPE_TRY(send_lines(runtime, r));
        }
    }
    return TROUPE_OK;
}

static troupe_status await_lines(troupe_runtime *runtime) {
    struct troupe_static_step *own = runtime->static_step;
    own->lines = own->received;
    own->receive =
        transfer_of(runtime, runtime->conductor_of[runtime->rank], own->received, own->count);
    own->receive.done = received;
    return troupe_comm_post_receive(runtime->comm, &own->receive);
}

void troupe_static_begin_step(troupe_runtime *runtime, int64_t step) {
    struct troupe_static_step *own = runtime->static_step;
    own->step = step;
    own->next = 0;
    own->here = false;
    troupe_status status =
        conducts(runtime, runtime->rank) ? conduct(runtime, step) : await_lines(runtime);
    if (status != TROUPE_OK) {
        troupe_runtime_fail(runtime, status);
    }
}

void troupe_static_feed(troupe_runtime *runtime) {
    struct troupe_static_step *own = runtime->static_step;
    if (own == NULL || !own->here || own->next == own->count || runtime->ticket_count > 0) {
        return;
    }
    const struct troupe_script_line *line = &own->lines[own->next++];
    int64_t firings = runtime->graph_methods[line->method].firings;
    troupe_push_ticket(runtime,
                       &(struct troupe_control){.index = line->method,
                                                .slot = line->slot,
                                                .firing = own->step * firings + line->microbatch});
}

/* Reductions come before the method in the rank's lines: those have been posted. */
bool troupe_static_awaits_reduction(const troupe_runtime *runtime, int method) {
    const struct troupe_method *plan = &runtime->graph_methods[method];
    for (int i = 0; runtime->static_step != NULL && i < plan->after_count; i++) {
        if (runtime->reductions[plan->after[i]].running) {
            return true;
        }
    }
    return false;
}

/* ---- gangs that come together ---- */

static struct meeting *meeting_of(const troupe_runtime *runtime, int method) {
    const struct troupe_static_step *own = runtime->static_step;
    const struct troupe_method *plan = &runtime->graph_methods[method];
    bool meets = own != NULL && own->meetings != NULL && plan->lane != TROUPE_LANE_REDUCTION &&
                 runtime->gangs[plan->gang].options.rank_count > 1;
    return meets ? &own->meetings[plan->gang] : NULL;
}

bool troupe_static_awaits_gang(const troupe_runtime *runtime, int method) {
    const struct meeting *meeting = meeting_of(runtime, method);
    return meeting != NULL && meeting->all == meeting->begun;
}

void troupe_static_come(troupe_runtime *runtime, int method) {
    struct meeting *meeting = meeting_of(runtime, method);
    int gang = runtime->graph_methods[method].gang;
    if (meeting->said == meeting->begun) {
        meeting->said++;
        troupe_send_control(runtime, runtime->gangs[gang].ranks[0],
                            &(struct troupe_control){.kind = TROUPE_CONTROL_COME, .index = gang});
    }
}

void troupe_static_begin_task(troupe_runtime *runtime, int method) {
    struct meeting *meeting = meeting_of(runtime, method);
    if (meeting != NULL) {
        meeting->begun++;
    }
}

/* Nobody comes to the next task before all have come to this one, so counting is enough. */
static void count_come(troupe_runtime *runtime, int index) {
    const struct troupe_actor_gang *gang = &runtime->gangs[index];
    int members = gang->options.rank_count;
    if (++runtime->static_step->meetings[index].come % members == 0) {
        for (int k = 0; k < members; k++) {
            troupe_send_control(
                runtime, gang->ranks[k],
                &(struct troupe_control){.kind = TROUPE_CONTROL_GO, .index = index});
        }
    }
}

void troupe_static_heed(troupe_runtime *runtime, const struct troupe_control *control) {
    if (control->kind == TROUPE_CONTROL_COME) {
        count_come(runtime, control->index);
    } else {
        runtime->static_step->meetings[control->index].all++;
    }
}

/* ---- life ---- */

static troupe_status make_script(troupe_runtime *runtime) {
    struct troupe_static_step *own = runtime->static_step;
    bool ragged = false;
    for (int e = 0; e < runtime->edge_count; e++) {
        ragged = ragged || runtime->edges[e].options.plan != NULL;
    }
    TROUPE_TRY(TROUPE_NEW(&own->sends, runtime->rank_count));
    return troupe_script_create(
        &runtime->graph,
        &(struct troupe_script_options){.order = runtime->order,
                                        .look_ahead = runtime->options.look_ahead,
                                        .costs = runtime->options.costs,
                                        .receivers = ragged ? troupe_ask_receivers : NULL,
                                        .arg = runtime,
                                        .lanes_apart = runtime->options.serialize},
        &own->script);
}

troupe_status troupe_make_static_step(troupe_runtime *runtime) {
    TROUPE_TRY(TROUPE_NEW(&runtime->static_step, 1));
    struct troupe_static_step *own = runtime->static_step;
    own->count = troupe_script_count(&runtime->graph, runtime->rank);
    if (runtime->options.host_may_wait) {
        TROUPE_TRY(TROUPE_NEW(&own->meetings, runtime->gang_count));
    }
    if (conducts(runtime, runtime->rank)) {
        return make_script(runtime);
    }
    return TROUPE_NEW(&own->received, own->count);
}

void troupe_destroy_static_step(troupe_runtime *runtime) {
    struct troupe_static_step *own = runtime->static_step;
    if (own != NULL) {
        troupe_script_destroy(own->script);
        troupe_free(own->received);
        troupe_free(own->sends);
        troupe_free(own->meetings);
        troupe_free(own);
    }
}
