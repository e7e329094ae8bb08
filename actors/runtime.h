/* SPDX-License-Identifier: Apache-2.0
 *
 * The runtime of one rank: everything hangs from it, and a process may hold several (one per
 * thread). Every rank builds the same actors and edges, then starts and fires them:
 *
 *     troupe_runtime_create(comm, &(struct troupe_runtime_options){.microbatches = 4}, &rt);
 *     troupe_spawn(rt, ...);  troupe_connect(rt, ...);                (the same on every rank)
 *     TROUPE_TRY(troupe_runtime_start(rt));
 *     for (int64_t step = 0; step < steps; step++) { TROUPE_TRY(troupe_runtime_step(rt, step)); }
 *     troupe_runtime_destroy(rt);
 *
 * Inside: messages arrive in preposted buffers, the island's conductor (its lowest rank) hears of
 * it, its engine issues tickets, and each rank runs its tickets in order (scheduler/engine.h has
 * the rules). All of that happens inside troupe_comm_progress, but for the methods themselves.
 *
 * Ownership: the endpoint is borrowed; TROUPE_GROUP_ID_RUNTIME (of its generation) is taken from
 * prepare, and the endpoint's control handler from start, until destroy; destroy the runtime before
 * the endpoint is closed. Threads: one thread per runtime makes all calls;
 * troupe_runtime_request_report may be called from a signal handler or any thread.
 * Failure: the first failure on a rank (a method, a contract, the transport, a stall) is what its
 * step or run returns; all other ranks are told and return too. A failed runtime stays failed.
 * Nothing allocates between start and destroy.
 */
#ifndef TROUPE_ACTORS_RUNTIME_H
#define TROUPE_ACTORS_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "actors/actor.h"
#include "actors/edge.h"
#include "comm/comm.h"
#include "runtime/status.h"
#include "runtime/trace.h"
#include "scheduler/cost.h"
#include "scheduler/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

struct troupe_runtime_options {
    int microbatches;  /* firings a step; 0: no steps, methods fire whenever they can */
    const char *order; /* order policy: a name or the path of a shared object; NULL: fifo */
    int look_ahead;    /* tickets a rank may hold unfinished; 0: 2 */
    /* For order policies that plan ahead (troupe_runtime_asks_costs): asked at the begin of a step,
     * the same on every rank that asks. NULL: not known. Borrowed. */
    const struct troupe_costs *costs;
    int tree_ranks;   /* in larger islands tickets and reports go along a tree; 0: 64 */
    int64_t stall_ns; /* deadline without any progress; 0: 60 s, < 0: none */
    bool checksum;    /* payloads carry a checksum that the receiver verifies; not on a device */
    /* One lane at a time: reductions run when the rank's tasks of the step (but those once a step)
     * have. For collectives that hold up a stream or the host, where the lanes may not fit side by
     * side, e.g. on ranks that share a GPU. */
    bool serialize;
    /* Calls on the actors' streams may hold up the host until the device has done earlier work (a
     * full launch queue, code that is loaded). A ticket is then issued only when its input from
     * other ranks has arrived: no rank waits for a message of one that is held up by a collective
     * in its stream, which waits for the former. */
    bool host_may_wait;
    bool through_host; /* messages between devices of one machine, too, go through host memory */
    /* Mode static: the order of a step's tickets is found before it begins, by the order policy and
     * the costs, and each rank gets its own in one message; nothing is decided later. For large
     * jobs, and where tasks take what is expected. With steps. Where the host may wait, the members
     * of a gang tell each other before each task that they have come to it. */
    bool static_order;
    int generation; /* 0 or 1: of two runtimes that are alive on one endpoint, one has 1 */
    /* Threads, the caller's included, that fire the actors of a step side by side, each as soon as
     * it can and in no other order: methods of one actor never at the same time, those of two
     * actors in any. Only in a job of one rank, with steps, for actors on the host whose methods
     * all fire once a microbatch and whose edges have neither a route nor a plan; an output is then
     * the consumer's input, without a copy. Without a trace nothing reads the clock, and
     * troupe_runtime_gang_times stays zero. 0: none; the caller fires, in the order policy's order.
     */
    int workers;
    /* Gets an event for each task that this rank has done: the method's index in the task graph,
     * the firing of the step, and when it ran (on a device: was launched, see
     * troupe_runtime_trace_device); in the reduction lane from the post to the completion. NULL:
     * none. Borrowed. */
    struct troupe_trace *trace;
};

troupe_status troupe_runtime_create(troupe_comm *comm, const struct troupe_runtime_options *options,
                                    troupe_runtime **out);
/* After all spawns and connects: checks the graph and allocates all that the run needs. For this
 * rank alone, and may be left to start; while another runtime is started it can go first, so that
 * its failure is known before that one ends. */
troupe_status troupe_runtime_prepare(troupe_runtime *runtime);
/* Collective. Checks that all ranks made the same calls; takes the endpoint over. Where the runtime
 * is prepared it allocates nothing but, on devices, windows, and goes on without those that fail.
 */
troupe_status troupe_runtime_start(troupe_runtime *runtime);
/* Runs one step, this rank's part of it: returns when its tickets are done and its sends complete;
 * with actors on a device their work is then in their streams. The first step may be any, then one
 * after the other. */
troupe_status troupe_runtime_step(troupe_runtime *runtime, int64_t step);
/* Gives the trace of the step, which has the launches of tasks on a device, the times when the
 * device did them. After the step, when their work is done; on the host, and without a trace,
 * nothing. */
troupe_status troupe_runtime_trace_device(troupe_runtime *runtime);
/* Without steps: fires until a method or timer of some rank calls stop. Tickets issued by then
 * are still run. Once. */
troupe_status troupe_runtime_run(troupe_runtime *runtime);
void troupe_runtime_stop(troupe_runtime *runtime);
/* Collective, unless the job has failed. Accepts NULL and half-built runtimes. */
void troupe_runtime_destroy(troupe_runtime *runtime);

troupe_comm *troupe_runtime_comm(const troupe_runtime *runtime);

/* A callback that fires once, between tasks, when its time has come; restart it from there. The
 * caller's storage, which lives until then. Resolution: 1 ms when the rank is idle, else a task. */
struct troupe_timer {
    void (*fire)(struct troupe_timer *timer, troupe_runtime *runtime);
    void *arg;
    uint64_t due_ns; /* the runtime's, as is link */
    struct troupe_timer *link;
};
void troupe_timer_start(troupe_runtime *runtime, struct troupe_timer *timer, int64_t after_ns);
void troupe_timer_cancel(troupe_runtime *runtime, struct troupe_timer *timer);

/* Where this rank's time went in the latest step, per gang (0 for a gang without a member here).
 * Waits are those of the rank, charged to the gang whose ticket came next. */
struct troupe_gang_times {
    int64_t firings;
    uint64_t compute_ns;     /* on a device: there, of what it has done by now */
    uint64_t launch_ns;      /* of the host in the methods; without a device the same */
    uint64_t wait_ticket_ns; /* no ticket */
    uint64_t wait_input_ns;  /* a ticket, but its messages were still on their way */
    uint64_t wait_output_ns; /* a ticket, but its output buffer was still being sent */
};
struct troupe_gang_times troupe_runtime_gang_times(const troupe_runtime *runtime, int gang);
/* How long this rank's device copied messages from and to the host in the latest step, of what it
 * has done by now; 0 without a device. */
uint64_t troupe_runtime_copy_ns(const troupe_runtime *runtime);
/* Payload bytes that this rank sent to other ranks on the edge in the latest step. */
uint64_t troupe_runtime_edge_bytes(const troupe_runtime *runtime, int edge);
/* Edges are numbered from 0 in the order of their connect, gangs in that of their spawn. */
int troupe_runtime_edge_count(const troupe_runtime *runtime);
int troupe_runtime_gang_count(const troupe_runtime *runtime);
const char *troupe_runtime_edge_name(const troupe_runtime *runtime, int edge);
const char *troupe_runtime_gang_name(const troupe_runtime *runtime, int gang);

/* The task graph of the gangs and edges so far, after which no more may be added; before start it
 * is made of what this rank has declared. The runtime's. */
troupe_status troupe_runtime_graph(troupe_runtime *runtime, const struct troupe_graph **out);

/* Whether this rank asks for the costs: it conducts, and its order policy plans ahead or the mode
 * is static. Known as soon as the graph is. */
bool troupe_runtime_asks_costs(const troupe_runtime *runtime);
/* How long this rank took, before the latest step's first ticket, to find out what its messages
 * will be and to plan; 0 for ranks that do not conduct. */
uint64_t troupe_runtime_plan_ns(const troupe_runtime *runtime);

/* After start: one line for each island, "island of 2 ranks, conductor 0: llm dp 0, vision dp 0",
 * and one about the messages between devices of one machine, if there are any. */
void troupe_runtime_describe(const troupe_runtime *runtime,
                             void (*line)(void *arg, const char *text), void *arg);
/* Makes the rank ask all ranks who waits for what and print it to standard error in one screen, as
 * a stall does, without ending anything. One screen, too, if several ranks are asked within a
 * second. Async-signal-safe. */
void troupe_runtime_request_report(troupe_runtime *runtime);

#ifdef __cplusplus
}
#endif
#endif
