/* SPDX-License-Identifier: Apache-2.0 */
/* `troupe route`: who sends which rows to whom on an edge, as a table and as a picture. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/troupe/arguments.h"
#include "comm/balance.h"
#include "modules/train/boundary.h"
#include "modules/train/dataset.h"
#include "modules/train/splits.h"
#include "runtime/check.h"
#include "runtime/memory.h"

struct route_job {
    struct troupe_config config;
    const char *edge;
    const char *svg;
    bool backward;
    int ranks, host_ranks, step, microbatch; /* the last two from 1 */
    int *hosts;
    struct troupe_plan *plan;
    troupe_source *source;
    troupe_sample_plan *samples;
    struct troupe_splits splits;
    struct troupe_boundary boundary;
    const troupe_route *route;
    const int64_t *offsets[2]; /* of this direction's source and destination */
    int count;
    struct troupe_route_binding **bindings;
};

/* ---- the edge ---- */

/* Names the edge that leaves a stage, as training does; false behind the last stage. */
static bool name_edge(const struct troupe_plan *plan, int index, int stage, char *name,
                      size_t bytes) {
    const struct troupe_module_plan *module = &plan->modules[index];
    if (stage + 1 < module->pp) {
        snprintf(name, bytes, "%s.%d->%d", module->module_class->name, stage, stage + 1);
    } else if (index + 1 < TROUPE_CONFIG_MODULES) {
        snprintf(name, bytes, "%s->%s", module->module_class->name,
                 plan->modules[index + 1].module_class->name);
    }
    return stage + 1 < module->pp || index + 1 < TROUPE_CONFIG_MODULES;
}

static troupe_status init_boundary(struct route_job *job, int index, int stage) {
    const struct troupe_module_plan *module = &job->plan->modules[index];
    bool inside = stage + 1 < module->pp;
    int next = inside ? index : index + 1;
    struct troupe_shard shard = troupe_plan_shard(module, stage, 0);
    return troupe_boundary_init(
        &(struct troupe_boundary_options){
            .name = job->edge,
            .source = {.module = module, .stage = stage, .split = job->splits.of[index]},
            .destination = {.module = &job->plan->modules[next],
                            .stage = inside ? stage + 1 : 0,
                            .split = job->splits.of[next]},
            .fused = inside && index == TROUPE_CONFIG_MODULES - 1,
            .columns = module->module_class->output_columns(&job->config.model, &shard),
            .samples = job->samples,
            .host_of_rank = job->hosts},
        &job->boundary);
}

static troupe_status find_edge(struct route_job *job) {
    char name[64], known[512] = "";
    for (int index = 0; index < TROUPE_CONFIG_MODULES; index++) {
        for (int stage = 0; stage < job->plan->modules[index].pp; stage++) {
            if (!name_edge(job->plan, index, stage, name, sizeof name)) {
                continue;
            }
            if (strcmp(name, job->edge) == 0) {
                return init_boundary(job, index, stage);
            }
            size_t length = strlen(known);
            snprintf(known + length, sizeof known - length, "%s%s", length > 0 ? ", " : "", name);
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "there is no edge %s; the edges are %s", job->edge,
                       known);
}

static troupe_status bind_all(struct route_job *job) {
    const struct troupe_boundary *b = &job->boundary;
    int k = job->microbatch - 1;
    troupe_splits_begin_step(&job->splits);
    troupe_boundary_begin_step(&job->boundary);
    job->offsets[job->backward] = troupe_boundary_source_offsets(b, k);
    job->offsets[!job->backward] = troupe_boundary_destination_offsets(b, k);
    job->route = b->directions[job->backward].route;
    int count = troupe_route_rank_count(job->route);
    TROUPE_TRY(TROUPE_NEW(&job->bindings, count));
    for (; job->count < count; job->count++) {
        struct troupe_route_binding **binding = &job->bindings[job->count];
        TROUPE_TRY(troupe_route_binding_create(job->route,
                                               troupe_route_rank(job->route, job->count), binding));
        TROUPE_TRY(troupe_route_bind(*binding, job->offsets[0], job->offsets[1]));
    }
    return troupe_route_check(job->route, job->offsets[0], job->offsets[1]);
}

static troupe_status open_job(struct route_job *job) {
    TROUPE_TRY(troupe_plan_create(&job->config, job->ranks, &job->plan));
    TROUPE_TRY(TROUPE_NEW(&job->hosts, job->ranks));
    for (int r = 0; r < job->ranks; r++) {
        job->hosts[r] = r / job->host_ranks;
    }
    if (job->microbatch > job->config.train.microbatches) {
        return troupe_fail(TROUPE_ERROR_INVALID, "microbatch %d of %d", job->microbatch,
                           (int)job->config.train.microbatches);
    }
    TROUPE_TRY(troupe_dataset_open(&job->config, TROUPE_DATASET_TRAIN, &job->source));
    TROUPE_TRY(troupe_sample_plan_create(
        job->source,
        &(struct troupe_sample_plan_options){.seed = (uint64_t)job->config.train.seed,
                                             .global_batch = job->config.train.global_batch,
                                             .microbatches = job->config.train.microbatches},
        &job->samples));
    troupe_sample_plan_set_step(job->samples, job->step - 1);
    TROUPE_TRY(troupe_splits_init(&job->config, job->plan, job->samples, &job->splits));
    TROUPE_TRY(find_edge(job));
    return bind_all(job);
}

static void close_job(struct route_job *job) {
    for (int i = 0; i < job->count; i++) {
        troupe_route_binding_destroy(job->bindings[i]);
    }
    troupe_free(job->bindings);
    troupe_boundary_fini(&job->boundary);
    troupe_splits_fini(&job->splits);
    troupe_sample_plan_destroy(job->samples);
    troupe_source_destroy(job->source);
    troupe_plan_destroy(job->plan);
    troupe_free(job->hosts);
}

/* ---- the table ---- */

static void print_message(int from, const struct troupe_route_message *m, const char *how) {
    printf("%6d %6d  %8" PRId64 " .. %-8" PRId64 " %8zu  %s\n", from, m->peer, m->row_begin,
           m->row_begin + m->row_count - 1, m->bytes, how);
}

/* Bytes over all ranks. */
struct totals {
    int64_t rows;
    size_t row_bytes;
    size_t received, lacking;    /* LB1 */
    size_t imported, unique;     /* LB2 */
    size_t largest_send, relays; /* of holders; of one rank */
    size_t first_hop;            /* LB3: what the busiest holder must send at least */
    size_t broadcast, leader;    /* the reference: in all; into its busiest leader */
};

/* Rows between two neighbouring cuts of either side: who holds and who needs them. */
struct survey {
    int64_t *cuts; /* ascending */
    int cut_count;
    bool *have, *need;       /* by rank, of the rows that are looked at */
    int64_t groups, members; /* of the first hops */
    troupe_balance *balance;
};

static int compare_rows(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static troupe_status open_survey(const struct route_job *job, struct survey *s) {
    int counts[2] = {troupe_route_source(job->route)->part_count + 1,
                     troupe_route_destination(job->route)->part_count + 1};
    *s = (struct survey){.cut_count = counts[0] + counts[1]};
    TROUPE_TRY(TROUPE_NEW(&s->cuts, s->cut_count));
    TROUPE_TRY(TROUPE_NEW(&s->have, job->ranks));
    TROUPE_TRY(TROUPE_NEW(&s->need, job->ranks));
    memcpy(s->cuts, job->offsets[0], (size_t)counts[0] * sizeof *s->cuts);
    memcpy(s->cuts + counts[0], job->offsets[1], (size_t)counts[1] * sizeof *s->cuts);
    qsort(s->cuts, (size_t)s->cut_count, sizeof *s->cuts, compare_rows);
    return TROUPE_OK;
}

static void close_survey(struct survey *s) {
    troupe_free(s->cuts);
    troupe_free(s->have);
    troupe_free(s->need);
    troupe_balance_destroy(s->balance);
}

static void mark_holders(const struct route_job *job, const struct troupe_layout *layout, int side,
                         int64_t row, bool *map) {
    const int64_t *offsets = job->offsets[side];
    memset(map, 0, (size_t)job->ranks * sizeof *map);
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_layout_piece *piece = &layout->pieces[i];
        if (row >= offsets[piece->part] && row < offsets[piece->part + 1]) {
            map[piece->rank] = true;
        }
    }
}

/* The first hop of `rows` rows into a host, from a holder there, or any if there is none: counted,
 * or given to the balance. */
static void add_first_hop(const struct route_job *job, struct survey *s, int host, bool is_held,
                          int64_t rows) {
    s->groups++;
    if (s->balance != NULL) {
        troupe_balance_add(s->balance, rows, 1);
    }
    for (int r = 0; r < job->ranks; r++) {
        if (s->have[r] && (!is_held || job->hosts[r] == host)) {
            s->members++;
            if (s->balance != NULL) {
                troupe_balance_member(s->balance, r, false);
            }
        }
    }
}

/* What the rows at the i-th cut add to the bounds. */
static void survey_rows(const struct route_job *job, struct survey *s, int i, struct totals *t) {
    int64_t rows = s->cuts[i + 1] - s->cuts[i];
    size_t bytes = (size_t)rows * t->row_bytes;
    mark_holders(job, troupe_route_source(job->route), 0, s->cuts[i], s->have);
    mark_holders(job, troupe_route_destination(job->route), 1, s->cuts[i], s->need);
    for (int first = 0; first < job->ranks; first += job->host_ranks) {
        int end = first + job->host_ranks < job->ranks ? first + job->host_ranks : job->ranks;
        int lacking = 0;
        bool is_held = false;
        for (int r = first; r < end; r++) {
            lacking += s->need[r] && !s->have[r];
            is_held = is_held || s->have[r];
            t->broadcast += s->need[r] ? bytes : 0;
        }
        t->lacking += (size_t)lacking * bytes;
        t->unique += lacking > 0 && !is_held ? bytes : 0;
        if (lacking > 0) {
            add_first_hop(job, s, job->hosts[first], is_held, rows);
        }
    }
}

static void survey_all(const struct route_job *job, struct survey *s, struct totals *t) {
    s->groups = s->members = 0;
    t->lacking = t->unique = t->broadcast = 0;
    for (int i = 0; i + 1 < s->cut_count; i++) {
        if (s->cuts[i + 1] > s->cuts[i]) {
            survey_rows(job, s, i, t);
        }
    }
}

/* The bounds, from the layouts alone. */
static troupe_status find_bounds(const struct route_job *job, struct survey *s, struct totals *t) {
    TROUPE_TRY(open_survey(job, s));
    survey_all(job, s, t); /* counts */
    if (s->groups == 0) {
        return TROUPE_OK;
    }
    TROUPE_TRY(troupe_balance_create(job->ranks, s->groups, s->members, &s->balance));
    troupe_balance_begin(s->balance);
    survey_all(job, s, t);
    troupe_balance_solve(s->balance, 0);
    for (int g = 0; g < troupe_balance_groups(s->balance); g++) {
        for (int m = 0; m < troupe_balance_members(s->balance, g); m++) {
            size_t load =
                (size_t)troupe_balance_load(s->balance, troupe_balance_rank(s->balance, g, m)) *
                t->row_bytes;
            t->first_hop = load > t->first_hop ? load : t->first_hop;
        }
    }
    return TROUPE_OK;
}

/* What the route moves, and what the reference's largest leader would take in. */
static void add_up(const struct route_job *job, struct totals *t) {
    const struct troupe_layout *to = troupe_route_destination(job->route);
    for (int i = 0; i < job->count; i++) {
        const struct troupe_route_binding *b = job->bindings[i];
        struct troupe_route_bytes bytes = troupe_route_binding_bytes(b);
        t->received += bytes.received;
        t->largest_send = bytes.sent > t->largest_send ? bytes.sent : t->largest_send;
        t->relays = bytes.relayed > t->relays ? bytes.relayed : t->relays;
        for (int m = 0; m < b->receive_count; m++) {
            bool here = job->hosts[b->receives[m].peer] == job->hosts[b->rank];
            t->imported += here ? 0 : b->receives[m].bytes;
        }
    }
    for (int part = 0; part < to->part_count; part++) {
        size_t bytes = (size_t)(job->offsets[1][part + 1] - job->offsets[1][part]) * t->row_bytes;
        t->leader = bytes > t->leader ? bytes : t->leader;
    }
}

static troupe_status print_table(const struct route_job *job) {
    const struct troupe_layout *from = troupe_route_source(job->route);
    struct totals t = {.rows = job->offsets[0][from->part_count],
                       .row_bytes = (size_t)from->shape[1] * sizeof(float)};
    struct survey survey;
    troupe_status status = find_bounds(job, &survey, &t);
    close_survey(&survey);
    TROUPE_TRY(status);
    add_up(job, &t);
    printf("edge %s%s, microbatch %d of step %d: %" PRId64 " rows of %zu bytes\n\n", job->edge,
           job->backward ? ", gradients" : "", job->microbatch, job->step, t.rows, t.row_bytes);
    printf("%6s %6s  %20s %8s\n", "from", "to", "rows", "bytes");
    for (int i = 0; i < job->count; i++) {
        const struct troupe_route_binding *b = job->bindings[i];
        if (b->kept.box_count > 0) {
            print_message(b->rank, &b->kept, "stays");
        }
        for (int m = 0; m < b->send_count; m++) {
            print_message(b->rank, &b->sends[m], "");
        }
        for (int m = 0; m < b->relay_count; m++) {
            print_message(b->rank, &b->relays[m], "relayed");
        }
    }
    printf("\n%-34s %12s %12s\n", "bytes", "here", "bound");
    printf("%-34s %12zu %12zu\n", "received, all ranks (LB1)", t.received, t.lacking);
    printf("%-34s %12zu %12zu\n", "imported, all hosts (LB2)", t.imported, t.unique);
    printf("%-34s %12zu %12zu\n", "sent by the busiest holder (LB3)", t.largest_send, t.first_hop);
    printf("%-34s %12zu\n", "relayed by the busiest rank", t.relays);
    printf("%-34s %12zu\n", "leader + broadcast would receive", t.broadcast);
    printf("%-34s %12zu\n", "  of it the busiest leader", t.leader);
    return TROUPE_OK;
}

/* ---- the picture ---- */

enum { WIDTH = 760, TOP = 64, ROW = 46, GAP = 14, LEFT = 150, RIGHT = 520, BOX = 44 };

static const char *const colours[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44",
                                      "#66ccee", "#aa3377", "#ee9944", "#777777"};

static const char *colour_of(int index) {
    return colours[index % (int)TROUPE_COUNT_OF(colours)];
}

static int index_of(const struct route_job *job, int rank) {
    int index = 0;
    while (job->bindings[index]->rank != rank) {
        index++;
    }
    return index;
}

/* Where a row lies inside the box of a rank that shows all rows of the microbatch. */
static double y_of(int index, int64_t row, int64_t rows) {
    return TOP + index * (ROW + GAP) + (double)row * ROW / (double)rows;
}

static void draw_band(FILE *file, const struct route_job *job, int64_t rows, int from,
                      const struct troupe_route_message *m) {
    int to = index_of(job, m->peer);
    for (int i = 0; i < m->box_count; i++) {
        int64_t begin = m->boxes[i].begin[0], end = m->boxes[i].end[0];
        double a = y_of(from, begin, rows), b = y_of(from, end, rows);
        double c = y_of(to, begin, rows), d = y_of(to, end, rows);
        int start = LEFT + BOX, stop = RIGHT, middle = (start + stop) / 2;
        if (m->relayed) { /* beside the column of destinations */
            start = stop = RIGHT + BOX;
            middle = start + 60;
        }
        fprintf(file,
                "<path d=\"M%d %.2f C%d %.2f %d %.2f %d %.2f L%d %.2f C%d %.2f %d %.2f %d %.2f "
                "Z\" fill=\"%s\" fill-opacity=\"%s\"><title>%d to %d: rows %" PRId64 " to %" PRId64
                "%s</title></path>\n",
                start, a, middle, a, middle, c, stop, c, stop, d, middle, d, middle, b, start, b,
                colour_of(to), m->relayed ? "0.35" : "0.6", job->bindings[from]->rank, m->peer,
                begin, end - 1, m->relayed ? ", relayed" : "");
    }
}

static bool is_on(const struct troupe_layout *layout, int rank) {
    for (int i = 0; i < layout->piece_count; i++) {
        if (layout->pieces[i].rank == rank) {
            return true;
        }
    }
    return false;
}

static void draw_rank(FILE *file, const struct route_job *job, int index, int x, bool left,
                      int64_t rows) {
    int rank = job->bindings[index]->rank;
    const struct troupe_layout *layout =
        left ? troupe_route_source(job->route) : troupe_route_destination(job->route);
    const int64_t *offsets = job->offsets[!left];
    if (!is_on(layout, rank)) {
        return;
    }
    double y = y_of(index, 0, rows);
    fprintf(file, "<rect x=\"%d\" y=\"%.2f\" width=\"%d\" height=\"%d\" fill=\"#f2f2f2\"/>\n", x, y,
            BOX, ROW);
    for (int i = 0; i < layout->piece_count; i++) {
        const struct troupe_layout_piece *piece = &layout->pieces[i];
        double begin = y_of(index, offsets[piece->part], rows);
        double end = y_of(index, offsets[piece->part + 1], rows);
        if (piece->rank == rank) {
            fprintf(file, "<rect x=\"%d\" y=\"%.2f\" width=\"%d\" height=\"%.2f\" fill=\"%s\"/>\n",
                    x, begin, BOX, end - begin, left ? "#999999" : colour_of(index));
        }
    }
    fprintf(file,
            "<text x=\"%d\" y=\"%.2f\" text-anchor=\"%s\">rank %d</text>"
            "<text x=\"%d\" y=\"%.2f\" text-anchor=\"%s\" fill=\"#777\">host %d</text>\n",
            left ? x - 10 : x + BOX + 74, y + 19, left ? "end" : "start", rank,
            left ? x - 10 : x + BOX + 74, y + 35, left ? "end" : "start", job->hosts[rank]);
}

static troupe_status write_svg(const struct route_job *job) {
    int64_t rows = job->offsets[0][troupe_route_source(job->route)->part_count];
    FILE *file = fopen(job->svg, "w");
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "cannot write %s", job->svg);
    }
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"white\"/>\n<text x=\"20\" y=\"26\" font-size=\"16\">%s%s, microbatch %d, "
            "%" PRId64 " rows</text>\n<text x=\"20\" y=\"46\" fill=\"#777\">a box shows all rows, "
            "coloured what the rank holds or needs; bands have the colour of their "
            "destination</text>\n",
            WIDTH, TOP + job->count * (ROW + GAP) + 10, job->edge,
            job->backward ? ", gradients" : "", job->microbatch, rows);
    rows = rows > 0 ? rows : 1;
    for (int i = 0; i < job->count; i++) {
        const struct troupe_route_binding *b = job->bindings[i];
        struct troupe_route_message kept = b->kept;
        for (int m = 0; m < b->send_count; m++) {
            draw_band(file, job, rows, i, &b->sends[m]);
        }
        for (int m = 0; m < b->relay_count; m++) {
            draw_band(file, job, rows, i, &b->relays[m]);
        }
        draw_band(file, job, rows, i, &kept);
    }
    for (int i = 0; i < job->count; i++) {
        draw_rank(file, job, i, LEFT, true, rows);
        draw_rank(file, job, i, RIGHT, false, rows);
    }
    fprintf(file, "</svg>\n");
    return fclose(file) == 0 ? TROUPE_OK
                             : troupe_fail(TROUPE_ERROR_IO, "cannot write %s", job->svg);
}

/* ---- the command ---- */

static troupe_status run_job(struct route_job *job) {
    TROUPE_TRY(open_job(job));
    TROUPE_TRY(print_table(job));
    return job->svg != NULL ? write_svg(job) : TROUPE_OK;
}

static int run(int argc, char **argv) {
    struct route_job job = {
        .edge = "projector->llm", .ranks = 1, .host_ranks = 8, .step = 1, .microbatch = 1};
    struct config_edits edits = {0};
    const struct argument options[] = {
        {"--edge", .text = &job.edge},
        {"--microbatch", .number = &job.microbatch},
        {"--step", .number = &job.step},
        {"--ranks", .number = &job.ranks},
        {"--host-ranks", .number = &job.host_ranks},
        {"--backward", .flag = &job.backward},
        {"--placement", .edits = &edits, .key = "placement.policy"},
        {"--svg", .text = &job.svg},
        {"--set", .edits = &edits},
        {0},
    };
    int operands = arguments_parse(&command_route, argc, argv, options);
    if (operands < 0) {
        return EXIT_USAGE;
    }
    if (operands != 1) {
        return command_usage(&command_route, "name one config file");
    }
    troupe_status status = config_load(&job.config, argv[1], &edits);
    if (status == TROUPE_OK) {
        status = troupe_config_resolve(&job.config);
    }
    if (status == TROUPE_OK) {
        status = run_job(&job);
    }
    close_job(&job);
    return command_end(&command_route, status);
}

const struct command command_route = {
    .name = "route",
    .usage = "route CONFIG.yaml [--ranks N] [--host-ranks N] [--edge EDGE] [--backward]\n"
             "                    [--microbatch K] [--step N] [--placement POLICY] [--svg FILE]\n"
             "                    [--set KEY=VALUE]...",
    .summary = "shows who sends which rows to whom on an edge",
    .help =
        "  --ranks N           of the job, 1 unless said\n"
        "  --host-ranks N      adjacent ranks that share a host, 8 unless said\n"
        "  --edge EDGE         projector->llm unless said; a wrong name lists the edges\n"
        "  --backward          the gradients\n"
        "  --microbatch K      from 1\n"
        "  --step N            whose samples, 1 unless said\n"
        "  --placement POLICY  as in train\n"
        "  --svg FILE          ranks of both sides as columns, what moves as bands\n"
        "  --set KEY=VALUE     overrides the config file\n\n"
        "The bounds are those of comm/README.md: no transform receives or imports less, and no\n"
        "choice of holders makes the busiest send less. On its own host a holder may send more\n"
        "copies than that, where this spares a relay and makes no rank the busiest there.\n",
    .run = run,
};
