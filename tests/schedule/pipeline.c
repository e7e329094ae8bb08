/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/schedule/pipeline.h"

#include <math.h>

#include "runtime/memory.h"
#include "runtime/random.h"
#include "tests/test.h"

enum { LLM, ENCODER }; /* modules */

static int stage_count(const struct pipeline *p) {
    return p->options.ranks * p->options.chunks;
}

static int rank_of_stage(const struct pipeline *p, int stage) {
    int chunk = stage / p->options.ranks, place = stage % p->options.ranks;
    return p->options.v_shape && chunk % 2 == 1 ? p->options.ranks - 1 - place : place;
}

static int encoder_count(const struct pipeline *p) {
    switch (p->options.encoder) {
    case ENCODER_NONE:
        return 0;
    case ENCODER_SPREAD:
        return p->options.ranks;
    case ENCODER_FIRST:
        return 1;
    case ENCODER_APART:
        return p->options.encoder_ranks;
    }
    return 0;
}

static int64_t task_ns(void *arg, int m, int64_t step, int microbatch) {
    const struct pipeline *p = arg;
    const struct pipeline_options *o = &p->options;
    const struct troupe_method *method = &p->methods[m];
    bool encoder = p->gangs[method->gang].module == ENCODER;
    const double *factors = encoder ? o->encoder_factor : o->llm_factor;
    int64_t ns = 0;
    (void)step;
    switch (method->kind) {
    case TROUPE_METHOD_FORWARD:
        ns = encoder ? o->encoder_forward : o->forward;
        break;
    case TROUPE_METHOD_BACKWARD_INPUT:
        ns = encoder ? o->encoder_backward : o->backward + (o->split ? 0 : o->weight);
        break;
    case TROUPE_METHOD_REDUCE:
        return o->reduce;
    case TROUPE_METHOD_RECOMPUTE:
        ns = o->recompute;
        break;
    case TROUPE_METHOD_PREFETCH:
        ns = o->prefetch;
        break;
    default:
        ns = o->weight;
        break;
    }
    double factor = factors == NULL ? 1 : factors[microbatch];
    if (encoder && o->encoder_share != NULL) {
        factor *= o->encoder_share[p->gangs[method->gang].dp % encoder_count(p)];
    }
    return llround((double)ns * factor);
}

static int64_t edge_ns(void *arg, int e, int64_t step, int microbatch) {
    const struct pipeline *p = arg;
    const struct troupe_edge *edge = &p->edges[e];
    int from = p->gangs[p->methods[edge->from].gang].ranks[0];
    int to = p->gangs[p->methods[edge->to].gang].ranks[0];
    (void)step, (void)microbatch;
    return from == to ? 0 : p->options.link_ns;
}

static int add_method(struct pipeline *p, struct troupe_method method, int after) {
    int m = p->graph.method_count++;
    p->after[m] = after;
    method.after = &p->after[m];
    method.after_count = after >= 0;
    method.firings = method.firings > 0 ? method.firings : p->options.microbatches;
    p->methods[m] = method;
    return m;
}

static void add_edge(struct pipeline *p, const char *name, int from, int to) {
    p->edges[p->graph.edge_count++] =
        (struct troupe_edge){.name = name, .from = from, .to = to, .credits = p->options.credits};
}

/* A gang of one rank; returns its forward, its backward is the method behind. */
static int add_gang(struct pipeline *p, struct troupe_gang gang, int rank, bool split,
                    bool recompute) {
    int g = p->graph.gang_count++;
    gang.ranks = &p->rank_lists[rank];
    gang.rank_count = 1;
    p->gangs[g] = gang;
    int forward = add_method(
        p,
        (struct troupe_method){
            .name = "forward", .gang = g, .kind = TROUPE_METHOD_FORWARD, .slot_take = !recompute},
        -1);
    int backward = add_method(p,
                              (struct troupe_method){.name = "backward",
                                                     .gang = g,
                                                     .kind = TROUPE_METHOD_BACKWARD_INPUT,
                                                     .slot_return = !split},
                              forward);
    if (split) {
        add_method(p,
                   (struct troupe_method){.name = "weight",
                                          .gang = g,
                                          .kind = TROUPE_METHOD_BACKWARD_WEIGHT,
                                          .slot_return = true},
                   backward);
    }
    if (recompute) {
        p->after[backward] = add_method(
            p,
            (struct troupe_method){
                .name = "recompute", .gang = g, .kind = TROUPE_METHOD_RECOMPUTE, .slot_take = true},
            forward);
    }
    return forward;
}

static void add_reduction(struct pipeline *p, int gang, int last_method) {
    add_method(p,
               (struct troupe_method){.name = "reduce",
                                      .gang = gang,
                                      .kind = TROUPE_METHOD_REDUCE,
                                      .lane = TROUPE_LANE_REDUCTION,
                                      .lane_order = p->gangs[gang].stage,
                                      .firings = 1},
               last_method);
}

static void add_llm(struct pipeline *p, int replica, int first_rank, int *first_forward) {
    const struct pipeline_options *o = &p->options;
    for (int s = 0, before = -1; s < stage_count(p); s++) {
        int forward = add_gang(p,
                               (struct troupe_gang){.name = "llm",
                                                    .slots = o->slots,
                                                    .module = LLM,
                                                    .stage = s,
                                                    .stage_count = stage_count(p),
                                                    .chunk = s / o->ranks,
                                                    .chunk_count = o->chunks,
                                                    .dp = replica},
                               first_rank + rank_of_stage(p, s), o->split, o->recompute > 0);
        if (o->reduce > 0) {
            add_reduction(p, p->graph.gang_count - 1, forward + 1 + o->split);
        }
        if (before >= 0) {
            add_edge(p, "rows", before, forward);
            add_edge(p, "gradients", forward + 1, before + 1);
        } else {
            *first_forward = forward;
        }
        before = forward;
    }
}

static void allocate(struct pipeline *p, int gangs, int ranks) {
    EXPECT_OK(TROUPE_NEW(&p->gangs, gangs));
    EXPECT_OK(TROUPE_NEW(&p->methods, 5 * gangs));
    EXPECT_OK(TROUPE_NEW(&p->after, 5 * gangs));
    EXPECT_OK(TROUPE_NEW(&p->edges, 2 * gangs));
    EXPECT_OK(TROUPE_NEW(&p->rank_lists, ranks));
    for (int r = 0; r < ranks; r++) {
        p->rank_lists[r] = r;
    }
}

static void add_prefetch(struct pipeline *p, int rank, int first_forward) {
    int g = p->graph.gang_count++;
    p->gangs[g] = (struct troupe_gang){
        .name = "loader", .ranks = &p->rank_lists[rank], .rank_count = 1, .stage_count = 1};
    int prefetch = add_method(
        p, (struct troupe_method){.name = "prefetch", .gang = g, .kind = TROUPE_METHOD_PREFETCH},
        -1);
    add_edge(p, "samples", prefetch, first_forward);
    p->edges[p->graph.edge_count - 1].credits = p->options.prefetch_credits;
}

static void add_encoders(struct pipeline *p, int replica, int first_rank, int first_forward) {
    for (int i = 0; i < encoder_count(p); i++) {
        int forward = add_gang(p,
                               (struct troupe_gang){.name = "encoder",
                                                    .slots = p->options.encoder_slots,
                                                    .module = ENCODER,
                                                    .depth = 1,
                                                    .stage_count = 1,
                                                    .dp = replica * encoder_count(p) + i},
                               first_rank + i, false, false);
        add_edge(p, "pictures", forward, first_forward);
        add_edge(p, "picture gradients", first_forward + 1, forward + 1);
    }
}

void pipeline_make(const struct pipeline_options *options, struct pipeline *p) {
    int m = options->microbatches;
    *p = (struct pipeline){.options = *options};
    struct pipeline_options *o = &p->options;
    o->chunks = o->chunks > 0 ? o->chunks : 1;
    o->replicas = o->replicas > 0 ? o->replicas : 1;
    o->slots = o->slots > 0 ? o->slots : m;
    o->encoder_slots = o->encoder_slots > 0 ? o->encoder_slots : m;
    o->credits = o->credits > 0 ? o->credits : m;
    bool apart = o->encoder == ENCODER_APART;
    o->prefetch_credits = o->prefetch_credits > 0 ? o->prefetch_credits : m;
    bool loads = o->prefetch > 0;
    int ranks = o->ranks + (apart ? encoder_count(p) : 0) + loads; /* of a replica */
    allocate(p, o->replicas * (stage_count(p) + encoder_count(p) + loads), o->replicas * ranks);
    for (int d = 0; d < o->replicas; d++) {
        int first_forward = 0, first_rank = d * ranks;
        add_llm(p, d, first_rank, &first_forward);
        add_encoders(p, d, first_rank + (apart ? o->ranks : 0), first_forward);
        if (loads) {
            add_prefetch(p, first_rank + ranks - 1, first_forward);
        }
    }
    p->graph.rank_count = o->replicas * ranks;
    p->graph.gangs = p->gangs;
    p->graph.methods = p->methods;
    p->graph.edges = p->edges;
    p->costs =
        (struct troupe_costs){.task_ns = task_ns, .edge_ns = edge_ns, .arg = p, .steady = true};
    EXPECT_OK(troupe_graph_check(&p->graph));
}

void pipeline_free(struct pipeline *p) {
    troupe_free(p->gangs);
    troupe_free(p->methods);
    troupe_free(p->after);
    troupe_free(p->edges);
    troupe_free(p->rank_lists);
}

void pipeline_draw_factors(int count, double disparity, uint64_t seed, uint64_t stream,
                           double *factors_out) {
    double least = INFINITY, most = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++) {
        factors_out[i] = troupe_random_normal(seed, stream, (uint64_t)i);
        least = fmin(least, factors_out[i]);
        most = fmax(most, factors_out[i]);
    }
    for (int i = 0; i < count; i++) {
        factors_out[i] = exp((factors_out[i] - least) / (most - least) * log(disparity));
        sum += factors_out[i];
    }
    for (int i = 0; i < count; i++) {
        factors_out[i] *= count / sum;
    }
}
