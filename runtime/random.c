/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/random.h"

#include <math.h>

#include "runtime/check.h"

/* Philox4x32: key = seed, 128-bit counter = (counter, stream), low words first. */
enum { PHILOX_ROUNDS = 10 };
static const uint32_t philox_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t philox_weyl[2] = {0x9E3779B9u, 0xBB67AE85u};

void troupe_random_block(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)philox_multiplier[0] * x[0];
        uint64_t p1 = (uint64_t)philox_multiplier[1] * x[2];
        uint32_t x1 = x[1], x3 = x[3];
        x[0] = (uint32_t)(p1 >> 32) ^ x1 ^ key[0];
        x[1] = (uint32_t)p1;
        x[2] = (uint32_t)(p0 >> 32) ^ x3 ^ key[1];
        x[3] = (uint32_t)p0;
        key[0] += philox_weyl[0];
        key[1] += philox_weyl[1];
    }
    for (int i = 0; i < 4; i++) {
        out[i] = x[i];
    }
}

static uint64_t join(uint32_t low, uint32_t high) {
    return (uint64_t)high << 32 | low;
}

/* The top 53 bits as a multiple of 2^-53 in [0, 1). */
static double unit_interval(uint64_t bits) {
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t troupe_random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t words[4];
    troupe_random_block(seed, stream, counter, words);
    return join(words[0], words[1]);
}

double troupe_random_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
    return unit_interval(troupe_random_bits(seed, stream, counter));
}

uint64_t troupe_random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t bound) {
    TROUPE_ASSERT(bound >= 1, "bound 0");
    uint64_t bits = troupe_random_bits(seed, stream, counter);
    return (uint64_t)((unsigned __int128)bits * bound >> 64);
}

double troupe_random_normal(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t words[4];
    troupe_random_block(seed, stream, counter, words);
    double radius = 1.0 - unit_interval(join(words[0], words[1])); /* (0, 1]: the log is finite */
    double angle = 2.0 * M_PI * unit_interval(join(words[2], words[3]));
    return sqrt(-2.0 * log(radius)) * cos(angle);
}

uint64_t troupe_random_stream(const char *name) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (const unsigned char *c = (const unsigned char *)name; *c != '\0'; c++) {
        hash = (hash ^ *c) * 0x100000001B3u;
    }
    return hash;
}
