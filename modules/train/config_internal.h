/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the keys of a config (config.c) and the files that set them (config_yaml.c).
 *
 * Ownership, threads and failure: as in config.h.
 */
#ifndef TROUPE_MODULES_TRAIN_CONFIG_INTERNAL_H
#define TROUPE_MODULES_TRAIN_CONFIG_INTERNAL_H

#include <stdbool.h>

#include "modules/train/config.h"

/* `where` is "demo.yaml:12" or "--set". */
troupe_status troupe_config_set_key(struct troupe_config *config, const char *where,
                                    const char *path, const char *text);
const char *troupe_config_nearest_key(const char *path);
/* Whether keys begin with the path and a dot. */
bool troupe_config_is_section(const char *path);
/* Reads a file over what is there: a whole config, or a section of it with or without its name. */
troupe_status troupe_config_read_file(struct troupe_config *config, const char *path,
                                      const char *section);

#endif
