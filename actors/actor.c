/* SPDX-License-Identifier: Apache-2.0 */
/* Gangs, and the proof that all ranks declare the same ones. */
#include "actors/actor.h"

#include <inttypes.h>
#include <string.h>

#include "actors/runtime_internal.h"
#include "runtime/check.h"
#include "runtime/memory.h"

troupe_status troupe_grow(void **array, int count, int *capacity, size_t bytes) {
    if (count < *capacity) {
        return TROUPE_OK;
    }
    int larger = *capacity == 0 ? 8 : *capacity * 2;
    void *memory = NULL;
    TROUPE_TRY(troupe_alloc((size_t)larger, bytes, &memory));
    if (count > 0) {
        memcpy(memory, *array, (size_t)count * bytes);
    }
    troupe_free(*array);
    *array = memory;
    *capacity = larger;
    return TROUPE_OK;
}

troupe_status troupe_copy_ints(const int *values, int count, int **out) {
    int *copy = NULL;
    TROUPE_TRY(TROUPE_NEW(&copy, count));
    if (count > 0) {
        memcpy(copy, values, (size_t)count * sizeof *copy);
    }
    *out = copy;
    return TROUPE_OK;
}

/* ---- the same calls on every rank ---- */

uint64_t troupe_hash_bytes(uint64_t hash, const void *data, size_t bytes) {
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) { /* FNV-1a */
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

uint64_t troupe_hash_text(uint64_t hash, const char *text) {
    return troupe_hash_bytes(hash, text, strlen(text) + 1);
}

uint64_t troupe_hash_int(uint64_t hash, int64_t value) {
    return troupe_hash_bytes(hash, &value, sizeof value);
}

troupe_status troupe_record_call(troupe_runtime *runtime, const char *what, const char *name,
                                 uint64_t hash) {
    TROUPE_TRY(troupe_grow((void **)&runtime->calls, runtime->call_count, &runtime->call_capacity,
                           sizeof *runtime->calls));
    int before = runtime->call_count - 1;
    uint64_t chained = before >= 0 ? runtime->calls[before].hash : TROUPE_SAMPLE_SET_EMPTY;
    runtime->calls[runtime->call_count++] = (struct troupe_call){
        .hash = troupe_hash_int(chained, (int64_t)hash), .what = what, .name = name};
    return TROUPE_OK;
}

/* The lowest rank whose value differs from rank 0's, or TROUPE_NOBODY. Collective. */
static troupe_status find_odd_rank(troupe_runtime *runtime, uint64_t mine, int *rank_out) {
    uint64_t *all = runtime->hashes;
    TROUPE_TRY(troupe_group_all_gather(runtime->world, &mine, sizeof mine, all));
    *rank_out = TROUPE_NOBODY;
    for (int r = runtime->rank_count - 1; r > 0; r--) {
        *rank_out = all[r] != all[0] ? r : *rank_out;
    }
    return TROUPE_OK;
}

static uint64_t hash_of_call(const troupe_runtime *runtime, int call) {
    return call < runtime->call_count ? runtime->calls[call].hash : 0;
}

/* Bisects for the first call that some rank made differently: hashes are chained. */
static troupe_status explain_odd_calls(troupe_runtime *runtime) {
    int same = 0, odd_rank = TROUPE_NOBODY, last_odd_rank = TROUPE_NOBODY;
    uint64_t most = 0;
    TROUPE_TRY(find_odd_rank(runtime, (uint64_t)runtime->call_count, &odd_rank));
    for (int r = 0; r < runtime->rank_count; r++) {
        most = runtime->hashes[r] > most ? runtime->hashes[r] : most;
    }
    int differs = (int)most - 1; /* calls below `same` agree, call `differs` does not */
    while (same <= differs) {
        int middle = same + (differs - same) / 2;
        TROUPE_TRY(find_odd_rank(runtime, hash_of_call(runtime, middle), &odd_rank));
        if (odd_rank == TROUPE_NOBODY) {
            same = middle + 1;
        } else {
            last_odd_rank = odd_rank;
            differs = middle - 1;
        }
    }
    const struct troupe_call *call = same < runtime->call_count ? &runtime->calls[same] : NULL;
    return troupe_fail(TROUPE_ERROR_INVALID,
                       "rank %d built another graph than rank 0: their call %d differs (here, on "
                       "rank %d: %s%s); every rank must make the same calls in the same order "
                       "with the same options",
                       last_odd_rank, same, runtime->rank, call != NULL ? call->what : "none",
                       call != NULL ? call->name : "");
}

troupe_status troupe_compare_calls(troupe_runtime *runtime) {
    int odd_rank = TROUPE_NOBODY;
    TROUPE_TRY(find_odd_rank(runtime, hash_of_call(runtime, runtime->call_count - 1), &odd_rank));
    return odd_rank == TROUPE_NOBODY ? TROUPE_OK : explain_odd_calls(runtime);
}

/* ---- spawn ---- */

static troupe_status check_ports(const struct troupe_actor_class *class,
                                 const struct troupe_actor_method *method,
                                 enum troupe_direction direction, int *users) {
    const int *ports = direction == TROUPE_IN ? method->inputs : method->outputs;
    int count = direction == TROUPE_IN ? method->input_count : method->output_count;
    TROUPE_ASSERT(count >= 0 && count <= TROUPE_PORTS_MAX, "%s %s has %d ports", class->name,
                  method->name, count);
    for (int i = 0; i < count; i++) {
        TROUPE_ASSERT(ports[i] >= 0 && ports[i] < class->port_count, "%s %s: port %d of %d",
                      class->name, method->name, ports[i], class->port_count);
        if (class->ports[ports[i]].direction != direction || users[ports[i]]++ > 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "class %s: method %s uses port %s in the wrong direction, or a "
                               "second method does; a port belongs to one method",
                               class->name, method->name, class->ports[ports[i]].name);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_class(const troupe_runtime *runtime,
                                 const struct troupe_actor_class *class) {
    int users[TROUPE_PORTS_MAX * 4] = {0};
    TROUPE_ASSERT(class->port_count <= (int)TROUPE_COUNT_OF(users), "class %s has %d ports",
                  class->name, class->port_count);
    for (int m = 0; m < class->method_count; m++) {
        const struct troupe_actor_method *method = &class->methods[m];
        bool reduces = method->lane == TROUPE_LANE_REDUCTION;
        TROUPE_TRY(check_ports(class, method, TROUPE_IN, users));
        TROUPE_TRY(check_ports(class, method, TROUPE_OUT, users));
        TROUPE_ASSERT(method->run != NULL && method->after_count <= TROUPE_AFTER_MAX,
                      "%s %s: no run, or %d methods before it", class->name, method->name,
                      method->after_count);
        if (reduces && method->input_count + method->output_count > 0) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "class %s: method %s is in the reduction lane and cannot have ports",
                               class->name, method->name);
        }
        if (runtime->options.microbatches == 0 && (method->once || reduces)) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "class %s: method %s fires once a step, but this runtime has no "
                               "steps; set microbatches",
                               class->name, method->name);
        }
    }
    return TROUPE_OK;
}

static uint64_t hash_spawn(const struct troupe_spawn_options *o) {
    const struct troupe_actor_class *class = o->actor_class;
    uint64_t hash =
        troupe_hash_text(troupe_hash_text(TROUPE_SAMPLE_SET_EMPTY, o->name), class->name);
    for (int m = 0; m < class->method_count; m++) {
        hash = troupe_hash_text(hash, class->methods[m].name);
    }
    hash = troupe_hash_bytes(hash, o->ranks, (size_t)o->rank_count * sizeof *o->ranks);
    const int labels[] = {o->rank_count, o->slots, o->lane_order,  o->module,
                          o->depth,      o->stage, o->stage_count, o->dp};
    return troupe_hash_bytes(hash, labels, sizeof labels);
}

static troupe_status check_spawn(const troupe_runtime *runtime,
                                 const struct troupe_spawn_options *options) {
    TROUPE_ASSERT(options->name != NULL && options->actor_class != NULL, "spawn without %s",
                  options->name == NULL ? "a name" : "a class");
    for (int g = 0; g < runtime->gang_count; g++) {
        if (strcmp(runtime->gangs[g].name, options->name) == 0) {
            return troupe_fail(TROUPE_ERROR_INVALID, "two gangs are named %s", options->name);
        }
    }
    for (int i = 0; i < options->rank_count; i++) {
        if (options->ranks[i] < 0 || options->ranks[i] >= runtime->rank_count) {
            return troupe_fail(TROUPE_ERROR_INVALID, "gang %s lists rank %d; there are %d ranks",
                               options->name, options->ranks[i], runtime->rank_count);
        }
    }
    return check_class(runtime, options->actor_class);
}

static int member_here(const struct troupe_spawn_options *options, int rank) {
    for (int i = 0; i < options->rank_count; i++) {
        if (options->ranks[i] == rank) {
            return i;
        }
    }
    return TROUPE_NOBODY;
}

troupe_status troupe_spawn(troupe_runtime *runtime, const struct troupe_spawn_options *options,
                           int *gang_out) {
    static const int rank_zero[] = {0};
    struct troupe_spawn_options own = *options;
    TROUPE_ASSERT(!runtime->started, "spawn of %s after start", own.name);
    if (own.rank_count == 0) {
        own.ranks = rank_zero;
        own.rank_count = 1;
    }
    own.stage_count = own.stage_count == 0 ? 1 : own.stage_count;
    TROUPE_TRY(check_spawn(runtime, &own));
    TROUPE_TRY(troupe_grow((void **)&runtime->gangs, runtime->gang_count, &runtime->gang_capacity,
                           sizeof *runtime->gangs));
    struct troupe_actor_gang *gang = &runtime->gangs[runtime->gang_count];
    *gang = (struct troupe_actor_gang){.member = member_here(&own, runtime->rank)};
    runtime->gang_count++; /* from here on destroy frees it */
    TROUPE_TRY(troupe_string_copy(own.name, &gang->name));
    TROUPE_TRY(troupe_copy_ints(own.ranks, own.rank_count, &gang->ranks));
    own.name = gang->name;
    own.ranks = gang->ranks;
    bool on_device = gang->member != TROUPE_NOBODY && own.stream != NULL &&
                     !troupe_device_is_host(troupe_stream_device(own.stream));
    gang->stream = on_device ? own.stream : NULL;
    gang->options = own;
    TROUPE_TRY(TROUPE_NEW(&gang->inlets, own.actor_class->port_count));
    TROUPE_TRY(TROUPE_NEW(&gang->outlets, own.actor_class->port_count));
    if (gang_out != NULL) {
        *gang_out = runtime->gang_count - 1;
    }
    return troupe_record_call(runtime, "spawn ", gang->name, hash_spawn(&own));
}

troupe_status troupe_create_actors(troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        struct troupe_actor_gang *gang = &runtime->gangs[g];
        if (gang->member == TROUPE_NOBODY) {
            continue;
        }
        gang->state = gang->options.argument;
        if (gang->options.actor_class->create != NULL) {
            gang->state = NULL;
            TROUPE_TRY(gang->options.actor_class->create(runtime, &gang->options, gang->member,
                                                         &gang->state));
        }
        gang->created = true;
    }
    return TROUPE_OK;
}

void *troupe_actor_state(const troupe_runtime *runtime, int gang) {
    TROUPE_ASSERT(gang >= 0 && gang < runtime->gang_count, "gang %d of %d", gang,
                  runtime->gang_count);
    return runtime->gangs[gang].state;
}

void troupe_destroy_gangs(troupe_runtime *runtime) {
    for (int g = 0; g < runtime->gang_count; g++) {
        struct troupe_actor_gang *gang = &runtime->gangs[g];
        if (gang->created && gang->options.actor_class->destroy != NULL) {
            gang->options.actor_class->destroy(gang->state);
        }
        troupe_task_clock_destroy(&gang->clock);
        troupe_free(gang->name);
        troupe_free(gang->ranks);
        troupe_free(gang->inlets);
        troupe_free(gang->outlets);
    }
    troupe_free(runtime->gangs);
    troupe_free(runtime->calls);
}
