/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/stage.h"

#include <math.h>

#include "runtime/memory.h"

static int parts_of(const struct troupe_stage_options *options) {
    return options->module == TROUPE_LLM ? TROUPE_SAMPLE_TEXT : TROUPE_SAMPLE_IMAGES;
}

static struct troupe_batch_bounds bounds_of(const struct troupe_stage_options *options) {
    return options->split != NULL ? troupe_image_split_bounds(options->split)
                                  : troupe_sample_plan_bounds(options->plan, options->dp_count);
}

static troupe_status create_module(struct troupe_stage *stage) {
    const struct troupe_stage_options *o = &stage->options;
    struct troupe_batch_bounds bounds = bounds_of(o);
    struct troupe_module_options options = {
        .config = o->config,
        .shard = o->shard,
        .slots = o->slots,
        .rows_max = o->module == TROUPE_LLM ? bounds.rows : bounds.image_tokens,
        .samples_max = bounds.samples,
        .images_max = bounds.images,
        .stream = o->stream,
        .kernels = troupe_kernels_for(troupe_device_kind(troupe_stream_device(o->stream))),
        .tp = o->tp,
    };
    TROUPE_TRY(o->module_class->create(&options, &stage->module));
    stage->parameter_count = o->module_class->parameters(stage->module, &stage->parameters);
    return TROUPE_OK;
}

static troupe_status create_batches(struct troupe_stage *stage) {
    const struct troupe_stage_options *o = &stage->options;
    struct troupe_batch_bounds bounds = bounds_of(o);
    stage->microbatch_count = troupe_sample_plan_microbatches(o->plan);
    troupe_device *device = troupe_stream_device(o->stream);
    size_t numbers = (size_t)stage->microbatch_count;
    TROUPE_TRY(troupe_device_alloc_host(device, numbers * sizeof *stage->loss_sums,
                                        (void **)&stage->loss_sums));
    TROUPE_TRY(troupe_device_alloc_host(device, numbers * sizeof *stage->nonfinite_rows,
                                        (void **)&stage->nonfinite_rows));
    TROUPE_TRY(TROUPE_NEW(&stage->batches, stage->microbatch_count));
    for (int i = 0; i < stage->microbatch_count; i++) {
        TROUPE_TRY(troupe_microbatch_create(&bounds, parts_of(o), &stage->batches[i]));
    }
    return TROUPE_OK;
}

troupe_status troupe_stage_create(const struct troupe_stage_options *options,
                                  struct troupe_stage **out) {
    struct troupe_stage *stage = NULL;
    TROUPE_TRY(TROUPE_NEW(&stage, 1));
    stage->options = *options;
    troupe_status status = create_module(stage);
    if (status == TROUPE_OK) {
        status = create_batches(stage);
    }
    if (status != TROUPE_OK) {
        troupe_stage_destroy(stage);
        return status;
    }
    *out = stage;
    return TROUPE_OK;
}

void troupe_stage_destroy(struct troupe_stage *stage) {
    if (stage == NULL) {
        return;
    }
    for (int i = 0; stage->batches != NULL && i < stage->microbatch_count; i++) {
        troupe_microbatch_destroy(stage->batches[i]);
    }
    troupe_free(stage->batches);
    troupe_device *device = troupe_stream_device(stage->options.stream);
    troupe_device_free_host(device, stage->loss_sums);
    troupe_device_free_host(device, stage->nonfinite_rows);
    if (stage->module != NULL) {
        stage->options.module_class->destroy(stage->module);
    }
    troupe_free(stage);
}

static troupe_status fill(struct troupe_stage *stage, int microbatch) {
    const struct troupe_stage_options *o = &stage->options;
    troupe_microbatch *batch = stage->batches[microbatch];
    return o->split != NULL
               ? troupe_microbatch_fill_split(batch, o->split, o->source, microbatch, o->dp_index)
               : troupe_microbatch_fill(batch, o->plan, o->source, microbatch, o->dp_index,
                                        o->dp_count);
}

troupe_status troupe_stage_begin_step(struct troupe_stage *stage) {
    const struct troupe_stage_options *o = &stage->options;
    stage->flops = 0;
    for (int i = 0; i < stage->microbatch_count; i++) {
        stage->loss_sums[i] = 0;
        stage->nonfinite_rows[i] = -1;
        TROUPE_TRY(fill(stage, i));
    }
    return troupe_gradients_zero(o->stream, stage->parameters, stage->parameter_count);
}

void troupe_stage_end_step(struct troupe_stage *stage) {
    stage->nonfinite_microbatch = -1;
    for (int i = stage->microbatch_count - 1; i >= 0; i--) {
        if (stage->nonfinite_rows[i] >= 0 || !isfinite(stage->loss_sums[i])) {
            stage->nonfinite_microbatch = i;
        }
    }
}

static struct troupe_module_task task_of(const struct troupe_stage *stage, int microbatch,
                                         int slot) {
    return (struct troupe_module_task){
        .slot = slot,
        .vision = troupe_microbatch_vision(stage->batches[microbatch]),
        .language = troupe_microbatch_language(stage->batches[microbatch]),
        .loss_sum = &stage->loss_sums[microbatch],
    };
}

/* Looks for a row of the output that is not finite; the loss, where there is one, tells by itself.
 */
static troupe_status watch_output(struct troupe_stage *stage, int microbatch,
                                  const struct troupe_tensor *output) {
    if (output == NULL) {
        return TROUPE_OK;
    }
    troupe_stream *stream = stage->options.stream;
    struct troupe_first_nonfinite op = {.x = *output,
                                        .row_out = &stage->nonfinite_rows[microbatch]};
    return troupe_kernels_for(troupe_device_kind(troupe_stream_device(stream)))
        ->first_nonfinite(stream, &op);
}

troupe_status troupe_stage_forward(struct troupe_stage *stage, int microbatch, int slot,
                                   const struct troupe_tensor *input,
                                   const struct troupe_tensor *output) {
    const struct troupe_stage_options *o = &stage->options;
    struct troupe_module_task task = task_of(stage, microbatch, slot);
    task.inputs = input;
    task.outputs = output;
    TROUPE_TRY(o->module_class->forward(stage->module, &task));
    if (o->shard.tp_index == 0) { /* the formula counts all TP shards */
        stage->flops += o->module_class->flops(o->config, &o->shard, &task);
    }
    return watch_output(stage, microbatch, output);
}

troupe_status troupe_stage_backward_input(struct troupe_stage *stage, int microbatch, int slot,
                                          const struct troupe_tensor *output_gradient,
                                          const struct troupe_tensor *input_gradient) {
    struct troupe_module_task task = task_of(stage, microbatch, slot);
    task.output_gradients = output_gradient;
    task.input_gradients = input_gradient;
    return stage->options.module_class->backward_input(stage->module, &task);
}

troupe_status troupe_stage_backward_weight(struct troupe_stage *stage, int microbatch, int slot) {
    struct troupe_module_task task = task_of(stage, microbatch, slot);
    return stage->options.module_class->backward_weight(stage->module, &task);
}
