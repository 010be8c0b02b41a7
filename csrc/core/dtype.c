/* dtype.c -- the dtype table, and conversion between f32 and the 16- and 8-bit floats. */
#include "core.h"

static const struct {
    const char *name;
    size_t size_bytes;
} dtypes[PORT_NUM_DTYPES] = {
    [PORT_BOOL] = {"BOOL", 1}, [PORT_U8] = {"U8", 1},           [PORT_I8] = {"I8", 1},           [PORT_I16] = {"I16", 2},
    [PORT_U16] = {"U16", 2},   [PORT_I32] = {"I32", 4},         [PORT_U32] = {"U32", 4},         [PORT_I64] = {"I64", 8},
    [PORT_U64] = {"U64", 8},   [PORT_F16] = {"F16", 2},         [PORT_BF16] = {"BF16", 2},       [PORT_F32] = {"F32", 4},
    [PORT_F64] = {"F64", 8},   [PORT_F8_E4M3] = {"F8_E4M3", 1}, [PORT_F8_E5M2] = {"F8_E5M2", 1}, [PORT_C64] = {"C64", 8},
};

size_t
port_dtype_size(port_dtype dtype)
{
    return (unsigned)dtype < PORT_NUM_DTYPES ? dtypes[dtype].size_bytes : 0;
}

const char *
port_dtype_name(port_dtype dtype)
{
    return (unsigned)dtype < PORT_NUM_DTYPES ? dtypes[dtype].name : "?";
}

port_dtype
port_dtype_from_name(const char *name)
{
    for (int i = 0; i < PORT_NUM_DTYPES; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            return (port_dtype)i;
        }
    }
    return PORT_NUM_DTYPES;
}

static uint32_t
bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float
float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A float format with `mantissa` bits and `exponent` bits, widened exactly to f32. Infinities and NaN as IEEE. */
static float
widen(uint32_t bits, int exponent, int mantissa)
{
    uint32_t sign = (bits >> (exponent + mantissa)) << 31;
    uint32_t exp = (bits >> mantissa) & ((1u << exponent) - 1);
    uint32_t man = bits & ((1u << mantissa) - 1);
    int bias = (1 << (exponent - 1)) - 1;
    if (exp == (1u << exponent) - 1) {
        return float_of(sign | 0x7f800000u | (man << (23 - mantissa)));
    }
    if (exp == 0) { /* zero or subnormal: man * 2^(1 - bias - mantissa), exact in f32 */
        float value = (float)man * float_of((uint32_t)(127 + 1 - bias - mantissa) << 23);
        return sign ? -value : value;
    }
    return float_of(sign | (exp + (uint32_t)(127 - bias)) << 23 | man << (23 - mantissa));
}

/* f32 rounded to nearest even with `exponent` and `mantissa` bits; overflow gives infinity; NaN a quiet NaN. */
static uint32_t
narrow(float value, int exponent, int mantissa)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 31) << (exponent + mantissa);
    uint32_t abs = bits & 0x7fffffffu;
    uint32_t inf = ((1u << exponent) - 1) << mantissa;
    int bias = (1 << (exponent - 1)) - 1;
    if (abs > 0x7f800000u) {
        return sign | inf | (1u << (mantissa - 1)) | ((abs & 0x7fffffu) >> (23 - mantissa));
    }
    int exp = (int)(abs >> 23) - 127;
    if (exp < -bias - mantissa) {
        return sign; /* below half of the smallest subnormal */
    }
    uint32_t man = (abs & 0x7fffffu) | (abs >> 23 ? 0x800000u : 0);
    int drop = 23 - mantissa;
    if (exp < 1 - bias) {
        drop += 1 - bias - exp; /* subnormal result */
    }
    uint32_t kept = man >> drop;
    uint32_t rest = man & ((1u << drop) - 1);
    uint32_t half = 1u << (drop - 1);
    kept += rest > half || (rest == half && (kept & 1));
    uint32_t result = exp < 1 - bias ? kept : kept + ((uint32_t)(exp + bias - 1) << mantissa);
    return sign | (result < inf ? result : inf);
}

float
port_f16_to_f32(uint16_t bits)
{
    return widen(bits, 5, 10);
}

uint16_t
port_f32_to_f16(float value)
{
    return (uint16_t)narrow(value, 5, 10);
}

float
port_bf16_to_f32(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t
port_f32_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fc0; /* as torch: every NaN becomes this one */
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

float
port_f8e4m3_to_f32(uint8_t bits)
{
    if ((bits & 0x7f) == 0x7f) {
        return float_of((uint32_t)(bits & 0x80) << 24 | 0x7fc00000u);
    }
    if ((bits & 0x78) == 0x78) { /* no infinity here: the top exponent holds ordinary numbers, 256 to 448 */
        float value = (float)(8 + (bits & 7)) * 32.0f;
        return bits & 0x80 ? -value : value;
    }
    return widen(bits, 4, 3);
}

uint8_t
port_f32_to_f8e4m3(float value)
{
    uint32_t bits = bits_of(value);
    uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    uint32_t abs = bits & 0x7fffffffu;
    if (abs > 0x7f800000u) {
        return sign | 0x7f;
    }
    if (abs >= bits_of(448.0f)) {
        return sign | 0x7e; /* saturates, infinity too */
    }
    if (abs >= bits_of(248.0f)) { /* the binade that the IEEE reading has no room for */
        if (abs < bits_of(256.0f)) {
            return sign | 0x78; /* rounds up to 256 (248 is the tie between 240 and 256, and 256 is even) */
        }
        uint32_t kept = abs >> 20 & 7;
        uint32_t rest = abs & 0xfffffu;
        kept += rest > 0x80000u || (rest == 0x80000u && (kept & 1));
        return sign | (uint8_t)(0x78 + kept);
    }
    return (uint8_t)(sign | (narrow(float_of(abs), 4, 3) & 0x7f));
}

float
port_f8e5m2_to_f32(uint8_t bits)
{
    return widen(bits, 5, 2);
}

uint8_t
port_f32_to_f8e5m2(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint8_t)((bits >> 24 & 0x80) | 0x7f);
    }
    return (uint8_t)narrow(value, 5, 2);
}
