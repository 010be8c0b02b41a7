/* test_dtype.c -- every 16- and 8-bit float there and back; rounding at the ties. */
#include "core/core.h"

#include "check.h"

#include <math.h>

static void
halves_survive(void)
{
    for (uint32_t b = 0; b < 65536; b++) {
        float f = port_f16_to_f32((uint16_t)b);
        float g = port_bf16_to_f32((uint16_t)b);
        CHECK(isnan(f) || port_f32_to_f16(f) == b);
        CHECK(isnan(g) || port_f32_to_bf16(g) == b);
    }
}

static void
eighths_survive(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        float f = port_f8e4m3_to_f32((uint8_t)b);
        float g = port_f8e5m2_to_f32((uint8_t)b);
        CHECK(isnan(f) || port_f32_to_f8e4m3(f) == b);
        CHECK(isnan(g) || port_f32_to_f8e5m2(g) == b);
    }
}

static void
rounding_is_to_even(void)
{
    CHECK(port_f32_to_f16(1.0f + 0x1p-11f) == 0x3c00);
    CHECK(port_f32_to_f16(1.0f + 3 * 0x1p-11f) == 0x3c02);
    CHECK(port_f32_to_f16(65519.0f) == 0x7bff);
    CHECK(port_f32_to_f16(65520.0f) == 0x7c00);
    CHECK(port_f32_to_f16(0x1p-25f) == 0);
    CHECK(port_f32_to_f16(nextafterf(0x1p-25f, 1)) == 1);
    CHECK(port_f32_to_bf16(1.0f + 0x1p-8f) == 0x3f80);
    CHECK(port_f32_to_bf16(NAN) == 0x7fc0);
    CHECK(port_f32_to_f8e4m3(1e9f) == 0x7e);
    CHECK(port_f32_to_f8e4m3(-INFINITY) == 0xfe);
    CHECK(port_f32_to_f8e4m3(248.0f) == 0x78);
    CHECK(port_f32_to_f8e4m3(247.0f) == 0x77);
    CHECK(port_f32_to_f8e5m2(INFINITY) == 0x7c);
}

int
main(void)
{
    halves_survive();
    eighths_survive();
    rounding_is_to_even();
    return CHECK_REPORT();
}
