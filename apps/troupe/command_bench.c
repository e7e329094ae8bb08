/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe bench`: what a task and a message cost, ours and the peers', in one table. Rows that need
 * several processes start this program again under mpiexec, with --row. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actors/job.h"
#include "apps/troupe/arguments.h"
#include "apps/troupe/bench.h"
#include "runtime/check.h"
#include "runtime/clock.h"
#include "runtime/memory.h"

enum {
    COMMAND_BYTES = 4096,
    ARGUMENTS_BYTES = 512,
    LINE_BYTES = 256,
    METG_SIZES = 16,
    NAME_COLUMNS = 50
};

struct bench {
    const char *row; /* NULL: the table */
    const char *only;
    const char *provider;
    const char *peers; /* directory of the peers' programs */
    const char *kind;
    int width, steps, replays, workers, radix, iterations, bytes, ranks;
    bool quick, loops, percent;
    double iteration_ns;
    double samples[BENCH_ROUNDS];
};

static int scaled(const struct bench *b, int count) {
    return b->quick ? (count + 99) / 100 : count;
}

/* ---- rows that a rank measures ---- */

static struct pattern pattern_of(const struct bench *b) {
    struct pattern pattern = {
        .kind = PATTERN_STENCIL_1D, .width = b->width, .steps = b->steps, .radix = b->radix};
    pattern_find(b->kind, &pattern.kind);
    return pattern;
}

/* Microseconds of the wall clock a task. */
static troupe_status run_pattern(struct bench *b, troupe_comm *comm) {
    struct bench_pattern run = {.pattern = pattern_of(b),
                                .workers = b->workers,
                                .iterations = b->iterations,
                                .loops = b->loops,
                                .bytes = (size_t)b->bytes,
                                .replays = b->replays};
    TROUPE_TRY(bench_pattern_run(comm, &run, b->samples));
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        b->samples[i] *= 1e6 / pattern_task_count(&run.pattern);
    }
    return TROUPE_OK;
}

/* Nanoseconds an event, or percent of the time: runs with the trace less runs without it, in turn,
 * so that other programs on the machine meet both. */
static troupe_status run_tracing(struct bench *b, troupe_comm *comm) {
    struct troupe_trace trace = {0};
    struct bench_pattern run = {.pattern = pattern_of(b),
                                .workers = b->workers,
                                .iterations = b->iterations,
                                .replays = b->replays};
    int tasks = pattern_task_count(&run.pattern);
    double without[BENCH_ROUNDS], with[BENCH_ROUNDS];
    TROUPE_TRY(troupe_trace_init(&trace, tasks));
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < BENCH_ROUNDS; i++) {
        run.trace = NULL;
        status = bench_pattern_run(comm, &run, without);
        run.trace = &trace;
        if (status == TROUPE_OK) {
            status = bench_pattern_run(comm, &run, with);
        }
        double before = bench_figure_of(without, BENCH_ROUNDS).median;
        double more = bench_figure_of(with, BENCH_ROUNDS).median - before;
        double events = (double)tasks / (b->workers > 0 ? b->workers : 1);
        b->samples[i] = b->percent ? 100 * more / before : more * 1e9 / events;
    }
    troupe_trace_fini(&trace);
    return status;
}

static troupe_status run_message(struct bench *b, troupe_comm *comm) {
    struct bench_message run = {.workers = b->workers,
                                .apart = b->workers > 1 || troupe_comm_size(comm) > 1,
                                .bytes = b->bytes,
                                .firings = b->replays};
    TROUPE_TRY(bench_message_run(comm, &run, b->samples));
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        b->samples[i] *= 1e6;
    }
    return TROUPE_OK;
}

static troupe_status run_conductor(struct bench *b, troupe_comm *comm) {
    TROUPE_TRY(bench_conductor_run(comm, b->replays, b->samples));
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        b->samples[i] *= 1e6;
    }
    return TROUPE_OK;
}

static troupe_status run_idle(struct bench *b, troupe_comm *comm) {
    TROUPE_TRY(b->workers > 0 ? bench_idle_workers_run(comm, b->workers, b->replays, b->samples)
                              : bench_idle_run(comm, b->replays, b->samples));
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        b->samples[i] *= 100;
    }
    return TROUPE_OK;
}

static const struct {
    const char *name;
    troupe_status (*run)(struct bench *b, troupe_comm *comm);
    bool last_rank; /* whose samples count */
} rows[] = {{"pattern", run_pattern, false},
            {"tracing", run_tracing, false},
            {"message", run_message, false},
            {"conductor", run_conductor, false},
            {"idle", run_idle, true}};

static troupe_status run_row(void *arg, troupe_comm *comm) {
    struct bench *b = arg;
    for (size_t i = 0; i < TROUPE_COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, b->row) != 0) {
            continue;
        }
        TROUPE_TRY(rows[i].run(b, comm));
        if (troupe_comm_rank(comm) == (rows[i].last_rank ? troupe_comm_size(comm) - 1 : 0)) {
            struct bench_figure f = bench_figure_of(b->samples, BENCH_ROUNDS);
            printf("figure %.9g %.9g %.9g\n", f.median, f.least, f.most);
        }
        return TROUPE_OK;
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "there is no row %s", b->row);
}

static troupe_status run_row_here(struct bench *b) {
    bool threads = b->ranks > 1 || b->workers > 0 || strcmp(b->provider, "loopback") == 0;
    return troupe_job_run(
        &(struct troupe_job_options){.ranks = threads ? b->ranks : 0, .provider = b->provider},
        run_row, b);
}

/* ---- figures of other processes ---- */

static bool is_there(const char *program) {
    return access(program, X_OK) == 0;
}

/* Runs a shell command and reads its line "figure MEDIAN LEAST MOST"; false without one. */
static bool ask_shell(const char *command, struct bench_figure *out) {
    char line[LINE_BYTES];
    bool found = false;
    fflush(stdout);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL) {
        return false;
    }
    while (fgets(line, sizeof line, pipe) != NULL) {
        found |= sscanf(line, "figure %lf %lf %lf", &out->median, &out->least, &out->most) == 3;
    }
    return pclose(pipe) == 0 && found;
}

static const char mpiexec[] = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                              "OMPI_MCA_rmaps_base_oversubscribe=1 "
                              "OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_pml=ob1 "
                              "mpiexec -n";

static bool ask_self(int processes, const char *row, struct bench_figure *out) {
    char command[COMMAND_BYTES], self[512];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) {
        return false;
    }
    self[length] = '\0';
    if (processes > 1) {
        snprintf(command, sizeof command, "%s %d '%s' bench --row %s", mpiexec, processes, self,
                 row);
    } else {
        snprintf(command, sizeof command, "'%s' bench --row %s", self, row);
    }
    return ask_shell(command, out);
}

static bool ask_peer(const struct bench *b, int processes, const char *program,
                     const char *arguments, struct bench_figure *out) {
    char command[COMMAND_BYTES], path[512];
    snprintf(path, sizeof path, "%s/%s", b->peers, program);
    if (!is_there(path)) {
        return false;
    }
    if (processes > 1) {
        snprintf(command, sizeof command, "%s %d '%s' %s", mpiexec, processes, path, arguments);
    } else {
        snprintf(command, sizeof command, "'%s' %s", path, arguments);
    }
    return ask_shell(command, out);
}

/* ---- the table ---- */

static void print_figure(bool there, const struct bench_figure *f) {
    if (there) {
        printf(" %10.4g (%.3g-%.3g)", f->median, f->least, f->most);
    } else {
        printf(" %10s", "-");
    }
}

struct row {
    const char *group, *name, *target, *unit;
    int processes;
    const char *ours; /* of --row */
    const char *peer; /* its name; NULL: none */
    int peer_processes;
    const char *program, *arguments;
};

#define STENCIL "pattern --kind stencil_1d --width 16 --steps 32 "
#define CHAIN   "pattern --kind no_comm --width 1 --steps 512 "
static const struct row table[] = {
    {"task", "stencil_1d, width 16, empty, 2 workers", "0.10", "us", 1,
     STENCIL "--workers 2 --replays 400", "StarPU", 1, "bench.peer_starpu", "stencil_1d 16 1000"},
    {"task", "chain, empty, 2 workers", "0.06", "us", 1, CHAIN "--workers 2 --replays 400",
     "StarPU", 1, "bench.peer_starpu", "no_comm 1 5000"},
    {"task", "stencil_1d, width 16, empty, by tickets", "-", "us", 1, STENCIL "--replays 20", NULL,
     0, NULL, NULL},
    {"task", "stencil_1d, width 16, empty, 2 processes (shm)", "-", "us", 2,
     STENCIL "--replays 20 --provider shm", NULL, 0, NULL, NULL},
    {"task", "the same, an actor for each point", "-", "us", 2,
     STENCIL "--loops --replays 20 --provider shm", NULL, 0, NULL, NULL},
    {"message", "8 B, one worker", "0.06", "us", 1,
     "message --workers 1 --bytes 8 --replays 100000", NULL, 0, NULL, NULL},
    {"message", "8 B, two workers", "0.25", "us", 1,
     "message --workers 2 --bytes 8 --replays 100000", NULL, 0, NULL, NULL},
    {"message", "8 B, two processes, shm", "0.8", "us", 2,
     "message --provider shm --bytes 8 --replays 5000", "Open MPI", 2, "bench.peer_mpi", "8 20000"},
    {"message", "8 B, two processes, shm", "0.8", "us", 2,
     "message --provider shm --bytes 8 --replays 5000", "libfabric", 1, "peer_fabric.sh",
     "shm 8 20000"},
    {"message", "8 B, two processes, tcp", "7", "us", 2,
     "message --provider tcp --bytes 8 --replays 2000", "libfabric", 1, "peer_fabric.sh",
     "tcp 8 5000"},
    {"message", "64 KiB, two processes, shm", "7", "us", 2,
     "message --provider shm --bytes 65536 --replays 2000", "Open MPI", 2, "bench.peer_mpi",
     "65536 5000"},
    {"message", "64 KiB, two processes, shm", "7", "us", 2,
     "message --provider shm --bytes 65536 --replays 2000", "libfabric", 1, "peer_fabric.sh",
     "shm 65536 5000"},
    {"message", "4 MiB, two processes, shm", "330", "us", 2,
     "message --provider shm --bytes 4194304 --replays 50", "Open MPI", 2, "bench.peer_mpi",
     "4194304 100"},
    {"message", "4 MiB, two processes, shm", "330", "us", 2,
     "message --provider shm --bytes 4194304 --replays 50", "libfabric", 1, "peer_fabric.sh",
     "shm 4194304 200"},
    {"conductor", "ready, ticket, run: 2 processes, shm", "3", "us", 2,
     "conductor --provider shm --replays 5000", NULL, 0, NULL, NULL},
    {"trace", "an event, tasks of workers", "25", "ns", 1,
     "tracing --kind stencil_1d --width 16 --steps 32 --workers 2 --replays 40", NULL, 0, NULL,
     NULL},
    {"trace", "at METG(50 %): tasks with 70 iterations of work", "5", "%", 1,
     "tracing --kind stencil_1d --width 16 --steps 32 --workers 2 --replays 40 --iterations 70 "
     "--percent",
     NULL, 0, NULL, NULL},
    {"idle", "a rank that waits for a message, shm", "0", "% CPU", 2,
     "idle --provider shm --replays 300", NULL, 0, NULL, NULL},
    {"idle", "2 workers between steps", "0", "% CPU", 1, "idle --workers 2 --replays 300", NULL, 0,
     NULL, NULL},
};

static bool is_wanted(const struct bench *b, const char *group) {
    return b->only == NULL || strcmp(b->only, group) == 0;
}

static void print_row(const struct bench *b, const struct row *row) {
    struct bench_figure ours = {0}, theirs = {0};
    char arguments[ARGUMENTS_BYTES];
    snprintf(arguments, sizeof arguments, "%s%s", row->ours, b->quick ? " --quick" : "");
    printf("%-10s %-*s %8s", row->group, NAME_COLUMNS, row->name, row->target);
    print_figure(ask_self(row->processes, arguments, &ours), &ours);
    if (row->peer != NULL) {
        printf("   %s", row->peer);
        print_figure(ask_peer(b, row->peer_processes, row->program, row->arguments, &theirs),
                     &theirs);
    }
    printf(" %s\n", row->unit);
}

/* ---- efficiency curves ---- */

/* Where the efficiency falls below `level`, in us a task and core; sizes go down. 0: never. */
static double crossing(const double *grain, const double *efficiency, int count, double level) {
    for (int i = 1; i < count; i++) {
        if (efficiency[i - 1] >= level && efficiency[i] < level) {
            double part = (efficiency[i - 1] - level) / (efficiency[i - 1] - efficiency[i]);
            return grain[i - 1] + part * (grain[i] - grain[i - 1]);
        }
    }
    return 0;
}

static void print_crossing(const double *grain, const double *efficiency, int count, double level) {
    double us = crossing(grain, efficiency, count, level);
    if (us > 0) {
        printf("  METG(%.0f %%) %.3g us\n", level * 100, us);
    } else {
        printf("  METG(%.0f %%): the curve does not cross it\n", level * 100);
    }
}

struct curve {
    const char *name;
    int processes, cores;
    const char *ours;    /* without --iterations; NULL: the peer's */
    const char *program; /* of the peer: PATTERN WIDTH TASKS ITERATIONS */
    const char *arguments;
};

static bool ask_curve(const struct bench *b, const struct curve *curve, int64_t iterations,
                      struct bench_figure *out) {
    char arguments[ARGUMENTS_BYTES];
    if (curve->ours == NULL) {
        snprintf(arguments, sizeof arguments, "%s %" PRId64, curve->arguments, iterations);
        return ask_peer(b, 1, curve->program, arguments, out);
    }
    /* 0 is the default, which the options do not take */
    snprintf(arguments, sizeof arguments, iterations > 0 ? "%s%s --iterations %" PRId64 : "%s%s",
             curve->ours, b->quick ? " --quick" : "", iterations);
    return ask_self(curve->processes, arguments, out);
}

static void print_curve(const struct bench *b, const struct curve *curve) {
    double grain[METG_SIZES], efficiency[METG_SIZES], empty = 0;
    int count = 0;
    for (int i = 0; i < METG_SIZES; i++) {
        int64_t iterations = i + 1 < METG_SIZES ? INT64_C(1) << (METG_SIZES - 2 - i) : 0;
        struct bench_figure f;
        if ((b->quick && i < METG_SIZES - 3) || !ask_curve(b, curve, iterations, &f)) {
            continue;
        }
        grain[count] = f.median * curve->cores;
        efficiency[count] = (double)iterations * b->iteration_ns * 1e-3 / grain[count];
        empty = iterations == 0 ? f.median : empty;
        count++;
    }
    printf("\n%s: empty task %.3g us\n  us a task and core:", curve->name, empty);
    for (int i = 0; i < count; i++) {
        printf(" %.3g", grain[i]);
    }
    printf("\n  efficiency:        ");
    for (int i = 0; i < count; i++) {
        printf(" %.2f", efficiency[i]);
    }
    printf("\n");
    print_crossing(grain, efficiency, count, 0.5);
    print_crossing(grain, efficiency, count, 0.75);
}

static const struct curve curves[] = {
    {"stencil_1d, width 16, 2 workers", 1, 2, STENCIL "--workers 2 --replays 40", NULL, NULL},
    {"stencil_1d, width 16, 2 processes (shm)", 2, 2, STENCIL "--replays 10 --provider shm", NULL,
     NULL},
    {"the same, an actor for each point", 2, 2, STENCIL "--loops --replays 10 --provider shm", NULL,
     NULL},
    {"StarPU, stencil_1d, width 16, 2 workers", 1, 2, NULL, "bench.peer_starpu",
     "stencil_1d 16 200"},
};

/* ---- many ranks ---- */

/* Tasks of 1 ms in processes that outnumber the cores. */
static void print_crowd(const struct bench *b) {
    double first = 0;
    for (int ranks = 2; ranks <= 16; ranks = ranks == 2 ? 8 : ranks * 2) {
        char arguments[ARGUMENTS_BYTES];
        struct bench_figure f = {0};
        snprintf(arguments, sizeof arguments,
                 "pattern --kind stencil_1d --width 16 --steps %d --replays 1 --provider shm "
                 "--iterations %d",
                 b->quick ? 2 : 32, (int)(1e6 / b->iteration_ns / (b->quick ? 100 : 1)));
        bool there = ask_self(ranks, arguments, &f);
        first = ranks == 2 ? f.median : first;
        char name[LINE_BYTES];
        snprintf(name, sizeof name, "%d processes on 2 cores, tasks of 1 ms", ranks);
        printf("%-10s %-*s %8s", "crowd", NAME_COLUMNS, name, ranks == 2 ? "-" : "-15 %");
        print_figure(there, &f);
        printf(" us%s", ranks == 2 || !there ? "\n" : "");
        if (ranks > 2 && there) {
            printf(", %+.1f %% throughput\n", (first / f.median - 1) * 100);
        }
    }
}

static void print_load(void) {
    double load[3] = {0};
    if (getloadavg(load, 3) == 3) {
        printf("load %.2f", load[0]);
    }
}

static troupe_status print_table(struct bench *b) {
    b->iteration_ns = bench_iteration_ns();
    print_load();
    printf(", %.3g ns an iteration of the work; medians of %d, least and most in brackets\n\n",
           b->iteration_ns, BENCH_ROUNDS);
    printf("%-10s %-*s %8s %10s\n", "", NAME_COLUMNS, "", "target", "measured");
    for (size_t i = 0; i < TROUPE_COUNT_OF(table); i++) {
        if (is_wanted(b, table[i].group)) {
            print_row(b, &table[i]);
        }
    }
    if (is_wanted(b, "crowd")) {
        print_crowd(b);
    }
    for (size_t i = 0; is_wanted(b, "curves") && i < TROUPE_COUNT_OF(curves); i++) {
        print_curve(b, &curves[i]);
    }
    printf("\n");
    print_load();
    printf(" at the end\n");
    return TROUPE_OK;
}

static int run(int argc, char **argv) {
    struct bench b = {.provider = "shm",
                      .kind = "stencil_1d",
                      .peers = ".",
                      .width = 16,
                      .steps = 32,
                      .replays = 100,
                      .ranks = 1};
    const struct argument options[] = {{"--row", .text = &b.row},
                                       {"--only", .text = &b.only},
                                       {"--peers", .text = &b.peers},
                                       {"--provider", .text = &b.provider},
                                       {"--kind", .text = &b.kind},
                                       {"--width", .number = &b.width},
                                       {"--steps", .number = &b.steps},
                                       {"--radix", .number = &b.radix},
                                       {"--replays", .number = &b.replays},
                                       {"--workers", .number = &b.workers},
                                       {"--iterations", .number = &b.iterations},
                                       {"--bytes", .number = &b.bytes},
                                       {"--loops", .flag = &b.loops},
                                       {"--percent", .flag = &b.percent},
                                       {"--quick", .flag = &b.quick},
                                       {0}};
    enum pattern_kind kind;
    int operands = arguments_parse(&command_bench, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands > 0) {
        return command_usage(&command_bench, "'%s' is not an option", argv[1]);
    }
    if (!pattern_find(b.kind, &kind)) {
        return command_usage(&command_bench, "there is no pattern '%s'", b.kind);
    }
    b.replays = scaled(&b, b.replays);
    return command_end(&command_bench, b.row != NULL ? run_row_here(&b) : print_table(&b));
}

const struct command command_bench = {
    .name = "bench",
    .usage = "bench [--only GROUP] [--peers DIR] [--quick]",
    .summary = "measures what a task and a message cost on this machine",
    .help =
        "Prints one table: what was measured here, beside the targets and, where their programs\n"
        "are built (--peers, the tests/bench folder of a build), beside StarPU, Open MPI and\n"
        "libfabric in the same run. Groups: task, message, conductor, trace, idle, crowd,\n"
        "curves. --quick runs a hundredth, to see that it works.\n\n"
        "One row by itself: --row pattern|tracing|message|conductor|idle with --kind, --width,\n"
        "--steps, --radix, --replays, --workers, --iterations, --bytes, --provider, --loops (an\n"
        "actor for each point, not for each task), --percent (tracing); it prints the median,\n"
        "least and most of 5 rounds. Under mpiexec for several processes.\n",
    .run = run,
};
