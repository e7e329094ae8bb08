/* SPDX-License-Identifier: Apache-2.0 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "modules/checkpoint/safetensors_internal.h"
#include "runtime/memory.h"

static const char metadata_key[] = "__metadata__";

int64_t tensor_bytes(const struct troupe_file_tensor *tensor) {
    int64_t bytes = sizeof(float);
    for (int d = 0; d < tensor->dimensions; d++) {
        if (tensor->shape[d] < 0 || __builtin_mul_overflow(bytes, tensor->shape[d], &bytes)) {
            return -1;
        }
    }
    return bytes;
}

static cJSON *number_list(const int64_t *numbers, int count) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < count; i++) {
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)numbers[i]));
    }
    return list;
}

/* cJSON returns NULL where memory is short; its calls accept NULL and the print then fails. */
static cJSON *content_json(const struct troupe_file_content *content) {
    cJSON *root = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(root, metadata_key);
    for (int i = 0; i < content->metadata_count; i++) {
        cJSON_AddStringToObject(metadata, content->metadata[i].key, content->metadata[i].value);
    }
    int64_t offset = 0;
    for (int i = 0; i < content->tensor_count; i++) {
        const struct troupe_file_tensor *tensor = &content->tensors[i];
        int64_t offsets[2] = {offset, offset + tensor_bytes(tensor)};
        cJSON *entry = cJSON_AddObjectToObject(root, tensor->name);
        cJSON_AddStringToObject(entry, "dtype", "F32");
        cJSON_AddItemToObject(entry, "shape", number_list(tensor->shape, tensor->dimensions));
        cJSON_AddItemToObject(entry, "data_offsets", number_list(offsets, 2));
        offset = offsets[1];
    }
    return root;
}

troupe_status header_write(const struct troupe_file_content *content, char **out) {
    cJSON *root = content_json(content);
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (text == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "no memory for a header of %d tensors",
                           content->tensor_count);
    }
    size_t length = strlen(text);
    size_t padded = (length + 7) / 8 * 8;
    char *copy = NULL;
    troupe_status status = TROUPE_NEW(&copy, padded + 1);
    if (status == TROUPE_OK) {
        memset(copy, ' ', padded);
        memcpy(copy, text, length);
        *out = copy;
    }
    cJSON_free(text);
    return status;
}

/* A whole number in [0, 2^53]. */
static int64_t whole_number(const cJSON *item) {
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    return value >= 0 && value <= 9007199254740992.0 && value == (double)(int64_t)value
               ? (int64_t)value
               : -1;
}

static troupe_status bad(const char *path, const char *name, const char *what) {
    return troupe_fail(TROUPE_ERROR_DATA, "%s: bad safetensors header: tensor %s %s", path, name,
                       what);
}

static troupe_status read_entry(const char *path, const cJSON *item, int64_t data_bytes,
                                struct header_entry *entry) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    struct troupe_file_tensor *tensor = &entry->tensor;
    if (strlen(item->string) >= sizeof(tensor->name)) {
        return bad(path, item->string, "has too long a name");
    }
    memcpy(tensor->name, item->string, strlen(item->string) + 1);
    if (!cJSON_IsString(dtype) || strcmp(dtype->valuestring, "F32") != 0) {
        return bad(path, tensor->name, "is not of dtype F32");
    }
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) > TROUPE_FILE_DIMENSIONS_MAX) {
        return bad(path, tensor->name, "has no shape of at most 4 dimensions");
    }
    for (const cJSON *extent = shape->child; extent != NULL; extent = extent->next) {
        tensor->shape[tensor->dimensions++] = whole_number(extent);
    }
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2) {
        return bad(path, tensor->name, "has no two data_offsets");
    }
    entry->begin = whole_number(offsets->child);
    entry->end = whole_number(offsets->child->next);
    int64_t bytes = tensor_bytes(tensor);
    if (bytes < 0 || entry->begin < 0 || entry->end - entry->begin != bytes) {
        return bad(path, tensor->name, "has data_offsets that do not match its shape");
    }
    if (entry->end > data_bytes) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: truncated: tensor %s ends at data byte %lld of %lld", path,
                           tensor->name, (long long)entry->end, (long long)data_bytes);
    }
    return TROUPE_OK;
}

static troupe_status read_entries(const char *path, const cJSON *root, int64_t data_bytes,
                                  struct header *header) {
    TROUPE_TRY(TROUPE_NEW(&header->entries, cJSON_GetArraySize(root)));
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        if (strcmp(item->string, metadata_key) != 0) {
            TROUPE_TRY(read_entry(path, item, data_bytes, &header->entries[header->count]));
            header->count++;
        }
    }
    return TROUPE_OK;
}

troupe_status header_read(const char *path, const char *text, int64_t data_bytes,
                          struct header *out) {
    cJSON *root = cJSON_Parse(text);
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return troupe_fail(TROUPE_ERROR_DATA, "%s: bad safetensors header: not a JSON object",
                           path);
    }
    struct header header = {.json = root};
    troupe_status status = read_entries(path, root, data_bytes, &header);
    if (status != TROUPE_OK) {
        header_fini(&header);
        return status;
    }
    *out = header;
    return TROUPE_OK;
}

void header_fini(struct header *header) {
    cJSON_Delete(header->json);
    troupe_free(header->entries);
    *header = (struct header){0};
}

const char *header_metadata(const struct header *header, const char *key) {
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(header->json, metadata_key);
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, key));
}
