/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU: memory, copies of all directions, order by events, staging. Skipped where there is none.
 */
#include "runtime/device_cuda.h"

#include "runtime/device.h"
#include "tests/test.h"

static troupe_device *device;
static troupe_stream *stream, *other;

enum { BIG = 64 << 20 };

static void copy_bytes(troupe_stream *s, void *to, const void *from, size_t bytes) {
    struct troupe_copy copy = {.to = to, .from = from, .rows = 1, .row_bytes = bytes};
    EXPECT_OK(troupe_stream_copy(s, &copy));
}

static void it_has_a_kind_and_a_name(void) {
    EXPECT_EQ(troupe_device_kind(device), TROUPE_DEVICE_CUDA);
    EXPECT(strncmp(troupe_device_name(device), "cuda 0: ", 8) == 0, "%s",
           troupe_device_name(device));
    EXPECT(troupe_stream_workers(stream) == NULL);
    char text[128];
    troupe_device_summary(TROUPE_DEVICE_CUDA, text, sizeof text);
    EXPECT(strstr(text, "cuda device") != NULL, "%s", text);
    troupe_device *none = NULL;
    EXPECT_ERROR(troupe_device_open(TROUPE_DEVICE_CUDA,
                                    &(struct troupe_device_options){.index = 1000}, &none),
                 TROUPE_ERROR_INVALID, "1000");
}

static void memory_is_aligned_and_zero(void) {
    unsigned char *memory = NULL, back[1000];
    memset(back, 0xee, sizeof back);
    EXPECT_OK(troupe_device_alloc(device, sizeof back, (void **)&memory));
    EXPECT_EQ((uintptr_t)memory % 256, 0);
    copy_bytes(stream, back, memory, sizeof back);
    EXPECT_OK(troupe_stream_synchronize(stream));
    for (size_t i = 0; i < sizeof back; i++) {
        EXPECT_EQ(back[i], 0);
    }
    troupe_device_free(device, memory);
    troupe_device_free(device, NULL);
}

static void impossible_memory_is_an_error_and_the_device_goes_on(void) {
    void *memory = NULL;
    EXPECT_ERROR(troupe_device_alloc(device, (size_t)1 << 50, &memory), TROUPE_ERROR_MEMORY,
                 "are free");
    EXPECT_ERROR(troupe_device_alloc_host(device, (size_t)1 << 50, &memory), TROUPE_ERROR_MEMORY,
                 "cudaHostAlloc");
    EXPECT(memory == NULL);
    EXPECT_OK(troupe_stream_synchronize(stream));
}

/* host -> device -> device -> host, each between other strides. */
static void copies_move_a_block_between_strides(void) {
    unsigned char from[3 * 5], to[3 * 7], *a = NULL, *b = NULL;
    for (int i = 0; i < 15; i++) {
        from[i] = (unsigned char)(i + 1);
    }
    memset(to, 0xee, sizeof to);
    EXPECT_OK(troupe_device_alloc(device, 3 * 9, (void **)&a));
    EXPECT_OK(troupe_device_alloc(device, 3 * 4, (void **)&b));
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){a, from, 3, 4, 9, 5}));
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){b, a, 3, 4, 4, 9}));
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){to, b, 3, 4, 7, 4}));
    EXPECT_OK(troupe_stream_synchronize(stream));
    for (int i = 0; i < 21; i++) {
        int row = i / 7, column = i % 7;
        EXPECT_EQ(to[i], column < 4 ? from[row * 5 + column] : 0xee);
    }
    EXPECT_OK(troupe_stream_copy(stream, &(struct troupe_copy){.row_bytes = 12}));
    troupe_device_free(device, a);
    troupe_device_free(device, b);
}

/* One stream moves a large block; the other waits for its event, then takes the last byte. */
static void an_event_orders_two_streams_and_the_host_does_not_wait(void) {
    char *from = NULL, *to = NULL, *at_end = NULL;
    troupe_event *event = NULL, *after = NULL;
    EXPECT_OK(troupe_device_alloc_host(device, BIG, (void **)&from));
    EXPECT_OK(troupe_device_alloc_host(device, 1, (void **)&at_end));
    EXPECT_OK(troupe_device_alloc(device, BIG, (void **)&to));
    EXPECT_OK(troupe_event_create(device, &event));
    EXPECT_OK(troupe_event_create(device, &after));
    from[BIG - 1] = 77;
    for (int i = 0; i < 8; i++) {
        copy_bytes(stream, to, from, BIG);
    }
    EXPECT_OK(troupe_event_record(event, stream));
    EXPECT_EQ(troupe_event_query(event), TROUPE_AGAIN); /* 512 MiB take longer than this line */
    EXPECT_OK(troupe_stream_wait(other, event));
    copy_bytes(other, at_end, to + BIG - 1, 1);
    EXPECT_OK(troupe_event_record(after, other));
    troupe_status status = TROUPE_AGAIN;
    while (status == TROUPE_AGAIN) {
        status = troupe_event_query(after);
    }
    EXPECT_OK(status);
    EXPECT_EQ(*at_end, 77);
    EXPECT_OK(troupe_event_query(event));
    troupe_event_destroy(event);
    troupe_event_destroy(after);
    troupe_device_free_host(device, from);
    troupe_device_free_host(device, at_end);
    troupe_device_free(device, to);
}

static void a_fill_is_ordered_with_copies(void) {
    int host[6] = {1, 2, 3, 4, 5, 6}, back[6] = {0}, *there = NULL;
    EXPECT_OK(troupe_device_alloc(device, sizeof host, (void **)&there));
    copy_bytes(stream, there, host, sizeof host);
    EXPECT_OK(troupe_stream_fill_zero(stream, there, 8));
    EXPECT_OK(troupe_stream_fill_zero(stream, NULL, 0));
    copy_bytes(stream, back, there, sizeof host);
    EXPECT_OK(troupe_stream_synchronize(stream));
    EXPECT_EQ(back[1], 0);
    EXPECT_EQ(back[2], 3);
    troupe_device_free(device, there);
}

/* Laps the ring several times; the host array changes as soon as a call returns. */
static void staged_arrays_arrive_as_they_were(void) {
    enum { COUNT = 250000, ROUNDS = 100 };
    int *there = NULL, *back = NULL;
    static int host[COUNT];
    EXPECT_OK(troupe_device_alloc(device, sizeof(int) * ROUNDS * COUNT, (void **)&there));
    EXPECT_OK(troupe_device_alloc_host(device, sizeof(int) * ROUNDS * COUNT, (void **)&back));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < COUNT; i++) {
            host[i] = round * COUNT + i;
        }
        const void *staged = NULL;
        struct troupe_copy from = {.from = host, .rows = 1, .row_bytes = sizeof host};
        EXPECT_OK(troupe_cuda_stage(stream, &from, &staged));
        copy_bytes(stream, there + round * COUNT, staged, sizeof host);
    }
    copy_bytes(stream, back, there, sizeof(int) * ROUNDS * COUNT);
    EXPECT_OK(troupe_stream_synchronize(stream));
    for (int i = 0; i < ROUNDS * COUNT; i++) {
        EXPECT_EQ(back[i], i);
    }
    troupe_device_free(device, there);
    troupe_device_free_host(device, back);
}

static void an_array_that_does_not_fit_the_ring_is_an_error(void) {
    static char host[TROUPE_CUDA_STAGE_BYTES + 1];
    const void *staged = NULL;
    struct troupe_copy from = {.from = host, .rows = 1, .row_bytes = sizeof host};
    EXPECT_ERROR(troupe_cuda_stage(stream, &from, &staged), TROUPE_ERROR_MEMORY, "staging");
}

int main(void) {
    char text[128];
    troupe_device_summary(TROUPE_DEVICE_CUDA, text, sizeof text);
    printf("  %s\n", text);
    if (troupe_device_count(TROUPE_DEVICE_CUDA) == 0) {
        return TEST_SKIPPED;
    }
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CUDA, &(struct troupe_device_options){0}, &device));
    EXPECT_OK(troupe_stream_create(device, &stream));
    EXPECT_OK(troupe_stream_create(device, &other));
    TEST(it_has_a_kind_and_a_name);
    TEST(memory_is_aligned_and_zero);
    TEST(impossible_memory_is_an_error_and_the_device_goes_on);
    TEST(copies_move_a_block_between_strides);
    TEST(an_event_orders_two_streams_and_the_host_does_not_wait);
    TEST(a_fill_is_ordered_with_copies);
    TEST(staged_arrays_arrive_as_they_were);
    TEST(an_array_that_does_not_fit_the_ring_is_an_error);
    troupe_stream_destroy(stream);
    troupe_stream_destroy(other);
    troupe_device_close(device);
    return TEST_END();
}
