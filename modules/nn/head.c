/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/head_internal.h"

void head_declare(struct head *head, struct context *context, int64_t vocabulary, int64_t columns,
                  int weight) {
    head->columns = columns;
    head->share = interval_share(vocabulary, context->tp_index, context->tp_count);
    head->linear =
        (struct linear){.split = LINEAR_COLUMN, .parts = 1, .weight = weight, .bias = -1};
    norm_declare(&head->norm, context, "llm.norm", columns);
}

static int64_t share_rows(const struct head *head) {
    return head->share.end - head->share.begin;
}

void head_carve(const struct head *head, struct slab *slab, int64_t rows_max, bool inference,
                struct head_slot *slot) {
    slot->row_index = slab_take_int32(slab, rows_max);
    slot->targets = slab_take_int32(slab, rows_max);
    slot->x = slab_take(slab, rows_max * head->columns);
    norm_carve(&head->norm, slab, rows_max, &slot->norm);
    slot->normed = slab_take(slab, rows_max * head->columns);
    slot->logits = slab_take(slab, rows_max * share_rows(head));
    slot->row_max = slab_take(slab, rows_max);
    slot->row_sum = slab_take(slab, 2 * rows_max);
    slot->row_loss = slab_take(slab, rows_max);
    slot->dnormed = inference ? NULL : slab_take(slab, rows_max * head->columns);
}

static struct troupe_tensor logits_of(const struct head *head, const struct head_slot *slot) {
    return matrix(slot->logits, slot->rows, share_rows(head));
}

/* logits = norm(rows `row_index` of x) W^T, for the first slot->rows of row_index. */
static troupe_status multiply(const struct head *head, const struct context *context,
                              const struct head_slot *slot, struct troupe_tensor x,
                              struct troupe_tensor logits) {
    struct troupe_tensor picked = matrix(slot->x, slot->rows, head->columns);
    struct troupe_tensor normed = matrix(slot->normed, slot->rows, head->columns);
    struct troupe_rows pick = {
        .from = x, .from_index = slot->row_index, .to = picked, .count = slot->rows};
    TROUPE_TRY(context->kernels->rows_copy(context->stream, &pick));
    TROUPE_TRY(norm_forward(&head->norm, context, &slot->norm, picked, normed));
    return linear_forward(&head->linear, context, normed, logits);
}

static void find_targets(struct head_slot *slot, const struct troupe_language_batch *batch) {
    slot->rows = 0;
    for (int64_t row = 0; row < batch->rows; row++) {
        if (batch->targets[row] >= 0) {
            slot->row_index[slot->rows] = (int32_t)row;
            slot->targets[slot->rows++] = batch->targets[row];
        }
    }
    slot->scale = batch->step_targets == 0 ? 0 : (float)(1.0 / (double)batch->step_targets);
}

troupe_status head_forward(const struct head *head, const struct context *context,
                           struct head_slot *slot, const struct troupe_language_batch *batch,
                           struct troupe_tensor x, double *loss_sum) {
    const struct troupe_kernels *kernels = context->kernels;
    find_targets(slot, batch);
    int64_t rows = slot->rows;
    struct troupe_tensor logits = logits_of(head, slot);
    float *target_logit = slot->row_sum + rows;
    TROUPE_TRY(multiply(head, context, slot, x, logits));
    TROUPE_TRY(kernels->row_max(
        context->stream, &(struct troupe_row_max){.logits = logits, .row_max = slot->row_max}));
    TROUPE_TRY(group_reduce(context, TROUPE_MAX, slot->row_max, rows));
    TROUPE_TRY(kernels->row_sum_exp(
        context->stream, &(struct troupe_row_sum_exp){.logits = logits,
                                                      .row_max = slot->row_max,
                                                      .targets = slot->targets,
                                                      .begin = (int32_t)head->share.begin,
                                                      .row_sum = slot->row_sum,
                                                      .target_logit = target_logit}));
    TROUPE_TRY(group_reduce(context, TROUPE_SUM, slot->row_sum, 2 * rows));
    return kernels->cross_entropy(context->stream,
                                  &(struct troupe_cross_entropy){.targets = slot->targets,
                                                                 .row_sum = slot->row_sum,
                                                                 .target_logit = target_logit,
                                                                 .rows = rows,
                                                                 .row_loss = slot->row_loss,
                                                                 .loss_sum = loss_sum});
}

troupe_status head_logits(const struct head *head, const struct context *context,
                          struct head_slot *slot, const struct troupe_language_batch *batch,
                          struct troupe_tensor x, float *logits) {
    slot->rows = batch->samples;
    for (int64_t s = 0; s < batch->samples; s++) {
        slot->row_index[s] = batch->cu_len[s + 1] - 1;
    }
    return multiply(head, context, slot, x, matrix(logits, slot->rows, share_rows(head)));
}

troupe_status head_backward_input(const struct head *head, const struct context *context,
                                  const struct head_slot *slot, float *scratch,
                                  struct troupe_tensor dx) {
    const struct troupe_kernels *kernels = context->kernels;
    struct troupe_tensor dlogits = logits_of(head, slot);
    struct troupe_tensor dnormed = matrix(slot->dnormed, slot->rows, head->columns);
    struct troupe_tensor dpicked = matrix(scratch, slot->rows, head->columns);
    TROUPE_TRY(kernels->cross_entropy_backward(
        context->stream,
        &(struct troupe_cross_entropy_backward){.logits = dlogits,
                                                .row_max = slot->row_max,
                                                .row_sum = slot->row_sum,
                                                .targets = slot->targets,
                                                .begin = (int32_t)head->share.begin,
                                                .scale = slot->scale}));
    TROUPE_TRY(linear_backward_input(&head->linear, context, dlogits, dnormed));
    TROUPE_TRY(norm_backward_input(&head->norm, context, &slot->norm,
                                   matrix(slot->x, slot->rows, head->columns), dnormed, dpicked,
                                   false));
    TROUPE_TRY(kernels->fill(context->stream, &(struct troupe_fill){.value = 0, .x = dx}));
    struct troupe_rows put = {
        .from = dpicked, .to = dx, .to_index = slot->row_index, .count = slot->rows};
    return kernels->rows_copy(context->stream, &put);
}

troupe_status head_backward_weight(const struct head *head, const struct context *context,
                                   const struct head_slot *slot) {
    TROUPE_TRY(linear_backward_weight(&head->linear, context,
                                      matrix(slot->normed, slot->rows, head->columns),
                                      logits_of(head, slot)));
    return norm_backward_weight(&head->norm, context, &slot->norm,
                                matrix(slot->x, slot->rows, head->columns),
                                matrix(slot->dnormed, slot->rows, head->columns));
}
