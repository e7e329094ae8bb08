/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic machines check counts, slices and sentences; this machine checks that binding binds. */
#include "runtime/topology.h"

#include <sched.h>

#include "runtime/check.h"
#include "tests/test.h"

static troupe_topology *open_machine(const char *synthetic, const char *cpuset) {
    troupe_topology *topology = NULL;
    const struct troupe_topology_options options = {.synthetic = synthetic, .cpuset = cpuset};
    EXPECT_OK(troupe_topology_open(&options, &topology));
    return topology;
}

static const char *const two_sockets = "package:2 numa:1 l3:2 core:4 pu:2"; /* 16 cores */

static void synthetic_machine_is_counted(void) {
    troupe_topology *t = open_machine(two_sockets, NULL);
    struct troupe_topology_counts counts = troupe_topology_counts(t);
    EXPECT_EQ(counts.packages, 2);
    EXPECT_EQ(counts.numa_nodes, 2);
    EXPECT_EQ(counts.cores, 16);
    EXPECT_EQ(counts.usable_cores, 16);
    EXPECT_EQ(counts.processors, 32);
    EXPECT_EQ(counts.gpus, 0);
    troupe_topology_close(t);
}

static void expect_sentence(const char *cpuset, int index, int count, const char *expected) {
    troupe_topology *t = open_machine(two_sockets, cpuset);
    char text[256];
    troupe_topology_bind(t, (struct troupe_slice){.index = index, .count = count}, text,
                         sizeof text);
    EXPECT_STRING(text, expected);
    troupe_topology_close(t);
}

static void ranks_get_near_even_slices(void) {
    expect_sentence(NULL, 0, 1, "cores 0-15 of 16, NUMA nodes 0-1");
    expect_sentence(NULL, 1, 8, "cores 2-3 of 16, NUMA node 0");
    expect_sentence(NULL, 15, 16, "core 15 of 16, NUMA node 1");
    expect_sentence(NULL, 0, 3, "cores 0-4 of 16, NUMA node 0");
    expect_sentence(NULL, 2, 3, "cores 10-15 of 16, NUMA node 1");
}

static void more_ranks_than_cores_is_said(void) {
    expect_sentence(NULL, 31, 32, "core 15 of 16, NUMA node 1; 32 ranks share 16 cores");
    expect_sentence(NULL, 1, 32, "core 0 of 16, NUMA node 0; 32 ranks share 16 cores");
}

static void cpuset_of_the_launcher_is_respected(void) {
    /* half the machine for four ranks: shared, hence sliced */
    expect_sentence("16-31", 1, 4, "cores 10-11 of 16, NUMA node 1");
    /* two cores for one of eight ranks: the launcher's own binding, kept for any index */
    expect_sentence("4-7", 0, 8, "cores 2-3 of 16, NUMA node 0; as the launcher bound it");
    expect_sentence("4-7", 5, 8, "cores 2-3 of 16, NUMA node 0; as the launcher bound it");
    /* a single rank uses what it was given */
    expect_sentence("5", 0, 1, "core 2 of 16, NUMA node 0");
}

static void slices_cover_every_core_once(void) {
    for (int ranks = 1; ranks <= 16; ranks++) {
        troupe_topology *t = open_machine(two_sockets, NULL);
        int next = 0;
        for (int rank = 0; rank < ranks; rank++) {
            int cores[16];
            int count = troupe_topology_cores(
                t, (struct troupe_slice){.index = rank, .count = ranks}, cores, 16);
            EXPECT(count >= 16 / ranks && count <= 16 / ranks + 1, "%d cores", count);
            for (int i = 0; i < count; i++) {
                EXPECT_EQ(cores[i], 2 * next); /* the first of the core's two processors */
                next++;
            }
        }
        EXPECT_EQ(next, 16);
        troupe_topology_close(t);
    }
}

static void usable_hardware_thread_of_a_core_is_chosen(void) {
    troupe_topology *t = open_machine(two_sockets, "1,3,6-7");
    int cores[4] = {-1, -1, -1, -1};
    EXPECT_EQ(troupe_topology_cores(t, (struct troupe_slice){.index = 0, .count = 1}, cores, 2), 3);
    EXPECT_EQ(cores[0], 1);
    EXPECT_EQ(cores[1], 3);
    EXPECT_EQ(cores[2], -1); /* no more than asked for */
    troupe_topology_close(t);
}

/* ---- GPUs ---- */

/* Two packages of 4 cores; GPUs at 3b:00.0 and 5e:00.0 are on the first, at d8:00.0 on the second,
 * where there is a network card, too. */
static void write_object(FILE *file, const char *type, int number, int first, int count) {
    unsigned set = ((1U << count) - 1) << first, node = 1U << first / 4;
    fprintf(file,
            "<object type='%s' os_index='%d' cpuset='0x%08x' complete_cpuset='0x%08x' "
            "nodeset='0x%08x' complete_nodeset='0x%08x' gp_index='%d'>",
            type, number, set, set, node, node, 100 * type[0] + 10 * type[1] + number);
}

static void write_device(FILE *file, int bus, int class, int vendor) {
    fprintf(file,
            "<object type='PCIDev' gp_index='%d' pci_busid='0000:%02x:00.0' "
            "pci_type='%04x [%04x:2335] [%04x:18be] a1' pci_link_speed='0'/>",
            bus, bus, class, vendor, vendor);
}

static void write_package(FILE *file, int package) {
    write_object(file, "Package", package, 4 * package, 4);
    write_object(file, "NUMANode", package, 4 * package, 4);
    fprintf(file, "</object>");
    for (int core = 4 * package; core < 4 * package + 4; core++) {
        write_object(file, "Core", core, core, 1);
        write_object(file, "PU", core, core, 1);
        fprintf(file, "</object></object>");
    }
    fprintf(file,
            "<object type='Bridge' gp_index='%d' bridge_type='0-1' depth='0' "
            "bridge_pci='0000:[%02x-%02x]'>",
            7000 + package, package * 128, package * 128 + 127);
    if (package == 0) {
        write_device(file, 0x3b, 0x0302, 0x10de);
        write_device(file, 0x5e, 0x0302, 0x10de);
    } else {
        write_device(file, 0xd8, 0x0302, 0x10de);
        write_device(file, 0xe0, 0x0200, 0x10de);
    }
    fprintf(file, "</object></object>");
}

static troupe_topology *open_gpus(const char *cpuset) {
    char *xml = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&xml, &bytes);
    fprintf(file, "<?xml version='1.0' encoding='UTF-8'?>\n"
                  "<!DOCTYPE topology SYSTEM 'hwloc2.dtd'>\n<topology version='2.0'>\n"
                  "<object type='Machine' os_index='0' cpuset='0xff' complete_cpuset='0xff' "
                  "allowed_cpuset='0xff' nodeset='0x3' complete_nodeset='0x3' "
                  "allowed_nodeset='0x3' gp_index='1'>");
    write_package(file, 0);
    write_package(file, 1);
    fprintf(file, "</object></topology>");
    fclose(file);
    for (char *c = xml; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    troupe_topology *topology = NULL;
    EXPECT_OK(troupe_topology_open(&(struct troupe_topology_options){.xml = xml, .cpuset = cpuset},
                                   &topology));
    free(xml);
    return topology;
}

static void expect_gpu_sentence(const char *cpuset, struct troupe_slice slice,
                                const char *expected) {
    troupe_topology *t = open_gpus(cpuset);
    char text[256];
    troupe_topology_bind(t, slice, text, sizeof text);
    EXPECT_STRING(text, expected);
    troupe_topology_close(t);
}

static void gpus_are_counted_and_located(void) {
    troupe_topology *t = open_gpus(NULL);
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    troupe_topology_print(t, file);
    fclose(file);
    EXPECT_EQ(troupe_topology_counts(t).gpus, 3);
    EXPECT(strstr(text, "GPU 0000:5e:00.0: next to cores 0-3, NUMA node 0\n"
                        "GPU 0000:d8:00.0: next to cores 4-7, NUMA node 1\n") != NULL,
           "%s", text);
    EXPECT(strstr(text, "e0:00") == NULL, "a network card counts as a GPU:\n%s", text);
    free(text);
    troupe_topology_close(t);
}

static void ranks_sit_next_to_their_gpu(void) {
    expect_gpu_sentence(NULL, (struct troupe_slice){0, 1, "0000:D8:00.0"},
                        "cores 4-7 of 8, NUMA node 1, next to GPU 0000:D8:00.0");
    expect_gpu_sentence(NULL, (struct troupe_slice){1, 2, "0000:3b:00.0"},
                        "cores 2-3 of 8, NUMA node 0, next to GPU 0000:3b:00.0");
    expect_gpu_sentence(NULL, (struct troupe_slice){2, 3, "0000:d8:00.0"},
                        "cores 6-7 of 8, NUMA node 1, next to GPU 0000:d8:00.0");
    expect_gpu_sentence(
        NULL, (struct troupe_slice){5, 8, "0000:d8:00.0"},
        "core 6 of 8, NUMA node 1, next to GPU 0000:d8:00.0; 8 ranks share 4 cores");
}

static void gpu_does_not_widen_the_launchers_cpuset(void) {
    expect_gpu_sentence("2-5", (struct troupe_slice){1, 2, "0000:3b:00.0"},
                        "core 3 of 8, NUMA node 0, next to GPU 0000:3b:00.0");
    expect_gpu_sentence("0-1", (struct troupe_slice){0, 1, "0000:d8:00.0"},
                        "cores 0-1 of 8, NUMA node 0, none of them next to GPU 0000:d8:00.0");
    expect_gpu_sentence(NULL, (struct troupe_slice){1, 2, "0000:11:00.0"},
                        "cores 4-7 of 8, NUMA node 1, hwloc does not see GPU 0000:11:00.0");
    expect_gpu_sentence(NULL, (struct troupe_slice){1, 2, ""}, "cores 4-7 of 8, NUMA node 1");
}

static void ranks_with_gpus_on_one_node_share_its_cores(void) {
    troupe_topology *t = open_gpus("1-6");
    unsigned char a[2], b[2], c[2], all[2];
    int cores[4];
    troupe_topology_processors(t, "0000:3b:00.0", a, sizeof a);
    troupe_topology_processors(t, "0000:5e:00.0", b, sizeof b);
    troupe_topology_processors(t, "0000:d8:00.0", c, sizeof c);
    troupe_topology_processors(t, NULL, all, sizeof all);
    EXPECT(a[0] == 0x0e && a[1] == 0 && memcmp(a, b, sizeof a) == 0, "%x and %x", a[0], b[0]);
    EXPECT(c[0] == 0x70 && all[0] == 0x7e, "%x and %x", c[0], all[0]);
    EXPECT_EQ(troupe_topology_cores(t, (struct troupe_slice){1, 3, "0000:5e:00.0"}, cores, 4), 1);
    EXPECT_EQ(cores[0], 2);
    troupe_topology_close(t);
}

static void machine_without_sense_is_refused(void) {
    troupe_topology *t = NULL;
    struct troupe_topology_options options = {.synthetic = "core:no"};
    EXPECT_ERROR(troupe_topology_open(&options, &t), TROUPE_ERROR_INVALID, "core:no");
    options = (struct troupe_topology_options){.synthetic = two_sockets, .cpuset = "90-95"};
    EXPECT_ERROR(troupe_topology_open(&options, &t), TROUPE_ERROR_INVALID, "90-95");
    EXPECT(t == NULL);
    troupe_topology_close(NULL);
}

static void tree_names_packages_nodes_and_cores(void) {
    troupe_topology *t = open_machine(two_sockets, NULL);
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    troupe_topology_print(t, file);
    fclose(file);
    static const char *const parts[] = {"2 packages, 2 NUMA nodes, 16 cores (16 usable), 32",
                                        "Package 1: cores 8-15", "NUMA node 1:", "3: cores 12-15"};
    for (size_t i = 0; i < TROUPE_COUNT_OF(parts); i++) {
        EXPECT(strstr(text, parts[i]) != NULL, "no \"%s\" in:\n%s", parts[i], text);
    }
    free(text);
    troupe_topology_close(t);
}

static void binding_on_this_machine_takes_effect(void) {
    troupe_topology *t = open_machine(NULL, NULL);
    struct troupe_topology_counts counts = troupe_topology_counts(t);
    EXPECT(counts.usable_cores >= 1 && counts.usable_cores <= counts.cores, "%d of %d",
           counts.usable_cores, counts.cores);
    const struct troupe_slice last = {.index = counts.usable_cores - 1,
                                      .count = counts.usable_cores};
    char text[256];
    troupe_topology_bind(t, last, text, sizeof text);
    printf("  %s\n", text);
    if (strstr(text, "not bound") == NULL) {
        int core = -1;
        troupe_topology_cores(t, last, &core, 1);
        cpu_set_t set;
        EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
        EXPECT(CPU_ISSET((size_t)core, &set), "processor %d is not in the set", core);
        EXPECT(counts.usable_cores == 1 || CPU_COUNT(&set) <= counts.processors / 2, "%d bound",
               CPU_COUNT(&set));
    }
    troupe_topology_close(t);
}

int main(void) {
    TEST(synthetic_machine_is_counted);
    TEST(ranks_get_near_even_slices);
    TEST(more_ranks_than_cores_is_said);
    TEST(cpuset_of_the_launcher_is_respected);
    TEST(slices_cover_every_core_once);
    TEST(usable_hardware_thread_of_a_core_is_chosen);
    TEST(gpus_are_counted_and_located);
    TEST(ranks_sit_next_to_their_gpu);
    TEST(gpu_does_not_widen_the_launchers_cpuset);
    TEST(ranks_with_gpus_on_one_node_share_its_cores);
    TEST(machine_without_sense_is_refused);
    TEST(tree_names_packages_nodes_and_cores);
    TEST(binding_on_this_machine_takes_effect);
    return TEST_END();
}
