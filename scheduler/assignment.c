/* SPDX-License-Identifier: Apache-2.0 */
#include "scheduler/assignment.h"

#include <stdbool.h>

#include "runtime/memory.h"

enum { NONE = -1 };

/* Columns 0 .. n - 1, and column n: where a new row's search begins. */
struct search {
    const int64_t *gains;
    int n;
    int64_t *row_price;    /* (n) */
    int64_t *column_price; /* (n + 1) */
    int64_t *slack;        /* (n + 1) cheapest way known to each column */
    int *row_of_column;    /* (n + 1) NONE: free */
    int *before;           /* (n + 1) the column before this one on that way */
    bool *visited;         /* (n + 1) */
};

/* Gains become costs; staying on the own number is a little cheaper than anything of equal gain. */
static int64_t cost_of(const struct search *s, int row, int column) {
    return -s->gains[(int64_t)row * s->n + column] * (s->n + 1) + (row != column);
}

/* Extends the ways by the column's row; returns the nearest column not visited. */
static int visit(struct search *s, int column) {
    int row = s->row_of_column[column], nearest = NONE;
    s->visited[column] = true;
    for (int c = 0; c < s->n; c++) {
        if (s->visited[c]) {
            continue;
        }
        int64_t reduced = cost_of(s, row, c) - s->row_price[row] - s->column_price[c];
        if (reduced < s->slack[c]) {
            s->slack[c] = reduced;
            s->before[c] = column;
        }
        if (nearest == NONE || s->slack[c] < s->slack[nearest]) {
            nearest = c;
        }
    }
    return nearest;
}

/* All ways get `step` longer: the nearest column's slack becomes 0. */
static void advance_prices(struct search *s, int64_t step) {
    for (int c = 0; c <= s->n; c++) {
        if (s->visited[c]) {
            s->row_price[s->row_of_column[c]] += step;
            s->column_price[c] -= step;
        } else {
            s->slack[c] -= step;
        }
    }
}

/* The shortest way from the row to a free column; each row on it takes the next column. */
static void add_row(struct search *s, int row) {
    int column = s->n;
    s->row_of_column[column] = row;
    for (int c = 0; c <= s->n; c++) {
        s->slack[c] = INT64_MAX;
        s->visited[c] = false;
    }
    while (s->row_of_column[column] != NONE) {
        column = visit(s, column);
        advance_prices(s, s->slack[column]);
    }
    while (column != s->n) {
        s->row_of_column[column] = s->row_of_column[s->before[column]];
        column = s->before[column];
    }
}

static troupe_status allocate(struct search *s) {
    int columns = s->n + 1;
    TROUPE_TRY(TROUPE_NEW(&s->row_price, s->n));
    TROUPE_TRY(TROUPE_NEW(&s->column_price, columns));
    TROUPE_TRY(TROUPE_NEW(&s->slack, columns));
    TROUPE_TRY(TROUPE_NEW(&s->row_of_column, columns));
    TROUPE_TRY(TROUPE_NEW(&s->before, columns));
    return TROUPE_NEW(&s->visited, columns);
}

troupe_status troupe_assign(const int64_t *gains, int n, int *column_of_row_out) {
    struct search s = {.gains = gains, .n = n};
    troupe_status status = allocate(&s);
    for (int c = 0; status == TROUPE_OK && c < n; c++) {
        s.row_of_column[c] = NONE;
    }
    for (int row = 0; status == TROUPE_OK && row < n; row++) {
        add_row(&s, row);
    }
    for (int c = 0; status == TROUPE_OK && c < n; c++) {
        column_of_row_out[s.row_of_column[c]] = c;
    }
    troupe_free(s.row_price);
    troupe_free(s.column_price);
    troupe_free(s.slack);
    troupe_free(s.row_of_column);
    troupe_free(s.before);
    troupe_free(s.visited);
    return status;
}
