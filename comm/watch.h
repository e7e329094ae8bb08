/* SPDX-License-Identifier: Apache-2.0
 *
 * Notices that the process of another rank has ended, whatever the transport does: on this host
 * through its pidfd, on another through a TCP connection that its kernel closes, or that stops
 * answering (the host is gone).
 *
 *     TROUPE_TRY(troupe_watch_open(&watch, bootstrap));
 *     TROUPE_TRY(troupe_watch_hosts(&watch, bootstrap, my_address, bytes));
 *     int rank = troupe_watch_look(&watch);
 *     troupe_watch_close(&watch);
 *
 * Every rank watches all of its host and one of another, so that a host is watched from outside.
 *
 * Ownership: the struct is the caller's; close releases what it holds, also after a failed open.
 * Threads: the endpoint's. Failure: ERROR_IO; a rank that cannot be watched is a warning.
 */
#ifndef TROUPE_COMM_WATCH_H
#define TROUPE_COMM_WATCH_H

#include <sys/socket.h>

#include "comm/bootstrap.h"

struct troupe_watch {
    int events;   /* epoll of the files; 0: not open */
    int listener; /* others connect to it and no more; 0: none */
    int *files;   /* by rank: pidfd or connection; -1: not watched */
    int size;
};

troupe_status troupe_watch_open(struct troupe_watch *watch,
                                const struct troupe_bootstrap *bootstrap);
/* Collective. address: of this rank, as other hosts reach it (its port is ignored). Blocks. */
troupe_status troupe_watch_hosts(struct troupe_watch *watch,
                                 const struct troupe_bootstrap *bootstrap,
                                 const struct sockaddr *address, socklen_t bytes);
/* A watched rank whose process has ended; -1 if none. Does not block. */
int troupe_watch_look(const struct troupe_watch *watch);
void troupe_watch_close(struct troupe_watch *watch);

#endif
