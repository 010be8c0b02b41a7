/* numbers.h -- a tensor's elements as C numbers, for handlers that sort, count or transform them. Private to csrc/program/. */
#ifndef PORT_NUMBERS_H
#define PORT_NUMBERS_H

#include "exec.h"

/* Elements as double or as int64, whichever holds every element of the dtype; the other pointer is not to be read. */
typedef struct number_list {
    bool whole;
    const double *f64;
    const int64_t *i64;
} number_list;

/* The elements of a row-major tensor, which live as long as the call. */
port_status numbers_of(op_call *call, const port_tensor *x, number_list *numbers);
/* < 0, 0, > 0: element i comes before, equals, comes after element j. NaN is greatest, and equal to itself. */
int compare_numbers(const number_list *numbers, int64_t i, int64_t j);
/* Room for n doubles or n integers that lives as long as the call. */
port_status new_doubles(op_call *call, int64_t n, double **room);
port_status new_integers(op_call *call, int64_t n, int64_t **room);

/* Whether v lies between the least and the largest number of a dtype of integers; a NaN does not. */
bool dtype_holds(port_dtype dtype, double v);

#endif /* PORT_NUMBERS_H */
