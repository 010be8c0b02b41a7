/* error_map.h -- where two tensors differ: a small picture, and the worst elements. Private to csrc/. */
#ifndef PORT_ERROR_MAP_H
#define PORT_ERROR_MAP_H

#include "../core/core.h"

typedef struct port_error_map {
    int64_t rows, cols;    /* of the picture */
    double *cells;         /* rows * cols: the greatest |a - e| of the elements that fall on the cell; infinite for NaN on one side */
    int64_t most_worst;    /* how many elements are asked for */
    int64_t num_worst;     /* out: how many there are that differ, at most most_worst */
    int64_t *worst;        /* out: their flat indices, the worst first; the first of equal ones first */
} port_error_map;

/* The tensor is taken as a matrix: its last axis against all others. Its rows fall on the picture's rows in equal shares, columns likewise.
 * expected, actual: row-major and aligned, of one shape, real; rows and cols >= 1 and not more than the matrix has.
 * Returns: PORT_OK; SHAPE, VALUE, NOMEM. */
port_status port_map_errors(const port_view *expected, const port_view *actual, port_error_map *map, port_error *err);

#endif /* PORT_ERROR_MAP_H */
