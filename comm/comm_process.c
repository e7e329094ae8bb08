/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/comm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/memory.h"

enum {
    POLLS_PER_CLOCK = 4096,          /* looks at the network between two readings of the clock */
    WATCH_NS = 50 * 1000 * 1000,     /* between two looks at the others' processes */
    FAREWELL_NS = 500 * 1000 * 1000, /* to get a notice of failure out, and the others' in */
    EXPLAIN_NS = 1000 * 1000 * 1000, /* to wait for the reason why a rank of another host ends */
    LOCK_NS = 200 * 1000 * 1000,     /* to wait for a lock, when a rank has ended */
    PARK_NS_MIN = 50 * 1000,
};

static const int64_t patience_ns_max = 2000000000; /* with the others, when one has failed */

/* A rank's, in shared memory. */
struct troupe_bell {
    _Alignas(TROUPE_CACHE_LINE) _Atomic uint32_t parked;
    _Atomic bool has_notice;
    struct troupe_notice notice;
};

void troupe_operation_append(struct troupe_operation_list *list,
                             struct troupe_operation *operation) {
    operation->next = NULL;
    if (list->head == NULL) {
        list->head = operation;
    } else {
        list->tail->next = operation;
    }
    list->tail = operation;
}

struct troupe_operation *troupe_operation_take(struct troupe_operation_list *list) {
    struct troupe_operation *operation = list->head;
    if (operation != NULL) {
        list->head = operation->next;
    }
    return operation;
}

/* ---- lane ---- */

bool troupe_lane_has_room(const troupe_process *process) {
    return process->frames_free_count > 0;
}

static void fill_frame(const troupe_process *process, struct troupe_frame *frame, int to,
                       enum troupe_frame_kind kind, const void *data, size_t bytes) {
    frame->operation.kind = TROUPE_OPERATION_FRAME_OUT;
    frame->to = to;
    frame->wire.from = process->comm.rank;
    frame->wire.kind = (uint16_t)kind;
    frame->wire.bytes = (uint16_t)bytes;
    frame->wire.credits = 0;
    memcpy(frame->wire.data, data, bytes);
}

/* Every frame takes the owed credits along. */
static troupe_status transmit(troupe_process *process, struct troupe_frame *frame) {
    struct troupe_lane *lane = &process->lanes[frame->to];
    frame->wire.credits = (uint32_t)lane->owed;
    frame->busy = true;
    troupe_status status = process->carrier->transmit(process, frame);
    if (status != TROUPE_OK) {
        frame->busy = false;
        return status;
    }
    lane->owed = 0;
    troupe_process_ring(process, frame->to);
    return TROUPE_OK;
}

static void pump(troupe_process *process, struct troupe_lane *lane) {
    while (lane->queue.head != NULL && lane->credits > 0) {
        struct troupe_operation *operation = troupe_operation_take(&lane->queue);
        struct troupe_operation *rest = lane->queue.head;
        if (transmit(process, (struct troupe_frame *)operation) != TROUPE_OK) {
            operation->next = rest;
            lane->queue.head = operation;
            if (rest == NULL) {
                lane->queue.tail = operation;
            }
            return;
        }
        lane->credits--;
        process->queued--;
    }
}

static void return_credits(troupe_process *process, int to) {
    struct troupe_lane *lane = &process->lanes[to];
    if (lane->owed >= TROUPE_LANE_WINDOW / 2 && !lane->credit_frame.busy) {
        fill_frame(process, &lane->credit_frame, to, TROUPE_FRAME_CREDIT, "", 0);
        transmit(process, &lane->credit_frame); /* else at the next progress */
    }
}

/* A frame to this rank itself waits in its own queue until progress. */
static void deliver_own(troupe_process *process) {
    struct troupe_lane *lane = &process->lanes[process->comm.rank];
    struct troupe_operation_list queue = lane->queue;
    lane->queue = (struct troupe_operation_list){0};
    struct troupe_operation *operation;
    while ((operation = troupe_operation_take(&queue)) != NULL) {
        struct troupe_frame *frame = (struct troupe_frame *)operation;
        process->queued--;
        troupe_lane_received(process, &frame->wire);
        troupe_lane_sent(process, frame);
    }
}

static void pump_all(troupe_process *process) {
    if (process->queued == 0) {
        return;
    }
    deliver_own(process);
    for (int r = 0; r < process->comm.size; r++) {
        if (r != process->comm.rank) {
            pump(process, &process->lanes[r]);
        }
    }
}

void troupe_lane_send(troupe_process *process, int to, enum troupe_frame_kind kind,
                      const void *data, size_t bytes) {
    struct troupe_lane *lane = &process->lanes[to];
    struct troupe_frame *frame =
        (struct troupe_frame *)troupe_operation_take(&process->frames_free);
    process->frames_free_count--;
    process->queued++;
    fill_frame(process, frame, to, kind, data, bytes);
    troupe_operation_append(&lane->queue, &frame->operation);
    if (to != process->comm.rank) {
        pump(process, lane);
    }
}

void troupe_lane_sent(troupe_process *process, struct troupe_frame *frame) {
    frame->busy = false;
    if (frame >= process->frames && frame < process->frames + process->comm.control_messages_max) {
        troupe_operation_append(&process->frames_free, &frame->operation);
        process->frames_free_count++;
    }
}

/* Another rank says why it ends. */
static void heed(troupe_process *process, const struct troupe_notice *notice) {
    troupe_comm *comm = &process->comm;
    comm->spoken_for |= comm->ends_job && notice->origin < comm->rank;
    if (comm->failure == TROUPE_OK) {
        process->notice = *notice;
        troupe_comm_fail(comm, (troupe_status)notice->status, "%s", notice->text);
    }
}

static void hear(troupe_process *process, const struct troupe_frame_wire *wire) {
    struct troupe_notice notice;
    memcpy(&notice, wire->data, sizeof(notice));
    process->lanes[wire->from].answered = true;
    heed(process, &notice);
}

void troupe_lane_received(troupe_process *process, const struct troupe_frame_wire *wire) {
    struct troupe_lane *lane = &process->lanes[wire->from];
    bool own = wire->from == process->comm.rank;
    lane->credits += (int)wire->credits;
    switch ((enum troupe_frame_kind)wire->kind) {
    case TROUPE_FRAME_MESSAGE:
        lane->owed += !own;
        troupe_comm_deliver(&process->comm, wire->from, wire->data, wire->bytes);
        break;
    case TROUPE_FRAME_ANNOUNCE:
        lane->owed += !own;
        process->carrier->announced(process, wire->from, wire->data, wire->bytes);
        break;
    case TROUPE_FRAME_FAILURE:
        hear(process, wire);
        break;
    case TROUPE_FRAME_CREDIT:
        break;
    }
}

/* ---- bells ---- */

static size_t bells_bytes(const struct troupe_bootstrap *bootstrap) {
    return (size_t)bootstrap->size * sizeof(struct troupe_bell);
}

static bool shares_host(const troupe_process *process, int rank) {
    return process->bootstrap.hosts[rank] == process->bootstrap.hosts[process->comm.rank];
}

static troupe_status map_bells(troupe_process *process, const char *name, int flags) {
    int file = shm_open(name, O_RDWR | flags, 0600);
    if (file < 0 || ((flags & O_CREAT) != 0 && ftruncate(file, (off_t)process->bells_bytes) != 0)) {
        int cause = errno;
        if (file >= 0) {
            close(file);
        }
        return troupe_fail(TROUPE_ERROR_IO, "shared memory %s of %zu bytes: %s", name,
                           process->bells_bytes, strerror(cause));
    }
    void *memory = mmap(NULL, process->bells_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) {
        return troupe_fail(TROUPE_ERROR_IO, "shared memory %s of %zu bytes: %s", name,
                           process->bells_bytes, strerror(errno));
    }
    process->bells = memory;
    return TROUPE_OK;
}

/* All ranks learn whether it went well everywhere; they all go on, or all fail. */
static troupe_status agree(troupe_process *process, troupe_status mine) {
    int status = mine, *all = NULL;
    TROUPE_TRY(TROUPE_NEW(&all, process->comm.size));
    troupe_status result =
        troupe_bootstrap_gather(&process->bootstrap, &status, sizeof(status), all);
    for (int r = 0; r < process->comm.size && result == TROUPE_OK && mine == TROUPE_OK; r++) {
        if (all[r] != TROUPE_OK) {
            result = troupe_fail((troupe_status)all[r], "rank %d could not open its endpoint: %s",
                                 r, troupe_status_text((troupe_status)all[r]));
        }
    }
    troupe_free(all);
    return mine != TROUPE_OK ? mine : result;
}

/* The lowest rank of a host makes the memory, the others map it; its name is gone afterwards. */
static troupe_status open_bells(troupe_process *process) {
    const struct troupe_bootstrap *bootstrap = &process->bootstrap;
    int first = bootstrap->hosts[process->comm.rank];
    char name[64];
    snprintf(name, sizeof(name), "/troupe-%d-%d", bootstrap->processes[first], first);
    process->bells_bytes = bells_bytes(bootstrap);
    troupe_status status = TROUPE_OK;
    if (process->comm.rank == first) {
        shm_unlink(name); /* of a process with this number that was killed in between */
        status = map_bells(process, name, O_CREAT | O_EXCL);
    }
    status = agree(process, status);
    if (status == TROUPE_OK && process->comm.rank != first) {
        status = map_bells(process, name, 0);
    }
    status = agree(process, status);
    if (process->comm.rank == first && process->bells != NULL) {
        shm_unlink(name);
    }
    return status;
}

void troupe_process_ring(troupe_process *process, int rank) {
    if (!shares_host(process, rank) || rank == process->comm.rank) {
        return;
    }
    _Atomic uint32_t *parked = &process->bells[rank].parked;
    /* seq_cst: what was handed to the network before, and this load, pair with park's store and its
     * last look at the network. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(parked, memory_order_relaxed) != 0) {
        atomic_store_explicit(parked, 0, memory_order_relaxed);
        syscall(SYS_futex, parked, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

/* ---- failure ---- */

/* What ranks of this host have pinned up; a rank does so before any of its connections closes. */
static void read_notices(troupe_process *process) {
    for (int r = 0; r < process->comm.size && process->comm.failure == TROUPE_OK; r++) {
        /* acquire: the notice is complete; pairs with the release in pin_up */
        if (shares_host(process, r) &&
            atomic_load_explicit(&process->bells[r].has_notice, memory_order_acquire)) {
            heed(process, &process->bells[r].notice);
        }
    }
}

static void pin_up(troupe_process *process) {
    struct troupe_bell *own = &process->bells[process->comm.rank];
    own->notice = process->notice;
    /* release: publishes the notice; pairs with the acquire in read_notices */
    atomic_store_explicit(&own->has_notice, true, memory_order_release);
}

/* Nobody has said why the rank would end. */
static void declare_lost(troupe_process *process, int peer, const char *how) {
    process->notice.lost = peer;
    troupe_comm_fail(&process->comm, TROUPE_ERROR_PEER,
                     "rank %d is lost: %s (seen by rank %d); the job ends, resume from its last "
                     "checkpoint",
                     peer, how, process->comm.rank);
}

void troupe_process_lost(troupe_process *process, int peer, const char *how) {
    read_notices(process);
    if (process->comm.failure != TROUPE_OK) {
        return;
    }
    if (shares_host(process, peer)) {
        declare_lost(process, peer, how);
    } else if (process->suspect < 0) {
        process->suspect = peer;
        process->suspected_ns = (int64_t)troupe_clock_ns();
        snprintf(process->suspected_how, sizeof process->suspected_how, "%s", how);
    }
}

static void judge_suspect(troupe_process *process) {
    if (process->suspect < 0 || process->comm.failure != TROUPE_OK) {
        return;
    }
    read_notices(process);
    if (process->comm.failure == TROUPE_OK &&
        (int64_t)troupe_clock_ns() - process->suspected_ns > EXPLAIN_NS) {
        declare_lost(process, process->suspect, process->suspected_how);
    }
}

/* The first failure as the others shall hear it: as this rank heard it, or in its own words. */
static void make_notice(troupe_process *process) {
    struct troupe_notice *notice = &process->notice;
    const troupe_comm *comm = &process->comm;
    if (notice->origin >= 0) {
        return;
    }
    bool is_loss = comm->failure == TROUPE_ERROR_PEER;
    char who[64] = "";
    if (!is_loss) {
        snprintf(who, sizeof who, "rank %d ended the job: ", comm->rank);
    }
    notice->origin = comm->rank;
    notice->status = is_loss ? TROUPE_ERROR_PEER : TROUPE_ERROR_ABORTED;
    int room = (int)(sizeof notice->text - sizeof who);
    snprintf(notice->text, sizeof notice->text, "%s%.*s", who, room, comm->failure_text);
}

/* Hands the notices to the carrier; true when all are out and all others have sent theirs. */
static bool has_parted(troupe_process *process) {
    bool parted = true;
    for (int r = 0; r < process->comm.size; r++) {
        struct troupe_lane *lane = &process->lanes[r];
        if (r == process->comm.rank || r == process->notice.lost) {
            continue;
        }
        if (!lane->told) {
            lane->told = transmit(process, &lane->failure_frame) == TROUPE_OK;
        }
        parted = parted && lane->told && !lane->failure_frame.busy && lane->answered;
    }
    return parted;
}

/* Who is lost does not listen, and others may be busy for long; so this ends after a while. What
 * all ranks see for themselves, such as a layout that does not fit, they all say here, and only the
 * lowest says it to the user. */
void troupe_process_farewell(troupe_process *process) {
    if (process->comm.failure == TROUPE_OK || process->said_farewell) {
        return;
    }
    process->said_farewell = true;
    make_notice(process);
    pin_up(process);
    for (int r = 0; r < process->comm.size; r++) {
        fill_frame(process, &process->lanes[r].failure_frame, r, TROUPE_FRAME_FAILURE,
                   &process->notice, sizeof process->notice);
    }
    int64_t end = (int64_t)troupe_clock_ns() + FAREWELL_NS;
    while (!has_parted(process) && (int64_t)troupe_clock_ns() < end) {
        process->carrier->poll(process);
        sched_yield();
    }
}

void troupe_process_announce_abort(troupe_comm *comm, const char *why) {
    (void)why; /* it is the failure's text */
    troupe_process_farewell((troupe_process *)comm);
}

/* ---- watch ---- */

static void watch_peers(troupe_process *process) {
    int64_t now = (int64_t)troupe_clock_ns();
    if (now - process->watched_ns < WATCH_NS || process->comm.failure != TROUPE_OK) {
        return;
    }
    process->watched_ns = now;
    int peer = troupe_watch_look(&process->watch);
    if (peer >= 0) {
        troupe_process_lost(process, peer, "its process has ended");
    }
    judge_suspect(process);
}

static bool has_notices(const troupe_process *process) {
    for (int r = 0; r < process->comm.size; r++) {
        /* relaxed: the notice itself is not read */
        if (shares_host(process, r) &&
            atomic_load_explicit(&process->bells[r].has_notice, memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

/* Who ends, by itself or not, may have been in the middle of a send; whoever else holds the lock
 * is given the time to get on. */
bool troupe_process_gives_up(void *arg, int64_t waited_ns) {
    troupe_process *process = arg;
    troupe_comm *comm = &process->comm;
    if (waited_ns < LOCK_NS) {
        return false;
    }
    if (comm->failure == TROUPE_OK && comm->patience_ns > 0 && waited_ns > comm->patience_ns) {
        troupe_comm_fail(comm, TROUPE_ERROR_TRANSPORT,
                         "rank %d makes no progress for %.1f s: a rank of this host has stopped in "
                         "the middle of a send and holds a lock that others need",
                         comm->rank, 1e-9 * (double)waited_ns);
    }
    return comm->failure != TROUPE_OK || has_notices(process) ||
           troupe_watch_look(&process->watch) >= 0;
}

/* ---- slots ---- */

troupe_status troupe_process_send_control(troupe_comm *comm, int to, const void *message,
                                          size_t bytes) {
    troupe_lane_send((troupe_process *)comm, to, TROUPE_FRAME_MESSAGE, message, bytes);
    return TROUPE_OK;
}

int troupe_process_control_room(troupe_comm *comm) {
    return ((troupe_process *)comm)->frames_free_count;
}

void troupe_process_progress(troupe_comm *comm) {
    troupe_process *process = (troupe_process *)comm;
    process->carrier->poll(process);
    pump_all(process);
    for (int r = 0; r < comm->size; r++) {
        return_credits(process, r);
    }
    if (++process->polls % POLLS_PER_CLOCK == 0) {
        watch_peers(process);
    }
    troupe_process_farewell(process);
}

static bool all_share_host(const troupe_process *process) {
    for (int r = 0; r < process->comm.size; r++) {
        if (!shares_host(process, r)) {
            return false;
        }
    }
    return true;
}

bool troupe_process_wakes(troupe_comm *comm) {
    troupe_process *process = (troupe_process *)comm;
    return process->queued == 0 && process->frames_free_count == comm->control_messages_max &&
           all_share_host(process) && process->carrier->rings(process);
}

/* Sleeps on this rank's bell. What needs both sides for its progress (a large message) rings no
 * bell; therefore sleeps are short at first, and after a bell, and grow with the time of quiet. */
void troupe_process_park(troupe_comm *comm, int64_t timeout_ns) {
    troupe_process *process = (troupe_process *)comm;
    int64_t quiet_ns = (int64_t)troupe_clock_ns() - comm->active_ns;
    int64_t sleep_ns = quiet_ns / 4 > PARK_NS_MIN ? quiet_ns / 4 : PARK_NS_MIN;
    struct timespec timeout = {.tv_nsec = (long)(sleep_ns < timeout_ns ? sleep_ns : timeout_ns)};
    _Atomic uint32_t *parked = &process->bells[comm->rank].parked;
    atomic_store(parked, 1);
    if (troupe_comm_progress(comm) == 0 && comm->failure == TROUPE_OK) {
        syscall(SYS_futex, parked, FUTEX_WAIT, 1, &timeout, NULL, 0);
    }
    comm->active |= atomic_exchange(parked, 0) == 0; /* a bell: something comes, or has come */
    watch_peers(process);
    troupe_process_farewell(process);
}

/* ---- life ---- */

static troupe_status open_lanes(troupe_process *process) {
    int count = process->comm.control_messages_max;
    TROUPE_TRY(TROUPE_NEW(&process->lanes, process->comm.size));
    TROUPE_TRY(TROUPE_NEW(&process->frames, count));
    for (int r = 0; r < process->comm.size; r++) {
        process->lanes[r].credits = TROUPE_LANE_WINDOW;
    }
    for (int i = 0; i < count; i++) {
        troupe_operation_append(&process->frames_free, &process->frames[i].operation);
    }
    process->frames_free_count = count;
    return TROUPE_OK;
}

troupe_status troupe_process_init(troupe_process *process, const struct troupe_carrier *carrier,
                                  const struct troupe_comm_backend *backend,
                                  const struct troupe_comm_options *options,
                                  struct troupe_bootstrap *bootstrap) {
    process->carrier = carrier;
    process->bootstrap = *bootstrap;
    process->notice = (struct troupe_notice){.origin = -1, .lost = -1};
    process->suspect = -1;
    TROUPE_TRY(troupe_comm_init(&process->comm, backend, bootstrap->rank, bootstrap->size));
    memcpy(process->comm.hosts, bootstrap->hosts, (size_t)bootstrap->size * sizeof(int));
    troupe_comm_set_limits(&process->comm, options->spin_ns, options->control_messages_max);
    TROUPE_TRY(open_lanes(process));
    TROUPE_TRY(open_bells(process));
    return troupe_watch_open(&process->watch, bootstrap);
}

/* While the others are still on their way to the meeting, this rank serves them. */
static bool serve(void *arg) {
    troupe_process *process = arg;
    if (process->comm.failure != TROUPE_OK) {
        return false;
    }
    process->carrier->poll(process);
    pump_all(process);
    return process->suspect < 0 && troupe_watch_look(&process->watch) < 0;
}

troupe_status troupe_process_greet(troupe_process *process) {
    for (int r = 0; r < process->comm.size; r++) {
        struct troupe_frame *frame = &process->lanes[r].credit_frame;
        bool sent = r == process->comm.rank;
        fill_frame(process, frame, r, TROUPE_FRAME_CREDIT, "", 0);
        while (!sent || frame->busy) {
            sent = sent || transmit(process, frame) == TROUPE_OK;
            if (!serve(process)) {
                return troupe_fail(TROUPE_ERROR_PEER, "rank %d was not reached", r);
            }
        }
    }
    return troupe_bootstrap_meet(&process->bootstrap, serve, process, patience_ns_max);
}

/* The launcher may end all processes as soon as one ends without the others. So the rank that
 * aborted, and has yet to say why, does not wait as long as those it told. */
bool troupe_process_meet(troupe_process *process) {
    troupe_process_farewell(process);
    int64_t patience_ns = process->comm.ends_job ? patience_ns_max / 4 : patience_ns_max;
    bool all_met =
        process->comm.failure != TROUPE_ERROR_PEER &&
        troupe_bootstrap_meet(&process->bootstrap, serve, process, patience_ns) == TROUPE_OK;
    if (!all_met) {
        troupe_process_farewell(process);
    }
    return all_met;
}

void troupe_process_fini(troupe_process *process) {
    troupe_watch_close(&process->watch);
    if (process->bells != NULL) {
        munmap(process->bells, process->bells_bytes);
    }
    troupe_free(process->lanes);
    troupe_free(process->frames);
    troupe_comm_fini(&process->comm);
}
