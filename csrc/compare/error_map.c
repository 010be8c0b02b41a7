/* error_map.c -- one pass: each element's error goes to a cell of the picture, and to the list of the worst if it is large enough. */
#include "error_map.h"

#include "compare_blocks.h"

#include <math.h>

typedef struct mapper {
    port_error_map *map;
    double *worst_errors; /* beside map->worst, in falling order */
    double e[PORT_COMPARE_BLOCK], a[PORT_COMPARE_BLOCK];
    uint64_t keys[PORT_COMPARE_BLOCK];
} mapper;

static double
error_of(double e, double a)
{
    if (e == a || (isnan(e) && isnan(a))) {
        return 0;
    }
    double error = fabs(a - e);
    return isnan(error) ? (double)INFINITY : error;
}

static void
keep_worst(mapper *m, double error, int64_t index)
{
    port_error_map *map = m->map;
    int64_t at = map->num_worst;
    if (at == map->most_worst) {
        if (at == 0 || !(error > m->worst_errors[at - 1])) {
            return;
        }
        at--;
    } else {
        map->num_worst++;
    }
    while (at > 0 && error > m->worst_errors[at - 1]) {
        m->worst_errors[at] = m->worst_errors[at - 1];
        map->worst[at] = map->worst[at - 1];
        at--;
    }
    m->worst_errors[at] = error;
    map->worst[at] = index;
}

/* Elements [begin, begin + count) of one row of the matrix. */
static void
map_run(mapper *m, double *row, int64_t col, int64_t num_cols, int64_t index, int64_t count)
{
    int64_t cell = col * m->map->cols / num_cols, next = ((cell + 1) * num_cols + m->map->cols - 1) / m->map->cols;
    for (int64_t i = 0; i < count; i++) {
        if (col + i == next) {
            cell++;
            next = ((cell + 1) * num_cols + m->map->cols - 1) / m->map->cols;
        }
        double error = error_of(m->e[i], m->a[i]);
        row[cell] = error > row[cell] ? error : row[cell];
        if (error > 0) {
            keep_worst(m, error, index + i);
        }
    }
}

static port_status
check(const port_view *expected, const port_view *actual, const port_error_map *map, int64_t rows, int64_t cols, port_error *err)
{
    bool same = expected->ndim == actual->ndim &&
                memcmp(expected->shape, actual->shape, (size_t)expected->ndim * sizeof expected->shape[0]) == 0;
    if (!same) {
        return port_fail(err, PORT_E_SHAPE, "a map of errors needs two tensors of one shape");
    }
    const port_view *views[2] = {expected, actual};
    for (int i = 0; i < 2; i++) {
        bool aligned = (uintptr_t)views[i]->data % port_dtype_size(views[i]->dtype) == 0;
        if (views[i]->dtype == PORT_C64 || !port_view_is_contiguous(views[i]) || !aligned) {
            return port_fail(err, PORT_E_VALUE, "a map of errors needs row-major, aligned tensors of real numbers");
        }
    }
    if (map->rows < 1 || map->cols < 1 || map->rows > rows || map->cols > cols || map->most_worst < 0) {
        return port_fail(err, PORT_E_VALUE, "a map of %lld by %lld cells does not fit a tensor of %lld rows and %lld columns",
                         (long long)map->rows, (long long)map->cols, (long long)rows, (long long)cols);
    }
    return PORT_OK;
}

port_status
port_map_errors(const port_view *expected, const port_view *actual, port_error_map *map, port_error *err)
{
    int64_t cols = expected->ndim > 0 ? expected->shape[expected->ndim - 1] : 1;
    int64_t rows = cols > 0 ? port_view_elems(expected) / cols : 0;
    port_status status = check(expected, actual, map, rows, cols, err);
    if (status != PORT_OK) {
        return status;
    }
    mapper *m = port_alloc(sizeof *m);
    double *worst_errors = port_alloc((size_t)(map->most_worst + 1) * sizeof *worst_errors);
    if (m == NULL || worst_errors == NULL) {
        port_free(m);
        port_free(worst_errors);
        return port_fail(err, PORT_E_NOMEM, "no memory for a map of errors");
    }
    m->map = map;
    m->worst_errors = worst_errors;
    map->num_worst = 0;
    memset(map->cells, 0, (size_t)(map->rows * map->cols) * sizeof map->cells[0]);
    size_t size_e = port_dtype_size(expected->dtype), size_a = port_dtype_size(actual->dtype);
    for (int64_t r = 0; r < rows; r++) {
        double *row = map->cells + r * map->rows / rows * map->cols;
        for (int64_t col = 0, step; col < cols; col += step) {
            step = cols - col < PORT_COMPARE_BLOCK ? cols - col : PORT_COMPARE_BLOCK;
            uint64_t index = (uint64_t)(r * cols + col);
            const char *e = (const char *)expected->data + index * size_e, *a = (const char *)actual->data + index * size_a;
            compare_decode(e, expected->dtype, expected->dtype, step, m->e, m->keys);
            compare_decode(a, actual->dtype, actual->dtype, step, m->a, m->keys);
            map_run(m, row, col, cols, (int64_t)index, step);
        }
    }
    port_free(worst_errors);
    port_free(m);
    return PORT_OK;
}
