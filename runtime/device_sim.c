/* SPDX-License-Identifier: Apache-2.0 */
/* A device that is as asynchronous as a GPU, on any machine: a thread for each stream takes what is
 * enqueued from a ring of bytes. One lock for the whole device: it is for tests. */
#include "runtime/device_sim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/device_internal.h"
#include "runtime/memory.h"
#include "runtime/random.h"

enum {
    QUEUE_BYTES = 4 << 20,
    QUEUE_ALIGNMENT = 16,
    DELAYED_OF = 8, /* one operation in so many is delayed */
};

/* Memory of this device, which others of the process may have opened: it lives until all let go. */
struct sim_block {
    char *begin;
    size_t bytes;
    atomic_int owners;
};

/* What the device knows: copies of it do not make the host wait. */
struct sim_memory {
    struct sim_memory *next;
    struct sim_block *block;
};

struct sim_device {
    troupe_device base;
    struct troupe_device_options options;
    pthread_mutex_t lock;   /* protects all that follows, and the queues of the streams */
    pthread_cond_t changed; /* something was enqueued or done */
    struct sim_memory *memories;
    uint64_t streams_made;
    troupe_status failure;
    char failure_text[512];
};

/* In the queue before its payload. A NULL `run` fills the end of the ring. */
struct sim_operation {
    troupe_status (*run)(const void *payload);
    size_t room;  /* of the operation with its payload, in the queue */
    bool despite; /* runs on a device that has failed, too */
};

struct sim_stream {
    troupe_stream base;
    pthread_t thread;
    char *queue;
    uint64_t written, read; /* bytes since the beginning; modulo QUEUE_BYTES in the queue */
    uint64_t operations;    /* the stream's thread alone */
    uint64_t random_stream;
    bool ending;
};

/* The state of an event, which others of the process may have opened. Streams of a failed device
 * still record, so every record that was called completes. */
struct sim_mark {
    pthread_mutex_t lock; /* protects all that follows */
    pthread_cond_t changed;
    uint64_t recorded, completed; /* how often */
    uint64_t completed_ns;
    int owners;
};

struct sim_event {
    troupe_event base;
    struct sim_mark *mark;
};

static struct sim_device *device_of(const troupe_stream *stream) {
    return (struct sim_device *)stream->device;
}

static troupe_status failure_of(const struct sim_device *device) {
    return device->failure == TROUPE_OK ? TROUPE_OK
                                        : troupe_fail(device->failure, "%s", device->failure_text);
}

/* ---- the stream's thread ---- */

static void delay(const struct sim_stream *stream) {
    const struct sim_device *device = device_of(&stream->base);
    uint64_t seed = device->options.seed, count = stream->operations;
    if (device->options.delay_ns_max <= 0 ||
        troupe_random_below(seed, stream->random_stream, 2 * count, DELAYED_OF) > 0) {
        return;
    }
    uint64_t ns = troupe_random_below(seed, stream->random_stream, 2 * count + 1,
                                      (uint64_t)device->options.delay_ns_max);
    nanosleep(
        &(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)},
        NULL);
}

/* The next operation, or NULL when the stream ends. Called and left with the lock. */
static const struct sim_operation *next_operation(struct sim_stream *stream) {
    struct sim_device *device = device_of(&stream->base);
    for (;;) {
        while (stream->written == stream->read && !stream->ending) {
            pthread_cond_wait(&device->changed, &device->lock);
        }
        if (stream->written == stream->read) {
            return NULL;
        }
        const struct sim_operation *operation =
            (const void *)(stream->queue + stream->read % QUEUE_BYTES);
        if (operation->run != NULL) {
            return operation;
        }
        stream->read += operation->room;
    }
}

static void *run_stream(void *arg) {
    struct sim_stream *stream = arg;
    struct sim_device *device = device_of(&stream->base);
    const struct sim_operation *operation = NULL;
    pthread_mutex_lock(&device->lock);
    while ((operation = next_operation(stream)) != NULL) {
        troupe_status status = device->failure;
        pthread_mutex_unlock(&device->lock);
        delay(stream);
        stream->operations++;
        bool runs = status == TROUPE_OK || operation->despite;
        status = runs ? operation->run(operation + 1) : TROUPE_OK;
        pthread_mutex_lock(&device->lock);
        if (status != TROUPE_OK && device->failure == TROUPE_OK) {
            device->failure = status;
            snprintf(device->failure_text, sizeof device->failure_text, "%s", troupe_last_error());
        }
        stream->read += operation->room;
        pthread_cond_broadcast(&device->changed);
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

/* ---- enqueuing ---- */

/* Waits until the queue has `room` bytes. */
static void make_room(struct sim_stream *stream, size_t room) {
    struct sim_device *device = device_of(&stream->base);
    while (stream->written + room - stream->read > QUEUE_BYTES) {
        pthread_cond_wait(&device->changed, &device->lock);
    }
}

/* A contiguous stretch of `room` bytes at the end of the queue; the rest of the ring is skipped. */
static struct sim_operation *stretch(struct sim_stream *stream, size_t room) {
    size_t left = QUEUE_BYTES - stream->written % QUEUE_BYTES;
    if (left < room) {
        make_room(stream, left);
        *(struct sim_operation *)(void *)(stream->queue + stream->written % QUEUE_BYTES) =
            (struct sim_operation){.run = NULL, .room = left};
        stream->written += left;
    }
    make_room(stream, room);
    return (void *)(stream->queue + stream->written % QUEUE_BYTES);
}

static size_t part_room(size_t bytes) {
    return (bytes + QUEUE_ALIGNMENT - 1) / QUEUE_ALIGNMENT * QUEUE_ALIGNMENT;
}

const void *troupe_sim_next_part(const void *part, size_t bytes) {
    return (const char *)part + part_room(bytes);
}

static void put_parts(struct sim_operation *operation, const struct troupe_sim_part *parts,
                      size_t count) {
    char *to = (char *)(operation + 1);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].bytes > 0) {
            memcpy(to, parts[i].data, parts[i].bytes);
        }
        to += part_room(parts[i].bytes);
    }
}

static troupe_status enqueue(troupe_stream *stream, const struct sim_operation *what,
                             const struct troupe_sim_part *parts, size_t count) {
    struct sim_stream *s = (struct sim_stream *)stream;
    struct sim_device *device = device_of(stream);
    size_t room = sizeof(struct sim_operation);
    TROUPE_ASSERT(stream->device->backend->kind == TROUPE_DEVICE_SIM,
                  "simulated work in a stream of %s", stream->device->name);
    for (size_t i = 0; i < count; i++) {
        room += part_room(parts[i].bytes);
    }
    TROUPE_ASSERT(room <= QUEUE_BYTES / 2, "payload of %zu bytes", room);
    pthread_mutex_lock(&device->lock);
    troupe_status status = failure_of(device);
    if (status == TROUPE_OK) {
        struct sim_operation *operation = stretch(s, room);
        *operation = *what;
        operation->room = room;
        put_parts(operation, parts, count);
        s->written += room;
        pthread_cond_broadcast(&device->changed);
    }
    pthread_mutex_unlock(&device->lock);
    return status;
}

troupe_status troupe_sim_enqueue_parts(troupe_stream *stream,
                                       troupe_status (*run)(const void *payload),
                                       const struct troupe_sim_part *parts, size_t count) {
    return enqueue(stream, &(struct sim_operation){.run = run}, parts, count);
}

troupe_status troupe_sim_enqueue(troupe_stream *stream, troupe_status (*run)(const void *payload),
                                 const void *payload, size_t bytes) {
    return troupe_sim_enqueue_parts(stream, run, &(struct troupe_sim_part){payload, bytes}, 1);
}

static troupe_status sim_stream_synchronize(troupe_stream *stream) {
    struct sim_stream *s = (struct sim_stream *)stream;
    struct sim_device *device = device_of(stream);
    pthread_mutex_lock(&device->lock);
    while (s->read != s->written) {
        pthread_cond_wait(&device->changed, &device->lock);
    }
    troupe_status status = failure_of(device);
    pthread_mutex_unlock(&device->lock);
    return status;
}

/* ---- device and memory ---- */

static int sim_count(const char **why) {
    *why = "";
    return 1;
}

static troupe_status sim_open(const struct troupe_device_options *options, troupe_device **out) {
    struct sim_device *device = NULL;
    TROUPE_TRY(TROUPE_NEW(&device, 1));
    device->options = *options;
    pthread_mutex_init(&device->lock, NULL);
    pthread_cond_init(&device->changed, NULL);
    snprintf(device->base.name, sizeof device->base.name, "sim");
    *out = &device->base;
    return TROUPE_OK;
}

static void sim_close(troupe_device *device) {
    struct sim_device *d = (struct sim_device *)device;
    TROUPE_ASSERT(d->memories == NULL, "a simulated device is closed with %zu bytes in use",
                  d->memories != NULL ? d->memories->block->bytes : 0);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    troupe_free(d);
}

static void let_go(struct sim_block *block) {
    /* acquire and release: all that others did with the memory is done before it is freed */
    if (block != NULL && atomic_fetch_sub_explicit(&block->owners, 1, memory_order_acq_rel) == 1) {
        troupe_free(block->begin);
        troupe_free(block);
    }
}

/* Takes over one ownership of the block, also where it fails. */
static troupe_status add_memory(struct sim_device *device, struct sim_block *block) {
    struct sim_memory *memory = NULL;
    troupe_status status = TROUPE_NEW(&memory, 1);
    if (status != TROUPE_OK) {
        let_go(block);
        return status;
    }
    memory->block = block;
    pthread_mutex_lock(&device->lock);
    memory->next = device->memories;
    device->memories = memory;
    pthread_mutex_unlock(&device->lock);
    return TROUPE_OK;
}

static troupe_status sim_alloc(troupe_device *device, size_t bytes, void **out) {
    struct sim_block *block = NULL;
    TROUPE_TRY(TROUPE_NEW(&block, 1));
    atomic_init(&block->owners, 1);
    block->bytes = bytes;
    troupe_status status = troupe_alloc(bytes, 1, (void **)&block->begin);
    if (status != TROUPE_OK) {
        let_go(block);
        return status;
    }
    TROUPE_TRY(add_memory((struct sim_device *)device, block));
    *out = block->begin;
    return TROUPE_OK;
}

static void sim_free(troupe_device *device, void *memory) {
    struct sim_device *d = (struct sim_device *)device;
    pthread_mutex_lock(&d->lock);
    struct sim_memory **place = &d->memories;
    while (*place != NULL && (*place)->block->begin != memory) {
        place = &(*place)->next;
    }
    struct sim_memory *found = *place;
    TROUPE_ASSERT(found != NULL, "%p is no memory of the simulated device", memory);
    *place = found->next;
    pthread_mutex_unlock(&d->lock);
    let_go(found->block);
    troupe_free(found);
}

/* The block around an address, or NULL. */
static struct sim_block *find_block(struct sim_device *device, const void *pointer) {
    const char *p = pointer;
    pthread_mutex_lock(&device->lock);
    const struct sim_memory *memory = device->memories;
    while (memory != NULL &&
           (p < memory->block->begin || p >= memory->block->begin + memory->block->bytes)) {
        memory = memory->next;
    }
    pthread_mutex_unlock(&device->lock);
    return memory != NULL ? memory->block : NULL;
}

/* ---- streams ---- */

static void sim_stream_destroy(troupe_stream *stream) {
    struct sim_stream *s = (struct sim_stream *)stream;
    struct sim_device *device = device_of(stream);
    pthread_mutex_lock(&device->lock);
    s->ending = true;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
    pthread_join(s->thread, NULL);
    troupe_free(s->queue);
    troupe_free(s);
}

static troupe_status sim_stream_create(troupe_device *device, troupe_stream **out) {
    struct sim_device *d = (struct sim_device *)device;
    struct sim_stream *stream = NULL;
    TROUPE_TRY(TROUPE_NEW(&stream, 1));
    troupe_status status = TROUPE_NEW(&stream->queue, QUEUE_BYTES);
    if (status != TROUPE_OK) {
        troupe_free(stream);
        return status;
    }
    stream->base.device = device; /* the thread looks at it */
    stream->random_stream = d->streams_made++;
    int error = pthread_create(&stream->thread, NULL, run_stream, stream);
    TROUPE_ASSERT(error == 0, "no thread for a simulated stream: %s", strerror(error));
    *out = &stream->base;
    return TROUPE_OK;
}

static troupe_status run_copy(const void *payload) {
    const struct troupe_copy *copy = payload;
    for (size_t row = 0; row < copy->rows; row++) {
        memcpy((char *)copy->to + row * copy->to_stride_bytes,
               (const char *)copy->from + row * copy->from_stride_bytes, copy->row_bytes);
    }
    return TROUPE_OK;
}

static troupe_status sim_stream_copy(troupe_stream *stream, const struct troupe_copy *copy) {
    struct sim_device *device = device_of(stream);
    TROUPE_TRY(troupe_sim_enqueue(stream, run_copy, copy, sizeof *copy));
    bool waits = find_block(device, copy->to) == NULL || find_block(device, copy->from) == NULL;
    return waits ? sim_stream_synchronize(stream) : TROUPE_OK;
}

struct fill {
    void *memory;
    size_t bytes;
};

static troupe_status run_fill(const void *payload) {
    const struct fill *fill = payload;
    memset(fill->memory, 0, fill->bytes);
    return TROUPE_OK;
}

static troupe_status sim_stream_fill_zero(troupe_stream *stream, void *memory, size_t bytes) {
    struct fill fill = {memory, bytes};
    return troupe_sim_enqueue(stream, run_fill, &fill, sizeof fill);
}

/* ---- events ---- */

/* The count-th record of an event. */
struct nth_record {
    struct sim_mark *mark;
    uint64_t count;
};

static troupe_status run_record(const void *payload) {
    const struct nth_record *record = payload;
    struct sim_mark *mark = record->mark;
    pthread_mutex_lock(&mark->lock);
    mark->completed = record->count;
    mark->completed_ns = troupe_clock_ns();
    pthread_cond_broadcast(&mark->changed);
    pthread_mutex_unlock(&mark->lock);
    return TROUPE_OK;
}

static troupe_status run_wait(const void *payload) {
    const struct nth_record *record = payload;
    struct sim_mark *mark = record->mark;
    pthread_mutex_lock(&mark->lock);
    while (mark->completed < record->count) {
        pthread_cond_wait(&mark->changed, &mark->lock);
    }
    pthread_mutex_unlock(&mark->lock);
    return TROUPE_OK;
}

static struct sim_mark *mark_of(const troupe_event *event) {
    return ((const struct sim_event *)event)->mark;
}

static uint64_t count_records(struct sim_mark *mark) {
    pthread_mutex_lock(&mark->lock);
    uint64_t count = mark->recorded;
    pthread_mutex_unlock(&mark->lock);
    return count;
}

static troupe_status sim_stream_wait(troupe_stream *stream, troupe_event *event) {
    struct nth_record record = {mark_of(event), count_records(mark_of(event))};
    return troupe_sim_enqueue(stream, run_wait, &record, sizeof record);
}

static troupe_status sim_event_record(troupe_event *event, troupe_stream *stream) {
    struct sim_mark *mark = mark_of(event);
    struct nth_record record = {mark, count_records(mark) + 1};
    TROUPE_TRY(enqueue(stream, &(struct sim_operation){.run = run_record, .despite = true},
                       &(struct troupe_sim_part){&record, sizeof record}, 1));
    pthread_mutex_lock(&mark->lock);
    mark->recorded = record.count;
    pthread_mutex_unlock(&mark->lock);
    return TROUPE_OK;
}

static troupe_status sim_event_create(troupe_device *device, troupe_event **out) {
    (void)device;
    struct sim_event *event = NULL;
    TROUPE_TRY(TROUPE_NEW(&event, 1));
    troupe_status status = TROUPE_NEW(&event->mark, 1);
    if (status != TROUPE_OK) {
        troupe_free(event);
        return status;
    }
    pthread_mutex_init(&event->mark->lock, NULL);
    pthread_cond_init(&event->mark->changed, NULL);
    event->mark->owners = 1;
    *out = &event->base;
    return TROUPE_OK;
}

/* Operations here that name it are done: who destroys an event has synchronised its streams. */
static void sim_event_destroy(troupe_event *event) {
    struct sim_mark *mark = mark_of(event);
    pthread_mutex_lock(&mark->lock);
    bool last = --mark->owners == 0;
    pthread_mutex_unlock(&mark->lock);
    if (last) {
        pthread_cond_destroy(&mark->changed);
        pthread_mutex_destroy(&mark->lock);
        troupe_free(mark);
    }
    troupe_free(event);
}

static troupe_status sim_event_query(troupe_event *event) {
    struct sim_mark *mark = mark_of(event);
    struct sim_device *device = (struct sim_device *)event->device;
    pthread_mutex_lock(&device->lock);
    troupe_status status = failure_of(device);
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_lock(&mark->lock);
    if (status == TROUPE_OK && mark->completed < mark->recorded) {
        status = TROUPE_AGAIN;
    }
    pthread_mutex_unlock(&mark->lock);
    return status;
}

static uint64_t completed_ns(const troupe_event *event) {
    struct sim_mark *mark = mark_of(event);
    pthread_mutex_lock(&mark->lock);
    uint64_t ns = mark->completed_ns;
    pthread_mutex_unlock(&mark->lock);
    return ns;
}

static troupe_status sim_event_elapsed(troupe_event *begin, troupe_event *end, int64_t *ns_out) {
    *ns_out = (int64_t)(completed_ns(end) - completed_ns(begin));
    return TROUPE_OK;
}

/* ---- sharing with other devices of this process ---- */

struct sim_handle {
    pid_t process;
    void *what; /* a block or a mark */
};

static void write_handle(void *what, unsigned char *native) {
    struct sim_handle handle = {.process = getpid(), .what = what};
    memcpy(native, &handle, sizeof handle);
}

static troupe_status read_handle(const troupe_device *device, const unsigned char *native,
                                 void **out) {
    struct sim_handle handle;
    memcpy(&handle, native, sizeof handle);
    if (handle.process != getpid()) {
        return troupe_device_refuse_sharing(device);
    }
    *out = handle.what;
    return TROUPE_OK;
}

static troupe_status sim_memory_export(troupe_device *device, void *memory, unsigned char *native) {
    write_handle(find_block((struct sim_device *)device, memory), native);
    return TROUPE_OK;
}

static troupe_status sim_memory_import(troupe_device *device, const unsigned char *native,
                                       void **out) {
    struct sim_block *block = NULL;
    TROUPE_TRY(read_handle(device, native, (void **)&block));
    /* relaxed: the owner keeps it until we have it */
    atomic_fetch_add_explicit(&block->owners, 1, memory_order_relaxed);
    TROUPE_TRY(add_memory((struct sim_device *)device, block));
    *out = block->begin;
    return TROUPE_OK;
}

static troupe_status sim_event_create_shared(troupe_device *device, unsigned char *native,
                                             troupe_event **out) {
    TROUPE_TRY(sim_event_create(device, out));
    write_handle(mark_of(*out), native);
    return TROUPE_OK;
}

static troupe_status sim_event_import(troupe_device *device, const unsigned char *native,
                                      troupe_event **out) {
    struct sim_event *event = NULL;
    struct sim_mark *mark = NULL;
    TROUPE_TRY(read_handle(device, native, (void **)&mark));
    TROUPE_TRY(TROUPE_NEW(&event, 1));
    pthread_mutex_lock(&mark->lock);
    mark->owners++;
    pthread_mutex_unlock(&mark->lock);
    event->mark = mark;
    *out = &event->base;
    return TROUPE_OK;
}

static const struct troupe_device_sharing sim_sharing = {
    .imports_own = true,
    .memory_export = sim_memory_export,
    .memory_import = sim_memory_import,
    .memory_release = sim_free,
    .event_create = sim_event_create_shared,
    .event_import = sim_event_import,
};

const struct troupe_device_backend troupe_device_backend_sim = {
    .kind = TROUPE_DEVICE_SIM,
    .is_host = false,
    .count = sim_count,
    .locate = troupe_device_locate_none,
    .open = sim_open,
    .close = sim_close,
    .alloc = sim_alloc,
    .free = sim_free,
    .alloc_host = sim_alloc, /* one memory, but known to the device */
    .free_host = sim_free,
    .stream_create = sim_stream_create,
    .stream_destroy = sim_stream_destroy,
    .stream_synchronize = sim_stream_synchronize,
    .stream_copy = sim_stream_copy,
    .stream_fill_zero = sim_stream_fill_zero,
    .stream_wait = sim_stream_wait,
    .event_create = sim_event_create,
    .event_create_timed = sim_event_create,
    .event_elapsed = sim_event_elapsed,
    .event_destroy = sim_event_destroy,
    .event_record = sim_event_record,
    .event_query = sim_event_query,
    .sharing = &sim_sharing,
};
