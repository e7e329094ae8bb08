/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/cluster.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"
#include "runtime/memory.h"

static const double ns_per_s = 1e9;

void troupe_cluster_default(struct troupe_cluster *out) {
    *out = (struct troupe_cluster){
        .ranks_per_host = 8,
        .inside = {.latency_ns = 3000, .bytes_per_s = 370e9},
        .between = {.latency_ns = 6000, .bytes_per_s = 45e9},
        .control_ns = 3000,
        .flops_per_s = 989e12,
        .memory_bytes_per_s = 3.35e12,
        .efficiency = {{64, 0.06}, {512, 0.35}, {2048, 0.55}, {8192, 0.65}},
        .efficiency_count = 4,
        .launch_ns = 10000,
    };
}

/* ---- the file ---- */

enum value_kind { VALUE_INT, VALUE_NS, VALUE_DOUBLE, VALUE_EFFICIENCY };

static const struct key {
    const char *name;
    enum value_kind kind;
    size_t offset;
    const char *meaning;
} keys[] = {
#define FIELD(f) offsetof(struct troupe_cluster, f)
    {"ranks_per_host", VALUE_INT, FIELD(ranks_per_host), "0: one host holds all"},
    {"nics_per_host", VALUE_INT, FIELD(nics_per_host), "0: one for each rank"},
    {"inside_latency_ns", VALUE_NS, FIELD(inside.latency_ns), "between ranks of a host"},
    {"inside_bytes_per_s", VALUE_DOUBLE, FIELD(inside.bytes_per_s), "of a rank's port, one way"},
    {"between_latency_ns", VALUE_NS, FIELD(between.latency_ns), "between hosts"},
    {"between_bytes_per_s", VALUE_DOUBLE, FIELD(between.bytes_per_s), "of a card, one way"},
    {"control_ns", VALUE_NS, FIELD(control_ns), "a control message"},
    {"flops_per_s", VALUE_DOUBLE, FIELD(flops_per_s), "peak of a device"},
    {"memory_bytes_per_s", VALUE_DOUBLE, FIELD(memory_bytes_per_s), "of a device"},
    {"launch_ns", VALUE_NS, FIELD(launch_ns), "that any task takes at least"},
    {"efficiency", VALUE_EFFICIENCY, FIELD(efficiency), "rows:share of the peak, ascending"},
#undef FIELD
};

static troupe_status read_efficiency(const char *text, struct troupe_cluster *out) {
    int count = 0;
    double before = 0;
    while (*text != '\0') {
        char *end = NULL;
        double rows = strtod(text, &end);
        double share = *end == ':' ? strtod(end + 1, &end) : 0;
        if (!(rows > before && share > 0 && share <= 1) || count == TROUPE_EFFICIENCY_POINTS_MAX) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "efficiency wants at most %d points rows:share, rows ascending, "
                               "0 < share <= 1, not \"%s\"",
                               TROUPE_EFFICIENCY_POINTS_MAX, text);
        }
        out->efficiency[count++] =
            (struct troupe_efficiency){.rows = before = rows, .share = share};
        for (text = end; isspace((unsigned char)*text) || *text == ','; text++) {
        }
    }
    out->efficiency_count = count;
    return TROUPE_OK;
}

static troupe_status read_value(const struct key *key, const char *text,
                                struct troupe_cluster *out) {
    if (key->kind == VALUE_EFFICIENCY) {
        return read_efficiency(text, out);
    }
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value < 1e18)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s wants a number >= 0, not \"%s\"", key->name,
                           text);
    }
    void *field = (char *)out + key->offset;
    if (key->kind == VALUE_INT) {
        *(int *)field = (int)value;
    } else if (key->kind == VALUE_NS) {
        *(int64_t *)field = (int64_t)value;
    } else {
        *(double *)field = value;
    }
    return TROUPE_OK;
}

/* Cuts comment and surrounding blanks off; returns the rest. */
static char *strip(char *text) {
    text[strcspn(text, "#\n")] = '\0';
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        text[--length] = '\0';
    }
    return text;
}

static troupe_status read_line(char *line, struct troupe_cluster *out) {
    char *name = strip(line), *colon = strchr(name, ':');
    if (*name == '\0') {
        return TROUPE_OK;
    }
    if (colon == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID, "\"%s\" is not key: value", name);
    }
    *colon = '\0';
    name = strip(name);
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return read_value(&keys[i], strip(colon + 1), out);
        }
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "there is no key %s; see `troupe help sim`", name);
}

troupe_status troupe_cluster_read(const char *path, struct troupe_cluster *out) {
    enum { LINE_BYTES = 512 };
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: %s", path, strerror(errno));
    }
    struct troupe_cluster cluster;
    char line[LINE_BYTES];
    troupe_status status = TROUPE_OK;
    troupe_cluster_default(&cluster);
    for (int number = 1; status == TROUPE_OK && fgets(line, sizeof line, file) != NULL; number++) {
        status = read_line(line, &cluster);
        if (status != TROUPE_OK) {
            troupe_fail_in(status, "%s:%d", path, number);
        }
    }
    fclose(file);
    TROUPE_TRY(status);
    *out = cluster;
    return TROUPE_OK;
}

void troupe_cluster_write(const struct troupe_cluster *cluster, FILE *file) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        const void *field = (const char *)cluster + keys[i].offset;
        fprintf(file, "%s:", keys[i].name);
        switch (keys[i].kind) {
        case VALUE_INT:
            fprintf(file, " %d", *(const int *)field);
            break;
        case VALUE_NS:
            fprintf(file, " %lld", (long long)*(const int64_t *)field);
            break;
        case VALUE_DOUBLE:
            fprintf(file, " %.6g", *(const double *)field);
            break;
        case VALUE_EFFICIENCY:
            for (int k = 0; k < cluster->efficiency_count; k++) {
                fprintf(file, " %g:%g", cluster->efficiency[k].rows, cluster->efficiency[k].share);
            }
            break;
        }
        fprintf(file, "  # %s\n", keys[i].meaning);
    }
}

/* ---- computing ---- */

static double efficiency_at(const struct troupe_cluster *cluster, double rows) {
    const struct troupe_efficiency *points = cluster->efficiency;
    int count = cluster->efficiency_count;
    if (count == 0) {
        return 1;
    }
    if (rows <= points[0].rows) {
        return points[0].share;
    }
    for (int i = 1; i < count; i++) {
        if (rows <= points[i].rows) {
            double at = log(rows / points[i - 1].rows) / log(points[i].rows / points[i - 1].rows);
            return points[i - 1].share + at * (points[i].share - points[i - 1].share);
        }
    }
    return points[count - 1].share;
}

static int64_t stretch_ns(double amount, double per_s) {
    return per_s > 0 ? (int64_t)ceil(amount / per_s * ns_per_s) : 0;
}

int64_t troupe_cluster_compute_ns(const struct troupe_cluster *cluster,
                                  const struct troupe_work *work) {
    if (work->flops <= 0 && work->bytes <= 0) {
        return 0;
    }
    double rate = cluster->flops_per_s * efficiency_at(cluster, work->rows);
    int64_t compute = stretch_ns(work->flops, rate);
    int64_t memory = stretch_ns(work->bytes, cluster->memory_bytes_per_s);
    int64_t longer = compute > memory ? compute : memory;
    return longer > cluster->launch_ns ? longer : cluster->launch_ns;
}

/* ---- links ---- */

static int host_of(const struct troupe_cluster *cluster, int rank) {
    return cluster->ranks_per_host > 0 ? rank / cluster->ranks_per_host : 0;
}

static const struct troupe_link *link_of(const struct troupe_cluster *cluster, int from, int to) {
    return host_of(cluster, from) == host_of(cluster, to) ? &cluster->inside : &cluster->between;
}

static int64_t at_least_one(int64_t ns) {
    return ns > 0 ? ns : 1;
}

int64_t troupe_cluster_transfer_ns(const struct troupe_cluster *cluster, int from, int to,
                                   int64_t bytes) {
    if (from == to) {
        return 0;
    }
    const struct troupe_link *link = link_of(cluster, from, to);
    return at_least_one(link->latency_ns + stretch_ns((double)bytes, link->bytes_per_s));
}

int64_t troupe_cluster_collective_ns(const struct troupe_cluster *cluster,
                                     enum troupe_collective_kind kind, const int *ranks, int count,
                                     int64_t bytes) {
    if (count < 2 || bytes == 0) {
        return 0;
    }
    const struct troupe_link *slowest = &cluster->inside;
    for (int i = 1; i < count; i++) {
        if (host_of(cluster, ranks[i]) != host_of(cluster, ranks[0])) {
            slowest = &cluster->between;
        }
    }
    int passes = kind == TROUPE_COLLECTIVE_ALL_REDUCE ? 2 : 1;
    double moved = (double)bytes * (count - 1) / count; /* by each rank, in each pass */
    int64_t ring =
        passes * ((count - 1) * slowest->latency_ns + stretch_ns(moved, slowest->bytes_per_s));
    int depth = 0;
    for (int reached = 1; reached < count; reached *= 2) {
        depth++;
    }
    /* Pipelined along the tree: an inner rank passes everything on once in each pass. */
    int64_t tree =
        passes * (depth * slowest->latency_ns + stretch_ns((double)bytes, slowest->bytes_per_s));
    return ring < tree ? ring : tree;
}

/* ---- contention ---- */

/* When a port is free again, by direction. */
struct port {
    int64_t out_ns;
    int64_t in_ns;
};

struct troupe_traffic {
    const struct troupe_cluster *cluster;
    int nics_per_host;
    int rank_count;
    struct port *ranks;
    int card_count;
    struct port *cards;
};

troupe_status troupe_traffic_create(const struct troupe_cluster *cluster, int rank_count,
                                    troupe_traffic **out) {
    troupe_traffic *traffic = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&traffic, 1));
    int on_host = cluster->ranks_per_host > 0 ? cluster->ranks_per_host : rank_count;
    traffic->cluster = cluster;
    traffic->rank_count = rank_count;
    traffic->nics_per_host = cluster->nics_per_host > 0 ? cluster->nics_per_host : on_host;
    traffic->card_count = (host_of(cluster, rank_count - 1) + 1) * traffic->nics_per_host;
    TROUPE_TRY_FAIL(TROUPE_NEW(&traffic->ranks, rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&traffic->cards, traffic->card_count));
    *out = traffic;
    return TROUPE_OK;
fail:
    troupe_traffic_destroy(traffic);
    return status;
}

void troupe_traffic_destroy(troupe_traffic *traffic) {
    if (traffic != NULL) {
        troupe_free(traffic->ranks);
        troupe_free(traffic->cards);
        troupe_free(traffic);
    }
}

void troupe_traffic_reset(troupe_traffic *traffic) {
    memset(traffic->ranks, 0, (size_t)traffic->rank_count * sizeof *traffic->ranks);
    memset(traffic->cards, 0, (size_t)traffic->card_count * sizeof *traffic->cards);
}

static struct port *port_of(troupe_traffic *traffic, int rank, bool between) {
    if (!between) {
        return &traffic->ranks[rank];
    }
    int on_host = traffic->cluster->ranks_per_host;
    return &traffic->cards[host_of(traffic->cluster, rank) * traffic->nics_per_host +
                           rank % on_host % traffic->nics_per_host];
}

int64_t troupe_traffic_send(troupe_traffic *traffic, int64_t now_ns, int from, int to,
                            int64_t bytes) {
    if (from == to) {
        return now_ns;
    }
    const struct troupe_link *link = link_of(traffic->cluster, from, to);
    bool between = link == &traffic->cluster->between;
    struct port *source = port_of(traffic, from, between);
    struct port *target = port_of(traffic, to, between);
    int64_t begin = source->out_ns > now_ns ? source->out_ns : now_ns;
    begin = target->in_ns > begin ? target->in_ns : begin;
    int64_t occupied = stretch_ns((double)bytes, link->bytes_per_s);
    source->out_ns = target->in_ns = begin + occupied;
    return begin + at_least_one(occupied + link->latency_ns);
}
