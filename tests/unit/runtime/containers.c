/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive lists, object pools and arenas: order, exhaustion, and no allocation in use. */
#include "runtime/arena.h"
#include "runtime/list.h"
#include "runtime/memory.h"
#include "runtime/pool.h"
#include "tests/test.h"

struct item {
    int id;
    struct troupe_list_node link;
};

static void expect_ids(const struct troupe_list *list, const char *expected) {
    char ids[16] = "";
    size_t count = 0;
    TROUPE_LIST_EACH(node, list) {
        ids[count++] = (char)('0' + TROUPE_CONTAINER_OF(node, struct item, link)->id);
    }
    EXPECT_STRING(ids, expected);
}

static void list_keeps_order_and_lets_go_in_the_middle(void) {
    struct troupe_list list;
    struct item items[5] = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}};
    troupe_list_init(&list);
    EXPECT(troupe_list_is_empty(&list));
    EXPECT(troupe_list_pop_front(&list) == NULL);
    troupe_list_push_back(&list, &items[1].link);
    troupe_list_push_back(&list, &items[3].link);
    troupe_list_push_front(&list, &items[0].link);
    troupe_list_push_back(&list, &items[4].link);
    troupe_list_insert_before(&items[3].link, &items[2].link);
    expect_ids(&list, "01234");
    troupe_list_remove(&items[2].link);
    troupe_list_remove(&items[2].link);
    expect_ids(&list, "0134");
    EXPECT(troupe_list_pop_front(&list) == &items[0].link);
    troupe_list_push_back(&list, &items[0].link);
    expect_ids(&list, "1340");
}

static void pool_hands_out_each_object_once(void) {
    enum { COUNT = 10, BYTES = 70 };
    troupe_pool *pool = NULL;
    const struct troupe_pool_options options = {.object_bytes = BYTES, .count = COUNT};
    EXPECT_OK(troupe_pool_create(&options, &pool));
    troupe_memory_set_steady(true); /* from here an allocation aborts */
    unsigned char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) {
        EXPECT_EQ(troupe_pool_free_count(pool), COUNT - i);
        objects[i] = troupe_pool_take(pool);
        EXPECT(objects[i] != NULL);
        EXPECT_EQ((uintptr_t)objects[i] % TROUPE_CACHE_LINE, 0);
        EXPECT_EQ(objects[i][BYTES - 1], 0);
        memset(objects[i], i + 1, BYTES);
    }
    EXPECT(troupe_pool_take(pool) == NULL);
    for (int i = 0; i < COUNT; i++) {
        EXPECT_EQ(objects[i][0], i + 1);
        EXPECT_EQ(objects[i][BYTES - 1], i + 1);
    }
    troupe_pool_give(pool, objects[3]);
    EXPECT(troupe_pool_take(pool) == objects[3], "the last one given is the first one taken");
    troupe_memory_set_steady(false);
    troupe_pool_destroy(pool);
    troupe_pool_destroy(NULL);
}

static void impossible_pool_is_an_error(void) {
    troupe_pool *pool = NULL;
    const struct troupe_pool_options options = {.object_bytes = 64, .count = SIZE_MAX / 8};
    EXPECT_ERROR(troupe_pool_create(&options, &pool), TROUPE_ERROR_MEMORY, "address space");
    EXPECT(pool == NULL);
}

static void arena_pieces_follow_each_other_until_the_slab_ends(void) {
    enum { SLAB = 1024 };
    _Alignas(TROUPE_ARENA_ALIGNMENT) char slab[SLAB];
    struct troupe_arena arena;
    troupe_arena_init(&arena, slab, SLAB);
    void *a = NULL, *b = NULL, *c = NULL, *d = NULL;
    EXPECT_OK(troupe_arena_take(&arena, 1, &a));
    EXPECT_OK(troupe_arena_take(&arena, 256, &b));
    EXPECT_OK(troupe_arena_take(&arena, 257, &c));
    EXPECT(a == slab && b == slab + 256 && c == slab + 512);
    EXPECT_ERROR(troupe_arena_take(&arena, 1, &d), TROUPE_ERROR_MEMORY, "1024 in use");
    EXPECT_ERROR(troupe_arena_take(&arena, SIZE_MAX, &d), TROUPE_ERROR_MEMORY, "no room");
    EXPECT(d == NULL);
    EXPECT_OK(troupe_arena_take(&arena, 0, &d));
    troupe_arena_reset(&arena);
    EXPECT_OK(troupe_arena_take(&arena, SLAB, &d));
    EXPECT(d == slab);
    EXPECT_EQ(arena.used_max, SLAB);
}

static void plan_adds_up_to_what_is_used(void) {
    static const size_t sizes[] = {0, 1, 255, 256, 1000};
    size_t planned = 0;
    for (int i = 0; i < 5; i++) {
        planned += troupe_arena_piece_bytes(sizes[i]);
    }
    struct troupe_arena arena;
    troupe_arena_init(&arena, &arena, planned); /* the slab is never touched */
    void *piece = NULL;
    for (int i = 0; i < 5; i++) {
        EXPECT_OK(troupe_arena_take(&arena, sizes[i], &piece));
    }
    EXPECT_EQ(arena.used, planned);
}

int main(void) {
    TEST(list_keeps_order_and_lets_go_in_the_middle);
    TEST(pool_hands_out_each_object_once);
    TEST(impossible_pool_is_an_error);
    TEST(arena_pieces_follow_each_other_until_the_slab_ends);
    TEST(plan_adds_up_to_what_is_used);
    return TEST_END();
}
