/* SPDX-License-Identifier: Apache-2.0
 *
 * NCCL's results as statuses with a sentence; needs the library, but no GPU.
 */
#include "comm/nccl_internal.h"
#include "tests/test.h"

static troupe_status try(ncclResult_t result) {
    TROUPE_TRY_NCCL(result);
    return TROUPE_OK;
}

static void results_become_statuses(void) {
    EXPECT_EQ(try(ncclSuccess), TROUPE_OK);
    EXPECT_EQ(try(ncclInProgress), TROUPE_AGAIN);
    EXPECT_ERROR(try(ncclRemoteError), TROUPE_ERROR_PEER, "remote process");
    EXPECT_ERROR(try(ncclInvalidUsage), TROUPE_ERROR_INVALID, "invalid usage");
    EXPECT_ERROR(try(ncclInvalidArgument), TROUPE_ERROR_INVALID, "invalid argument");
    EXPECT_ERROR(try(ncclUnhandledCudaError), TROUPE_ERROR_DEVICE, "cuda error");
    EXPECT_ERROR(try(ncclSystemError), TROUPE_ERROR_TRANSPORT, "system error");
    EXPECT_ERROR(try(ncclInternalError), TROUPE_ERROR_TRANSPORT, "internal error");
}

static void the_sentence_names_the_call_and_a_remedy(void) {
    EXPECT_ERROR(troupe_nccl_status(ncclSystemError, "ncclSend"), TROUPE_ERROR_TRANSPORT,
                 "ncclSend: ");
    EXPECT_ERROR(troupe_nccl_status(ncclSystemError, "ncclSend"), TROUPE_ERROR_TRANSPORT,
                 "NCCL_DEBUG=WARN");
}

int main(void) {
    TEST(results_become_statuses);
    TEST(the_sentence_names_the_call_and_a_remedy);
    return TEST_END();
}
