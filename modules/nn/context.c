/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/nn/context_internal.h"

#include <stdio.h>

#include "comm/group_stream.h"
#include "comm/layout.h"
#include "runtime/check.h"
#include "runtime/memory.h"

enum { ALIGN_FLOATS = TROUPE_CACHE_LINE / sizeof(float) };

void context_init(struct context *context, const struct troupe_module_options *options) {
    TROUPE_ASSERT(options->shard.tp_count == 1 || options->tp != NULL, "tp %d without a group",
                  options->shard.tp_count);
    *context = (struct context){.stream = options->stream,
                                .kernels = options->kernels,
                                .tp = options->tp,
                                .tp_index = options->shard.tp_index,
                                .tp_count = options->shard.tp_count};
}

void context_fini(struct context *context) {
    parameters_destroy(context);
    slab_destroy(&context->activations, context->stream);
}

struct context context_for_specs(const struct troupe_shard *shard,
                                 struct troupe_parameter_spec *out) {
    return (struct context){
        .tp_index = shard->tp_index, .tp_count = shard->tp_count, .parameters = {.specs = out}};
}

troupe_status heads_check(const char *key, int heads, int tp_count) {
    if (heads % tp_count != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s %d is not divisible by tp %d", key, heads,
                           tp_count);
    }
    return TROUPE_OK;
}

float *slab_take(struct slab *slab, int64_t count) {
    float *taken = slab->base == NULL ? NULL : slab->base + slab->used;
    slab->used += (count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    return taken;
}

int32_t *slab_take_int32(struct slab *slab, int64_t count) {
    int32_t *taken = slab->integers == NULL ? NULL : slab->integers + slab->integers_used;
    slab->integers_used += count;
    return taken;
}

troupe_status slab_create(struct slab *slab, troupe_stream *stream) {
    void *memory = NULL;
    size_t bytes = (size_t)slab->used * sizeof(float);
    TROUPE_TRY(TROUPE_NEW(&slab->integers, slab->integers_used));
    TROUPE_TRY(troupe_device_alloc(troupe_stream_device(stream), bytes, &memory));
    slab->base = memory;
    slab->used = 0;
    slab->integers_used = 0;
    return TROUPE_OK;
}

void slab_destroy(struct slab *slab, troupe_stream *stream) {
    if (slab->base != NULL) {
        troupe_device_free(troupe_stream_device(stream), slab->base);
        slab->base = NULL;
    }
    troupe_free(slab->integers);
    slab->integers = NULL;
}

struct interval interval_share(int64_t extent, int index, int count) {
    return (struct interval){troupe_split_begin(extent, count, index),
                             troupe_split_begin(extent, count, index + 1)};
}

int parameter_declare(struct parameter_set *set, const char *prefix, const char *suffix,
                      const struct troupe_parameter_spec *spec) {
    if (set->specs != NULL) {
        struct troupe_parameter_spec *own = &set->specs[set->count];
        *own = *spec;
        int length = snprintf(own->name, sizeof(own->name), "%s.%s", prefix, suffix);
        TROUPE_ASSERT(length < (int)sizeof(own->name), "%s.%s is too long", prefix, suffix);
    }
    return set->count++;
}

static int64_t box_set(struct troupe_parameter *parameter, int tp_index, int tp_count) {
    const struct troupe_parameter_spec *spec = &parameter->spec;
    int64_t elements = 1;
    for (int d = 0; d < spec->dimensions; d++) {
        bool split = d == spec->tp_dimension;
        struct interval share = split ? interval_share(spec->shape[d], tp_index, tp_count)
                                      : (struct interval){0, spec->shape[d]};
        parameter->begin[d] = share.begin;
        parameter->extent[d] = share.end - share.begin;
        elements *= parameter->extent[d];
    }
    return elements;
}

troupe_status parameters_prepare(struct context *context) {
    struct parameter_set *set = &context->parameters;
    TROUPE_TRY(TROUPE_NEW(&set->specs, set->count));
    set->count = 0;
    return TROUPE_OK;
}

troupe_status parameters_create(struct context *context, bool inference) {
    struct parameter_set *set = &context->parameters;
    TROUPE_TRY(TROUPE_NEW(&set->list, set->count));
    int64_t total = 0;
    for (int i = 0; i < set->count; i++) {
        set->list[i].spec = set->specs[i];
        total += box_set(&set->list[i], context->tp_index, context->tp_count);
    }
    set->values.used = total;
    TROUPE_TRY(slab_create(&set->values, context->stream));
    if (!inference) {
        set->gradients.used = total;
        TROUPE_TRY(slab_create(&set->gradients, context->stream));
    }
    int64_t offset = 0;
    for (int i = 0; i < set->count; i++) {
        struct troupe_parameter *parameter = &set->list[i];
        parameter->value = set->values.base + offset;
        parameter->gradient = inference ? NULL : set->gradients.base + offset;
        offset += box_set(parameter, context->tp_index, context->tp_count);
    }
    return TROUPE_OK;
}

void parameters_destroy(struct context *context) {
    slab_destroy(&context->parameters.values, context->stream);
    slab_destroy(&context->parameters.gradients, context->stream);
    troupe_free(context->parameters.list);
    troupe_free(context->parameters.specs);
}

/* Rows of all parts together: they have equal columns and lie back to back. */
static struct troupe_tensor joined(const struct parameter_set *set, int index, int parts,
                                   float *data) {
    const struct troupe_parameter *first = &set->list[index];
    int last = first->spec.dimensions - 1;
    int64_t columns = first->extent[last];
    int64_t rows = 0;
    for (int i = index; i < index + parts; i++) {
        int64_t part_rows = 1;
        for (int d = 0; d < last; d++) {
            part_rows *= set->list[i].extent[d];
        }
        if (last == 0) { /* vectors join end to end */
            columns += i == index ? 0 : set->list[i].extent[0];
        } else {
            rows += part_rows;
        }
    }
    return matrix(data, last == 0 ? 1 : rows, columns);
}

struct troupe_tensor parameter_value(const struct parameter_set *set, int index, int parts) {
    return joined(set, index, parts, set->list[index].value);
}

struct troupe_tensor parameter_gradient(const struct parameter_set *set, int index, int parts) {
    return joined(set, index, parts, set->list[index].gradient);
}

struct troupe_tensor matrix(float *data, int64_t rows, int64_t columns) {
    return (struct troupe_tensor){data, rows, columns, columns, TROUPE_FLOAT32};
}

struct troupe_tensor columns_of(struct troupe_tensor x, int64_t begin, int64_t columns) {
    TROUPE_ASSERT(begin + columns <= x.columns, "columns %lld..%lld of %lld", (long long)begin,
                  (long long)(begin + columns), (long long)x.columns);
    x.data = (float *)x.data + begin;
    x.columns = columns;
    return x;
}

troupe_status group_reduce(const struct context *context, enum troupe_reduction reduction,
                           float *data, int64_t count) {
    if (context->tp_count == 1 || count == 0) {
        return TROUPE_OK;
    }
    return troupe_group_enqueue_all_reduce(context->tp, context->stream, reduction,
                                           TROUPE_ELEMENT_FLOAT32, data, count);
}

troupe_status tensor_sum(const struct context *context, struct troupe_tensor x) {
    TROUPE_ASSERT(x.stride == x.columns, "stride %lld of %lld columns", (long long)x.stride,
                  (long long)x.columns);
    return group_reduce(context, TROUPE_SUM, x.data, x.rows * x.columns);
}

troupe_status tensor_copy(const struct context *context, struct troupe_tensor from,
                          struct troupe_tensor to) {
    return context->kernels->rows_copy(
        context->stream, &(struct troupe_rows){.from = from, .to = to, .count = from.rows});
}

troupe_status tensor_add(const struct context *context, struct troupe_tensor x,
                         struct troupe_tensor y, struct troupe_tensor out) {
    return context->kernels->add(context->stream, &(struct troupe_add){.x = x, .y = y, .out = out});
}
