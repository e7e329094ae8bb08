/* SPDX-License-Identifier: Apache-2.0
 *
 * Captions inside member bytes.
 *
 * Ownership: nothing is kept; a JSON caption is freed with troupe_free. Threads: any.
 * Failure: ERROR_DATA naming the member.
 */
#ifndef TROUPE_MODULES_DATA_CAPTION_INTERNAL_H
#define TROUPE_MODULES_DATA_CAPTION_INTERNAL_H

#include <stddef.h>

#include "runtime/status.h"

/* A part of a text. */
struct troupe_span {
    size_t begin;
    size_t bytes;
};

/* Without white space at both ends. */
struct troupe_span troupe_caption_trim(const char *text, size_t bytes);

/* At most `bytes_max` bytes of a UTF-8 text, ending at a whole character. */
size_t troupe_caption_cut(const char *text, size_t bytes, size_t bytes_max);

/* The string "text" or, if there is none, "caption" of a JSON object, trimmed; *out is freed with
 * troupe_free. */
troupe_status troupe_caption_of_json(const char *json, size_t bytes, const char *name, char **out);

#endif
