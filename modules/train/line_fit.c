/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/line_fit.h"

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

double troupe_line_fit_at(const struct troupe_line_fit *fit, double x) {
    const double spread_min = 1e-6; /* of x, relative: less is rounding */
    TROUPE_ASSERT(fit->weight > 0, "a line through no points at x %g", x);
    double spread = fit->weight * fit->xx - fit->x * fit->x;
    double slope = (fit->weight * fit->xy - fit->x * fit->y) / spread;
    double base = (fit->y - slope * fit->x) / fit->weight;
    if (spread <= spread_min * fit->weight * fit->xx || slope <= 0 || base < 0) {
        return fit->x > 0 ? fit->y / fit->x * x : fit->y / fit->weight;
    }
    return base + slope * x;
}
