/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory and events that another process of this machine uses: the owner shares, which fills
 * a few plain bytes; whoever gets them opens the very same memory or event. Within one process
 * (ranks as threads) that works on any kind of device; between processes it is CUDA IPC.
 *
 *     troupe_memory_share(device, memory, &share);                     (owner, then sends `share`)
 *     troupe_memory_open(mine, &share, &memory);                       (the other)
 *
 * A shared event is recorded and waited for on either side. A wait means the latest record that
 * was *called*, in whichever process, so a message must carry the word that it was.
 *
 * Ownership: the owner keeps what it shared until all others have closed it.
 * Threads: any. Failure: ERROR_UNSUPPORTED where processes cannot share, else ERROR_DEVICE.
 */
#ifndef TROUPE_RUNTIME_DEVICE_SHARE_H
#define TROUPE_RUNTIME_DEVICE_SHARE_H

#include <stdint.h>

#include "runtime/device.h"
#include "runtime/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TROUPE_SHARE_NATIVE_BYTES = 64 };

struct troupe_share {
    int32_t process;
    int32_t kind;     /* enum troupe_device_kind */
    uint64_t address; /* in the owner's process */
    unsigned char native[TROUPE_SHARE_NATIVE_BYTES];
};

/* memory: what troupe_device_alloc returned, not a place inside it. */
troupe_status troupe_memory_share(troupe_device *device, void *memory, struct troupe_share *out);
troupe_status troupe_memory_open(troupe_device *device, const struct troupe_share *share,
                                 void **out);
void troupe_memory_close(troupe_device *device, const struct troupe_share *share, void *memory);

/* An event that may be shared; otherwise like those of troupe_event_create. Complete until its
 * first record. */
troupe_status troupe_event_create_shared(troupe_device *device, troupe_event **out,
                                         struct troupe_share *share_out);
troupe_status troupe_event_open(troupe_device *device, const struct troupe_share *share,
                                troupe_event **out);
void troupe_event_close(const troupe_device *device, const struct troupe_share *share,
                        troupe_event *event);

#ifdef __cplusplus
}
#endif
#endif
