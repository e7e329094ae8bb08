/* SPDX-License-Identifier: Apache-2.0 */
/* A build without libyaml: a run is configured with --set. */
#include "modules/train/config_internal.h"

troupe_status troupe_config_read_file(struct troupe_config *config, const char *path,
                                      const char *section) {
    (void)config, (void)section;
    return troupe_fail(
        TROUPE_ERROR_UNSUPPORTED,
        "%s: this build reads no config files, for it has no libyaml; give every key "
        "with --set, or build with libyaml",
        path);
}
