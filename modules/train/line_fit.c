/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/line_fit.h"

#include <stdbool.h>

#include "runtime/check.h"

void troupe_line_fit_fade(struct troupe_line_fit *fit, double keep) {
    fit->weight *= keep;
    fit->x *= keep;
    fit->y *= keep;
    fit->xx *= keep;
    fit->xy *= keep;
}

void troupe_line_fit_add(struct troupe_line_fit *fit, double x, double y) {
    fit->weight += 1;
    fit->x += x;
    fit->y += y;
    fit->xx += x * x;
    fit->xy += x * y;
}

struct line {
    double base, slope;
};

/* Whether the points say what the line is. */
static bool find_line(const struct troupe_line_fit *fit, struct line *out) {
    const double spread_min = 1e-6; /* of x, relative: less is rounding */
    double spread = fit->weight * fit->xx - fit->x * fit->x;
    if (spread <= spread_min * fit->weight * fit->xx) {
        return false;
    }
    out->slope = (fit->weight * fit->xy - fit->x * fit->y) / spread;
    out->base = (fit->y - out->slope * fit->x) / fit->weight;
    return out->slope > 0;
}

double troupe_line_fit_at(const struct troupe_line_fit *fit, double x) {
    struct line line;
    TROUPE_ASSERT(fit->weight > 0, "a line through no points at x %g", x);
    if (!find_line(fit, &line) || line.base < 0) {
        return fit->x > 0 ? fit->y / fit->x * x : fit->y / fit->weight;
    }
    return line.base + line.slope * x;
}

double troupe_line_fit_above_base_at(const struct troupe_line_fit *fit, double x) {
    struct line line;
    TROUPE_ASSERT(fit->weight > 0, "a line through no points at x %g", x);
    if (!find_line(fit, &line)) {
        return fit->y / fit->weight;
    }
    return line.base < 0 ? fit->y / fit->x * x : line.base + line.slope * x;
}
