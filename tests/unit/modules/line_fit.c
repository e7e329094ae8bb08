/* SPDX-License-Identifier: Apache-2.0 */
/* Lines through fading points: exact ones are found, and what points do not say is not made up. */
#include "modules/train/line_fit.h"

#include <math.h>

#include "tests/test.h"

static void expect_near(double seen, double wanted) {
    EXPECT(fabs(seen - wanted) <= 1e-9 * fabs(wanted), "%.12g instead of %.12g", seen, wanted);
}

static void points_of_a_line_give_it_back(void) {
    struct troupe_line_fit fit = {0};
    for (int x = 1; x <= 5; x++) {
        troupe_line_fit_add(&fit, x, 100 + 7 * x);
    }
    expect_near(troupe_line_fit_at(&fit, 3), 121);
    expect_near(troupe_line_fit_at(&fit, 50), 450);
}

static void points_of_one_x_are_taken_in_proportion(void) {
    struct troupe_line_fit fit = {0};
    troupe_line_fit_add(&fit, 10, 90);
    expect_near(troupe_line_fit_at(&fit, 20), 180);
    troupe_line_fit_add(&fit, 10, 110);
    expect_near(troupe_line_fit_at(&fit, 10), 100);
}

static void no_line_falls_or_is_negative(void) {
    struct troupe_line_fit falling = {0}, steep = {0};
    troupe_line_fit_add(&falling, 1, 20);
    troupe_line_fit_add(&falling, 3, 10);
    expect_near(troupe_line_fit_at(&falling, 4), 30);
    troupe_line_fit_add(&steep, 10, 1);
    troupe_line_fit_add(&steep, 20, 29);
    expect_near(troupe_line_fit_at(&steep, 3), 3);
}

static void without_x_the_mean_counts(void) {
    struct troupe_line_fit fit = {0};
    troupe_line_fit_add(&fit, 0, 4);
    troupe_line_fit_add(&fit, 0, 8);
    expect_near(troupe_line_fit_at(&fit, 0), 6);
}

static void above_a_base_the_mean_counts_where_nothing_rises(void) {
    struct troupe_line_fit level = {0}, line = {0};
    troupe_line_fit_add(&level, 10, 90);
    expect_near(troupe_line_fit_above_base_at(&level, 20), 90);
    troupe_line_fit_add(&level, 30, 50);
    expect_near(troupe_line_fit_above_base_at(&level, 5), 70);
    troupe_line_fit_add(&line, 0, 3000);
    troupe_line_fit_add(&line, 1000, 5000);
    expect_near(troupe_line_fit_above_base_at(&line, 500), 4000);
}

static void faded_points_give_way(void) {
    struct troupe_line_fit fit = {0};
    troupe_line_fit_add(&fit, 1, 1000);
    troupe_line_fit_fade(&fit, 0);
    troupe_line_fit_add(&fit, 1, 10);
    expect_near(troupe_line_fit_at(&fit, 1), 10);
    troupe_line_fit_fade(&fit, 0.5);
    troupe_line_fit_add(&fit, 1, 40);
    expect_near(troupe_line_fit_at(&fit, 1), 30);
}

int main(void) {
    TEST(points_of_a_line_give_it_back);
    TEST(points_of_one_x_are_taken_in_proportion);
    TEST(no_line_falls_or_is_negative);
    TEST(without_x_the_mean_counts);
    TEST(above_a_base_the_mean_counts_where_nothing_rises);
    TEST(faded_points_give_way);
    return TEST_END();
}
