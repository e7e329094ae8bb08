/* SPDX-License-Identifier: Apache-2.0 */
#include "modules/train/config_internal.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "modules/data/tokenizer.h"
#include "modules/nn/module.h"
#include "runtime/check.h"
#include "runtime/device.h"

enum key_type { KEY_INT, KEY_LONG, KEY_DOUBLE, KEY_BOOL, KEY_TEXT, KEY_PAIR, KEY_LIST };

/* Far above any real size, far enough below 2^31 that a few of them add up. */
enum { KEY_INT_MAX = 1 << 24, SHARE_MAX = 10000 };
static const double seconds_max = 1e9;

static const char *const type_names[] = {
    [KEY_INT] = "integer to 2^24", [KEY_LONG] = "integer", [KEY_DOUBLE] = "number",
    [KEY_BOOL] = "true/false",     [KEY_TEXT] = "text",    [KEY_PAIR] = "[number, number]",
    [KEY_LIST] = "[integers]",
};

struct key {
    const char *path;
    enum key_type type;
    size_t offset;
    const char *initial;
    const char *help;
};

#define KEY(path, type, field, initial, help)                                                      \
    { path, KEY_##type, offsetof(struct troupe_config, field), initial, help }

#define PLACEMENT_KEYS(name, index)                                                                \
    KEY("placement." name ".ranks", TEXT, placement.module[index].ranks, "",                       \
        "rank list such as 0-3 or 0,2,5-7"),                                                       \
        KEY("placement." name ".tp", INT, placement.module[index].tp, "0", "tensor parallel"),     \
        KEY("placement." name ".cp", INT, placement.module[index].cp, "0", "context parallel"),    \
        KEY("placement." name ".dp", INT, placement.module[index].dp, "0", "data parallel"),       \
        KEY("placement." name ".pp", INT, placement.module[index].pp, "0", "pipeline parallel"),   \
        KEY("placement." name ".ep", INT, placement.module[index].ep, "0", "expert parallel"),     \
        KEY("placement." name ".etp", INT, placement.module[index].etp, "0",                       \
            "tensor parallel of the experts"),                                                     \
        KEY("placement." name ".sp", BOOL, placement.module[index].sp, "false",                    \
            "sequence parallel"),                                                                  \
        KEY("placement." name ".layers", LIST, placement.module[index].layers, "[]",               \
            "layers of each pipeline stage; [] splits near-evenly"),                               \
        KEY("placement." name ".shares", LIST, placement.module[index].shares, "[]",               \
            "image work of each dp shard, relative, where data.assign is balanced; [] deals evenly")

static const struct key keys[] = {
    KEY("model.vision.layers", INT, model.vision.layers, "4", "transformer layers"),
    KEY("model.vision.hidden", INT, model.vision.hidden, "192", "width"),
    KEY("model.vision.heads", INT, model.vision.heads, "3", "attention heads"),
    KEY("model.vision.ffn", INT, model.vision.ffn, "0", "MLP width; 0: 4 x hidden"),
    KEY("model.vision.patch", INT, model.vision.patch, "8", "patch side in pixels"),
    KEY("model.vision.image", INT, model.vision.image, "64", "largest picture side in pixels"),
    KEY("model.projector.hidden", INT, model.projector.hidden, "384", "MLP width"),
    KEY("model.llm.layers", INT, model.llm.layers, "6", "transformer layers"),
    KEY("model.llm.hidden", INT, model.llm.hidden, "256", "width"),
    KEY("model.llm.heads", INT, model.llm.heads, "8", "attention heads"),
    KEY("model.llm.kv_heads", INT, model.llm.kv_heads, "0", "key/value heads; 0: heads"),
    KEY("model.llm.ffn", INT, model.llm.ffn, "688", "SwiGLU width"),
    KEY("model.llm.sequence", INT, model.llm.sequence, "192", "longest fused sequence in tokens"),
    KEY("model.llm.vocabulary", INT, model.llm.vocabulary, "0", "0: the byte tokenizer's"),
    KEY("model.llm.untied", BOOL, model.llm.untied, "false",
        "a head of its own instead of the transposed token embedding"),
    KEY("model.llm.rope_theta", DOUBLE, model.llm.rope_theta, "10000", "RoPE base"),
    KEY("model.llm.norm_eps", DOUBLE, model.llm.norm_eps, "1e-5", "RMSNorm epsilon"),

    KEY("data.train", TEXT, data.train, "", "WebDataset shards (glob) to train on"),
    KEY("data.heldout", TEXT, data.heldout, "", "WebDataset shards (glob) held out"),
    KEY("data.index", TEXT, data.index, "", "index of the training shards; empty: beside them"),
    KEY("data.max_images", INT, data.max_images, "1", "most pictures in a sample"),
    KEY("data.skip_undecodable", BOOL, data.skip_undecodable, "false",
        "leave out samples whose picture does not decode"),
    KEY("data.truncate", BOOL, data.truncate, "false", "cut captions that exceed the sequence"),
    KEY("data.assign", TEXT, data.assign, "contiguous",
        "images to the shards of an encoder: contiguous, with their samples, or balanced"),
    KEY("data.synthetic.samples", INT, data.synthetic.samples, "0",
        "seeded samples instead of shards; 0: none"),
    KEY("data.synthetic.images_min", INT, data.synthetic.images_min, "1", "pictures per sample"),
    KEY("data.synthetic.images_max", INT, data.synthetic.images_max, "1", "pictures per sample"),
    KEY("data.synthetic.side_min", INT, data.synthetic.side_min, "0",
        "smallest picture side in pixels; 0: the patch"),
    KEY("data.synthetic.text_min", INT, data.synthetic.text_min, "8", "caption bytes"),
    KEY("data.synthetic.text_max", INT, data.synthetic.text_max, "48", "caption bytes"),
    KEY("data.synthetic.text_only", DOUBLE, data.synthetic.text_only, "0",
        "fraction of samples without pictures"),

    KEY("train.run_dir", TEXT, train.run_dir, "runs/train", "metrics, log, checkpoints"),
    KEY("train.seed", LONG, train.seed, "1", "of weights and sample order"),
    KEY("train.steps", INT, train.steps, "300", "optimizer steps"),
    KEY("train.global_batch", INT, train.global_batch, "32", "samples per step"),
    KEY("train.microbatches", INT, train.microbatches, "4", "slices of the global batch"),
    KEY("train.lr", DOUBLE, train.lr, "1e-3", "peak learning rate"),
    KEY("train.lr_min", DOUBLE, train.lr_min, "0", "learning rate at the end of the cosine"),
    KEY("train.warmup", INT, train.warmup, "0", "steps of linear warm-up"),
    KEY("train.betas", PAIR, train.betas, "[0.9, 0.95]", "AdamW"),
    KEY("train.eps", DOUBLE, train.eps, "1e-8", "AdamW"),
    KEY("train.weight_decay", DOUBLE, train.weight_decay, "0.01", "AdamW, decoupled"),
    KEY("train.clip", DOUBLE, train.clip, "1", "global gradient norm; 0: off"),
    KEY("train.dtype", TEXT, train.dtype, "float32", "float32"),
    KEY("train.device", TEXT, train.device, "cpu",
        "cpu, cuda: each rank takes one of its machine's GPUs in turn, or sim: a simulated device, "
        "for tests"),
    KEY("train.workers", INT, train.workers, "0", "threads per rank; 0: its share of the cores"),
    KEY("train.checkpoint_every", INT, train.checkpoint_every, "0", "steps; 0: only at the end"),

    KEY("placement.policy", TEXT, placement.policy, "",
        "homogeneous, colocated, disjoint, manual, or a shared object; empty: manual if ranks are "
        "given, else homogeneous"),
    PLACEMENT_KEYS("vision", 0),
    PLACEMENT_KEYS("projector", 1),
    PLACEMENT_KEYS("llm", 2),

    KEY("schedule.order", TEXT, schedule.order, "fill",
        "fill, 1f1b, zero_bubble, fifo and others (`troupe info`), or a shared object"),
    KEY("schedule.mode", TEXT, schedule.mode, "dynamic",
        "dynamic, or static: a step's order is found before it begins and does not change"),
    KEY("schedule.costs", TEXT, schedule.costs, "measured",
        "what tasks are expected to take, for orders that plan: measured in the steps so far, "
        "roofline, or the path of a profile"),
    KEY("schedule.look_ahead", INT, schedule.look_ahead, "2", "tickets a rank holds at a time"),
    KEY("schedule.credits", INT, schedule.credits, "2", "messages in flight per edge"),
    KEY("schedule.slots", INT, schedule.slots, "0",
        "activation slots per actor; 0: the pipeline's depth"),

    KEY("comm.provider", TEXT, comm.provider, "auto", "auto, shm, tcp or mpi"),
    KEY("comm.windows", BOOL, comm.windows, "true",
        "devices of one machine write into each other's memory, where they can"),
    KEY("comm.serialize", TEXT, comm.serialize, "auto",
        "one lane of collectives at a time on a GPU: true, false, or auto: where ranks share one"),
    KEY("comm.stall_s", DOUBLE, comm.stall_s, "120", "seconds without progress before giving up"),
};

static const char *skip_space(const char *text) {
    return text + strspn(text, " \t");
}

static troupe_status parse_long(const char *text, long low, long high, long *out) {
    char *end = NULL;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *skip_space(end) != '\0' || errno != 0 || value < low || value > high) {
        return TROUPE_ERROR_INVALID;
    }
    *out = value;
    return TROUPE_OK;
}

static troupe_status parse_double(const char *text, double *out) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *skip_space(end) != '\0' || !(value - value == 0)) {
        return TROUPE_ERROR_INVALID;
    }
    *out = value;
    return TROUPE_OK;
}

/* "[1, 2]": calls item for each element. */
static troupe_status parse_list(const char *text, troupe_status (*item)(void *to, const char *text),
                                void *to) {
    char copy[TROUPE_CONFIG_TEXT_BYTES];
    size_t length = strlen(text);
    if (length < 2 || length >= sizeof copy || text[0] != '[' || text[length - 1] != ']') {
        return TROUPE_ERROR_INVALID;
    }
    memcpy(copy, text + 1, length - 2);
    copy[length - 2] = '\0';
    char *rest = NULL;
    for (char *part = strtok_r(copy, ",", &rest); part != NULL; part = strtok_r(NULL, ",", &rest)) {
        TROUPE_TRY(item(to, skip_space(part)));
    }
    return TROUPE_OK;
}

static troupe_status add_to_list(void *to, const char *text) {
    struct troupe_config_list *list = to;
    long value = 0;
    if (list->count == TROUPE_CONFIG_LIST_MAX) {
        return TROUPE_ERROR_INVALID;
    }
    TROUPE_TRY(parse_long(text, -KEY_INT_MAX, KEY_INT_MAX, &value));
    list->values[list->count++] = (int)value;
    return TROUPE_OK;
}

struct pair_parser {
    double values[2];
    int count;
};

static troupe_status add_to_pair(void *to, const char *text) {
    struct pair_parser *pair = to;
    if (pair->count == 2) {
        return TROUPE_ERROR_INVALID;
    }
    return parse_double(text, &pair->values[pair->count++]);
}

static troupe_status parse_pair(const char *text, double out[2]) {
    struct pair_parser pair = {.count = 0};
    TROUPE_TRY(parse_list(text, add_to_pair, &pair));
    if (pair.count != 2) {
        return TROUPE_ERROR_INVALID;
    }
    memcpy(out, pair.values, sizeof pair.values);
    return TROUPE_OK;
}

static troupe_status parse_bool(const char *text, bool *out) {
    if (strcmp(text, "true") == 0) {
        *out = true;
    } else if (strcmp(text, "false") == 0) {
        *out = false;
    } else {
        return TROUPE_ERROR_INVALID;
    }
    return TROUPE_OK;
}

static troupe_status parse_text(const char *text, char *out) {
    if (strlen(text) >= TROUPE_CONFIG_TEXT_BYTES) {
        return TROUPE_ERROR_INVALID;
    }
    memcpy(out, text, strlen(text) + 1);
    return TROUPE_OK;
}

static troupe_status parse_value(const struct key *key, const char *text, void *field) {
    long number = 0;
    switch (key->type) {
    case KEY_INT:
        TROUPE_TRY(parse_long(text, -KEY_INT_MAX, KEY_INT_MAX, &number));
        *(int *)field = (int)number;
        return TROUPE_OK;
    case KEY_LONG:
        TROUPE_TRY(parse_long(text, LONG_MIN, LONG_MAX, &number));
        *(int64_t *)field = number;
        return TROUPE_OK;
    case KEY_DOUBLE:
        return parse_double(text, field);
    case KEY_BOOL:
        return parse_bool(text, field);
    case KEY_TEXT:
        return parse_text(text, field);
    case KEY_PAIR:
        return parse_pair(text, field);
    case KEY_LIST:
        ((struct troupe_config_list *)field)->count = 0;
        return parse_list(text, add_to_list, field);
    }
    return TROUPE_ERROR_INVALID;
}

/* The shortest text that reads back as the same number. */
static void print_double(double value, FILE *file) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    fputs(text, file);
}

/* 'text' as YAML quotes it: only the quote itself is special. */
static void print_quoted(const char *text, FILE *file) {
    fputc('\'', file);
    for (; *text != '\0'; text++) {
        fputs(*text == '\'' ? "''" : (char[]){*text, '\0'}, file);
    }
    fputc('\'', file);
}

static void print_value(const struct key *key, const void *field, FILE *file) {
    switch (key->type) {
    case KEY_INT:
        fprintf(file, "%d", *(const int *)field);
        break;
    case KEY_LONG:
        fprintf(file, "%lld", (long long)*(const int64_t *)field);
        break;
    case KEY_DOUBLE:
        print_double(*(const double *)field, file);
        break;
    case KEY_BOOL:
        fputs(*(const bool *)field ? "true" : "false", file);
        break;
    case KEY_TEXT:
        print_quoted(field, file);
        break;
    case KEY_PAIR:
        fputc('[', file);
        print_double(((const double *)field)[0], file);
        fputs(", ", file);
        print_double(((const double *)field)[1], file);
        fputc(']', file);
        break;
    case KEY_LIST: {
        const struct troupe_config_list *list = field;
        fputc('[', file);
        for (int i = 0; i < list->count; i++) {
            fprintf(file, "%s%d", i > 0 ? ", " : "", list->values[i]);
        }
        fputc(']', file);
        break;
    }
    }
}

static const struct key *find_key(const char *path) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        if (strcmp(keys[i].path, path) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

/* Is path a proper prefix of some key ("train" of "train.lr")? */
bool troupe_config_is_section(const char *path) {
    size_t length = strlen(path);
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        if (strncmp(keys[i].path, path, length) == 0 && keys[i].path[length] == '.') {
            return true;
        }
    }
    return false;
}

/* Levenshtein (1966) distance, one row at a time. */
static int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 128 };
    int row[LONGEST + 1];
    int a_length = (int)strnlen(a, LONGEST), b_length = (int)strnlen(b, LONGEST);
    for (int j = 0; j <= b_length; j++) {
        row[j] = j;
    }
    for (int i = 1; i <= a_length; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= b_length; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int insert = row[j - 1] + 1, delete = row[j] + 1;
            row[j] = change < insert ? change : insert;
            row[j] = row[j] < delete ? row[j] : delete;
        }
    }
    return row[b_length];
}

const char *troupe_config_nearest_key(const char *path) {
    const char *best = keys[0].path;
    int best_distance = INT_MAX;
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        int distance = edit_distance(path, keys[i].path);
        if (distance < best_distance) {
            best_distance = distance;
            best = keys[i].path;
        }
    }
    return best;
}

troupe_status troupe_config_set_key(struct troupe_config *config, const char *where,
                                    const char *path, const char *text) {
    const struct key *key = find_key(path);
    if (key == NULL) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: unknown key '%s'; did you mean '%s'?", where,
                           path, troupe_config_nearest_key(path));
    }
    if (parse_value(key, text, (char *)config + key->offset) != TROUPE_OK) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s: %s: '%s' is not of type %s", where, path,
                           text, type_names[key->type]);
    }
    return TROUPE_OK;
}

static void set_default(struct troupe_config *config, const struct key *key) {
    troupe_status status = parse_value(key, key->initial, (char *)config + key->offset);
    TROUPE_ASSERT(status == TROUPE_OK, "default of %s: '%s'", key->path, key->initial);
}

void troupe_config_init(struct troupe_config *config) {
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        set_default(config, &keys[i]);
    }
}

/* --- reading and setting ------------------------------------------------------------------- */

troupe_status troupe_config_read(struct troupe_config *config, const char *path) {
    return troupe_config_read_file(config, path, NULL);
}

troupe_status troupe_config_read_placement(struct troupe_config *config, const char *path) {
    static const char section[] = "placement";
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        if (strncmp(keys[i].path, section, sizeof section - 1) == 0) {
            set_default(config, &keys[i]);
        }
    }
    return troupe_config_read_file(config, path, section);
}

troupe_status troupe_config_set(struct troupe_config *config, const char *assignment) {
    char path[TROUPE_CONFIG_TEXT_BYTES];
    const char *equals = strchr(assignment, '=');
    if (equals == NULL || (size_t)(equals - assignment) >= sizeof path) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "--set %s: write it as key.path=value, such as train.steps=10",
                           assignment);
    }
    memcpy(path, assignment, (size_t)(equals - assignment));
    path[equals - assignment] = '\0';
    return troupe_config_set_key(config, "--set", path, equals + 1);
}

/* --- checks -------------------------------------------------------------------------------- */

static troupe_status at_least(const char *key, int64_t value, int64_t least) {
    if (value < least) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s is %lld, but must be at least %lld", key,
                           (long long)value, (long long)least);
    }
    return TROUPE_OK;
}

static troupe_status must_be(const char *key, const char *value, const char *only) {
    if (strcmp(value, only) != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID, "%s is '%s', but this build knows only '%s'", key,
                           value, only);
    }
    return TROUPE_OK;
}

static troupe_status check_axes(const struct troupe_config *config) {
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        const struct troupe_config_placement *p = &config->placement.module[i];
        if (p->cp > 1 || p->ep > 1 || p->etp > 1 || p->sp) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s: cp, ep, etp and sp are not built yet; remove them "
                               "or set them to 1 (false)",
                               troupe_module_classes()[i]->name);
        }
    }
    return TROUPE_OK;
}

static troupe_status check_serialize(const char *value) {
    if (strcmp(value, "auto") == 0 || strcmp(value, "true") == 0 || strcmp(value, "false") == 0) {
        return TROUPE_OK;
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "comm.serialize is %s; it must be auto, true or false",
                       value);
}

static troupe_status check_mode(const char *value) {
    if (strcmp(value, "dynamic") == 0 || strcmp(value, "static") == 0) {
        return TROUPE_OK;
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "schedule.mode is %s; it must be dynamic or static",
                       value);
}

static troupe_status check_assign(const char *value) {
    if (strcmp(value, "contiguous") == 0 || strcmp(value, "balanced") == 0) {
        return TROUPE_OK;
    }
    return troupe_fail(TROUPE_ERROR_INVALID, "data.assign is %s; it must be contiguous or balanced",
                       value);
}

static troupe_status check_shares(const struct troupe_config *config, int module) {
    const struct troupe_config_list *shares = &config->placement.module[module].shares;
    const char *name = troupe_module_classes()[module]->name;
    int sum = 0;
    for (int i = 0; i < shares->count; i++) {
        if (shares->values[i] < 0 || shares->values[i] > SHARE_MAX) {
            return troupe_fail(TROUPE_ERROR_INVALID,
                               "placement.%s.shares: %d for shard %d; a share lies in 0 to %d",
                               name, shares->values[i], i, SHARE_MAX);
        }
        sum += shares->values[i];
    }
    if (shares->count > 0 && module == TROUPE_LLM) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.shares: images are dealt, and this module has none; it "
                           "can have %s.layers",
                           name, name);
    }
    if (shares->count > 0 && sum == 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.shares: all are 0; at least one shard has to encode",
                           name);
    }
    if (shares->count > 0 && strcmp(config->data.assign, "balanced") != 0) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "placement.%s.shares: with data.assign %s images stay with their "
                           "samples; set data.assign: balanced, or remove the shares",
                           name, config->data.assign);
    }
    return TROUPE_OK;
}

static troupe_status check_train(const struct troupe_config *config) {
    TROUPE_TRY(at_least("train.steps", config->train.steps, 0));
    TROUPE_TRY(at_least("train.microbatches", config->train.microbatches, 1));
    if (config->train.global_batch < config->train.microbatches) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "train.global_batch %d is smaller than train.microbatches %d",
                           config->train.global_batch, config->train.microbatches);
    }
    TROUPE_TRY(at_least("train.warmup", config->train.warmup, 0));
    TROUPE_TRY(at_least("train.checkpoint_every", config->train.checkpoint_every, 0));
    TROUPE_TRY(at_least("train.workers", config->train.workers, 0));
    const double *betas = config->train.betas;
    if (!(betas[0] >= 0 && betas[0] < 1 && betas[1] >= 0 && betas[1] < 1)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "train.betas [%g, %g] must lie in [0, 1)",
                           betas[0], betas[1]);
    }
    if (!(config->train.lr >= 0 && config->train.lr_min >= 0 && config->train.eps > 0 &&
          config->train.clip >= 0)) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "train.lr, lr_min and clip must not be negative, and eps not zero");
    }
    TROUPE_TRY(must_be("train.dtype", config->train.dtype, "float32"));
    enum troupe_device_kind kind = TROUPE_DEVICE_CPU;
    troupe_status status = troupe_device_kind_find(config->train.device, &kind);
    return status == TROUPE_OK ? TROUPE_OK : troupe_fail_in(status, "train.device");
}

/* Ranks that the config names must not be passed over in silence. */
static void choose_placement(struct troupe_config *config) {
    bool ranks_given = false;
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        ranks_given = ranks_given || config->placement.module[i].ranks[0] != '\0';
    }
    if (config->placement.policy[0] == '\0') {
        snprintf(config->placement.policy, sizeof config->placement.policy, "%s",
                 ranks_given ? "manual" : "homogeneous");
    }
}

troupe_status troupe_config_resolve(struct troupe_config *config) {
    choose_placement(config);
    TROUPE_TRY(troupe_model_config_resolve(&config->model));
    TROUPE_TRY(check_train(config));
    TROUPE_TRY(check_axes(config));
    TROUPE_TRY(at_least("model.llm.vocabulary", config->model.llm.vocabulary, TROUPE_TOKEN_COUNT));
    TROUPE_TRY(at_least("data.max_images", config->data.max_images, 0));
    TROUPE_TRY(check_assign(config->data.assign));
    for (int i = 0; i < TROUPE_CONFIG_MODULES; i++) {
        TROUPE_TRY(check_shares(config, i));
    }
    TROUPE_TRY(check_mode(config->schedule.mode));
    TROUPE_TRY(at_least("schedule.look_ahead", config->schedule.look_ahead, 1));
    TROUPE_TRY(at_least("schedule.credits", config->schedule.credits, 1));
    TROUPE_TRY(at_least("schedule.slots", config->schedule.slots, 0));
    TROUPE_TRY(check_serialize(config->comm.serialize));
    if (!(config->comm.stall_s > 0 && config->comm.stall_s <= seconds_max)) {
        return troupe_fail(TROUPE_ERROR_INVALID, "comm.stall_s is %g; it must be above 0, to %g",
                           config->comm.stall_s, seconds_max);
    }
    bool shards = config->data.train[0] != '\0';
    bool synthetic = config->data.synthetic.samples > 0;
    if (shards == synthetic) {
        return troupe_fail(TROUPE_ERROR_INVALID,
                           "give either data.train (shards) or data.synthetic.samples, not %s",
                           shards ? "both" : "neither");
    }
    return TROUPE_OK;
}

static bool same_value(const struct key *key, const void *a, const void *b) {
    static const size_t bytes[] = {
        [KEY_INT] = sizeof(int),   [KEY_LONG] = sizeof(int64_t),    [KEY_DOUBLE] = sizeof(double),
        [KEY_BOOL] = sizeof(bool), [KEY_PAIR] = 2 * sizeof(double),
    };
    if (key->type == KEY_TEXT) {
        return strcmp(a, b) == 0;
    }
    if (key->type == KEY_LIST) {
        const struct troupe_config_list *x = a, *y = b;
        return x->count == y->count &&
               memcmp(x->values, y->values, (size_t)x->count * sizeof *x->values) == 0;
    }
    return memcmp(a, b, bytes[key->type]) == 0;
}

static bool begins_with_any(const char *path, const char *const *prefixes) {
    for (; *prefixes != NULL; prefixes++) {
        if (strncmp(path, *prefixes, strlen(*prefixes)) == 0) {
            return true;
        }
    }
    return false;
}

const char *troupe_config_difference(const struct troupe_config *a, const struct troupe_config *b,
                                     const char *const *except) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        if (!begins_with_any(keys[i].path, except) &&
            !same_value(&keys[i], (const char *)a + keys[i].offset,
                        (const char *)b + keys[i].offset)) {
            return keys[i].path;
        }
    }
    return NULL;
}

void troupe_config_write(const struct troupe_config *config, FILE *file) {
    const char *previous = "";
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        const char *path = keys[i].path;
        size_t shared = 0; /* bytes of `path` up to the last '.' that the previous key shares */
        for (size_t j = 0; path[j] != '\0' && path[j] == previous[j]; j++) {
            shared = path[j] == '.' ? j + 1 : shared;
        }
        int depth = 0;
        for (size_t j = 0; j < shared; j++) {
            depth += path[j] == '.';
        }
        for (const char *word = path + shared, *dot; (dot = strchr(word, '.')) != NULL;
             word = dot + 1) {
            fprintf(file, "%*s%.*s:\n", 2 * depth++, "", (int)(dot - word), word);
        }
        fprintf(file, "%*s%s: ", 2 * depth, "", strrchr(path, '.') + 1);
        print_value(&keys[i], (const char *)config + keys[i].offset, file);
        fputc('\n', file);
        previous = path;
    }
}

void troupe_config_help(FILE *file) {
    for (size_t i = 0; i < TROUPE_COUNT_OF(keys); i++) {
        fprintf(file, "  %-30s %-16s %s (default: %s)\n", keys[i].path, type_names[keys[i].type],
                keys[i].help, keys[i].initial[0] != '\0' ? keys[i].initial : "none");
    }
}
