/* SPDX-License-Identifier: Apache-2.0
 *
 * A straight line through points that come one after the other and fade: what a task takes, by its
 * rows, or a message, by its bytes.
 *
 *     troupe_line_fit_fade(&fit, 0.7);                              (before a step's points)
 *     troupe_line_fit_add(&fit, rows, ns);
 *     double ns = troupe_line_fit_at(&fit, rows);
 *
 * The line falls nowhere and is nowhere negative. Points that say nothing of the slope (all of one
 * x, or falling) are taken as y in proportion to x.
 *
 * Ownership, threads: plain data. Failure: none; at asserts that there is a point.
 */
#ifndef TROUPE_MODULES_TRAIN_LINE_FIT_H
#define TROUPE_MODULES_TRAIN_LINE_FIT_H

#ifdef __cplusplus
extern "C" {
#endif

/* Sums over the points, by weight. */
struct troupe_line_fit {
    double weight, x, y, xx, xy;
};

/* Points so far keep this part of their weight; 0 forgets them. */
void troupe_line_fit_fade(struct troupe_line_fit *fit, double keep);
void troupe_line_fit_add(struct troupe_line_fit *fit, double x, double y);
double troupe_line_fit_at(const struct troupe_line_fit *fit, double x);
/* The same where most of y does not go by x, as a message's latency: points that say nothing of the
 * slope are taken as y alone. */
double troupe_line_fit_above_base_at(const struct troupe_line_fit *fit, double x);

#ifdef __cplusplus
}
#endif
#endif
