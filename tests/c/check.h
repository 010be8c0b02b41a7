/* check.h -- the C tests' whole framework: CHECK prints what failed and where, and the test goes on. */
#ifndef PORT_CHECK_H
#define PORT_CHECK_H

#include <stdio.h>

static int checks_done, checks_failed;

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        checks_done++;                                                                    \
        if (!(condition)) {                                                               \
            checks_failed++;                                                              \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                                 \
    } while (0)

#define CHECK_REPORT() (printf("  %d checks, %d failed\n", checks_done, checks_failed), checks_failed != 0)

#endif /* PORT_CHECK_H */
