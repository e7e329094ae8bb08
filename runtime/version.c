/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/version.h"

const char *troupe_version(void) {
    return TROUPE_PROJECT_VERSION; /* from runtime/CMakeLists.txt */
}
