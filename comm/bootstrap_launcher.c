/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "comm/bootstrap.h"
#include "runtime/check.h"

/* The launchers' own variables; Troupe's are in runtime/options.h. */
int troupe_launcher_size(void) {
    static const char *const names[] = {
        "OMPI_COMM_WORLD_SIZE", /* mpirun */
        "SLURM_STEP_NUM_TASKS", /* srun */
        "PMI_SIZE",             /* others */
    };
    for (size_t i = 0; i < TROUPE_COUNT_OF(names); i++) {
        const char *text = getenv(names[i]); /* launcher's */
        if (text != NULL && atoi(text) > 0) {
            return atoi(text);
        }
    }
    return 1;
}
