/* SPDX-License-Identifier: Apache-2.0
 *
 * Files written in boxes by several writers and read in other boxes hold the same tensors; what is
 * not such a file is refused with its reason. tests/parity reads our files with Python.
 */
#include "modules/checkpoint/safetensors.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/random.h"
#include "tests/test.h"

static char path[] = "/tmp/troupe-safetensors-XXXXXX";

static const struct troupe_file_tensor tensors[] = {
    {"llm.embedding.weight", {7, 5}, 2},
    {"vision.position.weight", {3, 4, 6}, 3},
    {"vision.norm.bias", {9}, 1},
    {"nothing", {0, 3}, 2},
    {"scalar", {0}, 0},
};
enum { TENSORS = sizeof(tensors) / sizeof(tensors[0]), ELEMENTS_MAX = 128 };

static const struct troupe_file_metadata metadata[] = {{"step", "12"},
                                                       {"note", "a \"quoted\" word"}};

static troupe_safetensors *create(void) {
    struct troupe_file_content content = {tensors, TENSORS, metadata, 2};
    troupe_safetensors *file = NULL;
    EXPECT_OK(troupe_safetensors_create(path, &content, &file));
    return file;
}

/* The value of the element at `index` of tensor t: its flat position. */
static float value_at(int t, const int64_t *index) {
    int64_t flat = 0;
    for (int d = 0; d < tensors[t].dimensions; d++) {
        flat = flat * tensors[t].shape[d] + index[d];
    }
    return (float)(1000 * (t + 1) + flat);
}

/* Calls for each element of a box, in row-major order, with its place in memory. */
static int64_t fill_or_check(int t, const struct troupe_file_box *box, float *data, bool check) {
    int64_t elements = 1;
    for (int d = 0; d < box->tensor.dimensions; d++) {
        elements *= box->extent[d];
    }
    for (int64_t e = 0; e < elements; e++) {
        int64_t index[TROUPE_FILE_DIMENSIONS_MAX] = {0};
        int64_t rest = e;
        for (int d = box->tensor.dimensions - 1; d >= 0; d--) {
            index[d] = box->begin[d] + rest % box->extent[d];
            rest /= box->extent[d];
        }
        if (check) {
            EXPECT_NEAR(data[e], value_at(t, index), 0);
        } else {
            data[e] = value_at(t, index);
        }
    }
    return elements;
}

/* The box of part `part` of `parts` along dimension `split`. */
static struct troupe_file_box part_of(int t, int split, int part, int parts) {
    struct troupe_file_box box = {.tensor = tensors[t]};
    for (int d = 0; d < box.tensor.dimensions; d++) {
        box.extent[d] = box.tensor.shape[d];
    }
    if (box.tensor.dimensions > 0) {
        int64_t extent = box.extent[split];
        box.begin[split] = extent * part / parts;
        box.extent[split] = extent * (part + 1) / parts - box.begin[split];
    }
    return box;
}

/* Writer `part` of 3, each with its own object, splits dimension `split` of every tensor. */
static void write_part(troupe_safetensors *file, int split, int part) {
    for (int t = 0; t < TENSORS; t++) {
        float data[ELEMENTS_MAX];
        int last = tensors[t].dimensions - 1;
        struct troupe_file_box box = part_of(t, split < last ? split : last, part, 3);
        fill_or_check(t, &box, data, false);
        EXPECT_OK(troupe_safetensors_write_box(file, &box, data));
    }
}

static void write_whole_file(int split) {
    troupe_safetensors *first = create();
    write_part(first, split, 0);
    for (int part = 1; part < 3; part++) {
        troupe_safetensors *other = NULL;
        EXPECT_OK(troupe_safetensors_open(path, TROUPE_FILE_WRITE, &other));
        write_part(other, split, part);
        EXPECT_OK(troupe_safetensors_close(other));
    }
    EXPECT_OK(troupe_safetensors_close(first));
}

static void boxes_of_any_split_join_to_one_file(void) {
    for (int split = 0; split < 3; split++) {
        write_whole_file(split);
        troupe_safetensors *file = NULL;
        EXPECT_OK(troupe_safetensors_open(path, TROUPE_FILE_READ, &file));
        EXPECT_EQ(troupe_safetensors_count(file), TENSORS);
        for (int t = 0; t < TENSORS; t++) {
            for (int parts = 1; parts <= 2; parts++) {
                float data[ELEMENTS_MAX];
                struct troupe_file_box box = part_of(t, 0, parts - 1, parts);
                EXPECT_OK(troupe_safetensors_read_box(file, &box, data));
                fill_or_check(t, &box, data, true);
            }
        }
        EXPECT_OK(troupe_safetensors_close(file));
    }
}

static void random_boxes_read_what_is_there(void) {
    uint64_t seed = test_seed();
    uint64_t count = 0;
    write_whole_file(1);
    troupe_safetensors *file = NULL;
    EXPECT_OK(troupe_safetensors_open(path, TROUPE_FILE_READ, &file));
    for (int round = 0; round < 500; round++) {
        int t = (int)troupe_random_below(seed, 1, count++, 3);
        struct troupe_file_box box = {.tensor = tensors[t]};
        for (int d = 0; d < box.tensor.dimensions; d++) {
            uint64_t extent = (uint64_t)box.tensor.shape[d];
            box.begin[d] = (int64_t)troupe_random_below(seed, 1, count++, extent);
            uint64_t rest = extent - (uint64_t)box.begin[d];
            box.extent[d] = 1 + (int64_t)troupe_random_below(seed, 1, count++, rest);
        }
        float data[ELEMENTS_MAX];
        EXPECT_OK(troupe_safetensors_read_box(file, &box, data));
        fill_or_check(t, &box, data, true);
    }
    EXPECT_OK(troupe_safetensors_close(file));
}

static void metadata_and_tensors_are_listed(void) {
    EXPECT_OK(troupe_safetensors_close(create()));
    troupe_safetensors *file = NULL;
    EXPECT_OK(troupe_safetensors_open(path, TROUPE_FILE_READ, &file));
    EXPECT_STRING(troupe_safetensors_metadata(file, "step"), "12");
    EXPECT_STRING(troupe_safetensors_metadata(file, "note"), "a \"quoted\" word");
    EXPECT(troupe_safetensors_metadata(file, "absent") == NULL);
    EXPECT_STRING(troupe_safetensors_tensor(file, 1)->name, "vision.position.weight");
    EXPECT_EQ(troupe_safetensors_tensor(file, 1)->shape[2], 6);
    EXPECT_OK(troupe_safetensors_close(file));
}

static void a_missing_tensor_and_a_wrong_shape_are_named(void) {
    troupe_safetensors *file = create();
    struct troupe_file_box box = part_of(0, 0, 0, 1);
    float data[ELEMENTS_MAX];
    box.tensor.shape[1] = 6;
    EXPECT_ERROR(troupe_safetensors_read_box(file, &box, data), TROUPE_ERROR_INVALID,
                 "llm.embedding.weight has shape (7, 5), the model needs (7, 6)");
    box = (struct troupe_file_box){.tensor = {"llm.head.weight", {7, 5}, 2}};
    EXPECT_ERROR(troupe_safetensors_read_box(file, &box, data), TROUPE_ERROR_INVALID,
                 "no tensor llm.head.weight");
    EXPECT_OK(troupe_safetensors_close(file));
    EXPECT_ERROR(troupe_safetensors_open("/tmp/troupe-none/x", TROUPE_FILE_READ, &file),
                 TROUPE_ERROR_IO, "/tmp/troupe-none/x: cannot open");
}

static void every_truncation_is_noticed(void) {
    write_whole_file(0);
    struct stat about;
    EXPECT_EQ(stat(path, &about), 0);
    for (int64_t bytes = about.st_size - 1; bytes >= 0; bytes -= 1 + bytes / 40) {
        EXPECT_EQ(truncate(path, bytes), 0);
        troupe_safetensors *file = NULL;
        EXPECT_ERROR(troupe_safetensors_open(path, TROUPE_FILE_READ, &file), TROUPE_ERROR_DATA,
                     "truncated");
    }
}

static void expect_bad_header(const char *header, const char *reason) {
    FILE *stream = fopen(path, "wb");
    uint8_t length[8] = {(uint8_t)strlen(header)};
    EXPECT(stream != NULL && strlen(header) < 256);
    fwrite(length, 1, sizeof(length), stream);
    fwrite(header, 1, strlen(header), stream);
    fwrite("0123456789abcdef", 1, 16, stream);
    EXPECT_EQ(fclose(stream), 0);
    troupe_safetensors *file = NULL;
    EXPECT_ERROR(troupe_safetensors_open(path, TROUPE_FILE_READ, &file), TROUPE_ERROR_DATA, reason);
}

static void a_bad_header_is_refused(void) {
    expect_bad_header("not json", "not a JSON object");
    expect_bad_header("[]", "not a JSON object");
    expect_bad_header("{\"a\": {\"dtype\": \"BF16\", \"shape\": [4], \"data_offsets\": [0, 8]}}",
                      "a is not of dtype F32");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [0, 8]}}",
                      "do not match its shape");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [-4], \"data_offsets\": [0, 16]}}",
                      "do not match its shape");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [1e300], \"data_offsets\": [0, 4]}}",
                      "do not match its shape");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": 4, \"data_offsets\": [0, 16]}}",
                      "has no shape");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [16]}}",
                      "no two data_offsets");
    expect_bad_header("{\"a\": {\"dtype\": \"F32\", \"shape\": [4], \"data_offsets\": [8, 24]}}",
                      "truncated");
    expect_bad_header("{\"a\": 4}", "a is not of dtype F32");
}

/* Any byte of the header changed: opened or refused, never worse (run under the sanitizers). */
static void a_damaged_header_does_no_harm(void) {
    uint64_t seed = test_seed();
    for (uint64_t round = 0; round < 300; round++) {
        EXPECT_OK(troupe_safetensors_close(create()));
        FILE *stream = fopen(path, "r+b");
        EXPECT(stream != NULL);
        EXPECT_EQ(fseek(stream, (long)troupe_random_below(seed, 1, round, 400), SEEK_SET), 0);
        EXPECT(fputc((int)troupe_random_below(seed, 2, round, 256), stream) != EOF);
        EXPECT_EQ(fclose(stream), 0);
        troupe_safetensors *file = NULL;
        if (troupe_safetensors_open(path, TROUPE_FILE_READ, &file) == TROUPE_OK) {
            EXPECT(troupe_safetensors_count(file) <= TENSORS);
            EXPECT_OK(troupe_safetensors_close(file));
        }
    }
}

int main(void) {
    int descriptor = mkstemp(path);
    EXPECT(descriptor >= 0);
    close(descriptor);
    TEST(boxes_of_any_split_join_to_one_file);
    TEST(random_boxes_read_what_is_there);
    TEST(metadata_and_tensors_are_listed);
    TEST(a_missing_tensor_and_a_wrong_shape_are_named);
    TEST(every_truncation_is_noticed);
    TEST(a_bad_header_is_refused);
    TEST(a_damaged_header_does_no_harm);
    unlink(path);
    return TEST_END();
}
