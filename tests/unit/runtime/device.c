/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU device: memory, strided copies, fills, and events that are complete when recorded. */
#include "runtime/device.h"

#include "tests/test.h"

static troupe_device *device;
static troupe_stream *stream;

static void cpu_is_there_and_has_a_name(void) {
    EXPECT_EQ(troupe_device_count(TROUPE_DEVICE_CPU), 1);
    EXPECT_EQ(troupe_device_kind(device), TROUPE_DEVICE_CPU);
    EXPECT_STRING(troupe_device_name(device), "cpu");
    EXPECT(troupe_stream_device(stream) == device);
    EXPECT(troupe_stream_workers(stream) == NULL);
}

static void stream_hands_out_the_team_of_its_device(void) {
    troupe_workers *workers = NULL;
    EXPECT_OK(troupe_workers_create(&(struct troupe_workers_options){.count = 2}, &workers));
    troupe_device *own = NULL;
    troupe_stream *own_stream = NULL;
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CPU,
                                 &(struct troupe_device_options){.workers = workers}, &own));
    EXPECT_OK(troupe_stream_create(own, &own_stream));
    EXPECT(troupe_stream_workers(own_stream) == workers);
    troupe_stream_destroy(own_stream);
    troupe_device_close(own);
    troupe_workers_destroy(workers);
}

static void memory_is_aligned_and_zero(void) {
    unsigned char *memory = NULL;
    EXPECT_OK(troupe_device_alloc(device, 1000, (void **)&memory));
    EXPECT_EQ((uintptr_t)memory % 64, 0);
    for (int i = 0; i < 1000; i++) {
        EXPECT_EQ(memory[i], 0);
    }
    troupe_device_free(device, memory);
    troupe_device_free(device, NULL);
}

static void impossible_memory_is_an_error(void) {
    void *memory = NULL;
    EXPECT_ERROR(troupe_device_alloc(device, SIZE_MAX, &memory), TROUPE_ERROR_MEMORY, "bytes");
    EXPECT(memory == NULL);
}

static void copy_moves_a_block_between_strides(void) {
    unsigned char from[3 * 5], to[3 * 7];
    for (int i = 0; i < 15; i++) {
        from[i] = (unsigned char)(i + 1);
    }
    memset(to, 0xee, sizeof to);
    const struct troupe_copy copy = {.to = to,
                                     .from = from,
                                     .rows = 3,
                                     .row_bytes = 4,
                                     .to_stride_bytes = 7,
                                     .from_stride_bytes = 5};
    EXPECT_OK(troupe_stream_copy(stream, &copy));
    for (int i = 0; i < 21; i++) {
        int row = i / 7, column = i % 7;
        EXPECT_EQ(to[i], column < 4 ? from[row * 5 + column] : 0xee);
    }
}

static void contiguous_and_empty_copies(void) {
    int from[6] = {1, 2, 3, 4, 5, 6}, to[6] = {0};
    struct troupe_copy copy = {.to = to,
                               .from = from,
                               .rows = 2,
                               .row_bytes = 12,
                               .to_stride_bytes = 12,
                               .from_stride_bytes = 12};
    EXPECT_OK(troupe_stream_copy(stream, &copy));
    EXPECT_EQ(memcmp(to, from, sizeof to), 0);
    copy = (struct troupe_copy){.row_bytes = 12}; /* no rows: the pointers may be NULL */
    EXPECT_OK(troupe_stream_copy(stream, &copy));
    EXPECT_OK(troupe_stream_fill_zero(stream, to, 8));
    EXPECT_EQ(to[1], 0);
    EXPECT_EQ(to[2], 3);
    EXPECT_OK(troupe_stream_fill_zero(stream, NULL, 0));
}

static void event_is_complete_when_recorded(void) {
    troupe_event *event = NULL;
    EXPECT_OK(troupe_event_create(device, &event));
    EXPECT_OK(troupe_event_record(event, stream));
    EXPECT_OK(troupe_event_query(event));
    EXPECT_OK(troupe_stream_wait(stream, event));
    EXPECT_OK(troupe_stream_synchronize(stream));
    troupe_event_destroy(event);
}

static void kind_that_is_not_built_in_is_refused(void) {
    if (troupe_device_count(TROUPE_DEVICE_CUDA) == 0) {
        troupe_device *gpu = NULL;
        troupe_status status =
            troupe_device_open(TROUPE_DEVICE_CUDA, &(struct troupe_device_options){0}, &gpu);
        EXPECT(status < 0, "opened a GPU where there is none");
        EXPECT(strstr(troupe_last_error(), "cuda") != NULL, "%s", troupe_last_error());
    }
    troupe_device_close(NULL);
}

int main(void) {
    EXPECT_OK(troupe_device_open(TROUPE_DEVICE_CPU, &(struct troupe_device_options){0}, &device));
    EXPECT_OK(troupe_stream_create(device, &stream));
    TEST(cpu_is_there_and_has_a_name);
    TEST(stream_hands_out_the_team_of_its_device);
    TEST(memory_is_aligned_and_zero);
    TEST(impossible_memory_is_an_error);
    TEST(copy_moves_a_block_between_strides);
    TEST(contiguous_and_empty_copies);
    TEST(event_is_complete_when_recorded);
    TEST(kind_that_is_not_built_in_is_refused);
    troupe_stream_destroy(stream);
    troupe_device_close(device);
    return TEST_END();
}
