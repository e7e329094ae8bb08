/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/device_share.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/device_internal.h"

static struct troupe_share share_of(const troupe_device *device, void *address) {
    return (struct troupe_share){.process = getpid(),
                                 .kind = device->backend->kind,
                                 .address = (uint64_t)(uintptr_t)address};
}

/* The owner's own pointer serves here, too. */
static bool is_plain(const troupe_device *device, const struct troupe_share *share) {
    return share->process == getpid() && !device->backend->sharing->imports_own;
}

static void *own_address(const struct troupe_share *share) {
    return (void *)(uintptr_t)share->address; /* NOLINT(performance-no-int-to-ptr) */
}

static void check_kind(const troupe_device *device, const struct troupe_share *share) {
    TROUPE_ASSERT(share->kind == (int32_t)device->backend->kind,
                  "%s opens what a device of kind %" PRId32 " shares", device->name, share->kind);
}

troupe_status troupe_memory_share(troupe_device *device, void *memory, struct troupe_share *out) {
    struct troupe_share share = share_of(device, memory);
    TROUPE_TRY(device->backend->sharing->memory_export(device, memory, share.native));
    *out = share;
    return TROUPE_OK;
}

troupe_status troupe_memory_open(troupe_device *device, const struct troupe_share *share,
                                 void **out) {
    check_kind(device, share);
    if (is_plain(device, share)) {
        *out = own_address(share);
        return TROUPE_OK;
    }
    return device->backend->sharing->memory_import(device, share->native, out);
}

void troupe_memory_close(troupe_device *device, const struct troupe_share *share, void *memory) {
    if (memory != NULL && !is_plain(device, share)) {
        device->backend->sharing->memory_release(device, memory);
    }
}

troupe_status troupe_event_create_shared(troupe_device *device, troupe_event **out,
                                         struct troupe_share *share_out) {
    troupe_event *event = NULL;
    unsigned char native[TROUPE_SHARE_NATIVE_BYTES] = {0};
    TROUPE_TRY(device->backend->sharing->event_create(device, native, &event));
    event->device = device;
    *share_out = share_of(device, event);
    memcpy(share_out->native, native, sizeof native);
    *out = event;
    return TROUPE_OK;
}

troupe_status troupe_event_open(troupe_device *device, const struct troupe_share *share,
                                troupe_event **out) {
    check_kind(device, share);
    if (is_plain(device, share)) {
        *out = own_address(share);
        return TROUPE_OK;
    }
    troupe_event *event = NULL;
    TROUPE_TRY(device->backend->sharing->event_import(device, share->native, &event));
    event->device = device;
    *out = event;
    return TROUPE_OK;
}

void troupe_event_close(const troupe_device *device, const struct troupe_share *share,
                        troupe_event *event) {
    if (event != NULL && !is_plain(device, share)) {
        troupe_event_destroy(event);
    }
}

/* ---- for devices whose memory other processes cannot reach ---- */

troupe_status troupe_device_refuse_sharing(const troupe_device *device) {
    return troupe_fail(TROUPE_ERROR_UNSUPPORTED,
                       "%s: another process cannot open its memory or events; send messages",
                       device->name);
}

static troupe_status none_memory_export(troupe_device *device, void *memory,
                                        unsigned char *native) {
    (void)device;
    (void)memory;
    (void)native;
    return TROUPE_OK; /* within the process the address is enough */
}

static troupe_status none_memory_import(troupe_device *device, const unsigned char *native,
                                        void **out) {
    (void)native;
    (void)out;
    return troupe_device_refuse_sharing(device);
}

static void none_memory_release(troupe_device *device, void *memory) {
    TROUPE_ASSERT(false, "%s releases %p, which it cannot have imported", device->name, memory);
}

static troupe_status none_event_create(troupe_device *device, unsigned char *native,
                                       troupe_event **out) {
    (void)native;
    return device->backend->event_create(device, out);
}

static troupe_status none_event_import(troupe_device *device, const unsigned char *native,
                                       troupe_event **out) {
    (void)native;
    (void)out;
    return troupe_device_refuse_sharing(device);
}

const struct troupe_device_sharing troupe_device_sharing_none = {
    .memory_export = none_memory_export,
    .memory_import = none_memory_import,
    .memory_release = none_memory_release,
    .event_create = none_event_create,
    .event_import = none_event_import,
};
