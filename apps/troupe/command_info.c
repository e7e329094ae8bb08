/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe info`: the machine, and what this build can do. */
#include <stdio.h>

#include "apps/troupe/arguments.h"
#include "runtime/device.h"
#include "runtime/options.h"
#include "runtime/topology.h"
#include "runtime/version.h"
#include "scheduler/order.h"
#include "scheduler/place.h"

static troupe_status print_machine(void) {
    troupe_topology *topology = NULL;
    TROUPE_TRY(troupe_topology_open(&(struct troupe_topology_options){0}, &topology));
    printf("machine\n");
    troupe_topology_print(topology, stdout);
    troupe_topology_close(topology);
    return TROUPE_OK;
}

static troupe_status print_devices(void) {
    static const enum troupe_device_kind kinds[] = {TROUPE_DEVICE_CPU, TROUPE_DEVICE_CUDA};
    printf("\ndevices\n");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int i = 0; i < troupe_device_count(kinds[k]); i++) {
            troupe_device *device = NULL;
            char bus[32];
            TROUPE_TRY(
                troupe_device_open(kinds[k], &(struct troupe_device_options){.index = i}, &device));
            troupe_device_locate(kinds[k], i, bus, sizeof bus);
            printf("  %s%s%s\n", troupe_device_name(device), bus[0] != '\0' ? ", GPU " : "", bus);
            troupe_device_close(device);
        }
        if (troupe_device_count(kinds[k]) == 0) {
            char why[128];
            troupe_device_summary(kinds[k], why, sizeof why);
            printf("  %s\n", why);
        }
    }
    return TROUPE_OK;
}

static void print_policies(void) {
    printf("\nplacement policies\n");
    for (int i = 0; troupe_place_builtin(i) != NULL; i++) {
        printf("  %-12s %s\n", troupe_place_builtin(i)->name, troupe_place_builtin(i)->summary);
    }
    printf("\norder policies\n");
    for (int i = 0; troupe_order_builtin(i) != NULL; i++) {
        printf("  %-12s %s\n", troupe_order_builtin(i)->name, troupe_order_builtin(i)->summary);
    }
}

static troupe_status print_all(void) {
    struct troupe_options environment;
    TROUPE_TRY(troupe_options_read(&environment));
    printf("troupe %s\n\n", troupe_version());
    TROUPE_TRY(print_machine());
    TROUPE_TRY(print_devices());
    printf("\ntransports\n  %s\n", TROUPE_TRANSPORTS);
    printf("\nlibraries\n  %s\n", TROUPE_LIBRARIES);
    print_policies();
    printf("\noptions in the environment\n");
    troupe_options_print(&environment, stdout);
    return TROUPE_OK;
}

static int run(int argc, char **argv) {
    const struct argument options[] = {{0}};
    int operands = arguments_parse(&command_info, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands > 0) {
        return command_usage(&command_info, "%s: info takes no operand", argv[1]);
    }
    return command_end(&command_info, print_all());
}

const struct command command_info = {
    .name = "info",
    .usage = "info",
    .summary = "shows the machine, devices, transports, policies, options and versions",
    .help = "The machine is what hwloc sees; options in the environment are listed with their\n"
            "present value and what they accept.\n",
    .run = run,
};
