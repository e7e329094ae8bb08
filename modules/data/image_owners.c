/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/data/image_owners.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/memory.h"

enum { NOBODY = -1, NODES_MAX = 20000, ATTEMPTS = 16, CAPS = 50 };

/* Rows moved for each that must be: a cap that costs no more is taken. */
static const double bargain = 1.08;

struct item {
    int image;
    int64_t cost;
    int64_t rows;
};

struct work {
    const struct troupe_image_problem *problem;
    struct item *items; /* (images): those at home on the rank at hand, best to give up first */
    struct item *given; /* (images): given up by all ranks */
    int given_count;
    bool *chosen, *best; /* (images): of the search, by item */
    int64_t *loads;      /* (ranks) */
    int *trial;          /* (images): owners under one cap */
};

static int64_t cost_of(const struct troupe_image_problem *p, int image) {
    int64_t tokens = p->tokens[image];
    return p->linear * tokens + p->quadratic * tokens * tokens;
}

/* ---- which images a rank gives up ---- */

/* Most cost for a row first, so that the relaxed problem is solved from the front; then large ones;
 * then in order, for the result to be the same everywhere. */
static int compare_gain(const void *left, const void *right) {
    const struct item *a = left, *b = right;
    int64_t x = a->cost * b->rows, y = b->cost * a->rows;
    if (x != y) {
        return x > y ? -1 : 1;
    }
    return a->rows != b->rows ? (a->rows > b->rows ? -1 : 1) : a->image - b->image;
}

struct search {
    const struct item *items;
    int count;
    bool *chosen, *best;
    int64_t best_rows;
    int nodes;
};

/* No way to shed `excess` with the items from `at` on has fewer rows; fractions are allowed. */
static int64_t least_rows(const struct search *s, int at, int64_t excess) {
    int64_t rows = 0;
    for (; at < s->count && excess > 0; at++) {
        const struct item *item = &s->items[at];
        if (item->cost > excess) {
            return rows + (item->rows * excess + item->cost - 1) / item->cost;
        }
        rows += item->rows;
        excess -= item->cost;
    }
    return excess > 0 ? INT64_MAX / 2 : rows;
}

/* Fewest rows whose costs reach the excess: take an item, or leave it. */
static void search(struct search *s, int at, int64_t excess, int64_t rows) {
    if (excess <= 0) {
        if (rows < s->best_rows) {
            s->best_rows = rows;
            memcpy(s->best, s->chosen, (size_t)s->count * sizeof *s->best);
        }
        return;
    }
    if (s->nodes++ > NODES_MAX || rows + least_rows(s, at, excess) >= s->best_rows) {
        return;
    }
    s->chosen[at] = true;
    search(s, at + 1, excess - s->items[at].cost, rows + s->items[at].rows);
    s->chosen[at] = false;
    search(s, at + 1, excess, rows);
}

static void give_up(struct work *w, int rank, int64_t cap, int *owners) {
    const struct troupe_image_problem *p = w->problem;
    struct search s = {
        .items = w->items, .chosen = w->chosen, .best = w->best, .best_rows = INT64_MAX / 2};
    for (int i = 0; i < p->images; i++) {
        if (p->homes[i] == rank && p->tokens[i] > 0) {
            w->items[s.count++] = (struct item){i, cost_of(p, i), p->tokens[i]};
        }
    }
    if (w->loads[rank] <= cap) {
        return;
    }
    qsort(w->items, (size_t)s.count, sizeof *w->items, compare_gain);
    memset(w->chosen, 0, (size_t)s.count * sizeof *w->chosen);
    search(&s, 0, w->loads[rank] - cap, 0);
    for (int i = 0; i < s.count; i++) {
        if (w->best[i]) {
            w->given[w->given_count++] = w->items[i];
            owners[w->items[i].image] = NOBODY;
            w->loads[rank] -= w->items[i].cost;
        }
    }
}

/* ---- where they go ---- */

static int compare_cost(const void *left, const void *right) {
    const struct item *a = left, *b = right;
    return a->cost != b->cost ? (a->cost > b->cost ? -1 : 1) : a->image - b->image;
}

/* The rank that is fullest with it, yet under the cap; NOBODY if there is none. */
static int place_of(const struct work *w, int64_t cost, int64_t cap) {
    int best = NOBODY;
    for (int r = 0; r < w->problem->ranks; r++) {
        if (w->loads[r] + cost <= cap && (best == NOBODY || w->loads[r] > w->loads[best])) {
            best = r;
        }
    }
    return best;
}

/* The largest smaller image whose rank has room for this one instead; NOBODY if there is none. */
static int image_to_replace(const struct work *w, int64_t cost, int64_t cap, const int *owners) {
    int best = NOBODY;
    int64_t best_cost = 0;
    for (int i = 0; i < w->problem->images; i++) {
        int64_t other = cost_of(w->problem, i);
        if (owners[i] != NOBODY && other < cost && other > best_cost &&
            w->loads[owners[i]] - other + cost <= cap) {
            best = i;
            best_cost = other;
        }
    }
    return best;
}

/* Places the image and returns the one that has to make room for it, or NOBODY; false if it finds
 * no place. Images that are replaced get smaller and smaller, so that comes to an end. */
static bool place(struct work *w, int image, int64_t cap, int *owners, int *replaced) {
    int64_t cost = cost_of(w->problem, image);
    int rank = place_of(w, cost, cap);
    *replaced = NOBODY;
    if (rank == NOBODY) {
        *replaced = image_to_replace(w, cost, cap, owners);
        if (*replaced == NOBODY) {
            return false;
        }
        rank = owners[*replaced];
        owners[*replaced] = NOBODY;
        w->loads[rank] -= cost_of(w->problem, *replaced);
    }
    w->loads[rank] += cost;
    owners[image] = rank;
    return true;
}

/* Largest first. */
static bool place_all(struct work *w, int64_t cap, int *owners) {
    qsort(w->given, (size_t)w->given_count, sizeof *w->given, compare_cost);
    for (int i = 0; i < w->given_count; i++) {
        for (int image = w->given[i].image, next; image != NOBODY; image = next) {
            if (!place(w, image, cap, owners, &next)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- the calls ---- */

static void start_at_home(struct work *w, int *owners) {
    const struct troupe_image_problem *p = w->problem;
    memset(w->loads, 0, (size_t)p->ranks * sizeof *w->loads);
    w->given_count = 0;
    for (int i = 0; i < p->images; i++) {
        owners[i] = p->homes[i];
        if (p->homes[i] == NOBODY) {
            w->given[w->given_count++] = (struct item){i, cost_of(p, i), p->tokens[i]};
        } else {
            w->loads[p->homes[i]] += cost_of(p, i);
        }
    }
}

/* Ranks give up a little more at each attempt until everything finds a place under the cap. */
static bool assign_under(struct work *w, int64_t cap, int *owners) {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        start_at_home(w, owners);
        for (int r = 0; r < w->problem->ranks; r++) {
            give_up(w, r, cap - attempt * (cap / 100), owners);
        }
        if (place_all(w, cap, owners)) {
            return true;
        }
    }
    return false;
}

/* What is left where all else fails: each image, largest first, where there is least. */
static void spread(struct work *w, int *owners) {
    const struct troupe_image_problem *p = w->problem;
    memset(w->loads, 0, (size_t)p->ranks * sizeof *w->loads);
    for (int i = 0; i < p->images; i++) {
        w->given[i] = (struct item){i, cost_of(p, i), p->tokens[i]};
    }
    qsort(w->given, (size_t)p->images, sizeof *w->given, compare_cost);
    for (int i = 0; i < p->images; i++) {
        int emptiest = 0;
        for (int r = 1; r < p->ranks; r++) {
            emptiest = w->loads[r] < w->loads[emptiest] ? r : emptiest;
        }
        owners[w->given[i].image] = emptiest;
        w->loads[emptiest] += w->given[i].cost;
    }
}

/* Images are lumps: under a cap that few exceed, what they give up may be far more than they must.
 * Then a lower one is a better bargain: more balance for the rows. */
static troupe_status assign(struct work *w, int *owners) {
    const struct troupe_image_problem *p = w->problem;
    struct troupe_image_balance home, found;
    double least = INFINITY;
    memcpy(owners, p->homes, (size_t)p->images * sizeof *owners);
    TROUPE_TRY(troupe_image_balance(p, owners, &home));
    int64_t mean = home.load_total / p->ranks;
    int64_t base = mean > home.largest ? mean : home.largest;
    spread(w, owners);
    for (int step = 0; step < CAPS && least > bargain; step++) {
        if (!assign_under(w, base + base * (CAPS - step) / (20 * CAPS), w->trial)) {
            continue;
        }
        TROUPE_TRY(troupe_image_balance(p, w->trial, &found));
        double price = ((double)found.rows_moved + 1) / ((double)found.loads_over + 1);
        if (price < least) {
            memcpy(owners, w->trial, (size_t)p->images * sizeof *owners);
            least = price;
        }
    }
    return TROUPE_OK;
}

static troupe_status allocate(struct work *w) {
    int images = w->problem->images;
    TROUPE_TRY(TROUPE_NEW(&w->items, images));
    TROUPE_TRY(TROUPE_NEW(&w->given, images));
    TROUPE_TRY(TROUPE_NEW(&w->chosen, images));
    TROUPE_TRY(TROUPE_NEW(&w->best, images));
    TROUPE_TRY(TROUPE_NEW(&w->trial, images));
    return TROUPE_NEW(&w->loads, w->problem->ranks);
}

troupe_status troupe_image_owners(const struct troupe_image_problem *problem, int *owners_out) {
    struct work w = {.problem = problem};
    troupe_status status = allocate(&w);
    if (status == TROUPE_OK) {
        status = assign(&w, owners_out);
    }
    troupe_free(w.items);
    troupe_free(w.given);
    troupe_free(w.chosen);
    troupe_free(w.best);
    troupe_free(w.loads);
    troupe_free(w.trial);
    return status;
}

troupe_status troupe_image_balance(const struct troupe_image_problem *problem, const int *owners,
                                   struct troupe_image_balance *out) {
    const struct troupe_image_problem *p = problem;
    struct troupe_image_balance b = {.load_max = 0};
    int64_t *loads = NULL; /* (ranks): encoded there; then (ranks): at home there */
    TROUPE_TRY(TROUPE_NEW(&loads, 2 * p->ranks));
    for (int i = 0; i < p->images; i++) {
        int64_t cost = cost_of(p, i);
        if (owners[i] != NOBODY) {
            loads[owners[i]] += cost;
        }
        b.load_total += cost;
        b.largest = cost > b.largest ? cost : b.largest;
        b.rows_moved += owners[i] != p->homes[i] ? p->tokens[i] : 0;
        if (p->homes[i] != NOBODY) {
            loads[p->ranks + p->homes[i]] += cost;
        }
    }
    for (int r = 0; r < p->ranks; r++) {
        b.load_max = loads[r] > b.load_max ? loads[r] : b.load_max;
    }
    for (int r = 0; r < p->ranks; r++) {
        int64_t over = loads[p->ranks + r] - b.load_max;
        b.loads_over += over > 0 ? over : 0;
    }
    troupe_free(loads);
    *out = b;
    return TROUPE_OK;
}
