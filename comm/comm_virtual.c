/* SPDX-License-Identifier: Apache-2.0 */
/* The turn goes from rank to rank with a mutex and a condition for each; whoever has it may touch
 * everything of the world, so nothing else needs a lock. All that happens later is an event in one
 * heap. */
#include "comm/virtual.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/group_internal.h"
#include "runtime/memory.h"

enum {
    NOBODY = -1,
    EVENTS_MAX = 1 << 16,
    CONTROL_MESSAGES_MAX = 2048, /* of an endpoint */
    EXCHANGES_MAX = 1024,        /* begun and not complete */
};

/* At the same time and rank in this order, which is the simulator's (scheduler/sim.c). */
enum event_kind {
    EVENT_ARRIVED,   /* item: a receive */
    EVENT_SENT,      /* item: a send */
    EVENT_CONTROL,   /* item: a node */
    EVENT_RESUME,    /* compute or align is over */
    EVENT_EXCHANGED, /* item: a group's slot */
};

struct event {
    int64_t time_ns;
    int rank;
    int from;
    uint64_t number;
    enum event_kind kind;
    troupe_status status;
    void *item;
};

/* A posted transfer that has no counterpart yet; in its scratch. */
struct __attribute__((may_alias)) posted {
    struct posted *next;
    struct troupe_transfer *transfer;
    int from;
};

struct posted_list {
    struct posted *head, **end;
};

struct control_node {
    struct control_node *next;
    int from;
    size_t bytes;
    unsigned char data[TROUPE_CONTROL_BYTES_MAX];
};

struct endpoint {
    troupe_comm comm;
    troupe_virtual *world;
    pthread_cond_t turn;
    bool open;
    bool resumed;
    uint64_t sent;
    int64_t lane_free_ns;
    struct posted_list sends, receives; /* of others to this rank; of this rank */
    struct control_node *nodes, *nodes_free;
    int nodes_free_count;
};

/* Members of a group that have started the same exchange. */
struct exchange {
    uint32_t group;
    uint64_t sequence;
    int started;                      /* 0: the entry is free */
    struct troupe_group_slot **slots; /* by rank of the job */
};

/* A gang that gathers in compute. */
struct gathering {
    int count;
    int *ranks; /* room for all */
};

struct troupe_virtual {
    struct troupe_virtual_options options;
    pthread_mutex_t lock; /* protects turn_of and opened */
    int turn_of;          /* the rank that may run, or NOBODY */
    int opened;
    int64_t now_ns;
    struct endpoint *endpoints;
    struct event *heap;
    int heap_count;
    struct exchange *exchanges;
    struct gathering *gatherings; /* by key; the last: align */
    bool aborted;
    char abort_text[512];
};

static struct endpoint *endpoint_of(troupe_comm *comm) {
    return (struct endpoint *)comm;
}

/* ---- events ---- */

static bool is_earlier(const struct event *a, const struct event *b) {
    if (a->time_ns != b->time_ns) {
        return a->time_ns < b->time_ns;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank;
    }
    if (a->kind != b->kind) {
        return a->kind < b->kind;
    }
    return a->from != b->from ? a->from < b->from : a->number < b->number;
}

static void push_event(troupe_virtual *world, struct event event) {
    TROUPE_ASSERT(world->heap_count < EVENTS_MAX, "%d events at once", world->heap_count);
    event.number = world->endpoints[event.from].sent++;
    int i = world->heap_count++;
    for (; i > 0 && is_earlier(&event, &world->heap[(i - 1) / 2]); i = (i - 1) / 2) {
        world->heap[i] = world->heap[(i - 1) / 2];
    }
    world->heap[i] = event;
}

static struct event pop_event(troupe_virtual *world) {
    struct event top = world->heap[0], last = world->heap[--world->heap_count];
    int i = 0;
    for (int child = 1; child < world->heap_count; child = 2 * i + 1) {
        child += child + 1 < world->heap_count &&
                 is_earlier(&world->heap[child + 1], &world->heap[child]);
        if (!is_earlier(&world->heap[child], &last)) {
            break;
        }
        world->heap[i] = world->heap[child];
        i = child;
    }
    world->heap[i] = last;
    return top;
}

/* ---- turns ---- */

/* Of the ranks that may run, the one whose turn comes; the clock jumps. What comes for a rank that
 * has left is lost. */
static int next_turn(troupe_virtual *world) {
    while (world->heap_count > 0 && !world->endpoints[world->heap[0].rank].open) {
        pop_event(world);
    }
    if (world->heap_count == 0 || world->aborted) {
        return NOBODY;
    }
    const struct event *event = &world->heap[0];
    world->now_ns = event->time_ns > world->now_ns ? event->time_ns : world->now_ns;
    return event->rank;
}

/* Under the lock. */
static void pass_turn(troupe_virtual *world) {
    world->turn_of = next_turn(world);
    if (world->turn_of != NOBODY) {
        pthread_cond_signal(&world->endpoints[world->turn_of].turn);
        return;
    }
    for (int r = 0; r < world->options.ranks; r++) {
        pthread_cond_signal(&world->endpoints[r].turn); /* nothing happens: anyone may look */
    }
}

/* Under the lock. While nothing happens at all, waits at most `timeout_ns`, then looks itself. */
static void take_turn(struct endpoint *own, int64_t timeout_ns) {
    troupe_virtual *world = own->world;
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    int64_t nanoseconds = deadline.tv_nsec + timeout_ns;
    deadline.tv_sec += nanoseconds / 1000000000;
    deadline.tv_nsec = nanoseconds % 1000000000;
    while (world->turn_of != own->comm.rank) {
        if (world->turn_of != NOBODY) {
            pthread_cond_wait(&own->turn, &world->lock);
        } else if (world->aborted ||
                   pthread_cond_timedwait(&own->turn, &world->lock, &deadline) == ETIMEDOUT) {
            world->turn_of = world->turn_of == NOBODY ? own->comm.rank : world->turn_of;
        }
    }
}

static void park(troupe_comm *comm, int64_t timeout_ns) {
    struct endpoint *own = endpoint_of(comm);
    pthread_mutex_lock(&own->world->lock);
    pass_turn(own->world);
    take_turn(own, timeout_ns);
    pthread_mutex_unlock(&own->world->lock);
}

static bool wakes(troupe_comm *comm) {
    (void)comm; /* it takes turns: nobody sleeps for long */
    return false;
}

/* ---- transfers ---- */

static void append(struct posted_list *list, struct posted *item) {
    item->next = NULL;
    if (list->head == NULL) {
        list->end = &list->head;
    }
    *list->end = item;
    list->end = &item->next;
}

static struct posted *take(struct posted_list *list, int from, uint64_t tag) {
    for (struct posted **place = &list->head; *place != NULL; place = &(*place)->next) {
        struct posted *item = *place;
        if (item->from == from && item->transfer->tag == tag) {
            *place = item->next;
            if (list->end == &item->next) {
                list->end = place;
            }
            return item;
        }
    }
    return NULL;
}

/* Both sides are there: the data move now, and are known to have moved when the links say. */
static void begin_transfer(struct endpoint *receiver, int from, struct troupe_transfer *send,
                           struct troupe_transfer *receive) {
    troupe_virtual *world = receiver->world;
    size_t bytes = troupe_transfer_bytes(send);
    troupe_status status = TROUPE_OK;
    int to = receiver->comm.rank;
    if (bytes == troupe_transfer_bytes(receive)) {
        troupe_transfer_copy(send, receive);
    } else {
        status = troupe_comm_wrong_size(&receiver->comm, receive, bytes);
    }
    int64_t time_ns = world->now_ns;
    if (from != to) {
        time_ns =
            world->options.transfer_ns(world->options.arg, world->now_ns, from, to, (int64_t)bytes);
        TROUPE_ASSERT(time_ns > world->now_ns, "a transfer from rank %d to %d takes no time", from,
                      to);
    }
    struct event event = {.kind = EVENT_ARRIVED,
                          .time_ns = time_ns,
                          .rank = to,
                          .from = from,
                          .status = status,
                          .item = receive};
    push_event(world, event);
    event.kind = EVENT_SENT;
    event.rank = from;
    event.status = TROUPE_OK;
    event.item = send;
    push_event(world, event);
}

static struct posted *make_posted(struct troupe_transfer *transfer, int from) {
    struct posted *item = troupe_transfer_scratch(transfer);
    *item = (struct posted){.transfer = transfer, .from = from};
    return item;
}

static troupe_status post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct endpoint *peer = &endpoint_of(comm)->world->endpoints[transfer->peer];
    struct posted *receive = take(&peer->receives, comm->rank, transfer->tag);
    if (receive != NULL) {
        begin_transfer(peer, comm->rank, transfer, receive->transfer);
    } else {
        append(&peer->sends, make_posted(transfer, comm->rank));
    }
    return TROUPE_OK;
}

static troupe_status post_receive(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct endpoint *own = endpoint_of(comm);
    struct posted *send = take(&own->sends, transfer->peer, transfer->tag);
    if (send != NULL) {
        begin_transfer(own, transfer->peer, send->transfer, transfer);
    } else {
        append(&own->receives, make_posted(transfer, transfer->peer));
    }
    return TROUPE_OK;
}

/* ---- control ---- */

static troupe_status send_control(troupe_comm *comm, int to, const void *message, size_t bytes) {
    struct endpoint *own = endpoint_of(comm);
    struct control_node *node = own->nodes_free;
    own->nodes_free = node->next;
    own->nodes_free_count--;
    node->from = comm->rank;
    node->bytes = bytes;
    memcpy(node->data, message, bytes);
    int64_t delay = to == comm->rank ? 0 : own->world->options.control_ns;
    push_event(own->world, (struct event){.kind = EVENT_CONTROL,
                                          .time_ns = own->world->now_ns + delay,
                                          .rank = to,
                                          .from = comm->rank,
                                          .item = node});
    return TROUPE_OK;
}

static int control_room(troupe_comm *comm) {
    return endpoint_of(comm)->nodes_free_count;
}

static void deliver_control(struct endpoint *own, struct control_node *node) {
    struct endpoint *sender = &own->world->endpoints[node->from];
    troupe_comm_deliver(&own->comm, node->from, node->data, node->bytes);
    node->next = sender->nodes_free;
    sender->nodes_free = node;
    sender->nodes_free_count++;
}

/* ---- progress ---- */

/* The event at the top of the heap, if it is this rank's and due. */
static void progress(troupe_comm *comm) {
    struct endpoint *own = endpoint_of(comm);
    troupe_virtual *world = own->world;
    if (world->aborted) {
        troupe_comm_fail(comm, TROUPE_ERROR_ABORTED, "%s", world->abort_text);
        return;
    }
    if (world->heap_count == 0 || world->heap[0].rank != comm->rank ||
        world->heap[0].time_ns > world->now_ns) {
        comm->active = false; /* so that idle neither spins nor yields: that passes no time */
        comm->active_ns = 0;
        return;
    }
    struct event event = pop_event(world);
    switch (event.kind) {
    case EVENT_ARRIVED:
    case EVENT_SENT:
        troupe_comm_complete(comm, event.item, event.status);
        break;
    case EVENT_CONTROL:
        deliver_control(own, event.item);
        break;
    case EVENT_RESUME:
        own->resumed = true;
        comm->events++;
        break;
    case EVENT_EXCHANGED:
        comm->events++;
        troupe_group_exchanged(event.item, TROUPE_OK);
        break;
    }
}

static void announce_abort(troupe_comm *comm, const char *why) {
    troupe_virtual *world = endpoint_of(comm)->world;
    if (!world->aborted) {
        snprintf(world->abort_text, sizeof world->abort_text, "rank %d ended the job: %.400s",
                 comm->rank, why);
        world->aborted = true;
    }
}

/* The whole world ends with the first failure: nothing is matched or delivered any more. */
static void withdraw(troupe_comm *comm) {
    announce_abort(comm, comm->failure_text);
}

static void close_endpoint(troupe_comm *comm) {
    struct endpoint *own = endpoint_of(comm);
    pthread_mutex_lock(&own->world->lock);
    own->open = false;
    pass_turn(own->world);
    pthread_mutex_unlock(&own->world->lock);
    troupe_comm_fini(comm);
}

/* ---- modelled tasks ---- */

int64_t troupe_virtual_now(const troupe_comm *comm) {
    return ((const struct endpoint *)comm)->world->now_ns;
}

static void resume_all(troupe_virtual *world, struct gathering *gathering, int64_t ns) {
    for (int i = 0; i < gathering->count; i++) {
        push_event(world, (struct event){.kind = EVENT_RESUME,
                                         .time_ns = world->now_ns + ns,
                                         .rank = gathering->ranks[i],
                                         .from = gathering->ranks[i]});
    }
    gathering->count = 0;
}

static troupe_status gather(troupe_comm *comm, int key, int members, int64_t ns) {
    struct endpoint *own = endpoint_of(comm);
    struct gathering *gathering = &own->world->gatherings[key];
    gathering->ranks[gathering->count++] = comm->rank;
    own->resumed = false;
    if (gathering->count == members) {
        resume_all(own->world, gathering, ns);
    }
    while (!own->resumed) {
        TROUPE_TRY(troupe_comm_failure(comm));
        if (troupe_comm_progress(comm) == 0) {
            troupe_comm_idle(comm);
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_virtual_compute(troupe_comm *comm, int key, int members, int64_t ns,
                                     int64_t *begin_ns_out) {
    TROUPE_ASSERT(key >= 0 && key < endpoint_of(comm)->world->options.keys && ns >= 1,
                  "key %d, %lld ns", key, (long long)ns);
    TROUPE_TRY(gather(comm, key, members, ns));
    *begin_ns_out = troupe_virtual_now(comm) - ns;
    return TROUPE_OK;
}

troupe_status troupe_virtual_align(troupe_comm *comm) {
    return gather(comm, endpoint_of(comm)->world->options.keys, comm->size, 1);
}

/* ---- groups ---- */

static struct exchange *find_exchange(troupe_virtual *world, uint32_t group, uint64_t sequence) {
    struct exchange *unused = NULL;
    for (int i = 0; i < EXCHANGES_MAX; i++) {
        struct exchange *exchange = &world->exchanges[i];
        if (exchange->started > 0 && exchange->group == group && exchange->sequence == sequence) {
            return exchange;
        }
        unused = unused == NULL && exchange->started == 0 ? exchange : unused;
    }
    TROUPE_ASSERT(unused != NULL, "%d exchanges at once", EXCHANGES_MAX);
    unused->group = group;
    unused->sequence = sequence;
    return unused;
}

static void move_data(const struct exchange *exchange, const troupe_group *group) {
    for (int i = 0; i < group->count; i++) {
        const struct troupe_exchange *from = &exchange->slots[group->ranks[i]]->exchange;
        for (int k = 0; k < group->count; k++) {
            const struct troupe_exchange *to = &exchange->slots[group->ranks[k]]->exchange;
            if (i != k && from->send_bytes[k] > 0) {
                memcpy(to->receive + to->receive_at[i], from->send + from->send_at[k],
                       from->send_bytes[k]);
            }
        }
    }
}

static void start_exchange(struct troupe_group_slot *slot) {
    const troupe_group *group = slot->group;
    troupe_virtual *world = endpoint_of(group->comm)->world;
    struct exchange *exchange = find_exchange(world, group->id, slot->sequence);
    exchange->slots[group->comm->rank] = slot;
    if (++exchange->started < group->count) {
        return;
    }
    int64_t begin_ns = world->now_ns;
    for (int i = 0; i < group->count; i++) {
        int64_t free_ns = world->endpoints[group->ranks[i]].lane_free_ns;
        begin_ns = free_ns > begin_ns ? free_ns : begin_ns;
    }
    int64_t ns = world->options.collective_ns == NULL
                     ? 1
                     : world->options.collective_ns(world->options.arg, group->id, begin_ns);
    move_data(exchange, group);
    exchange->started = 0;
    for (int i = 0; i < group->count; i++) {
        int rank = group->ranks[i];
        world->endpoints[rank].lane_free_ns = begin_ns + ns;
        push_event(world, (struct event){.kind = EVENT_EXCHANGED,
                                         .time_ns = begin_ns + ns,
                                         .rank = rank,
                                         .from = rank,
                                         .item = exchange->slots[rank]});
    }
}

static troupe_status open_slot(troupe_group *group, struct troupe_group_slot *slot) {
    (void)group, (void)slot;
    return TROUPE_OK;
}

static void close_slot(struct troupe_group_slot *slot) {
    (void)slot;
}

static const struct troupe_group_engine group_engine = {
    .open = open_slot,
    .start = start_exchange,
    .close = close_slot,
};

static const struct troupe_comm_backend virtual_backend = {
    .post_send = post_send,
    .post_receive = post_receive,
    .send_control = send_control,
    .control_room = control_room,
    .progress = progress,
    .park = park,
    .wakes = wakes,
    .announce_abort = announce_abort,
    .withdraw = withdraw,
    .close = close_endpoint,
    .group_engine = &group_engine,
};

/* ---- life ---- */

static troupe_status make(troupe_virtual *world) {
    int ranks = world->options.ranks, keys = world->options.keys;
    TROUPE_TRY(TROUPE_NEW(&world->endpoints, ranks));
    for (int r = 0; r < ranks; r++) {
        pthread_cond_init(&world->endpoints[r].turn, NULL);
    }
    TROUPE_TRY(TROUPE_NEW(&world->heap, EVENTS_MAX));
    TROUPE_TRY(TROUPE_NEW(&world->exchanges, EXCHANGES_MAX));
    TROUPE_TRY(TROUPE_NEW(&world->exchanges[0].slots, EXCHANGES_MAX * ranks));
    for (int i = 1; i < EXCHANGES_MAX; i++) {
        world->exchanges[i].slots = world->exchanges[0].slots + (size_t)i * (size_t)ranks;
    }
    TROUPE_TRY(TROUPE_NEW(&world->gatherings, keys + 1));
    TROUPE_TRY(TROUPE_NEW(&world->gatherings[0].ranks, (keys + 1) * ranks));
    for (int i = 1; i <= keys; i++) {
        world->gatherings[i].ranks = world->gatherings[0].ranks + (size_t)i * (size_t)ranks;
    }
    return TROUPE_OK;
}

troupe_status troupe_virtual_create(const struct troupe_virtual_options *options,
                                    troupe_virtual **out) {
    TROUPE_ASSERT(options->ranks > 0 && options->control_ns >= 1, "%d ranks, control in %lld ns",
                  options->ranks, (long long)options->control_ns);
    troupe_virtual *world = NULL;
    TROUPE_TRY(TROUPE_NEW(&world, 1));
    world->options = *options;
    world->turn_of = NOBODY;
    pthread_mutex_init(&world->lock, NULL);
    troupe_status status = make(world);
    if (status != TROUPE_OK) {
        troupe_virtual_destroy(world);
        return status;
    }
    *out = world;
    return TROUPE_OK;
}

void troupe_virtual_destroy(troupe_virtual *world) {
    if (world == NULL) {
        return;
    }
    for (int r = 0; world->endpoints != NULL && r < world->options.ranks; r++) {
        pthread_cond_destroy(&world->endpoints[r].turn);
        troupe_free(world->endpoints[r].nodes);
    }
    if (world->exchanges != NULL) {
        troupe_free(world->exchanges[0].slots);
    }
    if (world->gatherings != NULL) {
        troupe_free(world->gatherings[0].ranks);
    }
    troupe_free(world->exchanges);
    troupe_free(world->gatherings);
    troupe_free(world->heap);
    troupe_free(world->endpoints);
    pthread_mutex_destroy(&world->lock);
    troupe_free(world);
}

/* Every rank is resumed once, at time 0; the last to come gives the first its turn. */
static void join_world(struct endpoint *own) {
    troupe_virtual *world = own->world;
    pthread_mutex_lock(&world->lock);
    own->open = true;
    push_event(world, (struct event){
                          .kind = EVENT_RESUME, .rank = own->comm.rank, .from = own->comm.rank});
    if (++world->opened == world->options.ranks) {
        pass_turn(world);
    }
    while (world->turn_of != own->comm.rank) {
        pthread_cond_wait(&own->turn, &world->lock);
    }
    pthread_mutex_unlock(&world->lock);
    troupe_comm_progress(&own->comm);
}

troupe_status troupe_comm_open_virtual(troupe_virtual *world, int rank, troupe_comm **out) {
    TROUPE_ASSERT(rank >= 0 && rank < world->options.ranks, "rank %d of %d", rank,
                  world->options.ranks);
    struct endpoint *own = &world->endpoints[rank];
    own->world = world;
    TROUPE_TRY(troupe_comm_init(&own->comm, &virtual_backend, rank, world->options.ranks));
    troupe_comm_set_limits(&own->comm, 1, CONTROL_MESSAGES_MAX);
    snprintf(own->comm.name, sizeof own->comm.name, "virtual");
    troupe_status status = TROUPE_NEW(&own->nodes, CONTROL_MESSAGES_MAX);
    if (status != TROUPE_OK) {
        troupe_comm_fini(&own->comm);
        return status;
    }
    for (int i = 0; i < CONTROL_MESSAGES_MAX; i++) {
        own->nodes[i].next = own->nodes_free;
        own->nodes_free = &own->nodes[i];
    }
    own->nodes_free_count = CONTROL_MESSAGES_MAX;
    join_world(own);
    *out = &own->comm;
    return TROUPE_OK;
}
