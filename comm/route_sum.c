/* SPDX-License-Identifier: Apache-2.0
 *
 * Composed of ordinary routes: one for each summand, to the ranks that add, and one from these to
 * all that need the sums. The ranks that add get the sums in place, in their part of the result.
 */
#include "comm/route_sum.h"

#include <string.h>

#include "comm/route_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

struct troupe_route_sum {
    int count;
    troupe_route **gathers;
    troupe_route *spread;
};

struct piece {
    const struct troupe_route_message *message;
    struct troupe_transfer transfer;
    void *staging;
};

struct troupe_route_sum_binding {
    int count;
    struct troupe_route_binding **gathers;
    struct troupe_route_binding *spread;
    int piece_count;
    struct piece *pieces;
    char *staging;      /* of pieces, then of what is kept */
    char *kept_staging; /* the largest */
};

/* ---- who adds what ---- */

/* The members of a that are in b, too; both ascend by host and slot. Returns how many. */
static int common_members(const troupe_route *route, const struct troupe_route_set *a,
                          const struct troupe_route_set *b, int *out) {
    int count = 0;
    for (int i = 0; i < a->count; i++) {
        const struct troupe_route_run *run = troupe_route_run_of(b, route->hosts[a->members[i]]);
        for (int m = run == NULL ? 0 : run->begin; run != NULL && m < run->end; m++) {
            if (b->members[m] == a->members[i]) {
                out[count++] = a->members[i];
            }
        }
    }
    return count;
}

/* Cuts the cell for so many ranks along its longest dimension; the first part goes to another rank
 * in each cell, because parts may be empty. */
static troupe_status share_cell(const troupe_route *route, int cell, const int *slots, int count,
                                struct troupe_layout *adders) {
    const struct troupe_box *whole = &route->cells[cell];
    int longest = 0;
    for (int d = 1; d < TROUPE_BOX_DIMENSIONS; d++) {
        int64_t extent = whole->end[d] - whole->begin[d];
        longest = extent > whole->end[longest] - whole->begin[longest] ? d : longest;
    }
    int64_t begin = whole->begin[longest], extent = whole->end[longest] - begin;
    for (int i = 0; i < count; i++) {
        struct troupe_box box = *whole;
        box.begin[longest] = begin + troupe_split_begin(extent, count, i);
        box.end[longest] = begin + troupe_split_begin(extent, count, i + 1);
        if (troupe_box_elements(&box) > 0) {
            TROUPE_TRY(
                troupe_layout_add(adders, route->ranks[slots[(i + cell) % count]], -1, &box));
        }
    }
    return TROUPE_OK;
}

/* Each cell that is needed: those of its needers that hold a summand, else all of them. */
static troupe_status share_cells(const troupe_route *route, int *slots,
                                 struct troupe_layout *adders) {
    for (int c = 0; c < route->cell_count; c++) {
        int need = route->destination.set_of[c], have = route->source.set_of[c];
        if (need == TROUPE_ROUTE_NOBODY) {
            continue;
        }
        const struct troupe_route_set *needers = &route->sets[need];
        int count = common_members(route, needers, &route->sets[have], slots);
        TROUPE_TRY(share_cell(route, c, count > 0 ? slots : needers->members,
                              count > 0 ? count : needers->count, adders));
    }
    return TROUPE_OK;
}

static troupe_status find_adders(const troupe_route *either, struct troupe_layout *adders) {
    int *slots = NULL;
    TROUPE_TRY(TROUPE_NEW(&slots, either->rank_count));
    troupe_status status = share_cells(either, slots, adders);
    troupe_free(slots);
    return status;
}

/* ---- compile ---- */

/* The pieces of one summand, or of all, as if they were copies. */
static troupe_status copy_pieces(const struct troupe_layout *layout, int summand,
                                 struct troupe_layout *out) {
    struct troupe_layout copy = *layout;
    copy.summands = 1;
    copy.piece_count = 0;
    copy.piece_capacity = layout->piece_count;
    TROUPE_TRY(TROUPE_NEW(&copy.pieces, layout->piece_count));
    for (int i = 0; i < layout->piece_count; i++) {
        if (summand == TROUPE_ROUTE_NOBODY || layout->pieces[i].summand == summand) {
            copy.pieces[copy.piece_count++] = layout->pieces[i];
        }
    }
    *out = copy;
    return TROUPE_OK;
}

static troupe_status compile_gather(const struct troupe_route_options *options, int summand,
                                    const struct troupe_layout *to, troupe_route **out) {
    struct troupe_route_options o = *options;
    struct troupe_layout from;
    TROUPE_TRY(copy_pieces(options->source, summand, &from));
    o.source = &from;
    o.destination = to;
    troupe_status status = troupe_route_compile(&o, out);
    troupe_layout_fini(&from);
    return status;
}

static troupe_status compile_all(const struct troupe_route_options *options,
                                 struct troupe_layout *adders, troupe_route_sum *sum) {
    troupe_route *either = NULL; /* of its compiled form come the cells and their ranks */
    TROUPE_TRY(compile_gather(options, TROUPE_ROUTE_NOBODY, options->destination, &either));
    troupe_status status = find_adders(either, adders);
    troupe_route_destroy(either);
    TROUPE_TRY(status);
    TROUPE_TRY(TROUPE_NEW(&sum->gathers, sum->count));
    for (int k = 0; k < sum->count; k++) {
        TROUPE_TRY(compile_gather(options, k, adders, &sum->gathers[k]));
    }
    struct troupe_route_options spread = *options;
    spread.source = adders;
    return troupe_route_compile(&spread, &sum->spread);
}

troupe_status troupe_route_sum_compile(const struct troupe_route_options *options,
                                       troupe_route_sum **out) {
    const struct troupe_layout *from = options->source, *to = options->destination;
    if (from->summands < 2 || to->summands > 1 || from->ragged || to->ragged) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "a sum needs a source of at least two summands, a destination of one, "
                           "and layouts with their rows; these have %d and %d summands%s",
                           from->summands, to->summands,
                           from->ragged || to->ragged ? ", and a ragged layout is not bound" : "");
    }
    struct troupe_layout adders = {.summands = 1};
    memcpy(adders.shape, from->shape, sizeof adders.shape);
    troupe_route_sum *sum = NULL;
    TROUPE_TRY(TROUPE_NEW(&sum, 1));
    sum->count = from->summands;
    troupe_status status = compile_all(options, &adders, sum);
    troupe_layout_fini(&adders);
    if (status != TROUPE_OK) {
        troupe_route_sum_destroy(sum);
        return status;
    }
    *out = sum;
    return TROUPE_OK;
}

void troupe_route_sum_destroy(troupe_route_sum *sum) {
    if (sum == NULL) {
        return;
    }
    for (int k = 0; sum->gathers != NULL && k < sum->count; k++) {
        troupe_route_destroy(sum->gathers[k]);
    }
    troupe_free(sum->gathers);
    troupe_route_destroy(sum->spread);
    troupe_free(sum);
}

int troupe_route_sum_count(const troupe_route_sum *sum) {
    return sum->count;
}

const troupe_route *troupe_route_sum_gather(const troupe_route_sum *sum, int k) {
    TROUPE_ASSERT(k >= 0 && k < sum->count, "summand %d of %d", k, sum->count);
    return sum->gathers[k];
}

const troupe_route *troupe_route_sum_spread(const troupe_route_sum *sum) {
    return sum->spread;
}

/* ---- bindings ---- */

static troupe_status bind(const troupe_route *route, int rank, struct troupe_route_binding **out) {
    TROUPE_TRY(troupe_route_binding_create(route, rank, out));
    return troupe_route_bind(*out, NULL, NULL);
}

static size_t message_bytes(const struct troupe_route_message *messages, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        bytes += messages[i].bytes;
    }
    return bytes;
}

static size_t staging_bytes(const struct troupe_route_binding *b) {
    return message_bytes(b->sends, b->send_count) + message_bytes(b->relays, b->relay_count) +
           message_bytes(b->receives, b->receive_count);
}

/* A rank has one summand, so at most one gather keeps something. */
static troupe_status make_staging(troupe_route_sum_binding *binding) {
    size_t bytes = staging_bytes(binding->spread), kept = 0;
    int pieces =
        binding->spread->send_count + binding->spread->relay_count + binding->spread->receive_count;
    for (int k = 0; k < binding->count; k++) {
        const struct troupe_route_binding *b = binding->gathers[k];
        TROUPE_ASSERT(b->relay_count == 0, "%d relays to ranks that need different elements",
                      b->relay_count);
        bytes += staging_bytes(b);
        pieces += b->send_count + b->receive_count;
        kept = b->kept.bytes > kept ? b->kept.bytes : kept;
    }
    TROUPE_TRY(TROUPE_NEW(&binding->pieces, pieces));
    TROUPE_TRY(TROUPE_NEW(&binding->staging, bytes + kept));
    binding->kept_staging = binding->staging + bytes;
    return TROUPE_OK;
}

static troupe_status bind_all(const troupe_route_sum *sum, int rank,
                              troupe_route_sum_binding *binding) {
    TROUPE_TRY(TROUPE_NEW(&binding->gathers, binding->count));
    for (int k = 0; k < sum->count; k++) {
        TROUPE_TRY(bind(sum->gathers[k], rank, &binding->gathers[k]));
    }
    TROUPE_TRY(bind(sum->spread, rank, &binding->spread));
    return make_staging(binding);
}

troupe_status troupe_route_sum_binding_create(const troupe_route_sum *sum, int rank,
                                              troupe_route_sum_binding **out) {
    troupe_route_sum_binding *binding = NULL;
    TROUPE_TRY(TROUPE_NEW(&binding, 1));
    binding->count = sum->count;
    troupe_status status = bind_all(sum, rank, binding);
    if (status != TROUPE_OK) {
        troupe_route_sum_binding_destroy(binding);
        return status;
    }
    *out = binding;
    return TROUPE_OK;
}

void troupe_route_sum_binding_destroy(troupe_route_sum_binding *binding) {
    if (binding == NULL) {
        return;
    }
    for (int k = 0; binding->gathers != NULL && k < binding->count; k++) {
        troupe_route_binding_destroy(binding->gathers[k]);
    }
    troupe_free(binding->gathers);
    troupe_route_binding_destroy(binding->spread);
    troupe_free(binding->pieces);
    troupe_free(binding->staging);
    troupe_free(binding);
}

struct troupe_route_bytes troupe_route_sum_bytes(const troupe_route_sum_binding *binding) {
    struct troupe_route_bytes all = troupe_route_binding_bytes(binding->spread);
    for (int k = 0; k < binding->count; k++) {
        struct troupe_route_bytes bytes = troupe_route_binding_bytes(binding->gathers[k]);
        all.sent += bytes.sent;
        all.received += bytes.received;
        all.kept += bytes.kept;
    }
    return all;
}

/* ---- run ---- */

/* The pieces of this run so far, and where the next one is staged. */
struct run {
    troupe_route_sum_binding *binding;
    troupe_comm *comm;
    const struct troupe_route_sum_io *io;
    char *staging;
};

static struct piece *next_piece(struct run *run, const struct troupe_route_message *message,
                                uint64_t tag) {
    struct piece *piece = &run->binding->pieces[run->binding->piece_count++];
    *piece = (struct piece){.message = message,
                            .staging = run->staging,
                            .transfer = {.peer = message->peer,
                                         .tag = run->io->tag + tag,
                                         .segments = {{run->staging, message->bytes}},
                                         .segment_count = 1}};
    run->staging += message->bytes;
    return piece;
}

static troupe_status post_sends(struct run *run, const struct troupe_route_message *messages,
                                int count, const struct troupe_route_view *view, uint64_t tag) {
    for (int i = 0; i < count; i++) {
        struct piece *piece = next_piece(run, &messages[i], tag);
        troupe_route_message_pack(&messages[i], view, piece->staging);
        TROUPE_TRY(troupe_comm_post_send(run->comm, &piece->transfer));
    }
    return TROUPE_OK;
}

/* Those that are relayed, or the others. */
static troupe_status post_receives(struct run *run, const struct troupe_route_binding *binding,
                                   bool relayed, uint64_t tag) {
    for (int i = 0; i < binding->receive_count; i++) {
        if (binding->receives[i].relayed == relayed) {
            struct piece *piece = next_piece(run, &binding->receives[i], tag);
            TROUPE_TRY(troupe_comm_post_receive(run->comm, &piece->transfer));
        }
    }
    return TROUPE_OK;
}

static troupe_status await_pieces(const struct run *run, int begin, int end) {
    troupe_status status = TROUPE_OK;
    for (int i = begin; i < end; i++) {
        while (run->binding->pieces[i].transfer.status == TROUPE_AGAIN) {
            if (troupe_comm_progress(run->comm) == 0) {
                troupe_comm_idle(run->comm);
            }
        }
        status = status == TROUPE_OK ? run->binding->pieces[i].transfer.status : status;
    }
    return status;
}

#define ADD(type)                                                                                  \
    for (size_t i = 0; i < bytes / sizeof(type); i++) {                                            \
        ((type *)to)[i] += ((const type *)from)[i];                                                \
    }                                                                                              \
    break

static void add_elements(enum troupe_element element, void *to, const void *from, size_t bytes) {
    switch (element) {
    case TROUPE_ELEMENT_FLOAT32:
        ADD(float);
    case TROUPE_ELEMENT_FLOAT64:
        ADD(double);
    case TROUPE_ELEMENT_INT64:
        ADD(int64_t);
    case TROUPE_ELEMENT_UINT64:
        ADD(uint64_t);
    }
}

/* The first summand is written, the others are added. */
static void take(const struct run *run, const struct troupe_route_message *message,
                 const char *bytes, bool first) {
    const struct troupe_route_view *view = run->io->to;
    if (first) {
        troupe_route_message_unpack(message, bytes, view);
        return;
    }
    for (int b = 0; b < message->box_count; b++) {
        const struct troupe_box *box = &message->boxes[b];
        char *to = troupe_route_view_at(view, box);
        size_t row_bytes = (size_t)(box->end[1] - box->begin[1]) * view->element_bytes;
        for (int64_t row = box->begin[0]; row < box->end[0]; row++) {
            add_elements(run->io->element, to, bytes, row_bytes);
            to += view->row_bytes;
            bytes += row_bytes;
        }
    }
}

/* Adds what has come in the order of the summands. Pieces are in that order, sends among them. */
static void add_up(const struct run *run) {
    const troupe_route_sum_binding *binding = run->binding;
    int at = 0;
    for (int k = 0; k < binding->count; k++) {
        const struct troupe_route_binding *b = binding->gathers[k];
        if (b->kept.bytes > 0) {
            troupe_route_message_pack(&b->kept, run->io->from, binding->kept_staging);
            take(run, &b->kept, binding->kept_staging, k == 0);
        }
        for (int i = 0; i < b->receive_count; i++, at++) {
            take(run, binding->pieces[at].message, binding->pieces[at].staging, k == 0);
        }
        at += b->send_count;
    }
}

static troupe_status gather(struct run *run) {
    const troupe_route_sum_binding *binding = run->binding;
    for (int k = 0; k < binding->count; k++) {
        const struct troupe_route_binding *b = binding->gathers[k];
        TROUPE_TRY(post_receives(run, b, false, (uint64_t)k));
        TROUPE_TRY(post_sends(run, b->sends, b->send_count, run->io->from, (uint64_t)k));
    }
    TROUPE_TRY(await_pieces(run, 0, binding->piece_count));
    add_up(run);
    return TROUPE_OK;
}

static void unpack(const struct run *run, int begin, int end) {
    for (int i = begin; i < end; i++) {
        const struct piece *piece = &run->binding->pieces[i];
        troupe_route_message_unpack(piece->message, piece->staging, run->io->to);
    }
}

static troupe_status spread(struct run *run) {
    const troupe_route_sum_binding *binding = run->binding;
    const struct troupe_route_binding *b = binding->spread;
    uint64_t tag = (uint64_t)binding->count;
    int first = binding->piece_count;
    TROUPE_TRY(post_receives(run, b, false, tag));
    int hops = binding->piece_count;
    TROUPE_TRY(post_receives(run, b, true, tag + 1));
    int relayed = binding->piece_count;
    TROUPE_TRY(post_sends(run, b->sends, b->send_count, run->io->to, tag));
    TROUPE_TRY(await_pieces(run, first, hops));
    unpack(run, first, hops);
    TROUPE_TRY(post_sends(run, b->relays, b->relay_count, run->io->to, tag + 1));
    TROUPE_TRY(await_pieces(run, hops, binding->piece_count));
    unpack(run, hops, relayed);
    return TROUPE_OK;
}

troupe_status troupe_route_sum_run(troupe_route_sum_binding *binding, troupe_comm *comm,
                                   const struct troupe_route_sum_io *io) {
    struct run run = {.binding = binding, .comm = comm, .io = io, .staging = binding->staging};
    binding->piece_count = 0;
    TROUPE_TRY(gather(&run));
    return spread(&run);
}
