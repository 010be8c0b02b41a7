/* hash.c -- XXH3, 128 bit, seed 0, for all lengths.
 *
 * Every captured tensor is hashed on the model's thread, so the long path (more than 240 bytes) has an AVX2 form, chosen
 * at run time. It differs from the scalar form only in doing four of the eight lanes at a time: all arithmetic is modulo
 * 2^64 and the lanes are independent, so both give the same bits.
 * Source: Yann Collet, "XXH3 Algorithm Specification" (doc/xxhash_spec.md of the xxHash project). */
#include "core.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PRIME32_1 0x9E3779B1u
#define PRIME32_2 0x85EBCA77u
#define PRIME32_3 0xC2B2AE3Du
#define PRIME64_1 0x9E3779B185EBCA87u
#define PRIME64_2 0xC2B2AE3D27D4EB4Fu
#define PRIME64_3 0x165667B19E3779F9u
#define PRIME64_4 0x85EBCA77C2B2AE63u
#define PRIME64_5 0x27D4EB2F165667C5u
#define PRIME_MX1 0x165667919E3779F9u
#define PRIME_MX2 0x9FB21C651E98DF25u

#define STRIPE_BYTES 64
#define SECRET_BYTES 192
#define STRIPES_PER_BLOCK 16 /* (SECRET_BYTES - STRIPE_BYTES) / 8: the secret moves on by 8 bytes a stripe */
#define BLOCK_BYTES (STRIPE_BYTES * STRIPES_PER_BLOCK)

static const uint8_t secret[SECRET_BYTES] __attribute__((aligned(64))) = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static uint32_t
read32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static uint64_t
read64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static port_hash128
multiply(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (port_hash128){.low = (uint64_t)product, .high = (uint64_t)(product >> 64)};
}

static uint64_t
multiply_fold(uint64_t a, uint64_t b)
{
    port_hash128 product = multiply(a, b);
    return product.low ^ product.high;
}

static uint64_t
avalanche_xxh64(uint64_t h)
{
    h = (h ^ (h >> 33)) * PRIME64_2;
    h = (h ^ (h >> 29)) * PRIME64_3;
    return h ^ (h >> 32);
}

static uint64_t
avalanche(uint64_t h)
{
    h = (h ^ (h >> 37)) * PRIME_MX1;
    return h ^ (h >> 32);
}

static port_hash128
hash_0_to_3(const uint8_t *in, size_t n)
{
    if (n == 0) {
        return (port_hash128){avalanche_xxh64(read64(secret + 64) ^ read64(secret + 72)),
                              avalanche_xxh64(read64(secret + 80) ^ read64(secret + 88))};
    }
    uint32_t low = (uint32_t)in[0] << 16 | (uint32_t)in[n >> 1] << 24 | in[n - 1] | (uint32_t)n << 8;
    uint32_t swapped = __builtin_bswap32(low);
    uint32_t high = swapped << 13 | swapped >> 19;
    return (port_hash128){avalanche_xxh64((uint64_t)low ^ (read32(secret) ^ read32(secret + 4))),
                          avalanche_xxh64((uint64_t)high ^ (read32(secret + 8) ^ read32(secret + 12)))};
}

static port_hash128
hash_4_to_8(const uint8_t *in, size_t n)
{
    uint64_t word = read32(in) + ((uint64_t)read32(in + n - 4) << 32);
    uint64_t keyed = word ^ (read64(secret + 16) ^ read64(secret + 24));
    port_hash128 h = multiply(keyed, PRIME64_1 + ((uint64_t)n << 2));
    h.high += h.low << 1;
    h.low ^= h.high >> 3;
    h.low = (h.low ^ (h.low >> 35)) * PRIME_MX2;
    h.low ^= h.low >> 28;
    h.high = avalanche(h.high);
    return h;
}

static port_hash128
hash_9_to_16(const uint8_t *in, size_t n)
{
    uint64_t flip_low = read64(secret + 32) ^ read64(secret + 40);
    uint64_t flip_high = read64(secret + 48) ^ read64(secret + 56);
    uint64_t low = read64(in), high = read64(in + n - 8);
    port_hash128 m = multiply(low ^ high ^ flip_low, PRIME64_1);
    m.low += (uint64_t)(n - 1) << 54;
    high ^= flip_high;
    m.high += high + (uint64_t)(uint32_t)high * (PRIME32_2 - 1);
    m.low ^= __builtin_bswap64(m.high);
    port_hash128 h = multiply(m.low, PRIME64_2);
    h.high += m.high * PRIME64_2;
    return (port_hash128){avalanche(h.low), avalanche(h.high)};
}

static uint64_t
mix16(const uint8_t *in, const uint8_t *key)
{
    return multiply_fold(read64(in) ^ read64(key), read64(in + 8) ^ read64(key + 8));
}

static void
mix32(port_hash128 *acc, const uint8_t *a, const uint8_t *b, const uint8_t *key)
{
    acc->low = (acc->low + mix16(a, key)) ^ (read64(b) + read64(b + 8));
    acc->high = (acc->high + mix16(b, key + 16)) ^ (read64(a) + read64(a + 8));
}

static port_hash128
hash_17_to_240(const uint8_t *in, size_t n)
{
    port_hash128 acc = {n * PRIME64_1, 0};
    if (n <= 128) {
        for (size_t i = (n - 1) / 32 + 1; i-- > 0;) {
            mix32(&acc, in + 16 * i, in + n - 16 * (i + 1), secret + 32 * i);
        }
    } else {
        for (size_t i = 0; i < 128; i += 32) {
            mix32(&acc, in + i, in + i + 16, secret + i);
        }
        acc = (port_hash128){avalanche(acc.low), avalanche(acc.high)};
        for (size_t i = 128; i + 32 <= n; i += 32) {
            mix32(&acc, in + i, in + i + 16, secret + 3 + i - 128);
        }
        mix32(&acc, in + n - 16, in + n - 32, secret + 136 - 17 - 16);
    }
    uint64_t low = acc.low + acc.high;
    uint64_t high = acc.low * PRIME64_1 + acc.high * PRIME64_4 + (uint64_t)n * PRIME64_2;
    return (port_hash128){avalanche(low), 0 - avalanche(high)};
}

static void
accumulate_ref(uint64_t acc[8], const uint8_t *in, const uint8_t *key)
{
    for (int i = 0; i < 8; i++) {
        uint64_t value = read64(in + 8 * i);
        uint64_t keyed = value ^ read64(key + 8 * i);
        acc[i ^ 1] += value;
        acc[i] += (keyed & 0xffffffffu) * (keyed >> 32);
    }
}

/* All blocks, the remaining stripes and the last stripe (which may overlap the one before). */
static void
stripes_ref(uint64_t acc[8], const uint8_t *in, size_t n)
{
    size_t num_blocks = (n - 1) / BLOCK_BYTES;
    for (size_t b = 0; b < num_blocks; b++, in += BLOCK_BYTES) {
        for (size_t s = 0; s < STRIPES_PER_BLOCK; s++) {
            accumulate_ref(acc, in + s * STRIPE_BYTES, secret + 8 * s);
        }
        for (int i = 0; i < 8; i++) {
            uint64_t a = acc[i] ^ (acc[i] >> 47) ^ read64(secret + SECRET_BYTES - STRIPE_BYTES + 8 * i);
            acc[i] = a * PRIME32_1;
        }
    }
    size_t rest = n - num_blocks * BLOCK_BYTES;
    for (size_t s = 0; s < (rest - 1) / STRIPE_BYTES; s++) {
        accumulate_ref(acc, in + s * STRIPE_BYTES, secret + 8 * s);
    }
    accumulate_ref(acc, in + rest - STRIPE_BYTES, secret + SECRET_BYTES - STRIPE_BYTES - 7);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static inline void
accumulate_avx2(__m256i acc[2], const uint8_t *in, const uint8_t *key)
{
    for (int i = 0; i < 2; i++) {
        __m256i value = _mm256_loadu_si256((const __m256i *)(const void *)(in + 32 * i));
        __m256i keyed = _mm256_xor_si256(value, _mm256_loadu_si256((const __m256i *)(const void *)(key + 32 * i)));
        __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
        __m256i neighbour = _mm256_shuffle_epi32(value, _MM_SHUFFLE(1, 0, 3, 2));
        acc[i] = _mm256_add_epi64(acc[i], _mm256_add_epi64(product, neighbour));
    }
}

__attribute__((target("avx2"))) static void
stripes_avx2(uint64_t lanes[8], const uint8_t *in, size_t n)
{
    const __m256i prime = _mm256_set1_epi32((int)PRIME32_1);
    __m256i acc[2];
    memcpy(acc, lanes, sizeof acc);
    size_t num_blocks = (n - 1) / BLOCK_BYTES;
    for (size_t b = 0; b < num_blocks; b++, in += BLOCK_BYTES) {
        for (size_t s = 0; s < STRIPES_PER_BLOCK; s++) {
            _mm_prefetch((const char *)(in + s * STRIPE_BYTES + 512), _MM_HINT_T0);
            accumulate_avx2(acc, in + s * STRIPE_BYTES, secret + 8 * s);
        }
        for (int i = 0; i < 2; i++) {
            const uint8_t *key = secret + SECRET_BYTES - STRIPE_BYTES + 32 * i;
            __m256i a = _mm256_xor_si256(acc[i], _mm256_srli_epi64(acc[i], 47));
            a = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)(const void *)key));
            __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), prime);
            acc[i] = _mm256_add_epi64(_mm256_mul_epu32(a, prime), _mm256_slli_epi64(high, 32));
        }
    }
    size_t rest = n - num_blocks * BLOCK_BYTES;
    for (size_t s = 0; s < (rest - 1) / STRIPE_BYTES; s++) {
        accumulate_avx2(acc, in + s * STRIPE_BYTES, secret + 8 * s);
    }
    accumulate_avx2(acc, in + rest - STRIPE_BYTES, secret + SECRET_BYTES - STRIPE_BYTES - 7);
    memcpy(lanes, acc, sizeof acc);
}
#endif

static uint64_t
merge(const uint64_t acc[8], const uint8_t *key, uint64_t start)
{
    for (int i = 0; i < 4; i++) {
        start += multiply_fold(acc[2 * i] ^ read64(key + 16 * i), acc[2 * i + 1] ^ read64(key + 16 * i + 8));
    }
    return avalanche(start);
}

static port_hash128
hash_long(const uint8_t *in, size_t n, bool vectorised)
{
    uint64_t acc[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
#if defined(__x86_64__)
    if (vectorised && __builtin_cpu_supports("avx2")) {
        stripes_avx2(acc, in, n);
    } else
#endif
    {
        (void)vectorised;
        stripes_ref(acc, in, n);
    }
    return (port_hash128){merge(acc, secret + 11, (uint64_t)n * PRIME64_1),
                          merge(acc, secret + SECRET_BYTES - STRIPE_BYTES - 11, ~((uint64_t)n * PRIME64_2))};
}

static port_hash128
hash_any(const void *data, size_t size_bytes, bool vectorised)
{
    const uint8_t *in = data;
    if (size_bytes <= 3) {
        return hash_0_to_3(in, size_bytes);
    }
    if (size_bytes <= 8) {
        return hash_4_to_8(in, size_bytes);
    }
    if (size_bytes <= 16) {
        return hash_9_to_16(in, size_bytes);
    }
    if (size_bytes <= 240) {
        return hash_17_to_240(in, size_bytes);
    }
    return hash_long(in, size_bytes, vectorised);
}

port_hash128
port_hash(const void *data, size_t size_bytes)
{
    return hash_any(data, size_bytes, true);
}

port_hash128
port_hash_ref(const void *data, size_t size_bytes)
{
    return hash_any(data, size_bytes, false);
}
