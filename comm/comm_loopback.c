/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranks as threads of one process: the reference transport, and the template of a backend.
 *
 * Each endpoint has one inbox of arrivals that every rank may put into. Its own thread takes all of
 * them in progress, matches by (peer, tag) and copies straight from the sender's segments into the
 * receiver's; then the send travels back into the sender's inbox.
 * Items live inside the transfers, so nothing is allocated and no queue is bounded but the pool of
 * control messages.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "comm/comm_process.h"
#include "runtime/clock.h"
#include "runtime/eventcount.h"
#include "runtime/inbox.h"
#include "runtime/list.h"
#include "runtime/memory.h"
#include "runtime/random.h"

enum { BUCKETS = 256 };

enum item_kind {
    ITEM_SEND,             /* to the receiver */
    ITEM_SENT,             /* back to the sender: its data has been copied */
    ITEM_CONTROL,          /* to the receiver */
    ITEM_CONTROL_RETURNED, /* back to the sender's pool */
};

/* What travels; lives in the transfer's scratch or in a control node. */
struct __attribute__((may_alias)) item {
    struct item *next;                /* in a list of the endpoint that has it */
    struct troupe_inbox_link arrival; /* on its way */
    struct troupe_transfer *transfer; /* NULL for control */
    enum item_kind kind;
    int from;
    int64_t due_ns; /* while held back */
};
_Static_assert(sizeof(struct item) <= TROUPE_TRANSFER_SCRATCH_BYTES, "item fits the scratch");

struct item_list {
    struct item *head, *tail;
};

struct control_node {
    struct item item;
    size_t bytes;
    unsigned char data[TROUPE_CONTROL_BYTES_MAX];
};

/* Unmatched sends and receives whose (peer, tag) hash here, oldest first. */
struct bucket {
    struct item_list sends, receives;
};

struct endpoint {
    troupe_comm comm;
    troupe_loopback *world;
    bool owns_world; /* the only rank of a process without a launcher */

    _Alignas(TROUPE_CACHE_LINE) struct troupe_inbox arrivals;
    struct troupe_eventcount arrived_event;

    /* busy protects arrived, held and buckets against a failing peer that takes back its sends;
     * otherwise only the endpoint's thread takes it. */
    _Alignas(TROUPE_CACHE_LINE) pthread_mutex_t busy;
    struct item_list arrived; /* taken from arrivals, in order */
    struct item_list held;    /* waits for due_ns, ascending */
    struct item_list posted;  /* receives not yet matched against the buckets */
    struct bucket buckets[BUCKETS];
    struct control_node *nodes; /* the pool */
    struct item_list nodes_free;
    int nodes_free_count;
    uint64_t delays_drawn;
    int64_t next_due_ns; /* of held, after the last progress; 0: none. The own thread's alone. */
};

struct troupe_loopback {
    struct troupe_loopback_options options;
    struct endpoint *endpoints;
    _Atomic int aborted; /* 0, 1 while the text is written, 2 */
    char abort_text[512];
};

static struct endpoint *endpoint_of(troupe_comm *comm) {
    return (struct endpoint *)comm;
}

static void list_append(struct item_list *list, struct item *item) {
    item->next = NULL;
    if (list->head == NULL) {
        list->head = item;
    } else {
        list->tail->next = item;
    }
    list->tail = item;
}

static struct item *list_take(struct item_list *list) {
    struct item *item = list->head;
    if (item != NULL) {
        list->head = item->next;
    }
    return item;
}

/* Removes the item behind `previous` (NULL: the head). */
static void list_remove(struct item_list *list, struct item *previous, struct item *item) {
    if (previous == NULL) {
        list->head = item->next;
    } else {
        previous->next = item->next;
    }
    if (list->tail == item) {
        list->tail = previous;
    }
}

static void push(struct endpoint *to, struct item *item) {
    troupe_inbox_put(&to->arrivals, &item->arrival);
    troupe_eventcount_notify(&to->arrived_event);
}

static void take_arrivals(struct endpoint *own) {
    struct troupe_inbox_link *next, *link = troupe_inbox_take(&own->arrivals);
    for (; link != NULL; link = next) {
        next = troupe_inbox_next(link);
        list_append(&own->arrived, TROUPE_CONTAINER_OF(link, struct item, arrival));
    }
}

static struct bucket *bucket_of(struct endpoint *own, int peer, uint64_t tag) {
    uint64_t h = (tag ^ ((uint64_t)peer << 32)) * 0x9e3779b97f4a7c15u;
    return &own->buckets[(h >> 32) % BUCKETS];
}

/* The oldest item of this peer and tag leaves the list. For a send the peer is who sent it. */
static struct item *take_match(struct item_list *list, int peer, uint64_t tag) {
    for (struct item *previous = NULL, *item = list->head; item != NULL;
         previous = item, item = item->next) {
        if (item->from == peer && item->transfer->tag == tag) {
            list_remove(list, previous, item);
            return item;
        }
    }
    return NULL;
}

static void finish_pair(struct endpoint *own, struct item *send, struct item *receive) {
    struct troupe_transfer *from = send->transfer, *to = receive->transfer;
    size_t bytes = troupe_transfer_bytes(from);
    troupe_status status = TROUPE_OK;
    if (bytes == troupe_transfer_bytes(to)) {
        troupe_transfer_copy(from, to);
    } else {
        status = troupe_comm_wrong_size(&own->comm, to, bytes);
    }
    struct endpoint *sender = &own->world->endpoints[send->from];
    send->kind = ITEM_SENT;
    push(sender, send); /* from here on the sender may end it */
    troupe_comm_complete(&own->comm, to, status);
}

static void match_send(struct endpoint *own, struct item *send) {
    struct bucket *bucket = bucket_of(own, send->from, send->transfer->tag);
    struct item *receive = take_match(&bucket->receives, send->from, send->transfer->tag);
    if (receive != NULL) {
        finish_pair(own, send, receive);
    } else {
        list_append(&bucket->sends, send);
    }
}

static void match_receive(struct endpoint *own, struct item *receive) {
    struct bucket *bucket = bucket_of(own, receive->from, receive->transfer->tag);
    struct item *send = take_match(&bucket->sends, receive->from, receive->transfer->tag);
    if (send != NULL) {
        finish_pair(own, send, receive);
    } else {
        list_append(&bucket->receives, receive);
    }
}

static void deliver_control(struct endpoint *own, struct item *item) {
    struct control_node *node = (struct control_node *)item;
    int from = item->from;
    troupe_comm_deliver(&own->comm, from, node->data, node->bytes);
    item->kind = ITEM_CONTROL_RETURNED;
    push(&own->world->endpoints[from], item);
}

static bool same_order(const struct item *a, const struct item *b) {
    return a->kind == b->kind && a->from == b->from &&
           (a->kind == ITEM_CONTROL || a->transfer->tag == b->transfer->tag);
}

/* Holds an item back for a seeded time, but never less than one that it must not overtake. */
static void hold(struct endpoint *own, struct item *item) {
    const struct troupe_loopback_options *options = &own->world->options;
    item->due_ns =
        (int64_t)(troupe_clock_ns() + troupe_random_below(options->seed, (uint64_t)own->comm.rank,
                                                          own->delays_drawn++,
                                                          (uint64_t)options->delay_ns_max + 1));
    struct item *before = NULL;
    for (struct item *other = own->held.head; other != NULL; other = other->next) {
        if (same_order(item, other) && item->due_ns < other->due_ns) {
            item->due_ns = other->due_ns;
        }
        if (other->due_ns <= item->due_ns) {
            before = other;
        }
    }
    if (before == NULL) {
        item->next = own->held.head;
        own->held.head = item;
        if (item->next == NULL) {
            own->held.tail = item;
        }
    } else if (before == own->held.tail) {
        list_append(&own->held, item);
    } else {
        item->next = before->next;
        before->next = item;
    }
}

static void arrive(struct endpoint *own, struct item *item) {
    if (item->kind == ITEM_SEND) {
        match_send(own, item);
    } else {
        deliver_control(own, item);
    }
}

static void handle(struct endpoint *own, struct item *item) {
    switch (item->kind) {
    case ITEM_SENT:
        troupe_comm_complete(&own->comm, item->transfer, TROUPE_OK);
        break;
    case ITEM_CONTROL_RETURNED:
        list_append(&own->nodes_free, item);
        own->nodes_free_count++;
        break;
    case ITEM_SEND:
    case ITEM_CONTROL:
        if (own->world->options.delay_ns_max > 0) {
            hold(own, item);
        } else {
            arrive(own, item);
        }
        break;
    }
}

static void release_held(struct endpoint *own) {
    int64_t now = own->held.head != NULL ? (int64_t)troupe_clock_ns() : 0;
    while (own->held.head != NULL && own->held.head->due_ns <= now) {
        arrive(own, list_take(&own->held));
    }
}

/* Receives posted by callbacks meanwhile wait for the next progress. */
static void match_posted(struct endpoint *own) {
    struct item_list posted = own->posted;
    own->posted = (struct item_list){0};
    struct item *receive;
    while ((receive = list_take(&posted)) != NULL) {
        match_receive(own, receive);
    }
}

static void notice_abort(struct endpoint *own) {
    /* acquire: the text is complete; pairs with the release in announce_abort */
    if (atomic_load_explicit(&own->world->aborted, memory_order_acquire) == 2) {
        troupe_comm_fail(&own->comm, TROUPE_ERROR_ABORTED, "%s", own->world->abort_text);
    }
}

static void progress(troupe_comm *comm) {
    struct endpoint *own = endpoint_of(comm);
    notice_abort(own);
    if (comm->failure != TROUPE_OK) {
        return;
    }
    pthread_mutex_lock(&own->busy);
    match_posted(own);
    take_arrivals(own);
    struct item_list arrived = own->arrived;
    own->arrived = (struct item_list){0};
    struct item *item;
    while ((item = list_take(&arrived)) != NULL) {
        handle(own, item);
    }
    release_held(own);
    own->next_due_ns = own->held.head != NULL ? own->held.head->due_ns : 0;
    pthread_mutex_unlock(&own->busy);
}

static void init_item(struct item *item, enum item_kind kind, int from,
                      struct troupe_transfer *transfer) {
    item->kind = kind;
    item->from = from;
    item->transfer = transfer;
}

static troupe_status post_send(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct endpoint *own = endpoint_of(comm);
    struct item *item = troupe_transfer_scratch(transfer);
    init_item(item, ITEM_SEND, comm->rank, transfer);
    push(&own->world->endpoints[transfer->peer], item);
    return TROUPE_OK;
}

static troupe_status post_receive(troupe_comm *comm, struct troupe_transfer *transfer) {
    struct item *item = troupe_transfer_scratch(transfer);
    init_item(item, ITEM_SEND, transfer->peer, transfer);
    list_append(&endpoint_of(comm)->posted, item);
    return TROUPE_OK;
}

static troupe_status send_control(troupe_comm *comm, int to, const void *message, size_t bytes) {
    struct endpoint *own = endpoint_of(comm);
    struct item *item = list_take(&own->nodes_free);
    struct control_node *node = (struct control_node *)item;
    own->nodes_free_count--;
    init_item(item, ITEM_CONTROL, comm->rank, NULL);
    node->bytes = bytes;
    memcpy(node->data, message, bytes);
    push(&own->world->endpoints[to], item);
    return TROUPE_OK;
}

static int control_room(troupe_comm *comm) {
    return endpoint_of(comm)->nodes_free_count;
}

static void park(troupe_comm *comm, int64_t timeout_ns) {
    struct endpoint *own = endpoint_of(comm);
    if (own->next_due_ns > 0) {
        int64_t due_ns = own->next_due_ns - (int64_t)troupe_clock_ns();
        timeout_ns = due_ns < timeout_ns ? due_ns : timeout_ns;
    }
    if (timeout_ns <= 0 || own->posted.head != NULL) {
        return;
    }
    struct troupe_wait_limits limits = {.park_ns = (uint64_t)timeout_ns};
    uint32_t key = troupe_eventcount_key(&own->arrived_event);
    if (troupe_inbox_is_empty(&own->arrivals) && atomic_load(&own->world->aborted) == 0) {
        troupe_eventcount_wait(&own->arrived_event, key, &limits);
    }
}

static bool wakes(troupe_comm *comm) {
    (void)comm; /* all that others do arrives as an item, with a notification */
    return true;
}

static void announce_abort(troupe_comm *comm, const char *why) {
    troupe_loopback *world = endpoint_of(comm)->world;
    int none = 0;
    if (atomic_compare_exchange_strong(&world->aborted, &none, 1)) {
        snprintf(world->abort_text, sizeof(world->abort_text), "rank %d ended the job: %s",
                 comm->rank, why);
        atomic_store_explicit(&world->aborted, 2, memory_order_release);
        for (int r = 0; r < world->options.ranks; r++) {
            troupe_eventcount_notify(&world->endpoints[r].arrived_event);
        }
    }
}

static void remove_sends_of(struct item_list *list, int from) {
    struct item_list kept = {0};
    struct item *item;
    while ((item = list_take(list)) != NULL) {
        if (item->kind != ITEM_SEND || item->from != from) {
            list_append(&kept, item);
        }
    }
    *list = kept;
}

/* Takes this rank's sends back from every other, and forgets its receives. */
static void withdraw(troupe_comm *comm) {
    struct endpoint *own = endpoint_of(comm);
    for (int r = 0; r < comm->size; r++) {
        struct endpoint *peer = &own->world->endpoints[r];
        pthread_mutex_lock(&peer->busy);
        take_arrivals(peer);
        remove_sends_of(&peer->arrived, comm->rank);
        remove_sends_of(&peer->held, comm->rank);
        for (int b = 0; b < BUCKETS; b++) {
            remove_sends_of(&peer->buckets[b].sends, comm->rank);
        }
        pthread_mutex_unlock(&peer->busy);
    }
    pthread_mutex_lock(&own->busy);
    take_arrivals(own); /* sends that came back meanwhile: nobody may walk over them later */
    own->posted = own->arrived = (struct item_list){0};
    for (int b = 0; b < BUCKETS; b++) {
        own->buckets[b].receives = (struct item_list){0};
    }
    pthread_mutex_unlock(&own->busy);
}

/* The memory stays with the world: others may still hand control messages back. */
static void close_endpoint(troupe_comm *comm) {
    struct endpoint *own = endpoint_of(comm);
    troupe_comm_fini(comm);
    if (own->owns_world) {
        troupe_loopback_destroy(own->world);
    }
}

static const struct troupe_comm_backend loopback_backend = {
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
    .group_engine = &troupe_group_engine_direct,
};

troupe_status troupe_loopback_create(const struct troupe_loopback_options *options,
                                     troupe_loopback **out) {
    TROUPE_ASSERT(options->ranks > 0, "a world of %d ranks", options->ranks);
    troupe_loopback *world = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&world, 1));
    world->options = *options;
    TROUPE_TRY_FAIL(TROUPE_NEW(&world->endpoints, options->ranks));
    for (int r = 0; r < options->ranks; r++) {
        world->endpoints[r].world = world;
        pthread_mutex_init(&world->endpoints[r].busy, NULL);
    }
    *out = world;
    return TROUPE_OK;
fail:
    troupe_loopback_destroy(world);
    return status;
}

void troupe_loopback_destroy(troupe_loopback *world) {
    if (world == NULL) {
        return;
    }
    for (int r = 0; world->endpoints != NULL && r < world->options.ranks; r++) {
        pthread_mutex_destroy(&world->endpoints[r].busy);
        troupe_free(world->endpoints[r].nodes);
    }
    troupe_free(world->endpoints);
    troupe_free(world);
}

troupe_status troupe_comm_open_loopback(troupe_loopback *world, int rank, troupe_comm **out) {
    TROUPE_ASSERT(rank >= 0 && rank < world->options.ranks, "rank %d of %d", rank,
                  world->options.ranks);
    struct endpoint *own = &world->endpoints[rank];
    TROUPE_ASSERT(own->nodes == NULL, "rank %d opened twice", rank);
    TROUPE_TRY(troupe_comm_init(&own->comm, &loopback_backend, rank, world->options.ranks));
    troupe_comm_set_limits(&own->comm, world->options.spin_ns, world->options.control_messages_max);
    for (int r = 0; world->options.host_ranks > 0 && r < world->options.ranks; r++) {
        own->comm.hosts[r] = r / world->options.host_ranks; /* after the limits: all share cores */
    }
    snprintf(own->comm.name, sizeof(own->comm.name), "loopback");
    troupe_status status = TROUPE_NEW(&own->nodes, own->comm.control_messages_max);
    if (status != TROUPE_OK) {
        troupe_comm_fini(&own->comm);
        return status;
    }
    for (int i = 0; i < own->comm.control_messages_max; i++) {
        list_append(&own->nodes_free, &own->nodes[i].item);
    }
    own->nodes_free_count = own->comm.control_messages_max;
    *out = &own->comm;
    return TROUPE_OK;
}

troupe_status troupe_comm_open_alone(const struct troupe_comm_options *options, troupe_comm **out) {
    troupe_loopback *world = NULL;
    TROUPE_TRY(troupe_loopback_create(
        &(struct troupe_loopback_options){.ranks = 1,
                                          .control_messages_max = options->control_messages_max,
                                          .spin_ns = options->spin_ns},
        &world));
    troupe_status status = troupe_comm_open_loopback(world, 0, out);
    if (status != TROUPE_OK) {
        troupe_loopback_destroy(world);
        return status;
    }
    endpoint_of(*out)->owns_world = true;
    return TROUPE_OK;
}
