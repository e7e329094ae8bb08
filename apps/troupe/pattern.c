/* SPDX-License-Identifier: Apache-2.0 */
#include "apps/troupe/pattern.h"

#include <string.h>

enum { RADIX_DEFAULT = 5, PERIOD_DEFAULT = 3, LANES = 64 };

static const char *const names[] = {
    [PATTERN_TRIVIAL] = "trivial",
    [PATTERN_NO_COMM] = "no_comm",
    [PATTERN_STENCIL_1D] = "stencil_1d",
    [PATTERN_STENCIL_1D_PERIODIC] = "stencil_1d_periodic",
    [PATTERN_DOM] = "dom",
    [PATTERN_TREE] = "tree",
    [PATTERN_FFT] = "fft",
    [PATTERN_ALL_TO_ALL] = "all_to_all",
    [PATTERN_NEAREST] = "nearest",
    [PATTERN_SPREAD] = "spread",
    [PATTERN_RANDOM_NEAREST] = "random_nearest",
    [PATTERN_TWO_ISLAND] = "two_island",
};

const char *pattern_name(enum pattern_kind kind) {
    return names[kind];
}

bool pattern_find(const char *name, enum pattern_kind *out) {
    for (int k = 0; k < PATTERN_KINDS; k++) {
        if (strcmp(names[k], name) == 0) {
            *out = (enum pattern_kind)k;
            return true;
        }
    }
    return false;
}

static int radix_of(const struct pattern *pattern) {
    return pattern->radix > 0 ? pattern->radix : RADIX_DEFAULT;
}

/* Which dependence set applies: spread has at most as many as its points are apart. */
static int set_of(const struct pattern *pattern, int step) {
    int period = pattern->period > 0 ? pattern->period : PERIOD_DEFAULT;
    int apart = (pattern->width + radix_of(pattern) - 1) / radix_of(pattern);
    bool spreads = pattern->kind == PATTERN_SPREAD;
    return step % (spreads && period > apart ? apart : period);
}

troupe_status pattern_check(const struct pattern *pattern) {
    if (pattern->width < 1 || pattern->width > PATTERN_WIDTH_MAX || pattern->steps < 1 ||
        radix_of(pattern) > PATTERN_WIDTH_MAX) {
        return troupe_fail(
            TROUPE_ERROR_INVALID,
            "a pattern of %d points, %d steps and radix %d; 1 to %d points, at least "
            "1 step and a radix up to the same are possible",
            pattern->width, pattern->steps, radix_of(pattern), PATTERN_WIDTH_MAX);
    }
    return TROUPE_OK;
}

int pattern_island(const struct pattern *pattern) {
    return pattern->width * 3 / 8;
}

/* ---- which tasks there are ---- */

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Points [*begin, *end) at a step. */
static void window_of(const struct pattern *pattern, int step, int *begin, int *end) {
    *begin = 0;
    *end = pattern->width;
    if (pattern->kind == PATTERN_TREE) {
        *end = step < 30 ? least(pattern->width, 1 << step) : pattern->width;
    }
    if (pattern->kind == PATTERN_DOM) {
        int to_come = pattern->steps - step; /* steps, this one included */
        *end = least(pattern->width, step + 1);
        *begin = pattern->width > to_come ? least(pattern->width - to_come, *end - 1) : 0;
    }
}

bool pattern_has(const struct pattern *pattern, int step, int point) {
    int begin = 0, end = 0;
    window_of(pattern, step, &begin, &end);
    return step >= 0 && step < pattern->steps && point >= begin && point < end;
}

int pattern_task_count(const struct pattern *pattern) {
    int count = 0;
    for (int t = 0; t < pattern->steps; t++) {
        for (int p = 0; p < pattern->width; p++) {
            count += pattern_has(pattern, t, p);
        }
    }
    return count;
}

bool pattern_repeats(const struct pattern *pattern) {
    switch (pattern->kind) {
    case PATTERN_NO_COMM:
    case PATTERN_STENCIL_1D:
    case PATTERN_STENCIL_1D_PERIODIC:
    case PATTERN_ALL_TO_ALL:
    case PATTERN_NEAREST:
        return true;
    default:
        return false;
    }
}

/* ---- what they read ---- */

static int bits_of(int width) {
    int bits = 1;
    while (1 << bits < width) {
        bits++;
    }
    return bits;
}

static bool is_near(const struct pattern *pattern, int point, int from) {
    int radix = radix_of(pattern);
    return from >= point - radix / 2 && from <= point + (radix - 1) / 2;
}

static bool is_spread(const struct pattern *pattern, int step, int point, int from) {
    int radix = least(radix_of(pattern), pattern->width);
    for (int i = 0; i < radix; i++) {
        int shift = i * pattern->width / radix + (i > 0 ? set_of(pattern, step) : 0);
        if ((point + shift) % pattern->width == from) {
            return true;
        }
    }
    return false;
}

static bool is_chosen(const struct pattern *pattern, int step, int point, int from) {
    uint64_t key =
        ((uint64_t)set_of(pattern, step) << 40) | ((uint64_t)point << 20) | (uint64_t)from;
    key = (key ^ key >> 30) * UINT64_C(0xbf58476d1ce4e5b9); /* splitmix64 */
    key = (key ^ key >> 27) * UINT64_C(0x94d049bb133111eb);
    return ((key ^ key >> 31) & 3) == 0;
}

static bool overlaps(const struct pattern *pattern, int point, int from) {
    int encoder = pattern_island(pattern), model = pattern->width - encoder;
    int part = point - encoder; /* of the batch: from part / model to (part + 1) / model */
    return from * model < (part + 1) * encoder && (from + 1) * model > part * encoder;
}

static bool reads(const struct pattern *pattern, int step, int point, int from) {
    int distance = point > from ? point - from : from - point;
    switch (pattern->kind) {
    case PATTERN_NO_COMM:
        return distance == 0;
    case PATTERN_STENCIL_1D:
        return distance <= 1;
    case PATTERN_STENCIL_1D_PERIODIC:
        return distance <= 1 || distance == pattern->width - 1;
    case PATTERN_DOM:
        return from == point || from == point - 1;
    case PATTERN_TREE:
        /* once all points are there, each goes on by itself */
        return pattern_has(pattern, step - 1, point) && step > bits_of(pattern->width)
                   ? distance == 0
                   : from == point / 2;
    case PATTERN_FFT:
        return distance == 0 || distance == 1 << ((step - 1) % bits_of(pattern->width));
    case PATTERN_ALL_TO_ALL:
        return true;
    case PATTERN_NEAREST:
        return is_near(pattern, point, from);
    case PATTERN_SPREAD:
        return is_spread(pattern, step, point, from);
    case PATTERN_RANDOM_NEAREST:
        return distance == 0 ||
               (is_near(pattern, point, from) && is_chosen(pattern, step, point, from));
    case PATTERN_TWO_ISLAND:
        return distance == 0 || (point >= pattern_island(pattern) &&
                                 (from < pattern_island(pattern) ? overlaps(pattern, point, from)
                                                                 : from == point - 1));
    case PATTERN_TRIVIAL:
    case PATTERN_KINDS:
        break;
    }
    return false;
}

int pattern_inputs(const struct pattern *pattern, int step, int point, int *inputs) {
    int count = 0;
    for (int from = 0; from < pattern->width; from++) {
        if (pattern_has(pattern, step - 1, from) && reads(pattern, step, point, from)) {
            inputs[count++] = from;
        }
    }
    return count;
}

/* ---- the work ---- */

double pattern_work(int64_t iterations) {
    float lanes[LANES];
    for (int i = 0; i < LANES; i++) {
        lanes[i] = 1.0f + (float)i * 0.01f;
    }
    for (int64_t k = 0; k < iterations; k++) {
        for (int i = 0; i < LANES; i++) {
            lanes[i] = lanes[i] * 0.999f + 0.001f;
        }
        __asm__ volatile("" ::: "memory"); /* one iteration after the other */
    }
    double sum = 0;
    for (int i = 0; i < LANES; i++) {
        sum += (double)lanes[i];
    }
    return sum;
}
