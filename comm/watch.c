/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/watch.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "runtime/log.h"
#include "runtime/memory.h"

enum {
    CONNECT_S = 5,
    /* A host that has gone answers no probe: noticed after IDLE_S + PROBES * INTERVAL_S. */
    IDLE_S = 1,
    INTERVAL_S = 1,
    PROBES = 4,
};

/* Where a rank listens; bytes 0: nowhere. */
struct place {
    struct sockaddr_storage address;
    socklen_t bytes;
};

static bool shares_host(const struct troupe_bootstrap *bootstrap, int rank) {
    return bootstrap->hosts[rank] == bootstrap->hosts[bootstrap->rank];
}

/* Takes over the file, -1 included. */
static void watch_file(struct troupe_watch *watch, int rank, int file) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u32 = (uint32_t)rank};
    if (file < 0 || epoll_ctl(watch->events, EPOLL_CTL_ADD, file, &event) != 0) {
        TROUPE_LOG_WARN("comm", "rank %d cannot be watched: %s", rank, strerror(errno));
    }
    watch->files[rank] = file;
}

troupe_status troupe_watch_open(struct troupe_watch *watch,
                                const struct troupe_bootstrap *bootstrap) {
    *watch = (struct troupe_watch){.size = bootstrap->size};
    TROUPE_TRY(TROUPE_NEW(&watch->files, bootstrap->size));
    for (int r = 0; r < bootstrap->size; r++) {
        watch->files[r] = -1;
    }
    int events = epoll_create1(EPOLL_CLOEXEC);
    if (events < 0) {
        return troupe_fail(TROUPE_ERROR_IO, "epoll_create1: %s", strerror(errno));
    }
    watch->events = events;
    for (int r = 0; r < bootstrap->size; r++) {
        if (r != bootstrap->rank && shares_host(bootstrap, r)) {
            watch_file(watch, r, (int)syscall(SYS_pidfd_open, bootstrap->processes[r], 0));
        }
    }
    return TROUPE_OK;
}

/* ---- other hosts ---- */

/* The first rank after this one that lives on another host; -1: none. */
static int other_host(const struct troupe_bootstrap *bootstrap) {
    for (int step = 1; step < bootstrap->size; step++) {
        int rank = (bootstrap->rank + step) % bootstrap->size;
        if (!shares_host(bootstrap, rank)) {
            return rank;
        }
    }
    return -1;
}

static void clear_port(struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET) {
        ((struct sockaddr_in *)address)->sin_port = 0;
    } else {
        ((struct sockaddr_in6 *)address)->sin6_port = 0;
    }
}

/* Connections are not accepted: the kernel holds them, and ends them with this process. */
static bool listen_at(struct troupe_watch *watch, struct place *place) {
    int file = socket(place->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0) {
        return false;
    }
    watch->listener = file;
    return bind(file, (struct sockaddr *)&place->address, place->bytes) == 0 &&
           listen(file, watch->size) == 0 &&
           getsockname(file, (struct sockaddr *)&place->address, &place->bytes) == 0;
}

static bool set_option(int file, int level, int option, int value) {
    return setsockopt(file, level, option, &value, sizeof value) == 0;
}

/* A connection to the place; -1 and errno if it cannot be. */
static int connect_to(const struct place *place) {
    struct timeval limit = {.tv_sec = CONNECT_S};
    if (place->bytes == 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int file = socket(place->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0) {
        return -1;
    }
    if (setsockopt(file, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
        set_option(file, SOL_SOCKET, SO_KEEPALIVE, 1) &&
        set_option(file, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S) &&
        set_option(file, IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL_S) &&
        set_option(file, IPPROTO_TCP, TCP_KEEPCNT, PROBES) &&
        connect(file, (const struct sockaddr *)&place->address, place->bytes) == 0) {
        return file;
    }
    int cause = errno;
    close(file);
    errno = cause;
    return -1;
}

troupe_status troupe_watch_hosts(struct troupe_watch *watch,
                                 const struct troupe_bootstrap *bootstrap,
                                 const struct sockaddr *address, socklen_t bytes) {
    struct place mine = {.bytes = 0}, *all = NULL;
    int watched = other_host(bootstrap);
    bool is_internet = address->sa_family == AF_INET || address->sa_family == AF_INET6;
    if (watched >= 0 && is_internet && bytes <= sizeof mine.address) {
        memcpy(&mine.address, address, bytes);
        mine.bytes = bytes;
        clear_port(&mine.address);
        if (!listen_at(watch, &mine)) {
            TROUPE_LOG_WARN("comm", "no port to be watched at: %s", strerror(errno));
            mine.bytes = 0;
        }
    }
    TROUPE_TRY(TROUPE_NEW(&all, bootstrap->size));
    troupe_status status = troupe_bootstrap_gather(bootstrap, &mine, sizeof mine, all);
    if (status == TROUPE_OK && watched >= 0) {
        watch_file(watch, watched, connect_to(&all[watched]));
    }
    troupe_free(all);
    return status;
}

/* ---- looking ---- */

int troupe_watch_look(const struct troupe_watch *watch) {
    struct epoll_event event;
    return epoll_wait(watch->events, &event, 1, 0) == 1 ? (int)event.data.u32 : -1;
}

void troupe_watch_close(struct troupe_watch *watch) {
    for (int r = 0; watch->files != NULL && r < watch->size; r++) {
        if (watch->files[r] >= 0) {
            close(watch->files[r]);
        }
    }
    if (watch->listener > 0) {
        close(watch->listener);
    }
    if (watch->events > 0) {
        close(watch->events);
    }
    troupe_free(watch->files);
    *watch = (struct troupe_watch){0};
}
