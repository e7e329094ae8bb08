/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/caption_internal.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <string.h>

#include "runtime/memory.h"

struct troupe_span troupe_caption_trim(const char *text, size_t bytes) {
    size_t begin = 0, end = bytes;
    while (begin < end && isspace((unsigned char)text[begin])) {
        begin++;
    }
    while (end > begin && isspace((unsigned char)text[end - 1])) {
        end--;
    }
    return (struct troupe_span){.begin = begin, .bytes = end - begin};
}

size_t troupe_caption_cut(const char *text, size_t bytes, size_t bytes_max) {
    if (bytes <= bytes_max) {
        return bytes;
    }
    size_t cut = bytes_max;
    while (cut > 0 && ((unsigned char)text[cut] & 0xc0) == 0x80) { /* inside a character */
        cut--;
    }
    return cut;
}

static troupe_status copy_caption(const cJSON *object, const char *name, char **out) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, "text");
    if (item == NULL) {
        item = cJSON_GetObjectItemCaseSensitive(object, "caption");
    }
    if (!cJSON_IsString(item)) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: no string \"text\" or \"caption\" in it", name);
    }
    const char *text = item->valuestring;
    struct troupe_span span = troupe_caption_trim(text, strlen(text));
    char *copy = NULL;
    TROUPE_TRY(TROUPE_NEW(&copy, span.bytes + 1));
    memcpy(copy, text + span.begin, span.bytes);
    *out = copy;
    return TROUPE_OK;
}

troupe_status troupe_caption_of_json(const char *json, size_t bytes, const char *name, char **out) {
    cJSON *object = cJSON_ParseWithLength(json, bytes);
    if (object == NULL) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: not valid JSON", name);
    }
    troupe_status status = copy_caption(object, name, out);
    cJSON_Delete(object);
    return status;
}
