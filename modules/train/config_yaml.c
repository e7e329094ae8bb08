/* SPDX-License-Identifier: Apache-2.0 */
/* Config files, by libyaml; config_none.c stands in where that is not built in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "modules/train/config_internal.h"

struct yaml_walk {
    struct troupe_config *config;
    const char *path; /* of the file */
    yaml_document_t *document;
};

static const char *where_is(const struct yaml_walk *walk, const yaml_node_t *node, char *out,
                            size_t bytes) {
    snprintf(out, bytes, "%s:%zu", walk->path, node->start_mark.line + 1);
    return out;
}

/* [a, b] of scalars back to text, so that files and --set share one parser. */
static troupe_status sequence_text(const struct yaml_walk *walk, const yaml_node_t *node, char *out,
                                   size_t bytes) {
    size_t used = (size_t)snprintf(out, bytes, "[");
    for (yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++) {
        const yaml_node_t *value = yaml_document_get_node(walk->document, *item);
        if (value->type != YAML_SCALAR_NODE || used + value->data.scalar.length + 4 > bytes) {
            return TROUPE_ERROR_INVALID;
        }
        used += (size_t)snprintf(out + used, bytes - used, "%s%s", used > 1 ? ", " : "",
                                 (const char *)value->data.scalar.value);
    }
    snprintf(out + used, bytes - used, "]");
    return TROUPE_OK;
}

static troupe_status read_mapping(const struct yaml_walk *walk, const yaml_node_t *node,
                                  const char *prefix);

static troupe_status read_entry(const struct yaml_walk *walk, const yaml_node_t *name,
                                const yaml_node_t *value, const char *prefix) {
    char where[TROUPE_CONFIG_TEXT_BYTES], path[TROUPE_CONFIG_TEXT_BYTES];
    char text[TROUPE_CONFIG_TEXT_BYTES];
    where_is(walk, name, where, sizeof where);
    if (name->type != YAML_SCALAR_NODE) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: a key must be a word", where);
    }
    int used = snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
                        (const char *)name->data.scalar.value);
    if (used >= (int)sizeof path) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: key longer than %zu bytes", where,
                           sizeof path);
    }
    switch (value->type) {
    case YAML_MAPPING_NODE:
        if (!troupe_config_is_section(path)) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s: unknown key '%s'; did you mean '%s'?",
                               where, path, troupe_config_nearest_key(path));
        }
        return read_mapping(walk, value, path);
    case YAML_SEQUENCE_NODE:
        if (sequence_text(walk, value, text, sizeof text) != TROUPE_OK) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s: %s: the list is too long or nested",
                               where, path);
        }
        return troupe_config_set_key(walk->config, where, path, text);
    default:
        if (troupe_config_is_section(path)) {
            return troupe_fail(TROUPE_ERROR_INVALID, "%s: %s must be a mapping {key: value}", where,
                               path);
        }
        return troupe_config_set_key(walk->config, where, path,
                                     (const char *)value->data.scalar.value);
    }
}

static troupe_status read_mapping(const struct yaml_walk *walk, const yaml_node_t *node,
                                  const char *prefix) {
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(walk->document, pair->key);
        for (yaml_node_pair_t *other = node->data.mapping.pairs.start; other < pair; other++) {
            const yaml_node_t *earlier = yaml_document_get_node(walk->document, other->key);
            if (name->type == YAML_SCALAR_NODE && earlier->type == YAML_SCALAR_NODE &&
                strcmp((char *)name->data.scalar.value, (char *)earlier->data.scalar.value) == 0) {
                return troupe_fail(TROUPE_ERROR_INVALID, "%s:%zu: key '%s' stands here twice",
                                   walk->path, name->start_mark.line + 1,
                                   (char *)name->data.scalar.value);
            }
        }
        TROUPE_TRY(
            read_entry(walk, name, yaml_document_get_node(walk->document, pair->value), prefix));
    }
    return TROUPE_OK;
}

/* A file may hold a whole config, or only a section of it with or without its name. */
static const char *prefix_of(const struct yaml_walk *walk, const yaml_node_t *root,
                             const char *section) {
    if (section == NULL) {
        return "";
    }
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(walk->document, pair->key);
        if (name->type == YAML_SCALAR_NODE &&
            strcmp((const char *)name->data.scalar.value, section) == 0) {
            return "";
        }
    }
    return section;
}

static troupe_status read_document(struct troupe_config *config, const char *path,
                                   const char *section, yaml_parser_t *parser) {
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s:%zu: not YAML: %s", path,
                           parser->problem_mark.line + 1, parser->problem);
    }
    struct yaml_walk walk = {.config = config, .path = path, .document = &document};
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    troupe_status status = TROUPE_OK;
    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        status = troupe_fail(TROUPE_ERROR_INVALID, "%s: the file holds no mapping of keys", path);
    } else {
        status = read_mapping(&walk, root, prefix_of(&walk, root, section));
    }
    yaml_document_delete(&document);
    return status;
}

troupe_status troupe_config_read_file(struct troupe_config *config, const char *path,
                                      const char *section) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        fclose(file);
        return troupe_fail(TROUPE_ERROR_MEMORY, "%s: no memory for the YAML parser", path);
    }
    yaml_parser_set_input_file(&parser, file);
    troupe_status status = read_document(config, path, section, &parser);
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}
