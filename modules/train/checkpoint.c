/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/checkpoint.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modules/checkpoint/safetensors.h"
#include "modules/data/file.h"
#include "modules/train/agree.h"
#include "modules/train/folder.h"
#include "runtime/check.h"
#include "runtime/memory.h"

static const char *const file_names[TROUPE_CHECKPOINT_FILES] = {
    "model.safetensors", "optimizer-m.safetensors", "optimizer-v.safetensors"};
static const char state_name[] = "state.json";

struct path {
    char text[PATH_MAX];
};

static struct path path_in(const char *folder, const char *name) {
    struct path path;
    int length = snprintf(path.text, sizeof path.text, "%s/%s", folder, name);
    TROUPE_ASSERT(length < (int)sizeof path.text, "path of %d bytes", length);
    return path;
}

/* ---- boxes ---- */

static struct troupe_file_tensor file_tensor(const struct troupe_parameter_spec *spec) {
    struct troupe_file_tensor tensor = {.dimensions = spec->dimensions};
    snprintf(tensor.name, sizeof tensor.name, "%s", spec->name);
    memcpy(tensor.shape, spec->shape, sizeof tensor.shape);
    return tensor;
}

static struct troupe_file_box file_box(const struct troupe_parameter *parameter) {
    struct troupe_file_box box = {.tensor = file_tensor(&parameter->spec)};
    memcpy(box.begin, parameter->begin, sizeof box.begin);
    memcpy(box.extent, parameter->extent, sizeof box.extent);
    return box;
}

/* What the shard's parameter i keeps in file `which`. */
static float *data_of(const struct troupe_checkpoint_shard *shard, int i, int which) {
    if (which == TROUPE_CHECKPOINT_MODEL) {
        return shard->parameters[i].value;
    }
    struct troupe_moments moments = troupe_optimizer_moments(shard->optimizer, i);
    return which == TROUPE_CHECKPOINT_FIRST_MOMENTS ? moments.first : moments.second;
}

static bool is_on_device(const struct troupe_checkpoint_shard *shard) {
    return shard->stream != NULL && !troupe_device_is_host(troupe_stream_device(shard->stream));
}

static troupe_status copy_floats(const struct troupe_checkpoint_shard *shard, float *to,
                                 const float *from, int64_t count) {
    struct troupe_copy copy = {
        .to = to, .from = from, .rows = 1, .row_bytes = (size_t)count * sizeof *to};
    TROUPE_TRY(troupe_stream_copy(shard->stream, &copy));
    return troupe_stream_synchronize(shard->stream);
}

/* Writes parameter i, through `host` if it is in a device's memory. */
static troupe_status write_parameter(troupe_safetensors *file,
                                     const struct troupe_checkpoint_shard *shard, int i, int which,
                                     float *host) {
    struct troupe_file_box box = file_box(&shard->parameters[i]);
    const float *data = data_of(shard, i, which);
    if (is_on_device(shard)) {
        TROUPE_TRY(
            copy_floats(shard, host, data, troupe_parameter_elements(&shard->parameters[i])));
        data = host;
    }
    return troupe_safetensors_write_box(file, &box, data);
}

/* Host memory for the largest parameter of a shard on a device, else NULL. */
static troupe_status make_host(const struct troupe_checkpoint_shard *shard, float **out) {
    int64_t most = 0;
    for (int i = 0; i < shard->count; i++) {
        int64_t count = troupe_parameter_elements(&shard->parameters[i]);
        most = count > most ? count : most;
    }
    *out = NULL;
    return is_on_device(shard) ? TROUPE_NEW(out, most) : TROUPE_OK;
}

/* ---- writing ---- */

static troupe_status create_files(const struct troupe_checkpoint *checkpoint, const char *folder,
                                  const struct troupe_file_tensor *tensors, int count) {
    char step[32];
    snprintf(step, sizeof step, "%" PRId64, checkpoint->step);
    const struct troupe_file_metadata metadata[] = {{"format", "pt"}, {"step", step}};
    const struct troupe_file_content content = {.tensors = tensors,
                                                .tensor_count = count,
                                                .metadata = metadata,
                                                .metadata_count = TROUPE_COUNT_OF(metadata)};
    for (int i = 0; i < TROUPE_CHECKPOINT_FILES; i++) {
        troupe_safetensors *file = NULL;
        TROUPE_TRY(troupe_safetensors_create(path_in(folder, file_names[i]).text, &content, &file));
        TROUPE_TRY(troupe_safetensors_close(file));
    }
    return TROUPE_OK;
}

static troupe_status create_tensors(const struct troupe_checkpoint *checkpoint,
                                    const char *folder) {
    const struct troupe_model_config *config = &checkpoint->config->model;
    struct troupe_parameter_spec *specs = NULL;
    struct troupe_file_tensor *tensors = NULL;
    int count = troupe_model_specs(config, NULL);
    troupe_status status = TROUPE_NEW(&specs, count);
    if (status == TROUPE_OK) {
        status = TROUPE_NEW(&tensors, count);
    }
    if (status == TROUPE_OK) {
        troupe_model_specs(config, specs);
        for (int i = 0; i < count; i++) {
            tensors[i] = file_tensor(&specs[i]);
        }
        status = create_files(checkpoint, folder, tensors, count);
    }
    troupe_free(specs);
    troupe_free(tensors);
    return status;
}

static void print_config(const void *arg, FILE *file) {
    troupe_config_write(arg, file);
}

static void print_state(const void *arg, FILE *file) {
    const struct troupe_checkpoint *checkpoint = arg;
    char seed[32]; /* as text: JSON numbers end at 2^53 */
    snprintf(seed, sizeof seed, "%" PRId64, checkpoint->config->train.seed);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "format", TROUPE_CHECKPOINT_FORMAT);
    cJSON_AddNumberToObject(json, "step", (double)checkpoint->step);
    cJSON_AddNumberToObject(json, "position", (double)checkpoint->position);
    cJSON_AddStringToObject(json, "seed", seed);
    cJSON_AddStringToObject(json, "plan", checkpoint->plan);
    char *text = cJSON_Print(json);
    fprintf(file, "%s\n", text != NULL ? text : "");
    cJSON_free(text);
    cJSON_Delete(json);
}

/* Rank 0: the folder with every file in its full size. */
static troupe_status create_folder(const struct troupe_checkpoint *checkpoint, const char *folder) {
    TROUPE_TRY(troupe_folder_remove(folder)); /* of a save that died */
    TROUPE_TRY(troupe_folder_make(folder));
    TROUPE_TRY(create_tensors(checkpoint, folder));
    TROUPE_TRY(troupe_folder_write_text(path_in(folder, "config.yaml").text, print_config,
                                        checkpoint->config));
    return troupe_folder_write_text(path_in(folder, state_name).text, print_state, checkpoint);
}

static bool is_mine(const struct troupe_checkpoint_shard *shard,
                    const struct troupe_parameter *parameter) {
    return shard->dp_index == 0 && !parameter->tied_copy &&
           (shard->tp_index == 0 || parameter->spec.tp_dimension >= 0);
}

static troupe_status write_shard(troupe_safetensors *file,
                                 const struct troupe_checkpoint_shard *shard, int which) {
    float *host = NULL;
    troupe_status status = make_host(shard, &host);
    for (int i = 0; status == TROUPE_OK && i < shard->count; i++) {
        if (is_mine(shard, &shard->parameters[i])) {
            status = write_parameter(file, shard, i, which, host);
        }
    }
    troupe_free(host);
    return status;
}

/* Every rank: its boxes into the files that rank 0 made. */
static troupe_status write_boxes(const struct troupe_checkpoint *checkpoint, const char *folder) {
    for (int which = 0; which < TROUPE_CHECKPOINT_FILES; which++) {
        troupe_safetensors *file = NULL;
        TROUPE_TRY(troupe_safetensors_open(path_in(folder, file_names[which]).text,
                                           TROUPE_FILE_WRITE, &file));
        troupe_status status = TROUPE_OK;
        for (int i = 0; status == TROUPE_OK && i < checkpoint->shard_count; i++) {
            status = write_shard(file, &checkpoint->shards[i], which);
        }
        troupe_status closed = troupe_safetensors_close(file);
        TROUPE_TRY(status);
        TROUPE_TRY(closed);
    }
    return TROUPE_OK;
}

static troupe_status rename_folder(const char *from, const char *to) {
    if (rename(from, to) != 0) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: cannot be renamed to %s: %s", from, to,
                           strerror(errno));
    }
    return TROUPE_OK;
}

/* Rank 0: gives the finished folder its name. An older one of this step (written before a resume
 * from an earlier step) is moved aside first, for a folder with files cannot be replaced. */
static troupe_status publish(const char *run_dir, const char *temporary, const char *folder) {
    struct path old;
    TROUPE_ASSERT(snprintf(old.text, sizeof old.text, "%s.old", folder) < (int)sizeof old.text,
                  "path of %s", folder);
    TROUPE_TRY(troupe_folder_sync(temporary));
    TROUPE_TRY(troupe_folder_remove(old.text));
    if (access(folder, F_OK) == 0) {
        TROUPE_TRY(rename_folder(folder, old.text));
    }
    TROUPE_TRY(rename_folder(temporary, folder));
    TROUPE_TRY(troupe_folder_sync(run_dir));
    return troupe_folder_remove(old.text);
}

static troupe_status save(const struct troupe_checkpoint *checkpoint) {
    const char *run_dir = checkpoint->config->train.run_dir;
    bool leads = troupe_group_index(checkpoint->world) == 0;
    char name[64];
    snprintf(name, sizeof name, "step-%" PRId64, checkpoint->step);
    struct path folder = path_in(run_dir, name);
    snprintf(name, sizeof name, "step-%" PRId64 ".tmp", checkpoint->step);
    struct path temporary = path_in(run_dir, name);

    troupe_status status = leads ? create_folder(checkpoint, temporary.text) : TROUPE_OK;
    TROUPE_TRY(troupe_agree(checkpoint->world, status, 0));
    status = write_boxes(checkpoint, temporary.text);
    TROUPE_TRY(troupe_agree(checkpoint->world, status, 0));
    status = leads ? publish(run_dir, temporary.text, folder.text) : TROUPE_OK;
    return troupe_agree(checkpoint->world, status, 0);
}

troupe_status troupe_checkpoint_save(const struct troupe_checkpoint *checkpoint) {
    bool steady = troupe_memory_is_steady();
    troupe_memory_set_steady(false); /* files and their headers need memory; no step is running */
    troupe_status status = save(checkpoint);
    troupe_memory_set_steady(steady);
    return status;
}

/* ---- reading ---- */

static troupe_status parse_state(const char *path, const cJSON *json,
                                 struct troupe_checkpoint_state *out) {
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(json, "format");
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(json, "step");
    const cJSON *position = cJSON_GetObjectItemCaseSensitive(json, "position");
    const cJSON *seed = cJSON_GetObjectItemCaseSensitive(json, "seed");
    if (!cJSON_IsNumber(format) || !cJSON_IsNumber(step) || !cJSON_IsNumber(position) ||
        !cJSON_IsString(seed)) {
        return troupe_fail(TROUPE_ERROR_DATA,
                           "%s: not the state of a checkpoint: format, step, position or seed is "
                           "missing",
                           path);
    }
    if (format->valuedouble != TROUPE_CHECKPOINT_FORMAT) {
        return troupe_fail(TROUPE_ERROR_DATA, "%s: checkpoint format %g; this build reads %d", path,
                           format->valuedouble, TROUPE_CHECKPOINT_FORMAT);
    }
    *out = (struct troupe_checkpoint_state){.step = (int64_t)step->valuedouble,
                                            .position = (int64_t)position->valuedouble,
                                            .seed = strtoll(seed->valuestring, NULL, 10)};
    return TROUPE_OK;
}

troupe_status troupe_checkpoint_load_state(const char *folder,
                                           struct troupe_checkpoint_state *out) {
    struct path path = path_in(folder, state_name);
    uint8_t *text = NULL;
    size_t bytes = 0;
    TROUPE_TRY(troupe_file_read(path.text, &text, &bytes));
    cJSON *json = cJSON_ParseWithLength((const char *)text, bytes);
    troupe_status status = parse_state(path.text, json, out);
    cJSON_Delete(json);
    troupe_free(text);
    return status;
}

troupe_status troupe_checkpoint_read(const char *path, enum troupe_checkpoint_file file,
                                     const struct troupe_parameter *parameters, int count) {
    troupe_safetensors *opened = NULL;
    TROUPE_TRY(
        troupe_safetensors_open(path_in(path, file_names[file]).text, TROUPE_FILE_READ, &opened));
    troupe_status status = TROUPE_OK;
    for (int i = 0; status == TROUPE_OK && i < count; i++) {
        struct troupe_file_box box = file_box(&parameters[i]);
        status = troupe_safetensors_read_box(opened, &box, parameters[i].value);
    }
    troupe_safetensors_close(opened); /* of a file that was read: cannot fail */
    return status;
}

/* N of "step-N", or -1. */
static int64_t step_of(const char *name) {
    static const char prefix[] = "step-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        return -1;
    }
    const char *digits = name + sizeof prefix - 1;
    size_t length = strspn(digits, "0123456789");
    bool whole = length > 0 && length < 19 && digits[length] == '\0';
    return whole ? strtoll(digits, NULL, 10) : -1;
}

troupe_status troupe_checkpoint_newest(const char *run_dir, char *out, size_t bytes) {
    DIR *entries = opendir(run_dir);
    if (entries == NULL) {
        return troupe_fail(TROUPE_ERROR_IO, "%s: no checkpoint to go on from: %s", run_dir,
                           strerror(errno));
    }
    int64_t newest = -1;
    const struct dirent *entry;
    while ((entry = readdir(entries)) != NULL) {
        int64_t step = step_of(entry->d_name);
        if (step > newest &&
            access(path_in(path_in(run_dir, entry->d_name).text, state_name).text, R_OK) == 0) {
            newest = step;
        }
    }
    closedir(entries);
    if (newest < 0) {
        return troupe_fail(TROUPE_ERROR_IO,
                           "%s: no checkpoint to go on from: looked for folders step-N with a %s",
                           run_dir, state_name);
    }
    int length = snprintf(out, bytes, "%s/step-%" PRId64, run_dir, newest);
    TROUPE_ASSERT(length < (int)bytes, "path of %d bytes for %zu", length, bytes);
    return TROUPE_OK;
}
