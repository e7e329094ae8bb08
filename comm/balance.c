/* SPDX-License-Identifier: Apache-2.0
 *
 * Water first, then paths. Groups are poured one after the other onto their least loaded members,
 * which is optimal for the nested groups that regular layouts have. What is left uneven goes along
 * alternating paths (a unit of one group from u to w, a unit of another from w to v) until none
 * leads from a rank to one that has two units less: then no shares are more even (Harvey, Ladner,
 * Lovasz, Tamir: Semi-matchings, 2006). At last cycles are taken out, which changes no load.
 */
#include "comm/balance.h"

#include "runtime/check.h"
#include "runtime/memory.h"

enum { POURS_MAX = 8 };

struct group {
    int64_t amount;
    int64_t weight; /* load of a unit */
    int first;      /* entries */
    int count;
    int preferred;
};

/* One membership. */
struct entry {
    int rank;
    int group;
    int64_t share; /* after solve: where it ends in the group */
    int next;      /* entry of the same rank, or -1 */
};

/* A rank, and what the searches know of it. */
struct node {
    int64_t load;
    int first_entry;
    int epoch;     /* of the search that reached it last */
    int give, get; /* entries of the group over which it was reached */
    bool member;   /* in a group of this solve */
    bool settled;  /* its load is final */
};

struct troupe_balance {
    int rank_count;
    int64_t groups_max, entries_max;
    int group_count, entry_count;
    struct group *groups;
    struct entry *entries;
    struct node *nodes;
    int *group_epoch;
    int *order; /* groups, small ones first */
    int *ranks; /* members of any group */
    int member_count;
    int *queue;
    int epoch;
};

troupe_status troupe_balance_create(int rank_count, int64_t groups_max, int64_t members_max,
                                    troupe_balance **out) {
    troupe_balance *b = NULL;
    troupe_status status = TROUPE_OK;
    TROUPE_TRY(TROUPE_NEW(&b, 1));
    b->rank_count = rank_count;
    b->groups_max = groups_max;
    b->entries_max = members_max;
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->groups, groups_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->entries, members_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->nodes, rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->group_epoch, groups_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->order, groups_max));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->ranks, rank_count));
    TROUPE_TRY_FAIL(TROUPE_NEW(&b->queue, rank_count + 1));
    *out = b;
    return TROUPE_OK;
fail:
    troupe_balance_destroy(b);
    return status;
}

void troupe_balance_destroy(troupe_balance *b) {
    if (b == NULL) {
        return;
    }
    troupe_free(b->groups);
    troupe_free(b->entries);
    troupe_free(b->nodes);
    troupe_free(b->group_epoch);
    troupe_free(b->order);
    troupe_free(b->ranks);
    troupe_free(b->queue);
    troupe_free(b);
}

void troupe_balance_begin(troupe_balance *b) {
    for (int i = 0; i < b->member_count; i++) {
        b->nodes[b->ranks[i]].member = false;
    }
    b->group_count = b->entry_count = b->member_count = 0;
}

int troupe_balance_add(troupe_balance *b, int64_t amount, int64_t weight) {
    TROUPE_ASSERT(b->group_count < b->groups_max, "more than %lld groups",
                  (long long)b->groups_max);
    b->groups[b->group_count] =
        (struct group){.amount = amount, .weight = weight, .first = b->entry_count};
    return b->group_count++;
}

void troupe_balance_member(troupe_balance *b, int rank, bool preferred) {
    TROUPE_ASSERT(b->entry_count < b->entries_max, "more than %lld members",
                  (long long)b->entries_max);
    struct group *group = &b->groups[b->group_count - 1];
    struct node *node = &b->nodes[rank];
    if (!node->member) {
        *node = (struct node){.first_entry = -1, .epoch = node->epoch, .member = true};
        b->ranks[b->member_count++] = rank;
    }
    group->count++;
    group->preferred += preferred;
    b->entries[b->entry_count] =
        (struct entry){.rank = rank, .group = b->group_count - 1, .next = node->first_entry};
    node->first_entry = b->entry_count++;
}

/* ---- water ---- */

/* Units that the first `count` members of the group can take without rising above a level. */
static int64_t room_below(const troupe_balance *b, const struct group *group, int count,
                          int64_t level) {
    int64_t room = 0;
    for (int i = 0; i < count; i++) {
        int64_t load = b->nodes[b->entries[group->first + i].rank].load;
        room += load < level ? (level - load) / group->weight : 0;
    }
    return room;
}

/* The lowest level below which there is room for the whole amount. */
static int64_t find_level(const troupe_balance *b, const struct group *group, int count) {
    int64_t low = INT64_MAX;
    for (int i = 0; i < count; i++) {
        int64_t load = b->nodes[b->entries[group->first + i].rank].load;
        low = load < low ? load : low;
    }
    int64_t high = low + group->amount * group->weight;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (room_below(b, group, count, middle) >= group->amount) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* Shares the amount out to the first `count` members; none has a share yet. */
static void pour(troupe_balance *b, const struct group *group, int count) {
    int64_t level = find_level(b, group, count);
    int64_t surplus = room_below(b, group, count, level) - group->amount;
    for (int i = count - 1; i >= 0; i--) {
        struct entry *entry = &b->entries[group->first + i];
        struct node *node = &b->nodes[entry->rank];
        int64_t units = node->load < level ? (level - node->load) / group->weight : 0;
        if (units > 0 && surplus > 0 && (level - node->load) % group->weight == 0) {
            units--; /* the last of those that would just reach the level */
            surplus--;
        }
        entry->share = units;
        node->load += units * group->weight;
    }
}

static void take_back(troupe_balance *b, const struct group *group) {
    for (int i = 0; i < group->count; i++) {
        struct entry *entry = &b->entries[group->first + i];
        b->nodes[entry->rank].load -= entry->share * group->weight;
        entry->share = 0;
    }
}

/* Groups by their number of members, stable: a counting sort with the queue as counters. */
static void sort_groups(troupe_balance *b) {
    int *position = b->queue;
    for (int size = 0; size <= b->rank_count; size++) {
        position[size] = 0;
    }
    for (int g = 0; g < b->group_count; g++) {
        position[b->groups[g].count]++;
    }
    for (int size = 0, sum = 0; size <= b->rank_count; size++) {
        int count = position[size];
        position[size] = sum;
        sum += count;
    }
    for (int g = 0; g < b->group_count; g++) {
        b->order[position[b->groups[g].count]++] = g;
    }
}

static void pour_all(troupe_balance *b, bool again) {
    for (int i = 0; i < b->group_count; i++) {
        const struct group *group = &b->groups[b->order[i]];
        if (again) {
            take_back(b, group);
        }
        pour(b, group, again || group->preferred == 0 ? group->count : group->preferred);
    }
}

/* ---- paths ---- */

/* Adds the members of the group to those reached, over what `give`'s rank could hand on. */
static int reach_members(troupe_balance *b, int give, int queue_end, int64_t limit, int *found) {
    const struct group *group = &b->groups[b->entries[give].group];
    for (int i = group->first; i < group->first + group->count && *found < 0; i++) {
        int rank = b->entries[i].rank;
        struct node *node = &b->nodes[rank];
        if (node->epoch != b->epoch && !node->settled) {
            node->epoch = b->epoch;
            node->give = give;
            node->get = i;
            b->queue[queue_end++] = rank;
            *found = node->load <= limit ? rank : -1;
        }
    }
    return queue_end;
}

static int64_t weight_of(const troupe_balance *b, int entry) {
    return b->groups[b->entries[entry].group].weight;
}

/* Whether the rank of `entry` may hand a unit of it on, given how the search reached the rank: it
 * then gets a unit itself, and must stay below `load`. */
static bool may_give(const troupe_balance *b, int entry, int64_t load) {
    const struct node *node = &b->nodes[b->entries[entry].rank];
    int64_t weight = weight_of(b, entry);
    int64_t got = node->give < 0 ? weight : weight_of(b, node->get);
    return b->entries[entry].share > 0 && (got == weight || node->load + got - weight < load);
}

/* Searches from all ranks with that load for one that is better off even with a unit more; returns
 * it or -1. *reached_out: how many ranks the queue then holds. */
static int find_path(troupe_balance *b, int64_t load, int *reached_out) {
    int end = 0, found = -1;
    b->epoch++;
    for (int i = 0; i < b->member_count; i++) {
        struct node *node = &b->nodes[b->ranks[i]];
        if (!node->settled && node->load == load) {
            node->epoch = b->epoch;
            node->give = -1;
            b->queue[end++] = b->ranks[i];
        }
    }
    for (int begin = 0; begin < end && found < 0; begin++) {
        int entry = b->nodes[b->queue[begin]].first_entry;
        for (; entry >= 0 && found < 0; entry = b->entries[entry].next) {
            int *seen = &b->group_epoch[b->entries[entry].group];
            if (*seen != b->epoch && may_give(b, entry, load)) {
                *seen = b->epoch;
                end = reach_members(b, entry, end, load - weight_of(b, entry) - 1, &found);
            }
        }
    }
    *reached_out = end;
    return found;
}

/* Moves as much as the path to `rank` lets through, and as evens its ends out; a unit where weights
 * differ on the way. */
static void push(troupe_balance *b, int rank) {
    int64_t weight = weight_of(b, b->nodes[rank].get), amount = INT64_MAX;
    int from = rank;
    while (b->nodes[from].give >= 0) {
        const struct entry *give = &b->entries[b->nodes[from].give];
        amount = give->share < amount ? give->share : amount;
        amount = weight_of(b, b->nodes[from].give) != weight ? 1 : amount;
        from = give->rank;
    }
    int64_t half = (b->nodes[from].load - b->nodes[rank].load) / (2 * weight);
    amount = half < amount ? half + (half == 0) : amount;
    for (int r = rank; b->nodes[r].give >= 0;) {
        int get = b->nodes[r].get, give = b->nodes[r].give;
        b->entries[get].share += amount;
        b->nodes[r].load += amount * weight_of(b, get);
        r = b->entries[give].rank;
        b->entries[give].share -= amount;
        b->nodes[r].load -= amount * weight_of(b, give);
    }
}

/* The largest load that is not settled, or -1. */
static int64_t largest_load(const troupe_balance *b) {
    int64_t largest = -1;
    for (int i = 0; i < b->member_count; i++) {
        const struct node *node = &b->nodes[b->ranks[i]];
        largest = !node->settled && node->load > largest ? node->load : largest;
    }
    return largest;
}

static int64_t lightest_unit(const troupe_balance *b) {
    int64_t weight = INT64_MAX;
    for (int g = 0; g < b->group_count; g++) {
        weight = b->groups[g].weight < weight ? b->groups[g].weight : weight;
    }
    return weight;
}

/* Whether loads differ by at most one unit: nothing can be more even. */
static bool is_even(const troupe_balance *b) {
    int64_t largest = largest_load(b), smallest = largest;
    for (int i = 0; i < b->member_count; i++) {
        const struct node *node = &b->nodes[b->ranks[i]];
        smallest = node->load < smallest ? node->load : smallest;
    }
    return largest - smallest <= lightest_unit(b);
}

/* Evens out the ranks of the largest load until no path leads away from them; they and all that
 * they reach are settled, for what they reach has a unit less at most. Then the next largest. */
static void even_out(troupe_balance *b) {
    for (int i = 0; i < POURS_MAX; i++) { /* comes close in few rounds; paths do the rest */
        pour_all(b, true);
    }
    for (int64_t load = largest_load(b); load > 0; load = largest_load(b)) {
        int reached = 0, rank = find_path(b, load, &reached);
        for (int i = 0; rank < 0 && i < reached; i++) {
            b->nodes[b->queue[i]].settled = true;
        }
        if (rank >= 0) {
            push(b, rank);
        }
    }
}

/* ---- cycles ---- */

/* Reaches the members of the group that the search allows: only over entries before `limit`. */
static int reach_shares(troupe_balance *b, int give, int queue_end, int limit) {
    const struct group *group = &b->groups[b->entries[give].group];
    for (int i = group->first; i < group->first + group->count && i < limit; i++) {
        struct node *node = &b->nodes[b->entries[i].rank];
        if (b->entries[i].share > 0 && node->epoch != b->epoch) {
            node->epoch = b->epoch;
            node->give = give;
            node->get = i;
            b->queue[queue_end++] = b->entries[i].rank;
        }
    }
    return queue_end;
}

/* Whether shares in entries before `entry` lead from its rank to its group; then `last_out` is the
 * rank that reaches the group. */
static bool find_cycle(troupe_balance *b, int entry, int *last_out) {
    int end = 0;
    b->epoch++;
    b->nodes[b->entries[entry].rank].epoch = b->epoch;
    b->nodes[b->entries[entry].rank].give = -1;
    b->queue[end++] = b->entries[entry].rank;
    for (int begin = 0; begin < end; begin++) {
        int e = b->nodes[b->queue[begin]].first_entry;
        for (; e >= 0; e = b->entries[e].next) {
            int *seen = &b->group_epoch[b->entries[e].group];
            if (e >= entry || b->entries[e].share == 0 || *seen == b->epoch ||
                b->groups[b->entries[e].group].weight !=
                    b->groups[b->entries[entry].group].weight) {
                continue;
            }
            if (b->entries[e].group == b->entries[entry].group) {
                *last_out = e;
                return true;
            }
            *seen = b->epoch;
            end = reach_shares(b, e, end, entry);
        }
    }
    return false;
}

/* Turns the cycle that `entry` closes until a share in it is gone. Around the cycle every other
 * entry gains what the ones between lose: `entry` loses, `last` gains, ... */
static void turn(troupe_balance *b, int entry, int last) {
    int64_t amount = b->entries[entry].share;
    for (int r = b->entries[last].rank; b->nodes[r].give >= 0;) {
        int64_t share = b->entries[b->nodes[r].get].share;
        amount = share < amount ? share : amount;
        r = b->entries[b->nodes[r].give].rank;
    }
    b->entries[entry].share -= amount;
    b->entries[last].share += amount;
    for (int r = b->entries[last].rank; b->nodes[r].give >= 0;) {
        b->entries[b->nodes[r].get].share -= amount;
        b->entries[b->nodes[r].give].share += amount;
        r = b->entries[b->nodes[r].give].rank;
    }
}

/* Without cycles there are fewer shares than groups and ranks together: few cuts, few messages. */
static void take_out_cycles(troupe_balance *b) {
    for (int entry = 0; entry < b->entry_count; entry++) {
        int last = -1;
        while (b->entries[entry].share > 0 && find_cycle(b, entry, &last)) {
            turn(b, entry, last);
        }
    }
}

/* Whether preferred members do everything, and none more than it may. */
static bool is_allowed(const troupe_balance *b, int64_t allowed) {
    bool preferred = true;
    for (int g = 0; g < b->group_count && preferred; g++) {
        preferred = b->groups[g].preferred > 0;
    }
    return preferred && largest_load(b) <= allowed;
}

void troupe_balance_solve(troupe_balance *b, int64_t allowed) {
    sort_groups(b);
    pour_all(b, false);
    if (!is_allowed(b, allowed) && !is_even(b)) {
        even_out(b);
    }
    if (b->group_count > 1) {
        take_out_cycles(b);
    }
    for (int g = 0; g < b->group_count; g++) {
        const struct group *group = &b->groups[g];
        int64_t end = 0;
        for (int i = 0; i < group->count; i++) {
            end += b->entries[group->first + i].share;
            b->entries[group->first + i].share = end;
        }
        TROUPE_DEBUG_ASSERT(end == group->amount, "group %d shares out %lld of %lld", g,
                            (long long)end, (long long)group->amount);
    }
}

int64_t troupe_balance_end(const troupe_balance *b, int group, int member) {
    return b->entries[b->groups[group].first + member].share;
}

int troupe_balance_groups(const troupe_balance *b) {
    return b->group_count;
}

int troupe_balance_members(const troupe_balance *b, int group) {
    return b->groups[group].count;
}

int troupe_balance_rank(const troupe_balance *b, int group, int member) {
    return b->entries[b->groups[group].first + member].rank;
}

int64_t troupe_balance_load(const troupe_balance *b, int rank) {
    return b->nodes[rank].load;
}
