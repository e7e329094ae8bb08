/* SPDX-License-Identifier: Apache-2.0
 *
 * Who waits for what, over all ranks. Inside this layer only. One rank asks all; each answers with
 * facts (what itself and, as a conductor, each unfinished method waits for); the one that asked
 * follows them to the cause and prints one screen:
 *
 *     troupe_report_ask(runtime, ends, quiet_ns);          (a stall, or SIGUSR1)
 *     troupe_report_poll(runtime);                         (wherever the rank waits)
 *
 * Ranks that do not answer within a time of grace are named as silent. Of several that ask at once
 * the lowest goes on, so there is one screen.
 *
 *     wait_facts.c    what this rank knows, as facts
 *     wait_chain.c    follows them: node by node to a cause
 *     report.c        asks, collects, prints
 *
 * Ownership: of the runtime. Threads: the rank's own. Failure: none; a stall fails the runtime.
 */
#ifndef TROUPE_ACTORS_REPORT_H
#define TROUPE_ACTORS_REPORT_H

#include "actors/runtime.h"
#include "scheduler/engine.h"

/* What a rank does or waits for. */
enum troupe_rank_state {
    TROUPE_RANK_SILENT,  /* it has not answered */
    TROUPE_RANK_OUTSIDE, /* its program has not begun the step of its tickets, or any */
    TROUPE_RANK_RUNS,    /* method: it is inside a collective of it */
    TROUPE_RANK_INPUT,   /* method: a ticket; index: the channel that has not brought its input */
    TROUPE_RANK_BUFFER,  /* method: a ticket; index: the edge whose buffers `rank` has not taken */
    TROUPE_RANK_DEVICE,  /* index: the edge whose message its device has not finished */
    TROUPE_RANK_READY,   /* method: a ticket that lacks nothing */
    TROUPE_RANK_GATHERS, /* method: a ticket that lacks other members of its gang, in mode static */
    TROUPE_RANK_REDUCES, /* method: its collective is posted and not complete */
    TROUPE_RANK_NO_TICKET, /* of what it has to do in this step */
    TROUPE_RANK_SENDS,     /* all done; index: the edge whose message `rank` has not taken */
    TROUPE_RANK_DONE,      /* with all tasks of the step: its program is beyond them */
};

/* A control message. */
struct troupe_wait_fact {
    int32_t kind;    /* TROUPE_CONTROL_FACT */
    int32_t method;  /* of a method: itself; of a rank: see the state; or TROUPE_NOBODY */
    int32_t of_rank; /* whether it tells of a rank: the sender */
    int32_t state;   /* enum troupe_rank_state, or enum troupe_engine_wait_kind */
    int32_t index;   /* see the state; of a method: see struct troupe_engine_wait */
    int32_t rank;    /* see the state; of a method: the one without the input */
    int32_t late_rank;
    int32_t in_flight;
    int32_t held;
    int32_t round; /* of the question that it answers */
    int64_t firing;
    int64_t done;   /* of a rank: firings of this runtime */
    int64_t target; /* the same, to do in all */
    int64_t step;
    int64_t since_ms;
};

/* The facts of this rank, sent to the one that asks, and the last word. */
void troupe_send_facts(troupe_runtime *runtime, int to, int round);

/* Messages about waiting keep coming for so long after the last question. */
#define TROUPE_REPORT_TALK_NS UINT64_C(1000000000)

enum { TROUPE_SENTENCE_BYTES = 768 };

struct troupe_report {
    bool asking;
    bool ends; /* the job, when it is printed */
    int round;
    int answered;
    uint64_t quiet_ns, begin_ns;
    char sentence[TROUPE_SENTENCE_BYTES]; /* that ends the job */
    uint64_t heard_ns;                    /* the latest message about waiting; 0: none yet */
    uint64_t deferred_ns; /* another rank's deadline has passed: ours begins anew here */
    uint64_t asked_ns;    /* the latest question of another rank; 0: none yet */
    struct troupe_wait_fact *methods; /* kind 0: nothing known, nothing left to do */
    struct troupe_wait_fact *ranks;   /* state SILENT at first */
};

troupe_status troupe_report_make(troupe_runtime *runtime);
void troupe_report_destroy(troupe_runtime *runtime);
/* Asks all ranks, unless it does so already, or an answer has just been given to another. */
void troupe_report_ask(troupe_runtime *runtime, bool ends, uint64_t quiet_ns);
/* Prints and, after a stall, ends the job, if all have answered or the time is over. */
void troupe_report_poll(troupe_runtime *runtime);
/* Control messages. */
void troupe_report_asked(troupe_runtime *runtime, int from, int round, bool ends);
void troupe_report_hear(troupe_runtime *runtime, int from, const struct troupe_wait_fact *fact);
void troupe_report_answered(troupe_runtime *runtime, int from, int round);

/* ---- wait_chain.c ---- */

enum { TROUPE_CHAIN_MAX = 64, TROUPE_REASON_BYTES = 256 };

/* Of the causes the gravest comes last. */
enum troupe_cause {
    TROUPE_CAUSE_NONE, /* the chain goes on */
    TROUPE_CAUSE_RUNNING,
    TROUPE_CAUSE_UNKNOWN,
    TROUPE_CAUSE_OUTSIDE,
    TROUPE_CAUSE_COLLECTIVE,
    TROUPE_CAUSE_DEVICE,
    TROUPE_CAUSE_CYCLE,
    TROUPE_CAUSE_POLICY,
    TROUPE_CAUSE_CREDIT,
    TROUPE_CAUSE_MESSAGE,
    TROUPE_CAUSE_SILENT,
};

/* A rank, or a firing of a method. */
struct troupe_waiter {
    int rank; /* TROUPE_NOBODY: a method */
    int method;
    int64_t firing;
};

struct troupe_wait_link {
    struct troupe_waiter who;
    int64_t since_ms;                 /* < 0: not known */
    char reason[TROUPE_REASON_BYTES]; /* what it waits for */
};

struct troupe_wait_chain {
    struct troupe_wait_link links[TROUPE_CHAIN_MAX];
    int count;
    enum troupe_cause cause;
    int cycle_begin;                /* the link that the last one waits for, or TROUPE_NOBODY */
    char text[TROUPE_REASON_BYTES]; /* the cause, a clause */
};

/* From the rank to the cause. */
void troupe_wait_follow(const troupe_runtime *runtime, int rank, struct troupe_wait_chain *out);
/* "rank 3", "llm dp 0 forward 3" */
void troupe_waiter_name(const troupe_runtime *runtime, const struct troupe_waiter *who, char *text,
                        size_t bytes);

#endif
