/* SPDX-License-Identifier: Apache-2.0
 *
 * What a GPU says that a kernel has broken, then and at every later call.
 */
#include "tests/kernels/kernel_case.h"

static void a_kernel_that_fails_loses_the_device_for_good(void) {
    float *nowhere = (float *)(uintptr_t)0x1000;
    struct troupe_fill op = {1.0f, {nowhere, 1, 1, 1, TROUPE_FLOAT32}};
    EXPECT_OK(troupe_kernels_for(TROUPE_DEVICE_CUDA)->fill(gpu.stream, &op));
    EXPECT_ERROR(troupe_stream_synchronize(gpu.stream), TROUPE_ERROR_DEVICE, "illegal");
    EXPECT(strstr(troupe_last_error(), "lost to this process") != NULL, "%s", troupe_last_error());
    EXPECT_ERROR(troupe_stream_fill_zero(gpu.stream, gpu.cell, 8), TROUPE_ERROR_DEVICE, "lost");
    void *memory = NULL;
    EXPECT_ERROR(troupe_device_alloc(gpu.device, 8, &memory), TROUPE_ERROR_DEVICE, "lost");
    printf("  said: %s\n", troupe_last_error());
}

int main(int argc, char **argv) {
    kernel_test_begin(argc, argv);
    EXPECT(gpu.device != NULL, "usage: failure cuda");
    TEST(a_kernel_that_fails_loses_the_device_for_good);
    return kernel_test_end();
}
