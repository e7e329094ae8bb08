/* SPDX-License-Identifier: Apache-2.0
 *
 * What checking every message costs a route: the same payload goes there and back alone, with an
 * idle header, and with one that is sealed and checked against the contract, in neighbouring runs.
 *
 *     bench.contract_cost                           two ranks as threads
 *     mpiexec -n 2 bench.contract_cost shm|tcp|mpi  two ranks as processes
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "comm/contract.h"
#include "comm/route.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum { COLUMNS = 1024, ROUNDS = 400, TRIPS = 20 };
enum mode { ALONE, IDLE_HEADER, CHECKED, MODES };

/* One end of a boundary between rank 0 and rank 1. */
struct end {
    troupe_comm *comm;
    troupe_route *routes[2]; /* there and back */
    struct troupe_route_binding *bindings[2];
    float *memory;
    int64_t rows;
    uint64_t step;
};

static void must(troupe_status status) {
    if (status != TROUPE_OK) {
        fprintf(stderr, "%s: %s\n", troupe_status_name(status), troupe_last_error());
        exit(1);
    }
}

static struct troupe_wire_header header_of(const struct end *end,
                                           const struct troupe_route_message *message) {
    return (struct troupe_wire_header){.version = TROUPE_WIRE_VERSION,
                                       .edge = 1,
                                       .step = end->step,
                                       .piece_count = 1,
                                       .row_begin = message->row_begin,
                                       .row_count = message->row_count,
                                       .sample_set = 3,
                                       .normalisation = 5};
}

static void check(const struct end *end, const struct troupe_route_message *message,
                  const uint8_t *bytes) {
    struct troupe_contract contract = {.edge_name = "source -> sink",
                                       .sender = message->peer,
                                       .receiver = troupe_comm_rank(end->comm),
                                       .expected = header_of(end, message)};
    struct troupe_wire_header header;
    troupe_wire_unpack(bytes, &header);
    must(troupe_contract_check(&contract, &header));
}

/* One direction of the boundary, from bind to arrival; all rows are one message. */
static void cross(struct end *end, int direction, enum mode mode) {
    uint8_t bytes[TROUPE_WIRE_BYTES] = {0};
    const int64_t offsets[] = {0, end->rows};
    struct troupe_route_binding *binding = end->bindings[direction];
    must(troupe_route_bind(binding, offsets, offsets));
    bool sends = binding->send_count > 0;
    const struct troupe_route_message *message = sends ? binding->sends : binding->receives;
    struct troupe_segment payload = {end->memory, message->bytes};
    struct troupe_transfer transfer = {
        .peer = message->peer, .tag = 1, .segments = {payload}, .segment_count = 1};
    if (mode != ALONE) {
        transfer.segments[0] = (struct troupe_segment){bytes, sizeof bytes};
        transfer.segments[1] = payload;
        transfer.segment_count = 2;
    }
    if (mode == CHECKED && sends) {
        struct troupe_wire_header header = header_of(end, message);
        troupe_wire_pack(&header, bytes);
    }
    must(sends ? troupe_comm_post_send(end->comm, &transfer)
               : troupe_comm_post_receive(end->comm, &transfer));
    while (transfer.status == TROUPE_AGAIN) {
        if (troupe_comm_progress(end->comm) == 0) {
            troupe_comm_idle(end->comm);
            must(troupe_comm_failure(end->comm));
        }
    }
    must(transfer.status);
    if (mode == CHECKED && !sends) {
        check(end, message, bytes);
    }
}

/* Microseconds of one crossing. */
static double time_crossing(struct end *end, enum mode mode) {
    uint64_t begin = troupe_clock_ns();
    for (int i = 0; i < TRIPS; i++) {
        cross(end, 0, mode);
        cross(end, 1, mode);
        end->step++;
    }
    return troupe_clock_seconds(begin, troupe_clock_ns()) * 1e6 / (2 * TRIPS);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void make_route(struct end *end, const struct troupe_layout *from,
                       const struct troupe_layout *to, int direction) {
    must(troupe_route_compile(&(struct troupe_route_options){.source = from,
                                                             .destination = to,
                                                             .element_bytes = sizeof(float)},
                              &end->routes[direction]));
    must(troupe_route_binding_create(end->routes[direction], troupe_comm_rank(end->comm),
                                     &end->bindings[direction]));
}

static void end_init(struct end *end, int64_t rows) {
    struct troupe_layout layouts[2];
    struct troupe_box all = troupe_box_2d(0, 1, 0, COLUMNS);
    for (int rank = 0; rank < 2; rank++) {
        must(troupe_layout_init(
            &(struct troupe_layout_options){.shape = {0, COLUMNS}, .ragged = true, .part_count = 1},
            &layouts[rank]));
        must(troupe_layout_add(&layouts[rank], rank, 0, &all));
    }
    end->rows = rows;
    must(TROUPE_NEW(&end->memory, rows * COLUMNS));
    make_route(end, &layouts[0], &layouts[1], 0);
    make_route(end, &layouts[1], &layouts[0], 1);
    troupe_layout_fini(&layouts[0]);
    troupe_layout_fini(&layouts[1]);
}

static void end_fini(struct end *end) {
    for (int d = 0; d < 2; d++) {
        troupe_route_binding_destroy(end->bindings[d]);
        troupe_route_destroy(end->routes[d]);
    }
    troupe_free(end->memory);
}

/* Nanoseconds of sealing and checking one message, without sending it. */
static double time_checks(struct end *end) {
    enum { REPEATS = 200000 };
    uint8_t bytes[TROUPE_WIRE_BYTES];
    const struct troupe_route_binding *b = end->bindings[0];
    const struct troupe_route_message *message = b->send_count > 0 ? b->sends : b->receives;
    uint64_t begin = troupe_clock_ns();
    for (int i = 0; i < REPEATS; i++) {
        struct troupe_wire_header header = header_of(end, message);
        troupe_wire_pack(&header, bytes);
        check(end, message, bytes);
        end->step++;
    }
    return troupe_clock_seconds(begin, troupe_clock_ns()) * 1e9 / REPEATS;
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

/* The median of what `over` is slower than `under`, with its 95 % interval by the order of the
 * values: 0.98 * sqrt(ROUNDS) of them to either side. */
static void print_cost(double (*times)[MODES], enum mode over, enum mode under, const char *name) {
    double cost[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        cost[i] = 1e2 * (times[i][over] / times[i][under] - 1);
    }
    double middle = median(cost);
    printf("  %s %+.2f %% (%+.2f to %+.2f)", name, middle, cost[ROUNDS / 2 - 20],
           cost[ROUNDS / 2 + 20]);
}

static void measure_size(troupe_comm *comm, int64_t kib) {
    double times[ROUNDS][MODES], checked[ROUNDS];
    struct end end = {.comm = comm};
    end_init(&end, kib * 1024 / (int64_t)(COLUMNS * sizeof(float)));
    time_crossing(&end, CHECKED);
    for (int i = 0; i < ROUNDS; i++) {
        for (int k = 0; k < MODES; k++) { /* each is first, second and third in turn */
            enum mode mode = (enum mode)((i + k) % MODES);
            times[i][mode] = time_crossing(&end, mode);
        }
        checked[i] = times[i][CHECKED];
    }
    if (troupe_comm_rank(comm) == 0) {
        printf("%-24s %5lld KiB %8.2f us", troupe_comm_name(comm), (long long)kib, median(checked));
        printf("  checks %3.0f ns", time_checks(&end));
        print_cost(times, CHECKED, IDLE_HEADER, "a message");
        print_cost(times, CHECKED, ALONE, "with their header");
        printf("\n");
    }
    end_fini(&end);
}

static void measure(troupe_comm *comm) {
    if (troupe_comm_size(comm) != 2) {
        fprintf(stderr, "bench.contract_cost needs 2 ranks, not %d\n", troupe_comm_size(comm));
        exit(1);
    }
    measure_size(comm, 64);
    measure_size(comm, 1024);
    measure_size(comm, 4096);
    troupe_comm_close(comm);
}

struct thread_args {
    troupe_loopback *world;
    int rank;
};

static void *rank_thread(void *arg) {
    const struct thread_args *args = arg;
    troupe_comm *comm = NULL;
    must(troupe_comm_open_loopback(args->world, args->rank, &comm));
    measure(comm);
    return NULL;
}

static void run_loopback(void) {
    troupe_loopback *world = NULL;
    pthread_t threads[2];
    struct thread_args args[2];
    must(troupe_loopback_create(&(struct troupe_loopback_options){.ranks = 2}, &world));
    for (int r = 0; r < 2; r++) {
        args[r] = (struct thread_args){.world = world, .rank = r};
        pthread_create(&threads[r], NULL, rank_thread, &args[r]);
    }
    for (int r = 0; r < 2; r++) {
        pthread_join(threads[r], NULL);
    }
    troupe_loopback_destroy(world);
}

int main(int argc, char **argv) {
    const char *provider = argc > 1 ? argv[1] : "loopback";
    if (strcmp(provider, "loopback") == 0) {
        run_loopback();
        return 0;
    }
    troupe_comm *comm = NULL;
    must(troupe_comm_open(&(struct troupe_comm_options){.provider = provider}, &comm));
    measure(comm);
    return 0;
}
