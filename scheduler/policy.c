/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/policy_internal.h"

#include <dlfcn.h>
#include <string.h>

bool troupe_policy_is_path(const char *name) {
    return strchr(name, '/') != NULL;
}

troupe_status troupe_policy_load(const char *path, const char *symbol, const void **out) {
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID, "policy %s cannot be loaded: %s", path, dlerror());
    }
    const void *table = dlsym(object, symbol);
    if (table == NULL) {
        dlclose(object);
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "policy %s does not define %s; export a constant table of that name",
                           path, symbol);
    }
    *out = table;
    return TROUPE_OK;
}
