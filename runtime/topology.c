/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

enum { RANGE_BYTES = 256, PCI_VENDOR_NVIDIA = 0x10de, PCI_CLASS_DISPLAY = 0x03 };

struct troupe_topology {
    hwloc_topology_t machine;
    hwloc_bitmap_t usable; /* OS processors in the cpuset */
    hwloc_obj_type_t unit; /* cores, or processors where the system shows no cores */
    int *usable_cores;     /* logical indices of the units that touch `usable`, ascending */
    int usable_core_count;
};

static hwloc_obj_t core_at(const troupe_topology *t, int logical) {
    return hwloc_get_obj_by_type(t->machine, t->unit, (unsigned)logical);
}

static int count_of(const troupe_topology *t, hwloc_obj_type_t type) {
    int count = hwloc_get_nbobjs_by_type(t->machine, type);
    return count > 0 ? count : 0;
}

static troupe_status load(troupe_topology *t, const char *synthetic) {
    if (hwloc_topology_init(&t->machine) != 0) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "hwloc refuses to start");
    }
    if (synthetic != NULL && hwloc_topology_set_synthetic(t->machine, synthetic) != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "\"%s\" describes no machine; \"package:2 numa:1 core:8 pu:2\" would",
                           synthetic);
    }
    /* GPUs are counted on the PCI bus: asking their libraries costs seconds and starts drivers. */
    static const char *const slow[] = {"opencl", "gl", "cuda", "nvml", "rsmi", "levelzero"};
    for (size_t i = 0; i < TROUPE_COUNT_OF(slow); i++) {
        hwloc_topology_set_components(t->machine, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                      slow[i]);
    }
    hwloc_topology_set_io_types_filter(t->machine, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (hwloc_topology_load(t->machine) != 0) {
        return troupe_fail(TROUPE_ERROR_IO, "hwloc cannot load the topology: %s", strerror(errno));
    }
    t->unit = count_of(t, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    return TROUPE_OK;
}

static troupe_status find_usable(troupe_topology *t, const char *cpuset) {
    t->usable = hwloc_bitmap_alloc();
    if (t->usable == NULL) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "no memory for a set of processors");
    }
    hwloc_const_cpuset_t all = hwloc_topology_get_topology_cpuset(t->machine);
    if (cpuset != NULL && hwloc_bitmap_list_sscanf(t->usable, cpuset) != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "\"%s\" is no list of processors such as \"0-3\"",
                           cpuset);
    }
    bool unknown =
        cpuset == NULL && (!hwloc_topology_is_thissystem(t->machine) ||
                           hwloc_get_cpubind(t->machine, t->usable, HWLOC_CPUBIND_THREAD) != 0);
    if (unknown) {
        hwloc_bitmap_copy(t->usable, all);
    }
    hwloc_bitmap_and(t->usable, t->usable, all);
    if (hwloc_bitmap_iszero(t->usable)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "none of the processors \"%s\" is on this machine",
                           cpuset != NULL ? cpuset : "of this thread");
    }
    return TROUPE_OK;
}

static troupe_status list_usable_cores(troupe_topology *t) {
    int count = count_of(t, t->unit);
    TROUPE_TRY(TROUPE_NEW(&t->usable_cores, count));
    for (int i = 0; i < count; i++) {
        if (hwloc_bitmap_intersects(core_at(t, i)->cpuset, t->usable)) {
            t->usable_cores[t->usable_core_count++] = i;
        }
    }
    return TROUPE_OK;
}

troupe_status troupe_topology_open(const struct troupe_topology_options *options,
                                   troupe_topology **out) {
    troupe_topology *t = NULL;
    TROUPE_TRY(TROUPE_NEW(&t, 1));
    troupe_status status = TROUPE_OK;
    TROUPE_TRY_FAIL(load(t, options->synthetic));
    TROUPE_TRY_FAIL(find_usable(t, options->cpuset));
    TROUPE_TRY_FAIL(list_usable_cores(t));
    *out = t;
    return TROUPE_OK;
fail:
    troupe_topology_close(t);
    return status;
}

void troupe_topology_close(troupe_topology *topology) {
    if (topology == NULL) {
        return;
    }
    troupe_free(topology->usable_cores);
    hwloc_bitmap_free(topology->usable);
    if (topology->machine != NULL) {
        hwloc_topology_destroy(topology->machine);
    }
    troupe_free(topology);
}

static int count_gpus(const troupe_topology *t) {
    int count = 0;
    for (hwloc_obj_t d = hwloc_get_next_pcidev(t->machine, NULL); d != NULL;
         d = hwloc_get_next_pcidev(t->machine, d)) {
        count += d->attr->pcidev.vendor_id == PCI_VENDOR_NVIDIA &&
                 d->attr->pcidev.class_id >> 8 == PCI_CLASS_DISPLAY;
    }
    return count;
}

struct troupe_topology_counts troupe_topology_counts(const troupe_topology *topology) {
    return (struct troupe_topology_counts){
        .packages = count_of(topology, HWLOC_OBJ_PACKAGE),
        .numa_nodes = count_of(topology, HWLOC_OBJ_NUMANODE),
        .cores = count_of(topology, topology->unit),
        .usable_cores = topology->usable_core_count,
        .processors = count_of(topology, HWLOC_OBJ_PU),
        .gpus = count_gpus(topology),
    };
}

/* What a slice of the ranks gets. */
struct share {
    int first; /* in usable_cores */
    int count;
    bool kept; /* the launcher has bound this rank by itself */
};

/* A cpuset smaller than the machine and no larger than one rank's part of it is a launcher's
 * binding of this one rank; a larger one is shared by all ranks and is sliced. */
static struct share share_of(const troupe_topology *t, struct troupe_slice slice) {
    TROUPE_ASSERT(slice.count >= 1 && slice.index >= 0 && slice.index < slice.count,
                  "rank %d of %d on this machine", slice.index, slice.count);
    int cores = t->usable_core_count, all = count_of(t, t->unit);
    if (slice.count > 1 && cores < all && cores <= (all + slice.count - 1) / slice.count) {
        return (struct share){.first = 0, .count = cores, .kept = true};
    }
    int64_t first = (int64_t)slice.index * cores / slice.count;
    int64_t end = (int64_t)(slice.index + 1) * cores / slice.count;
    return (struct share){.first = (int)first, .count = end > first ? (int)(end - first) : 1};
}

int troupe_topology_cores(const troupe_topology *topology, struct troupe_slice slice, int *cores,
                          int max) {
    struct share share = share_of(topology, slice);
    for (int i = 0; i < share.count && i < max; i++) {
        hwloc_obj_t core = core_at(topology, topology->usable_cores[share.first + i]);
        int processor = hwloc_bitmap_first(core->cpuset);
        while (!hwloc_bitmap_isset(topology->usable, (unsigned)processor)) {
            processor = hwloc_bitmap_next(core->cpuset, processor);
        }
        cores[i] = processor;
    }
    return share.count;
}

/* "NUMA node 0", "NUMA nodes 0-1": `one` or `many` before the list of a set. */
static void print_set(char *text, size_t bytes, const char *one, const char *many,
                      hwloc_const_bitmap_t set) {
    char range[RANGE_BYTES];
    hwloc_bitmap_list_snprintf(range, sizeof range, set);
    snprintf(text, bytes, "%s %s", hwloc_bitmap_weight(set) == 1 ? one : many, range);
}

/* "cores 2-3": the logical indices of the units inside `cpuset`. */
static void print_cores(const troupe_topology *t, hwloc_const_cpuset_t cpuset, char *text,
                        size_t bytes) {
    hwloc_bitmap_t indices = hwloc_bitmap_alloc();
    for (int i = 0; i < count_of(t, t->unit); i++) {
        if (hwloc_bitmap_intersects(core_at(t, i)->cpuset, cpuset)) {
            hwloc_bitmap_set(indices, (unsigned)i);
        }
    }
    print_set(text, bytes, "core", "cores", indices);
    hwloc_bitmap_free(indices);
}

static void print_nodes(const troupe_topology *t, hwloc_const_cpuset_t cpuset, char *text,
                        size_t bytes) {
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    hwloc_cpuset_to_nodeset(t->machine, cpuset, nodes);
    print_set(text, bytes, "NUMA node", "NUMA nodes", nodes);
    hwloc_bitmap_free(nodes);
}

void troupe_topology_bind(const troupe_topology *topology, struct troupe_slice slice, char *text,
                          size_t text_bytes) {
    struct share share = share_of(topology, slice);
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    for (int i = 0; i < share.count; i++) {
        hwloc_obj_t core = core_at(topology, topology->usable_cores[share.first + i]);
        hwloc_bitmap_or(set, set, core->cpuset);
    }
    hwloc_bitmap_and(set, set, topology->usable);
    bool bound = hwloc_set_cpubind(topology->machine, set, HWLOC_CPUBIND_THREAD) == 0;
    int error = errno;
    char cores[RANGE_BYTES + 16], nodes[RANGE_BYTES + 16], note[128] = "";
    print_cores(topology, set, cores, sizeof cores);
    print_nodes(topology, set, nodes, sizeof nodes);
    hwloc_bitmap_free(set);
    if (!bound) {
        snprintf(note, sizeof note, "; not bound: %s", strerror(error));
    } else if (share.kept) {
        snprintf(note, sizeof note, "; as the launcher bound it");
    } else if (slice.count > topology->usable_core_count) {
        int usable = topology->usable_core_count;
        snprintf(note, sizeof note, "; %d ranks share %d %s", slice.count, usable,
                 usable == 1 ? "core" : "cores");
    }
    snprintf(text, text_bytes, "%s of %d, %s%s", cores, count_of(topology, topology->unit), nodes,
             note);
}

static void print_tree(const troupe_topology *t, hwloc_obj_t object, int depth, FILE *file) {
    if (object->type == t->unit || hwloc_obj_type_is_cache(object->type)) {
        if (object->type != HWLOC_OBJ_L3CACHE) {
            return; /* cores and their own caches are in the ranges above them */
        }
    }
    char name[64], cores[RANGE_BYTES + 16];
    hwloc_obj_type_snprintf(name, sizeof name, object, 0);
    print_cores(t, object->cpuset, cores, sizeof cores);
    fprintf(file, "%*s%s %u: %s\n", 2 * depth, "", name, object->logical_index, cores);
    for (hwloc_obj_t m = object->memory_first_child; m != NULL; m = m->next_sibling) {
        if (m->type == HWLOC_OBJ_NUMANODE) {
            fprintf(file, "%*sNUMA node %u: %.1f GiB\n", 2 * depth + 2, "", m->logical_index,
                    (double)m->attr->numanode.local_memory / (1 << 30));
        }
    }
    for (hwloc_obj_t child = object->first_child; child != NULL; child = child->next_sibling) {
        print_tree(t, child, depth + 1, file);
    }
}

void troupe_topology_print(const troupe_topology *topology, FILE *file) {
    struct troupe_topology_counts c = troupe_topology_counts(topology);
    fprintf(file,
            "%d packages, %d NUMA nodes, %d cores (%d usable), %d hardware threads, %d GPUs\n",
            c.packages, c.numa_nodes, c.cores, c.usable_cores, c.processors, c.gpus);
    print_tree(topology, hwloc_get_root_obj(topology->machine), 0, file);
}
