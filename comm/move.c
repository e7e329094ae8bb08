/* SPDX-License-Identifier: Apache-2.0
 *
 * What rank a sends rank b is the concatenation of its messages to b, tensor by tensor, box by box,
 * row by row; both ends know it from their bindings. A lane is one end of such a stream: it copies
 * chunks of it between the tensors and two staging buffers, one of which is under way meanwhile.
 */
#include "comm/move.h"

#include "comm/comm_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

/* Apart from the tags of other users of the endpoint. */
#define MOVE_TAG UINT64_C(0x0d00000000000000)

enum { BUFFERS = 2, CHUNK_BYTES_MIN = 1 << 16, CHUNK_BYTES_MAX = 1 << 22 };
static const size_t staging_bytes_default = 64 << 20;

/* Rows x row_bytes in a rank's memory. */
struct block {
    char *data;
    size_t rows, row_bytes, stride;
};

/* A place in a lane's stream. */
struct cursor {
    int tensor;
    int box;
    size_t at; /* bytes into the box */
};

struct lane {
    int peer;
    bool sends;
    size_t bytes_left;   /* to be copied between staging and tensors */
    size_t bytes_unsent; /* to be posted */
    struct cursor cursor;
    char *staging[BUFFERS];
    struct troupe_transfer transfers[BUFFERS];
    int first, in_flight; /* buffers under way, in turn */
};

struct troupe_move {
    struct troupe_move_options options;
    struct lane *lanes;
    int lane_count;
    size_t chunk_bytes;
    void *staging; /* host memory of the device */
};

/* ---- copying ---- */

static struct block block_of(const struct troupe_route_view *view, const struct troupe_box *box) {
    size_t rows = (size_t)(box->end[0] - box->begin[0]);
    size_t row_bytes = (size_t)(box->end[1] - box->begin[1]) * view->element_bytes;
    char *data = (char *)view->data +
                 (size_t)(box->begin[0] - view->box.begin[0]) * view->row_bytes +
                 (size_t)(box->begin[1] - view->box.begin[1]) * view->element_bytes;
    if (row_bytes == view->row_bytes) { /* one stretch, which may be cut anywhere */
        row_bytes *= rows;
        rows = 1;
    }
    return (struct block){data, rows, row_bytes, view->row_bytes};
}

static const struct troupe_route_message *message_with(const struct lane *lane,
                                                       const struct troupe_route_binding *binding) {
    const struct troupe_route_message *messages = lane->sends ? binding->sends : binding->receives;
    int count = lane->sends ? binding->send_count : binding->receive_count;
    for (int i = 0; i < count; i++) {
        if (messages[i].peer == lane->peer) {
            return &messages[i];
        }
    }
    return NULL;
}

/* Copies as much of the block, from its byte `at`, as goes in one strided copy. */
static troupe_status copy_some(const troupe_move *move, const struct lane *lane,
                               const struct block *block, char *staging, size_t room,
                               size_t *taken) {
    size_t at = lane->cursor.at, row = at / block->row_bytes, in_row = at % block->row_bytes;
    size_t rows = 1, row_bytes = block->row_bytes - in_row;
    if (in_row == 0 && room >= row_bytes) {
        rows = room / row_bytes < block->rows - row ? room / row_bytes : block->rows - row;
    } else if (room < row_bytes) {
        row_bytes = room;
    }
    char *tensor = block->data + row * block->stride + in_row;
    *taken = rows * row_bytes;
    return troupe_stream_copy(
        move->options.stream,
        &(struct troupe_copy){.to = lane->sends ? staging : tensor,
                              .from = lane->sends ? tensor : staging,
                              .rows = rows,
                              .row_bytes = row_bytes,
                              .to_stride_bytes = lane->sends ? row_bytes : block->stride,
                              .from_stride_bytes = lane->sends ? block->stride : row_bytes});
}

/* The next `bytes` of the stream, between the tensors and staging. */
static troupe_status copy_chunk(const troupe_move *move, struct lane *lane, char *staging,
                                size_t bytes) {
    struct cursor *cursor = &lane->cursor;
    lane->bytes_left -= bytes;
    while (bytes > 0) {
        const struct troupe_moved_tensor *tensor = &move->options.tensors[cursor->tensor];
        const struct troupe_route_message *message = message_with(lane, tensor->binding);
        if (message == NULL || cursor->box == message->box_count) {
            *cursor = (struct cursor){.tensor = cursor->tensor + 1};
            continue;
        }
        struct block block =
            block_of(lane->sends ? &tensor->from : &tensor->to, &message->boxes[cursor->box]);
        size_t taken = 0;
        TROUPE_TRY(copy_some(move, lane, &block, staging, bytes, &taken));
        staging += taken;
        bytes -= taken;
        cursor->at += taken;
        if (cursor->at == block.rows * block.row_bytes) {
            cursor->box++;
            cursor->at = 0;
        }
    }
    return troupe_stream_synchronize(move->options.stream);
}

/* What stays on the rank. */
static troupe_status copy_kept(const troupe_move *move) {
    for (int i = 0; i < move->options.count; i++) {
        const struct troupe_moved_tensor *tensor = &move->options.tensors[i];
        const struct troupe_route_message *kept = &tensor->binding->kept;
        for (int b = 0; b < kept->box_count; b++) {
            struct block from = block_of(&tensor->from, &kept->boxes[b]);
            struct block to = block_of(&tensor->to, &kept->boxes[b]);
            struct block *whole = from.rows < to.rows ? &to : &from;
            size_t rows = whole->rows, row_bytes = whole->row_bytes;
            TROUPE_TRY(troupe_stream_copy(
                move->options.stream,
                &(struct troupe_copy){.to = to.data,
                                      .from = from.data,
                                      .rows = rows,
                                      .row_bytes = row_bytes,
                                      .to_stride_bytes = to.rows < rows ? row_bytes : to.stride,
                                      .from_stride_bytes =
                                          from.rows < rows ? row_bytes : from.stride}));
        }
    }
    return troupe_stream_synchronize(move->options.stream);
}

/* ---- lanes ---- */

static size_t chunk_of(const troupe_move *move, size_t bytes) {
    return bytes < move->chunk_bytes ? bytes : move->chunk_bytes;
}

/* Fills the next buffer, if it is the sender's, and posts it. */
static troupe_status post_chunk(const troupe_move *move, struct lane *lane) {
    int buffer = (lane->first + lane->in_flight) % BUFFERS;
    size_t bytes = chunk_of(move, lane->bytes_unsent);
    struct troupe_transfer *transfer = &lane->transfers[buffer];
    if (lane->sends) {
        TROUPE_TRY(copy_chunk(move, lane, lane->staging[buffer], bytes));
    }
    *transfer = (struct troupe_transfer){.peer = lane->peer,
                                         .tag = MOVE_TAG,
                                         .segments = {{lane->staging[buffer], bytes}},
                                         .segment_count = 1};
    TROUPE_TRY(lane->sends ? troupe_comm_post_send(move->options.comm, transfer)
                           : troupe_comm_post_receive(move->options.comm, transfer));
    lane->bytes_unsent -= bytes;
    lane->in_flight++;
    return TROUPE_OK;
}

/* Takes completed buffers back; then posts what it may. */
static troupe_status advance(const troupe_move *move, struct lane *lane, troupe_status status) {
    while (lane->in_flight > 0 && lane->transfers[lane->first].status != TROUPE_AGAIN) {
        const struct troupe_transfer *transfer = &lane->transfers[lane->first];
        status = status == TROUPE_OK ? transfer->status : status;
        if (status == TROUPE_OK && !lane->sends) {
            status =
                copy_chunk(move, lane, lane->staging[lane->first], transfer->segments[0].bytes);
        }
        lane->first = (lane->first + 1) % BUFFERS;
        lane->in_flight--;
    }
    while (status == TROUPE_OK && lane->bytes_unsent > 0 && lane->in_flight < BUFFERS) {
        status = post_chunk(move, lane);
    }
    return status;
}

/* Until all lanes are done, or nothing is in flight after a failure. */
static troupe_status run_lanes(troupe_move *move) {
    troupe_status status = TROUPE_OK;
    move->options.comm->active = true; /* quiet since now */
    for (;;) {
        int busy = 0;
        for (int i = 0; i < move->lane_count; i++) {
            struct lane *lane = &move->lanes[i];
            status = advance(move, lane, status);
            busy += lane->in_flight;
        }
        if (busy == 0) {
            return status;
        }
        if (troupe_comm_progress(move->options.comm) == 0) {
            troupe_comm_idle(move->options.comm);
        }
    }
}

troupe_status troupe_move_run(troupe_move *move) {
    TROUPE_TRY(copy_kept(move));
    return run_lanes(move);
}

/* ---- life ---- */

/* Two lanes a peer that has to do with this rank: what goes there and what comes. */
static void add_bytes(struct lane *by_peer, const struct troupe_route_message *messages,
                      int count) {
    for (int i = 0; i < count; i++) {
        by_peer[messages[i].peer].bytes_left += messages[i].bytes;
    }
}

static troupe_status make_lanes(troupe_move *move) {
    const struct troupe_move_options *o = &move->options;
    int ranks = troupe_comm_size(o->comm);
    struct lane *all = NULL; /* sends by peer, then receives by peer; then those with bytes */
    TROUPE_TRY(TROUPE_NEW(&all, 2 * ranks));
    move->lanes = all;
    for (int i = 0; i < o->count; i++) {
        const struct troupe_route_binding *binding = o->tensors[i].binding;
        add_bytes(all, binding->sends, binding->send_count);
        add_bytes(all + ranks, binding->receives, binding->receive_count);
    }
    for (int i = 0; i < 2 * ranks; i++) {
        size_t bytes = all[i].bytes_left;
        if (bytes > 0) {
            all[move->lane_count++] = (struct lane){
                .peer = i % ranks, .sends = i < ranks, .bytes_left = bytes, .bytes_unsent = bytes};
        }
    }
    return TROUPE_OK;
}

/* The same on both ends of a lane: it follows from what all ranks know. */
static size_t chunk_bytes(const struct troupe_move_options *o) {
    size_t budget = o->staging_bytes > 0 ? o->staging_bytes : staging_bytes_default;
    size_t share = budget / (size_t)(2 * BUFFERS * troupe_comm_size(o->comm));
    share = share / CHUNK_BYTES_MIN * CHUNK_BYTES_MIN;
    share = share < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : share;
    return share > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX : share;
}

static troupe_status make_staging(troupe_move *move) {
    size_t bytes = 0;
    for (int i = 0; i < move->lane_count; i++) {
        bytes += BUFFERS * chunk_of(move, move->lanes[i].bytes_left);
    }
    if (bytes == 0) {
        return TROUPE_OK;
    }
    troupe_device *device = troupe_stream_device(move->options.stream);
    TROUPE_TRY(troupe_device_alloc_host(device, bytes, &move->staging));
    char *next = move->staging;
    for (int i = 0; i < move->lane_count; i++) {
        for (int b = 0; b < BUFFERS; b++) {
            move->lanes[i].staging[b] = next;
            next += chunk_of(move, move->lanes[i].bytes_left);
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_move_create(const struct troupe_move_options *options, troupe_move **out) {
    troupe_move *move = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&move, 1));
    move->options = *options;
    move->chunk_bytes = chunk_bytes(options);
    TROUPE_TRY_FAIL(make_lanes(move));
    TROUPE_TRY_FAIL(make_staging(move));
    *out = move;
    return TROUPE_OK;
fail:
    troupe_move_destroy(move);
    return status;
}

void troupe_move_destroy(troupe_move *move) {
    if (move == NULL) {
        return;
    }
    if (move->staging != NULL) {
        troupe_device_free_host(troupe_stream_device(move->options.stream), move->staging);
    }
    troupe_free(move->lanes);
    troupe_free(move);
}

struct troupe_route_bytes troupe_move_bytes(const troupe_move *move) {
    struct troupe_route_bytes sum = {0};
    for (int i = 0; i < move->options.count; i++) {
        struct troupe_route_bytes bytes =
            troupe_route_binding_bytes(move->options.tensors[i].binding);
        sum.sent += bytes.sent;
        sum.received += bytes.received;
        sum.kept += bytes.kept;
    }
    return sum;
}
