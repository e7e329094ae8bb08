/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/policy_internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char *name_of(const void *table) {
    return *(const char *const *)table;
}

static troupe_status load(const struct troupe_policy_kind *kind, const char *path,
                          const void **out) {
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID, "policy %s cannot be loaded: %s", path, dlerror());
    }
    troupe_status status = TROUPE_OK;
    const void *table = dlsym(object, kind->symbol);
    if (table == NULL) {
        status = troupe_fail(TROUPE_ERROR_INVALID,
                             "policy %s does not define %s; export a constant table of that name",
                             path, kind->symbol);
    } else if (name_of(table) == NULL || !kind->complete(table)) {
        status = troupe_fail(TROUPE_ERROR_INVALID, "%s %s leaves %s empty", kind->what, path,
                             kind->required);
    }
    if (status != TROUPE_OK) {
        dlclose(object);
        return status;
    }
    *out = table;
    return TROUPE_OK;
}

troupe_status troupe_policy_find(const struct troupe_policy_kind *kind, const char *name,
                                 const void **out) {
    if (strchr(name, '/') != NULL) {
        return load(kind, name, out);
    }
    char known[256] = "";
    for (int i = 0; i < kind->builtin_count; i++) {
        if (strcmp(name_of(kind->builtin[i]), name) == 0) {
            *out = kind->builtin[i];
            return TROUPE_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                 name_of(kind->builtin[i]));
    }
    return troupe_fail(TROUPE_ERROR_INVALID,
                       "%s \"%s\" is not known; there are %s, or the path of a shared object with "
                       "a / in it",
                       kind->what, name, known);
}
