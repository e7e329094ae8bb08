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

static troupe_status load(troupe_topology *t, const struct troupe_topology_options *options) {
    const char *synthetic = options->synthetic, *xml = options->xml;
    if (hwloc_topology_init(&t->machine) != 0) {
        return troupe_fail(TROUPE_ERROR_MEMORY, "hwloc refuses to start");
    }
    if (xml != NULL && hwloc_topology_set_xmlbuffer(t->machine, xml, (int)strlen(xml) + 1) != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "hwloc finds no machine in its XML");
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
    TROUPE_TRY_FAIL(load(t, options));
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

/* The GPU behind `after` on the PCI bus (NULL: the first); NULL at the end. */
static hwloc_obj_t next_gpu(const troupe_topology *t, hwloc_obj_t after) {
    hwloc_obj_t d = after;
    do {
        d = hwloc_get_next_pcidev(t->machine, d);
    } while (d != NULL && (d->attr->pcidev.vendor_id != PCI_VENDOR_NVIDIA ||
                           d->attr->pcidev.class_id >> 8 != PCI_CLASS_DISPLAY));
    return d;
}

static int count_gpus(const troupe_topology *t) {
    int count = 0;
    for (hwloc_obj_t d = next_gpu(t, NULL); d != NULL; d = next_gpu(t, d)) {
        count++;
    }
    return count;
}

/* The processors next to a device on the PCI bus. */
static hwloc_const_cpuset_t next_to(const troupe_topology *t, hwloc_obj_t device) {
    return hwloc_get_non_io_ancestor_obj(t->machine, device)->cpuset;
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

/* Whose cores are sliced: those next to a GPU, or all. */
enum nearness { NO_GPU, NEXT_TO_GPU, FAR_FROM_GPU, GPU_UNSEEN };

/* Fills `pool` with the usable processors that ranks with this GPU share. */
static enum nearness find_pool(const troupe_topology *t, const char *gpu, hwloc_bitmap_t pool) {
    hwloc_bitmap_copy(pool, t->usable);
    if (gpu == NULL || gpu[0] == '\0') {
        return NO_GPU;
    }
    hwloc_obj_t device = hwloc_get_pcidev_by_busidstring(t->machine, gpu);
    if (device == NULL) {
        return GPU_UNSEEN;
    }
    if (!hwloc_bitmap_intersects(t->usable, next_to(t, device))) {
        return FAR_FROM_GPU;
    }
    hwloc_bitmap_and(pool, pool, next_to(t, device));
    return NEXT_TO_GPU;
}

void troupe_topology_processors(const troupe_topology *topology, const char *gpu,
                                unsigned char *bits, size_t bytes) {
    hwloc_bitmap_t pool = hwloc_bitmap_alloc();
    find_pool(topology, gpu, pool);
    memset(bits, 0, bytes);
    for (int p = hwloc_bitmap_first(pool); p >= 0 && (size_t)p < 8 * bytes;
         p = hwloc_bitmap_next(pool, p)) {
        bits[p / 8] |= (unsigned char)(1 << p % 8);
    }
    hwloc_bitmap_free(pool);
}

/* What a slice of the ranks gets. */
struct share {
    hwloc_bitmap_t pool; /* what it is a slice of, then the slice alone */
    enum nearness nearness;
    int first; /* of the cores in the pool */
    int count;
    int cores; /* in the pool */
    bool kept; /* the launcher has bound this rank by itself */
};

static bool is_in_pool(const troupe_topology *t, const struct share *share, int i) {
    return hwloc_bitmap_intersects(core_at(t, t->usable_cores[i])->cpuset, share->pool) != 0;
}

/* A cpuset smaller than the machine and no larger than one rank's part of it is a launcher's
 * binding of this one rank; a larger one is shared by all ranks and is sliced. */
static bool is_kept(const troupe_topology *t, struct troupe_slice slice,
                    const struct share *share) {
    int cores = t->usable_core_count, all = count_of(t, t->unit);
    return share->nearness == NO_GPU && slice.count > 1 && cores < all &&
           cores <= (all + slice.count - 1) / slice.count;
}

static void divide(struct share *share, struct troupe_slice slice) {
    int64_t first = (int64_t)slice.index * share->cores / slice.count;
    int64_t end = (int64_t)(slice.index + 1) * share->cores / slice.count;
    share->first = (int)first;
    share->count = end > first ? (int)(end - first) : 1;
}

/* Leaves the slice's own cores in the pool. */
static void narrow(const troupe_topology *t, struct share *share) {
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    for (int i = 0, n = 0; i < t->usable_core_count; i++) {
        if (is_in_pool(t, share, i)) {
            if (n >= share->first && n < share->first + share->count) {
                hwloc_bitmap_or(mine, mine, core_at(t, t->usable_cores[i])->cpuset);
            }
            n++;
        }
    }
    hwloc_bitmap_and(share->pool, share->pool, mine);
    hwloc_bitmap_free(mine);
}

/* The caller frees its pool. */
static struct share share_of(const troupe_topology *t, struct troupe_slice slice) {
    TROUPE_ASSERT(slice.count >= 1 && slice.index >= 0 && slice.index < slice.count,
                  "rank %d of %d on this machine", slice.index, slice.count);
    struct share share = {.pool = hwloc_bitmap_alloc()};
    share.nearness = find_pool(t, slice.gpu, share.pool);
    for (int i = 0; i < t->usable_core_count; i++) {
        share.cores += is_in_pool(t, &share, i);
    }
    share.kept = is_kept(t, slice, &share);
    divide(&share, share.kept ? (struct troupe_slice){.index = 0, .count = 1} : slice);
    narrow(t, &share);
    return share;
}

int troupe_topology_cores(const troupe_topology *topology, struct troupe_slice slice, int *cores,
                          int max) {
    struct share share = share_of(topology, slice);
    for (int i = 0, n = 0; i < topology->usable_core_count && n < max; i++) {
        if (is_in_pool(topology, &share, i)) {
            hwloc_obj_t core = core_at(topology, topology->usable_cores[i]);
            int processor = hwloc_bitmap_first(core->cpuset);
            while (!hwloc_bitmap_isset(share.pool, (unsigned)processor)) {
                processor = hwloc_bitmap_next(core->cpuset, processor);
            }
            cores[n++] = processor;
        }
    }
    hwloc_bitmap_free(share.pool);
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

/* Binds this thread; with a GPU its memory, too, as long as the nodes have some. Says what failed
 * or is unusual. */
static void bind_thread(const troupe_topology *t, const struct share *share,
                        struct troupe_slice slice, char *note, size_t bytes) {
    note[0] = '\0';
    if (hwloc_set_cpubind(t->machine, share->pool, HWLOC_CPUBIND_THREAD) != 0) {
        snprintf(note, bytes, "; not bound: %s", strerror(errno));
    } else if (share->nearness == NEXT_TO_GPU &&
               hwloc_set_membind(t->machine, share->pool, HWLOC_MEMBIND_BIND,
                                 HWLOC_MEMBIND_THREAD) != 0) {
        snprintf(note, bytes, "; memory not bound: %s", strerror(errno));
    } else if (share->kept) {
        snprintf(note, bytes, "; as the launcher bound it");
    } else if (slice.count > share->cores) {
        snprintf(note, bytes, "; %d ranks share %d %s", slice.count, share->cores,
                 share->cores == 1 ? "core" : "cores");
    }
}

static void print_nearness(const struct share *share, const char *gpu, char *text, size_t bytes) {
    static const char *const words[] = {[NO_GPU] = "",
                                        [NEXT_TO_GPU] = ", next to GPU ",
                                        [FAR_FROM_GPU] = ", none of them next to GPU ",
                                        [GPU_UNSEEN] = ", hwloc does not see GPU "};
    snprintf(text, bytes, "%s%s", words[share->nearness], share->nearness != NO_GPU ? gpu : "");
}

void troupe_topology_bind(const troupe_topology *topology, struct troupe_slice slice, char *text,
                          size_t text_bytes) {
    struct share share = share_of(topology, slice);
    char cores[RANGE_BYTES + 16], nodes[RANGE_BYTES + 16], near[64], note[128];
    bind_thread(topology, &share, slice, note, sizeof note);
    print_nearness(&share, slice.gpu, near, sizeof near);
    print_cores(topology, share.pool, cores, sizeof cores);
    print_nodes(topology, share.pool, nodes, sizeof nodes);
    hwloc_bitmap_free(share.pool);
    snprintf(text, text_bytes, "%s of %d, %s%s%s", cores, count_of(topology, topology->unit), nodes,
             near, note);
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

static void print_gpus(const troupe_topology *t, FILE *file) {
    for (hwloc_obj_t d = next_gpu(t, NULL); d != NULL; d = next_gpu(t, d)) {
        const struct hwloc_pcidev_attr_s *pci = &d->attr->pcidev;
        char cores[RANGE_BYTES + 16], nodes[RANGE_BYTES + 16];
        print_cores(t, next_to(t, d), cores, sizeof cores);
        print_nodes(t, next_to(t, d), nodes, sizeof nodes);
        fprintf(file, "GPU %04x:%02x:%02x.%x: next to %s, %s\n", (unsigned)pci->domain, pci->bus,
                pci->dev, pci->func, cores, nodes);
    }
}

void troupe_topology_print(const troupe_topology *topology, FILE *file) {
    struct troupe_topology_counts c = troupe_topology_counts(topology);
    fprintf(file,
            "%d packages, %d NUMA nodes, %d cores (%d usable), %d hardware threads, %d GPUs\n",
            c.packages, c.numa_nodes, c.cores, c.usable_cores, c.processors, c.gpus);
    print_tree(topology, hwloc_get_root_obj(topology->machine), 0, file);
    print_gpus(topology, file);
}
