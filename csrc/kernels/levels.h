/* levels.h -- kernels whose f32 loops are built once per level of the CPU (vecmath.h): their functions and their rows.
 * Private to csrc/kernels/. */
#ifndef PORT_LEVELS_H
#define PORT_LEVELS_H

#include "loops.h"
#include "vecmath.h"

/* PORT_RUN_LEVELS(name, runner): the functions of the rows below, each runner(call, level).
 * PORT_LEVEL_ROWS(name, check): all float dtypes as "ref"; those computed in f32 also as "avx2" and "avx512". */
#define PORT_RUN_LEVEL(function, runner, level)                                                                      \
    static void function(const port_kernel_call *call)                                                               \
    {                                                                                                                \
        runner(call, level);                                                                                         \
    }
#if PORT_HAVE_AVX2
#define PORT_RUN_LEVELS(name, runner)                                                                                \
    PORT_RUN_LEVEL(name##_run, runner, 0)                                                                            \
    PORT_RUN_LEVEL(name##_run_avx2, runner, 1)                                                                       \
    PORT_RUN_LEVEL(name##_run_avx512, runner, 2)
#define PORT_SIMD_ROWS(name, check, variant, level)                                                                  \
    PORT_ROW(#name, PORT_F32, #variant, level, check, name##_run_##variant),                                         \
        PORT_ROW(#name, PORT_BF16, #variant, level, check, name##_run_##variant),                                    \
        PORT_ROW(#name, PORT_F16, #variant, level, check, name##_run_##variant)
#define PORT_LEVEL_ROWS(name, check)                                                                                 \
    PORT_FLOAT_ROWS(#name, "ref", 0, check, name##_run), PORT_SIMD_ROWS(name, check, avx2, 1),                       \
        PORT_SIMD_ROWS(name, check, avx512, 2)
#else
#define PORT_RUN_LEVELS(name, runner) PORT_RUN_LEVEL(name##_run, runner, 0)
#define PORT_LEVEL_ROWS(name, check) PORT_FLOAT_ROWS(#name, "ref", 0, check, name##_run)
#endif

#endif /* PORT_LEVELS_H */
