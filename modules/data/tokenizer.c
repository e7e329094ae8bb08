/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/tokenizer.h"

#include "runtime/check.h"

int64_t troupe_tokenizer_encode(const char *text, size_t bytes, int32_t *tokens_out) {
    for (size_t i = 0; i < bytes; i++) {
        tokens_out[i] = (unsigned char)text[i];
    }
    return (int64_t)bytes;
}

size_t troupe_tokenizer_decode(const int32_t *tokens, int64_t count, char *text_out,
                               size_t capacity) {
    TROUPE_ASSERT(capacity > 0, "no room for the closing zero byte");
    size_t length = 0;
    for (int64_t i = 0; i < count && length + 1 < capacity; i++) {
        if (tokens[i] >= 0 && tokens[i] < TROUPE_TOKEN_BEGIN) {
            text_out[length++] = (char)tokens[i];
        }
    }
    text_out[length] = '\0';
    return length;
}
