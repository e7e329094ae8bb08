/* SPDX-License-Identifier: Apache-2.0
 *
 * An intrusive, circular, doubly linked list: the links sit inside the objects, so nothing is
 * allocated and an object leaves its list without a search.
 *
 *     struct task { int id; struct troupe_list_node link; };
 *     troupe_list_push_back(&ready, &task->link);
 *     TROUPE_LIST_EACH(node, &ready) {
 *         struct task *t = TROUPE_CONTAINER_OF(node, struct task, link);
 *     }
 *
 * Ownership: the list owns nothing. Threads: one at a time. Failure: none. An object is in at most
 * one list per node; the loop body must not remove its own node.
 */
#ifndef TROUPE_RUNTIME_LIST_H
#define TROUPE_RUNTIME_LIST_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TROUPE_CONTAINER_OF(pointer, type, member)                                                 \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* A node outside any list points to itself; a list is a node that is no object's. */
struct troupe_list_node {
    struct troupe_list_node *next;
    struct troupe_list_node *previous;
};
struct troupe_list {
    struct troupe_list_node head;
};

#define TROUPE_LIST_EACH(node, list)                                                               \
    for (struct troupe_list_node *node = (list)->head.next; node != &(list)->head;                 \
         node = node->next)

static inline void troupe_list_init(struct troupe_list *list) {
    list->head.next = list->head.previous = &list->head;
}

static inline bool troupe_list_is_empty(const struct troupe_list *list) {
    return list->head.next == &list->head;
}

/* Puts `node` in front of `place`, a node of a list or its head. */
static inline void troupe_list_insert_before(struct troupe_list_node *place,
                                             struct troupe_list_node *node) {
    node->previous = place->previous;
    node->next = place;
    place->previous->next = node;
    place->previous = node;
}

static inline void troupe_list_push_back(struct troupe_list *list, struct troupe_list_node *node) {
    troupe_list_insert_before(&list->head, node);
}

static inline void troupe_list_push_front(struct troupe_list *list, struct troupe_list_node *node) {
    troupe_list_insert_before(list->head.next, node);
}

/* Takes the node out of its list; a removed node may be removed again, which does nothing. */
static inline void troupe_list_remove(struct troupe_list_node *node) {
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = node;
}

/* The first node, taken out, or NULL. */
static inline struct troupe_list_node *troupe_list_pop_front(struct troupe_list *list) {
    if (troupe_list_is_empty(list)) {
        return NULL;
    }
    struct troupe_list_node *node = list->head.next;
    troupe_list_remove(node);
    return node;
}

#ifdef __cplusplus
}
#endif
#endif
