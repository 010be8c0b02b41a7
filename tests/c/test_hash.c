/* test_hash.c -- XXH3-128 against golden values of the xxHash library (python-xxhash 4.1.0) over
 * data[i] = (167 i + 13 (i >> 8) + 7) mod 256; the vector form against the scalar one at every length and alignment. */
#include "core/core.h"

#include "check.h"

static const struct {
    size_t size_bytes;
    uint64_t high, low;
} golden[] = {
    {0, 0x99aa06d3014798d8u, 0x6001c324468d497fu},
    {1, 0x495b62073ef70ca4u, 0x4c5cca45d0f4811fu},
    {2, 0xb53f02b2ba6ca51cu, 0x01c9a004b4575d2bu},
    {3, 0x021a348d148edbabu, 0xeaad2b1bc8fcc7c0u},
    {4, 0xd7d59e14db068d14u, 0x1de55debec5a7e49u},
    {5, 0x14e83e02ee080472u, 0x0567a2734c88141cu},
    {8, 0x8627727b418c2d57u, 0x9b9c3bea0de12331u},
    {9, 0xec64f0770edd08e1u, 0xf81eaedb3a001408u},
    {15, 0x3c9ac68181c2e5d3u, 0xe0f144ddc422c580u},
    {16, 0xa3ef22014aeb6b41u, 0x40b842494696b488u},
    {17, 0xdc1dc3df3b6ed068u, 0xef3b949987265153u},
    {32, 0x69636469c6f20a68u, 0xd7719323bb0b0bcfu},
    {33, 0x0d6cb5fedbc04ef8u, 0xdc4af9e89ae24acau},
    {64, 0xe5dd78c083cd04dau, 0xdcb1bb4a13996410u},
    {65, 0xc7d2d1230153f95du, 0x2a114d6d1a2a9bdcu},
    {96, 0x02b3e55d5b4dcf5au, 0x70f75fa42a7b4927u},
    {97, 0xffc7d0c0a27926d9u, 0x281e53813366af83u},
    {128, 0x3e1cb5a81e311a8eu, 0xfa5d08731c64d1a3u},
    {129, 0x3b3b31947ce3697fu, 0x2b7f987e5e43b34bu},
    {160, 0xb76b9e631bb4f072u, 0xff17b77dc8687f90u},
    {161, 0xf076c7b8ff59d7b3u, 0x3a4065782caf7d3eu},
    {239, 0x3a04993963807d2au, 0x40f0e0c4f28c5b2fu},
    {240, 0x541f1630fc5e52bau, 0x46f4acb7da50eb4au},
    {241, 0x873388ebb86490ceu, 0x0bee9fcdd44dc4e2u},
    {255, 0x90006e30bb233c01u, 0xa19590d1eed90ddeu},
    {256, 0xb084f1b6decc643fu, 0x1a739bf51003cb33u},
    {512, 0x1d2a8678f8478efeu, 0x920929c7464432bdu},
    {1023, 0x75352bc3864c89a3u, 0xfb8bc25b9eab0657u},
    {1024, 0xa8addeee897e0ab1u, 0x125f09b5c124279cu},
    {1025, 0x4dcd0cfe0b18ff01u, 0x3d7fbe1fbd18c7e2u},
    {1088, 0x1c785a4456e0f578u, 0x6e16942965736a91u},
    {2048, 0x25d6f3468d4df18bu, 0xedfda87ace44e55au},
    {2049, 0x902b5357a62c215cu, 0x081d630332ecb0acu},
    {4096, 0xcfb1b1b7b5f59aaau, 0xc90152ffcc52ae38u},
    {4099, 0x25bcf301d24ac3e4u, 0x277e32fbd6a722ddu},
};

static uint8_t data[4200];

int
main(void)
{
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 167 + (i >> 8) * 13 + 7);
    }
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        port_hash128 h = port_hash(data, golden[i].size_bytes);
        CHECK(h.low == golden[i].low && h.high == golden[i].high);
    }
    for (size_t n = 0; n < 4100; n++) {
        const uint8_t *at = data + n % 37;
        port_hash128 a = port_hash(at, n), b = port_hash_ref(at, n);
        CHECK(a.low == b.low && a.high == b.high);
    }
    for (size_t bit = 0; bit < 8 * 300; bit++) { /* every bit of the input counts */
        port_hash128 before = port_hash(data, 300);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        port_hash128 after = port_hash(data, 300);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(before.low != after.low && before.high != after.high);
    }
    return CHECK_REPORT();
}
