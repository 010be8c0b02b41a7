/* compare_decode.c -- elements of any dtype as float64 and as integers in the order of their values.
 *
 * A floating number is sign and magnitude: counting representable values between two of them is a subtraction once
 * negative ones are mirrored: key = 2^63 + magnitude, or 2^63 - magnitude. Zero has one key, whatever its sign. */
#include "compare_blocks.h"

#define MIDDLE ((uint64_t)1 << 63)

static uint64_t
mirror(uint64_t bits, int sign_bit)
{
    uint64_t magnitude = bits & (((uint64_t)1 << sign_bit) - 1);
    return bits >> sign_bit & 1 ? MIDDLE - magnitude : MIDDLE + magnitude;
}

static uint64_t
key_of_value(double value, port_dtype dtype)
{
    uint64_t wide;
    uint32_t narrow;
    float rounded = (float)value;
    switch (dtype) {
    case PORT_F64:
        memcpy(&wide, &value, sizeof wide);
        return mirror(wide, 63);
    case PORT_F16: return mirror(port_f32_to_f16(rounded), 15);
    case PORT_BF16: return mirror(port_f32_to_bf16(rounded), 15);
    case PORT_F8_E4M3: return mirror(port_f32_to_f8e4m3(rounded), 7);
    case PORT_F8_E5M2: return mirror(port_f32_to_f8e5m2(rounded), 7);
    default:
        memcpy(&narrow, &rounded, sizeof narrow);
        return mirror(narrow, 31);
    }
}

#define DECODE(type, value_expression, key_expression)                        \
    do {                                                                      \
        const type *in = data;                                                \
        for (int64_t i = 0; i < count; i++) {                                 \
            const type x = in[i];                                             \
            values[i] = (double)(value_expression);                           \
            keys[i] = (key_expression);                                       \
        }                                                                     \
    } while (0)

static void
decode_floats(const void *data, port_dtype dtype, int64_t count, double *values, uint64_t *keys)
{
    uint64_t bits;
    uint32_t bits32;
    switch (dtype) {
    case PORT_F16: DECODE(uint16_t, port_f16_to_f32(x), mirror(x, 15)); break;
    case PORT_BF16: DECODE(uint16_t, port_bf16_to_f32(x), mirror(x, 15)); break;
    case PORT_F8_E4M3: DECODE(uint8_t, port_f8e4m3_to_f32(x), mirror(x, 7)); break;
    case PORT_F8_E5M2: DECODE(uint8_t, port_f8e5m2_to_f32(x), mirror(x, 7)); break;
    case PORT_F64: DECODE(double, x, (memcpy(&bits, &x, sizeof bits), mirror(bits, 63))); break;
    default: DECODE(float, x, (memcpy(&bits32, &x, sizeof bits32), mirror(bits32, 31))); break;
    }
}

void
compare_decode(const void *data, port_dtype dtype, port_dtype keys_of, int64_t count, double *values, uint64_t *keys)
{
    switch (dtype) {
    case PORT_BOOL: DECODE(uint8_t, x != 0, x != 0); return;
    case PORT_U8: DECODE(uint8_t, x, x); return;
    case PORT_I8: DECODE(int8_t, x, MIDDLE + (uint64_t)x); return;
    case PORT_U16: DECODE(uint16_t, x, x); return;
    case PORT_I16: DECODE(int16_t, x, MIDDLE + (uint64_t)x); return;
    case PORT_U32: DECODE(uint32_t, x, x); return;
    case PORT_I32: DECODE(int32_t, x, MIDDLE + (uint64_t)x); return;
    case PORT_U64: DECODE(uint64_t, x, x); return;
    case PORT_I64: DECODE(int64_t, x, MIDDLE + (uint64_t)x); return;
    default: break;
    }
    decode_floats(data, dtype, count, values, keys);
    if (keys_of != dtype) {
        for (int64_t i = 0; i < count; i++) {
            keys[i] = key_of_value(values[i], keys_of);
        }
    }
}
