/* SPDX-License-Identifier: Apache-2.0 */
/* Relabelling between placements, against all permutations that keep the ranks in use and the
 * hosts: no other leaves more elements where they are, and what it says of them is so. */
#include "modules/train/relabel.h"

#include "tests/test.h"

enum { RANKS = 6 };

static const char *const placements[] = {
    "placement.policy=homogeneous",
    "placement.vision.ranks=0-5 placement.llm.ranks=0-5 placement.llm.tp=2",
    "placement.vision.ranks=0-2 placement.llm.ranks=3-4",
    "placement.vision.ranks=0-5 placement.llm.ranks=5,4,3,2,1,0 placement.llm.pp=3",
    "placement.vision.ranks=2 placement.llm.ranks=2",
    "placement.vision.ranks=4-5 placement.vision.tp=2 placement.llm.ranks=0-3 placement.llm.pp=2 "
    "placement.llm.tp=2",
    "placement.vision.ranks=0-1 placement.llm.ranks=2-5 placement.llm.tp=4",
    "placement.vision.ranks=0 placement.projector.ranks=1-2 placement.llm.ranks=3-5 "
    "placement.llm.pp=3 placement.llm.layers=[2,1,1]",
};
enum { PLACEMENTS = sizeof placements / sizeof *placements };

static const int hosts_of_case[][RANKS] = {
    {0, 0, 0, 0, 0, 0}, {0, 0, 0, 1, 1, 1}, {0, 0, 1, 1, 2, 2}, {0, 1, 0, 1, 0, 1}};

struct map {
    struct troupe_config config;
    struct troupe_plan *plan;
    struct troupe_state_map state;
};

static void make_map(struct map *map, const char *settings) {
    static const char base[] =
        "model.vision.layers=2 model.vision.hidden=24 model.vision.heads=4 model.llm.layers=4 "
        "model.llm.hidden=32 model.llm.heads=4 model.llm.ffn=44 data.synthetic.samples=4 ";
    char copy[1024], *rest = NULL;
    troupe_config_init(&map->config);
    snprintf(copy, sizeof copy, "%s%s", base, settings);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        EXPECT_OK(troupe_config_set(&map->config, word));
    }
    EXPECT_OK(troupe_config_resolve(&map->config));
    EXPECT_OK(troupe_plan_create(&map->config, RANKS, &map->plan));
    EXPECT_OK(troupe_state_map_of_plan(&map->config.model, map->plan, &map->state));
}

/* Elements that `rank` holds in one map and `role` in the other, tensor by tensor. */
static int64_t overlap(const struct map *from, int rank, const struct map *to, int role) {
    int64_t sum = 0;
    for (int t = 0; t < to->state.tensor_count; t++) {
        struct troupe_box have, need, common;
        if (troupe_state_map_box(&from->state, t, rank, &have) &&
            troupe_state_map_box(&to->state, t, role, &need) &&
            troupe_box_intersect(&have, &need, &common)) {
            sum += troupe_box_elements(&common);
        }
    }
    return sum;
}

struct oracle {
    int64_t overlap[RANKS][RANKS]; /* by role and rank */
    bool used[RANKS];
    int used_on_host[RANKS];
    const int *host;
    int64_t best;
};

/* Ranks in use stay those; ranks of one host go to one host, which has as many in use. */
static bool is_allowed(const struct oracle *o, const int *rank_of_role) {
    int host_of_host[RANKS];
    memset(host_of_host, -1, sizeof host_of_host);
    for (int r = 0; r < RANKS; r++) {
        int a = o->host[r], b = o->host[rank_of_role[r]];
        if (!o->used[r]) {
            continue;
        }
        if (!o->used[rank_of_role[r]] || o->used_on_host[a] != o->used_on_host[b] ||
            (host_of_host[a] >= 0 && host_of_host[a] != b)) {
            return false;
        }
        host_of_host[a] = b;
    }
    return true;
}

static int64_t kept_by(const struct oracle *o, const int *rank_of_role) {
    int64_t kept = 0;
    for (int r = 0; r < RANKS; r++) {
        kept += o->used[r] ? o->overlap[r][rank_of_role[r]] : 0;
    }
    return kept;
}

static void try_all(struct oracle *o, int *ranks, int at) {
    if (at == RANKS) {
        int64_t kept = is_allowed(o, ranks) ? kept_by(o, ranks) : 0;
        o->best = kept > o->best ? kept : o->best;
        return;
    }
    for (int i = at; i < RANKS; i++) {
        int held = ranks[i];
        ranks[i] = ranks[at];
        ranks[at] = held;
        try_all(o, ranks, at + 1);
        ranks[at] = ranks[i];
        ranks[i] = held;
    }
}

static void check_pair(const struct map *from, const struct map *to, const int *host) {
    struct oracle o = {.host = host};
    int rank_of_role[RANKS], all[RANKS];
    int64_t needed = 0, kept = 0, sum = 0;
    for (int r = 0; r < RANKS; r++) {
        all[r] = r;
        int64_t own = overlap(to, r, to, r);
        o.used[r] = own > 0;
        o.used_on_host[host[r]] += own > 0;
        sum += own;
        for (int k = 0; k < RANKS; k++) {
            o.overlap[r][k] = overlap(from, k, to, r);
        }
    }
    try_all(&o, all, 0);
    EXPECT_OK(troupe_relabel(
        &(struct troupe_relabel_options){
            .from = &from->state, .to = &to->state, .host_of_rank = host, .rank_count = RANKS},
        rank_of_role, &needed, &kept));
    EXPECT(is_allowed(&o, rank_of_role), "a rank left its host or the ranks in use");
    EXPECT_EQ(needed, sum);
    EXPECT_EQ(kept, kept_by(&o, rank_of_role));
    EXPECT_EQ(kept, o.best);
}

static void keeps_as_much_as_any_permutation(void) {
    static struct map maps[PLACEMENTS];
    for (int p = 0; p < PLACEMENTS; p++) {
        make_map(&maps[p], placements[p]);
    }
    for (size_t h = 0; h < sizeof hosts_of_case / sizeof *hosts_of_case; h++) {
        for (int pair = 0; pair < PLACEMENTS * PLACEMENTS; pair++) {
            check_pair(&maps[pair / PLACEMENTS], &maps[pair % PLACEMENTS], hosts_of_case[h]);
        }
    }
    for (int p = 0; p < PLACEMENTS; p++) {
        troupe_state_map_fini(&maps[p].state);
        troupe_plan_destroy(maps[p].plan);
    }
}

int main(void) {
    TEST(keeps_as_much_as_any_permutation);
    return TEST_END();
}
