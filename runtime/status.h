/* SPDX-License-Identifier: Apache-2.0
 *
 * Status codes and the last-error text. What the world can break (memory, peers, files, devices)
 * returns a troupe_status; whoever detects the failure says in one sentence what was seen, where,
 * and what to do about it, and callers hand the status upward unchanged:
 *
 *     if (bytes < need) {
 *         return troupe_fail(TROUPE_ERROR_IO, "%s: file ends after %zu bytes; %zu expected", ...);
 *     }
 *     TROUPE_TRY(troupe_index_open(path, &index));
 *
 * Ownership: nothing is allocated; troupe_last_error points into thread-local storage.
 * Threads: any; each thread has its own last error.
 * Failure: these calls cannot fail.
 */
#ifndef TROUPE_RUNTIME_STATUS_H
#define TROUPE_RUNTIME_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(NAME, value, "what it means") */
#define TROUPE_STATUS_TABLE(X)                                                                     \
    X(OK, 0, "success")                                                                            \
    X(AGAIN, 1, "not yet: queue full or operation in flight")                                      \
    X(ERROR_INVALID, -1, "bad input: configuration, layout or argument from outside")              \
    X(ERROR_MEMORY, -2, "out of memory")                                                           \
    X(ERROR_IO, -3, "file or stream cannot be read or written")                                    \
    X(ERROR_DATA, -4, "data is corrupt or does not match its index")                               \
    X(ERROR_PEER, -5, "a rank is gone or does not answer")                                         \
    X(ERROR_TRANSPORT, -6, "libfabric, MPI or NCCL reported an error")                             \
    X(ERROR_DEVICE, -7, "a device reported an error")                                              \
    X(ERROR_CONTRACT, -8, "a message does not match its contract")                                 \
    X(ERROR_NUMERIC, -9, "a value is not finite")                                                  \
    X(ERROR_STALL, -10, "no progress before the deadline")                                         \
    X(ERROR_UNSUPPORTED, -11, "this backend cannot do that")                                       \
    X(ERROR_ABORTED, -12, "another rank ended the job")

typedef enum troupe_status {
#define TROUPE_STATUS_ENUM(name, value, text) TROUPE_##name = (value),
    TROUPE_STATUS_TABLE(TROUPE_STATUS_ENUM)
#undef TROUPE_STATUS_ENUM
} troupe_status;

/* "TROUPE_ERROR_IO" */
const char *troupe_status_name(troupe_status status);
/* "file or stream cannot be read or written" */
const char *troupe_status_text(troupe_status status);

/* Keeps the formatted sentence (at most 1023 bytes) as this thread's last error; returns status. */
troupe_status troupe_fail(troupe_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts a context in front of this thread's last error ("shard 3: ..."); returns status. */
troupe_status troupe_fail_in(troupe_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The sentence of the last troupe_fail on this thread; "" if there was none. */
const char *troupe_last_error(void);

/* Returns a failure (or AGAIN) of expr to the caller. */
#define TROUPE_TRY(expr)                                                                           \
    do {                                                                                           \
        troupe_status troupe_try_status = (expr);                                                  \
        if (troupe_try_status != TROUPE_OK) {                                                      \
            return troupe_try_status;                                                              \
        }                                                                                          \
    } while (0)

/* The same for a function that unwinds at the label `fail` with a local `status`. */
#define TROUPE_TRY_FAIL(expr)                                                                      \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != TROUPE_OK) {                                                                 \
            goto fail;                                                                             \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
