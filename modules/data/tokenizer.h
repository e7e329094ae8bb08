/* SPDX-License-Identifier: Apache-2.0
 *
 * The byte-level tokenizer: 256 bytes, then begin, end, padding, image, audio. A caption becomes
 * its UTF-8 bytes, so every text can be encoded and nothing is unknown.
 *
 *     int64_t count = troupe_tokenizer_encode(text, bytes, tokens);
 *     size_t length = troupe_tokenizer_decode(tokens, count, text, sizeof text);
 *
 * Ownership: none. Threads: any, pure. Failure: none.
 */
#ifndef TROUPE_MODULES_DATA_TOKENIZER_H
#define TROUPE_MODULES_DATA_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TROUPE_TOKEN_BEGIN = 256,
    TROUPE_TOKEN_END,
    TROUPE_TOKEN_PADDING,
    TROUPE_TOKEN_IMAGE,
    TROUPE_TOKEN_AUDIO,
    TROUPE_TOKEN_COUNT, /* vocabulary of the byte tokenizer */
};

/* One token a byte into tokens_out (bytes of them); returns their number. */
int64_t troupe_tokenizer_encode(const char *text, size_t bytes, int32_t *tokens_out);
/* Writes the bytes of byte tokens, leaves out the others, ends with a zero byte; returns the length
 * of the text, at most capacity - 1. */
size_t troupe_tokenizer_decode(const int32_t *tokens, int64_t count, char *text_out,
                               size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
